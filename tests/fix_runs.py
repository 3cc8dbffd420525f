"""Fixtures for running the mend command, in a process of its own or in this one.

desk        desk.mend("plan", "failed_migration", ...) runs the real command, kernel and all
            desk.here(...) runs the same command in this process: the notebook's cells without a kernel, which is quicker
            desk.crash(...) runs it like `here`, in a forked process that is killed at one event of its journal
broken      broken("interrupted_index") is an incident whose alembic.ini is the same in every test, so that its replay is cached
Look        reads one database: .query .catalog .rows .version .execute
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import warm
from fix_shop import Broken
from mend import __main__ as command
from mend import engine, journal, lab
from mend.command import archived
from mend.database import parameters
from mend.database.catalog import SNAPSHOT_SQL
from mend.errors import MendError
from mend.histories import project
from mend.lab import shop as shop_room
from mend.lab.shop import Project, plain
from mend.notebook.stop import Stop
from mend.record import account, archive

SLUG = "failed_migration"
PATIENCE_S = 60.0
FORKS = multiprocessing.get_context("forkserver")  # a process without threads to fork from, with the heavy imports made
FORKS.set_forkserver_preload(
    [
        *("pytest", "typer", "bleach", "IPython.core.interactiveshell", "sqlalchemy.dialects.postgresql.psycopg"),
        *(
            "mend.runbook",
            "mend.command.commands",
            "mend.engine",
            "mend.record.report",
            "mend.replays.replay",
            f"mend.modes.{SLUG}",
        ),
    ]
)


@dataclass(frozen=True)
class Ran:
    """What one command left: its exit code, what it printed, its document."""

    code: int
    out: str
    err: str
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return str(self.document["run_id"])

    @property
    def digest(self) -> str:
        return str(self.document["plan"]["digest"])

    @property
    def record(self) -> archive.Record:
        return archive.find(self.run_id)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.record.journal.events()]

    def check(self, name: str) -> dict[str, Any]:
        return next(check for check in self.document["checks"] if check["name"] == name)

    @property
    def states(self) -> dict[int, str]:
        """The state of each operation."""
        return {row["index"]: row["state"] for row in self.document["operations"]}

    @property
    def options(self) -> dict[str, str]:
        """Why each option is not possible; '' for those that are."""
        return {one["option"]: one["why_not"] for one in self.document["plan"]["options"]}


def ran(code: int, out: str, err: str) -> Ran:
    text = out.strip()
    return Ran(code, out, err, json.loads(text) if text.startswith("{") else {})


class Desk:
    """Where an operator types."""

    def mend(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Ran:
        """The real command, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "mend", *arguments, "--json"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False, env={**os.environ, **(environ or {})},
        )  # fmt: skip
        return ran(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The real command, still running, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "mend", *arguments, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def here(self, *arguments: str) -> Ran:
        """The same command in this process."""
        return _here(arguments)

    def plan(self, incident: Broken, **given: str) -> Ran:
        """``mend plan`` with the incident's parameters and these."""
        return self.here("plan", incident.slug, *options(incident, **given))

    def apply(self, planned: Ran) -> Ran:
        """``mend apply RUN --approve DIGEST``."""
        return self.here("apply", planned.run_id, "--approve", planned.digest)

    def papermill(self, incident: Broken, **given: object) -> Ran:
        """The notebook's cells in this process, as plain papermill runs them: no command stands above it."""
        values = {**incident.parameters, **given}
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            for name in ("MEND_RUN", "MEND_ACTION", "MEND_OF"):
                patch.delenv(name, raising=False)
            trouble = _cells(incident.slug, values)
        return Ran(int(bool(trouble)), "", trouble, archived.document(archive.runs()[0]))

    def crash(self, *arguments: str, kind: str, nth: int = 1, after: bool) -> str:
        """Run the command in a forked process, and kill it before or after the ``nth`` event of that kind; its run id."""
        before = {record.run_id for record in archive.runs()}
        child = FORKS.Process(target=_doomed, args=(dict(os.environ), warm.line(), arguments, kind, nth, after))
        child.start()
        child.join(PATIENCE_S)
        assert child.exitcode == -signal.SIGKILL, f"it was not killed: exit code {child.exitcode}"
        (made,) = {record.run_id for record in archive.runs()} - before
        return made


def options(incident: Broken, **given: str) -> list[str]:
    """The incident's parameters as words of a command line."""
    values = {**incident.parameters, **given}
    return [word for name, value in values.items() for word in ("-p", name, value)]


def _here(arguments: tuple[str, ...]) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(engine, "execute", _without_kernel)
        code = command.main([*arguments, "--json"])
    return ran(code, out.getvalue(), err.getvalue())


def _without_kernel(record: archive.Record, slug: str, given: Mapping[str, Any], **_: Any) -> None:
    """What ``engine.execute`` does, with the cells run in this process."""
    opened = record.opened
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        for name, value in (("RUN", record.path), ("ACTION", opened["action"]), ("OF", opened["of"])):
            patch.setenv(f"MEND_{name}", str(value))
        trouble = _cells(slug, given)
    engine._close(record, trouble, Stop())


def _cells(slug: str, given: Mapping[str, Any]) -> str:
    """Run a runbook's cells; '' or what stopped them."""
    cells = json.loads(parameters.notebook(slug).read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    try:
        for number, source in enumerate(sources):
            exec(compile(source, f"cell {number}", "exec"), names)
            if number == 0:
                names.update(given)
    except MendError as error:
        return f"The notebook failed in a cell: {type(error).__name__}: {error}."
    return ""


def _doomed(
    environ: dict[str, str], line: socket.socket, arguments: tuple[str, ...], kind: str, nth: int, after: bool
) -> None:
    """Run a command whose journal kills it: the whole process at once, as the machine would."""
    os.environ.clear()
    os.environ.update(environ)
    warm.adopt(line)
    setattr(project, "subprocess", warm)  # noqa: B010 it is ours to say how the project's interpreter is started
    append = journal.Journal.append
    seen = 0

    def deadly(self: journal.Journal, what: str, *args: Any, **kwargs: Any) -> journal.Event:
        nonlocal seen
        seen += what == kind
        due = what == kind and seen == nth
        if due and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        event = append(self, what, *args, **kwargs)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return event

    journal.Journal.append = deadly  # type: ignore[method-assign]
    _here(arguments)


@dataclass(frozen=True)
class Look:
    """One database, asked on connections of its own."""

    url: str

    def connect(self, **keywords: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(plain(self.url), **{"autocommit": True, **keywords})

    def query(self, sql: str, *binds: object) -> list[tuple[Any, ...]]:
        with self.connect() as conn:
            return conn.execute(sql.encode(), binds or None).fetchall()

    def execute(self, *statements: str) -> None:
        with self.connect() as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def catalog(self) -> dict[tuple[str, str], str]:
        """Every object; an INVALID index says so."""
        return {(kind, identity): definition for kind, identity, definition in self.query(SNAPSHOT_SQL)}

    def rows(self) -> dict[str, str]:
        """A fingerprint of every table's rows, the order of rows and what lies in schema mend left out."""
        named = self.query(
            "select format('%I.%I', n.nspname, relname) from pg_class as c join pg_namespace as n on n.oid = relnamespace "
            "where relkind = 'r' and nspname not in ('pg_catalog', 'information_schema', 'mend') order by 1"
        )
        with self.connect() as conn:
            return {name: str(conn.execute(_FINGERPRINT.format(name).encode()).fetchone()) for (name,) in named}

    def version(self) -> list[str]:
        return [row[0] for row in self.query("select version_num from alembic_version order by 1")]

    def written(self) -> tuple[int, ...]:
        """What this database has counted of rows written, the catalogs' rows included; sessions tell it when they end."""
        others = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        with contextlib.suppress(AssertionError):  # some stay on purpose
            until(lambda: not self.query(others), what="sessions that were closed are gone", patience_s=1)
        (counted,) = self.query(
            "select tup_inserted, tup_updated, tup_deleted from pg_stat_database where datname = current_database()"
        )
        return counted

    def schemas(self) -> list[str]:
        return [row[0] for row in self.query("select nspname from pg_namespace where nspname !~ '^pg_' order by 1")]

    @contextlib.contextmanager
    def holding(self, sql: str) -> Iterator[int]:
        """A session that ran one statement and sits in its transaction; gives its pid."""
        with self.connect(autocommit=False, application_name="in-the-way") as conn:
            conn.execute(sql.encode())
            yield conn.info.backend_pid
            with contextlib.suppress(psycopg.OperationalError):  # the test may have ended it
                conn.rollback()


_FINGERPRINT = "select count(*), md5(string_agg(row_text, chr(10) order by row_text)) from (select cast(t as text) as row_text from {} as t) as r"


def until(true: Callable[[], Any], *, what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until something is true, and give it."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {patience_s:.0f} s")


def verdict(run_id: str) -> str:
    """What ``mend verify`` says of a record."""
    return archive.verify(archive.find(run_id)).state


def closing(run_id: str) -> dict[str, Any]:
    """The error that ended a run."""
    return account.error(archive.find(run_id).journal.events())


@pytest.fixture
def desk() -> Desk:
    """The command line."""
    return Desk()


@pytest.fixture
def broken(incident: Callable[..., Broken], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Broken]:
    """``broken(scenario, slug=...)``: an incident whose env.py takes its address from the environment, as many projects' do."""

    def make(scenario: str, *, slug: str = SLUG) -> Broken:
        made = incident(scenario, slug=slug)
        shop_room.point(made.alembic_ini, "postgresql+psycopg://set.by.the.environment/")
        monkeypatch.setenv("SHOP_DATABASE_URL", made.url)
        project = Project(made.project.directory, made.url, {"SHOP_DATABASE_URL": made.url})
        return Broken(project, made.error_file, made.parameters, slug)

    return make


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Something that happens in another thread while a command runs here."""
    with ThreadPoolExecutor(1) as beside:
        happening = beside.submit(act)
        yield
        happening.result(PATIENCE_S)


@pytest.fixture
def edit(tmp_path: Path) -> Callable[[Path, str, str], None]:
    """``edit(path, old, new)`` changes one place of a file."""

    def change(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        path.write_text(text.replace(old, new))

    return change


@pytest.fixture
def healthy(shop: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Broken:
    """A healthy shop as an ``env:`` target, with its address in the environment."""
    shop_room.point(shop.alembic_ini, "postgresql+psycopg://set.by.the.environment/")
    monkeypatch.setenv("SHOP_DATABASE_URL", shop.url)
    project = Project(shop.directory, shop.url, {"SHOP_DATABASE_URL": shop.url})
    return Broken(
        project, tmp_path / "error.txt", {"target": "env:SHOP_DATABASE_URL", "alembic_ini": str(shop.alembic_ini)}
    )


@pytest.fixture
def lab_of_its_own(session_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty MEND_HOME; the lab's server in it is ended with the test."""
    home = session_directory / "empty-home"
    monkeypatch.setenv("MEND_HOME", str(home))
    monkeypatch.setenv("HOME", str(home))
    yield home
    lab.stop()
