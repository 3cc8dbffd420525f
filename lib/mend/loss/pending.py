"""What is pending and would destroy something: looked at whole, asked about, and handed to the ways out.  Reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mend.diagnosis import Check, Prevention, Site
from mend.errors import InvalidParameter
from mend.loss import at_stake, backups, loss_checks, loss_ways, readers, rehearsal, space
from mend.loss.at_stake import Stake
from mend.loss.backups import Backups
from mend.loss.loss_room import Room, Unseen, Way, asked_elsewhere, unseen
from mend.loss.readers import Readers
from mend.loss.rehearsal import Rehearsed
from mend.loss.space import Space, Wanted
from mend.plan import Plan
from mend.repairs import halfway, surroundings

QUESTIONS = {
    "environment": "Does env.py lead to this database?",
    "losses": "What would the pending revisions destroy?",
    "readers": "Who still reads or writes it?",
    "backups": "Could a backup bring it back?",
    "room": "Is there room for the copies?",
    "rehearsal": "How does the upgrade go on a copy?",
    "durations": "How long does each statement take, and what does it lock?",
    "sessions": "Is somebody at work on these tables?",
}


@dataclass(frozen=True)
class Facts:
    """Everything that was found about what is pending."""

    at_stake: at_stake.Facts
    readers: Readers
    backups: Backups
    space: Space
    rehearsed: Rehearsed

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What else the journal keeps."""
        return self.at_stake.tables()


def look(site: Site, given: Mapping[str, Any]) -> Facts | Unseen:
    """What is pending, what it would destroy, and what that would mean.

    Raises: InvalidParameter, ProjectBroken, RevisionNotFound, ReplayFailed, PrivilegeMissing.
    """
    if why := asked_elsewhere(given, loss_ways.OPTIONS):
        return Unseen(why)
    for name, least in (("expiry_days", 1), ("free_gb", 0), ("rehearse_rows", 0)):
        if float(given.get(name, least)) < least:
            raise InvalidParameter(f"{name} is {given[name]}. Nothing was changed. Give {least} or more.")
    if site.project is None:
        return Unseen("no Alembic project was named: pass alembic_ini, or set it for this target in mend.toml")
    found = at_stake.look(
        site,
        revision=str(given.get("revision") or ""),
        data_operations=str(given.get("data_operations") or ""),
    )
    own = [one for one in found.own() if one.table]
    rehearsed = _rehearsed(site, found, given)
    with site.target.reading(site.run_id) as conn:
        going = list(dict.fromkeys((one.table, one.loss.column) for one in own if one.loss.action in _GO))
        return Facts(
            found,
            readers.look(conn, going),
            backups.look(conn),
            space.look(conn, site, [_wanted(one, found) for one in own], free_gb=float(given.get("free_gb") or 0)),
            rehearsed,
        )


def _rehearsed(site: Site, found: at_stake.Facts, given: Mapping[str, Any]) -> Rehearsed:
    """Only where that is asked for: it reads tables and takes time."""
    if given.get("option") != "rehearse":
        return rehearsal.unasked()
    if not found.pending:
        return rehearsal.none("no revision is pending")
    return rehearsal.rehearse(site, found, rows=int(given.get("rehearse_rows") or 0))


_GO = ("drop table", "drop column", "change type")


def _wanted(one: Stake, found: at_stake.Facts) -> Wanted:
    """The copy that keeps this loss: keys and column, or whole rows."""
    if not one.loss.column or one.rows is None:
        return Wanted(one.table, (), one.rows or 0, one.size_bytes)
    rows = one.values if one.values is not None and one.loss.action == "drop column" else one.rows
    key = found.half.keeper.primary_keys.get(one.table, ())
    return Wanted(one.table, (*key, one.loss.column), rows)


def asks(site: Site, facts: Facts | Unseen) -> Sequence[Callable[[], Check]]:
    """The questions about what is pending."""
    if isinstance(facts, Unseen):
        return [partial(unseen, name, question, facts) for name, question in QUESTIONS.items()]
    stake = facts.at_stake
    about_what_goes: tuple[Callable[[], Check], ...] = (
        partial(readers.check, facts.readers),
        partial(backups.check, facts.backups),
        partial(space.check, facts.space),
    )
    if not stake.own():  # then nobody need read, keep or hold anything
        unasked = ("readers", "backups", "room")
        about_what_goes = tuple(partial(_nothing, name) for name in unasked)
    return (
        partial(surroundings.environment, site, stake.half),
        partial(loss_checks.losses, stake),
        *about_what_goes,
        partial(rehearsal.check, facts.rehearsed),
        partial(rehearsal.check_statements, facts.rehearsed),
        partial(surroundings.sessions, site, {one.table for one in stake.own() if one.table}),
    )


def _nothing(name: str) -> Check:
    return Check(name, QUESTIONS[name], "healthy", "Nothing is at stake.", "Nothing is at stake.")


def evidence(facts: Facts | Unseen) -> dict[str, Any]:
    """What a plan's digest covers: the revision in question, and everything that its replay covers."""
    return {} if isinstance(facts, Unseen) else halfway.evidence(facts.at_stake.half)


def found_ways(facts: Facts | Unseen, given: Mapping[str, Any]) -> Sequence[Way]:
    """Every option, with its steps or with why it is not possible."""
    if isinstance(facts, Unseen):
        return loss_ways.none(facts.why)
    reads = [f"{row['kind']} {row['reader']}" for row in facts.readers.frame.to_dict("records")]
    return loss_ways.ways_out(facts.at_stake, given, refused=facts.space.refuses, reads=reads)


def by_itself(facts: Facts | Unseen) -> str:
    """Rescue, where something is lost."""
    return "" if isinstance(facts, Unseen) or loss_ways.not_rescuable(facts.at_stake) else "rescue"


def unmet(made: Plan, facts: Facts | Unseen) -> Sequence[str]:
    """What the plan promised and a new look does not find."""
    return () if isinstance(facts, Unseen) else loss_ways.unmet(made, facts.at_stake)


def further(facts: Facts | Unseen, chosen: str) -> str:
    """What to do next."""
    return (
        f"Nothing was looked at: {facts.why}."
        if isinstance(facts, Unseen)
        else loss_ways.further(facts.at_stake, chosen)
    )


def preventions(facts: Facts | Unseen) -> Sequence[Prevention]:
    """What would have kept this from being a question."""
    return () if isinstance(facts, Unseen) else loss_ways.preventions(facts.at_stake)


def warnings(facts: Facts | Unseen, chosen: str) -> Sequence[str]:
    """What an approver must know."""
    if isinstance(facts, Unseen) or chosen not in loss_ways.OPTIONS:
        return ()
    broken = facts.readers.frame
    stand = [f"{row['kind']} {row['reader']} reads {row['of']}: {row['effect']}" for row in broken.to_dict("records")]
    return (*facts.at_stake.warnings, *facts.at_stake.half.replayed.warnings, *stand[:20])


ROOM = Room(
    "pending", loss_ways.OPTIONS, look, asks, evidence, found_ways, by_itself, unmet, further, preventions, warnings, needs_project=True
)  # fmt: skip
