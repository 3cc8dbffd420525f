"""What mend notes in the target itself of a change that is made in several runs: which phase was done, by which run, and what is to be taken away again.

A table in schema mend, written by the plan's own steps and so shown with them; its rows go again with the step's undo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql as pgsql
from sqlalchemy import Connection

from mend.plan import Statement
from mend.record import ledger

_NAME = "phase"
PHASES = ("expand", "backfill", "contract")
SHIM = "shim"  # the phase under which an emergency repair is noted


@dataclass(frozen=True)
class Note:
    """One phase that was done: of which change, what it says, by which run, when (UTC)."""

    change: str
    phase: str
    says: str
    run_id: str
    noted_at: datetime


def _place(schema: str) -> pgsql.Identifier:
    return pgsql.Identifier(schema, _NAME)


def noted(schema: str, *, change: str, phase: str, says: str) -> tuple[Statement, ...]:
    """Statements that note a phase as done by the run that is at work; they make the table, readable by its owner only, where it is missing."""
    table, values = _place(schema), [pgsql.Literal(one) for one in (change, phase, says)]
    made = pgsql.SQL(
        "create table if not exists {} (change text not null, phase text not null, says text not null, run_id text not null, "
        "noted_at timestamptz not null default clock_timestamp(), primary key (change, phase))"
    ).format(table)
    row = pgsql.SQL(
        "insert into {0} (change, phase, says, run_id) select {2}, {3}, {4}, run_id from {1} where action <> 'undo' order by started_at desc limit 1 "
        "on conflict (change, phase) do update set says = excluded.says, run_id = excluded.run_id, noted_at = clock_timestamp()"
    ).format(table, pgsql.Identifier(schema, "run"), *values)
    revoked = pgsql.SQL("revoke all on {} from public").format(table)
    void = pgsql.SQL("delete from {} where change = {} and phase <> {}").format(table, *values[:2])
    again = (
        [_statement(void)] if phase == PHASES[0] else []
    )  # the change was made before, and taken back by an alembic downgrade
    return (_statement(made), _statement(revoked), *again, _statement(row, 1))


def forgotten(schema: str, *, change: str, phase: str) -> tuple[Statement, ...]:
    """Statements that take the note away again; a phase that came after it is to be undone before."""
    table, own = _place(schema), pgsql.Literal(change)
    made = []
    if phase in PHASES and (later := PHASES[PHASES.index(phase) + 1 :]):
        text = pgsql.SQL(
            "/* must find no row: undo the run of the later phase first */ select phase, run_id from {} where change = {} and phase in ({})"
        )
        listed = pgsql.SQL(", ").join(map(pgsql.Literal, later))
        made.append(_statement(text.format(table, own, listed), 0))
    gone = pgsql.SQL("delete from {} where change = {} and phase = {}").format(table, own, pgsql.Literal(phase))
    return (*made, _statement(gone))


def _statement(text: pgsql.Composed, rows: int | None = None) -> Statement:
    return Statement(text.as_string(None), exactly=rows)


def standing(conn: Connection, schema: str) -> tuple[Note, ...]:
    """The notes in the target, oldest first; none where schema mend is missing or somebody else's."""
    if ledger.state(conn, schema) != "ours":
        return ()
    place = _place(schema).as_string(None)
    if conn.exec_driver_sql("select to_regclass(%s) is null", (place,)).scalar():
        return ()
    found = conn.exec_driver_sql(
        f"select change, phase, says, run_id, noted_at from {place.replace('%', '%%')} order by noted_at, phase"
    )
    return tuple(Note(*row) for row in found)


def standing_changes(noted: Iterable[Note]) -> tuple[Note, ...]:
    """The phases of changes that were begun and did not come to their contract."""
    found = tuple(one for one in noted if one.phase in PHASES)
    done = {one.change for one in found if one.phase == PHASES[-1]}
    return tuple(one for one in found if one.change not in done)
