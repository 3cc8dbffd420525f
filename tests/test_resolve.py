"""What a step really did is read from its transaction, then from the catalog; where neither tells, nobody guesses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mend.database import target
from mend.database.target import Target
from mend.errors import MendError, OutcomeUnknown, PreconditionFailed
from mend.execution import resolve
from mend.execution.resolve import Outcome
from mend.journal import Event, sha256
from mend.plan import Expect, Plan, Statement, Step

INDEX = "CREATE INDEX ix ON public.t USING btree (a)"
GONE, THERE = (Expect("index", "public.ix", None),), (Expect("index", "public.ix", INDEX),)
TRANSACTION = Step("Make it", (Statement("create index ix on t (a)"),), before=GONE, after=THERE)
ALONE = Step(
    "Make it",
    (Statement("create index concurrently ix on t (a)"),),
    transactional=False,
    before=GONE,
    after=THERE,
    restart=(Statement("drop index if exists ix"),),
)
ROWS = Step("Change rows", (Statement("update t set a = 1"),))


@pytest.fixture
def here(database: str, monkeypatch: pytest.MonkeyPatch) -> Target:
    with psycopg.connect(database.replace("+psycopg", "")) as conn:
        conn.execute("create table t (a integer)")
    monkeypatch.setenv("HERE_URL", database)
    return target.resolve("env:HERE_URL")


@pytest.fixture
def conn(database: str, here: Target) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.replace("+psycopg", "")) as conn:
        yield conn


def event(kind: str, step: int = 0, **payload: Any) -> Event:
    return Event(0, "", kind, {"step": step, **payload}, "", "", "")


OLD = "9"  # initdb's own: its status is not kept any longer
STARTED = event("step_started")


def xid(conn: psycopg.Connection, statement: str) -> str:
    """Run a statement in a transaction that is left open; its id."""
    conn.execute(statement.encode())
    row = conn.execute("select cast(pg_current_xact_id() as text)").fetchone()
    assert row
    return str(row[0])


# -- by the journal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [TRANSACTION, ALONE, ROWS])
def test_a_step_without_an_event_was_never_started(here: Target, step: Step) -> None:
    assert resolve.outcome(here, 0, step, [event("step_started", 1), event("apply_started", 7)]).state == "not_done"


@pytest.mark.parametrize("step", [TRANSACTION, ALONE, ROWS])
def test_a_step_that_the_journal_calls_done_is_done_even_after_a_failed_try(here: Target, step: Step) -> None:
    events = [STARTED, event("step_xid", xid="1"), event("step_failed"), STARTED, event("step_done")]
    assert resolve.outcome(here, 0, step, events) == Outcome("done", "the journal says so")


def test_a_transaction_whose_id_is_not_in_the_journal_was_never_committed(
    here: Target, conn: psycopg.Connection
) -> None:
    conn.execute("create index ix on t (a)")
    conn.commit()  # somebody else made the same index: that says nothing about the step
    found = resolve.outcome(here, 0, TRANSACTION, [STARTED])
    assert found.state == "not_done"
    assert "COMMIT was never sent" in found.how


def test_every_step_is_judged_by_its_own_events(here: Target, conn: psycopg.Connection) -> None:
    mine = xid(conn, "insert into t values (1)")
    conn.commit()
    plan = Plan("s", {}, {}, "x", steps=(ROWS, ROWS, ROWS))
    events = [event("step_started"), event("step_done"), event("step_started", 1), event("step_xid", 1, xid=mine)]
    assert [found.state for found in resolve.outcomes(here, plan, events).values()] == ["done", "done", "not_done"]


# -- by the transaction ------------------------------------------------------------------------------------------------


def test_a_committed_transaction_is_done(here: Target, conn: psycopg.Connection) -> None:
    mine = xid(conn, "insert into t values (1)")
    conn.commit()
    assert resolve.transaction(here, mine) == "committed"
    assert resolve.outcome(here, 0, ROWS, [STARTED, event("step_xid", xid=mine)]) == Outcome(
        "done", f"transaction {mine} is committed"
    )


def test_an_aborted_transaction_is_not_done_although_the_catalog_looks_done(
    here: Target, conn: psycopg.Connection
) -> None:
    mine = xid(conn, "insert into t values (1)")
    conn.rollback()
    conn.execute("create index ix on t (a)")
    conn.commit()
    assert resolve.transaction(here, mine) == "aborted"
    assert resolve.outcome(here, 0, TRANSACTION, [STARTED, event("step_xid", xid=mine)]).state == "not_done"


def test_of_several_tries_the_last_one_counts(here: Target, conn: psycopg.Connection) -> None:
    first = xid(conn, "insert into t values (1)")
    conn.rollback()
    second = xid(conn, "insert into t values (1)")
    conn.commit()
    events = [STARTED, event("step_xid", xid=first), event("step_retried"), event("step_xid", xid=second)]
    assert resolve.outcome(here, 0, ROWS, events).state == "done"


def test_a_transaction_that_goes_on_is_waited_for_by_the_operator(here: Target, conn: psycopg.Connection) -> None:
    mine = xid(conn, "insert into t values (1)")
    assert resolve.transaction(here, mine) == "in progress"
    with pytest.raises(OutcomeUnknown, match=f"Transaction {mine} of step 1 is still in progress. Nothing was started"):
        resolve.outcome(here, 0, ROWS, [STARTED, event("step_xid", xid=mine)])


def test_a_prepared_transaction_is_in_progress(here: Target, conn: psycopg.Connection) -> None:
    mine = xid(conn, "insert into t values (1)")
    conn.execute("prepare transaction 'left by a crash'")
    conn.autocommit = True
    assert resolve.transaction(here, mine) == "in progress"
    conn.execute("rollback prepared 'left by a crash'")
    assert resolve.transaction(here, mine) == "aborted"


@pytest.mark.parametrize(("there", "state"), [(True, "done"), (False, "not_done")])
def test_a_transaction_too_old_to_be_remembered_is_judged_by_the_catalog(
    here: Target, conn: psycopg.Connection, there: bool, state: str
) -> None:
    assert resolve.transaction(here, OLD) == "too old"
    if there:
        conn.execute("create index ix on t (a)")
        conn.commit()
    assert resolve.outcome(here, 0, TRANSACTION, [STARTED, event("step_xid", xid=OLD)]).state == state


def test_a_transaction_too_old_that_leaves_no_trace_is_not_guessed(here: Target) -> None:
    with pytest.raises(OutcomeUnknown, match="leaves no trace in the catalog"):
        resolve.outcome(here, 0, ROWS, [STARTED, event("step_xid", xid=OLD)])


@pytest.mark.parametrize("number", ["18446744073709551000", "-1"])
def test_an_id_of_another_cluster_or_none_at_all_is_an_error_and_no_answer(here: Target, number: str) -> None:
    with pytest.raises(MendError, match="Nothing was changed"):
        resolve.outcome(here, 0, ROWS, [STARTED, event("step_xid", xid=number)])


# -- by the catalog ----------------------------------------------------------------------------------------------------


def test_a_step_outside_transactions_is_done_when_what_it_makes_is_there(
    here: Target, conn: psycopg.Connection
) -> None:
    conn.execute("create index ix on t (a)")
    conn.commit()
    assert resolve.outcome(here, 0, ALONE, [STARTED]).state == "done"


def test_it_is_not_done_when_all_is_as_before(here: Target) -> None:
    assert resolve.outcome(here, 0, ALONE, [STARTED]).state == "not_done"


def test_an_index_left_invalid_by_a_crash_is_partial(here: Target, conn: psycopg.Connection, database: str) -> None:
    conn.execute("lock table t in row exclusive mode")
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as builder:
        builder.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            builder.execute("create index concurrently ix on t (a)")
    conn.rollback()
    found = resolve.outcome(here, 0, ALONE, [STARTED])
    assert found.state == "partial"
    assert f"found {INDEX} INVALID" in found.how


def test_a_state_that_is_neither_before_nor_after_is_not_guessed(here: Target, conn: psycopg.Connection) -> None:
    conn.execute("create index ix on t (a desc)")
    conn.commit()
    without_restart = Step(ALONE.says, ALONE.statements, transactional=False, before=GONE, after=THERE)
    with pytest.raises(OutcomeUnknown, match=r"neither done nor undone: index public\.ix: expected CREATE INDEX"):
        resolve.outcome(here, 0, without_restart, [STARTED])


def test_a_step_without_a_trace_is_not_guessed(here: Target) -> None:
    vacuum = Step("Vacuum", (Statement("vacuum t"),), transactional=False)
    with pytest.raises(OutcomeUnknown, match=r"Step 1 \(Vacuum\) leaves no trace in the catalog"):
        resolve.outcome(here, 0, vacuum, [STARTED])


# -- by the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("present", "state"), [("new", "done"), ("old", "not_done")])
def test_a_file_is_judged_by_what_it_holds(here: Target, tmp_path: Path, present: str, state: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(present)
    step = Step("Patch it", (), kind="file", arguments={"path": str(path), "sha256": sha256("old"), "text": "new"})
    assert resolve.outcome(here, 0, step, [STARTED]).state == state


def test_a_file_that_somebody_edited_is_not_guessed(here: Target, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    step = Step("Patch it", (), kind="file", arguments={"path": str(path), "sha256": sha256("old"), "text": "new"})
    for content in ("neither", ""):
        path.write_text(content)
        with pytest.raises(OutcomeUnknown, match="neither the old text nor the new one"):
            resolve.outcome(here, 0, step, [STARTED])


# -- what stands -------------------------------------------------------------------------------------------------------


def test_what_differs_is_told_line_by_line(here: Target, conn: psycopg.Connection) -> None:
    conn.execute("create index ix on t (a desc)")
    conn.commit()
    expects = (
        *THERE,
        Expect("table", "public.t", "permanent"),
        Expect("table", "public.t", None),
        Expect("column", "public.t.b", "text"),
    )
    with here.reading() as reading:
        assert resolve.differences(reading, ()) == []
        assert resolve.differences(reading, expects) == [
            f"index public.ix: expected {INDEX}, found CREATE INDEX ix ON public.t USING btree (a DESC)",
            "table public.t: expected (absent), found permanent",
            "column public.t.b: expected text, found (absent)",
        ]
        with pytest.raises(
            PreconditionFailed,
            match=r"Step 3 needs the database to be otherwise\. .* This step did nothing\. Make a new plan\.",
        ):
            resolve.require(reading, expects, "Step 3")
        resolve.require(reading, (Expect("table", "public.t", "permanent"),), "Step 3")


# -- survivors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def survivor(database: str) -> Iterator[Callable[[str], psycopg.Connection]]:
    left: list[psycopg.Connection] = []

    def connect(name: str) -> psycopg.Connection:
        left.append(psycopg.connect(database.replace("+psycopg", ""), application_name=name))
        return left[-1]

    yield connect
    for one in left:
        one.close()


def test_a_session_that_lives_on_is_named_and_nothing_is_started(
    here: Target, survivor: Callable[[str], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "_SURVIVOR_WAIT_S", 0.0)
    one = survivor("mend:run:3")
    one.execute("insert into t values (1)")
    with pytest.raises(
        OutcomeUnknown,
        match=rf"Sessions mend:run:3 are still at work: pid {one.info.backend_pid} \(idle in transaction: insert into t values \(1\)\)\. Nothing was started",
    ):
        resolve.await_survivors(here, "mend:run:3")
    resolve.await_survivors(here, "mend:run:4")
    resolve.await_survivors(here, "mend:other")


def test_a_session_that_ends_is_waited_for(here: Target, survivor: Callable[[str], psycopg.Connection]) -> None:
    one = survivor("mend:run:3")
    threading.Timer(0.3, one.close).start()
    resolve.await_survivors(here, "mend:run:")
    assert one.closed


def test_a_poor_role_sees_the_sessions_of_another(
    here: Target,
    survivor: Callable[[str], psycopg.Connection],
    conn: psycopg.Connection,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolve, "_SURVIVOR_WAIT_S", 0.0)
    conn.execute("create role poor login")
    conn.commit()
    try:
        survivor("mend:run:3")
        monkeypatch.setenv("POOR_URL", database.replace("postgres@", "poor@"))
        with pytest.raises(OutcomeUnknown, match="still at work"):
            resolve.await_survivors(target.resolve("env:POOR_URL"), "mend:run:3")
    finally:
        conn.execute("drop role poor")
        conn.commit()
