"""Alembic's version rows, changed by compare-and-set: the SQL says which row it expects, and how many.  Pure.

A bare stamp overwrites whatever is there; these statements fail when the row is not the one that was reviewed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import sql as pgsql

from mend.plan import Statement, Step


@dataclass(frozen=True)
class VersionTable:
    """Where a project keeps its version rows, as its env.py configures it, and what is in it now."""

    schema: str
    name: str
    rows: tuple[str, ...]
    exists: bool = True

    def quoted(self) -> str:
        """The table's qualified, quoted name."""
        return pgsql.Identifier(self.schema, self.name).as_string(None)


@dataclass(frozen=True)
class Move:
    """Statements that advance the version rows, and those that take that back."""

    forward: tuple[Statement, ...]
    back: tuple[Statement, ...]


def advance(table: VersionTable, revision: str, parents: Sequence[str]) -> Move:
    """Record ``revision`` as applied: the rows that Alembic's own upgrade to it would leave.

    The first parent that is among the rows becomes ``revision``, further ones (a merge) go; with no parent among them (a
    root, or the second branch of a branch point) a row is added.  ``parents``: down revisions and dependencies (depends_on), which
    Alembic's rows do not tell apart.
    """
    present = [parent for parent in parents if parent in table.rows]
    forward: tuple[Statement, ...] = _create(table)
    back: tuple[Statement, ...]
    if present:
        forward += (_change(table, present[0], revision), *(_remove(table, parent) for parent in present[1:]))
        back = (*(_add(table, parent) for parent in present[1:]), _change(table, revision, present[0]))
    else:
        forward += (_add(table, revision),)
        back = (_remove(table, revision),)
    return Move(forward, back + _drop(table))


def recorded(made: tuple[Step, ...], move: Move, revision: str) -> tuple[Step, ...]:
    """The steps, the last of which also records the revision: in the same transaction where there is one."""
    last = made[-1] if made else None
    says = f"Take revision {revision} out of the version table"
    if last is not None and last.kind == "sql" and last.transactional:
        plain = (Step(says=says, statements=()),)  # the statements changed nothing else
        first, *others = last.undo or plain
        undo = () if last.irreversible else (replace(first, statements=(*move.back, *first.statements)), *others)
        joined = replace(
            last,
            says=f"{last.says}; record revision {revision}",
            statements=(*last.statements, *move.forward),
            undo=undo,
        )
        return (*made[:-1], joined)
    return (
        *made,
        Step(
            says=f"Record revision {revision}", statements=move.forward, undo=(Step(says=says, statements=move.back),)
        ),
    )


def change(table: VersionTable, old: str, new: str) -> Move:
    """Put ``new`` in place of the row ``old``, which must be there once; ``new`` must not be there yet."""
    return Move((_absent(table, new), _change(table, old, new)), (_absent(table, old), _change(table, new, old)))


def remove(table: VersionTable, row: str) -> Move:
    """Take a row away that is there exactly once."""
    return Move((_remove(table, row),), (_add(table, row),))


def remove_one_of(table: VersionTable, row: str) -> Move:
    """Take one of several equal rows away, where no key keeps a row from standing twice."""
    text = pgsql.SQL(
        "delete from {0} where ctid = (select min(ctid) from {0} where version_num = {1}) "
        "and {2} = (select count(*) from {0} where version_num = {1})"
    )
    values = (pgsql.Identifier(table.schema, table.name), pgsql.Literal(row), pgsql.Literal(table.rows.count(row)))
    again = pgsql.SQL("insert into {0} (version_num) values ({1})").format(*values[:2])
    return Move((_statement(text.format(*values), 1),), (_statement(again, 1),))


def none_of(table: VersionTable, rows: Sequence[str]) -> tuple[Statement, ...]:
    """A question that fails its step where one of these rows is there."""
    if not table.exists:
        return ()
    text = pgsql.SQL(
        "/* must find no row; where it does, alembic downgrade comes first */ select from {0} where version_num in ({1})"
    )
    listed = pgsql.SQL(", ").join(pgsql.Literal(row) for row in rows)
    return (_statement(text.format(pgsql.Identifier(table.schema, table.name), listed), 0),)


def _absent(table: VersionTable, row: str) -> Statement:
    """Fails the step where the row is there."""
    text = pgsql.SQL("select from {0} where version_num = {1}")
    return _statement(text.format(pgsql.Identifier(table.schema, table.name), pgsql.Literal(row)), 0)


def _create(table: VersionTable) -> tuple[Statement, ...]:
    """The version table as Alembic makes it, where it is missing."""
    if table.exists:
        return ()
    text = pgsql.SQL("create table {0} (version_num varchar(32) not null, constraint {1} primary key (version_num))")
    return (
        _statement(
            text.format(pgsql.Identifier(table.schema, table.name), pgsql.Identifier(f"{table.name}_pkc")), None
        ),
    )


def _drop(table: VersionTable) -> tuple[Statement, ...]:
    """The version table that ``_create`` made goes again, unless somebody has put a row into it since."""
    if table.exists:
        return ()
    name = pgsql.Identifier(table.schema, table.name)
    texts = (
        ("lock table {0} in access exclusive mode", None),
        ("select from {0} limit 1", 0),
        ("drop table {0}", None),
    )
    return tuple(_statement(pgsql.SQL(text).format(name), rows) for text, rows in texts)


def _change(table: VersionTable, old: str, new: str) -> Statement:
    text = pgsql.SQL("update {0} set version_num = {2} where version_num = {1}")
    return _statement(
        text.format(pgsql.Identifier(table.schema, table.name), pgsql.Literal(old), pgsql.Literal(new)), 1
    )


def _add(table: VersionTable, new: str) -> Statement:
    text = pgsql.SQL(
        "insert into {0} (version_num) select {1} where not exists (select from {0} where version_num = {1})"
    )
    return _statement(text.format(pgsql.Identifier(table.schema, table.name), pgsql.Literal(new)), 1)


def _remove(table: VersionTable, old: str) -> Statement:
    text = pgsql.SQL("delete from {0} where version_num = {1}")
    return _statement(text.format(pgsql.Identifier(table.schema, table.name), pgsql.Literal(old)), 1)


def _statement(text: pgsql.Composed, rows: int | None) -> Statement:
    return Statement(text.as_string(None), exactly=rows)
