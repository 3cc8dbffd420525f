"""The questions about what was dropped already, each with its answer.  Pure."""

from __future__ import annotations

from functools import partial

import pandas as pd

from mend.diagnosis import Check
from mend.loss.recoverable import Facts

COLUMNS = ["table", "number", "column", "type", "dropped by", "transaction", "bytes of a value", "how it is known"]
ROWS = [
    "table",
    "number",
    "rows as old as the column",
    "rows written since",
    "written anew as a whole",
    "could not count",
]
MOST = 200


def dropped(facts: Facts) -> Check:
    """Which dropped columns may have values on disk?"""
    asks = partial(
        Check,
        name="dropped",
        question="Which dropped columns may have values on disk still?",
        healthy_when="No column that you miss is among them.",
    )
    if not facts.asked:
        rows = [_row(one, None, "") for one in facts.every[:MOST]]
        several = f"{len(facts.every)} dropped columns" if len(facts.every) != 1 else "1 dropped column"
        tables = len({one.root for one in facts.every})
        says = (
            f"{several} of {tables} tables may have values on disk. If you miss one, name its table and column."
            if facts.every
            else "No table has a dropped column."
        )
        return asks(verdict="healthy", says=says, frame=pd.DataFrame(rows, columns=COLUMNS))
    told = f" The history does not tell: {facts.unknown}." if facts.unknown else ""
    frame = pd.DataFrame([_row(one.dropped, one.column, one.why) for one in facts.candidates], columns=COLUMNS)
    if not facts.candidates:
        return asks(verdict="healthy", says="That table has no dropped column.", frame=frame)
    if facts.lost is None:
        return asks(
            verdict="found",
            says=f"{len(facts.candidates)} columns of it were dropped. Say which one is meant: column, or attnum.{told}",
            frame=frame,
        )
    lost = facts.lost
    by = f", dropped by revision {lost.match.column.revision}" if lost.match.column else ""
    says = f"{lost.identity} is column {lost.match.dropped.attnum}{by}: {lost.definition or 'its type is not known'}.{told}"
    if lost.against:
        return asks(verdict="could_not_check", says=says, frame=frame, why=lost.against)
    return asks(verdict="found", says=says, frame=frame)


def _row(one: object, column: object, why: str) -> dict[str, object]:
    return {
        "table": getattr(one, "relation", ""),
        "number": getattr(one, "attnum", 0),
        "column": getattr(column, "identity", ""),
        "type": getattr(column, "definition", ""),
        "dropped by": getattr(column, "revision", ""),
        "transaction": getattr(one, "dropped_xid", ""),
        "bytes of a value": "varies" if getattr(one, "length", 0) < 0 else str(getattr(one, "length", 0)),
        "how it is known": why,
    }


def readable(facts: Facts) -> Check:
    """How many of its values can still be read?"""
    asks = partial(
        Check,
        name="readable",
        question="How many of its values can be read still, and why not the others?",
        healthy_when="Every row is as old as the column, and the table was not written anew since.",
    )
    if facts.lost is None:
        return asks(verdict="not_asked", says="No dropped column was named.")
    anew = {one.relation: one.rewritten for one in facts.lost.places}
    frame = pd.DataFrame(
        [
            {
                "table": one.relation, "number": one.attnum, "rows as old as the column": one.older, "rows written since": one.written,
                "written anew as a whole": "perhaps" if anew[one.relation] else "no", "could not count": one.why,
            }
            for one in facts.rows
        ],
        columns=ROWS,
    ).astype({"rows as old as the column": "Int64", "rows written since": "Int64"})  # fmt: skip
    if why := next((one.why for one in facts.rows if one.why), ""):
        return asks(verdict="could_not_check", says="They could not be counted.", frame=frame, why=why)
    written = sum(one.written or 0 for one in facts.rows)
    says = f"{facts.readable:,} rows are as they were when the column was dropped: each value that was not null then can be read. "
    if written:
        says += f"{written:,} rows came or were updated since, and hold none: PostgreSQL writes NULL in its place. "
    if any(anew.values()):
        says += "The table may have been written anew as a whole since (VACUUM FULL, CLUSTER, a change of type); then nothing is left, and the reading tells. "
    column = facts.lost.match.column
    if column and column.default:
        says += f"The column had the default {column.default}: rows from before the column was added may have had that without holding it, and are read as NULL. "
    return asks(verdict="found", says=says.strip(), frame=frame)


def evidence_at_risk(facts: Facts) -> Check:
    """What is about to destroy the evidence?"""
    asks = partial(
        Check,
        name="at_risk",
        question="What may destroy what is left?",
        healthy_when="Autovacuum is off for the table until the values are read, and nobody updates its rows.",
    )
    if facts.lost is None:
        return asks(verdict="not_asked", says="No dropped column was named.")
    frame = facts.vacuums
    running = frame[frame["vacuum_pid"].notna()]
    off = ["autovacuum_enabled=off" in options or "autovacuum_enabled=false" in options for options in frame["options"]]
    says = "Every update of a row takes its value; VACUUM FULL, CLUSTER and a change of type take all. "
    says += f"Autovacuum is at work on it now (pid {int(running['vacuum_pid'].iloc[0])}). " if len(running) else ""
    says += (
        "Autovacuum is off for it; if a run of mend that failed did that, `mend undo` that run."
        if all(off)
        else "Autovacuum clears away what the rows held before they were updated; the plan switches it off first, and back on at the end."
    )
    return asks(verdict="found", says=says, frame=frame, sql=frame.attrs.get("sql", ""))
