"""Throwaway databases to replay a history in: on a server that the user names, else on a private one of the target's version."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from mend import settings
from mend.database import queries
from mend.database.target import Target, named_address, redact
from mend.errors import NoServerBinaries, ReplayFailed, ScratchUnavailable
from mend.postgres.binaries import Binaries, find_binaries
from mend.postgres.server import Server

if TYPE_CHECKING:
    from types import TracebackType

Keywords = Mapping[str, str]
SLOTS = 16  # mend processes that may replay at the same time
NEWEST_MAJOR = 30


@dataclass
class Scratch:
    """A server for scratch databases; a private one is started at the first database and stopped at the end.

    Parameters
    ----------
    major : the target's major version
    address : libpq keywords of a server to use; empty for a private one from the binaries on this machine
    roles : roles of the target that revisions may name in GRANT or OWNER TO; made without login where they are missing
    path : the search_path that sessions of the target begin with, as schemas that are there; '' for public alone
    schemas : those on it that hold a version table: they were there before the first revision
    """

    major: int
    address: Keywords = field(default_factory=dict, repr=False)
    roles: tuple[str, ...] = ()
    path: str = ""
    schemas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._open = ExitStack()
        self._server: Server | None = None
        self._found: Binaries | None = None
        self._entered = 0

    def __enter__(self) -> Scratch:
        """May be entered again inside: the server stays up until the outermost is left, so several replays share it."""
        self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:
            self._server = None
            self._open.close()

    @property
    def version(self) -> str:
        """The server's version, known without starting one: ``18.6``."""
        if not self.address:
            return self._binaries.version
        with self._administrator() as conn:
            return conn.execute("select pg_catalog.current_setting('server_version')").fetchone()[0].split()[0]  # type: ignore[index,no-any-return]

    @property
    def warning(self) -> str:
        """What a reader must know about definitions made here; '' when the versions are the same."""
        own = int(self.version.split(".")[0])
        return (
            ""
            if own == self.major
            else f"expected definitions were made by PostgreSQL {own}, the target runs {self.major}"
        )

    @contextmanager
    def database(self, *, like: str = "template0", name: str = "") -> Iterator[dict[str, str]]:
        """A new database, as libpq keywords with host, port, user and dbname; dropped at the end.

        It is empty, or a copy of the scratch database ``like``, to which nobody may be connected.  ``name``: of ``new_name``.
        Raises: ScratchUnavailable.
        """
        name = name or new_name()
        with self._administrator() as conn:
            made = self._make_roles(conn)
            _execute(conn, sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(like)))
            try:
                place = {**_keywords(conn), "dbname": name}
                self._furnish(conn, place)
                yield place
            finally:
                _execute(conn, sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
                for role in made if self.address else ():
                    with suppress(psycopg.Error):  # it owns something elsewhere: then it was not only ours
                        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))

    def _furnish(self, conn: psycopg.Connection[Any], place: Keywords) -> None:
        """Names without a schema must mean here what they mean in the target."""
        if self.path:
            conn.execute("select pg_catalog.set_config('search_path', %s, false)", [self.path])
            name = sql.Identifier(place["dbname"])
            _execute(conn, sql.SQL("alter database {} set search_path from current").format(name))
        if self.schemas:
            with psycopg.connect(make_conninfo(**place), autocommit=True) as own:
                for schema in self.schemas:
                    _execute(own, sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))

    def superuser(self, place: Keywords) -> bool:
        """Whether its role may make event triggers there."""
        with psycopg.connect(make_conninfo(**place), autocommit=True) as conn:
            row = conn.execute("select rolsuper from pg_catalog.pg_roles where rolname = current_user").fetchone()
            return bool(row and row[0])

    @property
    def _binaries(self) -> Binaries:
        if self._found is None:
            try:
                self._found = _of_major(self.major) or find_binaries()
            except NoServerBinaries as error:
                raise ScratchUnavailable(f"{error} Or name a server with `scratch =` in mend.toml.") from error
        return self._found

    @contextmanager
    def _administrator(self) -> Iterator[psycopg.Connection[Any]]:
        address = dict(self.address) or {"conninfo": self._private().url().replace("+psycopg", "", 1)}
        conninfo = address.pop("conninfo", "")
        try:
            place = make_conninfo(conninfo, **{"connect_timeout": "10", "application_name": "mend:scratch", **address})
            conn = psycopg.connect(place, autocommit=True)
        except psycopg.Error as error:
            raise ScratchUnavailable(
                f"The scratch server does not answer: {redact(str(error).strip())}. The target was not touched. "
                "Correct `scratch =` in mend.toml, or remove it to use a private server."
            ) from error
        with conn:
            yield conn

    def _private(self) -> Server:
        """The private server of this process: one process, one cluster, so that nobody's replay stops another's."""
        if self._server is None:
            home = self._open.enter_context(_free_slot(settings.made_home("scratch"), self._binaries.major))
            self._server = Server(home, self._binaries, detached=False)
            self._server.start()
            self._open.callback(self._server.stop)
        return self._server

    def _make_roles(self, conn: psycopg.Connection[Any]) -> list[str]:
        there = {row[0] for row in conn.execute("select rolname from pg_catalog.pg_roles")}
        missing = [role for role in self.roles if role not in there and not role.startswith("pg_")]
        for role in missing:
            _execute(conn, sql.SQL("create role {} nologin").format(sql.Identifier(role)))
        return missing


def new_name() -> str:
    """A name for a scratch database that nobody has."""
    return f"mend_scratch_{uuid.uuid4().hex[:12]}"


def choose(target: Target, *, version_num: int, roles: Iterable[str] = ()) -> Scratch:
    """The scratch server for a target: the one its settings name, the lab's own for the lab, else a private one."""
    wanted = target.settings.scratch
    if target.name == "lab" or wanted == "target":
        address: Keywords = target.conninfo
    else:
        address = dict(psycopg.conninfo.conninfo_to_dict(named_address(wanted))) if wanted else {}  # type: ignore[arg-type]
    with target.reading() as conn:
        found = queries.frame(conn, "target/default_path").iloc[0]
    path = "" if found["path"] == "public" else str(found["path"])
    return Scratch(version_num // 10000, address, tuple(roles), path, tuple(found["schemas"]) if path else ())


def copy_schema(live: Keywords, place: Keywords, *, major: int) -> None:
    """Copy the live database's schema, no rows, into a scratch database by pg_dump and psql of one installation.

    Reads: the live database, ACCESS SHARE locks for a moment, at most 5 s of waiting for each.  Writes: the scratch database only.
    Raises: ReplayFailed with what pg_dump or psql said.
    """
    pg_dump, psql = _clients(major)
    read_only = "-c default_transaction_read_only=on -c statement_timeout=60s"
    command = [
        pg_dump,
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        "--no-subscriptions",
        "--no-tablespaces",
        "--lock-wait-timeout=5s",
    ]
    dumped = _run(command, live, options=read_only)
    load(dumped, place, psql=psql)


def load(dump: str, place: Keywords, *, psql: str = "") -> None:
    """Run a plain SQL dump in a scratch database.  Raises: ReplayFailed."""
    # A newer pg_dump sets a parameter that an older server does not know.
    text = re.sub(r"^SET transaction_timeout = 0;$", "", dump, flags=re.MULTILINE)
    text = re.sub(r"^CREATE SCHEMA (?!IF NOT EXISTS)", "CREATE SCHEMA IF NOT EXISTS ", text, flags=re.MULTILINE)
    _run([psql or _clients(0)[1], "-X", "-q", "-v", "ON_ERROR_STOP=1"], place, given=text)


def _clients(major: int) -> tuple[str, str]:
    """pg_dump and psql of one installation that is not older than the server; the system's first: it has TLS."""
    for number in range(major or 13, NEWEST_MAJOR):
        found = _of_major(number)
        if found and (found.bindir / "pg_dump").exists() and (found.bindir / "psql").exists():
            return str(found.bindir / "pg_dump"), str(found.bindir / "psql")
    on_path = shutil.which("pg_dump"), shutil.which("psql")
    if all(on_path):
        return str(on_path[0]), str(on_path[1])
    raise ReplayFailed(
        f"No pg_dump of PostgreSQL {major} or newer was found to copy the schema. The target was not touched. "
        "Install the PostgreSQL client programs of that version, or name a base with `base =` in mend.toml."
    )


def _of_major(major: int) -> Binaries | None:
    try:
        return find_binaries(major)
    except NoServerBinaries:
        return None


def _run(command: list[str], place: Keywords, *, given: str = "", options: str = "") -> str:
    """Run a client program; the password travels in its environment, never on its command line."""
    place = dict(place)
    environ = {**os.environ, "PGCONNECT_TIMEOUT": "10", **({"PGOPTIONS": options} if options else {})}
    password = place.pop("password", None)
    if password:
        environ["PGPASSWORD"] = password
    arguments = [*command, "--no-password", f"--dbname={make_conninfo(**place)}"]
    try:
        answer = subprocess.run(
            arguments,
            input=given,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environ,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ReplayFailed(
            f"{Path(command[0]).name} did not finish within 300 s. The target was not changed. Try again when it is less busy."
        ) from error
    if answer.returncode:
        said = redact(answer.stderr.strip())[-1500:]
        raise ReplayFailed(f"{Path(command[0]).name} failed. The target was not changed. It said: {said}")
    return answer.stdout


@contextmanager
def _free_slot(root: Path, major: int) -> Iterator[Path]:
    """A cluster directory that no other process uses now; the kernel frees the lock of a dead one."""
    for number in range(SLOTS):
        with (root / f"{major}-{number}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield root / f"{major}-{number}"
            return
    raise ScratchUnavailable(
        f"{SLOTS} other processes replay in {root} at this moment. The target was not touched. Try again when they are done."
    )


def _execute(conn: psycopg.Connection[Any], statement: sql.Composed) -> None:
    try:
        conn.execute(statement)
    except psycopg.Error as error:
        raise ScratchUnavailable(
            f"The scratch server refused `{statement.as_string(conn)}`: {str(error).strip()}. The target was not touched. "
            "The role of `scratch =` needs CREATEDB (and CREATEROLE for revisions that grant)."
        ) from error


def _keywords(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Where this connection leads, as plain keywords: a service file or a host list is resolved by libpq."""
    there = conn.info
    found = {"host": there.host, "port": str(there.port), "user": there.user, "password": there.password}
    asked = there.get_parameters()
    found.update({key: asked[key] for key in ("sslmode", "sslrootcert", "sslcert", "sslkey") if key in asked})
    return {key: value for key, value in found.items() if value}
