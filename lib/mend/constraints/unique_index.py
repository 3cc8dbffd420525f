"""A unique index or constraint made without blocking: the index concurrently, then the constraint on top of it.  Pure.

There is no NOT VALID for unique keys (PostgreSQL docs, ALTER TABLE).  A concurrent build that meets a duplicate leaves an INVALID index
behind; a retry would stumble over its name, so every try begins by dropping what the one before left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mend.change import ddl
from mend.database import names
from mend.database.catalog import Change, index_state
from mend.journal import sha256
from mend.plan import Expect, Lock, Statement, Step
from mend.repairs import steps
from mend.repairs.steps import Facets, Keeper, Wanted


@dataclass(frozen=True)
class Making:
    """``clear``: drop what an earlier try left; ``build``: the index, and the constraint.  ``why_not``: it cannot be made here.

    All three are empty where it stands already.
    """

    clear: tuple[Step, ...] = ()
    build: tuple[Step, ...] = ()
    why_not: str = ""


@dataclass(frozen=True)
class Index:
    """The index of a wanted unique constraint, or the wanted index itself, as the catalog will list it."""

    table: str
    identity: str
    definition: str

    def build(self) -> str:
        """The statement that makes it without blocking writes."""
        return self.definition.replace("CREATE UNIQUE INDEX ", "CREATE UNIQUE INDEX CONCURRENTLY ", 1)


def making(change: Change, *, live: Facets, keeper: Keeper) -> Making:
    """The steps that make a wanted unique constraint or index, without those that are done already."""
    if live.get((change.kind, change.identity)) == change.after:
        return Making()
    index = index_of(change)
    found, state = index_state(live.get(("index", index.identity), ""))
    if why_not := _why_not(change, index, live, found):
        return Making(why_not=why_not)
    if found and not state:
        return Making(build=(_constraint(change, index, undo=_apart(change, index, live, keeper)),))
    clear = (
        steps.drop_index(
            index.identity, found + state, says=f"Drop the INVALID index {index.identity} that an earlier try left"
        ),
    )
    built = _built(index, live, keeper)
    if change.kind == "constraint":
        return Making(
            clear if found else (), (replace(built, undo=(_gone(change, index),)), _constraint(change, index))
        )
    return Making(clear if found else (), (built,))


def index_of(change: Change) -> Index:
    """The index that a wanted unique constraint or index has."""
    definition = index_state(str(change.after))[0]
    if change.kind == "index":
        return Index(ddl.index_table(definition), change.identity, definition)
    table, name = names.parent(change.identity), names.last(change.identity)
    parts = names.pieces(definition)
    groups = {before: part for before, part in zip(["", *parts], parts, strict=False) if part.startswith("(")}
    words = f"CREATE UNIQUE INDEX {name} ON {table} USING btree {next(iter(groups.values()))}"
    words += f" INCLUDE {groups['INCLUDE']}" if "INCLUDE" in groups else ""
    words += " NULLS NOT DISTINCT" if "DISTINCT" in parts else ""
    words += f" WITH {groups['WITH']}" if "WITH" in groups else ""
    return Index(table, f"{names.parent(table)}.{name}", words)


def _why_not(change: Change, index: Index, live: Facets, found: str) -> str:
    """What stands in the way of making it without blocking, or ''."""
    if " partition by " in live.get(("table", index.table), ""):
        return f"{index.table} is partitioned, and PostgreSQL builds no index concurrently over partitions"
    if found and found != index.definition:
        return f"an index {index.identity} is there, and it is another one ({found}): rename or drop it first"
    if not str(change.after).startswith("PRIMARY KEY"):
        return ""
    group = next(part for part in names.pieces(str(change.after)) if part.startswith("("))
    nullable = [one for one in names.items(group) if live.get(("not_null", f"{index.table}.{one}")) != "not null"]
    return f"{', '.join(nullable)} may be null, so a primary key would scan the table for nulls" if nullable else ""


def _built(index: Index, live: Facets, keeper: Keeper) -> Step:
    """CREATE UNIQUE INDEX CONCURRENTLY, and the proof that it is valid."""
    free: Mapping[tuple[str, str], str] = {key: text for key, text in live.items() if key != ("index", index.identity)}
    change = Change("index", index.identity, None, index.definition)
    (step,) = steps.make(
        [Wanted(index.build(), f"Build the unique index {index.identity} without blocking writes", (change,))],
        live=free,
        keeper=keeper,
    )
    return step


def _constraint(change: Change, index: Index, *, undo: tuple[Step, ...] = ()) -> Step:
    """ALTER TABLE .. USING INDEX: a moment under ACCESS EXCLUSIVE.  The index becomes the constraint's own.

    Without ``undo`` the step before, which built the index, takes both away: the constraint's index goes with it.
    """
    parts = names.pieces(str(change.after))
    word = "primary key" if parts[0] == "PRIMARY" else "unique"
    deferrable = " ".join(["", *parts[parts.index("DEFERRABLE") :]]).lower() if "DEFERRABLE" in parts else ""
    name = names.last(change.identity)
    sql = f"alter table {index.table} add constraint {name} {word} using index {names.last(index.identity)}{deferrable}"
    return Step(
        says=f"Make it the constraint {change.identity}",
        statements=(Statement(sql),),
        locks=(Lock(index.table, "ACCESS EXCLUSIVE"),),
        before=(Expect("index", index.identity, index.definition), Expect("constraint", change.identity, None)),
        after=(Expect("index", index.identity, None), Expect("constraint", change.identity, change.after)),
        undo=undo,
    )


def _gone(change: Change, index: Index) -> Step:
    """The way back of the build.  It expects nothing: whether the constraint came to be does not matter to it."""
    drops = (
        f"alter table {index.table} drop constraint if exists {names.last(change.identity)}",
        f"drop index if exists {index.identity}",
    )
    return Step(
        says=f"Drop constraint {change.identity} and its index",
        statements=tuple(Statement(text) for text in drops),
        locks=(Lock(index.table, "ACCESS EXCLUSIVE"),),
    )


def _apart(change: Change, index: Index, live: Facets, keeper: Keeper) -> tuple[Step, ...]:
    """The way back where the index was there before: the constraint takes it along, so it is built again."""
    there = (Expect("index", index.identity, None), Expect("constraint", change.identity, None))
    drop = Step(
        says=f"Drop constraint {change.identity}",
        statements=(Statement(f"alter table {index.table} drop constraint {names.last(change.identity)}"),),
        locks=(Lock(index.table, "ACCESS EXCLUSIVE"),),
        before=(there[0], Expect("constraint", change.identity, change.after)),
        after=there,
    )
    return drop, replace(_built(index, live, keeper), undo=())


def valid(definition: str) -> str:
    """The definition of an index as it will be once it is valid."""
    return index_state(definition)[0]


def named(table: str, keys: Sequence[str]) -> str:
    """A name for a constraint that nobody named; it needs no quotes.

    >>> named('public."We Ird"', ("a", '"B"'))
    'uq_we_ird_a_b'
    """
    words = "_".join([names.unquoted(names.last(table)), *(names.unquoted(key) for key in keys)]).lower()
    plain = "uq_" + re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    return plain if len(plain) <= 63 else f"uq_{sha256(words)[:16]}"
