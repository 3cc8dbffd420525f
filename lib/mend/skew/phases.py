"""A change that would break the application which runs now, made in three: expand, backfill, contract; each its own plan.  Pure but for `prepared`.

The pending statements are taken apart by what they do to an application that does not know them (`safety`).  Until the contract both versions
work; a renamed column has both names meanwhile (`twins`).  The contract ends at exactly what the revisions make, and records them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from mend.database import names
from mend.database.catalog import Change
from mend.diagnosis import Check, Site
from mend.errors import InvalidParameter, NotInvertible, Refused
from mend.plan import Choice, Plan, Statement, Step
from mend.repairs import halfway
from mend.skew import gates, notes, phase_parts, phase_steps
from mend.skew.phase_parts import Part
from mend.skew.sides import Facts

PHASES = notes.PHASES
_LONGEST = 63  # characters that PostgreSQL keeps of an application_name; a longer one would be found in no session


def prepared(site: Site, facts: Facts, *, option: str, phase: str, fill: str) -> Facts:
    """The facts with what the next phase needs to know: its gate, what to write, how row changes are made in batches.

    Reads: rows, for a gate.  Raises: InvalidParameter for an unknown phase, or a fill that is none.
    """
    if phase and phase not in PHASES:
        raise InvalidParameter(
            f"phase is {phase!r}. Nothing was changed. Write one of {', '.join(PHASES)}, or leave it empty for the next one."
        )
    old = str(facts.given.get("old_application", ""))
    if len(old) > _LONGEST or not (old.isascii() and old.isprintable()):
        raise InvalidParameter(
            f"old_application is {old!r}. Nothing was changed. Write it as pg_stat_activity shows it: {_LONGEST} characters of ASCII at most."
        )
    fills = gates.fills(site, facts, fill)
    due = phase or next_phase(facts)
    facts = replace(facts, phase=due, fills=fills)
    if not facts.pending or due == "expand" or not due:
        return facts
    found = phase_parts.parts(facts)
    takeovers = gates.takeovers(site, facts, found)
    facts = replace(facts, takeovers=takeovers)
    return replace(facts, gates=gates.asked(site, _questions(facts, found, due)))


def next_phase(facts: Facts) -> str:
    """The phase that comes after those that were noted; '' where nothing is pending."""
    if not facts.pending:
        return ""
    done = _done(facts)
    return next((one for one in PHASES if one not in done), "contract")


def begun(facts: Facts) -> bool:
    """Whether a phase of what is pending was done."""
    return bool(facts.pending) and bool(_done(facts))


def _done(facts: Facts) -> dict[str, str]:
    """The phases that were noted for what is pending, with the run of each; none where it came to its contract and was taken back since."""
    change = phase_parts.change_id(facts)
    return {one.phase: one.run_id for one in notes.standing_changes(facts.notes) if one.change == change}


def tables(facts: Facts) -> set[str]:
    """The relations that the pending revisions and what breaks are about."""
    found = {halfway.relation_of(c) for one in facts.operations() for c in one.changes}
    broken = {
        names.parent(one.subject) if one.sqlstate in ("42703", "23502") else one.subject
        for cell in facts.live_cells()
        for one in cell.answers
        if one.verdict == "breaks"
    }
    return (found | broken) - {""}


def about(kind: str, identity: str, text: str) -> set[str]:
    """The relations that an object of the catalog is about."""
    return {identity, halfway.relation_of(Change(kind, identity, None, text))} - {""}


def evidence(facts: Facts) -> dict[str, Any]:
    """What a plan of a phase is bound to: which change, which phase, after which run, with which gate."""
    if not facts.phase:
        return {}
    before = PHASES[: PHASES.index(facts.phase)]
    return {
        "change": phase_parts.change_id(facts), "phase": facts.phase, "after_run": _done(facts).get(before[-1], "") if before else "",
        "gate": {one.says: "open" if one.holds else "shut" for one in facts.gates}, "fill": dict(facts.fills),
        "goal": facts.pending[-1] if facts.pending else "",
    }  # fmt: skip


def gate_check(facts: Facts) -> Check:
    """May the next phase be planned?"""
    frame = pd.DataFrame(
        [(one.says, "open" if one.holds else "shut", one.why) for one in facts.gates], columns=["gate", "state", "why"]
    )
    shut = [one for one in facts.gates if one.holds is False]
    unknown = [one for one in facts.gates if one.holds is None]
    question, healthy = "May the next phase be planned?", "Every question of its gate finds no row, or no phase is due."
    sql = "\n".join(f"-- {one.says}\n{one.sql};" for one in facts.gates)
    if unknown:
        return Check(
            "gate",
            question,
            "could_not_check",
            f"The gate of {facts.phase} could not be asked.",
            healthy,
            frame,
            sql,
            unknown[0].why,
        )
    says = (
        f"Not {facts.phase}: {shut[0].says} ({shut[0].why})."
        if shut
        else f"Yes: {facts.phase}."
        if facts.phase
        else "No phase is due."
    )
    return Check("gate", question, "found" if shut else "healthy", says, healthy, frame, sql)


def way(facts: Facts) -> tuple[Choice, tuple[Step, ...]]:
    """The option: the steps of the phase that is due, or why it may not be planned."""
    says = f"Make the change in phases, this one: {facts.phase}" if facts.phase else "Make the change in phases"
    costs = {
        "expand": "both versions of the application work afterwards, though rows that are there have nothing under the new names until the backfill; the revision is not recorded yet",
        "backfill": "both versions work meanwhile and afterwards; the table grows by as many row versions as are written",
        "contract": "the application of before does not work any more; the revisions are recorded",
    }.get(facts.phase, "three plans, each with its own approval")
    if why_not := _why_not(facts):
        return Choice("phased", says, costs, False, why_not), ()
    try:
        made = phase_steps.STEPS[facts.phase](facts, phase_parts.parts(facts))
    except (NotInvertible, Refused) as error:
        return Choice("phased", says, costs, False, error.message.split(". Nothing was changed")[0]), ()
    return Choice("phased", says, costs), (*_gate_step(facts), *made, _note(facts))


def _why_not(facts: Facts) -> str:
    """Why this phase may not be planned now."""
    if not facts.pending or facts.made is None:
        return facts.unreplayed or "no revision is pending"
    lacking = [one for one in facts.pending if one not in facts.made.ran]
    if lacking or facts.made.stopped:
        return f"not every pending revision could be replayed: {facts.made.stopped or lacking[0]}"
    computed = [one for one in facts.pending if one in facts.made.reads]
    if computed:
        return f"revision {computed[0]} computes its SQL from what it reads, so it cannot be taken apart"
    done, at = _done(facts), PHASES.index(facts.phase)
    others = notes.standing_changes(facts.notes)
    if others and not done:
        return f"run {others[-1].run_id} began another change ({others[-1].says}): go on with that one, with revision as it was then, or undo its runs"
    if at and PHASES[at - 1] not in done:
        return f"the phase {PHASES[at - 1]} comes first, and no run of it is noted in this database"
    later = [one for one in PHASES[at + (facts.phase == "backfill") :] if one in done]
    if later and facts.phase != "contract" and not (facts.phase == "backfill" and "contract" not in done):
        return f"{later[0]} was done by run {done[later[0]]} already"
    shut = [one for one in facts.gates if not one.holds]
    if shut:
        again = (
            " Plan the phase backfill again, once nobody writes such rows any more"
            if facts.phase == "contract" and shut[0].rows and shut[0].holds is False
            else ""
        )
        return f"the gate of {facts.phase} is shut: {shut[0].says} ({shut[0].why}).{again}".rstrip(".")
    return ""


def _questions(facts: Facts, found: Sequence[Part], phase: str) -> tuple[gates.Gate, ...]:
    if phase == "backfill":
        return tuple(gates.stands(part) for part in found if part.kind in ("twin", "new_not_null"))
    old = str(facts.given.get("old_application", ""))
    asked = [gates.gone(old)] if old else []  # first: as long as it is there, it goes on writing what the others find
    asked += [gates.in_step(part) for part in found if part.kind == "twin"]
    asked += [gates.no_null(part) for part in found if part.kind in ("new_not_null", "not_null")]
    asked += [
        gates.changed(facts.takeovers[part.statement.sql])
        for part in found
        if part.kind == "rows" and phase_steps.taken_over(facts, part)
    ]
    return tuple(asked)


def _gate_step(facts: Facts) -> tuple[Step, ...]:
    """The gate once more, as the first thing that the plan does: it may have shut since."""
    if not facts.gates:
        return ()
    statements = tuple(
        Statement(f"/* must find no row: {one.says.replace('*/', '* /').replace('/*', '/ *')} */ {one.sql}", exactly=0)
        for one in facts.gates
    )
    return (Step(f"Ask the gate of {facts.phase} once more", statements),)


def _note(facts: Facts) -> Step:
    change, schema = phase_parts.change_id(facts), facts.keeper.schema
    says = f"{facts.phase} of {', '.join(facts.pending)}"
    return Step(
        says=f"Note that {facts.phase} is done",
        statements=notes.noted(schema, change=change, phase=facts.phase, says=says),
        undo=(Step(f"Forget that {facts.phase} was done", notes.forgotten(schema, change=change, phase=facts.phase)),),
    )


# -- what is said --------------------------------------------------------------------------------------------------------


def next_words(facts: Facts) -> str:
    """What comes after this phase."""
    return {
        "expand": "Then the phase backfill, as a plan of its own: mend plan version_skew -p option phased",
        "backfill": "Then deploy the new application everywhere, wait until none of the old one is left, and plan the phase contract.",
        "contract": "Then the new application alone is left. Diagnose again.",
    }.get(facts.phase, "")


def warnings(facts: Facts, chosen: str) -> tuple[str, ...]:
    """What an approver must know of a phase."""
    if chosen != "phased":
        return ()
    if facts.phase == "contract":
        unseen = (
            ""
            if facts.given.get("old_application")
            else " Whether a session of it is left was not asked: name it with old_application."
        )
        return (f"The application of before stops working with this plan: none of it may run any more.{unseen}",)
    return (
        "Between the phases the revision is not recorded: run no alembic upgrade before the contract, it would meet what is there already.",
    )


def unmet(made: Plan, facts: Facts) -> Sequence[str]:
    """What a phase promised and a new diagnosis does not find."""
    told: Mapping[str, Any] = made.evidence["phase"]
    phase = str(told["phase"])
    problems = (
        []
        if any(one.change == told["change"] and one.phase == phase for one in facts.notes)
        else [f"{phase} is not noted as done"]
    )
    if phase == "contract":
        problems += [f"revision {one} is still pending" for one in facts.pending if one == told["goal"]]
        return problems + [
            f"the new application fails: {one.why}"
            for one in facts.live_cells()
            if one.application.name == "new" and one.verdict == "breaks"
        ]
    problems += [
        f"{one.says}: {one.why}" for one in facts.gates if not one.holds and not one.rows and phase == "expand"
    ]
    return problems + [
        f"the {one.application.name} application fails: {one.why}"
        for one in facts.live_cells()
        if one.verdict == "breaks"
    ]
