"""Runs a repair of many rows: short batches on one to N sessions, until nothing is left to do.  Called by `runners`, which gives the sessions.

Each batch is one transaction: the rows, their before-images, and how far the range is.  So whatever ends this process, a worker's
session or the server, nothing is done twice and nothing is skipped: a resume reads the ranges and goes on.

Rows that somebody has locked are passed over, and rows may be written behind a range that is walked already; so when all ranges
are done the table is asked what is left, and swept again until nothing is (or once, where the repair says so).  The table's own
triggers fire as in any update.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend.batches import batch, checkpoints
from mend.batches.batch import Job, job_of
from mend.batches.checkpoints import Standing, ask, send
from mend.batches.crew import Crew, Sessions, stopped
from mend.batches.pace import Pace
from mend.batches.walk import Done, Shared, not_mended, patiently, transaction
from mend.change.writer import Writer
from mend.errors import LockNotAcquired, PreconditionFailed, StepFailed
from mend.plan import Step
from mend.values.masking import masked_detail

SWEEPS = 20  # that leave as many rows as the ones before
_REST_S = (0.1, 5.0)  # between two sweeps: who holds the rows that are left may let go of them


def run(writer: Writer, n: int, step: Step, session: Sessions) -> int:
    """Run the repair of a step from where it stands; the rows that it changed in all, those before a crash included.

    ``session`` opens a writing session of that name, with its timeouts set.  Raises: StepFailed where rows are left that cannot be
    changed, or keep coming; TooManyRows, LockNotAcquired; Interrupted where a session or the server was lost. What was committed stands.
    """
    run = _Run(writer, n, step, session)
    try:
        return run.until_done()
    except (DBAPIError, LockNotAcquired) as error:
        if isinstance(error, LockNotAcquired) and "step" in error.facts:
            raise  # a worker's, which was told already
        raise stopped(writer, n, run.job, [(0, error)], run.shared) from error


class _Run:
    """One step at work; ``shared`` is what its workers have in common."""

    def __init__(self, writer: Writer, n: int, step: Step, session: Sessions) -> None:
        self.writer, self.n, self.step, self.session = writer, n, step, session
        self.job = _on(writer.identity.version_num, job_of(step))
        self.repair = self.job.repair
        self.shared = Shared(Pace(), at_most=self.repair.at_most)

    def until_done(self) -> int:
        with self.session(self.writer.application_name(self.n)) as conn:
            began = self._patiently(lambda: _begun(conn, self.job))
            if began.state == "done":
                return began.rows
            self.shared.begin(self._pace(began), began.rows)
            with self._crew() as crew:
                left = self._passes(conn, crew, began.sweep)
            self._require_none_aside(conn)
            self._require_all_listed(conn)
            with transaction(conn):
                checkpoints.close(conn, self.job, "done")
            if left:
                self.writer.progress(f"step {self.n + 1}: {_counted(left)} are left that came or were locked meanwhile")
            return self.shared.rows

    def _pace(self, began: Standing) -> Pace:
        repair = self.repair
        return Pace(
            target_ms=repair.batch_ms, deadline_s=repair.deadline_s, rows_before=began.rows, workers=repair.workers
        )

    def _passes(self, conn: Connection, crew: Crew, sweep: int) -> int:
        """Walk the table until nothing is left of it; how many rows are, where that is allowed."""
        idle, least = 0, batch.LEFT_COUNTED + 1
        while left := self._pass(conn, crew, sweep):
            if sweep > 0 and not self.repair.until_none:
                return left
            idle, least = (0, left) if left < least else (idle + 1, least)
            if idle > SWEEPS:
                raise StepFailed(
                    f"{SWEEPS} sweeps did not get further: {_counted(left)} of {self.repair.table} still need the change: they are locked, or new ones keep coming. "
                    f"{self._stands()} Stop what writes them, then `mend resume {self.writer.run_id}`."
                )
            self._require_mended(conn)
            time.sleep(min(_REST_S[0] * 2**idle, _REST_S[1]))
            sweep += 1
            self._sweep_again(conn, sweep, left)
        return 0

    def _pass(self, conn: Connection, crew: Crew, sweep: int) -> int:
        """Walk all ranges of a pass; how many rows still need the change, counted up to a bound."""
        if parts := checkpoints.open_ranges(conn, self.job):
            relations = () if self.repair.work else checkpoints.relations(conn, self.job)
            crew.walk(parts, {one.name: one.rows_per_block for one in relations}, sweep=sweep > 0)
        ((left,),) = self._patiently(lambda: ask(conn, batch.left(self.job)))
        return int(left)

    def _sweep_again(self, conn: Connection, sweep: int, left: int) -> None:
        def begin() -> None:
            with transaction(conn):
                checkpoints.sweep_again(conn, self.job, sweep, left=left)

        self._patiently(begin)

    def _patiently(self, act: Callable[[], Done]) -> Done:
        return patiently(self.shared, act)

    def _require_mended(self, conn: Connection) -> None:
        """That holds of the first batch; other rows may differ."""
        if ask(conn, batch.still(self.job)):
            raise stopped(self.writer, self.n, self.job, [(0, not_mended(self.job))], self.shared)

    def _require_all_listed(self, conn: Connection) -> None:
        """What pointed at these rows was moved before; a row that somebody has changed since stays, and has lost it."""
        if not self.repair.all_listed:
            return
        ((count,),) = ask(conn, batch.spared(self.job))
        if count:
            raise StepFailed(
                f"{count:,} rows of {self.repair.table} that were to go were changed meanwhile, and stay; what pointed at them points at other rows now. "
                f"{self._stands()} `mend undo {self.writer.run_id}` takes it all back. Then make a new plan.",
                spared=int(count),
            )

    def _require_none_aside(self, conn: Connection) -> None:
        found: Counter[str] = Counter()
        for code, reason, rows in self._patiently(lambda: ask(conn, batch.left_aside(self.job))):
            found[f"{masked_detail(reason, sqlstate=code).rstrip('.')} (SQLSTATE {code})"] += int(rows)
        if found:
            told = "; ".join(f"{rows:,} rows: {why}" for why, rows in found.most_common(3))
            raise StepFailed(
                f"{found.total():,} rows of {self.repair.table} could not be changed and were set aside in {self.job.table('quarantine')}: {told}. "
                f"{self._stands()} Mend those rows, then `mend resume {self.writer.run_id}` tries them again; or make a new plan, which looks at them anew.",
                aside=found.total(),
            )

    def _stands(self) -> str:
        return f"{self.shared.rows:,} rows are changed and stand, with their before-images."

    def _crew(self) -> Crew:
        return Crew(self.writer, self.n, self.job, self.shared, self.session, total=self.step.rows_expected)


def _on(version_num: int, job: Job) -> Job:
    """The job as this server can do it.

    PostgreSQL 13 cannot read a part of a table's pages (no TID range scan): it walks along the key instead.  Raises: PreconditionFailed.
    """
    job = replace(job, returns_old=version_num >= 180000)
    if version_num >= 140000 or job.walks != "ctid":
        return job
    if not job.repair.key:
        raise PreconditionFailed(
            f"{job.repair.table} has no key, and PostgreSQL 13 cannot walk a table without one. Nothing was changed. Add a key, or repair the rows by hand."
        )
    return replace(job, by="keyset")


def _begun(conn: Connection, job: Job) -> Standing:
    """The job as it stands; made where it is new.  What was set aside before is tried again."""
    found = checkpoints.standing(conn, job)
    if found.state == "absent":
        with transaction(conn):
            checkpoints.make(conn, job)
        return checkpoints.standing(conn, job)
    if found.state not in ("open", "done"):
        raise PreconditionFailed(
            f"The rows of {job.repair.table} were given back already. Nothing was changed now. Make a new plan."
        )
    if found.state == "open":
        with transaction(conn):
            send(conn, f"delete from {job.table('quarantine')}")
    return found


def _counted(left: int) -> str:
    return f"more than {batch.LEFT_COUNTED:,} rows" if left > batch.LEFT_COUNTED else f"{left:,} rows"
