"""A project's own alembic, run by the project's own interpreter, telling what it does as JSON lines.

mend never imports a project: it starts this file with the project's python, writes one JSON request to its standard
input and reads events from its standard output.  Self-contained on purpose: standard library, alembic and sqlalchemy
only; Python 3.9+, Alembic 1.7+, SQLAlchemy 1.4+, psycopg2, psycopg or asyncpg.

Actions: ``env`` (who does env.py connect to?), ``replay`` (record a revision in a scratch database), ``trial`` (try its
statements on a copy of the target's schema), ``upgrade`` (the real thing, statement by statement, on the real target).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
import weakref
from argparse import Namespace
from contextlib import contextmanager, suppress
from pathlib import Path

if __name__ == "__main__" and sys.path and Path(sys.path[0]) == Path(__file__).resolve().parent:
    del sys.path[0]  # else the project's `import settings` would find mend's

import alembic
import sqlalchemy
from alembic.config import Config
from alembic.operations import base as alembic_operations
from alembic.operations import batch as alembic_batch
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Optional

    Snapshot = dict[tuple[str, str], str]

SELF_DEADLOCK = "20s"
DRIVERS = ("psycopg2", "psycopg", "psycopg_async", "asyncpg")
KEPT = ("options", "client_encoding", "connect_timeout", "keepalives", "keepalives_idle", "application_name")
LIBPQ_MISLEADING = ("PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR", "PGSSLMODE", "PGSSLROOTCERT", "PGREQUIREAUTH",
                    "PGCHANNELBINDING", "PGTARGETSESSIONATTRS", "PGGSSENCMODE")  # fmt: skip
IDENTITY = """select current_database(), (select oid from pg_catalog.pg_database where datname = current_database()),
 current_user, pg_catalog.inet_server_addr(), pg_catalog.inet_server_port(), pg_catalog.pg_postmaster_start_time(),
 pg_catalog.current_setting('search_path'), pg_catalog.current_setting('server_version_num'),
 pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute')"""
SYSTEM = "select system_identifier from pg_catalog.pg_control_system()"

_LEXEMES = re.compile(
    r"""(?P<quoted>"(?:[^"]|"")*")|(?P<comment>--[^\n]*|/\*.*?\*/)"""
    r"""|(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$)""",
    re.DOTALL,
)
NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
QUALIFIED = NAME + r"(?:\s*\.\s*" + NAME + ")*"
READS = {"select", "with", "values", "table", "show", "explain", "fetch", "move", "declare", "close"}
CONTROLS = {"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "set", "reset", "lock",
            "discard", "listen", "unlisten", "deallocate", "checkpoint"}  # fmt: skip
ROW_CHANGES = {"insert", "update", "delete", "merge", "copy", "truncate", "select", "with", "values", "call", "analyze"}
HARMLESS = {
    "random", "clock_timestamp", "timeofday", "gen_random_uuid", "uuid_generate_v4", "uuidv4", "uuidv7", "set_config",
    "current_setting", "currval", "lastval", "txid_current", "pg_current_xact_id", "pg_sleep", "pg_sleep_for",
    "pg_advisory_lock", "pg_advisory_xact_lock", "pg_try_advisory_lock", "pg_try_advisory_xact_lock",
    "pg_advisory_unlock", "pg_advisory_unlock_all", "pg_advisory_lock_shared", "pg_relation_size", "pg_table_size",
    "pg_total_relation_size", "pg_database_size", "pg_control_system", "pg_backend_pid", "pg_locks",
}  # fmt: skip
DUPLICATE = {"42701", "42P07", "42710", "42P06", "42723", "42P16", "42P04", "55000"}
UNDEFINED = {"42703", "42P01", "42704", "3F000", "42883"}


class Refused(RuntimeError):
    """The probe would not go on: it cannot be sure where a connection leads, or what would run."""


class Enough(BaseException):
    """The trial has seen its revision; everything is thrown away."""


class Wire:
    """Events to mend on the real standard output; the project's own prints go to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._in = os.fdopen(os.dup(0), encoding="utf-8")
        os.dup2(2, 1)
        quiet = os.open(os.devnull, os.O_RDONLY)
        os.dup2(quiet, 0)  # a project that asks a question gets end of file, not a hang

    def request(self) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads(self._in.readline())
        return asked

    def tell(self, what: str, /, **facts: Any) -> None:
        self._out.write(json.dumps({"event": what, **facts}, default=str) + "\n")
        self._out.flush()

    def ask(self, what: str, /, **facts: Any) -> None:
        """Tell, and wait until mend has it on disk; end of file means that mend is gone."""
        self.tell(what, wait=True, **facts)
        if self._in.readline().strip() != "go":
            raise Refused("mend ended or said stop; nothing further was sent")


# --- reading SQL ------------------------------------------------------------------------------------------------------


def skeleton(sql: str) -> str:
    """The statement without comments and with empty strings, so that words in it are really words."""
    return _LEXEMES.sub(lambda m: m.group("quoted") or (" " if m.group("comment") else "''"), sql)


def parts(bare: str) -> list[str]:
    """The single statements of a skeleton; a body in BEGIN ATOMIC is left whole."""
    if re.search(r"\bbegin\s+atomic\b", bare, re.IGNORECASE):
        return [bare.strip()]
    return [part.strip() for part in bare.split(";") if part.strip()]


def first_word(part: str) -> str:
    found = re.match(r"[\s(]*([A-Za-z]+)", part)
    return found.group(1).lower() if found else ""


def kind_of(bare: str) -> str:
    """``read``, ``control`` or ``statement``; a mixture takes the strongest."""
    kinds = {_kind_of_part(part) for part in parts(bare)}
    return "statement" if "statement" in kinds else "read" if kinds == {"read"} else "control"


def _kind_of_part(part: str) -> str:
    word = first_word(part)
    if word in CONTROLS:
        return "control"
    if word not in READS:
        return "statement"
    low = part.lower()
    writes = re.search(r"\b(insert\s+into|delete\s+from|merge\s+into|update\s+\S+(\s+as)?(\s+\w+)?\s+set)\b", low)
    into = word in ("select", "with") and re.search(r"\binto\b", low)
    return "statement" if into or (word in ("with", "explain") and writes) else "read"


def ends_transaction(bare: str) -> bool:
    words = [part.lower().split() for part in parts(bare)]
    return any(w[0] in ("commit", "end", "rollback", "abort") and "to" not in w[1:4] for w in words if w)


def changes_rows_only(bare: str) -> bool:
    return all(first_word(part) in ROW_CHANGES | CONTROLS for part in parts(bare))


def normal(sql: str) -> str:
    """A statement for comparing: white space and the last semicolon do not count."""
    return " ".join(sql.split()).rstrip("; ")


def reads_user_tables(bare: str) -> bool:
    named = re.findall(r"\b(?:from|join)\s+(?:only\s+)?(" + QUALIFIED + r")(?!\s*[\w.$\"]*\()", bare, re.IGNORECASE)
    return any(not re.match(r'"?(pg_|information_schema)', name, re.IGNORECASE) for name in named)


# --- SQL with its values written in -------------------------------------------------------------------------------------


def render(raw: Any, statement: str, parameters: Any, context: Any) -> str:
    """The exact text that reaches the server; raises TypeError, ValueError or the driver's error where it has none."""
    if not parameters and context is not None and context.execution_options.get("no_parameters"):
        return statement
    module = type(raw).__mro__[-2].__module__ + " " + type(raw).__module__
    if "psycopg2" in module:
        text = raw.cursor().mogrify(statement, parameters)
        encodings = sys.modules["psycopg2.extensions"].encodings
        return text.decode(encodings[raw.encoding]) if isinstance(text, bytes) else str(text)
    if "asyncpg" in module:
        return _with_literals(statement, parameters)
    import psycopg

    cursor = psycopg.AsyncClientCursor if isinstance(raw, psycopg.AsyncConnection) else psycopg.ClientCursor
    return str(cursor(raw).mogrify(statement, parameters))


def _with_literals(statement: str, parameters: Any) -> str:
    values = list(parameters or ())
    if re.search(r"\$\d", statement):
        return re.sub(r"('(?:[^']|'')*')|\$(\d+)", lambda m: m.group(1) or literal(values[int(m.group(2)) - 1]), statement)
    given = iter(values)
    return re.sub(r"%s|%%", lambda m: "%" if m.group() == "%%" else literal(next(given)), statement) if values else statement


def literal(value: Any) -> str:
    """One value as SQL; raises TypeError for a type that is not known, so that nothing is guessed."""
    import datetime
    import decimal
    import uuid

    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, decimal.Decimal)):
        return str(value)
    if isinstance(value, float):
        return "'%r'::float8" % value
    if isinstance(value, (bytes, bytearray)):
        return "'\\x%s'::bytea" % bytes(value).hex()
    if isinstance(value, datetime.timedelta):
        return "'%d days %d.%06d seconds'::interval" % (value.days, value.seconds, value.microseconds)
    if isinstance(value, (list, tuple)):
        return "array[%s]" % ", ".join(map(literal, value))
    if isinstance(value, (str, datetime.date, datetime.time, uuid.UUID)):
        text = value if isinstance(value, str) else str(value)
        return ("E'%s'" % text.replace("\\", "\\\\").replace("'", "''")) if "\\" in text else "'%s'" % text.replace("'", "''")
    raise TypeError("no literal for %s" % type(value).__name__)


# --- where connections lead ---------------------------------------------------------------------------------------------


class Connects:
    """Every connect of every driver goes through here: it is sent elsewhere, restrained or checked, or it is refused."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.scratch: Optional[dict[str, str]] = asked.get("scratch")
        # In scratch only the project's own sessions can block each other: end that, it would last for ever.
        self.settings: dict[str, str] = asked.get("settings") or ({"lock_timeout": SELF_DEADLOCK} if self.scratch else {})
        self.expected: Optional[dict[str, Any]] = asked.get("expected")
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
        given = {key: value for key, value in given.items() if value is not None}
        if self.scratch:
            given = {key: value for key, value in given.items() if key in KEPT or key.startswith("async")}
            given.update(self.scratch)
        mine = " ".join("-c %s=%s" % pair for pair in self.settings.items())
        return {**given, "options": ("%s %s" % (given.get("options", ""), mine)).strip()} if mine else given

    def _arguments_asyncpg(self, given: dict[str, Any]) -> dict[str, Any]:
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

        def connect(dsn: Any = None, connection_factory: Any = None, cursor_factory: Any = None, **keywords: Any) -> Any:
            given = {**(module.extensions.parse_dsn(dsn) if dsn else {}), **keywords}
            given["dbname"] = given.pop("database", None) or given.get("dbname")
            raw = original(connection_factory=connection_factory, cursor_factory=cursor_factory, **self.arguments(given))
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


def driver_connection(adapted: Any) -> Any:
    """The driver's own connection under SQLAlchemy's wrappers, from a pool's or a Connection's ``.connection``."""
    for name in ("driver_connection", "dbapi_connection"):
        inner = getattr(adapted, name, None)
        if inner is not None:
            return inner
    return adapted


def sqlstate(error: Any) -> str:
    origin = getattr(error, "orig", None) or error
    return str(getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or "")


def _plain_cursor(connection: Any) -> Any:
    """A cursor that gives tuples, whatever the project has made the default."""
    raw = driver_connection(connection)
    psycopg2, psycopg = sys.modules.get("psycopg2"), sys.modules.get("psycopg")
    if psycopg2 and isinstance(raw, psycopg2.extensions.connection):
        return connection.cursor(cursor_factory=psycopg2.extensions.cursor)
    cursor = connection.cursor()
    if psycopg and isinstance(raw, psycopg.Connection):
        cursor.row_factory = psycopg.rows.tuple_row
    return cursor


def query(conn: Any, sql: str) -> list[Any]:
    """Ask on the same session without SQLAlchemy noticing, so that uncommitted work is seen."""
    cursor = _plain_cursor(conn.connection)
    try:
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()


# --- what a revision does -----------------------------------------------------------------------------------------------


class Recorder:
    """The statements of one revision's upgrade(), each with its operation, its transaction and what it changed."""

    def __init__(self, asked: dict[str, Any], wire: Wire) -> None:
        self.wire = wire
        self.revision: str = asked["revision"]
        self.snapshot_sql: str = asked.get("snapshot_sql", "")
        self.now = ""  # the revision that runs
        self.inside = False  # in upgrade() of the revision of interest
        self.completed = False
        self.seen: Snapshot = {}
        self.statements: list[dict[str, Any]] = []
        self.reads: list[str] = []
        self.looks = False  # upgrade() reads the catalog: what it does depends on what it finds
        self.warnings: list[str] = []
        self.draft: Optional[dict[str, Any]] = None
        self.failed_sql = ""
        self._label: Optional[list[str]] = None
        self._counted: Optional[list[str]] = None
        self._operation = 0
        self._segment, self._boundary = 1, False
        self._settings: list[str] = []
        self._primary: Any = None  # alembic's connection: all snapshots are taken on it
        self._stale = False  # `seen` is not what the primary session would see now
        self._foreign: Optional[dict[str, Any]] = None  # the last statement that another session sent
        self._savepoints: list[tuple[str, int]] = []
        self._volatile: dict[str, bool] = {}

    def listen(self) -> None:
        for name in ("before_cursor_execute", "after_cursor_execute", "commit", "rollback"):
            event.listen(Engine, name, getattr(self, "_" + name))
        base: Any = getattr(alembic_operations, "AbstractOperations", alembic_operations.Operations)
        invoke, flush = base.invoke, alembic_batch.BatchOperationsImpl.flush

        def labelled_invoke(operations: Any, operation: Any) -> Any:
            with self._during(*label_of(operation)):
                return invoke(operations, operation)

        def labelled_flush(impl: Any) -> Any:
            with self._during("batch_alter_table", "batch_alter_table " + dotted(impl.schema, impl.table_name)):
                return flush(impl)

        base.invoke = labelled_invoke
        alembic_batch.BatchOperationsImpl.flush = labelled_flush  # type: ignore[assignment,method-assign]

    def enter(self, conn: Any) -> None:
        self.inside, self._primary = True, conn
        if self.snapshot_sql:
            self.look()

    def follow(self, upgrade: Callable[..., Any], keywords: dict[str, Any]) -> None:
        """Run upgrade(); what happens while an error unwinds is no longer part of it."""
        try:
            upgrade(**keywords)
            self.completed = True
            self._settle()
        finally:
            self.inside = False

    def look(self) -> Snapshot:
        """Take a snapshot of the catalog as alembic's session sees it.

        Never on another session: reading definitions takes locks, and alembic's session holds stronger ones.
        """
        self.seen = {(kind, identity): text for kind, identity, text in query(self._primary, self.snapshot_sql)}
        self._stale = False
        return self.seen

    def _settle(self) -> None:
        """Give what another session has committed by now to the last statement that it sent."""
        if self._foreign is not None:
            before = self.seen
            self._foreign["changes"] = changed(before, self.look())
            self._foreign = None

    @contextmanager
    def _during(self, op: str, says: str) -> Iterator[None]:
        """The outermost operation owns the statements: a custom one is made of others."""
        outermost = self._label is None
        if outermost:
            self._label = [op, says]
        try:
            yield
        finally:
            if outermost:
                self._label = None

    def _before_cursor_execute(self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        self.draft = None
        if not self.inside:
            return
        bare = skeleton(statement)
        kind = kind_of(bare)
        if kind == "read" and not self._has_side_effect(conn, bare):
            if reads_user_tables(bare):
                self.reads.append(normal(statement))
            elif re.search(r"\b(pg_|information_schema\.)", bare, re.IGNORECASE):
                self.looks = True
            return
        sql, rendered = self._rendered(conn, statement, parameters, context, many)
        if kind == "control":
            self._control(bare, sql)
            return
        if self.snapshot_sql:
            self._settle()
            if self._stale:
                self.look()
        self.failed_sql = sql
        self.draft = self._drafted(conn, sql, rendered, bare)

    def _drafted(self, conn: Any, sql: str, rendered: bool, bare: str) -> dict[str, Any]:
        label = self._label or ["statement", ""]
        if self._counted is not label:
            self._operation += 1
            self._counted = label
        autocommit = bool(getattr(getattr(conn.connection, "dbapi_connection", conn.connection), "autocommit", False))
        alone = autocommit or self._is_foreign(conn)
        if self.statements and (self._boundary or alone):
            self._segment += 1
        self._boundary = alone or ends_transaction(bare)
        says = label[1] or "%s %s" % (label[0], normal(sql)[:60])
        path = query(conn, "select pg_catalog.current_setting('search_path')")[0][0] if self.snapshot_sql else ""
        return {
            "operation": self._operation, "op": label[0], "says": says, "sql": sql.strip().rstrip("; "), "rendered": rendered,
            "autocommit": autocommit, "segment": self._segment, "data": changes_rows_only(bare), "search_path": path,
            "settings": list(self._settings), "changes": [], "verdict": "", "detail": "",
        }  # fmt: skip

    def _after_cursor_execute(self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        draft, self.draft, self.failed_sql = self.draft, None, ""
        if draft is None:
            return
        self.statements.append(draft)
        if self._is_foreign(conn):
            self._foreign = draft if self.snapshot_sql else None
        elif self.snapshot_sql:
            before = self.seen
            draft["changes"] = changed(before, self.look())

    def _is_foreign(self, conn: Any) -> bool:
        return self._primary is not None and driver_connection(conn.connection) is not driver_connection(self._primary.connection)

    def _rendered(self, conn: Any, statement: str, parameters: Any, context: Any, many: bool) -> tuple[str, bool]:
        raw = driver_connection(conn.connection)
        dbapi_error = conn.dialect.dbapi.Error
        try:
            rows = parameters if many else [parameters]
            return ";\n".join(render(raw, statement, row, context).strip().rstrip(";") for row in rows), True
        except (TypeError, ValueError, KeyError, IndexError, dbapi_error):
            return statement, False

    def _has_side_effect(self, conn: Any, bare: str) -> bool:
        """Does a query call a volatile function that is not known to be harmless?"""
        names = set(re.findall(r"\b([a-z_]\w*)\s*\(", bare.lower())) - HARMLESS
        unknown = sorted(names - set(self._volatile))
        if unknown:
            listed = ", ".join("'%s'" % name for name in unknown)
            rows = query(conn, "select distinct proname::text from pg_catalog.pg_proc where provolatile = 'v' and proname in (%s)" % listed)
            self._volatile.update(dict.fromkeys(unknown, False), **{row[0]: True for row in rows})
        return any(self._volatile.get(name) for name in names)

    def _control(self, bare: str, sql: str) -> None:
        words = normal(bare).lower().split() or [""]
        if ends_transaction(bare):
            self._boundary = True
        elif words[0] in ("savepoint", "release", "rollback"):
            self._mark_savepoint(words)
        elif words[0] in ("set", "reset"):
            self._settings.append(normal(sql))

    def _commit(self, conn: Any) -> None:
        if self.inside and not self._is_foreign(conn):
            self._boundary = True

    def _rollback(self, conn: Any) -> None:
        if self.inside and self.statements and not self._is_foreign(conn):
            kept = [s for s in self.statements if s["autocommit"] or s["segment"] != self._segment or self._boundary]
            self._forget(kept)

    def _mark_savepoint(self, words: list[str]) -> None:
        """Savepoints by their text, SQLAlchemy's own as well as the user's."""
        if words[0] == "savepoint":
            self._savepoints.append((words[-1], len(self.statements)))
            return
        known = [name for name, _ in self._savepoints]
        if words[-1] in known:
            place = len(known) - 1 - known[::-1].index(words[-1])
            count = self._savepoints[place][1]
            del self._savepoints[place + (words[0] == "rollback"):]
            if words[0] == "rollback":
                self._forget(self.statements[:count])

    def _forget(self, kept: list[dict[str, Any]]) -> None:
        if len(kept) != len(self.statements):
            self.warnings.append("upgrade() itself rolls %d of its statements back" % (len(self.statements) - len(kept)))
        self.statements = kept
        self._stale = True


def changed(old: Snapshot, new: Snapshot) -> list[list[Any]]:
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [[kind, identity, old.get((kind, identity)), new.get((kind, identity))] for kind, identity in keys]


def dotted(*names: Any) -> str:
    return ".".join(str(name) for name in names if name is not None and str(name))


def label_of(operation: Any) -> tuple[str, str]:
    """An operation's name as in a revision file, and what it is about; ('execute', '') takes the SQL's own words."""
    op = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"(SQL)?Op$", "", type(operation).__name__)).lower()
    if op == "execute":
        return op, ""
    table = getattr(operation, "table_name", None) or getattr(operation, "source_table", None) or getattr(operation, "table", None)
    table = dotted(getattr(operation, "schema", None) or getattr(operation, "source_schema", None), table)
    column = getattr(operation, "column_name", None) or getattr(getattr(operation, "column", None), "name", None)
    name = getattr(operation, "index_name", None) or getattr(operation, "constraint_name", None)
    if column:
        return op, "%s %s" % (op, dotted(table, column))
    return op, " ".join(filter(None, [op, str(name) if name else "", "on" if name and table else "", table]))


# --- trying a revision on a copy of the target --------------------------------------------------------------------------

_IF_NOT = r"(?:if\s+not\s+exists\s+)?"
_ALTER = r"alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<t>" + QUALIFIED + r")\s+add\s+"
OBSTACLES = [
    (r"create\s+(?:unlogged\s+)?table\s+" + _IF_NOT + "(?P<t>" + QUALIFIED + ")", "drop table {t} cascade"),
    (r"create\s+(?:unique\s+)?index\s+(?:concurrently\s+)?" + _IF_NOT + "(?!on\b)(?P<n>" + NAME + r")\s+on\s+(?:only\s+)?(?P<t>" + QUALIFIED + ")",
     "drop index {schema}{n} cascade"),
    (r"create\s+type\s+(?P<t>" + QUALIFIED + ")", "drop type {t} cascade"),
    (r"create\s+domain\s+(?P<t>" + QUALIFIED + ")", "drop domain {t} cascade"),
    (r"create\s+sequence\s+" + _IF_NOT + "(?P<t>" + QUALIFIED + ")", "drop sequence {t} cascade"),
    (r"create\s+(?:or\s+replace\s+)?view\s+(?P<t>" + QUALIFIED + ")", "drop view {t} cascade"),
    (r"create\s+materialized\s+view\s+" + _IF_NOT + "(?P<t>" + QUALIFIED + ")", "drop materialized view {t} cascade"),
    (r"create\s+schema\s+" + _IF_NOT + "(?P<t>" + NAME + ")", "drop schema {t} cascade"),
    (r"create\s+extension\s+" + _IF_NOT + "(?P<t>" + NAME + ")", "drop extension {t} cascade"),
    (r"create\s+(?:or\s+replace\s+)?function\s+(?P<t>" + QUALIFIED + ")", "drop function {t} cascade"),
    (r"create\s+(?:or\s+replace\s+)?(?:constraint\s+)?trigger\s+(?P<n>" + NAME + r")\s.*?\son\s+(?P<t>" + QUALIFIED + ")", "drop trigger {n} on {t} cascade"),
    (r"create\s+policy\s+(?P<n>" + NAME + r")\s+on\s+(?P<t>" + QUALIFIED + ")", "drop policy {n} on {t}"),
    (_ALTER + r"constraint\s+(?P<n>" + NAME + ")", "alter table {t} drop constraint {n} cascade"),
    (_ALTER + r"(?:column\s+)?" + _IF_NOT + r"(?!foreign\b|unique\b|primary\b|check\b|exclude\b)(?P<n>" + NAME + ")", "alter table {t} drop column {n} cascade"),
]  # fmt: skip


def obstacle(sql: str) -> str:
    """The statement that removes what stands in the way of this one; '' where none is known."""
    bare = skeleton(sql).strip()
    for pattern, removal in OBSTACLES:
        found = re.match(pattern, bare, re.IGNORECASE | re.DOTALL)
        if found:
            names = found.groupdict()
            schema = re.match("(" + NAME + r")\s*\.", names["t"])
            return removal.format(t=names["t"], n=names.get("n"), schema=schema.group(1) + "." if schema else "")
    return ""


def _adds_value(bare: str) -> bool:
    return re.search(r"\badd\s+value\b", bare, re.IGNORECASE) is not None


def _drops(bare: str) -> bool:
    return re.match(r"\s*(drop\b|alter\s+table\b.*\sdrop\s)", bare, re.IGNORECASE | re.DOTALL) is not None


class Trial:
    """Tries each statement of the revision on a schema-only copy of the target.

    What changes the catalog had not run.  What meets its own object ("already exists") is made afresh: the object is
    dropped and the statement run, so that the copy follows the revision and mend can compare definitions.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        event.listen(Engine, "do_execute", self._do_execute)
        event.listen(Engine, "do_executemany", self._do_execute)
        event.listen(Engine, "do_execute_no_params", lambda cursor, statement, context: self._do_execute(cursor, statement, None, context))

    def _do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> Optional[bool]:
        draft, conn = self.recorder.draft, context.root_connection
        if draft is None or self.recorder._is_foreign(conn):
            return None
        many = isinstance(parameters, (list, tuple)) and bool(parameters) and isinstance(parameters[0], (list, tuple, dict))
        plain = re.sub(r"(index\s+)concurrently\s", r"\1", statement, flags=re.IGNORECASE)

        def run(sql: str) -> None:
            if many:
                cursor.executemany(sql, parameters)
            elif parameters is None:
                cursor.execute(sql)
            else:
                cursor.execute(sql, parameters)

        if draft["autocommit"]:
            query(conn, "begin")
        try:
            self._attempt(conn, draft, run, plain)
        finally:
            if draft["autocommit"]:
                query(conn, "commit")
        return True

    def _attempt(self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str) -> None:
        if not re.match(r"(vacuum|reindex|cluster|alter\s+system|create\s+database|drop\s+database)\b", skeleton(sql).strip(), re.IGNORECASE):
            before = dict(self.recorder.seen)
            error = self._in_savepoint(conn, lambda: run(sql))
            if error is None:
                self._succeeded(conn, draft, run, sql, before)
            else:
                self._failed(conn, draft, run, sql, error)
        else:
            draft.update(verdict="DATA", detail="cannot be tried in a scratch database; it leaves no trace in the catalog")

    def _succeeded(self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str, before: Snapshot) -> None:
        differences = changed(before, self.recorder.look())
        twin = self._twin(differences, before, sql)
        if twin:
            self._afresh(conn, draft, run, sql, twin)
        elif not differences and obstacle(sql) and re.search(r"\bif\s+not\s+exists\b", skeleton(sql), re.IGNORECASE):
            self._afresh(conn, draft, lambda text: run(re.sub(r"if\s+not\s+exists\s", "", text, flags=re.IGNORECASE)), sql, obstacle(sql))
        elif not differences and not draft["data"]:
            draft.update(verdict="DONE", detail="run on a copy of the target it changes nothing: what it sets is set already")
        self._keep_changes(before, draft)

    def _keep_changes(self, before: Snapshot, draft: dict[str, Any]) -> None:
        """After a plain success `seen` must be the state before, for the difference is taken when the statement returns."""
        if not draft.get("afresh"):
            self.recorder.seen = before

    def _twin(self, differences: list[list[Any]], before: Snapshot, sql: str) -> str:
        """An unnamed constraint is made a second time under another name: find the first."""
        if not re.search(r"\badd\s+(foreign|unique|primary|check|exclude)\b", skeleton(sql), re.IGNORECASE):
            return ""
        for kind, identity, old, new in differences:
            table = re.sub(r"\." + NAME + "$", "", identity)
            for (other_kind, other), text in before.items():
                if kind == "constraint" == other_kind and old is None and text == new and re.sub(r"\." + NAME + "$", "", other) == table:
                    return "alter table %s drop constraint %s cascade, drop constraint %s cascade" % (
                        table, other[len(table) + 1:], identity[len(table) + 1:])  # fmt: skip
        return ""

    def _failed(self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str, error: BaseException) -> None:
        code, bare = sqlstate(error), skeleton(sql)
        why = "SQLSTATE %s: %s" % (code, (str(error).strip().splitlines() or [""])[0])
        if code in DUPLICATE and _adds_value(bare):
            draft.update(verdict="DONE", detail="the enum has this value")
        elif code in DUPLICATE and obstacle(sql):
            self._afresh(conn, draft, run, sql, obstacle(sql))
        elif code in UNDEFINED and _drops(bare):
            draft.update(verdict="DONE", detail="what it drops is gone")
        elif code in UNDEFINED and self._new_name_exists(bare):
            draft.update(verdict="DONE", detail="the old name is gone, the new one is there")
        else:
            draft.update(verdict="UNTRIED", detail="it could not be tried on a copy of the target: %s" % why)

    def _new_name_exists(self, bare: str) -> bool:
        found = re.search(r"\brename\s(?:.*\s)?to\s+(" + NAME + r")\s*;?\s*$", bare, re.IGNORECASE | re.DOTALL)
        return found is not None and any(identity.split(".")[-1] == found.group(1) for _, identity in self.recorder.seen)

    def _afresh(self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str, removal: str) -> None:
        """Remove what is in the way and run the statement again."""

        def both() -> None:
            query(conn, removal)
            self.recorder.look()
            run(sql)

        kept = dict(self.recorder.seen)
        error = self._in_savepoint(conn, both) if removal else None
        if removal and error is None:
            draft["afresh"] = True
            return
        self.recorder.seen = kept
        why = "it could not be made afresh: %s" % str(error).strip().splitlines()[0] if error else "mend does not know how to compare it"
        draft.update(afresh=True, verdict="DIFFERENT", detail="something of that name is there, and " + why)

    @staticmethod
    def _in_savepoint(conn: Any, act: Callable[[], None]) -> Optional[BaseException]:
        query(conn, "savepoint mend_try")
        try:
            act()
        except conn.dialect.dbapi.Error as error:
            query(conn, "rollback to savepoint mend_try")
            return error if isinstance(error, BaseException) else None
        finally:
            query(conn, "release savepoint mend_try")
        return None


# --- the actions --------------------------------------------------------------------------------------------------------


class Project:
    """alembic's view of the project: its configuration, its scripts, and env.py run with a function of ours."""

    def __init__(self, asked: dict[str, Any], wire: Wire) -> None:
        self.wire, self.asked = wire, asked
        ini = asked["alembic_ini"]
        options = Namespace(config=ini, name="alembic", x=asked.get("x") or [], raiseerr=False, cmd=None, sql=False, tag=None, quiet=False)
        pyproject = Path(ini).parent / "pyproject.toml"
        more = {"toml_file": str(pyproject)} if pyproject.exists() and "toml_file" in inspect.signature(Config).parameters else {}
        self.config = Config(ini, cmd_opts=options, **more)  # type: ignore[arg-type]
        self.script = ScriptDirectory.from_config(self.config)

    def run(self, work: Callable[[Any, Any], Any], destination: str, **options: Any) -> None:
        with EnvironmentContext(self.config, self.script, fn=work, as_sql=False, destination_rev=destination, tag=None, **options):
            self.script.run_env()


def modules() -> list[list[str]]:
    """The project's own files that were imported, with their digests: a change of one makes a cached replay stale."""
    foreign = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    found = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        inner = file.startswith(foreign) or "site-packages" in file or "dist-packages" in file or file == __file__
        if file.endswith(".py") and not inner and Path(file).is_file():
            found.append([str(Path(file).absolute()), hashlib.sha256(Path(file).read_bytes()).hexdigest()])
    return sorted(found)


def versions() -> dict[str, str]:
    return {"alembic": alembic.__version__, "sqlalchemy": sqlalchemy.__version__, "python": sys.version.split()[0]}


def tell_environment(project: Project, connects: Connects) -> None:
    """Action ``env``: where does env.py lead?  Writes that it would make on the way are noted and not sent."""
    unsent: list[str] = []
    contexts: list[dict[str, Any]] = []

    def withhold(cursor: Any, statement: str, parameters: Any, context: Any) -> Optional[bool]:
        if kind_of(skeleton(statement)) != "statement":
            return None
        unsent.append(normal(statement))
        return True

    def work(heads: Any, context: Any) -> list[Any]:
        contexts.append({**describe(context), "heads": list(heads)})
        return []

    event.listen(Engine, "do_execute", withhold)
    event.listen(Engine, "do_execute_no_params", lambda cursor, statement, context: withhold(cursor, statement, None, context))
    project.run(work, "heads", dont_mutate=True)
    if not contexts:
        raise Refused("env.py ran, but it never called context.run_migrations()")
    project.wire.tell("environment", contexts=contexts, unsent=unsent, connections=connects.opened, **versions())


def describe(context: Any) -> dict[str, Any]:
    """A migration context: whom it is connected to and how it was configured."""
    row = query(context.connection, IDENTITY)[0]
    names = ("database", "database_oid", "role", "server_address", "server_port", "started_at", "search_path", "version_num", "may_control")
    system = query(context.connection, SYSTEM)[0][0] if row[8] else None
    return {
        **dict(zip(names, row)),  # noqa: B905 python 3.9
        "system_identifier": None if system is None else str(system),
        "version_table": context.version_table,
        "version_table_schema": context.version_table_schema,
        "transaction_per_migration": bool(context._transaction_per_migration),
        "in_external_transaction": bool(context._in_external_transaction),
        "dialect": context.dialect.name,
        "driver": context.dialect.driver,
    }


def tell_replay(project: Project, recorder: Recorder) -> None:
    """Actions ``replay`` and ``trial``: come to the revision's parents, run the revision, tell what it does."""
    asked, wire = project.asked, project.wire
    parents, trial = asked["parents"], asked["action"] == "trial"
    recorder.listen()
    if trial:
        Trial(recorder)
        MigrationContext.get_current_heads = lambda self: tuple(parents)  # type: ignore[method-assign]
    else:
        start_at(parents)

    def work(heads: Any, context: Any) -> list[Any]:
        wire.tell("context", version_table=context.version_table, version_table_schema=context.version_table_schema)
        steps = list(project.script._upgrade_revs(recorder.revision, heads))
        if [step.revision.revision for step in steps] != [recorder.revision]:
            raise Refused("alembic would not run revision %s alone" % recorder.revision)
        steps[0].migration_fn = _watched(steps[0].migration_fn, context, recorder, trial)
        return steps

    with suppress(Enough):
        project.run(work, recorder.revision)
    tell_recorded(recorder)
    wire.tell("done", modules=modules(), **versions())


def _watched(upgrade: Callable[..., Any], context: Any, recorder: Recorder, trial: bool) -> Callable[..., Any]:
    def run(**keywords: Any) -> None:
        if recorder.now:
            recorder.warnings.append("env.py runs this revision several times: the first is shown")
            upgrade(**keywords)
            return
        recorder.now = recorder.revision
        recorder.enter(context.connection)
        recorder.wire.tell("base", rows=[[kind, name, text] for (kind, name), text in sorted(recorder.seen.items())])
        recorder.follow(upgrade, keywords)
        if trial:
            raise Enough

    return run


def build_parents(project: Project, recorder: Recorder) -> None:
    """Run the history up to the revision's parents.

    Each revision is committed on the driver, whatever env.py does about transactions: a commit that an earlier revision makes
    by itself, or one that env.py never makes, must not be taken for a fault of the revision of interest.
    """
    parents = project.asked["parents"]
    start_at(project.asked.get("start") or [])

    def committed(upgrade: Callable[..., Any], identity: str, context: Any) -> Callable[..., Any]:
        def run(**keywords: Any) -> None:
            recorder.now = identity
            revive_transaction(context)
            upgrade(**keywords)
            context.connection.connection.commit()

        return run

    def work(heads: Any, context: Any) -> Iterator[Any]:
        for parent in parents:
            steps = list(project.script._upgrade_revs(parent, heads))
            for number, step in enumerate(steps, 1):
                identity = step.revision.revision
                project.wire.tell("revision", revision=identity, number=number, of=len(steps) + 1)
                step.migration_fn = committed(step.migration_fn, identity, context)
                yield step
            heads = context.get_current_heads()

    project.run(work, parents[-1])


def revive_transaction(context: Any) -> None:
    """Give alembic a living transaction where an earlier revision ended it, or where env.py kept it from beginning one."""
    if context._transaction is None or not context._transaction.is_active:
        context._transaction = context.connection.get_transaction() or context.connection.begin()


def start_at(revisions: list[str]) -> None:
    """Have alembic find these version rows, and put them there: what an earlier run left out of the table is made good."""
    _make_version_schema()
    found_heads = MigrationContext.get_current_heads
    done: list[bool] = []

    def heads(self: Any) -> tuple[str, ...]:
        found = found_heads(self)
        if done or not revisions or set(found) == set(revisions):
            return found
        self._ensure_version_table()
        table = ".".join('"%s"' % name.replace('"', '""') for name in (self.version_table_schema, self.version_table) if name)
        query(self.connection, "delete from " + table)
        for revision in revisions:
            query(self.connection, "insert into %s values (%s)" % (table, literal(revision)))
        self.connection.connection.commit()
        done.append(True)
        return tuple(revisions)

    MigrationContext.get_current_heads = heads  # type: ignore[method-assign]


def _make_version_schema() -> None:
    """version_table_schema must exist before the first revision; whoever made it, no revision could have."""
    ensure = MigrationContext._ensure_version_table

    def with_schema(self: Any, purge: bool = False) -> None:
        if self.version_table_schema:
            query(self.connection, 'create schema if not exists "%s"' % self.version_table_schema.replace('"', '""'))
        ensure(self, purge)

    MigrationContext._ensure_version_table = with_schema  # type: ignore[method-assign]


def tell_recorded(recorder: Recorder) -> None:
    for statement in recorder.statements:
        recorder.wire.tell("statement", **statement)
    recorder.wire.tell("recorded", reads=list(dict.fromkeys(recorder.reads)), looks=recorder.looks, warnings=list(dict.fromkeys(recorder.warnings)))


def run_upgrade(project: Project, recorder: Recorder) -> None:
    """Action ``upgrade``: the real upgrade() of one revision, its done statements left out, each one told before it is sent.

    ``recorded``: every statement of the revision that a replay could see.  Another one comes from rows that upgrade() reads; with
    ``rows`` = ``leave`` such a change of rows was made already and is left out too.
    """
    wire, skip = project.wire, [normal(sql) for sql in project.asked.get("skip", [])]
    recorded = {normal(sql) for sql in project.asked.get("recorded", [])}
    leave_rows = project.asked.get("rows") == "leave"
    recorder.listen()
    started: list[str] = []
    unlimited: dict[str, Any] = {}  # limits that are off for the statement that runs, and its connection

    def withhold(cursor: Any, statement: str, parameters: Any, context: Any) -> Optional[bool]:
        draft, sent = recorder.draft, kind_of(skeleton(statement)) == "statement"
        done = bool(draft and skip and normal(draft["sql"]) == skip[0])
        if done:
            skip.pop(0)
        elif draft and leave_rows and normal(draft["sql"]) not in recorded:
            done = first_word(skeleton(draft["sql"])) in ("insert", "update", "delete", "merge", "with")
        if started and (sent or draft):
            wire.ask("statement", sql=draft["sql"] if draft else normal(statement), skipped=done, revision=recorder.now if draft else "",
                     autocommit=bool(draft and draft["autocommit"]))  # fmt: skip
        if done:
            cursor.execute("select where false")  # no rows, rowcount 0: a loop that runs until nothing is left ends
        elif draft and re.search(r"\bconcurrently\b", skeleton(statement), re.IGNORECASE):
            for name in ("lock_timeout", "statement_timeout"):
                query(context.root_connection, "set %s = 0" % name)
                unlimited[name] = context.root_connection
        return True if done else None

    def limit_again(conn: Any, *rest: Any) -> None:
        """The time limits were off for a CONCURRENTLY: there they would leave an invalid index behind."""
        for name in list(unlimited):
            value = project.asked.get("settings", {}).get(name)
            query(unlimited.pop(name), "set %s = %s" % (name, literal(value)) if value else "reset " + name)

    def before_commit(conn: Any) -> None:
        if started:
            assigned = query(conn, "select pg_catalog.pg_current_xact_id_if_assigned()::text")[0][0]
            if assigned:
                wire.ask("commit", xid=assigned)

    def work(heads: Any, context: Any) -> list[Any]:
        steps = list(project.script._upgrade_revs(recorder.revision, heads))
        found = [step.revision.revision for step in steps]
        if found != [recorder.revision]:
            raise Refused("alembic would run %s, but the plan is for %s alone" % (found or "nothing", recorder.revision))
        if not started:
            wire.ask("context", **describe(context))
        started.append(recorder.revision)
        steps[0].migration_fn = _watched_upgrade(steps[0].migration_fn, recorder, skip)
        return steps

    event.listen(Engine, "do_execute", withhold)
    event.listen(Engine, "do_executemany", withhold)
    event.listen(Engine, "do_execute_no_params", lambda cursor, statement, context: withhold(cursor, statement, None, context))
    event.listen(Engine, "commit", before_commit)
    event.listen(Engine, "after_cursor_execute", limit_again)
    project.run(work, recorder.revision)
    wire.tell("done", **versions())


def _watched_upgrade(upgrade: Callable[..., Any], recorder: Recorder, skip: list[str]) -> Callable[..., Any]:
    def run(**keywords: Any) -> None:
        recorder.now, recorder.inside = recorder.revision, True
        recorder.follow(upgrade, keywords)
        if skip:
            raise Refused("upgrade() did not send %d statements that the plan leaves out, first: %s" % (len(skip), skip[0][:200]))

    return run


def main() -> None:
    wire = Wire()
    asked = wire.request()
    recorder = Recorder(asked, wire) if asked.get("revision") else None

    def tell_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if recorder and asked["action"] in ("replay", "trial"):
            tell_recorded(recorder)
        sys.__excepthook__(kind, error, trace)
        wire.tell("error", kind=kind.__name__, message=str(getattr(error, "orig", None) or error), sqlstate=sqlstate(error), refused=kind is Refused,
                  revision=recorder.now if recorder else "", inside=bool(recorder and recorder.now == recorder.revision and not recorder.completed), sql=recorder.failed_sql if recorder else "", modules=modules())  # fmt: skip

    sys.excepthook = tell_error
    wire.tell("hello", **versions())
    first = asked["action"] == "replay" and asked["parents"] and asked["parents"] != asked.get("start")
    # The parents are built in a process of their own, as in real life: revisions keep state in modules, and SQLAlchemy
    # remembers the enums that it made.  A fork spares the second import of alembic.
    child = os.fork() if first else 0
    if child and os.waitpid(child, 0)[1]:
        os._exit(1)  # it told why
    connects = Connects(asked)
    project = Project(asked, wire)
    if first and not child:
        assert recorder is not None
        build_parents(project, recorder)
        os._exit(0)
    if recorder is None:
        tell_environment(project, connects)
    elif asked["action"] == "upgrade":
        run_upgrade(project, recorder)
    else:
        tell_replay(project, recorder)


if __name__ == "__main__":
    main()
