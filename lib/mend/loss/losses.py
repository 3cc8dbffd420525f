"""What the statements of a migration destroy: columns, tables, rows, values that are cut.  Pure.

Read from what each statement did to the catalog in a scratch database, not from what its file calls itself: a ``DROP TYPE .. CASCADE``
that takes a column along is a column lost, a rename is nothing lost.  A change of rows leaves no trace there and is read from its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mend.change import ddl, kept
from mend.database import names, sqltext
from mend.database.catalog import Change
from mend.replays.recording import Statement
from mend.slow import dml

Action = Literal[
    "drop table", "drop column", "change type", "drop enum value", "truncate", "delete", "update", "run code"
]
_TRUNCATE = re.compile(
    rf"^truncate (?:table )?(?:only )?(?P<tables>{sqltext.NAME}(?: \*)?(?: , (?:only )?{sqltext.NAME}(?: \*)?)*)"
)
_LIMIT = re.compile(r"^(?:character varying|character|varchar|char)\((\d+)\)")


@dataclass(frozen=True)
class Loss:
    """One thing that one statement of a revision destroys.

    ``table``: qualified and quoted; as it is written for a change of rows.  ``column``: quoted, '' where whole rows go.  ``where``: the
    rows that are meant, over ``t``; '' for all.  ``lost``: a condition over ``t`` that says which of their values are not null, or are cut.
    ``unsure``: why it is not known what is lost.
    """

    revision: str
    operation: int
    action: Action
    says: str
    table: str = ""
    column: str = ""
    where: str = ""
    lost: str = ""
    detail: str = ""
    unsure: str = ""

    @property
    def identity(self) -> str:
        """``public.t.c`` or ``public.t``."""
        return f"{self.table}.{self.column}" if self.column else self.table


def of(statements: Iterable[Statement]) -> list[Loss]:
    """Every loss of these statements, in their order."""
    return [loss for one in statements for loss in (*_of_catalog(one), *of_rows(one))]


def _of_catalog(one: Statement) -> list[Loss]:
    """The columns, tables and types that the statement took away or made narrower."""
    found = []
    backwards = [change.reversed() for change in one.changes]
    by_identity = {c.identity: c for c in one.changes if c.kind in ("table", "column")}
    for identity in ddl.losses(backwards):
        change = by_identity.get(identity)
        if change is None:
            continue  # a foreign table: its rows are on another server
        if change.kind == "table":
            if " partition by " not in str(change.before):  # its rows are in the partitions
                found.append(Loss(one.revision, one.operation, "drop table", one.says, identity))
            continue
        found.append(_of_column(one, change))
    return [*found, *(_enum_value(one, c, label) for c in one.changes if c.kind == "enum" for label in _removed(c))]


def _of_column(one: Statement, change: Change) -> Loss:
    table, column = names.parent(change.identity), names.last(change.identity)
    there = f"t.{column} is not null"
    if change.after is None:
        return Loss(one.revision, one.operation, "drop column", one.says, table, column, lost=there)
    old, new = kept.type_of(change.before or ""), kept.type_of(change.after)
    limit = _LIMIT.match(new)
    longer = f"length(cast(t.{column} as text)) > {limit[1]}" if limit else there
    return Loss(
        one.revision, one.operation, "change type", one.says, table, column, lost=longer, detail=f"{old} becomes {new}"
    )


def _removed(change: Change) -> list[str]:
    """Labels of an enum that a change takes away."""
    if change.before is None or change.after is None:
        return []
    old, new = (re.findall(r"'(?:[^']|'')*'", text) for text in (change.before, change.after))
    return [label for label in old if label not in new]


def _enum_value(one: Statement, change: Change, label: str) -> Loss:
    return Loss(
        one.revision, one.operation, "drop enum value", one.says, detail=f"{label} of {change.identity}",
        unsure="which rows hold it is not looked for",
    )  # fmt: skip


def of_rows(one: Statement) -> list[Loss]:
    """What the statement changes of rows that were there."""
    found: list[Loss] = []
    for text in _parted(one.sql):
        (shape,) = sqltext.statements(text) or [""]
        word = shape.split(" ", 1)[0]
        if word == "truncate":
            found += [Loss(one.revision, one.operation, "truncate", one.says, table) for table in _truncated(shape)]
        elif word in ("update", "delete", "merge", "with") and (change := dml.read(text)) and change.kind != "insert":
            found += _of_change(one, change)
        elif word in ("do", "call", "merge") or (word == "with" and re.search(r"\b(update|delete) ", shape)):
            found.append(
                Loss(one.revision, one.operation, "run code", one.says, unsure=f"what {word.upper()} does to rows cannot be read from it")
            )  # fmt: skip
    return found


def _parted(sql: str) -> list[str]:
    """The statements of a text, as they are written; whole where only one can be told."""
    return [sql] if len(sqltext.statements(sql)) == 1 else sqltext.statements(sql)


def _truncated(shape: str) -> list[str]:
    match = _TRUNCATE.match(shape)
    return [re.sub(r"^only | \*$", "", part.strip()) for part in match["tables"].split(" , ")] if match else [""]


def _of_change(one: Statement, change: dml.Change) -> list[Loss]:
    unsure = change.why_not or ("values of it are parameters" if change.given else "")
    if change.kind == "delete":
        return [Loss(one.revision, one.operation, "delete", one.says, change.table, where=change.where, unsure=unsure)]
    return [
        Loss(one.revision, one.operation, "update", one.says, change.table, column, change.where, f"t.{column} is not null", unsure=unsure)
        for column in change.values
    ]  # fmt: skip


def made(statements: Sequence[Statement]) -> set[str]:
    """Tables and columns that these statements make: what they hold later was never anybody's before."""
    return {c.identity for one in statements for c in one.changes if c.before is None and c.kind in ("table", "column")}


def live_name(written: str, live: set[str]) -> str:
    """The table that a name means, '' where there is none: qualified as the catalog has it, or with public before it."""
    bare = ".".join(names.unquoted(part) for part in names.split(written))
    return next(
        (
            one
            for one in (written, f"public.{written}", *sorted(live))
            if one in live and ".".join(names.unquoted(part) for part in names.split(one)) in (bare, f"public.{bare}")
        ),
        "",
    )
