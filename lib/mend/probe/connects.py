"""Where connections lead: to the scratch database, or to a target that they may only read, or to the one that was named."""

from __future__ import annotations

import os
import sys
import weakref

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from mend.probe.sessions import IDENTITY, SYSTEM, driver_connection
from mend.probe.wire import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


SELF_DEADLOCK = "20s"
DRIVERS = ("psycopg2", "psycopg", "psycopg_async", "asyncpg")
KEPT = ("options", "client_encoding", "connect_timeout", "keepalives", "keepalives_idle", "application_name")
LIBPQ_MISLEADING = ("PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR", "PGSSLMODE", "PGSSLROOTCERT", "PGREQUIREAUTH",
                    "PGCHANNELBINDING", "PGTARGETSESSIONATTRS", "PGGSSENCMODE")  # fmt: skip


class Connects:
    """Every connect of every driver goes through here: it is sent elsewhere, restrained or checked, or it is refused."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.scratch: Optional[dict[str, str]] = asked.get("scratch")
        # In scratch only the project's own sessions can block each other: end that, it would last for ever.
        self.settings: dict[str, str] = asked.get("settings") or (
            {"lock_timeout": SELF_DEADLOCK} if self.scratch else {}
        )
        self.expected: Optional[dict[str, Any]] = asked.get("expected")
        self.offline = bool(asked.get("offline"))
        self.opened = 0
        self._ours: Any = weakref.WeakSet()
        if self.scratch:
            self._mislead_libpq(self.scratch)
        for driver, wrap in (("psycopg2", self._psycopg2), ("psycopg", self._psycopg), ("asyncpg", self._asyncpg)):
            try:
                __import__(driver)
            except ImportError:
                continue
            wrap(sys.modules[driver])
        event.listen(Engine, "do_connect", self._known_driver)
        event.listen(Pool, "connect", self._one_of_ours)

    def lead(self, scratch: dict[str, str]) -> None:
        """From now on to another scratch database."""
        self.scratch = scratch
        self._mislead_libpq(scratch)

    @staticmethod
    def _mislead_libpq(scratch: dict[str, str]) -> None:
        """Point libpq's own defaults at the scratch server; python still reads what the project expects in os.environ."""
        for name in LIBPQ_MISLEADING:
            os.unsetenv(name)
        os.putenv("PGHOST", scratch["host"])
        os.putenv("PGPORT", str(scratch.get("port", "5432")))
        os.putenv("PGDATABASE", scratch["dbname"])

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """libpq keywords for a connect that the project asked for."""
        self._must_be_online()
        given = {key: value for key, value in given.items() if value is not None}
        if self.scratch:
            given = {key: value for key, value in given.items() if key in KEPT or key.startswith("async")}
            given.update(self.scratch)
        mine = " ".join("-c %s=%s" % pair for pair in self.settings.items())
        return {**given, "options": ("%s %s" % (given.get("options", ""), mine)).strip()} if mine else given

    def _must_be_online(self) -> None:
        if self.offline:
            raise Refused("env.py opens a connection although only SQL is asked of it (context.is_offline_mode())")

    def _arguments_asyncpg(self, given: dict[str, Any]) -> dict[str, Any]:
        self._must_be_online()
        server_settings = {**(given.get("server_settings") or {}), **self.settings}
        if self.scratch:
            elsewhere = ("dsn", "host", "port", "user", "password", "passfile", "database", "ssl", "direct_tls",
                         "target_session_attrs", "service", "servicefile", "krbsrvname", "gsslib")  # fmt: skip
            given = {key: value for key, value in given.items() if key not in elsewhere}
            names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
            given.update({names[key]: value for key, value in self.scratch.items() if key in names})
            given["ssl"] = self.scratch.get("sslmode", "disable" if self.scratch["host"].startswith("/") else "prefer")
        return {**given, "server_settings": server_settings} if server_settings else given

    def _psycopg2(self, module: Any) -> None:
        original = module.connect

        def connect(
            dsn: Any = None, connection_factory: Any = None, cursor_factory: Any = None, **keywords: Any
        ) -> Any:
            given = {**(module.extensions.parse_dsn(dsn) if dsn else {}), **keywords}
            given["dbname"] = given.pop("database", None) or given.get("dbname")
            raw = original(
                connection_factory=connection_factory, cursor_factory=cursor_factory, **self.arguments(given)
            )
            with raw.cursor(cursor_factory=module.extensions.cursor) as cursor:
                self._vet(raw, *self._asked(cursor))
            raw.rollback()
            return raw

        module.connect = connect

    def _psycopg(self, module: Any) -> None:
        own = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")
        to_dict = module.conninfo.conninfo_to_dict
        sync, asynchronous = module.Connection.connect.__func__, module.AsyncConnection.connect.__func__

        def split(conninfo: str, keywords: dict[str, Any]) -> dict[str, Any]:
            mine = {key: keywords.pop(key) for key in own if key in keywords}
            return {**self.arguments(to_dict(conninfo, **keywords)), **mine}

        def connect(cls: Any, conninfo: str = "", **keywords: Any) -> Any:
            raw = sync(cls, **split(conninfo, keywords))
            with raw.cursor(row_factory=module.rows.tuple_row) as cursor:
                self._vet(raw, *self._asked(cursor))
            if not raw.autocommit:
                raw.rollback()
            return raw

        async def connect_async(cls: Any, conninfo: str = "", **keywords: Any) -> Any:
            raw = await asynchronous(cls, **split(conninfo, keywords))
            async with raw.cursor(row_factory=module.rows.tuple_row) as cursor:
                await cursor.execute(IDENTITY)
                row = await cursor.fetchone()
                await cursor.execute(SYSTEM if row[8] and self.expected else "select null")
                self._vet(raw, row, await cursor.fetchone())
            if not raw.autocommit:
                await raw.rollback()
            return raw

        module.Connection.connect = classmethod(connect)  # type: ignore[arg-type]
        module.AsyncConnection.connect = classmethod(connect_async)  # type: ignore[arg-type]
        module.connect = module.Connection.connect

    def _asyncpg(self, module: Any) -> None:
        original = module.connection.connect

        async def connect(dsn: Any = None, **keywords: Any) -> Any:
            raw = await original(**self._arguments_asyncpg({"dsn": dsn, **keywords} if dsn else keywords))
            row = await raw.fetchrow(IDENTITY)
            self._vet(raw, row, await raw.fetchrow(SYSTEM) if row[8] and self.expected else (None,))
            return raw

        module.connect = module.connection.connect = connect

    def _asked(self, cursor: Any) -> tuple[Any, Any]:
        cursor.execute(IDENTITY)
        row = cursor.fetchone()
        if not (row[8] and self.expected):
            return row, (None,)
        cursor.execute(SYSTEM)
        return row, cursor.fetchone()

    def _vet(self, raw: Any, row: Any, system: Any) -> None:
        """Refuse a connection that is not where it must be; remember the others as ours."""
        self.opened += 1
        if self.scratch and row[0] != self.scratch["dbname"]:
            raise Refused("a connection reached database %r, not the scratch database" % row[0])
        if self.expected:
            there = {"database": row[0], "system_identifier": str(system[0])}
            wanted = {key: str(self.expected[key]) for key in there}
            if there != wanted:
                raise Refused("env.py connected to %s, but the target is %s" % (there, wanted))
        self._ours.add(raw)

    def _known_driver(self, dialect: Any, record: Any, arguments: Any, keywords: Any) -> None:
        if dialect.driver not in DRIVERS:
            raise Refused("mend does not know how to restrain the driver %s+%s" % (dialect.name, dialect.driver))

    def _one_of_ours(self, adapted: Any, record: Any) -> None:
        if driver_connection(adapted) not in self._ours:
            raise Refused("a connection was opened in a way that mend could not see")
