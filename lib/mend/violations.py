"""Which rows stand in the way of a constraint that a migration wants?  From the constraint's own definition.  Pure.

The definitions come from pg_get_indexdef and pg_get_constraintdef of a replayed migration, so equality is the index's own:
its expressions, collations and predicate.  Exclusion constraints and temporal keys (WITHOUT OVERLAPS) are not asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mend import ddl, names
from mend.catalog import Change, index_state

LIMIT = 20  # groups shown; one is enough to know that the constraint cannot hold


@dataclass(frozen=True)
class Obstacle:
    """A question whose answer must be empty before ``identity`` can be made, and the runbook that mends it otherwise."""

    identity: str
    says: str
    sql: str
    slug: str


Facets = Mapping[tuple[str, str], str]


def obstacle(change: Change, live: Facets | None = None) -> Obstacle | None:
    """The question for one wanted change, or None where rows cannot stand in its way.

    ``live``: the catalog as it is, which tells partitioned tables from others; rows of a table that merely inherits are no
    business of a key.  Without it they are asked about too.
    """
    if change.after is None or change.after.lower().endswith((" not valid", " not enforced")):
        return None
    make = {"index": _unique_index, "constraint": _constraint, "not_null": _not_null}.get(change.kind)
    return make(change.identity, change.after, live) if make else None


def _unique_index(identity: str, definition: str, _live: Facets | None) -> Obstacle | None:
    definition = index_state(definition)[0]
    parts = names.pieces(definition)
    if parts[:2] != ["CREATE", "UNIQUE"]:
        return None
    where = _after(definition, "WHERE") if "WHERE" in parts else ""
    head = parts[: parts.index("WHERE")] if where else parts
    partitioned = parts[parts.index("ON") + 1] == "ONLY"  # pg_get_indexdef says so of partitioned tables
    table = ddl.index_table(definition)
    return _duplicates(
        identity,
        table if partitioned else f"only {table}",
        _keys(head[head.index("USING") + 2]),
        where=where,
        nulls_equal="DISTINCT" in head,
    )


def _constraint(identity: str, definition: str, live: Facets | None) -> Obstacle | None:
    table, parts = names.parent(identity), names.pieces(definition)
    groups = [part for part in parts if part.startswith("(")]
    if parts[0] == "CHECK":
        return _check(identity, table, groups[0], parts)
    if parts[0] == "FOREIGN":
        return _orphans(identity, table, definition, live)
    if parts[0] in ("UNIQUE", "PRIMARY") and not _is_temporal(groups[0]):
        return _duplicates(
            identity,
            _source(table, live),
            _keys(groups[0]),
            nulls_equal="DISTINCT" in parts,
            nulls_refused=parts[0] == "PRIMARY",
        )
    return None


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


def _source(table: str, live: Facets | None) -> str:
    """What a key of this table is about: a partitioned table's partitions too, but no table that inherits from it."""
    whole = live is None or " partition by " in live.get(("table", table), " partition by ")
    return table if whole else f"only {table}"


def _duplicates(
    identity: str,
    source: str,
    keys: Sequence[str],
    *,
    where: str = "",
    nulls_equal: bool = False,
    nulls_refused: bool = False,
) -> Obstacle:
    columns = ", ".join(f"{key} as key_{n + 1}" for n, key in enumerate(keys))
    condition = [f"({where})"] if where else []
    if not nulls_equal and not nulls_refused:
        condition += [f"({key}) is not null" for key in keys]
    filtered = f" where {' and '.join(condition)}" if condition else ""
    group = ", ".join(str(n + 1) for n in range(len(keys)))
    having = "count(*) > 1" + "".join(f" or {key} is null" for key in keys if nulls_refused)
    sql = f"select {columns}, count(*) as rows from {source}{filtered} group by {group} having {having} order by count(*) desc limit {LIMIT}"
    says = "values that more than one row has" + (", or that are null" if nulls_refused else "")
    return Obstacle(identity, says, sql, "unique_violation")


def _orphans(identity: str, table: str, definition: str, live: Facets | None) -> Obstacle | None:
    parts = names.pieces(definition)
    columns, keys = [part for part in parts if part.startswith("(")][:2]
    if _is_temporal(columns):
        return None
    at = parts.index("REFERENCES") + 1
    parent = "".join(parts[at : parts.index(keys, at)])
    pairs = list(zip(_keys(columns), _keys(keys), strict=True))
    same = " and ".join(f"p.{key} = c.{column}" for column, key in pairs)
    found = f"exists (select from {_source(parent, live)} as p where {same})"
    present = " and ".join(f"c.{column} is not null" for column, _ in pairs)
    where = f"{present} and not {found}"
    some = " or ".join(f"c.{column} is not null" for column, _ in pairs)
    if "FULL" in parts:  # MATCH FULL: a key is null as a whole, or not at all
        where = f"({some}) and not ({present} and {found})"
    sql = f"select c.* from {_source(table, live)} as c where {where} limit {LIMIT}"
    return Obstacle(identity, "rows whose parent is missing", sql, "foreign_key_violation")


# -- reading definitions -----------------------------------------------------------------------------------------------


def _after(definition: str, word: str) -> str:
    """What follows a word of a definition that stands outside parentheses."""
    parts = names.spaced(definition)
    return "".join(parts[parts.index(word) + 1 :]).strip()


def _keys(group: str) -> list[str]:
    """The columns or expressions of a key, with their collations, without operator classes and sort options.

    >>> _keys('(lower((a)::text), b DESC NULLS LAST, "c,d" COLLATE "C" text_pattern_ops, (e + 1))')
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
