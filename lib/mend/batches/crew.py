"""The workers of a repair: threads with sessions of their own on disjoint ranges, and the one thread that journals and tells.

Every worker's error is kept and reported.  Where one ends in an error, or the operator interrupts, the others finish their batch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mend.batches import pace
from mend.batches.batch import Job
from mend.batches.checkpoints import Range
from mend.batches.sampler import Sampler
from mend.batches.walk import Shared, Walker
from mend.change.writer import Writer
from mend.errors import Interrupted, LockNotAcquired, MendError, StepFailed, TargetUnreachable, TooManyRows, sqlstate
from mend.values.masking import masked_detail

Sessions = Callable[[str], AbstractContextManager[Connection]]

_LOST = ("08", "57P")  # SQLSTATE classes of a session or a server that went away
_LOOK_S = 0.25
_GRACE_S = 5.0  # for a batch to end by itself after an interrupt; then its statement is cancelled


class Crew:
    """``with Crew(...) as crew:`` keeps the sampler running; ``crew.walk(...)`` has ranges walked and returns when they are.

    ``total``: about how many rows there are to change, where that is known.
    """

    def __init__(
        self, writer: Writer, n: int, job: Job, shared: Shared, session: Sessions, *, total: int | None
    ) -> None:
        self._writer, self._n, self._job, self._shared, self._session = writer, n, job, shared, session
        self._total, self._length = total, 0
        self._at_work: dict[int, Any] = {}  # backend pid -> the driver's connection
        self._sampler = Sampler(
            writer.target,
            run_id=writer.run_id,
            table=job.repair.table,
            pace=shared.pace,
            pids=lambda: tuple(self._at_work),
            folder=writer.journal.path.parent,
        )

    def __enter__(self) -> Crew:
        self._sampler.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampler.__exit__(kind, error, trace)
        self.tell(last=True)

    def walk(self, parts: Sequence[Range], density: Mapping[str, float], *, sweep: bool) -> None:
        """Have the ranges walked.  Raises: what ended the workers, all of it as one error."""
        todo: queue.SimpleQueue[Range] = queue.SimpleQueue()
        for part in parts:
            todo.put(part)
        self._length = 0 if sweep else sum(part.length for part in parts)
        errors: list[tuple[int, Exception]] = []
        count = min(self._job.repair.workers, len(parts))
        threads = [
            threading.Thread(target=self._work, args=(k, todo, density, sweep, errors), name=f"mend-w{k}", daemon=True)
            for k in range(1, count + 1)
        ]
        self._watch(threads)
        if errors:
            first = min(errors, key=lambda one: one[0])
            raise stopped(self._writer, self._n, self._job, errors, self._shared) from first[1]
        if self._shared.pace.overdue():
            raise Interrupted(
                f"The deadline of {self._job.repair.deadline_s} s has passed. {standing(self._job, self._shared)} `mend resume {self._writer.run_id}` goes on.",
                step=self._n,
            )

    def _work(
        self,
        k: int,
        todo: queue.SimpleQueue[Range],
        density: Mapping[str, float],
        sweep: bool,
        errors: list[tuple[int, Exception]],
    ) -> None:
        try:
            with self._session(f"{self._writer.application_name(self._n)}:w{k}") as conn:
                pid = conn.exec_driver_sql("select pg_backend_pid()").scalar_one()
                self._at_work[pid] = conn.connection.driver_connection
                try:
                    self._walk_all(Walker(conn, self._job, self._shared, density, sweep=sweep), todo)
                finally:
                    del self._at_work[pid]
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread that reports must learn of it
            errors.append((k, error))
            self._shared.stop.set()

    def _walk_all(self, walker: Walker, todo: queue.SimpleQueue[Range]) -> None:
        with suppress(queue.Empty):
            while not self._shared.stop.is_set():
                walker.walk(todo.get_nowait())

    def _watch(self, threads: Sequence[threading.Thread]) -> None:
        """Journal and tell while the workers work; an interrupt lets each of them finish its batch."""
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK_S)
                    self.tell()
        except BaseException:
            self._shared.stop.set()
            for thread in threads:
                thread.join(_GRACE_S)
            for connection in list(self._at_work.values()):
                connection.cancel()
            for thread in threads:
                thread.join(_GRACE_S)
            raise

    def tell(self, *, last: bool = False) -> None:
        """Journal and tell what the pace has to say, about once a second."""
        for why in self._shared.pace.news():
            self._writer.journal.append("throttled", {"step": self._n, "why": why})
            self._writer.progress(f"step {self._n + 1}: {why}")
        through = min(self._shared.walked / self._length, 1.0) if self._length else None
        if sample := self._shared.pace.sample(total=self._total, through=through, last=last):
            self._writer.journal.append("batch_sample", sample.payload(self._n))
            self._writer.progress(pace.line(self._n, sample))


def stopped(writer: Writer, n: int, job: Job, errors: Sequence[tuple[int, Exception]], shared: Shared) -> MendError:
    """What ended the workers (0: the session that leads them) as one error that names each of them."""
    told = [
        f"worker {k}: {said(writer, error)}" if k else said(writer, error)
        for k, error in sorted(errors, key=lambda one: one[0])
    ]
    text = f"The {'repair' if shared.verb == 'changed' else 'way back'} of {job.repair.table} stopped. {' '.join(dict.fromkeys(told))} {standing(job, shared)}"
    resume = f"`mend resume {writer.run_id}`"
    found = [error for _, error in errors]
    states = [sqlstate(error) or str(getattr(error, "facts", {}).get("sqlstate", "")) for error in found]
    facts: dict[str, Any] = {"step": n, "sqlstate": states[0]}
    if any(_lost(error) for error in found):
        return Interrupted(f"{text} {resume} goes on from there.", **facts)
    if many := [error for error in found if isinstance(error, TooManyRows)]:
        return TooManyRows(
            f"{text} Make a new plan with a ceiling that fits, or `mend undo {writer.run_id}`.",
            **facts,
            rows=many[0].rows,
        )
    if any(isinstance(error, LockNotAcquired) for error in found):
        return LockNotAcquired(f"{text} End the blocker or wait, then {resume}.", **facts)
    if not all(getattr(error, "facts", {}).get("resumable", True) for error in found):
        back = f"`mend undo {writer.run_id}` takes them back. " if shared.rows else ""
        return StepFailed(f"{text} {back}Make a new plan, with values that repair them.", **facts)
    return StepFailed(f"{text} Mend the cause, then {resume} goes on from there.", **facts)


def standing(job: Job, shared: Shared) -> str:
    """What stands now, in words."""
    images = ", with their before-images" if job.repair.key else ""
    return f"{shared.rows:,} rows are {shared.verb} and stand{images if shared.verb == 'changed' else ''}."


def _lost(error: Exception) -> bool:
    """Whether the session or the server went away, rather than refused something."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or not sqlstate(error) or sqlstate(error).startswith(_LOST)
    return isinstance(error, TargetUnreachable | Interrupted | SQLAlchemyError)


def said(writer: Writer, error: Exception) -> str:
    """An error in one line, without secrets and without the values that it quotes."""
    if isinstance(error, MendError):
        return error.message
    code = sqlstate(error)
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return writer.target.redact(masked_detail(lines[0], sqlstate=code).rstrip(".")) + (
        f" (SQLSTATE {code})." if code else "."
    )
