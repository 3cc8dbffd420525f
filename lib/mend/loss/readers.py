"""Who still reads or writes what goes: by PostgreSQL's dependencies, and by name in functions and in the statements that ran.  Reads only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend import errors
from mend.database import names, queries, sqltext
from mend.diagnosis import Check
from mend.values import counting

COLUMNS = ["of", "kind", "reader", "known_by", "effect"]


@dataclass(frozen=True)
class Readers:
    """``frame``: one row per reader; ``unknown``: where nobody could look."""

    frame: pd.DataFrame
    sql: str = ""
    unknown: str = ""


def look(conn: Connection, going: Sequence[tuple[str, str]]) -> Readers:
    """Ask for pairs of table (qualified, quoted) and column (quoted; '' for the whole table)."""
    tables, columns = [table for table, _ in going], [column for _, column in going]
    frame = queries.frame(conn, "data_loss/readers", relations=tables, columns=columns)
    sql = frame.attrs["sql"]
    statements, unknown = _statements(conn, going)
    found = pd.concat([frame, statements], ignore_index=True) if len(statements) else frame
    return Readers(found, sql, unknown)


def _statements(conn: Connection, going: Sequence[tuple[str, str]]) -> tuple[pd.DataFrame, str]:
    """Statements that ran and name both the table and the column, shapes alone."""
    none = pd.DataFrame(columns=COLUMNS)
    if not going:
        return none, ""
    state = queries.frame(conn, "slow_migration/statistics").iloc[0]
    if not state["installed_schema"]:
        return none, "pg_stat_statements is not in this database, so what the application sends is not known"
    text = (
        f"select distinct left(s.query, 2000) from {state['installed_schema']}.pg_stat_statements as s "
        "where s.dbid = (select oid from pg_database where datname = current_database()) order by 1 limit 2000"
    )
    try:
        answer = counting.ask(conn, text)
    except DBAPIError as error:
        return none, f"pg_stat_statements could not be read (SQLSTATE {errors.sqlstate(error)})"
    if answer.why:
        return none, f"the question to pg_stat_statements {answer.why}"
    shapes = [sqltext.shape(str(row[0])) for row in answer.rows]
    rows = [
        [f"{table}.{column}" if column else table, "statement", shape[:300], "name in a statement that ran: a guess", "it fails (42703 or 42P01)"]
        for table, column in going
        for shape in shapes
        if _names(shape, table) and (not column or _names(shape, column)) and not _is_ours(shape)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS), ""


def _names(shape: str, identity: str) -> bool:
    name = names.unquoted(names.last(identity))
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", shape, re.IGNORECASE) is not None


def _is_ours(shape: str) -> bool:
    """DDL and what mend itself asks do not count as the application."""
    return (
        re.match(r"\s*(?:alter|create|drop|comment|lock|explain|copy|vacuum|analyze)\b", shape, re.IGNORECASE)
        is not None
    )


def check(readers: Readers) -> Check:
    """Who still reads or writes it?"""
    asks = partial(
        Check,
        name="readers",
        question="Who still reads or writes it?",
        healthy_when="Nothing reads what goes.",
        frame=readers.frame,
        sql=readers.sql,
    )
    if len(readers.frame):
        counts = readers.frame["kind"].value_counts()
        told = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items())).replace(
            "policys", "policies"
        )
        hidden = f" Beyond that: {readers.unknown}." if readers.unknown else ""
        return asks(verdict="found", says=f"It is named by {told}.{hidden}")
    if readers.unknown:
        return asks(verdict="found", says=f"Nothing in the database reads it; the application may: {readers.unknown}.")
    return asks(verdict="healthy", says="Nothing in the database reads it, and no statement that ran names it.")
