"""The ways out of rows whose parent is missing: clear the reference, delete the row, insert the parent.  Pure.

Each gives the steps that repair rows; `around` puts them between the key that stops new orphans and its validation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mend.batches import deletion, rows
from mend.batches.repair import Action
from mend.change import kept, weights
from mend.constraints.orphaned import Facts
from mend.database import names
from mend.errors import NotInvertible, Refused
from mend.plan import Choice, Step
from mend.repairs import foreign_keys
from mend.repairs.foreign_keys import Key, Making
from mend.repairs.steps import Facets

OPTIONS = ("set_null", "stub", "delete", "stop")
Way = tuple[Choice, tuple[Step, ...]]


def ways(facts: Facts) -> tuple[Way, ...]:
    """Every option with its repair, or with why it is not possible; what loses least comes first."""
    stop = Choice("stop", "Change nothing, and report", "the migration stays where it is"), ()
    if facts.count.rows == 0:
        says = "No row is in the way: make the key, and validate it beside the application's work"
        make = Choice("validate", says, "one read of both tables", not facts.obstacle, facts.obstacle), ()
        return make, stop
    return _set_null(facts), _stub(facts), _delete(facts), stop


def by_itself(facts: Facts, found: Sequence[Way]) -> str:
    """The option that may be taken without being named.

    Clearing loses least: no row goes, nothing is invented, and a reference to a row that is not there tells nobody anything but its
    number, which the before-images keep. Stubs are made of what the operator said. A row is never deleted unasked.
    """
    if facts.valid:
        return "stop"  # its orphans could not come back
    allowed = ("validate", "set_null", *(["stub"] if facts.stub else []), "stop")
    return next(choice.option for choice, _ in found if choice.possible and choice.option in allowed)


def cleared(key: Key, live: Facets) -> tuple[str, ...]:
    """The columns that are set NULL to end a reference; () where none may be.

    Those that the key's own ON DELETE SET NULL names; else all; else, where one NULL is enough, those that may be NULL.
    """
    if key.sets and key.on_delete == "SET NULL":
        return key.sets
    nullable = tuple(column for column in key.columns if not required(key.table, column, live))
    return nullable if len(nullable) == len(key.columns) or not key.full else ()


def required(table: str, column: str, live: Facets) -> bool:
    """Whether a column is NOT NULL; of a partition, or a child, its parents count."""
    inherits = " ".join(live.get((kind, table), "") for kind in ("partition", "inherits"))
    parents = re.split(r" (?=FOR VALUES|DEFAULT)", inherits)[0].split(", ")
    own = ("not_null", f"{table}.{column}") in live
    return own or any(required(parent.strip(), column, live) for parent in parents if parent.strip())


def lacking(facts: Facts) -> tuple[str, ...]:
    """The columns of the parent for which a new row needs a value that nothing gives it."""
    key, live = facts.key, facts.live
    return tuple(
        column
        for column, definition in kept.columns_of(key.parent, live).items()
        if column not in key.keys
        and column not in facts.stub
        and required(key.parent, column, live)
        and " as identity" not in definition
        and ("default", f"{key.parent}.{column}") not in live
        and " generated always as (" not in definition
    )


# -- the repairs -------------------------------------------------------------------------------------------------------


def _set_null(facts: Facts) -> Way:
    key = facts.key
    columns = cleared(key, facts.live)
    said = ", ".join(columns or key.columns)
    says = f"Set {said} NULL in the orphaned rows of {key.table}, in short batches"
    costs = "which parent each row had; the old values are kept in schema mend, and undo brings them back"
    fixed = ", ".join(column for column in key.columns if required(key.table, column, facts.live))
    why_not = (
        facts.obstacle or ("" if columns else f"{fixed} of {key.table} may not be NULL") or _objected(facts, "set_null")
    )
    if why_not:
        return Choice("set_null", says, costs, False, why_not), ()
    repair = _listed(facts, _repair(facts, 1, action="update", values=dict.fromkeys(columns, "null")))
    return Choice("set_null", says, costs), (_step(facts, repair, f"Clear {said} of the orphans in {key.table}"),)


def _stub(facts: Facts) -> Way:
    key = facts.key
    says = f"Insert the missing rows of {key.parent}, with the values of the parameter stub"
    costs = "rows that nobody entered: every reader takes them for real ones; undo deletes those that are still as they were made"
    why_not = facts.obstacle or no_stub(facts) or _objected(facts, "stub")
    if why_not:
        return Choice("stub", says, costs, False, why_not), ()
    return Choice("stub", says, costs), (_step(facts, stubs(facts), f"Insert the missing parents into {key.parent}"),)


def no_stub(facts: Facts) -> str:
    """Why the missing parents cannot be made up from what was given; ''."""
    if facts.in_part:
        return f"{facts.in_part:,} rows are NULL in part, which MATCH FULL refuses whatever the parent holds"
    if missing := lacking(facts):
        return f"{facts.key.parent} wants values for {', '.join(missing)}; give them with the parameter stub, e.g. {missing[0]} = '...'"
    return ""


def stubs(facts: Facts) -> rows.Repair:
    """The missing parents, each once by the parent's own equality."""
    key, types = facts.key, kept.columns_of(facts.key.parent, facts.live)
    listed = [
        f"cast(t.{column} as {kept.type_of(types[own])}){foreign_keys.collated(key, own, column, facts.live)} as k{n}"
        for n, (column, own) in enumerate(zip(key.columns, key.keys, strict=True), 1)
    ]
    source, places = foreign_keys.rows_of(key.table, facts.live), ", ".join(str(n) for n in range(1, len(listed) + 1))
    held = f"array_agg({_reference(facts, 't')}) as v1"
    work = f"select {', '.join(listed)}, {held} from {source} as t where {foreign_keys.orphan(key, facts.live)} group by {places}"
    values = {mine: f"w.k{n}" for n, mine in enumerate(key.keys, 1)} | {
        column: one.text for column, one in facts.stub.items()
    }
    # On the way back the orphans that the stubs were made for are to be orphans again; a row that came since was never one.
    refers = foreign_keys.parents_row(key, facts.live, child="c", parent="t")
    known = f"exists (select from mend_listed as w where w.v1 = {_reference(facts, 'c')})"
    since = f"exists (select from {source} as c where {refers} and not {known})"
    own = {"table": key.parent, "where": "true", "work": work, "match": key.keys, "since": since}
    return _repair(facts, 1, action="insert", values=values, **own)


def _reference(facts: Facts, alias: str) -> str:
    """Which row refers to what, as one text; without a primary key all of the row tells it apart."""
    own = facts.keeper.primary_keys.get(facts.key.table, ())
    columns = [f"{alias}.{column}" for column in dict.fromkeys([*own, *facts.key.columns])] if own else [f"{alias}.*"]
    return f'cast(row({", ".join(columns)}) as text) collate "C"'


def below(key: Key, live: Facets, listed: Sequence[str]) -> str:
    """A recursive query ``down``: the orphans, and what refers to them by the same key, with ``depth`` and the listed columns.

    It ends: a row has one parent (the parent's key is unique), and whoever is in a circle never comes to a missing one.
    """
    columns = dict.fromkeys([*key.keys, *listed])
    source = foreign_keys.rows_of(key.table, live)
    first, further = (", ".join(f"{alias}.{column}" for column in columns) for alias in ("t", "c"))
    return (
        f"with recursive down as (select {first}, 0 as depth from {source} as t where {foreign_keys.orphan(key, live)} "
        f"union all select {further}, d.depth + 1 from down as d join {source} as c on {foreign_keys.parents_row(key, live, child='c', parent='d')})"
    )


def _delete(facts: Facts) -> Way:
    key = facts.key
    along = [
        f"{one.rows.says} of {one.key.table} (ON DELETE {one.key.on_delete})"
        for one in facts.referring
        if one.rows.rows != 0
    ]
    says = f"Delete the orphaned rows of {key.table}, in short batches" + (
        f"; {'; '.join(along)} refer to them" if along else ""
    )
    costs = "those rows and what goes with them; all are kept in schema mend, and undo brings them back"
    if slow := [f"{one.key.table} ({', '.join(one.key.columns)})" for one in facts.referring if not one.indexed]:
        costs += f". No index is on {'; '.join(slow)}, so every deleted row reads all of it"
    try:
        why_not = facts.obstacle or _barred(facts)
        steps = (
            () if why_not else tuple(_step(facts, one, f"{_DOES[one.action]} {one.table}") for one in deleting(facts))
        )
    except (NotInvertible, Refused) as error:
        why_not, steps = error.message, ()
    return Choice("delete", says, costs, not why_not, why_not), steps


def _barred(facts: Facts) -> str:
    """The rows that keep the orphans from being deleted."""
    if facts.key.on_delete == "CASCADE" and len(facts.levels) > _DEEPEST:
        return f"rows refer to each other {len(facts.levels)} deep, and with ON DELETE CASCADE each depth takes a sweep of its own; delete them by hand, deepest first"
    bars = [
        f"{one.rows.says} rows of {one.key.table} refer to what would go, by {one.key.identity} (ON DELETE {one.key.on_delete})"
        for one in facts.referring
        if one.bars
    ]
    return "; ".join(bars)


def deleting(facts: Facts) -> tuple[rows.Repair, ...]:
    """The delete of the orphans, after what must go or be released before.  Raises: Refused."""
    ceilings = {one.key.table: weights.ceiling(one.rows.best) for one in facts.referring}
    *before, last = deletion.deletion(doomed(facts), live=facts.content, ceilings=ceilings, strict=False)
    return (*before, _listed(facts, last))


def doomed(facts: Facts) -> rows.Repair:
    """The delete of the orphans; where only an empty place may be left in their own table, of all below them, deepest first.

    Raises: Refused where the rows of such a table cannot be told apart.
    """
    key = facts.key
    if not key.refers_to_itself or key.on_delete not in ("NO ACTION", "RESTRICT"):
        return _repair(facts, 1, action="delete")
    own = facts.keeper.primary_keys.get(key.table, ())
    if not own:
        raise Refused(
            f"{key.table} refers to itself and has no primary key, so its rows cannot be deleted in order. Nothing was changed."
        )
    listed = [f"d.{column} as k{n}" for n, column in enumerate(own, 1)]
    listed += [f"d.{column} as v{n}" for n, column in enumerate(key.columns, 1)]
    further = below(key, facts.live, (*own, *key.columns))
    work = f"{further} select {', '.join(listed)} from down as d order by d.depth desc"
    same = " and ".join(f"t.{column} is not distinct from w.v{n}" for n, column in enumerate(key.columns, 1))
    return _repair(facts, 1, action="delete", work=work, match=own, where=same, workers=1)


_DEEPEST = 15  # of a key that cascades in its own table: the engine gives up after 20 sweeps
_DOES = {"delete": "Delete rows of", "update": "Release rows of"}


_UNKNOWN = "Could not check"


def _objected(facts: Facts, option: str) -> str:
    """What is known to speak against the values."""
    return "; ".join(one.says for one in facts.objections.get(option, ()) if not one.says.startswith(_UNKNOWN))


def doubts(facts: Facts, option: str) -> tuple[str, ...]:
    """What the operator should know of an option: a question that did not end in time is no reason to refuse, for the repair sets aside
    a row that does not take its value."""
    found = [one.says for one in facts.objections.get(option, ()) if one.says.startswith(_UNKNOWN)]
    late = [f"{says}. A row that does not take its value is set aside" for says in found]
    if option == "stub" and facts.ahead:
        late.append(
            f"{facts.ahead} has not come to the missing keys yet, and will give them out a second time (23505): move it on with setval() after the repair"
        )
    return tuple(late)


def _repair(facts: Facts, n: int, *, action: Action, **own: Any) -> rows.Repair:
    given = facts.given
    common: dict[str, Any] = {"table": facts.key.table, "where": foreign_keys.orphan(facts.key, facts.live)}
    common |= {"workers": int(given["workers"]), "batch_ms": int(given["batch_ms"]), "at_most": facts.at_most}
    return rows.Repair(job=f"{facts.keeper.key}_{n}", action=action, **(common | own))


_FEW = 100  # by how much the table must be larger than its orphans; in powers of ten, as ceilings are


def _listed(facts: Facts, repair: rows.Repair) -> rows.Repair:
    """The same repair by a list of the orphans' keys, where they are few: a walk through a large table would read all of it, row by row."""
    key, own = facts.key, facts.keeper.primary_keys.get(facts.key.table, ())
    table = int(facts.sizes["rows_estimate"].fillna(0).iloc[0])
    if repair.work or not own or weights.ceiling(facts.count.best) * _FEW > weights.ceiling(table):
        return repair
    listed = ", ".join(f"t.{column} as k{n}" for n, column in enumerate(own, 1))
    orphaned = foreign_keys.orphan(key, facts.live)
    work = f"select {listed} from {foreign_keys.rows_of(key.table, facts.live)} as t where {orphaned}"
    return replace(repair, work=work, match=own)


def _step(facts: Facts, repair: rows.Repair, says: str) -> Step:
    expected = facts.missing.best if repair.action == "insert" else facts.rows_of(repair.table)
    live = facts.content
    if (
        repair.action == "insert"
    ):  # its way back comes after the key went, and must not mind the orphans that refer by it
        live = {at: text for at, text in live.items() if at != ("constraint", facts.key.identity)}
    return rows.step(repair, says=says, live=live, keeper=facts.keeper, rows_expected=expected)


# -- around them -------------------------------------------------------------------------------------------------------


def around(facts: Facts, repairs: Sequence[Step]) -> tuple[Step, ...]:
    """Stop new orphans, repair, index where asked for, validate; without what stands already."""
    key = facts.key
    made = foreign_keys.making(key, facts.live, major=facts.major)
    built = (foreign_keys.index(key, index_name(facts)),) if facts.given["index"] and can_be_indexed(facts) else ()
    return (*made.stops, *_taken_back(facts, repairs, made), *built, *made.proof)


def _taken_back(facts: Facts, repairs: Sequence[Step], made: Making) -> tuple[Step, ...]:
    """The repairs, whose way back drops the key first: orphans cannot come back while it stands, not even NOT VALID."""
    if facts.valid:
        why = f"{names.last(facts.key.identity)} was valid before, and refuses the orphans back"
        return tuple(replace(step, undo=(), irreversible=step.irreversible or why) for step in repairs)
    return tuple(replace(step, undo=(made.frees, *step.undo, *made.again)) if step.undo else step for step in repairs)


def can_be_indexed(facts: Facts) -> bool:
    """Whether an index is missing that can be built without blocking: of a partitioned table it cannot."""
    return not facts.indexed and " partition by " not in facts.live.get(("table", facts.key.table), "")


def index_name(facts: Facts) -> str:
    """A name for an index of the referring columns that nothing has yet, and that needs no quotes."""
    key = facts.key
    plain = "_".join(names.unquoted(part) for part in (names.last(key.table), *key.columns))
    name = "ix_" + re.sub(r"[^a-z0-9_]", "_", plain.lower())[:40]
    taken = {names.last(identity) for kind, identity in facts.live if kind in ("index", "table", "constraint")}
    return name if name not in taken else f"{name}_{facts.keeper.key[:8]}"
