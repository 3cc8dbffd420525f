"""How PostgreSQL would run a statement, which index it lacks, and what statements cost so far.  Reads only.

The statement is explained, never run.  EXPLAIN of an UPDATE takes ROW EXCLUSIVE on its table for a moment; it is given back at once, and
nobody is waited for.  Parameters whose values are not known are explained as parameters (a generic plan).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend.database import names, queries, sqltext
from mend.errors import sqlstate
from mend.journal import sha256
from mend.slow import dml
from mend.values import counting, lexical

TIMEOUT_MS = 1000
COLUMNS = ["node", "relation", "index", "condition", "rows", "cost"]
_WORTH = 4.0  # times that a plan with the index must be cheaper
_RANDOM_COST = 4.0  # of a page, as PostgreSQL's own default has it
_PURE = re.compile(r"\s*(with|select|update|delete|insert)\b", re.IGNORECASE)
_SET = {"lock_timeout": "200", "plan_cache_mode": "force_generic_plan"}


@dataclass(frozen=True)
class Explained:
    """``nodes``: one row per node of the plan, indented; ``why``: why there is none."""

    nodes: pd.DataFrame
    scans: tuple[Mapping[str, Any], ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Missing:
    """An index that would spare a scan: its name, definition as PostgreSQL prints it, the statement that makes it, and what is gained."""

    identity: str
    definition: str
    sql: str
    says: str


def plan_of(conn: Connection, sql: str) -> Explained:
    """The plan of one statement; ``why`` where it is not explained: it is none that can be, or it waits, or it is not known whole."""
    empty = pd.DataFrame(columns=COLUMNS)
    text = sqltext.without_comments(sql).strip().rstrip(";")
    if len(sqltext.statements(text)) != 1 or not _PURE.match(text):
        return Explained(empty, why="only one SELECT, INSERT, UPDATE or DELETE can be explained")
    try:
        plan = _explained(conn, text)
    except DBAPIError as error:
        code = sqlstate(error)
        why = {
            "55P03": "a lock on its table stands in the way",
            "57014": f"planning did not end within {TIMEOUT_MS / 1000:g} s",
        }
        return Explained(empty, why=why.get(code, f"the server does not explain it (SQLSTATE {code})"))
    rows = list(_nodes(plan, 0))
    scans = tuple(node for node in _walk(plan) if node["Node Type"] == "Seq Scan")
    return Explained(pd.DataFrame(rows, columns=COLUMNS), scans)


def _explained(conn: Connection, text: str) -> dict[str, Any]:
    """The plan as PostgreSQL's JSON; in a savepoint that is rolled back."""
    numbers = {int(one) for one in re.findall(r"\$(\d+)", text)}
    savepoint = conn.begin_nested()
    try:
        for setting, value in _SET.items():
            conn.exec_driver_sql(f"set local {setting} = '{value}'")
        conn.exec_driver_sql(f"set local statement_timeout = {TIMEOUT_MS}")
        doubled = text.replace("%", "%%")
        if numbers:
            conn.exec_driver_sql(f"prepare mend_explained as {doubled}")
            unknown = ", ".join(["null"] * max(numbers))
            found = conn.exec_driver_sql(f"explain (format json) execute mend_explained({unknown})").scalar_one()
        else:
            found = conn.exec_driver_sql(f"explain (format json) {doubled}").scalar_one()
        return dict(found[0]["Plan"])
    finally:
        savepoint.rollback()
        if numbers:
            conn.exec_driver_sql("deallocate all")  # a prepared statement outlives its savepoint


def _walk(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _walk(inner)


def _nodes(node: Mapping[str, Any], depth: int) -> Iterator[tuple[Any, ...]]:
    condition = " ".join(str(node[key]) for key in ("Index Cond", "TID Cond", "Hash Cond", "Filter") if key in node)
    relation = ".".join(filter(None, (node.get("Schema", ""), node.get("Relation Name", ""))))
    yield (
        "  " * depth + (f"{node['Operation']} on" if "Operation" in node else node["Node Type"]),
        relation, node.get("Index Name", ""), sqltext.shape(condition), int(node["Plan Rows"]), float(node["Total Cost"]),
    )  # fmt: skip
    for inner in node.get("Plans", ()):
        yield from _nodes(inner, depth + 1)


def missing(
    explained: Explained,
    change: dml.Change | None,
    table: str,
    *,
    rows: float,
    printed: Mapping[str, str],
    indexed: frozenset[str],
) -> Missing | None:
    """The index that a statement lacks which is run again and again; None where its plan is as good as it gets.

    Parameters
    ----------
    change : the statement taken apart
    table : qualified and quoted; ``rows`` in it
    printed : its columns: name -> as PostgreSQL prints it
    indexed : the names of those that lead an index of it already
    """
    if change is None or not explained.scans:
        return None
    equal, null = dml.equalities(change.where)
    known = all(_folded(one) in printed for one in (*equal, *null))
    columns = [one for one in equal if _folded(one) not in indexed] if known else []
    wide = [
        scan for scan in explained.scans
        if scan.get("Relation Name") == names.unquoted(names.last(table)) and "Filter" in scan
    ]  # fmt: skip
    if not wide or not columns:
        return None
    scan = wide[0]
    found = float(scan["Plan Rows"])
    with_index = _RANDOM_COST * (2 + found)
    if float(scan["Total Cost"]) < _WORTH * with_index:
        return None
    says = (
        f"each run reads all of {table} (about {rows:,.0f} rows, cost {float(scan['Total Cost']):,.0f}) to find about {found:,.0f}; "
        f"no index begins with {', '.join(columns)}, and with one the cost would be about {with_index:,.0f}"
    )
    return _index(table, columns, null, printed, says)


def _folded(column: str) -> str:
    return lexical.tokens(column)[0].value


def _index(table: str, columns: Sequence[str], null: Sequence[str], printed: Mapping[str, str], says: str) -> Missing:
    """A name of our own that needs no quotes, and the definition as pg_get_indexdef will print it."""
    listed = ", ".join(printed[_folded(one)] for one in columns)
    wanted = [f"({printed[_folded(one)]} IS NULL)" for one in null]
    where = f" WHERE ({' AND '.join(wanted)})" if len(wanted) > 1 else f" WHERE {wanted[0]}" if wanted else ""
    name = f"mend_tmp_{sha256(f'{table} {listed}{where}')[:8]}"
    on = f"{table} USING btree ({listed}){where}"
    return Missing(
        f"{names.parent(table)}.{name}",
        f"CREATE INDEX {name} ON {on}",
        f"create index concurrently {name} on {on}",
        says,
    )


# -- pg_stat_statements -------------------------------------------------------------------------------------------------

STATISTICS = ["statement", "calls", "total_s", "mean_ms", "rows", "blocks_read", "wal_bytes"]


def statistics(conn: Connection) -> tuple[pd.DataFrame, str, str]:
    """The costliest statements of this database so far, shapes alone; why there are none and how to get them; the SQL."""
    empty = pd.DataFrame(columns=STATISTICS)
    found = queries.frame(conn, "slow_migration/statistics")
    state = found.iloc[0]
    asked = found.attrs["sql"]
    if not state["installed_schema"]:
        first = "" if state["preloaded"] else "add it to shared_preload_libraries, restart the server, then "
        how = (
            f"{first}create extension pg_stat_statements"
            if state["available"]
            else "install PostgreSQL's contrib package first"
        )
        return empty, f"pg_stat_statements is not in this database (a query would fail with 42P01): {how}", asked
    sql = (
        "select s.query as statement, s.calls, s.total_exec_time / 1000 as total_s, s.mean_exec_time as mean_ms, s.rows, "
        "s.shared_blks_read as blocks_read, cast(s.wal_bytes as float8) as wal_bytes "
        f"from {state['installed_schema']}.pg_stat_statements as s where s.dbid = (select oid from pg_database where datname = current_database()) "
        "order by s.total_exec_time desc limit 10"
    )
    try:
        answer = counting.ask(conn, sql, timeout_ms=TIMEOUT_MS)
    except DBAPIError as error:
        code = sqlstate(error)
        why = {
            "55000": "its library is not loaded: add it to shared_preload_libraries and restart the server",
            "42501": "this role may not read it: grant pg_read_all_stats, or usage on its schema",
        }
        return (
            empty,
            f"pg_stat_statements is installed, but {why.get(code, 'the question failed')} (SQLSTATE {code})",
            sql,
        )
    frame = pd.DataFrame([list(row) for row in answer.rows], columns=STATISTICS)
    frame["statement"] = frame["statement"].map(lambda text: " ".join(sqltext.shape(str(text)).split())[:200])
    return frame, answer.why, sql
