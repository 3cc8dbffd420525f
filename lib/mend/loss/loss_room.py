"""A part of data_loss: what it looks at, what it asks, which ways out it offers.  The mode is the sum of its rooms.  Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mend.diagnosis import Check, Prevention, Site
from mend.plan import Choice, Plan, Step

UNSEEN = "It was not looked at."
Way = tuple[Choice, tuple[Step, ...]]


@dataclass(frozen=True)
class Unseen:
    """In place of a room's facts: why it did not look."""

    why: str


@dataclass(frozen=True)
class Room:
    """One part of the mode; every function but ``look`` takes the facts that ``look`` found.

    ``options``: the ways out, by name.  ``look(site, given)``: reads, and may raise any MendError; ``given`` holds the parameters.
    ``asks(site, facts)``: its questions, always the same ones.  ``evidence``: what a plan's digest covers.  ``ways(facts, given)``: every
    option with its steps, or with why it is not possible.  ``by_itself(facts)``: the option that may be taken without being named, or ''.
    ``needs_project``: its steps may run only where env.py was proven to lead to the target.  ``unmet(made, facts)``: what the plan promised and a new look does not find.  ``further(facts, chosen)``: what to do next.
    """

    name: str
    options: tuple[str, ...]
    look: Callable[[Site, Mapping[str, Any]], Any]
    asks: Callable[[Site, Any], Sequence[Callable[[], Check]]]
    evidence: Callable[[Any], dict[str, Any]]
    ways: Callable[[Any, Mapping[str, Any]], Sequence[Way]]
    by_itself: Callable[[Any], str]
    unmet: Callable[[Plan, Any], Sequence[str]]
    further: Callable[[Any, str], str]
    preventions: Callable[[Any], Sequence[Prevention]] = lambda facts: ()
    warnings: Callable[[Any, str], Sequence[str]] = lambda facts, chosen: ()
    needs_project: bool = False


def unseen(name: str, question: str, facts: Unseen) -> Check:
    """The answer of a room that did not look."""
    return Check(name, question, "could_not_check", UNSEEN, "", why=facts.why)


def asked_elsewhere(given: Mapping[str, Any], own: Sequence[str]) -> str:
    """Why a room need not look: the option that was named is of another room; '' where it must."""
    option = str(given.get("option") or "")
    return f"option {option} is about something else" if option and option not in own else ""
