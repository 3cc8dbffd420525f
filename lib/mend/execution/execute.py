"""Applies a plan to a target; with `runners`, which only it calls, the only code that writes to one.

The steps run in order, one session each.  Every step is journaled before its SQL is sent; a transactional step journals
its transaction id before COMMIT, so that after any crash the outcome is read from the database, never guessed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mend.change.writer import Writer
from mend.database import queries
from mend.errors import Interrupted, MendError, PlanConsumed, PlanIsStale, Refused, TargetBusy, from_driver, sqlstate
from mend.execution import forecast, mishap, resolve, runners
from mend.plan import Plan, Step
from mend.record import ledger

ADVISORY_CLASS = 0x6D656E64  # "mend"
_HOLD_WAIT_S = 5.0
_RETRY_STATES = {"55P03", "40P01"}  # lock_not_available, deadlock_detected: nothing was done, asking again is safe
_BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)


def apply(writer: Writer, plan: Plan, *, action: str = "apply", done: frozenset[int] = frozenset()) -> None:
    """Run the steps of an approved plan that are not in ``done``.

    Raises: TargetBusy, PlanConsumed, Refused before anything is written; StepFailed, LockNotAcquired, TooManyRows when a step was
    rolled back; OutcomeUnknown, Interrupted when the outcome must be resolved by ``mend resume``.
    """
    with _held(writer) as still_held:
        _open_ledger(writer, plan, action, done)
        outcome = "failed"
        try:
            for n, step in enumerate(plan.steps):
                if n not in done:
                    still_held()
                    _run(writer, n, step)
            outcome = "done"
        finally:
            # The anchor is evidence, not the repair: its loss must not mask the step's error.
            with suppress(MendError, SQLAlchemyError):
                _close_ledger(writer, outcome)


@contextmanager
def _held(writer: Writer) -> Iterator[Callable[[], None]]:
    """Keep other runs away by a session advisory lock on a connection of its own, in autocommit.

    Polled, never waited for in the server: a session blocked in pg_advisory_lock() holds a snapshot that CREATE INDEX
    CONCURRENTLY would wait for.  Yields a check that the lock is still held (a pooler in transaction mode loses it).
    """
    with writer.target.writing(f"mend:{writer.run_id}:lock", version_num=writer.identity.version_num) as conn:
        deadline = time.monotonic() + _HOLD_WAIT_S
        while not conn.exec_driver_sql("select pg_try_advisory_lock(%s, 0)", (ADVISORY_CLASS,)).scalar():
            if time.monotonic() > deadline:
                raise _busy(conn, writer)
            time.sleep(0.25)
        mine = conn.exec_driver_sql("select pg_backend_pid()").scalar()

        def still_held() -> None:
            try:
                held = set(queries.frame(conn, "execute/holder", classid=ADVISORY_CLASS)["pid"])
            except SQLAlchemyError:  # the session is gone, and its lock with it
                held = set()
            if mine not in held:
                raise Interrupted(
                    f"The lock that keeps other runs away was lost (a pooler in transaction mode?). No further step was started. Connect to the server directly, then `mend resume {writer.run_id}`."
                )

        still_held()
        yield still_held
        with suppress(SQLAlchemyError):
            conn.exec_driver_sql("select pg_advisory_unlock(%s, 0)", (ADVISORY_CLASS,))


def _busy(conn: Connection, writer: Writer) -> TargetBusy:
    holders = queries.frame(conn, "execute/holder", classid=ADVISORY_CLASS)
    who = ", ".join(f"{h.application} (pid {h.pid}, role {h.role}, since {h.since})" for h in holders.itertuples())
    return TargetBusy(
        f"Another run of mend holds {writer.identity.database}: {who or 'not visible'}. Nothing was changed. Wait for it to end and run again."
    )


def _open_ledger(writer: Writer, plan: Plan, action: str, done: frozenset[int]) -> None:
    """Make the ledger where it is missing and consume the plan's digest.

    The journal says so before COMMIT: a plan that is consumed on the target and of which the journal knows nothing could be
    neither applied nor resumed.

    Raises: Refused where the schema is somebody else's; PlanConsumed; PrivilegeMissing.
    """
    with writer.target.writing(writer.application_name(-1), version_num=writer.identity.version_num) as conn:
        try:
            with runners.transaction(conn, writer):
                if ledger.state(conn, writer.schema) == "absent":
                    for text in ledger.schema_statements(writer.schema):
                        conn.exec_driver_sql(text)
                _require_ours(conn, writer)
                for text in ledger.missing_statements(conn, writer.schema):
                    conn.exec_driver_sql(text)
                _require_none_since(conn, writer, plan, action)
                conn.exec_driver_sql(
                    *ledger.begin_run(
                        writer.schema,
                        run_id=writer.run_id,
                        slug=plan.slug,
                        digest=_consumes(plan, action, writer),
                        action=action,
                    )
                )
                writer.journal.append(
                    "apply_started",
                    {"digest": plan.digest(), "steps": len(plan.steps), "action": action, "done": sorted(done)},
                )
        except DBAPIError as error:
            if sqlstate(error) == "23505":
                raise PlanConsumed(
                    f"Plan {plan.digest()} was applied to this database already; a plan applies once. Nothing was changed now. Make a new plan."
                ) from error
            raise from_driver(
                error,
                f"The ledger (schema {writer.schema}) could not be written",
                "Nothing was changed.",
                "Grant CREATE on the database, or name a schema you own with `schema =` in mend.toml.",
            ) from error


def _require_ours(conn: Connection, writer: Writer) -> None:
    """Asked after the ledger was made: somebody else may have made one of that name just before."""
    if why := ledger.why_foreign(conn, writer.schema):
        raise Refused(
            f"Schema {writer.schema} cannot be used: {why}. Nothing was changed. Name another with `schema =` in mend.toml."
        )


def _require_none_since(conn: Connection, writer: Writer, plan: Plan, action: str) -> None:
    """Asked while no other run can begin: one may have ended between the look that this plan was made from and now."""
    if action != "apply" or "last_run" not in plan.evidence:
        return
    last = ledger.last(conn, writer.schema)
    if last is not None and last.run_id != plan.evidence["last_run"]:
        raise PlanIsStale(
            f"Run {last.run_id} was applied to this database while this one waited for it. Nothing was changed. Make a new plan and review it."
        )


def _consumes(plan: Plan, action: str, writer: Writer) -> str:
    """What must be unique: a plan's digest once per apply; a resume or an undo once per run."""
    return plan.digest() if action == "apply" else f"{plan.digest()}:{action}:{writer.run_id}"


def _close_ledger(writer: Writer, outcome: str) -> None:
    """Anchor the journal's head and length in the target."""
    last = writer.journal.append("applied" if outcome == "done" else "apply_ended", {"outcome": outcome})
    with (
        writer.target.writing(writer.application_name(-2), version_num=writer.identity.version_num) as conn,
        runners.transaction(conn, writer),
    ):
        conn.exec_driver_sql(
            *ledger.end_run(writer.schema, run_id=writer.run_id, outcome=outcome, length=last.seq + 1, head=last.hash)
        )


def _run(writer: Writer, n: int, step: Step) -> None:
    """One step: journal, look, act, journal."""
    writer.journal.append(
        "step_started",
        {"step": n, "says": step.says, "sql": step.sql(), "application_name": writer.application_name(n)},
    )
    writer.progress(f"step {n + 1}: {step.says}")
    started = time.monotonic()
    try:
        rows = _insist(writer, n, step)
    except DBAPIError as error:
        raise mishap.failed(writer, n, step, error) from error
    except KeyboardInterrupt as interrupt:
        raise mishap.interrupted(writer, n, step) from interrupt
    except MendError as error:
        raise mishap.stopped(writer, n, step, error) from error
    writer.journal.append("step_done", {"step": n, "rows": rows, "seconds": round(time.monotonic() - started, 3)})


def _insist(writer: Writer, n: int, step: Step) -> int:
    """Try a step; where a lock was not granted, nothing can have happened and the step allows it, give way and try again."""
    for attempt, wait_s in enumerate(_BACKOFF_S, start=1):
        blockers = forecast.forecast(writer, n, step)
        try:
            return runners.run(writer, n, step)
        except DBAPIError as error:
            if not step.retryable or sqlstate(error) not in _RETRY_STATES:
                raise
        _back_off(writer, n, attempt, random.uniform(wait_s / 2, wait_s), blockers)
    forecast.forecast(writer, n, step)
    return runners.run(writer, n, step)


def _back_off(writer: Writer, n: int, attempt: int, wait_s: float, blockers: list[dict[str, Any]]) -> None:
    writer.journal.append(
        "step_retried", {"step": n, "attempt": attempt, "wait_s": round(wait_s, 2), "blockers": blockers}
    )
    writer.progress(
        f"step {n + 1}: lock not granted within {writer.lock_timeout_ms} ms; {forecast.named(blockers)}; trying again in {wait_s:.1f} s"
    )
    time.sleep(wait_s)


def undo(writer: Writer, plan: Plan) -> None:
    """Run a plan made by ``Plan.undone``; its steps refuse where the database is no longer as the applied plan left it."""
    apply(writer, plan, action="undo")


def resume(writer: Writer, plan: Plan, found: Mapping[int, resolve.Outcome]) -> None:
    """Go on with an interrupted plan: steps found done are not repeated, half-done ones are cleared first."""
    for n, outcome in found.items():
        writer.journal.append("step_resolved", {"step": n, "outcome": outcome.state, "how": outcome.how})
    steps = tuple(_restarted(step) if found[n].state == "partial" else step for n, step in enumerate(plan.steps))
    done = frozenset(n for n, outcome in found.items() if outcome.state == "done")
    apply(writer, replace(plan, steps=steps), action="resume", done=done)


def _restarted(step: Step) -> Step:
    """A repair of rows goes on by itself from its checkpoints; anything else clears what it left and begins anew."""
    if step.kind in ("backfill", "restore"):
        return step
    return replace(step, statements=(*step.restart, *step.statements), before=())
