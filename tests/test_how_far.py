"""How far a change in another transaction is, on a real server: any order, subtransactions, partitions, locks; and nobody waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from mend.database import queries
from mend.lab.shop import plain
from mend.slow import eta
from mend.slow.eta import Course, Look
from mend.slow.how_far import Worker, look
from sqlalchemy import Connection

ROWS = 20_000
MADE = f"create table t (id int8 primary key, a text, pad text default repeat('x', 60)); insert into t (id) select i from generate_series(1, {ROWS}) as i; analyze t"


@contextmanager
def _open(url: str, *statements: str) -> Iterator[Worker]:
    """A session that ran these and sits in its transaction."""
    with psycopg.connect(plain(url)) as conn:
        for statement in statements:
            conn.execute(statement.encode())
        row = conn.execute(
            "select pg_backend_pid(), cast(backend_xid as text) from pg_stat_activity where pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None
        yield Worker(row[0], row[1] or "")
        conn.rollback()


@pytest.mark.parametrize(
    ("where", "share"),
    [("id <= 5000", 0.25), ("id % 4 = 0", 0.25), ("id > 12000", 0.4), ("md5(id::text) < '4'", 0.25)],
    ids=["forwards", "scattered", "from the end", "by chance"],
)
def test_the_share_is_right_whatever_the_order(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection], where: str, share: float
) -> None:
    prepared(MADE)
    with _open(database, f"update t set a = 'x' where {where}") as worker:
        found = look(reading(), "public.t", worker, pages=100)
        assert found.why == ""
        assert found.pages < found.of
        assert found.done / (found.done + found.left) == pytest.approx(share, abs=0.04)
        assert found.rows_done == pytest.approx(share * ROWS, abs=max(4 * found.error, 0.06 * ROWS))


def test_rows_that_the_statement_is_not_about_are_left_out(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    with _open(database, "update t set a = 'x' where id <= 2500") as worker:
        found = look(reading(), "public.t", worker, where="t.id <= 5000", pages=10_000)
        assert (found.done, found.left, found.other) == (2500, 2500, ROWS - 5000)
        assert found.error == 0


def test_subtransactions_are_its_own_and_other_transactions_are_not(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    """A finished subtransaction holds no lock on its id any more: pg_locks does not show it."""
    prepared(MADE)
    pieces = [
        text
        for n in range(80)
        for text in (
            f"savepoint s{n}",
            f"update t set a = 'x' where id between {n * 50 + 1} and {n * 50 + 50}",
            f"release savepoint s{n}",
        )
    ]
    with (
        _open(database, "savepoint s", "update t set a = 'y' where id > 15000", "release savepoint s") as other,
        _open(database, *pieces) as worker,
    ):
        found = look(reading(), "public.t", worker, pages=10_000)
        assert found.done in (
            4000,
            9000,
        )  # the ids of a subtransaction of somebody who began later cannot be told from its own
        assert look(reading(), "public.t", Worker(other.pid, other.xid), pages=10_000).done >= 5000


def test_what_was_rolled_back_or_belongs_to_somebody_else_does_not_count(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    with _open(database, "update t set a = 'y' where id > 15000"):
        pass
    with (
        _open(
            database,
            "update t set a = 'x' where id <= 1000",
            "savepoint s",
            "update t set a = 'x' where id between 2001 and 3000",
            "rollback to s",
        ) as worker,
        _open(database, "update t set a = 'y' where id > 19000"),
    ):
        assert look(reading(), "public.t", worker, pages=10_000).done == 1000


def test_partitions_are_looked_at_each(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(
        "create table p (id int8, a text) partition by range (id); create table p1 partition of p for values from (0) to (1001); "
        "create table p2 partition of p for values from (1001) to (9999); insert into p select i from generate_series(1, 4000) as i; analyze p"
    )
    with _open(database, "update p set a = 'x' where id <= 1000") as worker:
        found = look(reading(), "public.p", worker, pages=10_000)
        assert (found.done, found.left) == (1000, 3000)


def test_a_locked_table_is_not_waited_for(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    conn = reading()
    with _open(database, "alter table t add column b int", "update t set b = 1 where id < 10") as worker:
        began = time.monotonic()
        found = look(conn, "public.t", worker)
        assert time.monotonic() - began < 2
        assert "ACCESS EXCLUSIVE" in found.why
        assert conn.exec_driver_sql("select 1").scalar() == 1  # the diagnosis goes on


def test_whoever_wants_the_table_waits_for_no_look(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    with _open(database, "update t set a = 'x' where id <= 10") as worker:
        conn = reading()
        look(conn, "public.t", worker)
        held = {
            row[0]
            for row in conn.exec_driver_sql(
                "select mode from pg_locks where pid = pg_backend_pid() and relation = 't'::regclass"
            )
        }
        assert held <= {"AccessShareLock"}


def test_without_a_transaction_id_nothing_is_done(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    found = look(reading(), "public.t", Worker(1, ""), pages=10_000)
    assert (found.done, found.left) == (0, ROWS)


def test_an_older_servers_way_gives_the_same(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(MADE)
    monkeypatch.setattr(queries, "version_num", lambda _: 130000)
    with _open(database, "update t set a = 'x' where id % 2 = 0") as worker:
        found = look(reading(), "public.t", worker, pages=100)
        assert found.done / (found.done + found.left) == pytest.approx(0.5, abs=0.05)


def test_a_real_update_is_done_when_it_was_said_to_be(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    """Every row takes the same time, by a trigger: after a fifth of them the end is known to a quarter."""
    prepared(MADE)
    total_s = 2.0
    prepared(
        "create function wait() returns trigger language plpgsql as $$ begin if new.id % 200 = 0 then "
        f"perform pg_sleep({total_s / (ROWS / 200)}); end if; return new; end $$; "
        "create trigger wait before update on t for each row execute function wait()"
    )
    conn = reading()
    conn.rollback()
    with psycopg.connect(plain(database), autocommit=True) as busy:
        pid = busy.info.backend_pid
        import threading

        thread = threading.Thread(target=busy.execute, args=(b"update t set a = 'x'",))
        thread.start()
        looks: list[Look] = []
        seen: list[tuple[float, eta.Estimate]] = []
        while thread.is_alive():
            row = conn.exec_driver_sql(
                "select extract(epoch from clock_timestamp() - query_start)::float8, coalesce(cast(backend_xid as text), '') from pg_stat_activity where pid = %s and state = 'active'",
                (pid,),
            ).fetchone()
            if row:
                share = look(conn, "public.t", Worker(pid, row[1]), pages=150)
                looks.append(Look(row[0], share.rows_done, share.rows_left, share.error))
                found = eta.estimate(Course("rows", tuple(looks[-4:]), began_s=0.0))
                if found and found.left_s and 0.2 <= found.share <= 0.6:
                    seen.append((row[0], found))
            conn.rollback()
        thread.join()
        (ended,) = conn.exec_driver_sql(
            "select extract(epoch from state_change - query_start)::float8 from pg_stat_activity where pid = %s", (pid,)
        ).fetchone() or (0.0,)
    assert seen
    at_s, first = seen[0]
    assert first.left_s == pytest.approx(
        ended - at_s, rel=0.35
    )  # 0.25 is measured without a crowd on the machine: see benchmarks
