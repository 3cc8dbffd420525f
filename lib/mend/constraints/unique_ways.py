"""The ways out where rows share a key that is to be unique: change the rows and make the key, make it, move a sequence, or stop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mend.batches import rows
from mend.change import weights
from mend.constraints import deduplicate, sequences
from mend.constraints.deduplicate import COSTS, SAYS
from mend.constraints.uniqueness import Facts
from mend.errors import InvalidParameter, Refused
from mend.plan import Choice, Statement, Step
from mend.repairs import subject

Way = tuple[Choice, tuple[Step, ...], str]


@dataclass(frozen=True)
class Behind:
    """What a plan is made from where no key is wanted, and only a sequence can be wrong."""

    behind: sequences.Answer


def deduplicated(facts: Facts, option: str) -> Way:
    """One of the ways that change rows, with the key made unique behind it."""
    if barred := why_not(facts, option):
        return Choice(option, SAYS[option], COSTS[option], False, barred), (), ""
    if option != facts.examined:
        return (
            Choice(option, SAYS[option], f"{COSTS[option]}; whether its values fit is looked at when you name it"),
            (),
            "",
        )
    acts = deduplicate.acts(option, facts.found.scene, live=facts.subject.live, keeper=facts.subject.keeper)
    try:
        repaired = tuple(_step(facts, act) for act in acts)
    except (Refused, InvalidParameter) as error:
        return Choice(option, SAYS[option], COSTS[option], False, error.message), (), ""
    return Choice(option, SAYS[option], COSTS[option]), *_finished(facts, repaired)


def _step(facts: Facts, act: deduplicate.Act) -> Step:
    """The step of one change of rows; what it lists first stands before its statement, to be reviewed.  Raises: Refused."""
    own, given = facts.subject, facts.given
    repair = replace(
        act.repair,
        at_most=at_most(facts, act.rows),
        workers=int(given["workers"]),
        batch_ms=int(given["batch_ms"]),
    )
    step = rows.step(repair, says=act.says, live=own.live, keeper=own.keeper, rows_expected=act.rows)
    listed = Statement(f"-- listed once, when the step begins\n{repair.work}")
    return replace(step, statements=(listed, *step.statements))


def why_not(facts: Facts, option: str) -> str:
    """Why an option is not possible, or ''."""
    if not facts.groups:
        return facts.found.sizes.why or "no two rows share a key"
    if facts.corrupt:
        return f"{facts.corrupt} is valid and contradicts its table, so it is corrupt: look with amcheck, and mend it by hand"
    barred = facts.found.scene.why_not(option) or _lacking(facts, option)
    return barred or (facts.against if option == facts.examined else "")


def _lacking(facts: Facts, option: str) -> str:
    """The privilege that is lacking, or ''."""
    merging = option in ("merge", "keep_newest")
    table = facts.subject.table
    held = {row["relation"]: row for row in facts.found.privileges.to_dict("records")}
    if facts.making.build and not held[table]["owns"]:
        return f"the role does not own {table}, so it may not make an index on it"
    needed = {"merge": "delete", "keep_newest": "delete", "build": ""}.get(option, "update")
    if needed and not held[table][f"may_{needed}"]:
        return f"the role may not {needed} rows of {table}"
    others = [relation for relation, row in held.items() if relation != table and not row["may_update"]]
    return f"the role may not update rows of {', '.join(str(one) for one in others)}" if merging and others else ""


def build(facts: Facts) -> Way:
    says, costs = (
        "No two rows share the key any more: make it unique",
        "the time of an index build, which blocks nobody",
    )
    there = "" if facts.making.build else "it is there already"
    shared = "rows share its key" if facts.groups else facts.found.sizes.why
    if why_not := shared or facts.making.why_not or there or _lacking(facts, "build"):
        return Choice("build", says, costs, False, why_not), (), ""
    return Choice("build", says, costs), *_finished(facts, ())


def setval(facts: Facts | Behind) -> Way:
    says, costs = "Move the sequence past the rows that are there", "numbers are left out; inserts wait for a moment"
    if not facts.behind.behind:
        return Choice("setval", says, costs, False, "no sequence is behind"), (), ""
    return Choice("setval", says, costs), sequences.step(facts.behind.behind), _upgrade(facts)


def stop(facts: Facts | Behind) -> Way:
    choice = Choice("stop", "Change nothing, and report", "the migration stays where it is")
    if isinstance(facts, Facts) and facts.groups:
        return choice, (), f"Name an option: {', '.join(deduplicate.OPTIONS)}."
    return choice, (), "" if facts.behind.behind else f"No two rows share the key. {_upgrade(facts)}"


def _finished(facts: Facts, repaired: tuple[Step, ...]) -> tuple[tuple[Step, ...], str]:
    """What an earlier try left goes first; then the rows; then the key, amid the rest of the revision where it can be finished."""
    making, why_not = facts.making, facts.making.why_not
    if not why_not:
        built, why_not = subject.finish(facts.subject, making.build)
        if not why_not:
            return (*making.clear, *repaired, *built), _upgrade(facts)
    return (
        *making.clear,
        *repaired,
    ), f"The key is not made here: {why_not}. {_upgrade(facts)} That makes it, and blocks writes meanwhile."


def _upgrade(facts: Facts | Behind) -> str:
    return f"Then: {'alembic upgrade head' if isinstance(facts, Behind) else facts.subject.upgrade}."


def at_most(facts: Facts, count: int) -> int:
    """The ceiling of a change of so many rows."""
    return int(facts.given["at_most"]) or weights.ceiling(count)
