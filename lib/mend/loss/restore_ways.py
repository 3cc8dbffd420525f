"""The way out from a copy: put back what is missing, and nothing else.  Pure, but for ``ROOM``'s look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.batches import rows
from mend.batches.rows import Repair
from mend.change import kept, weights
from mend.database.catalog import Change
from mend.diagnosis import Check, Site
from mend.errors import InvalidParameter, NotInvertible, Refused
from mend.loss import restorable
from mend.loss.loss_room import Room, Way
from mend.loss.restorable import Facts
from mend.plan import Choice, Plan, Step
from mend.repairs import steps
from mend.repairs.steps import Wanted

OPTIONS = ("restore",)


def asks(site: Site, facts: Facts) -> Sequence[Callable[[], Check]]:
    """The question about the copy."""
    return (partial(copy, facts),)


def copy(facts: Facts) -> Check:
    """Can a copy be put back?"""
    asked = partial(
        Check,
        name="copy",
        question="What of a copy is missing in its table?",
        healthy_when="0 of its values are missing.",
    )
    if not facts.name:
        return asked(verdict="not_asked", says="No copy was named.")
    frame = restorable.frame(facts)
    if facts.against or facts.missing is None:
        return asked(verdict="could_not_check", says=f"{facts.place} is not put back.", frame=frame, why=facts.against)
    what = f"{facts.missing.says} of its {facts.rows:,} values of {facts.source} are missing there"
    rest = [
        f"{count.says} {says}"
        for count, says in ((facts.differing, "hold another value by now and are left alone"), (facts.gone if facts.column else None, "belong to rows that are gone"))
        if count is not None and count.rows != 0
    ]  # fmt: skip
    verdict = "healthy" if facts.missing.rows == 0 and not facts.adds else "found"
    return asked(verdict=verdict, says="; ".join([what, *rest]) + ".", frame=frame)  # type: ignore[arg-type]


def evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: the copy as it is noted, and the table as it is."""
    if not facts.name:
        return {}
    one = facts.noted
    noted = {"source": one.source, "rows": one.rows, "checksum": one.checksum, "run": one.run_id} if one else {}
    about = {
        f"{kind} {identity}": text
        for (kind, identity), text in sorted(facts.live.items())
        if facts.table and identity.startswith(facts.table)
    }
    return {"copy": {"name": facts.name, **noted, "definition": facts.definition}, "restored": about}


def ways(facts: Facts, given: Mapping[str, Any]) -> Sequence[Way]:
    """Every option, with its steps or with why it is not possible."""
    says = f"Put back from {facts.place or 'a copy'} what is missing in {facts.table or 'its table'}, in short batches"
    costs = "values that are there are left alone, and so is what the application has written since"
    why_not = _why_not(facts)
    made: tuple[Step, ...] = ()
    if not why_not:
        try:
            made = _steps(facts, given)
        except (Refused, InvalidParameter, NotInvertible) as error:
            why_not = error.message
    return ((Choice("restore", says, costs, not why_not, why_not), made),)


def _why_not(facts: Facts) -> str:
    if not facts.name:
        return "no copy was named"
    if facts.against:
        return facts.against
    return "nothing is missing" if facts.missing and facts.missing.rows == 0 and not facts.adds else ""


def _steps(facts: Facts, given: Mapping[str, Any]) -> tuple[Step, ...]:
    """The column, where it is gone; then its values."""
    made: tuple[Step, ...] = ()
    live = dict(facts.live)
    if facts.adds:
        wanted = _added(facts)
        made = steps.make(wanted, live=live, keeper=facts.keeper)
        live = dict(steps.moved(live, (change for one in wanted for change in one.changes)))
    expected = facts.missing.best if facts.missing else facts.rows
    repair = Repair(
        job=f"restore_{facts.keeper.key}",
        table=facts.table,
        at_most=weights.ceiling(facts.rows),
        workers=int(given.get("workers") or 1),
        batch_ms=int(given.get("batch_ms") or 100),
        match=facts.key,
        work=_work(facts, live),
        **_change(facts, live),
    )
    what = (
        f"{facts.table}.{facts.column}, where it is NULL"
        if facts.column
        else f"{facts.table}, where no row has its key"
    )
    return (
        *made,
        rows.step(
            repair,
            says=f"Put the values of {facts.place} back into {what}",
            live=live,
            keeper=facts.keeper,
            rows_expected=expected,
        ),
    )


def _added(facts: Facts) -> list[Wanted]:
    """The column as it was, without what its rows cannot keep yet: a default counts for new rows only."""
    identity = f"{facts.table}.{facts.column}"
    definition = kept.type_of(facts.definition) if " generated " in facts.definition else facts.definition
    found = [
        Wanted(
            f"alter table {facts.table} add column {facts.column} {definition}", f"Add column {identity}", (Change("column", identity, None, definition),)
        )
    ]  # fmt: skip
    if facts.default and " generated " not in facts.definition:
        found.append(
            Wanted(
                f"alter table {facts.table} alter column {facts.column} set default {facts.default}", f"Set the default of {identity}",
                (Change("default", identity, None, facts.default),),
            )
        )  # fmt: skip
    return found


def _work(facts: Facts, live: Mapping[tuple[str, str], str]) -> str:
    """The copy's rows: the key, and what comes back."""
    keys = [f"{key} as k{n}" for n, key in enumerate(facts.kept_key("k"), 1)]
    values = [f"{value} as v{n}" for n, (_, value) in enumerate(_values(facts, live), 1)]
    return f"select {', '.join([*keys, *values])} from {facts.place} as k order by {', '.join(str(n) for n in range(1, len(keys) + 1))}"


def _values(facts: Facts, live: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    own = kept.columns_of(facts.table, live)
    columns = [facts.column] if facts.column else [one for one in facts.columns if one in own]
    return [(one, kept.as_restored(f"k.{one}", own[one])) for one in columns]


def _change(facts: Facts, live: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    values = {column: f"w.v{n}" for n, (column, _) in enumerate(_values(facts, live), 1)}
    if facts.column:
        return {"action": "update", "values": values, "where": f"t.{facts.column} is null"}
    return {"action": "insert", "values": values, "where": "true"}


def by_itself(facts: Facts) -> str:
    """It writes into nothing but gaps, so it may be taken where a copy was named."""
    return "restore" if facts.name and not _why_not(facts) else ""


def unmet(made: Plan, facts: Facts) -> Sequence[str]:
    """Nothing of the copy is missing any more."""
    if made.chosen != "restore":
        return ()
    if facts.against:
        return (facts.against,)
    left = facts.missing
    return () if left is not None and left.rows == 0 else (f"{left.says if left else 'its'} values are missing still",)


def further(facts: Facts, chosen: str) -> str:
    """What to do next."""
    if facts.adds:
        return f"The history does not know {facts.table}.{facts.column} yet: write a revision that adds it (`mend plan environment_mismatch` adopts it), or the next comparison finds it."
    return ""


def warnings(facts: Facts, chosen: str) -> Sequence[str]:
    """A row that gets a value back is written anew, and takes what other dropped columns left in it along."""
    others = ", ".join(f"{one.relation} column {one.attnum}" for one in facts.others)
    if chosen != "restore" or not others:
        return ()
    return (
        f"The rows that get a value back lose what is on disk of other dropped columns ({others}): recover those first, if they are missed.",
    )


ROOM = Room("copy", OPTIONS, restorable.look, asks, evidence, ways, by_itself, unmet, further, warnings=warnings)
