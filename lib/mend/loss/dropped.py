"""Dropped columns whose values are on disk still: what the catalog has kept of each, and which rows can be read.  Reads only.

DROP COLUMN changes no row.  It marks the column in pg_attribute and forgets its type; what is needed to step over its values stays:
length, alignment, storage, collation, modifier.  A row's value is there until that row is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection

from mend.change.act import literal
from mend.database import queries
from mend.loss import layouts
from mend.loss.layouts import Layout
from mend.values import counting

COUNT_MS = 8_000


@dataclass(frozen=True)
class Dropped:
    """One dropped column of one relation that has rows of its own; names are qualified and quoted.

    root : the partitioned table at the top, or the relation itself
    length : bytes; -1 where it varies.  align : ``c``, ``s``, ``i`` or ``d``.  storage : ``p``, ``e``, ``m`` or ``x``
    modifier : of the type, e.g. 24 of ``varchar(20)``; -1 for none.  dimensions : of an array as it was declared
    dropped_xid, dropped_age : the transaction that dropped it, and how many have come since
    rewritten : the table as a whole may have been written anew since; False: the catalog proves that it was not
    columns : quoted names by number, None for those that were dropped
    """

    relation: str
    root: str
    kind: str
    attnum: int
    length: int
    align: str
    by_value: bool
    storage: str
    collated: bool
    modifier: int
    dimensions: int
    dropped_xid: str
    dropped_age: int
    rewritten: bool
    rows_estimate: float
    size_bytes: int
    columns: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """What the column is called since; it holds dots, so it is quoted."""
        return f'"........pg.dropped.{self.attnum}........"'

    @property
    def shape(self) -> tuple[object, ...]:
        """What its type must fit, all of it."""
        return (self.length, self.align, self.by_value, self.collated, self.modifier, self.dimensions)

    @property
    def carried_over(self) -> bool:
        """Whether pg_upgrade made this mark: it keeps length, alignment and passing, and gives the rest of an integer."""
        return self.length == -1 and self.storage == "p"

    def evidence(self) -> dict[str, Any]:
        """What a plan's digest covers: what does not move by itself."""
        moving = ("dropped_age", "rows_estimate", "size_bytes", "columns", "rewritten")
        return {key: value for key, value in asdict(self).items() if key not in moving}


@dataclass(frozen=True)
class Type:
    """A type as the catalog has it; ``kind`` as pg_type.typtype; ``youngest_age``: of its newest part, in transactions.

    ``layout``: how its values lie on disk; None for a type that mend does not know so closely.
    """

    oid: str
    printed: str
    kind: str
    length: int
    align: str
    by_value: bool
    storage: str
    collated: bool
    array: bool
    own: bool
    youngest_age: int
    layout: Layout | None


@dataclass(frozen=True)
class Rows:
    """How many rows of one relation are as old as the column: their values are on disk, unless the table was written anew.

    ``written``: rows that came or were updated since; of those nothing is left.  None: the count did not end (``why``).
    """

    relation: str
    attnum: int
    older: int | None
    written: int | None
    why: str = ""


def columns(conn: Connection, table: str = "") -> tuple[Dropped, ...]:
    """The dropped columns of a table and its partitions, or of all tables."""
    frame = queries.frame(conn, "data_loss/dropped", table_name=table)
    found = []
    for row in frame.to_dict("records"):
        values = {str(key): value.item() if hasattr(value, "item") else value for key, value in row.items()}
        found.append(Dropped(**values | {"columns": tuple(values["columns"])}))
    return tuple(found)


def type_of(conn: Connection, name: str, modifier: int) -> Type | None:
    """The type of that name, or None; the last question of its transaction.  ``name`` may carry a modifier, which counts for nothing here."""
    rows = queries.frame(conn, "data_loss/column_type", type_name=name, modifier=modifier).to_dict("records")
    if not rows:
        return None
    row = rows[0]
    layout = layouts.of(conn, str(row["type"]))
    # As the catalog snapshot prints it: the user's own types with their schemas.
    conn.exec_driver_sql("set local search_path = pg_catalog, pg_temp")
    printed = conn.exec_driver_sql("select format_type(cast(%s as oid), %s)", (str(row["type"]), modifier)).scalar_one()
    return Type(
        oid=str(row["type"]),
        printed=str(printed),
        kind=str(row["kind"]),
        length=int(row["length"]),
        align=str(row["align"]),
        by_value=bool(row["by_value"]),
        storage=str(row["storage"]),
        collated=bool(row["collated"]),
        array=bool(row["array"]),
        own=bool(row["own"]),
        youngest_age=int(row["youngest_age"]),
        layout=layout,
    )


def rows(conn: Connection, column: Dropped, *, timeout_ms: int = COUNT_MS) -> Rows:
    """Count them by the transaction that wrote each: one scan.  Never raises for a timeout."""
    answer = counting.ask(conn, _counting(column), timeout_ms=timeout_ms)
    if answer.why:
        return Rows(column.relation, column.attnum, None, None, f"the count {answer.why}")
    ((older, every),) = answer.rows
    return Rows(column.relation, column.attnum, int(older), int(every) - int(older))


def _counting(column: Dropped) -> str:
    """A row is older if an older transaction wrote it, or the one that dropped the column did so by an earlier command."""
    older = "age(t.xmin) > d.age or (t.xmin = d.xid and cast(cast(t.cmin as text) as int8) < cast(cast(d.cid as text) as int8))"
    dropping = (
        "select age(a.xmin) as age, a.xmin as xid, a.cmin as cid from pg_catalog.pg_attribute as a "
        f"where a.attrelid = cast({literal(column.relation)} as regclass) and a.attnum = {column.attnum}"
    )
    return f"select count(*) filter (where {older}), count(*) from only {column.relation} as t cross join ({dropping}) as d"


def objection(column: Dropped, wanted: Type | None, *, named: str, certain: bool) -> str:
    """Why a column must not be read as a type, or ''.

    A wrong type makes the server take bytes for lengths and addresses: it answers garbage, or dies and takes every session along.
    So any type must fit in every respect, and be one whose values can be judged before the server reads them (`layouts`): even where
    the history is ``certain``, somebody may have changed the type by hand.
    """
    if wanted is None:
        return f"type {named} is not in this database any more: its values are numbers whose meaning went with it"
    if wanted.kind == "p":
        return f"{named} is no type of a column"
    if misfit := _misfit(column, wanted, named, certain=certain):
        return f"{named} does not fit what was dropped: {misfit}"
    if wanted.youngest_age <= column.dropped_age and wanted.own:
        return (
            f"type {named} was made or changed after the column was dropped, so its values may mean something else now"
        )
    if wanted.layout is None:
        return f"mend cannot tell whether bytes are a {named}, and reading other bytes as {named} can crash the server; read it as bytea: column_type"
    return ""


def _misfit(column: Dropped, wanted: Type, named: str, *, certain: bool) -> str:
    pairs: list[tuple[str, object, object]] = [
        ("length", column.length, wanted.length),
        ("passed by value", column.by_value, wanted.by_value),
    ]
    if wanted.printed != "bytea":  # any value of varying length can be read as bytes
        pairs.append(("alignment", column.align, wanted.align))
        if not column.carried_over:
            pairs.append(("collation", column.collated, wanted.collated))
            pairs.append(("array", column.dimensions > 0, wanted.array and column.dimensions > 0))
            if certain or "(" in named:
                pairs.append(("modifier", _modifier(wanted.printed), _modifier(named)))
    return ", ".join(f"{what} was {_word(had)}, and would be {_word(has)}" for what, had, has in pairs if had != has)


def _word(value: object) -> str:
    return (
        {True: "yes", False: "no", "": "none"}.get(value, str(value)) if isinstance(value, bool | str) else str(value)
    )


def _modifier(printed: str) -> str:
    """What stands in the parentheses of a type.

    >>> _modifier("numeric(10, 2)"), _modifier("text")
    ('10,2', '')
    """
    found = re.search(r"\(([^()]*)\)", printed)
    return found[1].replace(" ", "") if found else ""


def by_root(found: Sequence[Dropped]) -> Mapping[str, list[Dropped]]:
    """The columns of each table, partitions with their root."""
    tables: dict[str, list[Dropped]] = {}
    for one in found:
        tables.setdefault(one.root, []).append(one)
    return tables
