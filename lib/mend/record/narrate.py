"""Tells what a running notebook does, from its journal, while the notebook itself keeps silent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mend.batches import progress as lines
from mend.record import account

_POLL_S = 0.15
_SPOKEN = {"step_started", "step_retried", "throttled", "waits"}  # a run tells these itself, on stderr


@contextmanager
def narrated(path: Path, progress: Callable[[str], None] | None) -> Iterator[None]:
    """Call ``progress`` with a sentence for each event that is added to the journal meanwhile."""
    if progress is None:
        yield
        return
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(path, progress, ended), name="mend-narrator", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join(timeout=5)


def _follow(path: Path, progress: Callable[[str], None], ended: threading.Event) -> None:
    position = path.stat().st_size
    while True:
        last_round = ended.wait(_POLL_S)
        with path.open("rb") as file:
            file.seek(position)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break  # half written
            position += len(line)
            event = json.loads(line)
            if event["kind"] not in _SPOKEN and (said := sentence(event)):
                progress(said)
        if last_round:
            return


def sentence(event: dict[str, Any]) -> str:
    """One event in words, or '' for one that needs none."""
    payload, kind = event["payload"], event["kind"]
    step = int(payload.get("step") or 0) + 1
    match kind:
        case "target_seen":
            return f"Target: database {payload.get('database')} on PostgreSQL {payload.get('server_version')}"
        case "check":
            return f"{payload.get('question')} {payload.get('says') or payload.get('why')}"
        case "planned":
            steps = payload.get("steps", 0)
            count = steps if isinstance(steps, int) else len(steps)
            return f"Plan {payload.get('digest')}: {payload.get('chosen')}, {count} {'step' if count == 1 else 'steps'}"
        case "apply_started":
            return f"Applying plan {payload.get('digest')}"
        case "step_started":
            return f"Step {step}: {payload.get('says')}"
        case "step_retried":
            return (
                f"Step {step}: no lock yet, attempt {payload.get('attempt')}; trying again in {payload.get('wait_s')} s"
            )
        case "batch_sample":
            return lines.line(step - 1, lines.from_payload(payload))
        case "throttled":
            return f"Step {step}: {payload.get('why')}"
        case "step_failed":
            return f"Step {step} failed: {payload.get('message')}"
        case "step_done":
            return f"Step {step}: done in {payload.get('seconds', 0)} s"
        case "step_resolved":
            return f"Step {step}: {payload.get('outcome')} ({payload.get('how')})"
        case "verified":
            said = account.conflicts_said(payload.get("conflicts", []))
            return said or ("Verified: healthy" if payload.get("healthy") else "Verified: not healthy")
        case "undone":
            return "Undone"
        case _:
            return ""
