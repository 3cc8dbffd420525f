"""What must be known beyond a revision's own changes so that nothing goes along with them unkept.  Pure.

A replay knows what a statement does to the objects that the history makes.  A live database has others: a partition made by a job, an
index made by hand.  They go with the table or column all the same, so they are added to the statement's changes, and come back with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mend.change import belonging, ddl, kept, kept_rows
from mend.change.kept import Facets, Keeper, Keeping
from mend.change.weights import SCAN_BYTES_PER_S, Size
from mend.database import names, sqltext
from mend.database.catalog import Change
from mend.errors import NotInvertible
from mend.loss import losses
from mend.repairs import steps
from mend.repairs.halfway import Facts, Seen

AT_ONCE_S = 5.0  # a table that is copied sooner is locked against readers too: no lock is made stronger later
_BESIDE = ("index", "constraint", "trigger", "policy", "statistics", "rule")
_UNIQUE = re.compile(r"^CREATE UNIQUE INDEX \S+ ON (?:ONLY )?\S+ USING btree (\(.*\))$")


def prepared(facts: Facts, *, days: int) -> Facts:
    """The same facts with every statement that is yet to run told whole, and a keeper that knows more keys and the locks.

    Raises: NotInvertible where rows that a statement changes cannot be kept.
    """
    keeper = replace(
        facts.keeper,
        revision=facts.revision.id if facts.revision else "",
        days=days,
        primary_keys={**_unique_keys(facts.live), **facts.keeper.primary_keys},
        locked={table: "access exclusive" for table, size in facts.sizes.items() if seconds(size) <= AT_ONCE_S},
    )
    state, seen = dict(facts.live), []
    made = losses.made([one.statement for one in facts.seen])
    for n, one in enumerate(facts.seen):
        if one.ran is True:
            seen.append(one)
            continue
        rows = _rows_kept(one, replace(keeper, key=f"{keeper.key}rows{n}"), made, state)
        whole = replace(one, statement=replace(one.statement, changes=_whole(one, state)), keeps=rows)
        seen.append(whole)
        state = steps.moved(state, whole.statement.changes)
    return replace(facts, seen=tuple(seen), keeper=keeper)


def _rows_kept(one: Seen, keeper: Keeper, made: set[str], state: Facets) -> tuple[Keeping, ...]:
    """How the rows are kept that the statement changes; nothing where it changes none that were there before.

    Raises: NotInvertible where they cannot be kept.
    """
    lost = losses.of_rows(one.statement)
    there = {identity for kind, identity in state if kind == "table"}
    tables = {losses.live_name(loss.table, there) for loss in lost}
    if not lost or tables <= made or all(loss.identity in made or f"public.{loss.identity}" in made for loss in lost):
        return ()
    first, table = lost[0], next(iter(tables))
    if unsure := next((loss.unsure for loss in lost if loss.unsure), ""):
        raise NotInvertible(f"{one.statement.says}: {unsure}")
    if not all(tables) or len(sqltext.statements(one.statement.sql)) != 1:
        raise NotInvertible(f"{one.statement.says}: which rows it changes cannot be read from it")
    keys = {**keeper.primary_keys, **kept.primary_keys(state)}
    if first.action == "truncate":
        if re.search(r"\bcascade\b", one.statement.sql, re.IGNORECASE):
            raise NotInvertible(f"{one.statement.says}: it empties tables that it does not name (CASCADE)")
        return tuple(kept_rows.emptied(keeper, name, content=state) for name in sorted(tables))
    if table not in keys:
        raise NotInvertible(f"{table} has no primary key, so the rows that change could not be told apart")
    if first.action == "delete":
        return (kept_rows.deleted(keeper, table, first.where, key=keys[table], content=state),)
    printed = {names.unquoted(column): column for column in kept.columns_of(table, state)}
    columns = [printed.get(_folded(loss.column), "") for loss in lost]
    if not all(columns):
        raise NotInvertible(f"{one.statement.says}: which columns it sets cannot be read from it")
    return (kept_rows.updated(keeper, table, columns, first.where, key=keys[table], content=state),)


def _folded(column: str) -> str:
    return names.unquoted(column) if column.startswith('"') else column.lower()


def seconds(size: Size) -> float:
    """About how long a table is copied."""
    return size.bytes / SCAN_BYTES_PER_S


def _whole(one: Seen, state: Facets) -> tuple[Change, ...]:
    """What the statement changes, as it is here, with what goes along."""
    own = {(c.kind, c.identity): c for c in one.statement.changes}
    gone = [i for i in ddl.losses([c.reversed() for c in own.values()]) if _is_gone(own, i)]
    tables = _with_partitions([i for i in gone if ("table", i) in own], state)
    columns = [i for i in gone if ("column", i) in own]
    along = [
        Change(kind, identity, text, None)
        for (kind, identity), text in state.items()
        if (kind, identity) not in own
        and ((kind == "table" and identity in tables) or _goes(kind, identity, text, tables, columns))
    ]
    # What is dropped is dropped as it is here; what it was in scratch does not come back.
    there = [
        replace(c, before=state.get(key, c.before)) if c.after is None and c.before is not None else c
        for key, c in own.items()
    ]
    return (*there, *along)


def _is_gone(changes: dict[tuple[str, str], Change], identity: str) -> bool:
    return any(changes[key].after is None for key in (("table", identity), ("column", identity)) if key in changes)


def _with_partitions(tables: Sequence[str], state: Facets) -> set[str]:
    """These tables and the partitions that they have here, however deep."""
    found = set(tables)
    while True:
        more = {
            identity
            for (kind, identity), text in state.items()
            if kind == "partition" and re.split(r" (?=FOR VALUES|DEFAULT)", text)[0] in found
        } - found
        if not more:
            return found
        found |= more


def _goes(kind: str, identity: str, text: str, tables: set[str], columns: Iterable[str]) -> bool:
    """Whether a facet goes with one of these tables or columns."""
    holders = belonging.holders(kind, identity, text)
    if holders & (tables | set(columns)):
        return True
    beside = (names.last(column) for column in columns if kind in _BESIDE and names.parent(column) in holders)
    mentioned = names.mentions(text)
    return any(name in mentioned for name in beside)


def _unique_keys(live: Facets) -> dict[str, tuple[str, ...]]:
    """By table: columns that tell its rows apart as well as a primary key does (unique, none of them NULL)."""
    found: dict[str, tuple[str, ...]] = {}
    for (kind, identity), text in sorted(live.items()):
        match = _UNIQUE.match(text) if kind == "index" else None
        if kind == "constraint" and re.match(r"UNIQUE (?:NULLS NOT DISTINCT )?\(", text) and "DEFERRABLE" not in text:
            table, group = names.parent(identity), next(one for one in names.pieces(text) if one.startswith("("))
        elif match:
            table, group = belonging.index_table(text), match[1]
        else:
            continue
        key = names.items(group)
        if all(live.get(("not_null", f"{table}.{column}")) == "not null" for column in key):
            found.setdefault(table, key)
    return found


def obstacles(facts: Facts) -> list[str]:
    """Why what is to be kept could not be told apart again, in words."""
    parents = {p for (kind, _), text in facts.live.items() if kind == "inherits" for p in text.split(", ")}
    return [
        f"{names.parent(lost)} has children that inherit from it, and their rows may have the same keys"
        for one in facts.seen
        if one.ran is not True
        for lost in ddl.losses([c.reversed() for c in one.statement.changes])
        if names.parent(lost) in parents
    ]
