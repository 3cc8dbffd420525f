"""What a journal amounts to: the outcome, the summary of record.json, the document of ``--json``.  Pure; no I/O.

record.json is a function of the journal and the files beside it, so whoever reads it can compute it again and compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mend.journal import Event
from mend.plan import Plan, Step

FORMAT = 1  # the "mend" key of record.json and of --json documents
OUTCOMES = ("completed", "planned", "failed", "interrupted", "unknown", "refused", "could_not_check")
_ERRORS = ("failed", "refused")
_LAST_WORDS = ("run_closed", *_ERRORS)
_NAMED = 5  # rows that did not go back, in words
_STEP_ENDS = ("step_done", "step_failed", "step_resolved")


def last(events: Sequence[Event], *kinds: str) -> dict[str, Any]:
    """The payload of the last event of these kinds, or {}."""
    return next((event.payload for event in reversed(events) if event.kind in kinds), {})


def outcome(events: Sequence[Event]) -> str:
    """One of OUTCOMES, by the journal's last words; a run without any was interrupted, or left a step in the air."""
    began = next((n for n, event in reversed(list(enumerate(events))) if event.kind == "apply_started"), 0)
    events = events[
        began:
    ]  # in JupyterLab a run may have been closed before its plan was applied: that is no end of it
    end = next((event for event in reversed(events) if event.kind in _LAST_WORDS), None)
    if end is None:
        return "unknown" if step_in_the_air(events) is not None or began else "interrupted"
    named = str(end.payload.get("outcome")) if end.kind == "run_closed" else _outcome_of_error(end.payload)
    if named == "unknown" and error(events).get("error") == "Interrupted":
        return "interrupted"
    return named if named in OUTCOMES else "failed"


def _outcome_of_error(payload: Mapping[str, Any]) -> str:
    return {4: "unknown", 3: "refused"}.get(int(payload.get("exit_code", 1)), "failed")


def error(events: Sequence[Event]) -> dict[str, Any]:
    """The error that ended the run: {error, message, exit_code}; {} where the run did not end by one."""
    for event in reversed(events):
        if event.kind in _ERRORS:
            return event.payload
        if event.kind in ("verified", "planned", "step_done"):
            return {}  # what failed before was done again, and went well
    return {}


def step_in_the_air(events: Sequence[Event]) -> int | None:
    """The step that was started and of which no end is known, or None."""
    for event in reversed(events):
        if event.kind in _STEP_ENDS:
            return int(event.payload.get("step", 0)) if event.payload.get("outcome") == "unknown" else None
        if event.kind == "step_started":
            return int(event.payload.get("step", 0))
    return None


def is_closed(events: Sequence[Event]) -> bool:
    """Whether the run said how it ended."""
    return any(event.kind in _LAST_WORDS for event in events)


def checks(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The checks of the diagnosis, each as answered last, in the order first asked."""
    answered: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.kind == "check":
            answered[str(event.payload.get("name"))] = event.payload
    return list(answered.values())


def summary(run_id: str, events: Sequence[Event], *, files: Mapping[str, str], leak: str = "") -> dict[str, Any]:
    """The content of record.json."""
    opened = last(events, "run_opened")
    target = last(events, "target_seen")
    content = {
        "mend": FORMAT,
        "run_id": run_id,
        **{key: opened.get(key, "") for key in ("slug", "action", "of", "incident")},
        "outcome": "failed" if leak else outcome(events),
        "says": _says(events),
        "started": events[0].time if events else "",
        "ended": events[-1].time if events else "",
        "who": {**opened.get("who", {}), "role": target.get("role", "")},
        "approver": last(events, "approved").get("approver", ""),
        **{key: opened.get(key, {}) for key in ("runbook", "parameters", "versions")},
        "target": target,
        "digest": last(events, "planned").get("digest", ""),
        "counts": _counts(events),
        **({"conflicts": left} if (left := conflicts(events)) else {}),
        "files": dict(files),
        "journal": {"length": len(events), "head": events[-1].hash if events else ""},
    }
    return content | ({"leak": leak} if leak else {})


def conflicts(events: Sequence[Event]) -> list[dict[str, Any]]:
    """What an undo did not give back, by step: ``{step, table, rows, conflicts, sample}``."""
    return list(last(events, "verified").get("conflicts", []))


def conflicts_said(found: Sequence[Mapping[str, Any]]) -> str:
    """The same in words; '' where everything went back.

    >>> conflicts_said([{"table": "public.t", "conflicts": 2, "sample": [{"key": ["7"], "reason": "changed since"}]}])
    '2 rows of public.t did not go back: 7 (changed since), and more. Schema mend keeps them as they were.'
    """
    return " ".join(
        f"{one['conflicts']:,} rows of {one['table']} did not go back: {_listed(one)}. Schema mend keeps them as they were."
        for one in found
    )


def _listed(one: Mapping[str, Any]) -> str:
    some = [f"{'/'.join(map(str, row['key']))} ({row['reason']})" for row in one["sample"][:_NAMED]]
    return "; ".join(some) + (", and more" if int(one["conflicts"]) > len(some) else "")


def _says(events: Sequence[Event]) -> str:
    """The error that ended the run, or what an undo left."""
    return str(error(events).get("message", "")) or conflicts_said(conflicts(events))


def _counts(events: Sequence[Event]) -> dict[str, int]:
    answered = checks(events)
    done = {event.payload.get("step"): event.payload.get("rows") or 0 for event in events if event.kind == "step_done"}
    resolved = {
        e.payload.get("step")
        for e in events
        if e.kind == "step_resolved" and e.payload.get("outcome") in ("committed", "done")
    }
    planned = last(events, "planned").get("steps", 0)
    return {
        "checks": sum(check.get("verdict") != "not_asked" for check in answered),
        "found": sum(check.get("verdict") == "found" for check in answered),
        "could_not_check": sum(check.get("verdict") == "could_not_check" for check in answered),
        "steps": planned if isinstance(planned, int) else len(planned),
        "steps_done": len({*done, *resolved}),
        "rows": sum(int(rows) for rows in done.values()),
    }


def document(run_id: str, path: str, events: Sequence[Event], plan: Plan | None) -> dict[str, Any]:
    """The document that ``plan``, ``apply``, ``undo`` and ``resume`` print with ``--json``."""
    opened = last(events, "run_opened")
    content: dict[str, Any] = {
        "mend": FORMAT,
        "run_id": run_id,
        "slug": opened.get("slug", ""),
        "action": opened.get("action", ""),
        "outcome": outcome(events),
        "says": _says(events),
        "target": last(events, "target_seen"),
        "checks": checks(events),
        "plan": _plan(plan) if plan else None,
        "record": path,
    }
    for kind in ("operations", "differences"):
        if found := last(events, kind):
            content[kind] = found.get("rows", [])
    if left := conflicts(events):
        content["conflicts"] = left
    refused = last(events, "refused")
    return content | ({"refused": refused} if refused else {})


def _plan(plan: Plan) -> dict[str, Any]:
    record = plan.as_record()
    return {
        "digest": record["digest"],
        "options": record["options"],
        "chosen": plan.chosen,
        "steps": [_step(step) for step in plan.steps],
        "warnings": list(plan.warnings),
        "next": plan.next,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "says": step.says,
        "sql": step.sql(),
        "locks": [{"relation": lock.relation, "mode": lock.mode} for lock in step.locks],
        "transactional": step.transactional,
        "rows_expected": step.rows_expected,
        "undo": [{"says": back.says, "sql": back.sql()} for back in step.undo],
        "irreversible": step.irreversible,
    }
