"""What a step really did, read from the database: transaction ids, then the catalog.  Reads only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection

from mend.batches import batch, checkpoints
from mend.database import catalog, queries
from mend.database.target import Target
from mend.errors import OutcomeUnknown, PreconditionFailed
from mend.files import content_hash
from mend.journal import Event, sha256
from mend.plan import Expect, Plan, Step
from mend.queue import ending

_SURVIVOR_WAIT_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """Whether a step took effect, and how that is known.  ``partial``: it left something that ``restart`` clears."""

    state: Literal["done", "not_done", "partial"]
    how: str


def differences(conn: Connection, expects: Iterable[Expect]) -> list[str]:
    """One line per catalog object that is not as expected."""
    wanted = tuple(expects)
    if not wanted:
        return []
    live = catalog.facets(catalog.snapshot(conn))
    found = ((e, live.get((e.kind, e.identity))) for e in wanted)
    return [
        f"{e.kind} {e.identity}: expected {e.definition or '(absent)'}, found {now or '(absent)'}"
        for e, now in found
        if now != e.definition
    ]


def require(conn: Connection, expects: Iterable[Expect], who: str) -> None:
    """Raise PreconditionFailed unless every object is as expected."""
    if lines := differences(conn, expects):
        raise PreconditionFailed(
            f"{who} needs the database to be otherwise. "
            + "; ".join(lines)
            + ". This step did nothing. Make a new plan."
        )


def transaction(target: Target, xid: str) -> str:
    """``committed``, ``aborted``, ``in progress`` or ``too old`` (pg_xact_status, PostgreSQL docs 9.28)."""
    with target.reading() as conn:
        return str(queries.frame(conn, "execute/transaction_status", xid=xid)["status"].iloc[0])


def await_survivors(target: Target, application_name: str) -> None:
    """Wait until no session of that name (or beginning so) is left on the server, so that nothing can still commit.

    Raises: OutcomeUnknown naming the sessions that stay.
    """
    deadline = time.monotonic() + _SURVIVOR_WAIT_S
    while True:
        with target.reading() as conn:
            alive = queries.frame(conn, "execute/own_backends", prefix=application_name)
        if alive.empty:
            return
        if time.monotonic() > deadline:
            pids = ", ".join(f"pid {row.pid} ({row.state}: {row.query})" for row in alive.itertuples())
            raise OutcomeUnknown(
                f"Sessions {application_name} are still at work: {pids}. Nothing was started. Wait for them, or end them, then `mend resume`."
            )
        time.sleep(0.5)


def outcomes(target: Target, plan: Plan, events: Sequence[Event]) -> dict[int, Outcome]:
    """For every step of an interrupted run: done, not done or partial, and how that is known.

    Call ``await_survivors`` first.  Raises: OutcomeUnknown where even the database cannot tell.
    """
    return {n: outcome(target, n, step, events) for n, step in enumerate(plan.steps)}


def outcome(target: Target, n: int, step: Step, events: Sequence[Event]) -> Outcome:
    """Step ``n`` judged by the journal, its transaction id and the catalog, in that order."""
    events = [event for event in events if event.payload.get("step") == n]
    kinds = [event.kind for event in events]
    if not events:
        return Outcome("not_done", "it was never started")
    if "step_done" in kinds:
        return Outcome("done", "the journal says so")
    xids = [str(event.payload["xid"]) for event in events if event.kind == "step_xid"]
    if step.kind == "file":
        return by_content(n, step)
    if step.kind in ("backfill", "restore"):
        return by_checkpoints(target, step)
    if step.kind == "wait":
        return Outcome("not_done", "it only waited")
    if step.kind in ending.KINDS:
        return by_session(target, step)
    if step.kind == "upgrade":
        return _by_transactions(target, n, step, xids)
    if step.kind in ("sql", "recover") and step.transactional:
        return (
            _by_transaction(target, n, step, xids[-1])
            if xids
            else Outcome("not_done", "COMMIT was never sent: its transaction id would be in the journal")
        )
    return by_catalog(target, n, step)


def by_content(n: int, step: Step) -> Outcome:
    """A step that replaces, makes or removes a file, judged by what the file holds: that is done in one go."""
    path, text = Path(step.arguments["path"]), step.arguments["text"]
    present = content_hash(path)
    if present == ("" if text is None else sha256(str(text))):
        return Outcome("done", f"{path.name} {'is gone' if text is None else 'holds the new text'}")
    if present == step.arguments["sha256"]:
        return Outcome("not_done", f"{path.name} {'holds the old text' if present else 'was not made'}")
    raise OutcomeUnknown(
        f"Step {n + 1} ({step.says}): {path} holds neither the old text nor the new one. Nothing was started. Look at the file, then make a new plan."
    )


def by_checkpoints(target: Target, step: Step) -> Outcome:
    """A repair of many rows, or its way back, judged by what it notes with every batch in schema mend."""
    job = batch.job_of(step)
    with target.reading() as conn:
        found = checkpoints.standing(conn, job)
    how = f"{job.table('range')} says {found.state}, {found.rows:,} rows changed, {found.open_ranges} of {found.ranges} ranges open"
    ends = {"backfill": "done", "restore": "restored"}
    if found.state == ends[step.kind]:
        return Outcome("done", how)
    begun = {"backfill": ("open",), "restore": ("restoring",)}
    if found.state in begun[step.kind]:
        return Outcome("partial", how)
    return Outcome("not_done", how if found.state != "absent" else f"{job.table('range')} was never made")


def by_session(target: Target, step: Step) -> Outcome:
    """A step that ends a session or a prepared transaction, judged by whether that is still there."""
    with target.reading() as conn:
        return Outcome(*ending.standing(conn, step))


def _by_transaction(target: Target, n: int, step: Step, xid: str) -> Outcome:
    status = transaction(target, xid)
    if status == "committed":
        return Outcome("done", f"transaction {xid} is committed")
    if status == "aborted":
        return Outcome("not_done", f"transaction {xid} is aborted")
    if status == "in progress":
        raise OutcomeUnknown(
            f"Transaction {xid} of step {n + 1} is still in progress. Nothing was started. Wait for it, then resume again."
        )
    return by_catalog(target, n, step)


def _by_transactions(target: Target, n: int, step: Step, xids: Sequence[str]) -> Outcome:
    """A step of several transactions, and of statements in none: done or not done as a whole, or not for us to tell."""
    states = {xid: transaction(target, xid) for xid in xids}
    if going_on := [xid for xid, state in states.items() if state == "in progress"]:
        raise OutcomeUnknown(
            f"Transaction {going_on[0]} of step {n + 1} is still in progress. Nothing was started. Wait for it, then resume again."
        )
    with target.reading() as conn:
        missing, moved = differences(conn, step.after), differences(conn, step.before)
    if not missing:
        return Outcome("done", "what it makes is there, as planned")
    if not moved and all(state == "aborted" for state in states.values()):
        return Outcome("not_done", "none of its transactions committed, and the catalog is as it was before the step")
    raise OutcomeUnknown(
        f"Step {n + 1} ({step.says}) committed some of its work: {'; '.join(missing)}. Nothing was started. Make a new plan: it tells which operations are there."
    )


def by_catalog(target: Target, n: int, step: Step) -> Outcome:
    """A step judged by what it leaves, where no transaction id can tell."""
    if not step.after:
        raise OutcomeUnknown(
            f"Step {n + 1} ({step.says}) leaves no trace in the catalog. It is not known whether it ran. Look at its tables, then make a new plan."
        )
    with target.reading() as conn:
        missing = differences(conn, step.after)
        if not missing:
            return Outcome("done", "what it makes is there, as planned")
        if not differences(conn, step.before):
            return Outcome("not_done", "the catalog is as it was before the step")
        ours = _half_done(conn, step)
    if step.restart and ours:
        return Outcome("partial", "; ".join(missing))
    raise OutcomeUnknown(
        f"Step {n + 1} ({step.says}) is neither done nor undone: {'; '.join(missing)}. Nothing was started. Make a new plan."
    )


def _half_done(conn: Connection, step: Step) -> bool:
    """Whether each object is the one that the step makes or takes away, in whatever state: somebody else's is never cleared."""
    live = catalog.facets(catalog.snapshot(conn))
    known = {
        (e.kind, e.identity, catalog.index_state(e.definition)[0]) for e in (*step.before, *step.after) if e.definition
    }
    there = [
        (*key, catalog.index_state(live[key])[0]) for key in {(e.kind, e.identity) for e in step.after} if key in live
    ]
    return all(one in known for one in there)
