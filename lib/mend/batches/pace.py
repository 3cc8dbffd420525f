"""How fast a backfill may go, and why it goes slower.  Arithmetic only; what is looked at on the server stands in `sampler`.

One `Pace` is shared by the workers of a step.  A worker asks for its turn, runs one batch of ``size()`` and says how it went::

    while work and not stopped.is_set():
        pace.turn(stopped)                                  # waits while something throttles
        rows, scanned, seconds = batch(pace.size())
        pace.ran(rows=rows, scanned=scanned, seconds=seconds)

The thread that journals drains ``pace.news()`` (every change of reason, once) and ``pace.sample(...)`` (once a second).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mend.batches.progress import Sample, line

__all__ = ["Pace", "Reason", "Sample", "line"]

_ALPHA = 0.4  # weight of the newest batch, as GitLab's optimizer has it (facts 5)
_GROWTH = 1.5
_AIM = 0.9  # of the target time: half of the batches would otherwise be over it
_FARTHEST = 100  # a batch looks at so many times the rows that it may change
_FLOOR_S = 1.0  # one floor batch in this time
_SAMPLE_S = 1.0
_SAMPLES, _LONGEST_SAMPLE_S = 1000, 10.0  # of a run so far: a backfill of hours gets them further apart
_QUIET_S = 3.0  # a reason is gone when it was not seen for so long
_NAP_S = 0.25  # how soon the end of a throttle is noticed


@dataclass(frozen=True)
class Reason:
    """Something seen on the server that speaks for going slower.

    ``key`` tells reasons apart while the numbers in ``says`` move.  ``share`` of the time may be worked: 1 all of it (a note), 0.5
    half of it, 0 nothing but the floor; ``stop``: nothing at all, until a human lifts it.  ``remedy`` is said once, with the news.
    """

    key: str
    says: str
    share: float = 0.0
    stop: bool = False
    remedy: str = ""

    @property
    def slows(self) -> bool:
        """Whether it is more than a note."""
        return self.stop or self.share < 1


@dataclass(frozen=True)
class _Said:
    """A reason that was said, and when it was last there."""

    reason: Reason
    at: float


class Pace:
    """Size and timing of the batches of one step; every method may be called from any thread.

    Parameters
    ----------
    target_ms : what a batch should take
    floor_rows, first_rows, most_rows : smallest, first and largest size of a batch.  The largest is what an application feels: rows are
        locked until the batch ends, so of a million rows no more than 1 in 500 is at any time; larger ones save 10 % of the work
    deadline_s : seconds from now after which ``overdue()``; 0 none
    rows_before : rows changed before this process began (a resume)
    workers : how many share this pace
    """

    def __init__(
        self,
        *,
        target_ms: int = 100,
        floor_rows: int = 50,
        first_rows: int = 500,
        most_rows: int = 2_000,
        deadline_s: float = 0,
        rows_before: int = 0,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._target_s = target_ms / 1000
        self._floor, self._most = floor_rows, max(most_rows, floor_rows)
        self._size = float(min(max(first_rows, floor_rows), self._most))
        self._reach = self._size
        self._look_s = self._row_s = 0.0  # EMA of seconds per row looked at, and per row changed; 0: not known yet
        self._density = 1.0  # share of the rows looked at that needed a change
        self._began = clock()
        self._deadline = self._began + deadline_s if deadline_s else float("inf")
        self._reasons: tuple[Reason, ...] = ()
        self._said: dict[str, _Said] = {}
        self._news: list[str] = []
        self._floor_at = self._began
        self._rest_until: dict[int, float] = {}
        self._rows = rows_before
        self._workers = workers
        self._meter = _Meter(self._began)

    def size(self) -> int:
        """Rows (or keys) that the next batch may change at most: it locks as many."""
        with self._lock:
            return self._floor if self._share() == 0 else int(self._size)

    def reach(self) -> int:
        """Rows to look at for so many to change: more than ``size()`` where few need it.  For a walk that stops when it has found enough."""
        with self._lock:
            return self._floor if self._share() == 0 else int(self._reach)

    def ran(self, *, rows: int, scanned: int = 0, seconds: float) -> None:
        """A batch is committed: ``rows`` changed out of ``scanned`` looked at (0 where only matching rows are), in ``seconds``."""
        with self._lock:
            self._rows += rows
            self._meter.add(rows, seconds)
            share = self._share()
            if 0 < share < 1:
                self._rest_until[threading.get_ident()] = self._clock() + seconds * (1 / share - 1)
            if max(rows, scanned) and share > 0:  # a floor batch is all overhead: nothing can be learned from it
                self._learn(rows, max(rows, scanned), max(seconds, 1e-6))

    def _learn(self, rows: int, scanned: int, seconds: float) -> None:
        """Smooth the cost of a row and how many need a change; grow slowly, shrink at once.

        What was looked at in vain costs time and locks nothing, so where few rows need a change a batch looks at many; how many it
        changes is bounded by ``size()`` all the same, should they be side by side.
        """
        late = seconds > self._target_s
        self._look_s = _raised(self._look_s, seconds / scanned, at_once=late)
        self._density = _raised(self._density, rows / scanned, at_once=True)
        if rows * 4 >= scanned:  # else the time went into looking, and says little about what changing a row costs
            self._row_s = _raised(self._row_s, seconds / rows, at_once=late)
            wanted = min(_AIM * self._target_s / self._row_s, self._size * _GROWTH, self._most)
            self._size = max(wanted, self._floor)
        reach = min(
            self._size / max(self._density, 1 / _FARTHEST), 2 * self._reach, _AIM * self._target_s / self._look_s
        )
        self._reach = max(reach, self._floor)

    def failed(self) -> None:
        """A batch was rolled back for the time it took or a lock it did not get: the next one is half as large."""
        with self._lock:
            self._size = max(self._size / 2, self._floor)
            self._reach = max(self._reach / 2, self._floor)

    def throttle(self) -> tuple[float, str]:
        """(seconds to wait, why).  0 seconds: the turn is taken, go; else wait at most that long and ask again.

        The floor is one batch a second, whatever the number of workers.
        """
        with self._lock:
            now, why = self._clock(), self._why()
            if self._stopped():
                return _NAP_S, why
            share = self._share()
            if share == 0:
                if (wait := self._floor_at - now) > 0:
                    return min(wait, _NAP_S), why
                self._floor_at = now + _FLOOR_S
                return 0.0, why
            wait = self._rest_until.get(threading.get_ident(), 0.0) - now if share < 1 else 0.0
            return (min(wait, _NAP_S), why) if wait > 0 else (0.0, why)

    def turn(self, stopped: threading.Event | None = None) -> str:
        """Wait for this worker's turn; returns why it goes slower, or ''.  Returns at once when ``stopped`` is set or it is overdue."""
        stopped = stopped or threading.Event()
        wait, why = self.throttle()
        while wait > 0 and not self.overdue() and not stopped.wait(wait):
            wait, why = self.throttle()
        return why

    def overdue(self) -> bool:
        """Whether the deadline has passed; what is done so far stands, and a resume goes on from it."""
        return self._clock() >= self._deadline

    def told(self, reasons: Sequence[Reason]) -> None:
        """What the sampler sees now; it replaces what it saw before.  To be told several times a second."""
        with self._lock:
            now, self._reasons = self._clock(), tuple(reasons)
            for reason in reasons:
                known = self._said.get(reason.key)
                if known is None or known.reason.slows != reason.slows:
                    slowed = "slowed: " if reason.slows and not reason.stop else ""
                    self._news.append(f"{slowed}{reason.says}{reason.remedy}")
                self._said[reason.key] = _Said(reason, now)
            self._news += self._ended(now)

    def _ended(self, now: float) -> list[str]:
        """The reasons that are gone.  One that comes and goes from second to second is said once: it is gone after _QUIET_S."""
        gone = [s.reason for s in self._said.values() if now - s.at > (0 if s.reason.stop else _QUIET_S)]
        self._said = {key: said for key, said in self._said.items() if said.reason not in gone}
        if not any(reason.slows for reason in gone):
            return []
        if not any(said.reason.slows for said in self._said.values()):
            return ["at full pace again"]
        return [f"no longer: {reason.says}" for reason in gone if reason.slows]

    def news(self) -> tuple[str, ...]:
        """Every change of reason since the last call, in words; each is given once."""
        with self._lock:
            fresh, self._news = tuple(self._news), []
            return fresh

    def sample(self, *, total: int | None = None, through: float | None = None, last: bool = False) -> Sample | None:
        """The pace since the last sample; None where that was less than a second ago (a few, in a long run).

        Parameters
        ----------
        total : rows to change in all, where it is known or estimated
        through : share of the table that was looked at, 0 to 1; a better measure of what is left than ``total``
        last : give one whatever the time (the end of the step)
        """
        with self._lock:
            now = self._clock()
            every_s = min(max(_SAMPLE_S, (now - self._began) / _SAMPLES), _LONGEST_SAMPLE_S)
            if now - self._meter.since < every_s and not last:
                return None
            rate, batch_ms, worst_ms, batch_rows = self._meter.read(now)
            return Sample(
                self._rows, total, round(rate, 1), round(batch_ms, 1), batch_rows, self._workers, self._why(),
                None if last or self._stopped() else self._meter.left_s(now, self._rows, total, through), through, round(worst_ms, 1),
            )  # fmt: skip

    def _share(self) -> float:
        """The smallest of the shares: reasons do not add up."""
        return min((reason.share for reason in self._reasons), default=1.0)

    def _stopped(self) -> bool:
        return any(reason.stop for reason in self._reasons)

    def _why(self) -> str:
        return "; ".join(reason.says for reason in self._reasons if reason.slows)


class _Meter:
    """Rows, seconds and batches between two samples."""

    def __init__(self, now: float) -> None:
        self.since, self._began = now, now
        self._rows, self._seconds, self._worst, self._batches = 0, 0.0, 0.0, 0
        self._rate = 0.0
        self._through0: float | None = None

    def add(self, rows: int, seconds: float) -> None:
        self._rows, self._seconds, self._batches = self._rows + rows, self._seconds + seconds, self._batches + 1
        self._worst = max(self._worst, seconds)

    def read(self, now: float) -> tuple[float, float, float, int]:
        """Rows per second (smoothed); milliseconds of a batch, mean and worst; rows of a batch; begins anew."""
        lasted, first = now - self.since, self.since == self._began
        if first or lasted >= _SAMPLE_S / 2:  # the last sample may come right after another
            rate = self._rows / max(lasted, 1e-3)
            self._rate = rate if first else _smoothed(self._rate, rate)
        batches = max(self._batches, 1)
        read = self._rate, 1000 * self._seconds / batches, 1000 * self._worst, round(self._rows / batches)
        self.since, self._rows, self._seconds, self._worst, self._batches = now, 0, 0.0, 0.0, 0
        return read

    def left_s(self, now: float, rows: int, total: int | None, through: float | None) -> float | None:
        """Seconds that are left at this pace; None where nothing says how much is left."""
        if through is not None:
            if self._through0 is None:
                self._through0 = through
                self._through_at = now
            elif through > self._through0:
                return round((1 - through) * (now - self._through_at) / (through - self._through0), 1)
        if total is None or self._rate <= 0 or rows > total:
            return None
        return round((total - rows) / self._rate, 1)


def _raised(old: float, new: float, *, at_once: bool) -> float:
    """Smoothed; but the first value counts as it is, and a larger one too where it must be heeded at once."""
    return new if not old or (at_once and new > old) else _smoothed(old, new)


def _smoothed(old: float, new: float) -> float:
    return _ALPHA * new + (1 - _ALPHA) * old
