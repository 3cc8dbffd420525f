"""What an error in the middle of a step means: looked up in the database, journaled, and said with the way on.  Reads only."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from mend.change.writer import Writer
from mend.errors import (
    Interrupted,
    LockNotAcquired,
    MendError,
    OutcomeUnknown,
    PreconditionFailed,
    Refused,
    StepFailed,
    sqlstate,
)
from mend.execution import forecast, resolve
from mend.plan import Step
from mend.queue import ending

_OF_ROWS = ("backfill", "restore")  # they note in the target how far they are


def failed(writer: Writer, n: int, step: Step, error: DBAPIError) -> MendError:
    """What a driver's error means for the step, journaled; the outcome is looked up where it is in doubt."""
    code = sqlstate(error)
    state, outcome = _state_after(writer, n, step)
    said = writer.target.redact(str(error.orig).strip().splitlines()[0])
    writer.journal.append("step_failed", {"step": n, "sqlstate": code, "message": said, "outcome": outcome})
    text = f"Step {n + 1} ({step.says}) failed: {said}" + (f" (SQLSTATE {code})." if code else ".")
    if outcome == "unknown":
        return OutcomeUnknown(f"{text} {state} `mend resume {writer.run_id}` resolves it.", step=n, sqlstate=code)
    if code == "55P03":
        return LockNotAcquired(
            f"{text} {state} {forecast.named(forecast.in_the_way(writer, step))}. End the blocker or wait, then make a new plan.",
            step=n,
            sqlstate=code,
        )
    further = (
        "Rows that share its key have come meanwhile. Make a new plan: it clears what is left, mends them too, and builds again."
        if code == "23505" and outcome == "partial"
        else f"`mend resume {writer.run_id}` clears that and goes on, once the cause is mended."
        if outcome == "partial"
        else "Run as a role that may do this and from which row security hides nothing, then make a new plan."
        if code == "42501"
        else "Mend the cause, then make a new plan."
    )
    return StepFailed(f"{text} {state} Steps before it stand. {further}", step=n, sqlstate=code)


def stopped(writer: Writer, n: int, step: Step, error: MendError) -> MendError:
    """One of our own errors within a step, journaled; it speaks of the step alone, so what stands is added."""
    nothing_sent = isinstance(error, PreconditionFailed | Refused)
    state, outcome = (
        ("", "unknown")
        if isinstance(error, OutcomeUnknown) and step.kind not in _OF_ROWS
        else ("", "rolled_back")
        if nothing_sent
        else _state_after(writer, n, step)
    )
    writer.journal.append(
        "step_failed",
        {"step": n, "sqlstate": str(error.facts.get("sqlstate", "")), "message": error.message, "outcome": outcome},
    )
    if outcome == "unknown" and not isinstance(error, OutcomeUnknown):
        return OutcomeUnknown(
            f"Step {n + 1} ({step.says}) was cut off. {error.message} {state} `mend resume {writer.run_id}` resolves it.",
            step=n,
        )
    if isinstance(error, StepFailed | OutcomeUnknown) or n == 0:
        return error
    return StepFailed(f"Step {n + 1} ({step.says}) could not be run. {error.message} Steps before it stand.", step=n)


def interrupted(writer: Writer, n: int, step: Step) -> MendError:
    """What SIGINT means for the step, journaled; psycopg has cancelled its statement by now."""
    state, outcome = _state_after(writer, n, step)
    writer.journal.append(
        "step_failed", {"step": n, "sqlstate": "", "message": "interrupted by the operator", "outcome": outcome}
    )
    return Interrupted(
        f"Step {n + 1} ({step.says}) was interrupted. {state} `mend resume {writer.run_id}` goes on from here.", step=n
    )


def _state_after(writer: Writer, n: int, step: Step) -> tuple[str, str]:
    """(sentence, ``rolled_back`` | ``done`` | ``partial`` | ``unknown``) for a step that ended in an error."""
    try:
        resolve.await_survivors(writer.target, writer.application_name(n))
        found = resolve.outcome(writer.target, n, step, writer.journal.events())
    except OutcomeUnknown as error:
        return error.message, "unknown"
    except MendError:
        return "Whether it took effect is not known: the server could not be asked.", "unknown"
    sentence = {
        "not_done": f"{'It had no effect' if step.kind in ending.KINDS else 'It was rolled back'} ({found.how}).",
        "done": f"It took effect all the same ({found.how}).",
        "partial": f"It is done in part: {found.how}."
        if step.kind in _OF_ROWS
        else f"It left something behind: {found.how}.",
    }[found.state]
    return sentence, "rolled_back" if found.state == "not_done" else found.state
