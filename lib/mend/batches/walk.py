"""One worker of a repair: walks its ranges batch by batch, gives way where a lock is not granted, and sets aside rows that fail alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mend.batches import batch, checkpoints
from mend.batches.batch import Job, Window
from mend.batches.checkpoints import Range, ask, block, send
from mend.batches.pace import Pace
from mend.errors import LockNotAcquired, StepFailed, TooManyRows, sqlstate

Done = TypeVar("Done")

MOST_ASIDE = 1_000
_LATE = "57014"
GIVE_WAY = {"55P03", "40P01", "40001"}  # nothing was done; asking again, for less, is safe
OF_THE_ROW = ("22", "23", "44", "P0")  # SQLSTATE classes of what a row's own values or a trigger's word forbid
PATIENCE = 20  # failures in a row: about half a minute
_BACKOFF_S = (0.01, 2.0)
_AT_ONCE_LOCK_MS = 20  # what an application may have to wait for us while we wait for another
_AT_ONCE_MS = 250  # no row is to be held longer; a window may hold far more rows than the statistics of its table say
_LOCKING_BATCHES = 50  # that lock first, after one that met a lock
_ROWS_PER_BLOCK = 40.0  # taken for what was never analyzed


@dataclass
class Shared:
    """What the workers of a step have in common; every method may be called from any thread."""

    pace: Pace
    at_most: int | None = None
    verb: str = "changed"
    rows: int = 0
    walked: int = 0  # pages or lines
    aside: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    mends: bool = False  # that the change makes the condition false was seen
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, pace: Pace, rows: int) -> None:
        """The pace of this run, and the rows that were changed before it."""
        self.pace, self.rows, self.mends = pace, rows, rows > 0

    def reserve(self, rows: int) -> None:
        """Count rows that are about to be committed.  Raises: TooManyRows."""
        with self._lock:
            if self.at_most is not None and self.rows + rows > self.at_most:
                raise TooManyRows(
                    f"This batch would have brought the repair to {self.rows + rows:,} rows where at most {self.at_most:,} were planned. It was rolled back.",
                    rows=self.rows,
                )
            self.rows += rows

    def release(self, rows: int) -> None:
        """They were not committed."""
        with self._lock:
            self.rows -= rows

    def went(self, length: int) -> None:
        """Count pages or lines that are walked."""
        with self._lock:
            self.walked += length

    def set_aside(self) -> None:
        """Count a row that fails alone.  Raises: StepFailed where there are too many."""
        with self._lock:
            self.aside += 1
            if self.aside > MOST_ASIDE:
                raise StepFailed(f"More than {MOST_ASIDE:,} rows cannot be changed. The repair was stopped.")


def not_mended(job: Job) -> StepFailed:
    """The error for a change after which its condition is true still: every sweep would repeat it."""
    return StepFailed(
        f"Rows of {job.repair.table} satisfy the condition ({job.repair.where}) still after their change, so it does not repair them.",
        resumable=False,
    )


@contextmanager
def transaction(conn: Connection, *, lock_ms: int | None = None) -> Iterator[None]:
    """BEGIN .. COMMIT on an autocommit session whose timeouts are set; constraints are checked before COMMIT, not by it."""
    limits = {} if lock_ms is None else {"lock_timeout": lock_ms, "statement_timeout": _AT_ONCE_MS}
    told = "".join(f"; set local {name} = {int(value)}" for name, value in limits.items())
    conn.exec_driver_sql(f"begin; set constraints all immediate{told}")
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):
            conn.exec_driver_sql("rollback")
        raise
    conn.exec_driver_sql("commit")


class Walker:
    """Walks ranges on one session.

    ``density``: about how many rows a page of each relation holds.  ``sweep``: what is done or set aside is left alone.
    """

    def __init__(
        self, conn: Connection, job: Job, shared: Shared, density: Mapping[str, float], *, sweep: bool
    ) -> None:
        self._conn, self._job, self._shared, self._sweep = conn, job, shared, sweep
        self._density = {name: rows or _ROWS_PER_BLOCK for name, rows in density.items()}
        self._cap = 0  # rows of the next batch after a failure; 0: as the pace says
        self._failures = 0
        self._locking = 0  # batches to come that lock their rows first
        self._lock_ms = min(_AT_ONCE_LOCK_MS, _lock_timeout_ms(conn)) if job.at_once and not sweep else 0

    def walk(self, part: Range) -> None:
        """Walk one range to its end, or until the workers are stopped.

        Raises: TooManyRows, LockNotAcquired, StepFailed; DBAPIError for what is no matter of a row or a lock.
        """
        left: Range | None = part
        while left is not None and not self._shared.pace.overdue():
            self._shared.pace.turn(self._shared.stop)
            if self._shared.stop.is_set():
                return
            before, left = left, self._next(left)
            self._shared.went(before.length - (left.length if left else 0))

    def _next(self, part: Range) -> Range | None:
        at_once = self._at_once
        try:
            return self._batch(part)
        except DBAPIError as error:
            if at_once and sqlstate(error) in (*GIVE_WAY, _LATE):
                # Nothing was done; from here on locked rows are passed over, and no more are changed than were asked for.
                self._locking = _LOCKING_BATCHES
                return part
            return self._after(error, part)

    @property
    def _at_once(self) -> bool:
        return bool(self._lock_ms) and not self._locking and not self._cap

    def _batch(self, part: Range) -> Range | None:
        """One batch; what is left of the range then."""
        size = self._size()
        window, scanned = self._window(part, size)
        started = time.monotonic()
        rows, left = self._change(part, window, size)
        self._learn(window, left, rows)
        if not self._cap:
            self._shared.pace.ran(rows=rows, scanned=scanned, seconds=time.monotonic() - started)
        self._failures, self._cap = 0, self._cap * 2 if self._cap * 2 < self._shared.pace.size() else 0
        self._locking = max(self._locking - 1, 0)
        return left

    def _learn(self, window: Window, left: Range | None, rows: int) -> None:
        """A window that held more rows than a batch takes: its pages are fuller than the statistics say, and the next ones may be."""
        if self._job.walks != "ctid" or left is None or left.at is None or window.at is None or left.at == window.upto:
            return
        pages = block(left.at[0]) - block(window.at[0]) + 1
        self._density[window.relation] = max(self._density.get(window.relation, _ROWS_PER_BLOCK), rows / pages)

    def _size(self) -> int:
        return self._cap or self._shared.pace.size()

    def _change(self, part: Range, window: Window, size: int) -> tuple[int, Range | None]:
        """Change the rows of a window, at most ``size`` of a physical one; how many there were, and what is left of the range."""
        reserved = 0
        try:
            with transaction(self._conn, lock_ms=self._lock_ms if self._at_once else None):
                for table in self._job.repair.alone:
                    send(self._conn, f"lock table {table} in share row exclusive mode")
                if self._job.repair.action == "delete" and self._job.repair.unreferenced:
                    locked = ask(self._conn, batch.lock(self._job, window, rows=size, sweep=self._sweep))
                    window = replace(window, places=tuple(place for (place,) in locked))
                found, rows, last = self._send(window, size)
                self._shared.reserve(rows)
                reserved = rows
                left = part.after((following(last),) if last is not None and found >= size else window.upto)
                checkpoints.move(self._conn, self._job, part, left, rows=rows)
        except BaseException:
            self._shared.release(reserved)
            raise
        return rows, left

    def _send(self, window: Window, size: int) -> tuple[int, int, str | None]:
        """Send a batch: rows found, rows changed, the last one's position.  The first batch of all shows whether the change mends, or each does."""
        repair = self._job.repair
        look = (repair.each or not self._shared.mends) and repair.action == "update" and not repair.work
        if self._at_once:
            text = batch.change_at_once(self._job, window, places=look)
        else:
            text = batch.change(self._job, window, rows=size, sweep=self._sweep, places=look)
        ((found, rows, last, *now),) = ask(self._conn, text)
        if look and rows:
            if ask(self._conn, batch.unmended(self._job, window, now[0])):
                raise not_mended(self._job)
            self._shared.mends = True
        return int(found), int(rows), last

    def _window(self, part: Range, size: int) -> tuple[Window, int]:
        """The next window of the range, for about so many rows, and how many it is taken to hold."""
        rest = part.window
        if self._job.walks == "keyset":
            found = ask(self._conn, batch.bound(self._job, rest, keys=size))
            return replace(rest, upto=tuple(found[0][0]) if found else part.hi), size
        assert rest.at is not None
        assert rest.upto is not None
        if self._job.walks == "work":
            upto = min(int(rest.at[0]) + size, int(rest.upto[0]))
            return replace(rest, upto=(str(upto),)), upto - int(rest.at[0])
        density = self._density.get(part.relation, _ROWS_PER_BLOCK)
        start, end = block(rest.at[0]), block(rest.upto[0])
        upto = min(start + max(1, int(size / density)), end)
        return replace(rest, upto=(f"({upto},0)",)), int((upto - start) * density)

    def _after(self, error: DBAPIError, part: Range) -> Range | None:
        """A batch was rolled back: what is to be walked next, with less at a time; or raise what is no matter of rows or locks."""
        locked = self._weigh(error)
        if (size := self._size()) > 1:
            self._cap = max(size // (4 if locked else 2), 1)
            return part
        return self._one(part)

    def _weigh(self, error: DBAPIError) -> bool:
        """Whether a lock was in the way, after giving way to it; else a row was.  Raises: the error where it was neither."""
        if sqlstate(error) in GIVE_WAY:
            self._failures += 1
            patience(self._failures, error, self._shared)
            return True
        if not sqlstate(error).startswith(OF_THE_ROW):
            raise error
        return False

    def _one(self, part: Range) -> Range | None:
        """A batch of one row fails: go on behind it.  Where a lock is in its way it is left to a sweep; else it is set aside."""
        window, _ = self._window(part, 1)
        if self._job.walks == "ctid" and (found := ask(self._conn, batch.first(self._job, window, sweep=self._sweep))):
            window = replace(window, at=(found[0][0],), upto=(following(found[0][0]),))
        try:
            _, left = self._change(part, window, 1)
        except DBAPIError as error:
            locked = self._weigh(error)
            left = part.after(window.upto)
            with transaction(self._conn):
                if not locked:
                    text = batch.aside(self._job, window, sqlstate=sqlstate(error), reason=_said(error))
                    send(self._conn, text)
                checkpoints.move(self._conn, self._job, part, left, rows=0)
            if not locked:
                self._shared.set_aside()
        else:
            self._failures, self._cap = 0, 2
        return left


def _lock_timeout_ms(conn: Connection) -> int:
    """Of this session; 0 would be for ever, and is none of ours."""
    return int(ask(conn, "select cast(setting as int4) from pg_settings where name = 'lock_timeout'")[0][0])


def patience(failures: int, error: DBAPIError, shared: Shared) -> None:
    """Give way for a while, longer each time, and go on with less.  Raises: LockNotAcquired after too many failures in a row."""
    if failures > PATIENCE:
        raise LockNotAcquired(
            f"A lock was not granted in {failures} tries: {_said(error)}. The batch was rolled back.",
            sqlstate=sqlstate(error),
        )
    shared.pace.failed()
    least, most = _BACKOFF_S
    wait_s = min(least * 2**failures, most)
    shared.stop.wait(random.uniform(wait_s / 2, wait_s))


def patiently(shared: Shared, act: Callable[[], Done]) -> Done:
    """Do something that may be done again, giving way where a lock is not granted.  Raises: LockNotAcquired; DBAPIError."""
    failures = 0
    while True:
        try:
            return act()
        except DBAPIError as error:
            if sqlstate(error) not in GIVE_WAY:
                raise
            failures += 1
            patience(failures, error, shared)


def _said(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


def following(place: str) -> str:
    """The position behind a tuple's.

    >>> following("(12,3)")
    '(12,4)'
    """
    return f"({block(place)},{int(place[:-1].partition(',')[2]) + 1})"
