"""Which runs belong to one plan: the one that applied it, those that carried it on, and the one that took it back."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from fix_record import SLUG, Runbook, a_plan
from mend.errors import RecordDamaged, Refused, RunNotFound
from mend.record import archive, lineage
from mend.record.archive import Action, Record

PLAN = a_plan()


@pytest.fixture(autouse=True)
def _small_runbook(runbook: Runbook) -> None:
    runbook()


def run(action: Action, of: Record | None = None, *events: str, plan: Any = PLAN) -> Record:
    """A run of the same plan, with these events and no more."""
    record = archive.create(SLUG, action=action, parameters={"target": "lab"}, of=of.run_id if of else "")
    record.write_plan(plan)
    for kind in events:
        record.journal.append(
            kind, {"digest": plan.digest()} if kind in ("planned", "apply_started") else {"run": record.run_id}
        )
    return record


@pytest.fixture
def plan() -> Record:
    return run("plan", None, "planned")


APPLIED = ("planned", "apply_started", "applied")
CRASHED = ("planned", "apply_started", "step_started")


def test_a_plan_leads_to_the_run_that_applied_it(plan: Record) -> None:
    applied = run("apply", plan, *APPLIED)
    for asked in (plan, applied):
        found = lineage.to_undo(asked.run_id)
        assert (found.run_id, found.runs, found.plan, found.finished, found.undoes) == (
            applied.run_id,
            (applied,),
            PLAN,
            True,
            None,
        )


def test_a_run_that_planned_and_applied_in_one_go_is_its_own(plan: Record) -> None:
    both = run("apply", None, *APPLIED)
    assert lineage.to_undo(both.run_id).runs == (both,)


def test_resumes_belong_to_the_run_they_carry_on_in_order(plan: Record) -> None:
    first = run("apply", plan, *CRASHED)
    second = run("resume", first, *CRASHED)
    third = run("resume", second, *APPLIED)
    for asked in (plan, first, second, third):
        found = lineage.to_undo(asked.run_id)
        assert found.runs == (first, second, third)
        assert found.finished
    own = [event.payload["run"] for event in found.events if event.kind in ("step_started", "applied")]
    assert own == [first.run_id, second.run_id, third.run_id]


def test_a_resume_that_sent_nothing_does_not_count(plan: Record) -> None:
    first = run("apply", plan, *CRASHED)
    refused = run("resume", first, "refused")
    assert lineage.to_resume(refused.run_id).runs == (first,)
    assert not lineage.to_resume(first.run_id).finished


def test_a_plan_that_was_never_applied_cannot_be_undone(plan: Record) -> None:
    run("apply", plan, "planned", "refused")
    with pytest.raises(Refused, match=r"applied nothing\. Nothing was changed\. `mend runs`"):
        lineage.to_undo(plan.run_id)


def test_what_was_undone_is_not_undone_again_nor_resumed(plan: Record) -> None:
    applied = run("apply", plan, *APPLIED)
    undo = run("undo", applied, *APPLIED)
    for asked in (plan, applied):
        for ask in (lineage.to_undo, lineage.to_resume):
            with pytest.raises(Refused, match=f"Run {applied.run_id} was undone by {undo.run_id}. Nothing was changed"):
                ask(asked.run_id)


def test_an_undo_that_did_not_finish_can_be_tried_again_or_carried_on(plan: Record) -> None:
    applied = run("apply", plan, *APPLIED)
    undo = run("undo", applied, *CRASHED)
    assert lineage.to_undo(applied.run_id).run_id == applied.run_id
    found = lineage.to_resume(undo.run_id)
    assert found.runs == (undo,)
    assert found.undoes is not None
    assert found.undoes.run_id == applied.run_id
    carried_on = run("resume", undo, *APPLIED)
    assert lineage.to_resume(undo.run_id).runs == (undo, carried_on)
    with pytest.raises(Refused, match="was undone by"):
        lineage.to_undo(applied.run_id)


def test_an_undo_is_not_itself_undone(plan: Record) -> None:
    applied = run("apply", plan, *APPLIED)
    undo = run("undo", applied, *APPLIED)
    with pytest.raises(Refused, match="is itself an undo"):
        lineage.to_undo(undo.run_id)


def test_an_unknown_run_is_not_found() -> None:
    with pytest.raises(RunNotFound):
        lineage.to_undo("20200101T000000Z-small-000000")


def test_a_run_without_its_plan_is_damaged(plan: Record) -> None:
    applied = run("apply", plan, *APPLIED)
    (applied.path / "plan.json").unlink()
    with pytest.raises(RecordDamaged, match=r"has no plan\.json"):
        lineage.to_undo(applied.run_id)


def test_an_edited_plan_is_not_taken_back(plan: Record) -> None:
    applied = run("apply", plan, *APPLIED)
    path = applied.path / "plan.json"
    path.write_text(path.read_text().replace("create index ix", "create index iy"))
    with pytest.raises(RecordDamaged, match="is not a plan that mend wrote"):
        lineage.to_undo(applied.run_id)


def test_an_edited_journal_is_not_believed(plan: Record) -> None:
    applied = run("apply", plan, *CRASHED)
    path = applied.journal.path
    path.write_bytes(path.read_bytes().replace(b'"step_started"', b'"applied"'))
    with pytest.raises(RecordDamaged):
        lineage.to_resume(plan.run_id)


def test_an_approved_plan_is_found_by_its_digest(plan: Record) -> None:
    other = run("plan", None, "planned", plan=a_plan(database="other"))
    assert lineage.approved_plan(PLAN.digest()) == PLAN
    assert lineage.approved_plan(a_plan(database="other").digest()) == other.plan()
    assert lineage.approved_plan("0" * 16) is None
    assert lineage.approved_plan("") is None


SNAPSHOT = pd.DataFrame(
    [
        ("column", 'public."é t".a', "text"),
        ("function", "public.f()", "line 1\nline '2'\u2028"),
        ("default", "public.t.n", "NULL::integer"),
    ],
    columns=["kind", "identity", "definition"],
    dtype="str",
)


def test_the_catalog_before_and_after_is_kept_as_it_was(plan: Record) -> None:
    applied = run("apply", plan, *APPLIED)
    lineage.write_snapshot(applied, lineage.BEFORE, SNAPSHOT)
    found = lineage.to_undo(applied.run_id)
    pd.testing.assert_frame_equal(found.before, SNAPSHOT)
    assert found.after is None
    lineage.write_snapshot(applied, lineage.AFTER, SNAPSHOT.head(0))
    after = lineage.to_undo(applied.run_id).after
    assert after is not None
    assert (list(after.columns), len(after)) == (["kind", "identity", "definition"], 0)


@pytest.mark.parametrize("content", [None, "", "{", "[[1]]"])
def test_a_catalog_that_cannot_be_read_is_damage_and_not_an_empty_one(plan: Record, content: str | None) -> None:
    applied = run("apply", plan, *APPLIED)
    if content is not None:
        (applied.path / lineage.BEFORE).write_text(content)
    with pytest.raises(RecordDamaged, match="cannot be read"):
        _ = lineage.to_undo(applied.run_id).before
