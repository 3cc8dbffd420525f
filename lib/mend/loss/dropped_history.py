"""Which revision dropped a column, and what it was: read off the replayed history.  Pure.

The history adds columns in an order, and PostgreSQL numbers them in it.  Where between any two columns that are there still as many were
dropped as the history says, each number has its name and type from the history; columns that somebody added by hand stand in nobody's way.
Elsewhere (somebody dropped others by hand, a dump was restored, which leaves the dropped ones out) the operator has to say the number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mend.change import renames
from mend.database import names
from mend.database.catalog import Change
from mend.loss.dropped import Dropped
from mend.replays.expected import Expected
from mend.replays.recording import Statement


@dataclass(frozen=True)
class Column:
    """A column as the history made it; ``definition`` as the catalog prints it.  ``revision``: which dropped it, '' for none.

    ``default``: what it had when it was dropped; rows from before the column hold no value on disk where it came with one.
    ``sql``: the statement that dropped it.  ``rewritten``: the revisions that wrote the table anew after that.
    """

    table: str
    name: str
    definition: str
    default: str = ""
    revision: str = ""
    operation: int = 0
    sql: str = ""

    @property
    def identity(self) -> str:
        return f"{self.table}.{self.name}"


def columns_of(made: Expected, table: str) -> tuple[Column, ...]:
    """The columns that the applied revisions gave a table, by number; those that they dropped too."""
    tables: dict[str, list[Column]] = {}
    for (kind, identity), definition in made.base.items():
        if kind == "column":
            owner = names.parent(identity)
            tables.setdefault(owner, []).append(Column(owner, names.last(identity), definition))
    for step in made.steps:
        if not step.own:
            continue
        for statement in step.statements:
            _follow(tables, statement, step.place.revision, step.place.operation)
    return tuple(replace(one, table=table) for one in tables.get(table, []))


def _follow(tables: dict[str, list[Column]], statement: Statement, revision: str, operation: int) -> None:
    """What a statement made of the columns."""
    if renamed := renames.as_rename(statement.changes):
        _renamed(tables, renamed[0])
        return
    made = [c for c in statement.changes if c.kind == "column" and c.before is None]
    for change in sorted(made, key=lambda c: _position(statement.sql, c)):
        owner = names.parent(change.identity)
        tables.setdefault(owner, []).append(Column(owner, names.last(change.identity), change.after or ""))
    for change in statement.changes:
        if change.kind == "table" and change.after is None:
            tables.pop(change.identity, None)
        elif change.kind == "default":
            _changed(tables, change, default=change.after or "") if change.after else None
        elif change.kind == "column" and change.before is not None and change.after is not None:
            _changed(tables, change, definition=change.after)
    gone = {c.identity for c in statement.changes if c.kind == "table" and c.after is None}
    for change in statement.changes:
        if change.kind == "column" and change.after is None and names.parent(change.identity) not in gone:
            _changed(tables, change, revision=revision, operation=operation, sql=statement.sql)


def _changed(tables: dict[str, list[Column]], change: Change, **what: object) -> None:
    owner, name = names.parent(change.identity), names.last(change.identity)
    columns = tables.get(owner, [])
    for n, column in enumerate(columns):
        if column.name == name and not column.revision:
            columns[n] = replace(column, **what)  # type: ignore[arg-type]


_RENAME = re.compile(r"alter table (?P<table>.+?) rename (?:column (?P<old>.+) )?to (?P<new>.+)", re.DOTALL)


def _renamed(tables: dict[str, list[Column]], sql: str) -> None:
    found = _RENAME.fullmatch(sql)
    if not found or found["table"] not in tables:
        return
    if not found["old"]:
        tables[f"{names.parent(found['table'])}.{found['new']}"] = tables.pop(found["table"])
        return
    columns = tables[found["table"]]
    for n, column in enumerate(columns):
        if column.name == found["old"] and not column.revision:
            columns[n] = replace(column, name=found["new"])


def _position(sql: str, change: Change) -> tuple[int, str]:
    """Where a column stands in the statement that makes it."""
    name = names.last(change.identity)
    word = re.escape(name) if name.startswith('"') else rf'(?<![\w"])"?{re.escape(name)}"?(?![\w"])'
    found = re.search(rf"(?:[(,]|\badd\b|\bcolumn\b|\bexists\b)\s*{word}\s", sql, re.IGNORECASE)
    return (found.start() if found else len(sql), name)


@dataclass(frozen=True)
class Match:
    """Whether a dropped column is one of the history's; ``certain``: its number says so.  ``why``: how that is known, or is not."""

    dropped: Dropped
    column: Column | None
    certain: bool
    why: str


def matches(made: Sequence[Column], found: Sequence[Dropped]) -> tuple[Match, ...]:
    """For each dropped column of one relation: what it was by the history."""
    if not found:
        return ()
    numbers = _numbers(made, found[0].columns)
    how = "its number is that of the column in the history"
    if numbers is None:
        return tuple(Match(one, None, False, _unlike(made)) for one in found)
    return tuple(Match(one, numbers[one.attnum], True, how) for one in found)


def _numbers(made: Sequence[Column], there: Sequence[str | None]) -> dict[int, Column] | None:
    """The history's column for each number that was dropped; None where the two cannot be laid side by side."""
    known = {one.name for one in made if not one.revision}
    own = [(n, name) for n, name in enumerate(there, 1) if name is None or name in known]
    if len(own) != len(made) or any(
        (None if one.revision else one.name) != name for one, (_, name) in zip(made, own, strict=True)
    ):
        return None
    return {n: one for one, (n, name) in zip(made, own, strict=True) if name is None}


def _unlike(made: Sequence[Column]) -> str:
    gone = [f"{one.name} ({one.definition})" for one in made if one.revision]
    if not gone:
        return "no revision that was applied drops a column of this table"
    return (
        f"the table's columns are not numbered as in the history, which drops {', '.join(gone)}: say column and attnum"
    )
