"""The answer to what is pending, in words.  Pure."""

from __future__ import annotations

from functools import partial

from mend.diagnosis import Check
from mend.loss.at_stake import Facts, Stake


def losses(facts: Facts) -> Check:
    """What would the pending revisions destroy?"""
    asks = partial(
        Check,
        name="losses",
        question="What would the pending revisions destroy?",
        healthy_when="There are 0 rows, or all of them are about 0 rows or values.",
        frame=facts.frame(),
        sql="\n".join(f"-- {one.revision}, operation {one.operation}\n{one.sql};" for one in facts.statements),
    )
    if not facts.pending:
        return asks(verdict="healthy", says="No revision is pending.")
    several = "1 revision is pending" if len(facts.pending) == 1 else f"{len(facts.pending)} revisions are pending"
    waiting = f"{several} ({', '.join(facts.pending)})"
    lost = [one for one in facts.stakes if one.loses]
    if facts.unknown and not lost:
        return asks(verdict="could_not_check", says=f"{waiting}.", why=facts.unknown)
    if not lost:
        return asks(verdict="healthy", says=f"{waiting}. Nothing that is there now is destroyed.")
    return asks(
        verdict="found", says=f"{waiting}. Destroyed would be: {'; '.join(map(told, lost))}.", why=facts.unknown
    )


def told(one: Stake) -> str:
    """One loss in words."""
    what = f"{one.loss.action} {one.loss.identity or one.loss.detail}"
    if one.values is not None:
        return f"{what} ({one.values:,} values in {one.rows:,} rows, {one.counted})"
    return f"{what} ({one.rows:,} rows, {one.counted})" if one.rows is not None else f"{what} (not known: {one.why})"
