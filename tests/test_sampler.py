"""What a server shows slows a backfill: waiters, vacuums, replicas, WAL, a pause; what cannot be seen is said, and stops nothing."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mend.batches import pausing
from mend.batches.pace import Pace, Reason
from mend.batches.sampler import Limits, Sampler, Watch
from mend.database import target
from mend.lab.shop import plain
from mend.postgres.server import Server

PATIENCE_S = 30.0


def _until(seen: Callable[[], Any]) -> Any:
    """Poll until something is there."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := seen()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


@pytest.fixture
def aim(database: str, monkeypatch: pytest.MonkeyPatch) -> target.Target:
    """A database with a table ``public.t`` of 1,000 rows."""
    monkeypatch.setenv("SAMPLED_URL", database)
    with psycopg.connect(plain(database)) as conn:
        conn.execute("create table t (id int primary key, x int)")
        conn.execute("insert into t select i, i from generate_series(1, 1000) as i")
    return target.resolve("env:SAMPLED_URL")


def _look(aim: target.Target, watch: Watch) -> list[Reason]:
    with aim.reading() as conn:
        return watch.reasons(conn)


def _keys(reasons: list[Reason]) -> list[str]:
    return [reason.key.split()[0] for reason in reasons]


def _watch(pids: tuple[int, ...] = (), **limits: float) -> Watch:
    return Watch("public.t", lambda: pids, Limits(**limits))


def test_a_quiet_server_gives_no_reason(aim: target.Target) -> None:
    assert _look(aim, _watch((1,))) == []


# -- who waits for us -------------------------------------------------------------------------------------------------


@contextmanager
def _waiting(url: str, ours: psycopg.Connection, *, name: str = "shop") -> Iterator[None]:
    """A session that waits for a row that ``ours`` has changed."""
    ours.execute("update t set x = 0 where id = 1")
    with psycopg.connect(plain(url), application_name=name, autocommit=True) as other:
        thread = threading.Thread(target=lambda: other.execute("update t set x = 1 where id = 1"))
        thread.start()
        try:
            yield
        finally:
            ours.rollback()
            thread.join(PATIENCE_S)


def test_a_session_that_waits_for_our_batch_is_named(aim: target.Target, database: str) -> None:
    with psycopg.connect(plain(database)) as ours, _waiting(database, ours):
        watch = _watch((ours.info.backend_pid,))
        (reason,) = _until(lambda: _look(aim, watch))
        assert reason.key == "waiting"
        assert "(shop) waits for our batch for" in reason.says
        assert reason.share == 0


def test_who_waits_for_others_or_is_one_of_us_is_no_reason(aim: target.Target, database: str) -> None:
    with psycopg.connect(plain(database)) as ours, _waiting(database, ours):
        _until(lambda: _look(aim, _watch((ours.info.backend_pid,))))
        assert _look(aim, _watch((1,))) == [], "another's lock"
        with psycopg.connect(plain(database), autocommit=True) as asks:
            (waiter,) = asks.execute("select pid from pg_locks where not granted").fetchall()
        assert _look(aim, _watch((ours.info.backend_pid, waiter[0]))) == [], "a worker of ours"
        assert _look(aim, _watch((ours.info.backend_pid,), wait_s=3600)) == [], "a short wait"


def test_a_role_that_may_see_little_still_sees_who_waits(aim: target.Target, database: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with psycopg.connect(plain(database), autocommit=True) as conn:
        conn.execute("create role watcher login")
    try:
        monkeypatch.setenv("WATCHER_URL", database.replace("postgres@", "watcher@"))
        watcher = target.resolve("env:WATCHER_URL")
        with psycopg.connect(plain(database)) as ours, _waiting(database, ours):
            reasons = _until(lambda: _look(watcher, _watch((ours.info.backend_pid,))))
            assert _keys(reasons) == ["waiting"]
        with _replica(server), _vacuum(database):
            reasons = _until(lambda: len(found := _look(watcher, _watch())) == 2 and found)
            assert [(r.share, "pg_monitor" in r.says) for r in reasons] == [(1.0, True)] * 2, "said, and nothing slowed"
    finally:
        with psycopg.connect(plain(database), autocommit=True) as conn:
            conn.execute("drop role watcher")


# -- vacuum -----------------------------------------------------------------------------------------------------------


@contextmanager
def _vacuum(url: str, table: str = "t") -> Iterator[None]:
    """A vacuum that takes its time, until the end of the block."""
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute("set vacuum_cost_delay = '100ms'")
        conn.execute("set vacuum_cost_limit = 1")

        def work() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled):
                conn.execute(f"vacuum (freeze, disable_page_skipping) {table}")

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            while thread.is_alive():
                conn.cancel_safe()
                thread.join(0.2)


def test_a_vacuum_of_the_table_halves_the_pace(aim: target.Target, database: str) -> None:
    watch = _watch()
    with _vacuum(database):
        (reason,) = _until(lambda: _look(aim, watch))
    assert (reason.key, reason.share) == ("vacuum", 0.5)
    assert "VACUUM of public.t is running" in reason.says


def test_a_vacuum_of_another_table_is_no_reason_but_of_a_partition_it_is(aim: target.Target, database: str) -> None:
    with psycopg.connect(plain(database), autocommit=True) as conn:
        conn.execute("create table p (id int) partition by range (id)")
        conn.execute('create table "P One" partition of p for values from (0) to (100000)')
        conn.execute("insert into p select generate_series(1, 3000)")
    with _vacuum(database, '"P One"'):
        (reason,) = _until(lambda: _look(aim, Watch("public.p", tuple, Limits())))
        assert reason.key == "vacuum"
        assert _look(aim, _watch()) == []


# -- replicas ---------------------------------------------------------------------------------------------------------


@contextmanager
def _replica(server: Server, *, name: str = "standby") -> Iterator[Callable[[], None]]:
    """A standby that receives WAL and replays none; what it yields lets it say that it has replayed everything."""
    with psycopg.connect(plain(server.url()), autocommit=True) as conn, socket.socket(socket.AF_UNIX) as sock:
        (start,) = conn.execute("select pg_current_wal_lsn()::text").fetchone() or ("",)
        sock.connect(f"{conn.info.host}/.s.PGSQL.{conn.info.port}")
        words = f"user\0postgres\0replication\0true\0application_name\0{name}\0\0".encode()
        sock.sendall(struct.pack("!ii", len(words) + 8, 196608) + words)
        _read_until(sock, b"Z")
        command = f"START_REPLICATION {start}\0".encode()
        sock.sendall(b"Q" + struct.pack("!i", len(command) + 4) + command)
        _read_until(sock, b"W")
        threading.Thread(target=_drained, args=(sock,), daemon=True).start()

        def says(lsn: str) -> None:
            high, low = (int(part, 16) for part in lsn.split("/"))
            at = (high << 32) + low
            body = b"r" + struct.pack("!qqqqb", at, at, at, 0, 0)
            sock.sendall(b"d" + struct.pack("!i", len(body) + 4) + body)

        says(start)
        _until(lambda: conn.execute("select 1 from pg_stat_replication where replay_lsn is not null").fetchone())
        try:
            yield lambda: says((conn.execute("select pg_current_wal_lsn()::text").fetchone() or ("",))[0])
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            _until(lambda: not conn.execute("select 1 from pg_stat_replication").fetchone())


def _read_until(sock: socket.socket, kind: bytes) -> None:
    while True:
        head = sock.recv(5, socket.MSG_WAITALL)
        body = sock.recv(struct.unpack("!i", head[1:])[0] - 4, socket.MSG_WAITALL)
        assert head[:1] != b"E", body
        if head[:1] == kind:
            return


def _drained(sock: socket.socket) -> None:
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


def test_a_replica_that_replays_nothing_is_behind_and_one_that_caught_up_is_not(aim: target.Target, database: str, server: Server) -> None:  # fmt: skip
    watch = _watch(lag_s=0.2)
    with _replica(server) as catches_up, psycopg.connect(plain(database), autocommit=True) as conn:
        assert _look(aim, watch) == []
        conn.execute("update t set x = 2")
        (reason,) = _until(lambda: _look(aim, watch))
        assert reason.key == "lag standby"
        assert (reason.share, reason.says.startswith("replica standby is ")) == (0.0, True)
        catches_up()
        assert _until(lambda: not _look(aim, watch))


def test_a_replica_that_was_behind_before_counts_only_as_it_falls_further_behind(aim: target.Target, database: str, server: Server) -> None:  # fmt: skip
    watch = _watch(lag_s=10)
    with _replica(server), psycopg.connect(plain(database), autocommit=True) as conn:
        conn.execute("update t set x = 3")
        watch._wal.append((time.monotonic() - 3600, float("1e18")))  # as if the server had been watched for an hour
        assert _keys(_look(aim, watch)) == ["delayed"]
        watch._wal[0] = (time.monotonic() - 3620, float("1e18"))
        (note, lag) = _look(aim, watch)
        assert note.share == 1
        assert "is 3620 s behind, the limit is 3610 s" in lag.says


# -- WAL --------------------------------------------------------------------------------------------------------------


def test_more_wal_than_allowed_slows_by_as_much_as_is_too_much(aim: target.Target, database: str) -> None:
    watch = _watch(wal_bytes_per_s=1000)
    assert _look(aim, watch) == []
    with psycopg.connect(plain(database), autocommit=True) as conn:
        conn.execute("update t set x = 4")
    (reason,) = _look(aim, watch)
    assert "of WAL a second, the limit is 0.0 MB" in reason.says
    assert 0 < reason.share < 1
    shares = [reason.share]
    while shares[-1] < 1:
        time.sleep(0.01)
        shares.append(next((r.share for r in _look(aim, watch)), 1.0))
    assert shares == sorted(shares)


# -- the thread -------------------------------------------------------------------------------------------------------


def test_a_pause_is_seen_without_a_database_and_its_end_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GONE_URL", "postgresql://nobody@127.0.0.1:1/none")
    pace = Pace()
    with Sampler(target.resolve("env:GONE_URL"), run_id="r", table="public.t", pace=pace, folder=tmp_path):
        _until(lambda: any("could not be looked at" in says for says in pace.news()))
        pausing.set_flag(tmp_path, by="me on host", since="2026-01-01T12:00:00.000Z")
        _until(lambda: pace.throttle()[0])
        assert pace.throttle()[1] == "paused by me on host since 12:00:00 UTC"
        assert pausing.lift(tmp_path)
        _until(lambda: pace.throttle() == (0.0, ""))
    assert not pausing.lift(tmp_path)


def test_a_run_that_is_paused_already_waits_before_its_first_batch(aim: target.Target, tmp_path: Path) -> None:
    (tmp_path / pausing.PAUSED).write_text("touched by hand")
    pace = Pace()
    with Sampler(aim, run_id="r", table="public.t", pace=pace, folder=tmp_path):
        assert pace.throttle()[1].startswith("paused by somebody")


def test_a_sampler_that_loses_its_session_says_so_and_comes_back(aim: target.Target, database: str) -> None:
    pace = Pace()
    with Sampler(aim, run_id="lost", table="public.t", pace=pace), psycopg.connect(plain(database), autocommit=True) as conn:  # fmt: skip
        end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mend:lost:sampler'"
        _until(lambda: conn.execute(end).fetchall())
        news = _until(pace.news)
        assert "the server could not be looked at (" in news[0]
        assert "batches go by their own time alone" in news[0]
        _until(lambda: conn.execute(end.replace("pg_terminate_backend(pid)", "pid")).fetchall())
        assert pace.throttle() == (0.0, "")


def test_the_sampler_holds_no_snapshot_between_two_looks(aim: target.Target, database: str) -> None:
    with Sampler(aim, run_id="snap", table="public.t", pace=Pace()), psycopg.connect(plain(database), autocommit=True) as conn:  # fmt: skip
        asked = "select state, backend_xmin is null from pg_stat_activity where application_name = 'mend:snap:sampler'"
        _until(lambda: conn.execute(asked).fetchone() == ("idle", True))
