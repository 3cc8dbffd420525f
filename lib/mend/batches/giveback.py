"""Takes a repair of many rows back: from its before-images, in batches, the rows that still are as it left them.  Called by `runners`.

The table's own triggers fire as in any update.  To keep them quiet would take a SHARE ROW EXCLUSIVE lock on the table for every batch
(ALTER TABLE .. DISABLE TRIGGER), which waits for every writer and stops them all; or session_replication_role, which is for superusers and
silences foreign keys too.  So a column that a trigger keeps, such as ``updated_at``, moves once more.

One session at a time; the state of each image says whether its row went back, so a resume goes on with those that did not.
"""

from __future__ import annotations

import re
import time
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend.batches import checkpoints, images
from mend.batches.batch import Job, job_of
from mend.batches.checkpoints import ask, send
from mend.batches.crew import Crew, Sessions, said, stopped
from mend.batches.pace import Pace
from mend.batches.walk import GIVE_WAY, OF_THE_ROW, Shared, patience, transaction
from mend.change.writer import Writer
from mend.errors import LockNotAcquired, StepFailed, sqlstate
from mend.plan import Plan, Step
from mend.values.masking import mask

SAMPLE = 20
_NUMBER = re.compile(r"-?\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SWEEPS = 20


def run(writer: Writer, n: int, step: Step, session: Sessions) -> int:
    """Give back what the repair of this step changed; the rows that went back.  Conflicts are journaled (``restored``) and told.

    Raises: StepFailed where rows stay locked; Interrupted where the session or the server was lost.  What went back stays so.
    """
    job = job_of(step)
    shared = Shared(Pace(target_ms=job.repair.batch_ms), verb="given back")
    try:
        with session(writer.application_name(n)) as conn:
            if checkpoints.standing(conn, job).state in ("absent", "restored"):
                return 0
            with transaction(conn):
                for text in images.opening(job):
                    send(conn, text)
                checkpoints.close(conn, job, "restoring")
            with Crew(writer, n, job, shared, session, total=step.rows_expected) as crew:
                _Return(conn, writer, n, step, crew, shared).until_done()
            return _closed(conn, writer, n, step)
    except (DBAPIError, LockNotAcquired) as error:
        raise stopped(writer, n, job, [(0, error)], shared) from error


def _closed(conn: Connection, writer: Writer, n: int, step: Step) -> int:
    job = job_of(step)
    found = told(conn, n, job)
    writer.journal.append("restored", found)
    if found["conflicts"]:
        writer.progress(
            f"step {n + 1}: {found['conflicts']:,} rows of {job.repair.table} did not go back; {job.table('image')} says which and why (state = 'conflict')"
        )
    with transaction(conn):
        checkpoints.close(conn, job, "restored")
    return int(found["rows"])


def told(conn: Connection, n: int, job: Job) -> dict[str, Any]:
    """What became of the rows of a step: its number, table, how many went back, how many did not, and some of those, masked."""
    ((rows, conflicts, sample),) = ask(conn, images.told(job, sample=SAMPLE))
    found = [one | {"key": [_shown(value) for value in one["key"]]} for one in sample or []]
    return {"step": n, "table": job.repair.table, "rows": rows, "conflicts": conflicts, "sample": found}


def left_alone(conn: Connection, plan: Plan) -> list[dict[str, Any]]:
    """Of a plan that took rows back, whichever runs did it: what each step of it left as it is now."""
    jobs = [(n, job_of(step)) for n, step in enumerate(plan.steps) if step.kind == "restore"]
    found = [told(conn, n, job) for n, job in jobs if checkpoints.standing(conn, job).state == "restored"]
    return [one for one in found if one["conflicts"]]


def _shown(value: str) -> str | None:
    """A key's value as the journal may hold it: a number or UUID says nothing by itself, anything else is masked."""
    return value if _NUMBER.fullmatch(value) else mask(value)


class _Return:
    """Images from the last to the first, again for those that were locked."""

    def __init__(self, conn: Connection, writer: Writer, n: int, step: Step, crew: Crew, shared: Shared) -> None:
        self._conn, self._writer, self._n, self._crew, self._shared = conn, writer, n, crew, shared
        self._job = job_of(step)
        self._cap = 0
        self._failures = 0

    def until_done(self) -> None:
        for sweep in range(_SWEEPS):
            ((upto,),) = ask(self._conn, images.last(self._job))
            if upto is None:
                return
            time.sleep(min(0.1 * 2**sweep, 5.0) if sweep else 0.0)
            self._sweep(int(upto))
            if self._job.repair.action != "delete":
                with transaction(self._conn):
                    send(self._conn, images.gone(self._job))
        ((upto,),) = ask(self._conn, images.last(self._job))
        if upto is not None:
            raise StepFailed(
                f"Rows of {self._job.repair.table} stay locked by others and could not be given back. {self._shared.rows:,} rows are. End what locks them, then `mend resume {self._writer.run_id}`."
            )

    def _sweep(self, upto: int) -> None:
        while upto > 0:
            self._shared.pace.turn(self._shared.stop)
            upto = self._batch(upto)
            self._crew.tell()

    def _batch(self, upto: int) -> int:
        """One batch; where the next one ends."""
        size = self._cap or self._shared.pace.size()
        ((above,),) = ask(self._conn, images.below(self._job, upto=upto, rows=size))
        started = time.monotonic()
        try:
            with transaction(self._conn):
                if self._job.repair.action == "insert" and self._job.repair.unreferenced:
                    # Nobody may come to refer to a row between the look and its end.
                    send(self._conn, f"lock table {self._job.repair.table} in exclusive mode")
                ((_, rows, _),) = ask(self._conn, images.back(self._job, above=str(above), upto=str(upto)))
        except DBAPIError as error:
            return self._after(error, size, int(above), upto)
        self._shared.reserve(int(rows))
        if not self._cap:
            self._shared.pace.ran(rows=int(rows), scanned=size, seconds=time.monotonic() - started)
        self._failures, self._cap = 0, self._cap * 2 if self._cap * 2 < self._shared.pace.size() else 0
        return int(above)

    def _after(self, error: DBAPIError, size: int, above: int, upto: int) -> int:
        """A batch was rolled back: where the next one ends, with less at a time."""
        if sqlstate(error) in GIVE_WAY:
            self._failures += 1
            patience(self._failures, error, self._shared)
        elif not sqlstate(error).startswith(OF_THE_ROW):
            raise error
        elif size > 1:
            self._cap = size // 2
        else:
            with transaction(self._conn):
                reason = said(self._writer, error)
                send(self._conn, images.conflict(self._job, above=str(above), upto=str(upto), reason=reason))
            return above
        return upto
