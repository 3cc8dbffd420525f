"""Fixtures for every test: real PostgreSQL, a private home, and nothing left behind.

server      a private server, one per worker and session; dies with pytest, also on SIGKILL
database    URL of a fresh, empty database
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm
from mend import lab
from mend.histories import project
from mend.lab import shop as shop_room
from mend.postgres.server import Server, find_binaries

pytest_plugins = ["fix_shop", "fix_record", "fix_runs", "fix_bench", "fix_values"]

# Ends every server that was started under a directory once our end of its standard input is closed.
REAPER = """
import json, os, pathlib, signal, sys
sys.stdin.buffer.read()
for kept in pathlib.Path(sys.argv[1]).rglob("server-*.json"):
    for pidfile in (kept.parent / json.loads(kept.read_text())["directory"]).glob("data-*/postmaster.pid"):
        pid = int(pidfile.read_text().split()[0])
        try:
            if os.fsencode(pidfile.parent) in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGINT)
        except OSError:
            pass
"""


@pytest.fixture(scope="session")
def session_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This session's own directory; detached servers (the lab) under it end with pytest, whatever ends pytest."""
    directory = tmp_path_factory.getbasetemp()
    command = [sys.executable, "-S", "-E", "-c", REAPER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield directory


@pytest.fixture(scope="session")
def session_home(session_directory: Path) -> Path:
    """MEND_HOME of the session: the lab and the caches are shared by a worker's tests."""
    home = session_directory / "home"
    home.mkdir()
    return home


@pytest.fixture(scope="session", autouse=True)
def warm_starts() -> Iterator[None]:
    """Alembic and the probe are forked from a process that has imported alembic and sqlalchemy: most of their time goes there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project, "subprocess", warm)
        patch.setattr(shop_room, "subprocess", warm)
        yield
    warm.close()


@pytest.fixture
def cold_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's interpreter is started as an operator's mend starts it."""
    monkeypatch.setattr(project, "subprocess", subprocess)


@pytest.fixture(autouse=True)
def private(session_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the operator's own home, records and libpq settings out of every test."""
    monkeypatch.setenv("MEND_HOME", str(session_home))
    monkeypatch.setenv("MEND_OUTPUTS", str(tmp_path / "outputs"))
    for name in os.environ:
        if name.startswith(("PG", "MEND_CONFIG", "DATABASE_URL", "SHOP_DATABASE_URL")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def server(session_directory: Path) -> Iterator[Server]:
    """A private PostgreSQL for this worker."""
    server = Server(session_directory / "pg", find_binaries(), settings={"autovacuum": "off"}, detached=False)
    server.start()
    yield server
    server.destroy()


@pytest.fixture
def new_database(server: Server) -> Iterator[Callable[..., str]]:
    """``new_database(template="template1")`` makes a database and gives its URL; all are dropped after the test."""
    made: list[str] = []

    def make(template: str = "template1") -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with lab.administrator(server) as connection:
            connection.execute(f'create database "{name}" template "{template}"'.encode())
        made.append(name)
        return server.url(name)

    yield make
    for name in made:
        lab.drop(server, name)


@pytest.fixture
def database(new_database: Callable[..., str]) -> str:
    """SQLAlchemy URL of a fresh, empty database."""
    return new_database()
