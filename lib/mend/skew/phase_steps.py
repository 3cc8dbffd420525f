"""The steps of each phase of a change: expand, backfill, contract.  Pure.

Each takes the parts of the pending statements in the history's order; what the contract ends at is exactly what the revisions make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mend.batches import rows
from mend.batches.repair import Repair
from mend.change import weights
from mend.change.renames import as_rename
from mend.constraints import nulls
from mend.database import names
from mend.database.catalog import Change
from mend.errors import Refused
from mend.mismatch import reconcile
from mend.mismatch.reconcile import Ground
from mend.plan import Expect, Statement, Step
from mend.repairs import steps
from mend.repairs.steps import Wanted
from mend.replays.expected import Step as Operation
from mend.skew import twins
from mend.skew.phase_parts import Part
from mend.skew.sides import Facts


def taken_over(facts: Facts, part: Part) -> bool:
    """Whether a change of rows of the history is made in batches."""
    takeover = facts.takeovers.get(part.statement.sql)
    return takeover is not None and not takeover.why_not


def _ground(facts: Facts, made: Sequence[Step], n: int) -> Ground:
    ground = reconcile.Ground(facts.live, facts.keeper, facts.major, facts.sizes).after(made)
    return replace(ground, keeper=replace(facts.keeper, key=f"{facts.keeper.key}p{n}"))


def _as_recorded(facts: Facts, part: Part, ground: Ground) -> tuple[Step, ...]:
    """One statement as the history sends it, an index CONCURRENTLY; the way back leads to what stands now, which an earlier phase may have changed."""
    operation = next(one for one in facts.operations() if part.statement in one.statements)
    now = (replace(c, before=ground.live.get((c.kind, c.identity))) for c in part.statement.changes)
    statement = replace(part.statement, changes=tuple(c for c in now if c.before != c.after))
    return reconcile.repair([Operation(operation.place, operation.says, (statement,), operation.own)], ground, reads=())


def _expand(facts: Facts, found: Sequence[Part]) -> tuple[Step, ...]:
    made: tuple[Step, ...] = ()
    for n, part in enumerate(found):
        ground = _ground(facts, made, n)
        if part.kind in ("twin", "new_not_null") or part.phase == "expand":
            _require_free(part, found[:n], ground)
        if part.kind == "twin":
            made += (twins.added(part.source, names.last(part.column), ground),)
        elif part.kind == "new_not_null":
            text = f"alter table {part.table} add column {names.last(part.column)} {part.definition}"
            change = Change("column", part.column, None, part.definition)
            made += steps.make(
                [Wanted(text, f"Add {part.column}, which may be NULL for now", (change,))],
                live=ground.live,
                keeper=ground.keeper,
            )
        elif part.kind == "drop_column" and part.must_give:
            text = f"alter table {part.table} alter column {names.last(part.column)} drop not null"
            change = Change("not_null", part.column, "not null", None)
            made += steps.make(
                [Wanted(text, f"Let {part.column} be NULL: the new application does not know it", (change,))],
                live=ground.live,
                keeper=ground.keeper,
            )
        elif part.kind == "as_is" and part.phase == "expand":
            made += _as_recorded(facts, part, ground)
    return made


def _require_free(part: Part, earlier: Sequence[Part], ground: Ground) -> None:
    """Raises: Refused where the history gives a name again that is in use until the contract, or a third name to a column."""
    taken = [c for c in part.statement.changes if c.before is None and (c.kind, c.identity) in ground.live]
    if taken:
        raise Refused(
            f"the {taken[0].kind} {taken[0].identity} is there already: what has this name is in use until the contract, "
            "or an earlier expand was interrupted (then resume or undo its run). Nothing was changed."
        )
    if part.kind == "twin" and part.source in {one.column for one in earlier if one.kind == "twin"}:
        raise Refused(f"{part.source} is renamed twice: rename it once. Nothing was changed.")


def _backfill(facts: Facts, found: Sequence[Part]) -> tuple[Step, ...]:
    made: tuple[Step, ...] = ()
    for n, part in enumerate(found):
        ground = _ground(facts, made, n)
        if part.kind == "twin":
            made += (twins.filled(part.source, part.column, ground, ground.live),)
        elif part.kind in ("new_not_null", "not_null") and (
            filled := _filled(facts, part, ground, n, until_none=False)
        ):
            made += filled
        elif part.kind == "rows":
            made += _rows(facts, part, ground, n)
    lacking = [
        part.column
        for part in found
        if part.kind == "new_not_null" and not _fill_of(facts, part) and not _covered(facts, found, part)
    ]
    if lacking:
        raise Refused(
            f"it is not known what to write into {lacking[0]}: say it with fill, as {lacking[0]}=expression. Nothing was changed."
        )
    return made


def _fill_of(facts: Facts, part: Part) -> str:
    return next((text for column, text in facts.fills.items() if column == part.column), "")


def _covered(facts: Facts, found: Sequence[Part], part: Part) -> bool:
    """Whether a row change of the history itself writes the column."""
    return any(
        taken_over(facts, one) and names.last(part.column) in facts.takeovers[one.statement.sql].values and facts.takeovers[one.statement.sql].table == part.table
        for one in found if one.kind == "rows"
    )  # fmt: skip


def _filled(facts: Facts, part: Part, ground: Ground, n: int, *, until_none: bool) -> tuple[Step, ...]:
    """Write the fill into every row that has no value."""
    fill = _fill_of(facts, part)
    if not fill:
        return ()
    column = names.last(part.column)
    size = facts.sizes.get(part.table) if part.kind == "not_null" else None  # a new column has none but this change's
    wanted = Repair(
        job=f"{facts.keeper.key}f{n}", table=part.table, action="update", values={column: fill}, where=f"t.{column} is null",
        at_most=weights.ceiling(size.rows) if size else None, until_none=until_none,
    )  # fmt: skip
    return (rows.step(wanted, says=f"Fill {part.column} with {fill}", live=ground.live, keeper=ground.keeper),)


def _rows(facts: Facts, part: Part, ground: Ground, n: int) -> tuple[Step, ...]:
    """A change of rows of the history, in batches where it can be; else as it was recorded."""
    takeover = facts.takeovers.get(part.statement.sql)
    if takeover is None or takeover.why_not:
        return _as_recorded(facts, part, ground)
    # No ceiling: the history's own statement has none, and both applications go on writing such rows.
    wanted = takeover.repair(f"{facts.keeper.key}b{n}", at_most=None, workers=1, batch_ms=100, until_none=False)
    return (
        rows.step(
            wanted,
            says=f"Change the rows of {takeover.table} in short batches: {', '.join(takeover.values)}",
            live=ground.live,
            keeper=ground.keeper,
        ),
    )


def _contract(facts: Facts, found: Sequence[Part]) -> tuple[Step, ...]:
    made: tuple[Step, ...] = ()
    for n, part in enumerate(found):
        ground = _ground(facts, made, n)
        if part.kind == "twin":
            made += (_renamed(part, ground),)
        elif part.kind in ("new_not_null", "not_null"):
            made += _not_null(facts, found, part, ground, n)
        elif part.kind == "rule":
            made += reconcile.come(part.statement.changes[0], ground, f"p{n}")
        elif part.kind == "drop_column" or (part.kind == "as_is" and part.phase == "contract"):
            made += _as_recorded(facts, part, ground)
    return (*made, reconcile.recorded(facts.table, _rows_after(facts)))


def _not_null(facts: Facts, found: Sequence[Part], part: Part, ground: Ground, n: int) -> tuple[Step, ...]:
    """A guard, what came meanwhile, the proof: without a scan that blocks."""
    making = nulls.making(
        part.table, names.last(part.column), live=ground.live, keeper=ground.keeper, major=facts.major
    )
    if not making.guard:
        return making.proof
    again = _filled(facts, part, ground, n, until_none=True)
    for m, one in enumerate(found) if not again else ():
        takeover = facts.takeovers.get(one.statement.sql)
        if (
            one.kind == "rows"
            and takeover
            and not takeover.why_not
            and names.last(part.column) in takeover.values
            and takeover.table == part.table
        ):
            again += _rows(facts, one, ground, 100 * (n + 1) + m)
    return (*making.guard, *again, *making.proof)


def _renamed(part: Part, ground: Ground) -> Step:
    """Take the second name away and rename the first, in one transaction: rules, indexes and comments go along."""
    net = steps.net(part.statement.changes)
    rename = as_rename(part.statement.changes)[0]
    back = as_rename([c.reversed() for c in net])
    added = twins.added(
        part.source,
        names.last(part.column),
        replace(ground, live={k: v for k, v in ground.live.items() if k != ("column", part.column)}),
    )
    texts = (*twins.dropped(part.source, part.column), rename)
    scaffold = [
        (kind, identity)
        for kind, identity in (
            *(("trigger", f"{part.table}.{name}") for name in twins.trigger_names(part.source, part.column)),
            ("function", f"{twins.function_name(part.source, part.column)}()"),
        )
        if (kind, identity) in ground.live
    ]
    before = (
        *(Expect(c.kind, c.identity, ground.live.get((c.kind, c.identity))) for c in net),
        *(Expect(*key, ground.live[key]) for key in scaffold),
    )
    after = (*(Expect(c.kind, c.identity, c.after) for c in net), *(Expect(*key, None) for key in scaffold))
    undo = Step(
        f"Call {part.column} {names.last(part.source)} again, and keep both names in step",
        (*map(Statement, back), *added.statements), locks=added.locks, before=after, after=before,
    )  # fmt: skip
    return Step(
        says=f"Take the second name away, and rename {part.source} to {names.last(part.column)}",
        statements=tuple(map(Statement, texts)), locks=added.locks, before=before, after=after,
        undo=(undo, twins.filled(part.source, part.column, ground, ground.live)) if back else (),
        irreversible="" if back else "no SQL is known that takes the rename back",
    )  # fmt: skip


def _rows_after(facts: Facts) -> tuple[str, ...]:
    """The version rows once the pending revisions are recorded."""
    found = list(facts.table.rows)
    for revision in facts.pending:
        parents = facts.past.parents(revision)
        found = [*(row for row in found if row not in parents), revision]
    return tuple(found)


STEPS = {"expand": _expand, "backfill": _backfill, "contract": _contract}
