"""What became of an applied plan, read from the database, and what follows: how it is taken back, how it is carried on."""

from __future__ import annotations

import pandas as pd
from sqlalchemy import Connection

from mend.change import manifest
from mend.database import catalog
from mend.database.target import Identity, Target
from mend.errors import RecordDamaged, Refused, RunNotFound
from mend.execution import resolve
from mend.plan import Expect, Plan
from mend.record import ledger, lineage
from mend.record.archive import Record
from mend.record.lineage import Applied


def outcomes(target: Target, applied: Applied) -> dict[int, resolve.Outcome]:
    """What each step of an applied plan did, once no session of its runs is left.

    Raises: OutcomeUnknown.
    """
    for record in applied.runs:
        resolve.await_survivors(target, f"mend:{record.run_id}:")
    return resolve.outcomes(target, applied.plan, applied.events)


def undo_plan(target: Target, identity: Identity, applied: Applied) -> Plan:
    """The plan that takes back the steps that are done, last first.

    Raises: Refused where it is another database, a step is half done or has no way back, or another undo was begun; RecordDamaged.
    """
    _require_same_database(identity, applied.plan)
    _require_as_remembered(target, applied)
    _require_no_other_undo(target, applied)
    _require_last_on_its_rows(target, applied)
    found = outcomes(target, applied)
    half = {n for n, outcome in found.items() if outcome.state == "partial"}
    repairs = {
        n for n in half if applied.plan.steps[n].kind == "backfill"
    }  # what is done of them can be given back as it is
    if half - repairs:
        raise Refused(
            f"Step {min(half - repairs) + 1} of run {applied.run_id} is half done. Nothing was changed. First `mend resume {applied.run_id}`, then undo."
        )
    done = frozenset(n for n, outcome in found.items() if outcome.state == "done") | repairs
    if not done:
        raise Refused(
            f"No step of run {applied.run_id} took effect, so there is nothing to take back. Nothing was changed."
        )
    if reasons := applied.plan.irreversible(done):
        raise Refused("This run cannot be taken back: " + "; ".join(reasons) + ". Nothing was changed.")
    plan = applied.plan.undone(done, evidence={"undoes": applied.run_id})
    with target.reading() as conn:
        lines = surprises(conn, plan)
        altered = not_as_kept(conn, target.settings.schema_name, plan)
    if altered:
        raise Refused(
            f"What run {applied.run_id} kept is not as it was written: {'; '.join(altered)}. Nothing was changed. What is right of it can be "
            "taken over by hand; it is left as it is.",
            differences=altered,
        )
    if lines:
        raise Refused(
            f"The database is no longer as run {applied.run_id} left it. Nothing was changed. {'; '.join(lines)}. Take that back first, or mend it by hand.",
            differences=lines,
        )
    return plan


def not_as_kept(conn: Connection, schema: str, plan: Plan) -> list[str]:
    """One line per copy in schema ``mend`` that the plan would give back, and that is gone or does not match its manifest."""
    names = manifest.compared_by(statement.sql for step in plan.steps for statement in step.statements)
    known = {one.name: one for one in manifest.read(conn, schema)} if names else {}
    found = []
    for name in names:
        one = known.get(name)
        why = (
            manifest.difference(conn, schema, one)
            if one and one.noted
            else "it is gone, or nobody noted what it must hold"
        )
        if why:
            found.append(f"{name} ({one.source if one else 'not known'}): {why}")
    return found


def surprises(conn: Connection, plan: Plan) -> list[str]:
    """One line per object that a step will not find as it must, the steps before it taken into account."""
    first: dict[tuple[str, str], Expect] = {}
    for step in plan.steps:
        for expect in (*step.before, *step.after):
            first.setdefault((expect.kind, expect.identity), expect)
    return resolve.differences(conn, first.values())


def resumed_plan(target: Target, identity: Identity, applied: Applied) -> Plan:
    """The plan that goes on where a run of it stopped; it may be an undo.

    Raises: Refused where it is another database, an undo of it was begun, or another plan was applied since; RecordDamaged.
    """
    _require_same_database(identity, applied.plan)
    _require_as_remembered(target, applied)
    _require_no_other_undo(target, applied)
    _require_no_later_run(target, applied)
    return applied.plan


def _require_same_database(identity: Identity, plan: Plan) -> None:
    if plan.target != identity.key():
        raise Refused(f"That run was applied to another database ({plan.target}). Nothing was changed.")


def _require_as_remembered(target: Target, applied: Applied) -> None:
    """The target remembers each run's plan and journal where an editor of the files cannot reach; what it remembers must agree."""
    runs = [record for one in (applied, applied.undoes) if one for record in one.runs]
    with target.reading() as conn:
        for record in runs:
            if why := _disagreement(conn, target.settings.schema_name, record):
                raise RecordDamaged(
                    f"The record of run {record.run_id} was edited: {why}. Nothing was changed. Put the record back as it was.",
                    verdict="edited",
                )


def _disagreement(conn: Connection, schema: str, record: Record) -> str:
    events = record.journal.events()
    said = next((str(event.payload.get("digest")) for event in reversed(events) if event.kind == "apply_started"), "")
    remembered, anchor = ledger.digest(conn, schema, record.run_id), ledger.anchor(conn, schema, record.run_id)
    if remembered is not None and remembered != said:
        return f"its journal says that plan {said} was applied, the target remembers {remembered}"
    if anchor and (len(events) < anchor[0] or events[anchor[0] - 1].hash != anchor[1]):
        return "its journal is not the one that the target remembers"
    return ""


def _require_no_other_undo(target: Target, applied: Applied) -> None:
    """An undo that took effect in part is gone on with; one that did nothing counts for nothing."""
    for attempt in lineage.undos(applied):
        if any(outcome.state != "not_done" for outcome in outcomes(target, attempt).values()):
            raise Refused(
                f"An undo of run {applied.run_id} was begun and not finished: {attempt.run_id}. Nothing was changed. Go on with `mend resume {attempt.run_id}`."
            )


def _require_last_on_its_rows(target: Target, applied: Applied) -> None:
    """Rows that a later plan changed again, or made unique, do not go back; and a plan is taken back once only."""
    with target.reading() as conn:
        later = ledger.applied_since(conn, target.settings.schema_name, applied.run_id)
    for run_id in later:
        try:
            other = lineage.to_undo(run_id)
        except (RunNotFound, Refused):  # of another archive, or nothing of it is left to take back
            continue
        if shared := sorted(_repaired(other.plan) & _repaired(applied.plan)):
            raise Refused(
                f"Run {run_id} changed rows of {', '.join(shared)} after run {applied.run_id}. Nothing was changed. First `mend undo {run_id}`."
            )


def _repaired(plan: Plan) -> set[str]:
    """The tables whose rows a plan changes in batches."""
    return {str(step.arguments["table"]) for step in plan.steps if step.kind == "backfill"}


def _require_no_later_run(target: Target, applied: Applied) -> None:
    """Another plan may have done since what this one left open, a change of rows too: that must not happen twice."""
    with target.reading() as conn:
        last = ledger.last(conn, target.settings.schema_name)
    family = [applied, *([applied.undoes] if applied.undoes else [])]
    own = {
        run.run_id
        for one in (*family, *(attempt for one in family for attempt in lineage.undos(one)))
        for run in one.runs
    }
    if last is not None and last.run_id not in own | {one.plan.evidence.get("last_run") for one in family}:
        raise Refused(
            f"Run {last.run_id} was applied to this database after run {applied.run_id}. Nothing was changed. Make a new plan: it tells what is missing now."
        )


def left_by_undo(target: Target, undo: Applied, *, run_id: str) -> list[str]:
    """One line per object that is not as it was before the plan that was taken back.

    What others changed between the plan's end and the undo's beginning is theirs, unless the undo's own steps are about it.
    """
    assert undo.undoes is not None
    with target.reading(run_id) as conn:
        now = catalog.snapshot(conn)
    theirs = _keys(undo.undoes.after, undo.before) - {
        (e.kind, e.identity) for step in undo.plan.steps for e in (*step.before, *step.after)
    }
    wrong = [c for c in catalog.diff(undo.undoes.before, now) if (c.kind, c.identity) not in theirs]
    return [f"{c.kind} {c.identity}: was {c.before or '(absent)'}, is {c.after or '(absent)'}" for c in wrong]


def _keys(old: pd.DataFrame | None, new: pd.DataFrame) -> set[tuple[str, str]]:
    return {(c.kind, c.identity) for c in catalog.diff(old, new)} if old is not None else set()
