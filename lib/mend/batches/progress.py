"""How far a backfill is, as one line, and how often that line is worth saying.  Imports nothing heavy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_BEAT_S, _LONGEST_BEAT_S = 5.0, 60.0
_BEATS = 20  # of a run so far: the longer it lasts, the rarer they get


class Live(str):
    """A line that takes the place of the one before, where the reader can show that; elsewhere it is a line like any other.

    ``share``: how much is done, 0 to 1, or None where that is not known; ``slowed``: something throttles.
    """

    __slots__ = ("share", "slowed")
    share: float | None
    slowed: bool

    def __new__(cls, text: str, share: float | None = None, *, slowed: bool = False) -> Live:
        """The text with what a bar shows."""
        made = super().__new__(cls, text)
        made.share, made.slowed = share, slowed
        return made


@dataclass(frozen=True)
class Sample:
    """The pace of about a second, as it is journaled (``batch_sample``) and told.

    ``rows`` changed so far, also before a crash; ``total_estimate`` rows and ``left_s`` seconds, None where unknown; ``batch_ms`` and
    ``batch_rows``: the mean of the batches since the last sample, 0 where there was none; ``why`` it is slowed, or '';
    ``through``: share of the table that was looked at, 0 to 1, or None; ``worst_ms``: the longest batch since the last sample.
    """

    rows: int
    total_estimate: int | None
    rows_per_s: float
    batch_ms: float
    batch_rows: int
    workers: int
    why: str = ""
    left_s: float | None = None
    through: float | None = None
    worst_ms: float = 0.0

    def payload(self, step: int) -> dict[str, Any]:
        """The event's content."""
        return {"step": step} | asdict(self)

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 1."""
        if self.through is not None:
            return min(max(self.through, 0.0), 1.0)
        return min(self.rows / self.total_estimate, 1.0) if self.total_estimate else None


def from_payload(payload: Mapping[str, Any]) -> Sample:
    """A sample as it was journaled; what an older or newer mend did not write, or wrote more, is passed over."""
    known = {field.name for field in fields(Sample)}
    blank = {"rows": 0, "total_estimate": None, "rows_per_s": 0.0, "batch_ms": 0.0, "batch_rows": 0, "workers": 1}
    return Sample(**(blank | {key: value for key, value in payload.items() if key in known}))


def line(step: int, sample: Sample) -> Live:
    """One line of progress; ``step`` counts from 0.

    >>> print(line(1, Sample(120_000, 400_000, 31_000.0, 92.0, 2_900, 1, "", 9.2)))
    step 2: 120,000 of about 400,000 rows, 31,000 rows/s, 9 s left
    """
    of = f" of about {max(sample.total_estimate, sample.rows):,}" if sample.total_estimate is not None else ""
    left = f", {duration(sample.left_s)} left" if sample.left_s is not None else ""
    why = ("; " if sample.why.startswith("paused") else "; slowed: ") + sample.why if sample.why else ""
    text = f"step {step + 1}: {sample.rows:,}{of} rows, {sample.rows_per_s:,.0f} rows/s{left}{why}"
    return Live(text, sample.share, slowed=bool(why))


def duration(seconds: float) -> str:
    """
    >>> duration(9.2), duration(600), duration(7200)
    ('9 s', '10 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Heartbeat:
    """Lets a live line through at most every 5 s, where lines stay: in a log, in the record; every minute in a long run."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._began = self._last = clock()

    def __call__(self, text: str) -> None:
        """Say it, unless it is a live line and the last one was only just said."""
        now = self._clock()
        if isinstance(text, Live):
            if now - self._last < min(max(_BEAT_S, (now - self._began) / _BEATS), _LONGEST_BEAT_S):
                return
            self._last = now
        self._say(text)
