"""The step that reads a dropped column's values and keeps them: made here, pure; run by `execute`, which gives the two sessions.

One session gives the column its type back in pg_attribute, reads, and rolls back.  It cannot do otherwise: the first thing that it makes
is a deferred constraint that is violated, so a COMMIT, whoever sends it, is refused by the server.  Nobody else ever sees the changed
row: it is never committed, and invalidations are sent at commit alone.  SHARE UPDATE EXCLUSIVE on the table keeps every DDL, VACUUM and
ANALYZE away from its rows in pg_attribute, and neither readers nor writers of the table itself.

The values go from there to the other session's COPY as they come, and touch no disk of ours.  That session commits when the first one
is gone without a trace, and both have counted and summed up the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mend.change import kept
from mend.change.act import literal
from mend.change.writer import Writer
from mend.errors import StepFailed
from mend.loss import layouts, untouched
from mend.loss.dropped import Dropped
from mend.loss.layouts import Layout
from mend.plan import Lock, Statement, Step

_NEVER = "mend_never_commits"
PLACE = "row_place"


@dataclass(frozen=True)
class Wanted:
    """What is to be read: a column of these relations, with its name and definition then, and the key that tells the rows apart.

    ``layout``: how its values lie on disk.  ``key``: quoted column -> definition, as the catalog prints it; none: where each row lay is kept
    instead.  ``copy``: where the values go.
    """

    table: str
    column: str
    definition: str
    layout: Layout
    key: Mapping[str, str]
    relations: tuple[Dropped, ...]
    copy: kept.Copy

    @property
    def types(self) -> dict[str, str]:
        """The columns of the copy, the value last."""
        return {**(self.key or {PLACE: "text"}), self.column: self.definition}

    def values(self, one: Dropped) -> list[str]:
        """What is read of a row of one relation, in that order."""
        told = [kept.as_kept(f"t.{name}", text) for name, text in self.key.items()]
        lay = "cast(cast(t.tableoid as regclass) as text) || ' ' || cast(t.ctid as text)"
        if self.layout.form == "text":  # read as bytes: other bytes are no text, and convert_from says so
            return [*(told or [lay]), f"convert_from(t.{one.name}, getdatabaseencoding())"]
        return [*(told or [lay]), kept.as_kept(f"t.{one.name}", self.definition)]


def step(wanted: Wanted, *, rows_expected: int | None) -> Step:
    """Read the values into a copy in schema mend, with its note in the manifest."""
    parts = [_part(wanted, one) for one in wanted.relations]
    reading = [
        *(f"lock table {one.relation} in share update exclusive mode" for one in wanted.relations),
        f"create temporary table {_NEVER} (n int4 unique deferrable initially deferred)",
        f"insert into {_NEVER} values (1), (1)",
        *(part["shown"] for part in parts),
    ]
    columns = ", ".join(wanted.types)
    place = wanted.copy.place
    made = [one.sql for one in wanted.copy.made(f"select {_typed(wanted)} with no data")]
    copy_in = f"copy {place} ({columns}) from stdin"
    noted = wanted.copy.noted().sql
    said = [
        "-- one session, in which no COMMIT is possible\nbegin isolation level repeatable read",
        *reading,
        *(text for part in parts for text in _judging(part)),
        *(part["copy"] for part in parts),
        "rollback",
        "-- another session, to which the rows go as they are read\nbegin",
        *made,
        copy_in,
        noted,
        "commit",
    ]
    return Step(
        says=f"Read what is left of {wanted.table}.{wanted.column} into {place}",
        kind="recover",
        statements=tuple(Statement(text) for text in said),
        locks=tuple(
            Lock(one.relation, "SHARE UPDATE EXCLUSIVE", "readers and writers go on") for one in wanted.relations
        ),
        rows_expected=rows_expected,
        arguments={
            "reading": reading,
            "parts": parts,
            "column": f"{wanted.table}.{wanted.column}",
            "layout": wanted.layout.words(),
            "making": made,
            "copy_in": copy_in,
            "noted": noted,
            "summed": _summed([*wanted.types], place),
            "place": place,
        },
    )


def _typed(wanted: Wanted) -> str:
    return ", ".join(
        f"cast(null as {'text' if kept.is_own(text) else kept.type_of(text)}) as {name}"
        for name, text in wanted.types.items()
    )


def _part(wanted: Wanted, one: Dropped) -> dict[str, Any]:
    """What is read of one relation: how the column comes to light, the COPY, and the sum over the same rows."""
    own = f"cast({literal(kept.type_of(wanted.definition))} as regtype)"
    bare = f"cast({literal(wanted.layout.read_as)} as regtype)" if wanted.layout.read_as else own
    shown = (
        f"update pg_catalog.pg_attribute set attisdropped = false, atttypid = {bare} "
        f"where attrelid = cast({literal(one.relation)} as regclass) and attnum = {one.attnum} and attisdropped and attlen = {one.length} "
        f"and attalign = '{one.align}' and attbyval = {str(one.by_value).lower()} and cast(xmin as text) = '{one.dropped_xid}'"
    )
    values = (f"{value} as {name}" for name, value in zip(wanted.types, wanted.values(one), strict=True))
    some = f"from only {one.relation} as t where t.{one.name} is not null"
    rows = f"select {', '.join(values)} {some}"
    return {
        "relation": one.relation,
        "attnum": one.attnum,
        "shown": shown,
        "judged": f"copy (select cast(t.ctid as text), t.{one.name} {some}) to stdout (format binary)"
        * wanted.layout.judged,
        "typed": f"update pg_catalog.pg_attribute set atttypid = {own} where attrelid = cast({literal(one.relation)} as regclass) and attnum = {one.attnum} and not attisdropped",
        "copy": f"copy ({rows}) to stdout",
        "summed": _summed([*wanted.types], f"({rows})"),
    }


def _judging(part: Mapping[str, Any]) -> list[str]:
    says = " -- each value is judged on the way: whether the server may read it as what follows"
    return [part["judged"] + says, part["typed"]] if part["judged"] else []


def _summed(columns: Sequence[str], source: str) -> str:
    """Rows and a sum over their content that is the same in whatever order they come."""
    row = f"cast(row({', '.join(f'v.{name}' for name in columns)}) as text)"
    return (
        f'select count(*), coalesce(sum(cast(hashtextextended({row} collate "C", 0) as numeric)), 0) from {source} as v'
    )


# -- at work ------------------------------------------------------------------------------------------------------------


def run(writer: Writer, n: int, step: Step, reading: Connection, loading: Connection) -> int:
    """Read on one session, load on the other, which is inside its transaction and stays so; how many values were kept.

    Raises: StepFailed where the two do not agree, or the catalog is not as it was; then the caller rolls back.
    """
    relations = [str(part["relation"]) for part in step.arguments["parts"]]
    before = untouched.attributes(writer, relations)
    for text in step.arguments["making"]:
        _send(loading, text)
    with _doomed(reading, writer):
        xid = _show(reading, step)
        _judge(reading, n, step)
        read = _carried(writer, n, step, reading, loading)
    untouched.require_gone(writer, n, step, xid, before)
    ((rows, total),) = _ask(loading, step.arguments["summed"])
    wanted = sum(one[0] for one in read), sum(one[1] for one in read)
    if (rows, total) != wanted:
        raise StepFailed(
            f"Step {n + 1}: {wanted[0]:,} values were read and {rows:,} arrived, or not as they were. Nothing was kept, and nothing else was changed. Report this.",
            step=n,
        )
    _send(loading, step.arguments["noted"])
    return int(rows)


@contextmanager
def _doomed(conn: Connection, writer: Writer) -> Iterator[None]:
    """A transaction that ends in ROLLBACK on every path, at the latest when its session does."""
    _send(conn, "begin isolation level repeatable read")
    try:
        for setting, value in _limits(writer).items():
            _send(conn, f"set local {setting} = {value}")
        yield
    finally:
        with suppress(SQLAlchemyError):  # the session may be gone, and its transaction with it
            _send(conn, "rollback")


def _limits(writer: Writer) -> dict[str, object]:
    """Parallel workers would have to be told of a catalog that is nobody else's."""
    return {
        "lock_timeout": int(writer.lock_timeout_ms),
        "statement_timeout": int(writer.statement_timeout_ms),
        "idle_in_transaction_session_timeout": int(writer.statement_timeout_ms),
        "row_security": "off",
        "max_parallel_workers_per_gather": 0,
        "jit": "off",
    }


def _show(conn: Connection, step: Step) -> str:
    """Bring the column to light, for this transaction alone; its xid."""
    shown = {part["shown"] for part in step.arguments["parts"]}
    for text in step.arguments["reading"]:
        rows = _send(conn, text)
        if text in shown and rows != 1:
            raise StepFailed(
                "The dropped column is not in the catalog as it was reviewed. Nothing was read, and nothing was changed. Make a new plan."
            )
    ((xid,),) = _ask(conn, "select cast(pg_current_xact_id() as text)")
    return str(xid)


def _judge(conn: Connection, n: int, step: Step) -> None:
    """Judge every value as bytes; only then, in the same snapshot, may the server read it.  Raises: StepFailed for the first that is none."""
    layout = layouts.spoken(step.arguments["layout"])
    for part in step.arguments["parts"]:
        if not part["judged"]:
            continue
        with _driver(conn).cursor().copy(part["judged"].encode()) as values:
            values.set_types(["text", "bytea"])
            for place, data in values.rows():
                if why := layouts.fault(layout, data):
                    raise _no_such_value(n, step, f"the value at {place} of {part['relation']} is {why}")
        _send(conn, part["typed"])


def _no_such_value(n: int, step: Step, why: str) -> StepFailed:
    return StepFailed(
        f"Step {n + 1}: what lies on disk of {step.arguments['column']} is not of the type that it is taken for: {why}. Somebody changed its type "
        "before it was dropped, past the history. Nothing was kept. `mend undo` this run, which switches autovacuum on again; then plan with the "
        "right column_type; bytea is always right.",
        step=n,
    )


def _carried(writer: Writer, n: int, step: Step, reading: Connection, loading: Connection) -> list[tuple[int, Any]]:
    """Every relation's values, from one session to the other; rows and sum of each, as they are read."""
    found = []
    with _raw(reading), _raw(loading):
        for part in step.arguments["parts"]:
            try:
                _stream(reading, part["copy"], loading, step.arguments["copy_in"])
            except psycopg.DataError as error:
                raise _no_such_value(n, step, str(error).partition("\n")[0]) from error
    for part in step.arguments["parts"]:
        ((rows, total),) = _ask(reading, part["summed"])
        found.append((int(rows), total))
        writer.journal.append("values_read", {"step": n, "relation": part["relation"], "rows": int(rows)})
        writer.progress(f"step {n + 1}: {int(rows):,} values read from {part['relation']}")
    return found


@contextmanager
def _raw(conn: Connection) -> Iterator[None]:
    """Text goes through as its bytes are in the database."""
    ((before, own),) = _ask(conn, "select current_setting('client_encoding'), getdatabaseencoding()")
    _send(conn, f"set client_encoding = {literal(str(own))}")
    yield
    _send(conn, f"set client_encoding = {literal(str(before))}")


def _stream(reading: Connection, copy_out: str, loading: Connection, copy_in: str) -> None:
    try:
        with (
            _driver(reading).cursor().copy(copy_out.encode()) as source,
            _driver(loading).cursor().copy(copy_in.encode()) as goal,
        ):
            for block in source:
                goal.write(block)
    except psycopg.DataError:
        raise
    except psycopg.Error as error:
        raise DBAPIError(copy_out, None, error) from error


def _driver(conn: Connection) -> psycopg.Connection[Any]:
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def _send(conn: Connection, text: str) -> int:
    return max(conn.exec_driver_sql(text.replace("%", "%%")).rowcount, 0)


def _ask(conn: Connection, text: str) -> Sequence[Any]:
    return conn.exec_driver_sql(text.replace("%", "%%")).fetchall()
