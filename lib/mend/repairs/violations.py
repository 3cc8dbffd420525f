"""Which rows stand in the way of a constraint that a migration wants?  From the constraint's own definition.  Pure.

The definitions come from pg_get_indexdef and pg_get_constraintdef of a replayed migration, so equality is the index's own:
its expressions, collations and predicate.  Exclusion constraints and temporal keys (WITHOUT OVERLAPS) are not asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mend.change import ddl
from mend.database import names
from mend.database.catalog import Change, index_state
from mend.repairs import foreign_keys

LIMIT = 20  # groups shown; one is enough to know that the constraint cannot hold


@dataclass(frozen=True)
class Obstacle:
    """A question whose answer must be empty before ``identity`` can be made, and the runbook that mends it otherwise."""

    identity: str
    says: str
    sql: str
    slug: str


@dataclass(frozen=True)
class Uniqueness:
    """What a unique index or constraint demands of the rows of ``source``, in the words of its own definition.

    ``keys``: columns or expressions, with their collations.  ``where``: the predicate of a partial index, else ''.
    ``nulls_equal``: NULLS NOT DISTINCT.  ``nulls_refused``: a primary key.
    """

    identity: str
    table: str
    source: str
    keys: tuple[str, ...]
    where: str = ""
    nulls_equal: bool = False
    nulls_refused: bool = False

    def rows(self) -> str:
        """The condition under which a row can break it, in bare column names; '' if every row can."""
        condition = [f"({self.where})"] if self.where else []
        if not self.nulls_equal and not self.nulls_refused:
            condition += [f"({key}) is not null" for key in self.keys]
        return " and ".join(condition)


Facets = Mapping[tuple[str, str], str]


def uniqueness(change: Change, live: Facets | None = None) -> Uniqueness | None:
    """What a wanted change, or one that stands, demands as a unique key; None where it is none.

    Temporal keys (WITHOUT OVERLAPS) are left out: their equality is not that of a unique index.
    """
    if change.after is None:
        return None
    if change.kind == "index":
        return _of_index(change.identity, change.after)
    parts = names.pieces(change.after) if change.kind == "constraint" else []
    if parts[:1] not in (["UNIQUE"], ["PRIMARY"]):
        return None
    group = next(part for part in parts if part.startswith("("))
    if _is_temporal(group):
        return None
    table = names.parent(change.identity)
    return Uniqueness(
        change.identity,
        table,
        foreign_keys.rows_of(table, live),
        tuple(key_items(group)),
        nulls_equal="DISTINCT" in parts,
        nulls_refused=parts[0] == "PRIMARY",
    )


def obstacle(change: Change, live: Facets | None = None) -> Obstacle | None:
    """The question for one wanted change, or None where rows cannot stand in its way.

    ``live``: the catalog as it is, which tells partitioned tables from others; rows of a table that merely inherits are no
    business of a key.  Without it they are asked about too.
    """
    if change.after is None or change.after.lower().endswith((" not valid", " not enforced")):
        return None
    make = {"index": _unique_index, "constraint": _constraint, "not_null": _not_null}.get(change.kind)
    return make(change.identity, change.after, live) if make else None


def _unique_index(identity: str, definition: str, live: Facets | None) -> Obstacle | None:
    wanted = uniqueness(Change("index", identity, None, definition), live)
    return _duplicates(wanted) if wanted else None


def _of_index(identity: str, definition: str) -> Uniqueness | None:
    definition = index_state(definition)[0]
    parts = names.pieces(definition)
    if parts[:2] != ["CREATE", "UNIQUE"]:
        return None
    where = _after(definition, "WHERE") if "WHERE" in parts else ""
    head = parts[: parts.index("WHERE")] if where else parts
    partitioned = parts[parts.index("ON") + 1] == "ONLY"  # pg_get_indexdef says so of partitioned tables
    table = ddl.index_table(definition)
    return Uniqueness(
        identity,
        table,
        table if partitioned else f"only {table}",
        tuple(key_items(head[head.index("USING") + 2])),
        where=where,
        nulls_equal="DISTINCT" in head,
    )


def _constraint(identity: str, definition: str, live: Facets | None) -> Obstacle | None:
    table, parts = names.parent(identity), names.pieces(definition)
    groups = [part for part in parts if part.startswith("(")]
    if parts[0] == "CHECK":
        return _check(identity, table, groups[0], parts)
    if parts[0] == "FOREIGN":
        return _orphans(identity, definition, live)
    wanted = uniqueness(Change("constraint", identity, None, definition), live)
    return _duplicates(wanted) if wanted else None


def _check(identity: str, table: str, condition: str, parts: Sequence[str]) -> Obstacle:
    source = f"only {table}" if "INHERIT" in parts else table
    return Obstacle(
        identity,
        "rows that break the check",
        f"select * from {source} where not {condition} limit {LIMIT}",
        "not_null_violation",
    )


def _not_null(identity: str, _definition: str, _live: Facets | None) -> Obstacle:
    table, column = names.parent(identity), names.last(identity)
    return Obstacle(
        identity,
        f"rows where {column} is null",
        f"select * from {table} where {column} is null limit {LIMIT}",
        "not_null_violation",
    )


def _duplicates(wanted: Uniqueness) -> Obstacle:
    keys = wanted.keys
    columns = ", ".join(f"{key} as key_{n + 1}" for n, key in enumerate(keys))
    filtered = f" where {wanted.rows()}" if wanted.rows() else ""
    group = ", ".join(str(n + 1) for n in range(len(keys)))
    having = "count(*) > 1" + "".join(f" or {key} is null" for key in keys if wanted.nulls_refused)
    sql = f"select {columns}, count(*) as rows from {wanted.source}{filtered} group by {group} having {having} order by count(*) desc limit {LIMIT}"
    says = "values that more than one row has" + (", or that are null" if wanted.nulls_refused else "")
    return Obstacle(wanted.identity, says, sql, "unique_violation")


def _orphans(identity: str, definition: str, live: Facets | None) -> Obstacle | None:
    key = foreign_keys.read(identity, definition)
    if key is None:
        return None
    where = foreign_keys.orphan(key, live, alias="c")
    sql = f"select c.* from {foreign_keys.rows_of(key.table, live)} as c where {where} limit {LIMIT}"
    return Obstacle(identity, "rows whose parent is missing", sql, "foreign_key_violation")


# -- reading definitions -----------------------------------------------------------------------------------------------


def _after(definition: str, word: str) -> str:
    """What follows a word of a definition that stands outside parentheses."""
    parts = names.spaced(definition)
    return "".join(parts[parts.index(word) + 1 :]).strip()


def key_items(group: str) -> list[str]:
    """The columns or expressions of a key, with their collations, without operator classes and sort options.

    >>> key_items('(lower((a)::text), b DESC NULLS LAST, "c,d" COLLATE "C" text_pattern_ops, (e + 1))')
    ['lower((a)::text)', 'b', '"c,d" COLLATE "C"', '(e + 1)']
    """
    return [_key(item) for item in names.items(group)]


def _key(item: str) -> str:
    """A column, ``f(...)`` or ``(...)``, whatever comes before the first space; then perhaps COLLATE and a name."""
    parts = [*names.spaced(item), " "]
    end = next(n for n, part in enumerate(parts) if part.isspace())
    if parts[end + 1 : end + 2] == ["COLLATE"]:
        end = next(n for n, part in enumerate(parts) if part.isspace() and n > end + 2)
    return "".join(parts[:end])


def _is_temporal(group: str) -> bool:
    """Whether a key has a period: ``valid WITHOUT OVERLAPS``, ``PERIOD valid``."""
    return any(len(names.pieces(item)) > 1 for item in names.items(group))
