"""The ways out of a downgrade that fails: ordered and whole, as far as it goes, what was left behind alone, or forward.  Pure.

Whatever goes down goes in one transaction: what hangs on it first, then downgrade(), what it leaves, the version rows, and what still
makes sense again.  RESTRICT always; nothing is dropped that is not named.
"""

from __future__ import annotations

import re

from mend.change import ddl
from mend.database import parameters
from mend.database.catalog import Change
from mend.errors import InvalidParameter, NotInvertible, Refused
from mend.plan import Choice, Step
from mend.repairs import steps
from mend.rollback import descent_file, descent_step
from mend.rollback.dependents import Key
from mend.rollback.descent import Facts
from mend.rollback.pieces import facets_of

OPTIONS = ("downgrade", "best_effort", "drop_leftover", "forward_fix")
Way = tuple[Choice, tuple[Step, ...]]


def ways(facts: Facts, leave: str) -> list[Way]:
    """The four options, each with its steps or with why it is not possible.  Raises: InvalidParameter for ``leave``."""
    left = _leave(leave, facts)
    return [_downgrade(facts, left), _best_effort(facts), _drop_leftover(facts), _forward(facts)]


def _leave(leave: str, facts: Facts) -> frozenset[Key] | None:
    """The dependents that may stay dropped; None for all."""
    words = [one.strip() for one in re.split(r"[;\n]", leave) if one.strip()]
    if words == ["all"]:
        return None
    known = {f"{one.kind} {one.identity}": one.key for one in facts.hanging} | {one.identity: one.key for one in facts.hanging}  # fmt: skip
    if strange := [word for word in words if word not in known]:
        there = "; ".join(f"{one.kind} {one.identity}" for one in facts.hanging) or "none"
        raise InvalidParameter(
            f"leave names {strange[0]!r}, which is not in the way. Nothing was changed. In the way: {there}. Write names parted by ;, or all."
        )
    return frozenset(known[word] for word in words)


def _downgrade(facts: Facts, leave: frozenset[Key] | None) -> Way:
    says = (
        "Drop what is in the way, run downgrade(), and make again what was dropped: one transaction, taken back by undo"
    )
    costs = "exclusive locks on the tables for the whole of it; what goes is kept in schema mend"
    made = descent_step.down(facts, leave=leave, lossy=False)
    return Choice("downgrade", says, costs, not made.why_not, made.why_not), made.steps


def _best_effort(facts: Facts) -> Way:
    says = "The same as far as it goes: what cannot be made again stays dropped, with its script kept, and what cannot be kept is lost"
    made = descent_step.down(facts, leave=None, lossy=True)
    lost = [step.irreversible for step in made.steps if step.irreversible]
    stay = [f"{one.kind} {one.identity}" for one in made.stay]
    costs = "; ".join(
        [*(f"stays dropped: {', '.join(stay)}" for _ in stay[:1]), *(f"no way back: {one}" for one in lost)]
    )
    return Choice(
        "best_effort", says, costs or "nothing more than downgrade costs", not made.why_not, made.why_not
    ), made.steps


# -- what was left behind ------------------------------------------------------------------------------------------------


def _drop_leftover(facts: Facts) -> Way:
    says = "Drop what an earlier downgrade left behind, so that the upgrade can run again"
    costs = "nothing else is touched; what is dropped is kept in schema mend, and undo gives it back"
    objects = [c for _, c in facts.leftovers]
    why_not = "" if objects else "nothing that a downgrade leaves behind is here"
    if half := next(iter(facts.half_done.items()), None):
        why_not = f"{half[1]} of {half[0]} is here too, so that revision ran by half: {parameters.pointer('failed_migration')}"
    if facts.used:
        start, users = next(iter(facts.used.items()))
        why_not = f"{' '.join(users[0])} uses {' '.join(start)}"
    if why_not:
        return Choice("drop_leftover", says, costs, False, why_not), ()
    wanted = facets_of([(c.kind, c.identity) for c in objects if ddl.is_object(c.kind)], facts.live)
    done = [("", [Change(*key, None, text) for key, text in wanted])]
    named = ", ".join(f"{c.kind} {c.identity}" for c in objects if ddl.is_object(c.kind))
    try:
        made = steps.take_back(
            done, says=f"Drop {named}, left behind by a downgrade", live=facts.live, keeper=facts.keeper
        )
    except NotInvertible as error:
        return Choice("drop_leftover", says, costs, False, error.message), ()
    return Choice("drop_leftover", says, costs), made


# -- forward -------------------------------------------------------------------------------------------------------------


def _forward(facts: Facts) -> Way:
    says = "Write a new revision that takes back what nothing else needs; what is needed stays, and takes NULLs"
    costs = "no revision is taken back: every database gets the new one, and the application goes forward"
    try:
        why_not = descent_step.no_path(facts)
        made = () if why_not else descent_file.steps_of(facts)
    except (NotInvertible, Refused) as error:
        made, why_not = (), error.message.replace(" Nothing was changed.", "").rstrip(".")
    return Choice("forward_fix", says, costs, not why_not, why_not), made
