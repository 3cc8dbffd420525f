"""How each kind of step is run on a target: SQL in one transaction or alone, a project's upgrade(), a file, batches of rows, somebody's end.

Called by `execute` alone, which has journaled that the step starts and journals how it ended; errors of the driver go through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mend import files
from mend.batches import backfill, giveback
from mend.change.writer import Writer
from mend.errors import PreconditionFailed, StepFailed, TooManyRows
from mend.execution import project_step, resolve, waiting
from mend.loss import recover
from mend.plan import Statement, Step
from mend.queue import draining, ending

_IDLE_TIMEOUT_MS = 60_000
_BATCH_LOCK_MS = 500


def run(writer: Writer, n: int, step: Step) -> int:
    """Run step ``n`` of a plan as its kind asks; the rows that it changed.

    Raises: DBAPIError, of which the caller knows whether it may ask again; MendError where a precondition or a row count does not hold.
    """
    return _KINDS[step.kind](writer, n, step)


@contextmanager
def transaction(conn: Connection, writer: Writer, *, idle_ms: int = _IDLE_TIMEOUT_MS) -> Iterator[None]:
    """BEGIN .. COMMIT with the dead-man timeouts, on an autocommit session; ROLLBACK on anything else."""
    conn.exec_driver_sql("begin")
    try:
        conn.exec_driver_sql(f"set local lock_timeout = {int(writer.lock_timeout_ms)}")
        conn.exec_driver_sql(f"set local statement_timeout = {int(writer.statement_timeout_ms)}")
        conn.exec_driver_sql(f"set local idle_in_transaction_session_timeout = {int(idle_ms)}")
        conn.exec_driver_sql("set local row_security = off")  # a policy that would hide rows fails the step instead
        yield
    except BaseException:
        with suppress(SQLAlchemyError):  # the session may be gone; SQLAlchemy then refuses with an error of its own
            conn.exec_driver_sql("rollback")
        raise
    conn.exec_driver_sql("commit")


def _run_either(writer: Writer, n: int, step: Step) -> int:
    return (_run_transaction if step.transactional else _run_alone)(writer, n, step)


def _run_transaction(writer: Writer, n: int, step: Step) -> int:
    """A transactional step: all of its statements or none; its xid is on disk before COMMIT is sent."""
    with writer.target.writing(writer.application_name(n), version_num=writer.identity.version_num) as conn:
        resolve.require(conn, step.before, f"Step {n + 1}")
        with transaction(conn, writer):
            rows = sum(_send(conn, statement) for statement in step.statements)
            xid = conn.exec_driver_sql(
                "select cast(pg_current_xact_id() as text), cast(clock_timestamp() as text)"
            ).one()
            writer.journal.append("step_xid", {"step": n, "xid": xid[0]}, server_time=xid[1])
    return rows


def _run_alone(writer: Writer, n: int, step: Step) -> int:
    """Statements that cannot run in a transaction, in order.

    No timeouts: lock_timeout and statement_timeout make CREATE and DROP INDEX CONCURRENTLY leave INVALID indexes behind
    (facts 1.5); the dead-man switch is client_connection_check_interval.
    """
    with writer.target.writing(writer.application_name(n), version_num=writer.identity.version_num) as conn:
        resolve.require(conn, step.before, f"Step {n + 1}")
        conn.exec_driver_sql("set lock_timeout = 0")
        conn.exec_driver_sql("set statement_timeout = 0")
        conn.exec_driver_sql("set row_security = off")
        with waiting.told(writer, n, conn.exec_driver_sql("select pg_backend_pid()").scalar_one()):
            return sum(_send(conn, statement) for statement in step.statements)


def _send(conn: Connection, statement: Statement) -> int:
    """Send one statement and hold it to its row counts.

    Raises: TooManyRows, which rolls the transaction back.
    """
    rows = max(conn.exec_driver_sql(statement.sql.replace("%", "%%")).rowcount, 0)
    if statement.exactly is not None and rows != statement.exactly:
        raise TooManyRows(
            f"A statement affected {rows} rows where exactly {statement.exactly} were planned: {statement.sql}. The step was rolled back. The database moved: make a new plan.",
            rows=rows,
        )
    if statement.at_most is not None and rows > statement.at_most:
        raise TooManyRows(
            f"A statement affected {rows} rows where at most {statement.at_most} were planned: {statement.sql}. The step was rolled back. Make a new plan.",
            rows=rows,
        )
    return rows


def _run_upgrade(writer: Writer, n: int, step: Step) -> int:
    """The project's own upgrade(), under its interpreter, with the operations that are there already skipped."""
    if writer.project is None:
        raise PreconditionFailed(
            "This step runs the project's upgrade(), but no Alembic project was named. Nothing was changed. Pass the alembic.ini."
        )
    with writer.target.reading(writer.run_id) as conn:
        resolve.require(conn, step.before, f"Step {n + 1}")
    limits = {
        "application_name": writer.application_name(n),
        "lock_timeout": str(writer.lock_timeout_ms),
        "statement_timeout": str(writer.statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(_IDLE_TIMEOUT_MS),
    }
    if writer.identity.version_num >= 140000:
        limits["client_connection_check_interval"] = "1000"
    return project_step.run(writer.project, step, identity=writer.identity, journal=writer.journal, n=n, limits=limits)


def _run_file(writer: Writer, n: int, step: Step) -> int:
    """Replace one file of the project, provided that it is still the one that was reviewed."""
    files.replace(step.arguments)
    return 0


def _run_invalid_index(writer: Writer, n: int, step: Step) -> int:
    """Build an index and leave it INVALID, as it was found: for undo, which gives back what was there.

    A second session of ours gets in the way of CREATE INDEX CONCURRENTLY, whose short lock_timeout then ends it: a row lock
    on the table stops it before the build (not ready), an old snapshot after it (ready, and enforcing where unique).
    """
    table, ready = str(step.arguments["table"]), bool(step.arguments["ready"])
    version = writer.identity.version_num
    with (
        writer.target.writing(writer.application_name(n) + ":in-the-way", version_num=version) as other,
        writer.target.writing(writer.application_name(n), version_num=version) as conn,
    ):
        resolve.require(conn, step.before, f"Step {n + 1}")
        with transaction(other, writer, idle_ms=0):
            if ready:
                other.exec_driver_sql("set transaction isolation level repeatable read")
                other.exec_driver_sql("select 1 from pg_class limit 1")
            else:
                other.exec_driver_sql(f"lock table {table} in row exclusive mode")
            conn.exec_driver_sql("set lock_timeout = 200")
            with suppress(DBAPIError):  # it is meant to fail; `after`, checked below, is what counts
                _send(conn, step.statements[0])
        conn.exec_driver_sql("set lock_timeout = 0")
        if lines := resolve.differences(conn, step.after):
            raise StepFailed(
                f"Step {n + 1} ({step.says}) did not leave what it should. {'; '.join(lines)}. Steps before it stand.",
                step=n,
            )
    return 0


def _run_backfill(writer: Writer, n: int, step: Step) -> int:
    """Many rows, in batches that are transactions of their own; `backfill` resumes by itself from where it stands."""
    with writer.target.reading(writer.run_id) as conn:
        resolve.require(conn, step.before, f"Step {n + 1}")
    run = backfill.run if step.kind == "backfill" else giveback.run
    return run(writer, n, step, partial(_batches, writer))


@contextmanager
def _batches(writer: Writer, name: str) -> Iterator[Connection]:
    """A session for batches: the dead-man timeouts for all of them.

    lock_timeout stays far below deadlock_timeout, so that where a batch and the application wait for each other it is the batch that
    gives way, before PostgreSQL looks for somebody to cancel: also where it waits for a second lock after a first.
    """
    with writer.target.writing(name, version_num=writer.identity.version_num) as conn:
        detected_ms = conn.exec_driver_sql(
            "select cast(setting as int4) from pg_settings where name = 'deadlock_timeout'"
        ).scalar_one()
        lock_ms = max(1, min(writer.lock_timeout_ms, _BATCH_LOCK_MS, detected_ms // 4))
        conn.exec_driver_sql(f"set lock_timeout = {int(lock_ms)}")
        conn.exec_driver_sql(f"set statement_timeout = {int(writer.statement_timeout_ms)}")
        conn.exec_driver_sql(f"set idle_in_transaction_session_timeout = {_IDLE_TIMEOUT_MS}")
        conn.exec_driver_sql("set row_security = off")
        # A batch and its checkpoint are lost together if the server crashes just then, and a resume does it again; the repair's last
        # transaction is waited for, and what it waits for holds all the others.
        conn.exec_driver_sql("set synchronous_commit = off")
        yield conn


def _run_recover(writer: Writer, n: int, step: Step) -> int:
    """Read a dropped column on a session that is always rolled back, keep its values by another; that one's xid is on disk before COMMIT."""
    name, version = writer.application_name(n), writer.identity.version_num
    with (
        writer.target.writing(f"{name}:reading", version_num=version) as reading,
        writer.target.writing(name, version_num=version) as conn,
        transaction(conn, writer, idle_ms=writer.statement_timeout_ms),
    ):
        rows = recover.run(writer, n, step, reading, conn)
        xid = conn.exec_driver_sql("select cast(pg_current_xact_id() as text), cast(clock_timestamp() as text)").one()
        writer.journal.append("step_xid", {"step": n, "xid": xid[0]}, server_time=xid[1])
    return rows


def _run_ending(writer: Writer, n: int, step: Step) -> int:
    """End somebody's session or prepared transaction; in autocommit, so that each look at the session is a new one."""
    with writer.target.writing(writer.application_name(n), version_num=writer.identity.version_num) as conn:
        conn.exec_driver_sql(f"set lock_timeout = {int(writer.lock_timeout_ms)}")
        conn.exec_driver_sql(f"set statement_timeout = {int(writer.statement_timeout_ms)}")
        return ending.run(writer, n, step, conn)


_KINDS: Mapping[str, Callable[[Writer, int, Step], int]] = {
    "sql": _run_either,
    "upgrade": _run_upgrade,
    "file": _run_file,
    "invalid_index": _run_invalid_index,
    "backfill": _run_backfill,
    "restore": _run_backfill,
    "end_backend": _run_ending,
    "rollback_prepared": _run_ending,
    "wait": draining.run,
    "recover": _run_recover,
}
