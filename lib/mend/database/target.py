"""Names to connections: read-only sessions for diagnosis, the target's identity, and what must never be shown of it.

A target is always *named*: ``lab``, ``env:NAME`` (an environment variable holding an address), ``service:NAME`` (libpq's
service file), or a name from mend.toml.  An address is never a parameter, because parameters are archived in clear.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mend import address, settings
from mend.errors import LoginRefused, MendError, TargetUnknown, TargetUnreachable, from_driver
from mend.redaction import passwords, redact
from mend.settings import TargetSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["Identity", "Target", "card", "named_address", "redact", "resolve"]

READ_STATEMENT_TIMEOUT_MS = 15_000
READ_LOCK_TIMEOUT_MS = 500  # a diagnosis must not join the queue that it inspects
_CONNECT_TIMEOUT_S = 10
_PLAIN_WORDS = 6  # shorter passwords are looked for only where they stand as a password


@dataclass(frozen=True)
class Identity:
    """Which database this is, so that a plan made for one can never run on another.

    ``system_identifier`` comes from ``pg_control_system()`` and is unique to a cluster (a physical replica shares it).
    """

    system_identifier: str
    database: str
    database_oid: int
    server_version: str
    version_num: int
    role: str
    session_role: str
    superuser: bool
    in_recovery: bool
    may_create_schema: bool
    started_at: str

    def key(self) -> dict[str, str | int]:
        """The part that a digest covers: the database itself, not the server's minor version or the role."""
        return {
            "system_identifier": self.system_identifier,
            "database": self.database,
            "database_oid": self.database_oid,
        }


@lru_cache(maxsize=16)
def _engine(arguments: tuple[tuple[str, str], ...]) -> Engine:
    """Kept, because SQLAlchemy asks the server about itself at the first connect of every engine: half of a session's start."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine("postgresql+psycopg://", connect_args=dict(arguments), poolclass=NullPool)


@dataclass(frozen=True)
class Target:
    """A named database.  ``conninfo`` may hold a password and is therefore kept out of every repr."""

    name: str
    conninfo: Mapping[str, str] = field(repr=False)
    settings: TargetSettings = field(default_factory=lambda: TargetSettings(url="lab"))

    def engine(self, *, application_name: str = "mend", options: str = "") -> Engine:
        """A SQLAlchemy engine without a pool; every connect is a fresh session."""
        extra = {"application_name": application_name[:63]}
        if options or "options" in self.conninfo:
            extra["options"] = f"{self.conninfo.get('options', '')} {options}".strip()
        arguments = {"connect_timeout": str(_CONNECT_TIMEOUT_S)} | dict(self.conninfo) | extra
        return _engine(tuple(sorted(arguments.items())))

    @contextmanager
    def reading(self, run_id: str = "-") -> Iterator[Connection]:
        """One short READ ONLY, REPEATABLE READ transaction with small timeouts; always rolled back.

        Read-only is a seat belt, not a wall: functions with side effects still run, so they are kept out of .sql files.

        Raises: TargetUnreachable, LoginRefused; QueryFailed or PrivilegeMissing for what fails inside.
        """
        from sqlalchemy.exc import DBAPIError

        with self.connected(application_name=f"mend:{run_id}") as conn:
            try:
                path = _path(
                    conn.execution_options(isolation_level="AUTOCOMMIT")
                )  # the snapshot is the first question's
                conn.rollback()
                conn = conn.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                for setting, value in {**_READ_LIMITS, **_EXACT, **path}.items():
                    conn.exec_driver_sql(f"set local {setting} = {value}")
                yield conn
            except DBAPIError as error:
                found = from_driver(error, f"A question to {self.name} failed", "Nothing was changed.")
                raise type(found)(self.redact(found.message), **found.facts) from error
            finally:
                conn.rollback()

    @contextmanager
    def connected(self, *, application_name: str, options: str = "") -> Iterator[Connection]:
        """A session, closed at the end; connection failures become ours here and nowhere else."""
        from sqlalchemy.exc import DBAPIError

        try:
            conn = self.engine(application_name=application_name, options=options).connect()
        except DBAPIError as error:
            raise self._unreachable(error) from error
        try:
            yield conn
        finally:
            conn.close()

    @contextmanager
    def writing(self, application_name: str, *, version_num: int) -> Iterator[Connection]:
        """A session in autocommit that may write; for `execute` and its `runners` alone (a test reads who calls this).

        If this process dies, the server notices within a second and ends the statement (PostgreSQL 14+).  What the database or the role
        sets for its applications and would make our work another, or end it, is set as the work needs it.
        """
        with self.connected(application_name=application_name) as conn:
            conn = conn.execution_options(isolation_level="AUTOCOMMIT")
            for setting, value in {**_EXACT, **_path(conn), **_write_limits(version_num)}.items():
                conn.exec_driver_sql(f"set {setting} = {value}")
            yield conn

    def identity(self) -> Identity:
        """Ask the server who it is.

        Raises: TargetUnreachable, LoginRefused; QueryFailed where ``pg_control_system()`` is not allowed.
        """
        from mend.database import queries

        with self.reading() as conn:
            row = queries.frame(conn, "target/identity").iloc[0].to_dict()
        return Identity(**{str(key): _plain(value) for key, value in row.items()})

    def secrets(self) -> tuple[str, ...]:
        """What must not appear in a record: the password, in every spelling that it might take."""
        return passwords(self.conninfo, also="" if self.name == "lab" else os.environ.get("PGPASSWORD", ""))

    def redact(self, text: str) -> str:
        """``text`` without this target's password and without any password in an address."""
        for secret in self.secrets():
            if len(secret) >= _PLAIN_WORDS:
                text = text.replace(secret, "***")
        return redact(text)

    def _unreachable(self, error: BaseException) -> MendError:
        """libpq gives no SQLSTATE before a session exists (its errors are text only), so here alone text decides."""
        said = self.redact(" ".join(str(getattr(error, "orig", error)).split()))
        kind = LoginRefused if _REFUSED.search(said) else TargetUnreachable
        advice = (kind.__doc__ or "").split("Nothing was changed. ")[-1]
        return kind(f"Target {self.name}: {said.rstrip('.')}. Nothing was changed. {advice}")


_READ_LIMITS = {
    "statement_timeout": READ_STATEMENT_TIMEOUT_MS,
    "lock_timeout": READ_LOCK_TIMEOUT_MS,
    "idle_in_transaction_session_timeout": 60_000,
    "row_security": "off",  # a policy that would hide rows fails the question: what is not seen is not healthy
}
# Values are read as one form whatever the database or the role is set to, and what is kept as text is the same when it comes back. The
# order of day and month stays the database's own: statements of the project and the operator may lean on it, and ISO is read in any.
_EXACT = {"datestyle": "'ISO'", "intervalstyle": "'postgres'", "extra_float_digits": 1, "bytea_output": "'hex'"}


def _path(conn: Connection) -> dict[str, str]:
    """The search_path with what finds the equality of each type; nothing where it does so already."""
    from mend.database import queries

    found = queries.frame(conn, "target/search_path")["path"]
    return {"search_path": str(found.iloc[0])} if len(found) else {}


def _write_limits(version_num: int) -> dict[str, str]:
    """By the server's version."""
    limits = {"default_transaction_isolation": "'read committed'"}  # a batch looks again behind each lock that it takes
    if version_num >= 140000:
        # The session that keeps other runs away, and the one that leads the workers, have nothing to say for hours.
        limits |= {"client_connection_check_interval": "'1s'", "idle_session_timeout": "0"}
    if version_num >= 170000:
        limits |= {
            "transaction_timeout": "0"
        }  # ends the session: of CREATE INDEX CONCURRENTLY an INVALID index would stay
    return limits


_REFUSED = re.compile(
    r"authentication failed|no password supplied|role \".*\" (?:does not exist|is not permitted to log in)|pg_hba\.conf|permission denied for database"
)


def resolve(name: str) -> Target:
    """The target of that name.

    Raises: TargetUnknown with the names that exist; InvalidParameter where the variable behind it is unset or unreadable.
    """
    if name == "lab":
        from mend import lab  # the lab stands above this room; only its address is asked for

        return Target("lab", address.keywords(lab.url(), "lab"), TargetSettings(url="lab"))
    if name.startswith("lab:"):
        from mend import lab

        own = address.keywords(lab.url(), "lab")
        return Target(name, {**own, "dbname": name.removeprefix("lab:")}, TargetSettings(url="lab"))
    if name.startswith(address.FORMS):
        return Target(name, address.of_form(name))
    known = settings.load().targets
    if name not in known:
        names = ", ".join(["lab", *known]) + ", env:NAME, service:NAME"
        raise TargetUnknown(f"No target is called {address.a_name(name)!r}. Nothing was changed. Known: {names}.")
    return Target(name, address.of_form(known[name].url), known[name])


def named_address(form: str) -> str:
    """A libpq address for ``env:NAME`` or ``service:NAME``; for scratch servers, which are named the same way."""
    from psycopg.conninfo import make_conninfo

    return make_conninfo(**address.of_form(form))


def _plain(value: Any) -> Any:
    """A numpy or pandas scalar as Python's own."""
    return value.item() if hasattr(value, "item") else value


def card(identity: Identity) -> dict[str, Any]:
    """The identity as plain values, for records."""
    return asdict(identity)
