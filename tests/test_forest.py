"""The wait forest: roots, who stands below whom, whom ending somebody frees; and what its picture shows."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import pytest
from mend.queue import jam_checks, plots_forest
from mend.queue.backends import Backend
from mend.queue.ending import Prepared
from mend.queue.forest import MEANINGS, Forest, Marks, Wait

WHO = Backend(
    1, "2026-11-22 10:00:00.000000+00", "2026-11-22 10:00:01.000000+00", "7", "app", False, True, "web", "10.0.0.1", "shop", True,
    "client backend", "active", "", 5.0, 5.0, "select count(*) from t",
)  # fmt: skip


def wait(
    pid: int,
    blocker: int,
    *,
    hard: bool = True,
    mode: str = "ACCESS EXCLUSIVE",
    wait_s: float = 3.0,
    locktype: str = "relation",
) -> Wait:
    return Wait(pid, blocker, mode, "public.t", locktype, wait_s, hard)


def forest(*waits: Wait, **changed: dict[str, object]) -> Forest:
    """A forest whose sessions differ from a plain one as said: ``p7={"state": ...}``."""
    pids = {key for one in waits for key in (one.pid, one.blocker) if key > 0}
    return Forest({pid: replace(WHO, pid=pid, **changed.get(f"p{pid}", {})) for pid in pids}, waits=waits)  # type: ignore[arg-type]


def test_a_reader_behind_an_alter_behind_a_reader_is_freed_by_the_first() -> None:
    found = forest(wait(2, 1), wait(3, 2, hard=False), wait(4, 2, hard=False))
    assert found.roots == (1,)
    assert found.parent == {2: 1, 3: 2, 4: 2}
    assert found.freed_if_ended([1]) == {2, 3, 4}
    assert found.freed_if_ended([2]) == {3, 4}
    assert found.soft == {3, 4}


def test_a_waiter_with_two_blockers_is_freed_only_if_both_end() -> None:
    found = forest(wait(3, 1), wait(3, 2), wait(4, 3, hard=False))
    assert found.roots == (1, 2)
    assert found.freed_if_ended([1]) == frozenset()
    assert found.freed_if_ended([1, 2]) == {3, 4}
    assert found.roots_above(4) == {1, 2}
    assert found.also_behind(3) == (2,)


def test_a_queue_each_behind_all_before_it_is_a_chain() -> None:
    found = forest(*(wait(n, m, hard=m == 1) for n in range(2, 6) for m in range(1, n)))
    assert found.parent == {2: 1, 3: 2, 4: 3, 5: 4}
    assert found.soft == frozenset()


def test_a_circle_has_one_root_and_is_called_a_deadlock() -> None:
    found = forest(wait(1, 2), wait(2, 1), wait(3, 1))
    assert found.roots == (1,)
    assert found.in_circles == {1, 2}
    assert [found.kind(pid) for pid in (1, 2, 3)] == ["deadlock", "deadlock", "waiting"]
    assert found.freed_if_ended([1]) == {2, 3}


def test_a_prepared_transaction_is_a_root_without_a_pid() -> None:
    one = Prepared("order-7", "4711", "2026-11-22 10:00:00.000000+00", "app", "shop")
    found = replace(forest(wait(2, -4711)), prepared={-4711: one}, ages_s={-4711: 90.0})
    assert found.roots == (-4711,)
    assert found.kind(-4711) == "prepared transaction"
    assert found.named(-4711) == "prepared transaction 'order-7' (owner app, prepared 90 s ago)"


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"state": "idle in transaction"}, "idle in transaction"),
        ({"state": "idle"}, "idle, with an advisory lock"),
        ({}, "long statement"),
        ({"application": "pg_dump", "query": "COPY public.t (a) TO stdout;"}, "dump"),
        ({"backend_type": "autovacuum worker", "query": "autovacuum: VACUUM public.t"}, "autovacuum"),
        (
            {"backend_type": "autovacuum worker", "query": "autovacuum: VACUUM public.t (to prevent wraparound)"},
            "autovacuum to prevent wraparound",
        ),
        ({"query": "CREATE INDEX CONCURRENTLY ix ON t (a)"}, "concurrent index build or validation"),
        ({"query": "alter table t validate constraint c"}, "concurrent index build or validation"),
        ({"query": "alter table t add column b int"}, "another migrator"),
        ({"backend_type": "walsender"}, "logical or physical walsender"),
        ({"backend_type": "startup"}, "server process"),
        ({"application": "mend:2026:1"}, "session of mend"),
        ({"backend_start": "", "query": "<insufficient privilege>", "backend_type": ""}, "not visible"),
    ],
)
def test_what_a_root_is(changed: dict[str, object], kind: str) -> None:
    found = forest(wait(2, 1), p1=changed)
    assert found.kind(1) == kind
    assert kind in MEANINGS


def test_who_holds_the_version_table_is_another_migrator() -> None:
    found = replace(forest(wait(2, 1)), marks={1: Marks("public.alembic_version")})
    assert found.kind(1) == "another migrator"
    idle = replace(forest(wait(2, 1), p1={"state": "idle in transaction"}), marks={1: Marks("public.alembic_version")})
    assert idle.kind(1) == "another migrator, idle"


def test_an_awaited_advisory_lock_of_an_idle_session_is_a_migrators() -> None:
    found = forest(wait(2, 1, locktype="advisory"), p1={"state": "idle", "xact_start": ""})
    assert found.kind(1) == "another migrator, idle"
    assert found.by_advisory(1)


def test_the_migrations_own_second_session_is_told() -> None:
    """Same role, client and name, begun together, and the one that waits holds the version table."""
    alike = {"application": "alembic", "state": "idle in transaction"}
    found = replace(
        forest(wait(2, 1), p1=alike, p2={"application": "alembic", "query": "alter table t add column b int"}),
        marks={2: Marks("public.alembic_version")},
    )
    assert found.kind(1) == "the migration's second session"
    apart = replace(found, sessions={**found.sessions, 1: replace(found.sessions[1], client="10.0.0.2")})
    assert apart.kind(1) == "idle in transaction"


def crowd(count: int = 200) -> Forest:
    """One idle root, an ALTER behind it, readers and writers behind that, and a queue of LOCK TABLE."""
    waits = [wait(2, 1)]
    waits += [wait(n, 2, hard=False, mode="ACCESS SHARE", wait_s=n / 10) for n in range(3, count - 20)]
    waits += [wait(n, m) for n in range(count - 19, count) for m in range(count - 20, n)]
    return forest(*waits, p1={"state": "idle in transaction"}, p2={"query": "alter table t add column b int"})


def test_two_hundred_sessions_are_a_few_lines() -> None:
    drawn = plots_forest.lines(crowd())
    assert [(len(line.keys), line.depth) for line in drawn] == [(1, 0), (1, 1), (177, 2), (1, 0), (19, 1)]
    assert drawn[2].title.startswith("177 sessions want ACCESS SHARE on public.t")
    assert drawn[4].title.startswith("19 sessions, one behind the other, want ACCESS EXCLUSIVE")
    assert drawn[0].freed == "frees 178 of 178"
    assert sum(len(line.keys) for line in drawn) == 199


def test_the_picture_is_a_png_that_grows_with_its_lines_and_ends() -> None:
    def height(found: Forest) -> int:
        png = plots_forest.picture(plots_forest.lines(found))
        assert png.startswith(b"\x89PNG")
        return int(struct.unpack(">II", png[16:24])[1])

    small, many = height(crowd()), height(forest(*(wait(n + 1000, n) for n in range(1, 90))))
    assert 200 < small < 500
    assert small < many < 3000


def test_what_the_picture_shows_stands_in_words_beside_it() -> None:
    shown = plots_forest.shown(crowd())
    assert "data:image/png;base64," in shown.html
    assert "197 sessions wait, the longest for 18 s, behind 2 roots." in shown.text
    assert "ending it frees 178 of 178 behind it" in shown.text
    assert "behind one that asked before (soft)" in shown.text
    assert plots_forest.shown(Forest()).text == "Nobody waits for a lock at this moment."


def test_hostile_names_are_shown_as_text() -> None:
    found = forest(wait(2, 1), p1={"application": "<script>alert(1)</script> $x_1$", "state": "idle in transaction"})
    shown = plots_forest.shown(found)
    assert "<script>" not in shown.html
    assert "data:image/png" in shown.html


def test_a_crowd_is_worked_out_in_a_small_part_of_a_second() -> None:
    """No test of time: the worst shape, each behind all before it, must only not grow like the cube."""
    found = forest(*(wait(n, m) for n in range(2, 300) for m in range(1, n)))
    began = time.process_time()
    assert found.roots == (1,)
    assert len(jam_checks.wait_frame(found)) == 299
    assert found.freed_if_ended([1]) == frozenset(range(2, 300))
    assert time.process_time() - began < 20
