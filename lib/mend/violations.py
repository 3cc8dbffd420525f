"""Which rows stand in the way of a constraint that a migration wants?  From the constraint's own definition.

The definitions come from pg_get_indexdef and pg_get_constraintdef of a replayed migration, so equality is the index's own:
its expressions, collation and predicate.
"""

from __future__ import annotations

import re
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


_INDEX = re.compile(r"^CREATE UNIQUE INDEX .*? ON (?:ONLY )?.*? USING \w+ \((?P<keys>.*?)\)(?: INCLUDE \(.*?\))?(?P<distinct> NULLS NOT DISTINCT)?(?: WITH \(.*?\))?(?: WHERE (?P<where>.*))?$", re.DOTALL)
_UNIQUE = re.compile(r"^(?:UNIQUE|PRIMARY KEY)(?P<distinct> NULLS NOT DISTINCT)? \((?P<keys>[^()]*)\)")
_FOREIGN = re.compile(r"^FOREIGN KEY \((?P<columns>[^()]*)\) REFERENCES (?P<table>.+?)\((?P<keys>[^()]*)\)")
_CHECK = re.compile(r"^CHECK (?P<condition>\(.*\))(?: NO INHERIT)?(?: NOT VALID)?$", re.DOTALL)


def obstacle(change: Change) -> Obstacle | None:
    """The question for one wanted change, or None where rows cannot stand in its way."""
    if change.after is None:
        return None
    make = {"index": _unique_index, "constraint": _constraint, "not_null": _not_null}.get(change.kind)
    return make(change.identity, change.after) if make else None


def _unique_index(identity: str, definition: str) -> Obstacle | None:
    definition = index_state(definition)[0]
    found = _INDEX.match(definition)
    if not found:
        return None
    return _duplicates(identity, ddl.index_table(definition), found["keys"], found["where"], bool(found["distinct"]))


def _constraint(identity: str, definition: str) -> Obstacle | None:
    table = names.parent(identity)
    if unique := _UNIQUE.match(definition):
        return _duplicates(identity, table, unique["keys"], None, bool(unique["distinct"]))
    if foreign := _FOREIGN.match(definition):
        return _orphans(identity, table, foreign)
    if check := _CHECK.match(definition):
        sql = f"select * from {table} where not {check['condition']} limit {LIMIT}"
        return Obstacle(identity, "rows that break the check", sql, "not_null_violation")
    return None


def _not_null(identity: str, _definition: str) -> Obstacle:
    table, column = names.parent(identity), names.last(identity)
    return Obstacle(identity, f"rows where {column} is null", f"select * from {table} where {column} is null limit {LIMIT}", "not_null_violation")


def _duplicates(identity: str, table: str, keys: str, where: str | None, nulls_equal: bool) -> Obstacle:
    parts = _split(keys)
    group = ", ".join(str(n + 1) for n in range(len(parts)))
    columns = ", ".join(f"{name} as key_{n + 1}" for n, name in enumerate(parts))
    condition = [f"({where})"] if where else []
    if not nulls_equal:
        condition += [f"({name}) is not null" for name in parts]
    filtered = f" where {' and '.join(condition)}" if condition else ""
    sql = f"select {columns}, count(*) as rows from {table}{filtered} group by {group} having count(*) > 1 order by count(*) desc limit {LIMIT}"
    return Obstacle(identity, "values that more than one row has", sql, "unique_violation")


def _orphans(identity: str, table: str, foreign: re.Match[str]) -> Obstacle:
    columns, keys = _split(foreign["columns"]), _split(foreign["keys"])
    pairs = " and ".join(f"p.{key} = c.{column}" for column, key in zip(columns, keys, strict=True))
    present = " and ".join(f"c.{column} is not null" for column in columns)
    sql = f"select c.* from {table} as c where {present} and not exists (select from {foreign['table']} as p where {pairs}) limit {LIMIT}"
    return Obstacle(identity, "rows whose parent is missing", sql, "foreign_key_violation")


def _split(keys: str) -> list[str]:
    """The parts of a key list, without sort options and operator classes; commas inside parentheses or quotes do not part.

    >>> _split('lower((a)::text), b DESC, "c,d"')
    ['lower((a)::text)', 'b', '"c,d"']
    """
    names, depth, quoted, part = [], 0, False, ""
    for letter in keys + ",":
        quoted ^= letter == '"'
        depth += (letter == "(") - (letter == ")") if not quoted else 0
        if letter == "," and depth == 0 and not quoted:
            names.append(re.sub(r"(?: (?:ASC|DESC))?(?: NULLS (?:FIRST|LAST))?$", "", part.strip()))
            part = ""
        else:
            part += letter
    return [re.sub(r"^((?:\"[^\"]*\"|[\w$]+)|.*\)) \w+_ops$", r"\1", name) for name in names if name]
