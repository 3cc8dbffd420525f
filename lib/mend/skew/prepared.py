"""Statements PREPAREd and never executed: does a schema take what an application says?

The protocol's Parse message, not SQL's PREPARE: it takes one statement only, and runs nothing.  Inside a read-only transaction, each in
a savepoint that is rolled back at once, so that the locks on its relations last for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from psycopg import sql as pgsql
from psycopg.pq import DiagnosticField, ExecStatus
from sqlalchemy import Connection

from mend.database import names, queries
from mend.skew import placeholders
from mend.skew.application import Application, Table
from mend.skew.placeholders import Insert, Said

Verdict = Literal["works", "breaks", "could_not_check"]
_NOT_SKEW = {"42501", "42601", "42P18", "42P02"}  # a privilege, the text itself, a parameter whose type nothing tells
_SHOWN = 200  # characters


@dataclass(frozen=True)
class Answer:
    """What a schema says to one thing that an application does.  ``subject``: the relation, or column, that it is about; '' if not known."""

    where: str
    verdict: Verdict
    why: str = ""
    sqlstate: str = ""
    subject: str = ""


def answers(conn: Connection, application: Application) -> tuple[Answer, ...]:
    """Everything that the application is known to do, held against the schema of this session.

    Reads: the catalogs.  Writes: nothing.  Locks: ACCESS SHARE or ROW EXCLUSIVE on one relation at a time, for a moment.
    """
    inserts = [(said, one) for said in application.said for one in placeholders.inserts(said.text)]
    relations = [*(one.quoted for one in application.tables), *placeholders.relations([one for _, one in inserts])]
    frame = columns(conn, relations)
    found = [answer for table in application.tables for answer in _of_table(conn, table, frame)]
    found += [prepare(conn, said) for said in application.said]
    found += [answer for said, one in inserts for answer in _unknown(said.where, one, frame)]
    return tuple(found)


def columns(conn: Connection, relations: Iterable[str]) -> pd.DataFrame:
    """The columns of relations, as ``version_skew/columns.sql`` tells them; names in more than two parts are nowhere."""
    wanted = sorted({one for one in relations if len(names.split(one)) <= 2 and '""' not in names.split(one)})
    return queries.frame(conn, "version_skew/columns", relations=wanted)


def _of_table(conn: Connection, table: Table, frame: pd.DataFrame) -> list[Answer]:
    """A table of the metadata: is it there, with these columns, of these types, and can rows be inserted that know no other column?"""
    own = frame[frame["relation"] == table.quoted]
    if own.empty:
        shown = _plain(table.quoted)
        return [Answer(shown, "breaks", f"there is no relation {shown}", "42P01", shown)]
    identity = str(own["identity"].iloc[0])
    there = {str(name) for name in own["column_name"]}
    lacking = [one for one in table.columns if one.name not in there]
    missing = [f"{identity}.{_plain(pgsql.Identifier(one.name).as_string(None))}" for one in lacking]
    found = [Answer(_plain(table.quoted), "breaks", f"column {one} does not exist", "42703", one) for one in missing]
    present = [one for one in table.columns if one not in lacking]
    written = tuple(one.name for one in present if one.fills not in ("computed", "automatic"))
    texts = set(own["column_name"][own["text"]])  # these take any type, and are not to be compared with every one
    if present:
        found.append(prepare(conn, table.select(tuple(one.name for one in present))))
    if compared := tuple(one.name for one in present if one.name in texts and one.type):
        found.append(prepare(conn, table.compare(compared)))
    if written and own["kind"].iloc[0] in ("r", "p", "f"):
        where = f"{_plain(table.quoted)}, write"
        found.append(prepare(conn, table.insert(written)))
        given = tuple(one.name for one in table.columns if one.fills in ("", "application"))
        found += _unknown(where, Insert(table.quoted, given), frame)
        found += _nulls(where, table, own)
    return found


def _nulls(where: str, table: Table, own: pd.DataFrame) -> list[Answer]:
    """Columns that the application declares nullable, and gives a NULL where it has no value, though the schema takes none."""
    perhaps = {one.name for one in table.columns if one.nullable and not one.fills}
    refused = own[own["not_null"] & ~own["triggered"] & ~own["twin"] & own["column_name"].isin(perhaps)]
    return [
        Answer(where, "could_not_check", f"{column} is NOT NULL, and the application may write NULL", "", str(column))
        for column in refused["column_identity"]
    ]


def _plain(name: str) -> str:
    """A quoted name as people write it."""
    return re.sub(r'"([a-z_][a-z0-9_]*)"', r"\1", name)


def prepare(conn: Connection, said: Said) -> Answer:
    """Have the server analyse one statement."""
    placed = placeholders.numbered(said.text)
    raw: Any = conn.connection.driver_connection
    try:
        text = placed.sql.encode(raw.info.encoding)
    except UnicodeEncodeError:
        return Answer(said.where, "could_not_check", f"it holds characters that {raw.info.encoding} has not")
    if b"\0" in text:
        return Answer(said.where, "could_not_check", "it holds a NUL character")
    conn.exec_driver_sql("savepoint mend_said")
    result = raw.pgconn.prepare(b"", text)
    conn.exec_driver_sql("rollback to savepoint mend_said")
    if result.status == ExecStatus.COMMAND_OK and said.preparable:
        return Answer(said.where, "works")
    if result.status == ExecStatus.COMMAND_OK:
        return Answer(
            said.where,
            "could_not_check",
            f"{said.verb.upper()} is not analysed before it runs: only queries and changes of rows are",
        )
    return _refused(said, placed, result, raw.info.encoding)


def _refused(said: Said, placed: placeholders.Placed, result: Any, encoding: str) -> Answer:
    def told(field: DiagnosticField) -> str:
        return bytes(result.error_field(field) or b"").decode(encoding, "replace")

    state = told(DiagnosticField.SQLSTATE)
    message = "a literal does not fit its type" if state.startswith("22") else told(DiagnosticField.MESSAGE_PRIMARY)
    position = told(DiagnosticField.STATEMENT_POSITION)
    place = ""
    if position and not said.where.endswith((", read", ", compare", ", write")):
        at = placed.original(int(position) - 1)
        line = said.line + said.text.count("\n", 0, at)
        place = f", line {line}, character {at - said.text.rfind(chr(10), 0, at)}"
    broken = state[:2] in ("42", "3F", "22", "0A") and state not in _NOT_SKEW
    parse = "it does not parse: " if state == "42601" else ""
    return Answer(
        said.where, "breaks" if broken else "could_not_check", f"{parse}{message} ({state}){place}"[: _SHOWN * 2], state
    )


def _unknown(where: str, insert: Insert, frame: pd.DataFrame) -> list[Answer]:
    """NOT NULL columns that nobody gives a value: the INSERT does not know them, PostgreSQL does not fill them."""
    own = frame[frame["relation"] == insert.relation]
    if not own.empty and own["kind"].iloc[0] == "v":
        return [Answer(where, "could_not_check", f"{insert.relation} is a view: what its table needs is not looked at")]
    own = own[own["kind"].isin(["r", "p", "f"])]
    if own.empty:
        return []
    if not insert.columns and insert.first is None:
        return [
            Answer(
                where,
                "could_not_check",
                f"the INSERT into {insert.relation} names no columns, so which ones it gives is not known",
            )
        ]
    rows: Sequence[Mapping[Any, Any]] = own.to_dict("records")
    given = insert.columns or tuple(row["column_name"] for row in rows[: insert.first])
    missed = [r for r in rows if r["not_null"] and not r["filled"] and not r["twin"] and r["column_name"] not in given]
    found = []
    for row in missed:
        column = str(row["column_identity"])
        says = f"{column} is NOT NULL without a default, and the INSERT does not know it"
        if row["triggered"]:
            found.append(
                Answer(where, "could_not_check", f"{says}; a BEFORE INSERT trigger may fill it", "23502", column)
            )
        else:
            found.append(Answer(where, "breaks", says, "23502", column))
    return found
