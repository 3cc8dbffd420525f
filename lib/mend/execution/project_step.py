"""The step that runs a project's own upgrade() on the target: under the project's interpreter, statement by statement.

Each statement is journaled before the child may send it, and each transaction id before its COMMIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mend.database.target import Identity, redact
from mend.errors import MendError, OutcomeUnknown, ProjectBroken, StepFailed, WrongDatabase
from mend.histories.project import Project, ask
from mend.journal import Journal
from mend.plan import Step

TIMEOUT_S = 24 * 3600.0  # a backfill in upgrade() may take hours; the server's own timeouts are the shorter leash


def run(
    project: Project,
    step: Step,
    *,
    identity: Identity,
    journal: Journal,
    n: int,
    limits: Mapping[str, str],
) -> int:
    """Run one revision's upgrade() without the statements in ``step.arguments["skip"]``; the number of statements sent.

    ``limits`` are settings for every session that the child opens.

    Raises: WrongDatabase before anything is sent; StepFailed when it was rolled back; OutcomeUnknown when a commit may have passed.
    """
    sent: list[str] = []
    lasting: list[str] = []  # what a rollback does not take back: commits, and statements outside a transaction

    def on_event(event: Mapping[str, Any]) -> None:
        if event["event"] == "context":
            _require_target(event, identity)
        elif event["event"] == "statement" and not event["skipped"]:
            journal.append("statement_started", {"step": n, "sql": event["sql"], "autocommit": event["autocommit"]})
            sent.append(event["sql"])
            lasting.extend([event["sql"]] if event["autocommit"] else [])
        elif event["event"] == "commit":
            journal.append("step_xid", {"step": n, "xid": event["xid"]})
            lasting.append(event["xid"])

    request = {
        "action": "upgrade",
        "revision": step.arguments["revision"],
        "skip": list(step.arguments["skip"]),
        "recorded": list(step.arguments["recorded"]),
        "rows": step.arguments["rows"],
        "settings": dict(limits),
        "expected": {"system_identifier": identity.system_identifier, "database": identity.database},
    }
    try:
        last = ask(project, request, timeout_s=TIMEOUT_S, on_event=on_event)[-1]
    except ProjectBroken as error:
        if not sent:
            raise
        raise _cut_off(
            f"Step {n + 1}: the project's process ended in the middle of upgrade(). {error.message.splitlines()[-1]}.",
            lasting,
        ) from error
    if last["event"] == "error":
        raise _failed(last, n, sent, lasting)
    return len(sent)


def _require_target(context: Mapping[str, Any], identity: Identity) -> None:
    """The child's own connection must be the target's."""
    found = (context["system_identifier"], context["database"])
    if found != (identity.system_identifier, identity.database):
        raise WrongDatabase(f"env.py led to {found[1]} (cluster {found[0]}), not to the target. Nothing was sent.")


def _failed(error: Mapping[str, Any], n: int, sent: list[str], lasting: list[str]) -> MendError:
    said = f"Step {n + 1}: upgrade() failed: {error['kind']}: {redact(error['message']).splitlines()[0]}."
    if error.get("refused") and not sent:
        return WrongDatabase(f"{said} Nothing was sent.")
    return _cut_off(said, lasting, sqlstate=error["sqlstate"])


def _cut_off(said: str, lasting: list[str], *, sqlstate: str = "") -> MendError:
    """An upgrade() that did not come to its end: rolled back as a whole, unless a part of it was committed."""
    if lasting:
        return OutcomeUnknown(
            f"{said} A part of it may be committed. Make a new plan: it tells which operations are there.",
            sqlstate=sqlstate,
        )
    return StepFailed(
        f"{said} It was rolled back: no transaction was committed. Mend the cause, then make a new plan.",
        sqlstate=sqlstate,
    )
