"""The ways out where version rows are wrong: delete the one that another stands for, set the one that no file has."""

from __future__ import annotations

from collections.abc import Sequence

from mend.conflict import branches, conflicts
from mend.conflict.conflict_edits import NotPossible, about
from mend.conflict.conflicts import ANCESTOR, TWICE, UNKNOWN, Facts
from mend.errors import MendError
from mend.plan import Step
from mend.repairs import versions


def delete_row(facts: Facts) -> tuple[Step, ...]:
    older, twice = facts.rows_that_are(ANCESTOR), facts.rows_that_are(TWICE)
    wanted = [one for one in (*older, *twice) if one in about(facts)] or [*older, *twice]
    if not wanted:
        raise NotPossible("no version row is the ancestor of another, or there twice")
    _may_change(facts)
    row = wanted[0]
    if row in twice:
        move = versions.remove_one_of(facts.table, row)
        says = f"Delete one of the {facts.table.rows.count(row)} version rows {row}"
    else:
        newer = [one for one in facts.table.rows if one != row and row in facts.past.ancestors([one])]
        _really_at(facts, newer, row)
        move, says = (
            versions.remove(facts.table, row),
            f"Delete the version row {row}: {', '.join(newer)} comes after it",
        )
    back = Step(says=f"Put the version row {row} back", statements=move.back)
    return (Step(says=says, statements=move.forward, undo=(back,)),)


def _really_at(facts: Facts, newer: Sequence[str], row: str) -> None:
    """The descendant's row must be the true one: what it makes must be there.  Raises: NotPossible."""
    if isinstance(facts.expected, MendError):
        raise NotPossible(f"it is not proven that {', '.join(newer)} was applied: {facts.expected.message}")
    for one in newer:
        if one not in facts.expected or row not in facts.expected:
            raise NotPossible(f"it is not proven that {one} was applied: the history cannot be replayed up to it")
        made = branches.lacking(facts.expected[row], facts.expected[one], ignore=facts.table.name)
        absent = [c for c in made if facts.live.get((c.kind, c.identity)) != c.after]
        if absent:
            told = "; ".join(f"{c.kind} {c.identity}" for c in absent[:5])
            raise NotPossible(
                f"the row {one} is not true either: {told} is not as it leaves it; look with environment_mismatch first"
            )


def set_row(facts: Facts) -> tuple[Step, ...]:
    row = _unknown_row(facts)
    _may_change(facts)
    if isinstance(facts.expected, MendError):
        raise NotPossible(f"no revision's catalog is known: {facts.expected.message}")
    others = [one for one in facts.table.rows if one in facts.past.revisions]
    candidates = others or list(conflicts.near(facts.past, row, facts.kept, facts.said))
    equal = [one for one in candidates if conflicts.lacks(facts, one) == ()]
    if not equal:
        raise NotPossible(_nowhere(facts, candidates))
    if others:
        if len(others) > 1:
            raise NotPossible("several other version rows are there: whether they alone are true is not proven")
        move, says = (
            versions.remove(facts.table, row),
            f"Delete the unknown version row {row}: the catalog is that of {others[0]}",
        )
    else:
        latest = _one_of(facts, equal)
        move = versions.change(facts.table, row, latest)
        says = f"Set the version row {row} to {latest}: the catalog is exactly what a replay expects there"
    back = Step(says=f"Put the version row {row} back", statements=move.back)
    return (Step(says=says, statements=move.forward, undo=(back,)),)


def _one_of(facts: Facts, equal: Sequence[str]) -> str:
    """The one revision whose catalog fits.  Of several that follow each other with no difference nobody can tell."""
    if len(equal) > 1:
        raise NotPossible(
            f"{', '.join(equal)} all have this catalog (revisions between them change rows only, or nothing): name the right one as onto"
        )
    return equal[0]


def _nowhere(facts: Facts, candidates: Sequence[str]) -> str:
    found = {one: conflicts.lacks(facts, one) for one in candidates}
    known = {one: lines for one, lines in found.items() if lines}
    if not known:
        return "no known revision's catalog could be replayed"
    nearest = min(known, key=lambda one: len(known[one]))
    told = "; ".join(known[nearest][:3])
    return f"the catalog is that of no known revision; nearest is {nearest}, with {len(known[nearest])} differences: {told}"


def _unknown_row(facts: Facts) -> str:
    unknown = facts.rows_that_are(UNKNOWN)
    named = [one for one in unknown if one in about(facts)] or list(unknown)
    if not named:
        raise NotPossible("every version row is known to the files")
    return named[0]


def _may_change(facts: Facts) -> None:
    found = facts.tables
    mine = found[(found["schema"] == facts.table.schema) & (found["table"] == facts.table.name)]
    if len(mine) and not bool(mine["may_change"].iloc[0]):
        raise NotPossible(
            f"this role may not change {facts.table.schema}.{facts.table.name}, which belongs to {mine['owner'].iloc[0]}"
        )
