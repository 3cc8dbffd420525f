"""What is kept in schema ``mend``: whether it still is as it was written, until when it stays, and how what has expired is dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

import pandas as pd
from sqlalchemy.exc import DBAPIError

from mend import errors
from mend.change import manifest
from mend.change.manifest import Kept
from mend.database.target import Target
from mend.diagnosis import Check, Site
from mend.loss.loss_room import Room, Way
from mend.plan import Choice, Plan, Step

OPTIONS = ("drop_expired",)
COLUMNS = [
    "name",
    "kind",
    "source",
    "rows",
    "bytes",
    "created_at",
    "expires_at",
    "expired",
    "run_id",
    "revision",
    "state",
]
COMPARED_BYTES = 1_000_000_000  # what is larger is compared by the step that gives it back or drops it


@dataclass(frozen=True)
class Facts:
    """``tables``: everything that is kept.  ``wrong``: by name, what is not as it was written; ``unsure``: what could not be compared."""

    schema: str
    kept: tuple[Kept, ...]
    wrong: Mapping[str, str] = field(default_factory=dict)
    unsure: Mapping[str, str] = field(default_factory=dict)
    dropping: bool = False

    def state(self, one: Kept) -> str:
        """In a word or a few: ``whole``, ``given back``, what is wrong, or why that is not known."""
        if one.name in self.wrong:
            return f"altered: {self.wrong[one.name]}"
        if one.name in self.unsure:
            return f"not compared: {self.unsure[one.name]}"
        if not one.noted:
            return "of an earlier version of mend: no manifest"
        return "given back" if one.restored_at else "whole" if one.compares else "not compared: its rows come and go"

    def frame(self) -> pd.DataFrame:
        """One row per table."""
        rows = [
            [one.name, one.kind, one.source, one.rows, one.size_bytes, one.created_at, one.expires_at, one.expired, one.run_id, one.revision, self.state(one)]
            for one in self.kept
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=COLUMNS)

    def expired(self) -> tuple[Kept, ...]:
        """What has expired, and may be dropped."""
        return tuple(one for one in self.kept if one.expired and one.name not in self.wrong)

    def withheld(self) -> tuple[Kept, ...]:
        """What has expired, and is not as it was written."""
        return tuple(one for one in self.kept if one.expired and one.name in self.wrong)


def look(site: Site, given: Mapping[str, Any]) -> Facts:
    """Everything that is kept, compared with its manifest."""
    return replace(of(site.target, site.run_id), dropping=given.get("option") in OPTIONS)


def of(target: Target, run_id: str = "-") -> Facts:
    """Everything that is kept in a target, compared with its manifest where that does not read too much.

    Raises: PrivilegeMissing for a role that may not read the schema.
    """
    schema = target.settings.schema_name
    wrong, unsure = {}, {}
    with target.reading(run_id) as conn:
        kept = manifest.read(conn, schema)
        for one in kept:
            if one.size_bytes > COMPARED_BYTES:
                unsure[one.name] = "it is compared when it is used"
                continue
            try:
                found = manifest.difference(conn, schema, one)
            except DBAPIError as error:
                unsure[one.name] = f"the question failed (SQLSTATE {errors.sqlstate(error)})"
                continue
            if found or one.grantees:
                wrong[one.name] = found or f"it was opened to {one.grantees}"
    return Facts(schema, kept, wrong, unsure)


def asks(site: Site, facts: Facts) -> Sequence[Callable[[], Check]]:
    """The one question."""
    return (partial(rescued, facts),)


def rescued(facts: Facts) -> Check:
    """What is kept already?"""
    asks = partial(
        Check,
        name="rescued",
        question="What is kept already?",
        healthy_when="Every table is as it was written, and none has expired.",
        frame=facts.frame(),
    )
    if not facts.kept:
        return asks(verdict="healthy", says=f"Nothing is kept in schema {facts.schema}.")
    expired = sum(one.expired for one in facts.kept)
    says = f"{len(facts.kept)} tables are kept in schema {facts.schema}; {expired} have expired."
    if facts.wrong:
        told = "; ".join(f"{name}: {why}" for name, why in facts.wrong.items())
        return asks(verdict="found", says=f"{says} Not as they were written: {told}.")
    if facts.unsure:
        return asks(verdict="could_not_check", says=says, why="; ".join(f"{n}: {w}" for n, w in facts.unsure.items()))
    return asks(verdict="found" if expired else "healthy", says=says)


def evidence(facts: Facts) -> dict[str, Any]:
    """What has expired: more of it makes another plan."""
    return {"expired": {one.name: one.run_id for one in facts.expired()}} if facts.dropping else {}


def found_ways(facts: Facts, given: Mapping[str, Any]) -> Sequence[Way]:
    """Drop what has expired, one transaction for each run that made it."""
    says = "Drop what is kept in schema mend beyond its time"
    costs = "what is dropped cannot be given back any more, and the runs that made it cannot be undone"
    found = facts.expired()
    if not found:
        held = "; ".join(f"{one.name}: {facts.wrong[one.name]}" for one in facts.withheld())
        why_not = f"what has expired is not as it was written: {held}" if held else "nothing has expired"
        return ((Choice("drop_expired", says, costs, False, why_not), ()),)
    by_run = groupby(sorted(found, key=lambda one: (one.run_id, one.created_at)), key=lambda one: one.run_id)
    steps = tuple(_dropped(facts.schema, run_id, list(several)) for run_id, several in by_run)
    return ((Choice("drop_expired", says, costs), steps),)


def _dropped(schema: str, run_id: str, several: Sequence[Kept]) -> Step:
    statements = tuple(s for one in several for s in manifest.dropped(schema, one.name, compares=one.compares))
    rows = sum(one.rows for one in several)
    return Step(
        says=f"Drop {len(several)} table{'s' if len(several) > 1 else ''} that run {run_id or '(not known)'} kept: {', '.join(one.source for one in several)}",
        statements=statements,
        rows_expected=rows,
        irreversible="what was kept is gone, and it had expired",
    )


def by_itself(facts: Facts) -> str:
    """Never: what is dropped here is the last copy."""
    return ""


def unmet(made: Plan, facts: Facts) -> Sequence[str]:
    """What should be gone, and is not; and what should be kept as it was written, and is not."""
    there = {one.name for one in facts.kept}
    if made.chosen in OPTIONS:
        return [f"{name} is still there" for name in made.evidence.get("expired", {}) if name in there]
    texts = [statement.sql for step in made.steps for statement in step.statements]
    return [
        f"{name}: {facts.wrong.get(name, 'it is gone')}"
        for name in manifest.noted_by(texts)
        if name in facts.wrong or name not in there
    ]


def further(facts: Facts, chosen: str) -> str:
    """Nothing."""
    return "`mend rescue list` shows what is kept."


def warnings(facts: Facts, chosen: str) -> Sequence[str]:
    """What is left standing, and what can be undone no more."""
    if chosen not in OPTIONS:
        return ()
    left = [
        f"{one.name} ({one.source}) stays: {facts.wrong[one.name]}; drop it by hand if it may go"
        for one in facts.withheld()
    ]
    runs = sorted({one.run_id for one in facts.expired() if one.run_id and not one.restored_at})
    return [*left, *(f"run {run} cannot be undone any more" for run in runs)]


ROOM = Room("kept", OPTIONS, look, asks, evidence, found_ways, by_itself, unmet, further, warnings=warnings)
