"""Waiting, bounded, until a queue has drained: a step that only looks, every half second, each time in a transaction of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mend.batches.progress import Live
from mend.change.writer import Writer
from mend.database.target import Target
from mend.errors import MendError, StepFailed
from mend.plan import Step
from mend.queue import waits
from mend.queue.forest import Forest, counted

_EVERY_S = 0.5


def step(*, min_wait_s: float, patience_s: float) -> Step:
    """Wait until nobody waits longer than ``min_wait_s`` seconds, at most ``patience_s`` seconds."""
    return Step(
        says=f"Wait, at most {patience_s:g} s, until nobody has waited for a lock longer than {min_wait_s:g} s",
        kind="wait",
        statements=(),
        transactional=False,
        retryable=False,
        arguments={"min_wait_s": float(min_wait_s), "patience_s": float(patience_s)},
    )


def run(writer: Writer, n: int, step: Step) -> int:
    """Look until the queue has drained; 0.  Raises: StepFailed naming who still waits, and behind whom."""
    left = until_drained(
        writer.target,
        writer.run_id,
        min_wait_s=float(step.arguments["min_wait_s"]),
        patience_s=float(step.arguments["patience_s"]),
        progress=lambda text: writer.progress(Live(f"step {n + 1}: {text}")),
    )
    writer.journal.append("waited", {"step": n, "still_waiting": len(left.late), "behind": left.behind})
    if left.late:
        raise StepFailed(
            f"Step {n + 1}: after {step.arguments['patience_s']:g} s {left.words()}. Nothing was changed. Wait longer (patience_s), or choose another option.",
            step=n,
        )
    return 0


class Left:
    """Who waits too long in one forest, and behind whom."""

    def __init__(self, forest: Forest, min_wait_s: float) -> None:
        self.forest = forest
        self.late: Sequence[int] = [pid for pid, wait in forest.wait_of.items() if wait.wait_s >= min_wait_s]
        roots = {root for pid in self.late for root in forest.roots_above(pid)}
        self.behind = [forest.told(key) for key in forest.roots if key in roots]

    def words(self) -> str:
        """In words."""
        longest = max((self.forest.wait_of[pid].wait_s for pid in self.late), default=0.0)
        return f"{counted(len(self.late), 'session')} still wait{'s' if len(self.late) == 1 else ''}, the longest for {longest:,.0f} s, behind {'; '.join(self.behind[:3])}"


def until_drained(
    target: Target, run_id: str, *, min_wait_s: float, patience_s: float, progress: object = None
) -> Left:
    """Look until nobody waits that long, or the time is over; the last look.  One that fails is followed by another, the last one not."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with waits.glance(target, run_id) as conn:
                left = Left(waits.look(conn), min_wait_s)
            if not left.late or time.monotonic() >= deadline:
                return left
            if callable(progress):
                progress(f"{left.words()}; looking on for {deadline - time.monotonic():.0f} s")
        except MendError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_EVERY_S)
