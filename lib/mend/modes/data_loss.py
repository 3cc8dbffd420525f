"""A migration is about to lose content, or has lost it: what is at stake, what is kept, and the ways to lose nothing.

The mode is the sum of its rooms: what is pending (``pending``), and what is kept in schema ``mend`` (``kept_ways``).  Each brings its
checks and options; a plan follows one option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mend.diagnosis import Diagnosis, Site
from mend.errors import InvalidParameter, Refused
from mend.loss import kept_ways, pending, recover_ways, restore_ways
from mend.loss.loss_room import UNSEEN, Room
from mend.plan import Plan
from mend.repairs import surroundings

SLUG = "data_loss"
ROOMS: tuple[Room, ...] = (pending.ROOM, kept_ways.ROOM, recover_ways.ROOM, restore_ways.ROOM)
OPTIONS = tuple(option for room in ROOMS for option in room.options)


@dataclass(frozen=True)
class Facts:
    """What every room found, by its name, and the parameters that it was given."""

    rooms: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps."""
        tables: list[dict[str, list[dict[str, Any]]]] = [getattr(one, "tables", dict)() for one in self.rooms.values()]
        return {name: rows for found in tables for name, rows in found.items()}


def diagnose(site: Site, **given: Any) -> Diagnosis:
    """Look at what is pending, at what is kept, and at what can be had back.

    Parameters
    ----------
    given : the notebook's parameters; each room reads its own

    Returns
    -------
    Diagnosis with the checks of every room, in their order.

    Reads: the catalogs, the version tables, statistics, rows of the tables concerned.  Writes: a scratch database.
    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed.
    """
    found = {room.name: room.look(site, given) for room in ROOMS}
    questions = [question for room in ROOMS for question in room.asks(site, found[room.name])]
    evidence = {key: value for room in ROOMS for key, value in room.evidence(found[room.name]).items()}
    prevent = tuple(one for room in ROOMS for one in room.preventions(found[room.name]))
    return Diagnosis(tuple(surroundings.timed(ask) for ask in questions), evidence, Facts(found, given), prevent)


def plan(diagnosis: Diagnosis, *, option: str, **given: Any) -> Plan:
    """The steps of one option; without one named, of the first that a room takes by itself.

    Raises: InvalidParameter for an unknown option; Refused where the named one is not possible; WrongDatabase unless env.py was
    proven to lead to the target, where the project is needed.
    """
    if option and option not in OPTIONS:
        raise InvalidParameter(
            f"option is {option!r}. Nothing was changed. Write one of {', '.join(OPTIONS)}, or leave it empty."
        )
    facts: Facts = diagnosis.facts
    named = {"option": option, **given}
    ways = [(room, way) for room in ROOMS for way in room.ways(facts.rooms[room.name], named)]
    # What was named (a column, a copy) goes before what is pending anyway.
    taken = (room.by_itself(facts.rooms[room.name]) for room in reversed(ROOMS))
    chosen = option or next(filter(None, taken), "")
    if (
        not option
        and chosen in pending.ROOM.options
        and not any(c.possible and c.option == chosen for _, (c, _) in ways)
    ):
        chosen = ""  # nobody asked for it: the options say why not
    room, (choice, steps) = next(((room, way) for room, way in ways if way[0].option == chosen), (ROOMS[0], (None, ())))
    if choice is not None and not choice.possible:
        raise Refused(
            f"{chosen} is not possible: {choice.why_not}. Nothing was changed. "
            f"Possible: {', '.join(c.option for _, (c, _) in ways if c.possible) or 'none'}."
        )
    if steps and room.needs_project:
        surroundings.require_same_database(diagnosis)
    own = facts.rooms[room.name]
    return Plan(
        slug=SLUG,
        target={},
        evidence=diagnosis.evidence,
        chosen=chosen or "none",
        options=tuple(choice for _, (choice, _) in ways),
        steps=tuple(steps),
        next=room.further(own, chosen),
        warnings=(*room.warnings(own, chosen), *_unchecked(diagnosis)),
    )


def _unchecked(diagnosis: Diagnosis) -> Sequence[str]:
    unsure = (c for c in diagnosis.checks if c.verdict == "could_not_check" and c.says != UNSEEN)
    return [f"{c.question} Could not check: {c.why}" for c in unsure]


def verify_with(made: Plan) -> Mapping[str, Any]:
    """The parameters for looking again: the same revision, whatever is pending now."""
    return {"revision": made.evidence.get("revision") or ""}


def unmet(made: Plan, again: Diagnosis) -> Sequence[str]:
    """What the plan promised and a new diagnosis does not find."""
    return [line for room in ROOMS for line in room.unmet(made, again.facts.rooms[room.name])]
