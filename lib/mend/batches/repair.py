"""A change of many rows of one table, as a value, and what must hold of it before it may become a step.  Pure.

Modes take it from `rows`, which makes the step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mend.change import kept
from mend.change.kept import Facets, Keeper
from mend.change.references import references
from mend.database import names
from mend.errors import InvalidParameter, Refused

Action = Literal["update", "delete", "insert"]
_TUPLES = ("match", "key", "unreferenced", "alone")
_JOB = re.compile(r"[a-z0-9_]{1,40}")


@dataclass(frozen=True)
class Repair:
    """A change of many rows of one table.  It must be idempotent: ``where`` is false for a row once it is repaired.

    Names are quoted as in a catalog's identities; expressions speak of the row as ``t`` and of the worklist's as ``w``.

    job : ``[a-z0-9_]{1,40}``, new for every plan; its tables in schema mend are named after it
    table : qualified, e.g. ``public.t`` or ``app."We Ird"``
    action : what happens to the rows
    values : column -> SQL expression; of an update over ``t`` (and ``w``), of an insert over ``w``
    where : which rows, over ``t`` (and ``w``); of an insert over ``w``
    work : a SELECT that lists, once and in order, what is to be done: columns k1..kn, compared with ``match``, and any others
    match : columns of ``t`` that equal ``w.k1`` .. ``w.kn``; for an insert: what is there already is not inserted again
    key : columns that tell rows apart; ``step`` fills it
    columns : stored column -> its definition in the catalog, for the before-images; ``step`` fills it
    at_most : ceiling of rows in total; the batch that would exceed it rolls back and the step stops
    by : how the table is walked: physically, or along ``key`` (PostgreSQL 13 always)
    each : after every batch it is asked whether its rows need the change still, not after the first alone: where new values come from old
        ones of the same columns, that holds of some rows and not of others
    until_none : sweep until no row is left by ``where``; False: sweep once, and say what is left
    alone : tables that nobody else may write to while a batch runs, because its condition is about more rows than it locks
    all_listed : of a delete by a worklist: a listed row that stays is a failure, because what pointed at it was moved already
    since : of an insert, a condition over ``t``: rows that came since lean on what was inserted, so the way back leaves it; it may ask
        ``mend_listed``, whose column v1 holds every element of the worklist's v1
    batch_ms : what a batch should take; deadline_s : after how long the step stops by itself (0: never)

    The rest ``step`` fills, too: ``unreferenced``, conditions over ``t`` that no foreign key takes other rows along or changes them;
    ``match_unique``, a line of the worklist has one row at most; ``locks_key``, foreign keys may refer to what changes.
    """

    job: str
    table: str
    action: Action
    values: Mapping[str, str] = field(default_factory=dict)
    where: str = "true"
    work: str = ""
    match: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    at_most: int | None = None
    by: Literal["ctid", "keyset"] = "ctid"
    each: bool = False
    until_none: bool = True
    workers: int = 1
    batch_ms: int = 100
    deadline_s: int = 0
    alone: tuple[str, ...] = ()
    all_listed: bool = False
    since: str = ""
    unreferenced: tuple[str, ...] = ()
    match_unique: bool = False
    partitioned: bool = False
    locks_key: bool = False

    def as_arguments(self, schema: str) -> dict[str, Any]:
        """Plain JSON values for a step; ``schema`` is where its tables are."""
        return asdict(self) | {"schema": schema} | {name: list(getattr(self, name)) for name in _TUPLES}


def from_arguments(arguments: Mapping[str, Any]) -> Repair:
    """The repair that ``as_arguments`` wrote."""
    given = {name: value for name, value in arguments.items() if name != "schema"}
    return Repair(**given | {name: tuple(given[name]) for name in _TUPLES})


def completed(repair: Repair, live: Facets, keeper: Keeper) -> Repair:
    """The repair with its key, its columns' types and how its rows must be locked; refused where it could not be run.

    Raises: InvalidParameter, Refused.
    """
    _require_valid(repair)
    columns = _require_table(repair, live)
    key = repair.key or _key(repair, live, keeper)
    needed = [*key, *repair.values] if repair.action == "update" else [*columns]
    if unknown := [one for one in (*key, *repair.match, *repair.values) if one not in columns]:
        raise InvalidParameter(f"{repair.table} has no column {', '.join(unknown)}. Nothing was changed.")
    if repair.by == "keyset" and not key and not repair.work:
        raise InvalidParameter(f"{repair.table} has no key to walk along. Nothing was changed.")
    stored = {one: columns[one] for one in dict.fromkeys(needed) if not is_generated(columns[one])}
    definition = live["table", repair.table]
    return replace(
        repair,
        key=key,
        columns=stored,
        partitioned=" partition by " in definition,
        match_unique=any(set(unique) <= set(repair.match) for unique in _uniques(repair.table, live)),
        unreferenced=() if repair.action == "update" else tuple(unreferenced(repair.table, live)),
        locks_key=repair.action != "update" or not _unique_columns(repair.table, live).isdisjoint(repair.values),
    )


def _require_valid(repair: Repair) -> None:
    if not _JOB.fullmatch(repair.job):
        raise InvalidParameter(f"{repair.job!r} is no name of a job: [a-z0-9_], at most 40. Nothing was changed.")
    if (repair.action == "delete") == bool(repair.values):
        raise InvalidParameter(f"A {repair.action} of {repair.table} with values {dict(repair.values)} means nothing. Nothing was changed.")  # fmt: skip
    if (repair.action == "insert" or repair.match) and not repair.work:
        raise InvalidParameter(f"The {repair.action} of {repair.table} needs a worklist. Nothing was changed.")
    if repair.work and not repair.match and repair.action != "insert":
        raise InvalidParameter(f"The worklist for {repair.table} is matched by no column. Nothing was changed.")
    if repair.workers < 1 or repair.batch_ms < 1:
        raise InvalidParameter("A repair needs at least one worker and one millisecond a batch. Nothing was changed.")


def _require_table(repair: Repair, live: Facets) -> dict[str, str]:
    """The table's columns.  Raises: Refused for what is not a table whose rows are here, or a column that takes no value."""
    if ("table", repair.table) not in live:
        kind = next((kind for kind in ("view", "matview", "foreign_table") if (kind, repair.table) in live), "")
        what = f"is a {kind.replace('_', ' ')}" if kind else "is not among the tables of this database"
        raise Refused(f"{repair.table} {what}: its rows cannot be repaired in batches. Nothing was changed.")
    if foreign := [leaf for leaf in leaves(repair.table, live) if ("foreign_table", leaf) in live]:
        raise Refused(f"{foreign[0]} is a foreign table, so the rows of {repair.table} cannot be repaired in batches. Nothing was changed.")  # fmt: skip
    columns = kept.columns_of(repair.table, live)
    fixed = [one for one in repair.values if is_generated(columns.get(one, ""))]
    if repair.action == "update":
        fixed += [one for one in repair.values if " generated always as identity" in columns.get(one, "")]
        if parts := _partition_key(live["table", repair.table]) & set(repair.values):
            raise Refused(f"{repair.table} is partitioned by {', '.join(sorted(parts))}: changing it would move rows between partitions. Nothing was changed.")  # fmt: skip
    if fixed:
        raise Refused(f"{repair.table}.{fixed[0]} is generated always and takes no value. Nothing was changed.")
    return columns


def is_generated(definition: str) -> bool:
    """Whether a column is computed from others; then it is neither written nor kept."""
    return " generated always as (" in definition


def leaves(table: str, live: Facets) -> Iterator[str]:
    """A table, or the partitions that hold its rows."""
    children = [
        child
        for (kind, child), text in live.items()
        if kind == "partition" and re.split(r" (?=FOR VALUES|DEFAULT)", text)[0] == table
    ]
    if not children:
        yield table
    for child in children:
        yield from leaves(child, live)


def _partition_key(definition: str) -> frozenset[str]:
    return names.words(definition.partition(" partition by ")[2])


def _key(repair: Repair, live: Facets, keeper: Keeper) -> tuple[str, ...]:
    """What tells rows apart and is not itself changed: the primary key, else what is unique and never null; () where there is none."""
    primary = {**keeper.primary_keys, **kept.primary_keys(live)}.get(repair.table, ())
    found = [primary] if primary else []
    found += [
        columns
        for columns in _uniques(repair.table, live)
        if all("not valid" not in live.get(("not_null", f"{repair.table}.{one}"), "not valid") for one in columns)
    ]
    free = [key for key in found if repair.action != "update" or repair.values.keys().isdisjoint(key)]
    return tuple(free[0]) if free else ()


_UNIQUE_INDEX = re.compile(r"CREATE UNIQUE INDEX .* ON (?:ONLY )?(?P<table>.*?) USING btree (?P<rest>\(.*)", re.DOTALL)


def _uniques(table: str, live: Facets) -> Iterator[tuple[str, ...]]:
    """The columns of each valid, whole unique constraint or index."""
    for (kind, identity), definition in sorted(live.items()):
        text = ""
        if (
            kind == "constraint"
            and names.parent(identity) == table
            and definition.startswith(("PRIMARY KEY", "UNIQUE"))
        ):
            text = definition
        elif kind == "index" and (found := _UNIQUE_INDEX.fullmatch(definition)) and found["table"] == table:
            text = found["rest"]
        group = next((piece for piece in names.pieces(text) if piece.startswith("(")), "")
        if not group or re.search(r" WHERE | INVALID", text):
            continue
        items = names.items(group)
        if any("(" in item or " COLLATE " in item for item in items):
            continue  # equal by an expression, or by other rules than the column's own
        columns = tuple(names.spaced(item)[0] for item in items)
        if all(("column", f"{table}.{one}") in live or one in kept.columns_of(table, live) for one in columns):
            yield columns


def _unique_columns(table: str, live: Facets) -> frozenset[str]:
    """Columns whose change needs the stronger row lock: a foreign key may refer to them (PostgreSQL docs 13.3.2)."""
    return frozenset(one for columns in _uniques(table, live) for one in columns)


def unreferenced(table: str, live: Facets) -> Iterator[str]:
    """Conditions over ``t``: no foreign key takes other rows along, or changes them, when ``t`` is deleted."""
    yield from (
        f"not {one.exists()}" for one in references(table, live) if one.on_delete not in ("NO ACTION", "RESTRICT")
    )
