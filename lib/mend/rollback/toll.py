"""What a way down costs here: content that goes, rows that refuse what comes back, sizes.  Reads only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mend.change import ddl, kept, weights
from mend.change.kept import Facets
from mend.database import names, parameters, queries
from mend.database.catalog import Change
from mend.diagnosis import Site
from mend.errors import MendError
from mend.repairs import halfway, steps, violations
from mend.rollback.dependents import Key
from mend.rollback.hanging import Hanging
from mend.rollback.pieces import Piece
from mend.values import counting
from mend.values.counting import Count

_MOST_ASKED = 20  # wanted constraints whose rows are looked at


_MOST_COUNTED = 40  # lost tables and columns whose content is counted


_BOUNDS = {"smallint": (-(2**15), 2**15 - 1), "integer": (-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class Loss:
    """Content that goes with a table or column, or that a statement changes: how much of it there is."""

    revision: str
    identity: str
    says: str
    rows: Count | None
    kept: bool


def losses(site: Site, pieces: Sequence[Piece], live: Facets) -> tuple[Loss, ...]:
    """The tables and columns that go, with how much is in them, and the statements that change rows."""
    keys = steps.primary_keys(live)
    found: list[Loss] = []
    with site.target.reading(site.run_id) as conn:
        for piece in pieces:
            for identity in ddl.losses([c.reversed() for c in piece.changes]):
                kind = next(
                    c.kind
                    for c in piece.changes
                    if c.identity == identity and c.kind in ("table", "column", "foreign_table")
                )
                change = next(c for c in piece.changes if (c.kind, c.identity) == (kind, identity))
                if change.before and change.after and _narrower(change):
                    continue  # ALTER TYPE fails on a value that does not fit: nothing is cut
                if (kind, identity) not in live or len(found) >= _MOST_COUNTED:
                    continue
                found.append(_loss(conn, piece.revision, kind, identity, keys))
            if piece.statement is not None and piece.statement.data:
                found.append(
                    Loss(
                        piece.revision,
                        weights.table_changed(piece.statement.sql),
                        f"changes rows: {piece.statement.says}",
                        None,
                        False,
                    )
                )
    return tuple(found)


def _loss(conn: Any, revision: str, kind: str, identity: str, keys: Mapping[str, tuple[str, ...]]) -> Loss:
    if kind != "column":
        return Loss(revision, identity, "rows of a table", counting.of_table(conn, identity), kind == "table")
    table, name = names.parent(identity), names.last(identity)
    some = counting.of_table(conn, table, f"t.{name} is not null")
    return Loss(revision, identity, "values of a column", some, table in keys and name not in keys[table])


def obstacles(site: Site, pieces: Sequence[Piece], live: Facets) -> dict[str, tuple[str, str]]:
    """By what is to come: the revision, and which rows refuse it."""
    come = {(c.kind, c.identity): (p.revision, c) for p in pieces for c in p.changes if c.after is not None}
    wanted = [
        (revision, c)
        for revision, c in come.values()
        if c.kind in ("constraint", "index", "not_null") or (c.kind == "column" and c.before)
    ]
    found: dict[str, tuple[str, str]] = {}
    for revision, change in wanted[:_MOST_ASKED]:
        table = halfway.relation_of(change)
        if ("table", table) not in live:
            continue
        if asked := _question(change, live, come):
            sql, says = asked
            try:
                with site.target.reading(site.run_id) as conn:
                    rows = conn.exec_driver_sql(sql.replace("%", "%%")).fetchall()
                if rows:
                    found[f"{change.kind} {change.identity}"] = (revision, says)
            except MendError as error:
                found[f"{change.kind} {change.identity}"] = (revision, f"whether rows stand in its way is not known: {error.message.split('. ')[0]}")  # fmt: skip
    return found


def _question(change: Change, live: Facets, come: Mapping[Key, tuple[str, Change]]) -> tuple[str, str] | None:
    """The question whose answer must be empty, and what it means otherwise; None where no row can refuse."""
    if change.kind == "column":
        return _narrower(change)
    if change.kind == "not_null" and ("column", change.identity) not in live:
        if ("default", change.identity) in come or ("column", change.identity) not in come:
            return None
        column = come["column", change.identity][1]
        if " generated " in str(column.after):
            return None
        table = names.parent(change.identity)
        says = f"23502: {change.identity} comes back NOT NULL without a default, and {table} has rows"
        return f"select 1 from {table} limit 1", says
    present = {identity for kind, identity in live if kind == "column"}
    made = {names.last(i) for kind, i in come if kind == "column" and ("column", i) not in live}
    if made & names.words(change.after or "") or (change.kind == "not_null" and change.identity not in present):
        return None
    asked = violations.obstacle(change, live)
    return (asked.sql, f"{asked.says}: mend that first ({parameters.pointer(asked.slug)})") if asked else None


def _narrower(change: Change) -> tuple[str, str] | None:
    """Which values do not fit the type that a column gets back: longer texts (22001), larger integers (22003)."""
    table, name = names.parent(change.identity), names.last(change.identity)
    old, new = kept.type_of(change.before or ""), kept.type_of(change.after or "")
    length = re.fullmatch(r"character(?: varying)?\((\d+)\)", new)
    if length and old.startswith(("character", "text")):
        says = f"22001: values of {change.identity} are longer than {length[1]} characters"
        return f"select 1 from {table} where length(cast({name} as text)) > {length[1]} limit 1", says
    if new in _BOUNDS and old in ("integer", "bigint"):
        low, high = _BOUNDS[new]
        says = f"22003: values of {change.identity} are out of the range of {new}"
        return f"select 1 from {table} where {name} not between {low} and {high} limit 1", says
    return None


@dataclass(frozen=True)
class Mark:
    """What the catalog's facets do not tell of an object, with the SQL that gives it back; '' where nothing does."""

    kind: str
    identity: str
    sql: str
    says: str


def marks(site: Site, pieces: Sequence[Piece], hanging: Sequence[Hanging]) -> tuple[Mark, ...]:
    """Of everything that is dropped, made anew or changed."""
    wanted = {halfway.relation_of(c) for p in pieces for c in p.changes}
    wanted |= {one.identity for one in hanging if one.kind in ("view", "matview")}
    wanted |= {names.parent(one.identity) for one in hanging if one.kind in ("rule", "column")}
    relations = sorted(one for one in wanted if one and len(names.split(one)) == 2)
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(conn, "rollback_failure/marks", relations=relations)
    return tuple(Mark(str(r["kind"]), str(r["identity"]), str(r["sql"]), str(r["says"])) for r in frame.to_dict("records"))  # fmt: skip


def told(
    pieces: Sequence[Piece], again: Sequence[Hanging], sizes: Mapping[str, weights.Size], marks: Sequence[Mark]
) -> tuple[str, ...]:
    """What a way down does that its SQL does not say by itself, for the one who approves it."""
    filled = [
        one.identity
        for one in again
        if one.kind == "matview" and ("matview", one.identity) not in {(m.kind, m.identity) for m in marks}
    ]
    found = [
        f"materialized view {one} ({size.rows:,} rows, {size.bytes / 1e6:,.1f} MB) is filled anew from its query while the locks are held, and so it is by undo: "
        "what it holds now is not kept; where it is older than its tables on purpose, copy it first"
        for one in filled
        if (size := sizes.get(one, weights.Size(0, 0)))
    ]
    mine = {one.identity for one in again}
    found += [
        f"{m.identity}: {m.says}; made again, its grants come from its owner"
        for m in marks
        if not m.sql and m.identity in mine
    ]
    found += [
        f"{p.revision}: {p.says}: runs without CONCURRENTLY, for all is one transaction: "
        + (
            "it blocks every query of its table"
            if p.statement.sql.lower().lstrip().startswith("drop")
            else "it blocks writes to its table while it builds, and until the end"
        )
        for p in pieces
        if p.statement and CONCURRENTLY.search(p.statement.sql)
    ]
    return tuple(found)


#: The start of an index statement that does not run in a transaction as it is.
CONCURRENTLY = re.compile(r"(?i)^(\s*(?:create(?:\s+unique)?|drop)\s+index)\s+concurrently\b")


def sizes(site: Site, pieces: Sequence[Piece], hanging: Sequence[Hanging]) -> dict[str, weights.Size]:
    """Of the tables that change, and of the materialized views that are filled anew."""
    wanted = {halfway.relation_of(c) for p in pieces for c in p.changes}
    wanted |= {one.identity for one in hanging if one.kind == "matview"}
    wanted |= {weights.table_changed(p.statement.sql) for p in pieces if p.statement}
    with site.target.reading(site.run_id) as conn:
        found = queries.frame(conn, "target/sizes", relations=sorted(wanted - {""}))
    return {
        str(row["relation"]): weights.Size(int(row["rows_estimate"]), int(row["size_bytes"]))
        for row in found.to_dict("records")
    }


def orders(site: Site, pieces: Sequence[Piece]) -> dict[str, tuple[str, ...]]:
    """The columns of every table that goes, quoted, in their order."""
    tables = sorted({c.identity for p in pieces for c in p.changes if c.kind == "table" and c.after is None})
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(conn, "rollback_failure/columns", relations=tables)
    return {str(row["relation"]): tuple(row["columns"]) for row in frame.to_dict("records")}
