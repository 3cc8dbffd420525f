"""Before a step asks for its locks: who holds or awaits what conflicts, so that the operator knows whom it would wait for.  Reads only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from mend.change import locks
from mend.change.writer import Writer
from mend.database import queries, sqltext
from mend.errors import MendError
from mend.plan import Lock, Step


def named(blockers: list[dict[str, Any]]) -> str:
    """The blockers in words: who holds what, for how long."""
    held = [b for b in blockers if b["granted"]]
    return (
        "; ".join(
            f"pid {b['pid']} ({b['role']}, {b['state']}, open {b['open_s'] or 0:.0f} s) holds {b['held']} on {b['relation']}"
            for b in held[:3]
        )
        or "no blocker is visible"
    )


def forecast(writer: Writer, n: int, step: Step) -> list[dict[str, Any]]:
    """Before asking for locks: who holds what conflicts, and how many sessions wait already."""
    if blockers := in_the_way(writer, step):
        writer.journal.append("lock_forecast", {"step": n, "blockers": blockers})
        writer.progress(
            f"step {n + 1}: {named(blockers)}; {sum(not b['granted'] for b in blockers)} sessions wait already"
        )
    return blockers


def in_the_way(writer: Writer, step: Step) -> list[dict[str, Any]]:
    """Sessions that hold or await what conflicts with the step's locks.  That nobody can be asked about stops no repair: lock_timeout guards it."""
    wanted = [lock for lock in step.locks if lock.relation != "?"]
    if not wanted:
        return []
    try:
        with writer.target.reading(writer.run_id) as conn:
            return [row for lock in wanted for row in _blockers(conn, lock)]
    except MendError as error:
        writer.progress(f"who is in the way could not be checked: {error.message}")
        return []


def _blockers(conn: Connection, lock: Lock) -> list[dict[str, Any]]:
    name = lock.relation.removeprefix(locks.TABLE_OF)
    frame = queries.frame(conn, "execute/blockers", relation=name, mode=lock.mode, of_index=name != lock.relation)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    # Other people's statements hold values, which are not to be journaled.
    return [
        {"relation": lock.relation, **{str(k): v for k, v in row.items()}, "query": sqltext.shape(str(row["query"]))}
        for row in rows
    ]
