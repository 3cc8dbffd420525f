"""The pending upgrade, run on a copy in a scratch database: rows before and after, how long each statement takes, which locks it holds.

The schema comes over by pg_dump, the rows of the tables concerned by COPY through our own sessions, in one snapshot: all of them, or the
first so many as they lie.  Nothing is written to the target, and the copy is dropped at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import psycopg
from psycopg import sql as pgsql
from psycopg.conninfo import make_conninfo

from mend.change.kept import columns_of
from mend.database import queries
from mend.diagnosis import Check, Site
from mend.errors import MendError, ReplayFailed
from mend.histories.project import Event, ask, broken
from mend.loss.at_stake import Facts
from mend.redaction import redact
from mend.repairs.halfway import relation_of
from mend.replays import scratch

TABLES = ["table", "rows_before", "rows_after", "bytes_before", "bytes_after"]
STATEMENTS = ["revision", "statement", "seconds", "rows", "locks"]
# pg_dump brings foreign servers over with their passwords: what a revision or a trigger writes there would not stay on the copy.
_CUT_OFF = """do $mend$ declare mapping record; begin
  for mapping in select u.srvname, case u.umuser when 0 then 'public' else quote_ident(u.usename) end as role from pg_catalog.pg_user_mappings as u
  loop execute format('drop user mapping for %s server %I', mapping.role, mapping.srvname); end loop;
end $mend$"""
COPY_MS, RUN_S = 600_000, 1800.0
_WORDS = {
    "AccessExclusiveLock": "ACCESS EXCLUSIVE", "ExclusiveLock": "EXCLUSIVE", "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE",
    "ShareLock": "SHARE", "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE", "RowExclusiveLock": "ROW EXCLUSIVE",
}  # fmt: skip


@dataclass(frozen=True)
class Rehearsed:
    """``tables``: one row per table, ``statements``: one per statement.  ``failed``: where and why it ended early.  ``why``: why there is none;
    ``unasked``: nobody asked for it.

    ``copied``: in words, how the copy was made and how whole it is.
    """

    tables: pd.DataFrame
    statements: pd.DataFrame
    copied: str = ""
    failed: str = ""
    why: str = ""
    unasked: bool = False


def unasked() -> Rehearsed:
    """Nobody asked for one."""
    return replace(none("it was not asked for"), unasked=True)


def none(why: str) -> Rehearsed:
    """No rehearsal."""
    return Rehearsed(pd.DataFrame(columns=TABLES), pd.DataFrame(columns=STATEMENTS), why=why)


def rehearse(site: Site, facts: Facts, *, rows: int) -> Rehearsed:
    """Copy, upgrade, compare.

    Parameters
    ----------
    rows : of each table, the first so many as they lie; 0: all

    Reads: the target, in one read-only snapshot.  Writes: a scratch database, which is dropped.
    Raises: ScratchUnavailable.  What fails in the upgrade itself is in the answer.
    """
    assert site.project is not None
    with site.target.reading(site.run_id) as conn:
        roles = tuple(queries.frame(conn, "target/roles")["role"])
    server = scratch.choose(site.target, version_num=site.identity.version_num, roles=roles)
    with server, server.database() as place:
        try:
            site.progress("copying the schema")
            scratch.copy_schema(site.target.conninfo, place, major=site.identity.version_num // 10000)
            copied = _copied(site, facts, place, rows)
        except ReplayFailed as error:
            return none(f"the copy could not be made: {error.message}")
        before = _counted(place, copied)
        try:
            events = ask(
                site.project, {"action": "rehearse", "scratch": place}, timeout_s=RUN_S, on_event=partial(_show, site)
            )
        except MendError as error:
            return none(error.message)
        if events[-1]["event"] == "error":
            return none(broken(events[-1]).message)
        after = _counted(place, copied)
    return _told(events, copied, before, after, rows, server.warning)


def _show(site: Site, event: Event) -> None:
    if event["event"] == "revision":
        site.progress(f"rehearsing {event['revision']}")


def concerned(facts: Facts) -> list[str]:
    """The live tables that the pending revisions touch, and those that refer to or are referred to by them."""
    live = {identity for kind, identity in facts.half.live if kind == "table"}
    touched = {relation_of(change) for one in facts.statements for change in one.changes}
    touched |= {one.table for one in facts.stakes if one.table}
    keys = [
        (identity, text) for (kind, identity), text in facts.half.live.items() if kind == "constraint" and "FOREIGN KEY" in text
    ]  # fmt: skip
    found = touched & live
    beside = {other for identity, text in keys for other in live if _joins(identity, text, other, found)}
    partitions = {identity for kind, identity in facts.half.live if kind == "partition"}
    return sorted(found | beside | {one for one in partitions if _parent(facts, one) in found | beside})


def _joins(identity: str, text: str, other: str, found: set[str]) -> bool:
    own = identity.rpartition(".")[0]
    return f"REFERENCES {other}(" in text and own in found


def _parent(facts: Facts, partition: str) -> str:
    return facts.half.live["partition", partition].split(" FOR VALUES")[0].split(" DEFAULT")[0]


def _copied(site: Site, facts: Facts, place: Mapping[str, str], rows: int) -> list[str]:
    """The tables that came over.  Triggers and foreign keys of the copy stay out of it while it is filled."""
    live = facts.half.live
    done: list[str] = []
    with (
        site.target.reading(site.run_id) as conn,
        psycopg.connect(make_conninfo(**place), autocommit=True) as there,
    ):
        conn.exec_driver_sql(f"set local statement_timeout = {COPY_MS}")
        source: Any = conn.connection.driver_connection
        _quiet(there)
        there.execute(_CUT_OFF)
        table = facts.half.table
        _copy(source, there, table.quoted(), ("version_num",), 0)
        for name in concerned(facts):
            if " partition by " in live.get(("table", name), ""):
                continue
            columns = [c for c, text in columns_of(name, live).items() if " generated always as (" not in text]
            site.progress(f"copying {name}")
            _copy(source, there, name, columns, rows)
            done.append(name)
        there.execute("analyze")
    return done


def _quiet(there: psycopg.Connection[Any]) -> None:
    try:
        there.execute("set session_replication_role = replica")
    except psycopg.Error as error:
        raise ReplayFailed(
            f"the role of the scratch server may not set session_replication_role: {str(error).strip()}"
        ) from error


def _copy(source: Any, there: psycopg.Connection[Any], table: str, columns: Sequence[str], rows: int) -> None:
    listed = ", ".join(columns)
    limit = f" limit {int(rows)}" if rows else ""
    read = f"copy (select {listed} from only {table}{limit}) to stdout"
    write = f"copy {table} ({listed}) from stdin"
    try:
        with (
            source.cursor() as taking,
            there.cursor() as giving,
            taking.copy(read.encode()) as out,
            giving.copy(write.encode()) as into,
        ):
            for block in out:
                into.write(block)
    except psycopg.Error as error:
        raise ReplayFailed(f"{table}: {redact(str(error).strip().splitlines()[0])}") from error


def _counted(place: Mapping[str, str], tables: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Rows and bytes of each table; None of one that is not there."""
    found: dict[str, tuple[int, int] | None] = {}
    with psycopg.connect(make_conninfo(**place), autocommit=True) as conn:
        for table in tables:
            there = conn.execute("select to_regclass(%s) is not null", [table]).fetchone()
            if not (there and there[0]):
                found[table] = None
                continue
            counted = conn.execute(
                pgsql.SQL("select (select count(*) from only {}), pg_table_size(cast(%s as regclass))").format(
                    pgsql.SQL(table)
                ),
                [table],
            ).fetchone()
            assert counted
            found[table] = (int(counted[0]), int(counted[1]))
    return found


def _told(
    events: Sequence[Event],
    copied: Sequence[str],
    before: Mapping[str, tuple[int, int] | None],
    after: Mapping[str, tuple[int, int] | None],
    rows: int,
    warning: str,
) -> Rehearsed:
    tables = pd.DataFrame([[name, *_pair(before[name], after[name])] for name in copied], columns=TABLES).astype(
        dict.fromkeys(TABLES[1:], "Int64")
    )
    statements = pd.DataFrame(
        [
            [e["revision"], e["sql"], round(e["seconds"], 3), e["rows"], _locks(e["locks"])]
            for e in events
            if e["event"] == "ran"
        ],
        columns=STATEMENTS,
    )
    failed = next((e for e in events if e["event"] == "failed"), None)
    how = "whole" if not rows else f"a sample: at most {rows:,} rows of each table, the first as they lie"
    said = f"schema by pg_dump, rows by COPY in one snapshot; {how}; foreign servers are cut off from it" + (
        f"; {warning}" if warning else ""
    )
    lines = str(failed["message"]).strip().splitlines() if failed else []
    why = f"{failed['revision']}: {failed['kind']}: {redact(lines[0]) if lines else ''}" if failed else ""
    return Rehearsed(tables, statements, said, why)


def _pair(before: tuple[int, int] | None, after: tuple[int, int] | None) -> list[int | None]:
    a, b = before or (None, None), after or (None, None)
    return [a[0], b[0], a[1], b[1]]


def _locks(held: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"{_WORDS.get(mode, mode)} on {relation}" for relation, mode in held)


def check(rehearsed: Rehearsed) -> Check:
    """How does the upgrade go on a copy?"""
    asks = partial(
        Check,
        name="rehearsal",
        question="How does the upgrade go on a copy?",
        healthy_when="It runs to its end, and no table has fewer rows than before.",
        frame=rehearsed.tables,
    )
    if rehearsed.unasked:
        return asks(verdict="not_asked", says="It is rehearsed with option rehearse.")
    if rehearsed.why:
        return asks(verdict="could_not_check", says="It was not rehearsed.", why=rehearsed.why)
    if rehearsed.failed:
        return asks(verdict="found", says=f"It fails on the copy ({rehearsed.copied}): {rehearsed.failed}.")
    fewer = [row["table"] for row in rehearsed.tables.to_dict("records") if _fewer(row)]
    seconds = float(rehearsed.statements["seconds"].sum())
    says = f"It ran to its end in {seconds:.2f} s ({rehearsed.copied})."
    if fewer:
        return asks(verdict="found", says=f"{says} Fewer rows than before: {', '.join(fewer)}.")
    return asks(verdict="healthy", says=says)


def _fewer(row: Mapping[Any, Any]) -> bool:
    return not pd.isna(row["rows_before"]) and (pd.isna(row["rows_after"]) or row["rows_after"] < row["rows_before"])


def check_statements(rehearsed: Rehearsed) -> Check:
    """How long does each statement take, and what does it lock?"""
    asks = partial(
        Check,
        name="durations",
        question="How long does each statement take, and what does it lock?",
        healthy_when="No statement holds ACCESS EXCLUSIVE for longer than a second.",
        frame=rehearsed.statements,
    )
    if rehearsed.unasked:
        return asks(verdict="not_asked", says="It is rehearsed with option rehearse.")
    if rehearsed.why:
        return asks(verdict="could_not_check", says="It was not rehearsed.", why=rehearsed.why)
    long = [r for r in rehearsed.statements.to_dict("records") if r["seconds"] > 1 and "ACCESS EXCLUSIVE" in r["locks"]]
    total = len(rehearsed.statements)
    if long:
        return asks(
            verdict="found",
            says=f"{len(long)} of {total} statements hold ACCESS EXCLUSIVE for more than a second, on this copy.",
        )
    return asks(
        verdict="healthy",
        says=f"None of {total} statements holds ACCESS EXCLUSIVE for more than a second, on this copy.",
    )
