"""What others do while a repair is made: between its list and its batches, in a transaction of their own, with another schema's types."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fix_runs import Desk, Look, Ran, until
from fix_shop import Broken
from mend.batches import checkpoints
from mend.batches.batch import Job
from mend.change.writer import Writer
from mend.database import holders, target
from mend.errors import LockNotAcquired
from mend.execution import execute
from mend.lab.shop import Project
from sqlalchemy import Connection

UNIQUE, NOT_NULL = "unique_violation", "not_null_violation"
ByHand = Callable[..., Broken]

PEOPLE = (
    "create table t (id int primary key, e text, gone bool not null default false)",
    "create table c (id int primary key, t_id int references t)",
    "insert into t values (1, 'a'), (2, 'a'), (3, 'b'), (4, 'b'), (5, 'c')",
    "insert into c select n, 1 + n % 5 from generate_series(1, 50) as n",
)
MERGE = {"table": "t", "columns": "e", "option": "merge"}


@pytest.fixture
def by_hand(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ByHand:
    """``by_hand(slug, *statements)``: a target of its own, and no Alembic project."""

    def make(slug: str, *statements: str) -> Broken:
        monkeypatch.setenv("BY_HAND_URL", database)
        Look(database).execute(*statements)
        return Broken(Project(tmp_path, database), tmp_path / "error.txt", {"target": "env:BY_HAND_URL"}, slug)

    return make


def planned(desk: Desk, made: Broken, **given: str) -> Ran:
    found = desk.plan(made, **given)
    assert found.code == 2, found.err
    return found


@contextmanager
def once_listed(action: str, act: Callable[[], None]) -> Iterator[None]:
    """Somebody acts behind the list that a repair of this kind works off, and before its first batch."""
    make = checkpoints.make

    def made(conn: Connection, job: Job) -> None:
        make(conn, job)
        if job.repair.action == action:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "make", made)
        yield


# -- a pair of duplicates is looked at as a whole, alone with its table ---------------------------------------------------


@pytest.mark.parametrize("change", ["update t set gone = true where id = 1", "update t set e = 'new' where id = 1"])
def test_nothing_is_moved_to_a_row_that_is_no_twin_any_more(desk: Desk, by_hand: ByHand, change: str) -> None:
    made = by_hand(UNIQUE, *PEOPLE, "create unique index uq on t (e) where id > 100 and not gone", "drop index uq")
    look = Look(made.url)
    look.execute("delete from c where t_id not in (1, 2)", "delete from t where id not in (1, 2)")
    # The wanted key is partial: a revision would say so; by hand, an INVALID index of that definition does.
    with look.connect() as conn, pytest.raises(Exception, match="could not create unique index"):
        conn.execute("create unique index concurrently uq on t (e) where not gone")
    found = planned(desk, made, option="merge", table="t", columns="e", constraint="uq")
    with once_listed("update", lambda: look.execute(change)):
        applied = desk.apply(found)
    assert applied.code == 0, applied.err
    assert look.query("select t_id, count(*) from c group by 1 order by 1") == [(1, 10), (2, 10)]
    assert look.query("select count(*) from t") == [(2,)]


def test_a_move_waits_for_whoever_is_changing_the_table_and_looks_again(desk: Desk, by_hand: ByHand) -> None:
    made = by_hand(UNIQUE, *PEOPLE)
    look = Look(made.url)
    found = planned(desk, made, **MERGE)
    waits = (
        "select 1 from pg_locks where not granted and mode = 'ShareRowExclusiveLock' and relation = to_regclass('t')"
    )
    changed, waited = threading.Event(), []

    def change() -> None:
        with look.connect(autocommit=False) as conn:
            conn.execute("update t set e = 'new' where id = 2")
            changed.set()
            waited.append(until(lambda: look.query(waits), what="the move waits", patience_s=10))
            conn.commit()

    thread = threading.Thread(target=change)
    with once_listed("update", lambda: (thread.start(), changed.wait(10)) if not changed.is_set() else None):
        applied = desk.apply(found)
    thread.join()
    assert waited
    assert applied.code == 0, applied.err
    assert look.query("select id, e from t order by id") == [(1, "a"), (2, "new"), (3, "b"), (5, "c")]
    assert look.query("select count(*) from c where t_id = 2") == [(10,)]


def test_a_row_that_was_to_go_and_was_changed_meanwhile_ends_the_step_and_all_can_be_taken_back(
    desk: Desk, by_hand: ByHand
) -> None:
    made = by_hand(UNIQUE, *PEOPLE)
    look = Look(made.url)
    before = look.rows()
    found = planned(desk, made, **MERGE)
    with once_listed("delete", lambda: look.execute("update t set e = 'new' where id = 2")):
        applied = desk.apply(found)
    assert applied.code == 1
    assert "1 rows of public.t that were to go were changed meanwhile, and stay" in applied.err
    assert f"`mend undo {applied.run_id}` takes it all back" in applied.err
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    look.execute("update t set e = 'a' where id = 2")
    assert look.rows() == before


def test_rows_that_come_to_point_at_one_that_goes_are_moved_by_a_new_plan_and_plans_are_taken_back_last_first(
    desk: Desk, by_hand: ByHand
) -> None:
    made = by_hand(UNIQUE, *PEOPLE)
    look = Look(made.url)
    before = look.rows()
    found = planned(desk, made, **MERGE)
    with once_listed("delete", lambda: look.execute("insert into c values (900, 2)")):
        first = desk.apply(found)
    assert (first.code, "23503" in first.err, "or make a new plan" in first.err) == (1, True, True)
    second = desk.apply(planned(desk, made, **MERGE))
    assert second.code == 0, second.err
    assert look.query("select t_id from c where id = 900") == [(1,)]
    early = desk.here("undo", first.run_id)
    assert (early.code, f"First `mend undo {second.run_id}`" in early.err) == (3, True), early.err
    assert [desk.here("undo", one.run_id).code for one in (second, first)] == [0, 0]
    look.execute("delete from c where id = 900")
    assert look.rows() == before


def test_a_key_named_by_hand_can_be_resumed_after_a_kill_and_undone(desk: Desk, by_hand: ByHand) -> None:
    made = by_hand(UNIQUE, *PEOPLE)
    look = Look(made.url)
    before = look.rows()
    found = planned(desk, made, **MERGE)
    killed = desk.crash("apply", found.run_id, "--approve", found.digest, kind="step_started", nth=2, after=True)
    resumed = desk.here("resume", killed)
    assert resumed.code == 0, resumed.err
    assert look.query("select count(*) from t") == [(3,)]
    undone = desk.here("undo", resumed.run_id)
    assert (undone.code, look.rows()) == (0, before), undone.err


def test_a_plan_is_stale_where_another_run_ended_between_its_look_and_its_turn(
    desk: Desk, by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = by_hand(NOT_NULL, *PEOPLE, "update t set e = null where id > 3", "create table u as select * from t")
    first = planned(desk, made, table="u", columns="e", option="backfill", fill="'x'")
    second = planned(desk, made, table="t", columns="e", option="backfill", fill="'x'")
    held, before = execute._held, []

    @contextmanager
    def held_later(writer: Writer) -> Iterator[Callable[[], None]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execute, "_held", held)
            before.append(desk.apply(first))
        with held(writer) as still_held:
            yield still_held

    monkeypatch.setattr(execute, "_held", held_later)
    applied = desk.apply(second)
    assert before[0].code == 0, before[0].err
    said = f"Run {before[0].run_id} was applied to this database while this one waited for it. Nothing was changed."
    assert (applied.code, said in applied.err) == (3, True), applied.err
    assert Look(made.url).query("select count(*) from t where e is null") == [(2,)]


# -- what the session is set to, and what it may do ---------------------------------------------------------------------


def test_types_of_an_extension_off_the_search_path_are_compared_by_their_own_rules(desk: Desk, by_hand: ByHand) -> None:
    """As text, the rows that refer in other letters were not seen, and went by ON DELETE CASCADE without a before-image."""
    made = by_hand(
        NOT_NULL,
        "create schema ext",
        "create extension citext schema ext",
        "create table t (id ext.citext primary key, x int)",
        "create table c (id int primary key, t_id ext.citext references t on delete cascade)",
        "insert into t values ('Ann', null), ('bob', 1)",
        "insert into c values (1, 'ann'), (2, 'ANN'), (3, 'Ann'), (4, 'bob')",
    )
    look = Look(made.url)
    before = look.rows()
    applied = desk.apply(planned(desk, made, table="t", columns="x", option="delete"))
    assert applied.code == 0, applied.err
    assert look.query("select id from c") == [(4,)]
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, look.rows()) == (0, before), undone.err


def test_a_role_that_does_not_own_the_table_is_refused_before_a_row_is_written(
    desk: Desk, by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = by_hand(
        NOT_NULL,
        "create table t (id int primary key, x int)",
        "insert into t values (1, null)",
        "create role visitor login",
        "grant select, update, delete on t to visitor",
        "grant execute on function pg_control_system() to visitor",
    )
    look = Look(made.url)
    try:
        monkeypatch.setenv("BY_HAND_URL", made.url.replace("postgres@", "visitor@"))
        refused = desk.plan(made, table="t", columns="x", option="backfill", fill="1")
        assert (refused.code, "the role does not own public.t" in refused.err) == (3, True), refused.err
    finally:
        look.execute("drop owned by visitor", "drop role visitor")


def test_what_others_do_is_told_without_their_values(desk: Desk, by_hand: ByHand) -> None:
    made = by_hand(NOT_NULL, "create table t (id int primary key, x int)", "insert into t values (1, null)")
    look = Look(made.url)
    long = f"update t set id = 4711 where cast(x as text) in ('{'secret' * 40}', 'secret')"
    with look.holding(long):  # what is shown of it is cut off within the text
        found = planned(desk, made, table="t", columns="x", option="backfill", fill="1")
        (seen,) = found.check("sessions")["sample"]
        assert seen["query"] == "update t set id = 0 where cast(x as text) in (''"
        written = "".join(path.read_text() for path in found.record.path.iterdir() if path.is_file())
        assert ("secret" in written, "4711" in written) == (False, False)
    ours = target.resolve("env:BY_HAND_URL")
    with (
        look.holding("lock table t in access exclusive mode; select 'secret'"),
        pytest.raises(LockNotAcquired, match=r"select ''") as told,
        holders.named(ours, "-"),
        ours.reading() as conn,
    ):
        conn.exec_driver_sql("select * from t")
    assert "secret" not in str(told.value)


# -- rows that refer to each other, and partitions ------------------------------------------------------------------------


def test_twins_that_refer_to_rows_of_their_own_table_are_merged(desk: Desk, by_hand: ByHand) -> None:
    made = by_hand(
        UNIQUE,
        "create table t (id int primary key, e text, up int references t)",
        "insert into t select n, 'e' || n / 3, case when n > 9 then n - 9 end from generate_series(1, 20) as n",
    )
    look = Look(made.url)
    before = look.rows()
    applied = desk.apply(planned(desk, made, **MERGE))
    assert applied.code == 0, applied.err
    assert look.query("select count(*) = count(distinct e) from t") == [(True,)]
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, look.rows()) == (0, before), undone.err


def test_rows_that_refer_to_a_partitioned_table_have_their_parent_in_one_partition(desk: Desk, by_hand: ByHand) -> None:
    made = by_hand(
        UNIQUE,
        "create table t (id int primary key, e text) partition by range (id)",
        "create table t_1 partition of t for values from (0) to (10)",
        "create table t_2 partition of t default",
        "create table c (id int primary key, t_id int references t) partition by hash (id)",
        "create table c_1 partition of c for values with (modulus 2, remainder 0)",
        "create table c_2 partition of c for values with (modulus 2, remainder 1)",
        "insert into t select n, 'e' || n % 11 from generate_series(1, 30) as n",
        "insert into c select n, 1 + n % 30 from generate_series(1, 90) as n",
    )
    look = Look(made.url)
    before = look.rows()
    applied = desk.apply(planned(desk, made, **MERGE))
    assert applied.code == 0, applied.err
    assert look.query("select count(*) from t") == [(11,)]
    undone = desk.here("undo", applied.run_id)
    assert (undone.code, look.rows()) == (0, before), undone.err
