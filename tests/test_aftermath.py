"""An applied plan is taken back or gone on with only where its record is what the target remembers of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fix_record import SLUG, Runbook
from fix_runs import Look
from mend import journal
from mend.batches import rows
from mend.change.kept import Keeper
from mend.database import target
from mend.database.target import Target
from mend.errors import RecordDamaged, StepFailed
from mend.execution import aftermath, execute
from mend.execution.execute import Writer
from mend.plan import Plan, Statement, Step
from mend.record import archive, lineage
from mend.record.archive import Record


@pytest.fixture
def where(database: str, monkeypatch: pytest.MonkeyPatch) -> Target:
    Look(database).execute("create table t (a int)", "insert into t values (1)")
    monkeypatch.setenv("APPLIED_URL", database)
    return target.resolve("env:APPLIED_URL")


@pytest.fixture
def applied(where: Target, runbook: Runbook) -> Record:
    """A run that inserted a row, and was killed before it was sealed."""
    runbook()
    identity = where.identity()
    back = Step("Take it away", (Statement("delete from t where a = 2"),))
    step = Step("Insert a row", (Statement("insert into t values (2)"),), undo=(back,))
    plan = Plan(SLUG, identity.key(), {}, "resume", steps=(step,))
    record = archive.create(SLUG, action="apply", parameters={"target": where.name})
    record.write_plan(plan)
    record.journal.append("planned", {"digest": plan.digest()})
    writer = Writer(where, identity, record.run_id, record.journal, lambda text: None, 500, 5000)
    execute.apply(writer, plan)
    return record


def undo(where: Target, record: Record) -> Plan:
    return aftermath.undo_plan(where, where.identity(), lineage.to_undo(record.run_id))


def resume(where: Target, record: Record) -> Plan:
    return aftermath.resumed_plan(where, where.identity(), lineage.to_resume(record.run_id))


def poisoned(record: Record) -> Plan:
    """The record's plan with a statement more in its undo; its digest is that of its content."""
    plan = record.plan()
    assert plan
    (step,) = plan.steps
    back = replace(step.undo[0], statements=(*step.undo[0].statements, Statement("drop table t")))
    return replace(plan, steps=(replace(step, undo=(back,)),))


def chained_anew(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite a journal's events and every hash after them, as somebody would who knows how."""
    lines, prev = [], journal.GENESIS
    for event in list(journal.read(path)):
        body = {key: value for key, value in event.__dict__.items() if key != "hash"} | {"prev": prev}
        change(body)
        prev = journal.sha256(journal.canonical(body))
        lines.append(journal.canonical(body | {"hash": prev}))
    path.write_text("\n".join([*lines, ""]))


@pytest.mark.parametrize("sealed", [False, True])
def test_a_record_as_it_was_left_is_acted_upon_whether_it_was_sealed_or_not(
    where: Target, applied: Record, sealed: bool
) -> None:
    if sealed:
        applied.journal.append("run_closed", {"outcome": "completed"})
        archive.seal(applied)
    assert [step.sql() for step in undo(where, applied).steps] == ["delete from t where a = 2;"]
    assert resume(where, applied) == applied.plan()


@pytest.mark.parametrize("ask", [undo, resume])
def test_an_edited_plan_with_a_digest_of_its_own_is_refused(
    where: Target, applied: Record, ask: Callable[[Target, Record], Plan]
) -> None:
    applied.write_plan(poisoned(applied))
    with pytest.raises(RecordDamaged, match=r"is not the plan that run .* applied.*Nothing was changed"):
        ask(where, applied)


@pytest.mark.parametrize("ask", [undo, resume])
def test_a_plan_and_a_journal_forged_together_are_given_away_by_the_target(
    where: Target, applied: Record, ask: Callable[[Target, Record], Plan]
) -> None:
    forged = poisoned(applied)
    applied.write_plan(forged)

    def rename(body: dict[str, Any]) -> None:
        if "digest" in body["payload"]:
            body["payload"]["digest"] = forged.digest()

    chained_anew(applied.journal.path, rename)
    assert lineage.to_undo(applied.run_id).plan == forged
    with pytest.raises(RecordDamaged, match=r"the target remembers .*Nothing was changed"):
        ask(where, applied)


def test_a_journal_forged_after_the_plan_was_sent_is_given_away_by_the_target(where: Target, applied: Record) -> None:
    def other_xid(body: dict[str, Any]) -> None:
        if body["kind"] == "step_xid":
            body["payload"]["xid"] = "1"

    chained_anew(applied.journal.path, other_xid)
    with pytest.raises(RecordDamaged, match="its journal is not the one that the target remembers"):
        undo(where, applied)


@pytest.mark.parametrize("name", ["journal.jsonl", "plan.json"])
def test_a_sealed_record_that_was_edited_is_refused(where: Target, applied: Record, name: str) -> None:
    applied.journal.append("run_closed", {"outcome": "completed"})
    archive.seal(applied)
    if name == "plan.json":
        document = json.loads((applied.path / name).read_text())
        (applied.path / name).write_text(json.dumps(document))  # the same plan, in other bytes
    else:
        chained_anew(applied.journal.path, lambda body: body.update(time="2020-01-01T00:00:00.000Z"))
    with pytest.raises(RecordDamaged, match=f"is edited: {name}.*Nothing was changed"):
        undo(where, applied)


def test_a_run_that_went_on_after_it_was_sealed_and_died_can_be_taken_back(where: Target, applied: Record) -> None:
    archive.seal(applied)
    applied.journal.append("verified", {})
    assert archive.verify(applied).state == "edited"
    assert undo(where, applied).steps


# -- a repair of many rows ------------------------------------------------------------------------------------------------


@pytest.fixture
def half_repaired(where: Target, runbook: Runbook) -> Record:
    """A run whose repair of rows ended before its end: one of them does not take its value."""
    runbook()
    look = Look(os.environ["APPLIED_URL"])
    look.execute(
        "create table r (id int primary key, v int)", "insert into r select n from generate_series(1, 100) as n"
    )
    live = look.catalog()
    repair = rows.Repair("k_0", "public.r", "update", {"v": "1 / (t.id - 50)"}, where="t.v is null")
    step = rows.step(repair, says="Fill v", live=live, keeper=Keeper("mend", "k", {}))
    plan = Plan(SLUG, where.identity().key(), {}, "resume", steps=(step,))
    record = archive.create(SLUG, action="apply", parameters={"target": where.name})
    record.write_plan(plan)
    record.journal.append("planned", {"digest": plan.digest()})
    writer = Writer(where, where.identity(), record.run_id, record.journal, lambda text: None, 500, 5000)
    with pytest.raises(StepFailed, match="division by zero"):
        execute.apply(writer, plan)
    return record


def test_what_is_done_of_a_repair_can_be_taken_back_or_gone_on_with(where: Target, half_repaired: Record) -> None:
    assert half_repaired.journal.of("step_failed")[0].payload["outcome"] == "partial"
    assert resume(where, half_repaired).digest() == half_repaired.plan().digest()
    back = undo(where, half_repaired)
    assert [step.kind for step in back.steps] == ["restore"]
