"""Ending what others began: one session by cancel, then terminate; one prepared transaction by ROLLBACK PREPARED.

The SQL that signals names the session wholly and reads it again in the same statement: where anything differs, it finds no row, and
nobody is signalled.  The deny list stands in that statement too.  `step` and `prepared_step` are pure; `runners` calls `run`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from psycopg import sql as pgsql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mend.change.writer import Writer
from mend.database import queries
from mend.errors import PreconditionFailed, Refused, StepFailed, sqlstate
from mend.plan import Statement, Step
from mend.queue.backends import IDLE_IN_TRANSACTION, OURS, Backend, Identity, denied

Rung = Literal["cancel", "terminate"]
_FUNCTIONS: Mapping[Rung, str] = {"cancel": "pg_cancel_backend", "terminate": "pg_terminate_backend"}
_POLL_S = 0.1
KINDS = ("end_backend", "rollback_prepared")


@dataclass(frozen=True)
class Prepared:
    """One prepared transaction: ``xid`` and ``prepared_at`` (UTC, microseconds) tell it from a later one of the same name."""

    gid: str
    xid: str
    prepared_at: str
    owner: str
    database: str

    def words(self) -> str:
        """All of it in one line, but for its name."""
        return f"transaction {self.xid}, prepared {self.prepared_at} by role {self.owner} in {self.database}"


def step(
    who: Backend,
    *,
    by: tuple[Rung, ...],
    patience_s: float,
    says: str = "",
    advisory: bool = False,
    superusers: bool = False,
    any_transaction: bool = False,
) -> Step:
    """End one session: each rung of ``by`` in turn, until it has let go.

    Parameters
    ----------
    by : ``("cancel",)``, ``("terminate",)`` or ``("cancel", "terminate")``; a session that runs nothing is not cancelled but terminated
    patience_s : seconds to wait after each signal
    says : what it is for, put before its description
    advisory : it is in the way by an advisory lock, which outlives a cancelled statement and a transaction
    superusers : a superuser's session may be ended
    any_transaction : it commits again and again, so that its transaction is another one at each look; then only its end counts

    Raises: Refused where it is on the deny list, the role may not signal it, or nothing in ``by`` would end it.
    """
    if why := denied(who, superusers=superusers):
        raise Refused(f"{who.named()} is not ended: {why}. Nobody was signalled.")
    if not who.may_signal:
        raise Refused(
            f"{who.named()} is not ended: this role may not signal sessions of role {who.role}; grant pg_signal_backend, or membership in {who.role}. Nobody was signalled."
        )
    rungs = tuple(rung for rung in by if rung == "terminate" or not who.idle)
    if not rungs:
        raise Refused(
            f"{who.named()} runs nothing, so cancelling it does nothing. Nobody was signalled. Choose terminate."
        )
    identity = replace(who.identity, xact_start="") if any_transaction else who.identity
    return Step(
        says=f"{says or _SAYS[rungs]} {who.label()}",
        kind="end_backend",
        statements=tuple(
            Statement(guarded(identity, rung, superusers=superusers, any_transaction=any_transaction)) for rung in rungs
        ),
        transactional=False,
        retryable=False,
        irreversible="the work of that transaction is rolled back by PostgreSQL; its application must do it again",
        arguments={**asdict(identity), "by": list(rungs), "patience_s": float(patience_s), "advisory": advisory},
    )  # fmt: skip


_SAYS: Mapping[tuple[Rung, ...], str] = {
    ("cancel",): "Cancel the statement of",
    ("terminate",): "Terminate",
    ("cancel", "terminate"): "Cancel the statement of, then terminate if it does not let go,",
}


def guarded(who: Identity, rung: Rung, *, superusers: bool = False, any_transaction: bool = False) -> str:
    """The statement that signals exactly this session, or nobody."""
    literal = _literal
    began = f"= timestamptz {literal(who.xact_start)}" if who.xact_start else "is null"
    lines = [
        f"select a.pid, {_FUNCTIONS[rung]}(a.pid) as signalled",
        "  from pg_stat_activity as a",
        "  join pg_roles as r on r.oid = a.usesysid",
        f" where a.pid = {int(who.pid)}",
        f"   and a.backend_start = timestamptz {literal(who.backend_start)}",
        *([] if any_transaction else [f"   and a.xact_start {began}"]),
        f"   and a.usename = {literal(who.role)}",
        f"   and a.application_name = {literal(who.application)}",
        f'   and hashtextextended(a.query collate "C", 0) = {int(who.query_hash)}',
        "   and a.datname = current_database()",
        "   and a.backend_type = 'client backend'",
        *([] if superusers else ["   and not r.rolsuper"]),
        f"   and not starts_with(a.application_name, {literal(OURS)})",
        "   and a.pid <> pg_backend_pid()",
    ]
    return "\n".join(lines)


def _literal(text: str) -> str:
    return pgsql.Literal(text).as_string(None).strip()


def prepared_step(one: Prepared, *, says: str = "") -> Step:
    """Roll one prepared transaction back; its name, number and time are compared just before."""
    return Step(
        says=says or f"Roll back the transaction {one.gid!r}, prepared {one.prepared_at[:19]} UTC by role {one.owner}",
        kind="rollback_prepared",
        statements=(Statement(f"rollback prepared {_literal(one.gid)}"),),
        transactional=False,
        retryable=False,
        irreversible="a prepared transaction that is rolled back is gone; whoever prepared it was promised that it could still be committed",
        arguments=asdict(one),
    )


def run(writer: Writer, n: int, step: Step, conn: Connection) -> int:
    """Run a step of one of these kinds; how many signals were sent, or transactions rolled back.

    Raises: Refused where it is not what was reviewed (nothing was done); StepFailed where it did not let go; PreconditionFailed
    where the role may not.
    """
    return (_roll_back if step.kind == "rollback_prepared" else _end)(writer, n, step, conn)


def _end(writer: Writer, n: int, step: Step, conn: Connection) -> int:
    who, patience_s = _identity(step), float(step.arguments["patience_s"])
    sent: list[Rung] = []
    for rung, statement in zip(step.arguments["by"], step.statements, strict=True):
        now = seen(conn, who.pid)
        if now is None and not sent:
            writer.journal.append("backend_gone", {"step": n, "pid": who.pid})
            writer.progress(f"step {n + 1}: pid {who.pid} has ended by itself; nobody was signalled")
            return 0
        if let_go(step, now) and sent:
            return len(sent)
        if rung == "cancel" and now and now.state in IDLE_IN_TRANSACTION and len(step.statements) > 1:
            continue  # it runs nothing any more: there is nothing to cancel
        signalled = _signal(writer, n, step, conn, statement, rung)
        if signalled is None:
            now = seen(conn, who.pid)
            if sent and let_go(step, now):
                return len(sent)
            raise _another(n, step, now, sent)
        sent.append(rung)
        if _awaited(writer, n, step, conn, patience_s):
            return len(sent)
    raise StepFailed(
        f"Step {n + 1}: pid {who.pid} was told to let go ({', then '.join(sent) or 'nothing was sent'}) and still holds its locks after {patience_s:g} s each. Its transaction is still open. Give it more time (patience_s), or choose terminate.",
        step=n,
    )


def _signal(writer: Writer, n: int, step: Step, conn: Connection, statement: Statement, rung: Rung) -> bool | None:
    """Send one guarded signal; None where the statement found nobody.  Raises: PreconditionFailed for want of a privilege."""
    try:
        row = conn.exec_driver_sql(statement.sql.replace("%", "%%")).fetchone()
    except DBAPIError as error:
        if sqlstate(error) != "42501":
            raise
        raise PreconditionFailed(
            f"Step {n + 1}: role {writer.identity.role} may not signal pid {step.arguments['pid']} of role {step.arguments['role']}. Nobody was signalled. Grant pg_signal_backend to {writer.identity.role} (a superuser's session needs a superuser), then make a new plan.",
            sqlstate="42501",
        ) from error
    answer = None if row is None else bool(row[1])
    writer.journal.append(
        "backend_signalled",
        {"step": n, "rung": rung, "pid": step.arguments["pid"], "found": row is not None, "answer": answer},
    )
    if answer is not None:
        writer.progress(f"step {n + 1}: {rung} sent to pid {step.arguments['pid']}")
    return answer


def _awaited(writer: Writer, n: int, step: Step, conn: Connection, patience_s: float) -> bool:
    """Whether it let go within the time."""
    deadline = time.monotonic() + patience_s
    while not let_go(step, now := seen(conn, int(step.arguments["pid"]))):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    writer.journal.append("backend_let_go", {"step": n, "pid": step.arguments["pid"], "gone": _gone(step, now)})
    return True


def _another(n: int, step: Step, now: Standing | None, sent: Sequence[Rung]) -> Refused | StepFailed:
    """Why the guarded statement found nobody."""
    pid = step.arguments["pid"]
    what = (
        f"pid {pid} is gone"
        if now is None
        else f"pid {pid} is not what was reviewed: {'; '.join(parts)}"
        if (parts := _identity(step).differences(now.identity))
        else f"pid {pid} is on the deny list now"
    )
    if sent:
        return StepFailed(
            f"Step {n + 1}: after {', '.join(sent)}, {what}. It was not signalled again, and may still hold its locks. Make a new plan.",
            step=n,
        )
    return Refused(f"Step {n + 1}: {what}. Nobody was signalled. Make a new plan.")


@dataclass(frozen=True)
class Standing:
    """Who has a pid now; ``locks`` and ``advisory_locks`` that it holds."""

    identity: Identity
    state: str
    locks: int
    advisory_locks: int


def seen(conn: Connection, pid: int) -> Standing | None:
    """Who has that pid now; None where nobody does.  Call it outside a transaction: within one the server answers the same for ever."""
    rows = queries.frame(conn, "ending/standing", pid=pid).to_dict("records")
    if not rows:
        return None
    row = rows[0]
    names = ("backend_start", "xact_start", "role", "application", "query_hash")
    who = Identity(pid=int(row["pid"]), **{name: str(row[name]) for name in names})
    return Standing(who, str(row["state"]), int(row["locks"]), int(row["advisory_locks"]))


def let_go(step: Step, now: Standing | None) -> bool:
    """Whether the session of a step is gone, or has left the transaction (and the advisory locks) by which it was in the way."""
    if _gone(step, now) or now is None:
        return True
    if step.arguments["advisory"]:
        return now.advisory_locks == 0
    if not step.arguments["xact_start"]:
        return False  # there was no transaction to leave: only its end is an end
    return now.identity.xact_start != step.arguments["xact_start"] or now.locks == 0


def _gone(step: Step, now: Standing | None) -> bool:
    return now is None or now.identity.backend_start != step.arguments["backend_start"]


def _identity(step: Step) -> Identity:
    names = ("pid", "backend_start", "xact_start", "role", "application", "query_hash")
    return Identity(**{name: step.arguments[name] for name in names})


def _roll_back(writer: Writer, n: int, step: Step, conn: Connection) -> int:
    """PostgreSQL cannot compare and roll back in one statement (ROLLBACK PREPARED runs in no block), so it is compared just before."""
    planned = Prepared(**step.arguments)
    now = prepared(conn, planned.gid)
    if now != planned:
        what = "is gone: it was committed or rolled back" if now is None else f"is another one now ({now})"
        raise Refused(
            f"Step {n + 1}: the prepared transaction {planned.gid!r} {what}. Nothing was rolled back. Make a new plan."
        )
    try:
        conn.exec_driver_sql(step.statements[0].sql.replace("%", "%%"))
    except DBAPIError as error:
        if sqlstate(error) != "42501":
            raise
        raise PreconditionFailed(
            f"Step {n + 1}: role {writer.identity.role} may not finish a transaction that {planned.owner} prepared. Nothing was rolled back. Run as {planned.owner} or as a superuser, then make a new plan.",
            sqlstate="42501",
        ) from error
    writer.journal.append("prepared_rolled_back", {"step": n, **step.arguments})
    return 1


def prepared(conn: Connection, gid: str) -> Prepared | None:
    """The transaction that is prepared under that name."""
    rows = queries.frame(conn, "ending/prepared", gid=gid).to_dict("records")
    return Prepared(**{str(key): str(value) for key, value in rows[0].items()}) if rows else None


def standing(conn: Connection, step: Step) -> tuple[Literal["done", "not_done"], str]:
    """What became of a step of which only its beginning is in the journal, and how that is known."""
    if step.kind == "rollback_prepared":
        there = prepared(conn, step.arguments["gid"]) == Prepared(**step.arguments)
        name = f"the prepared transaction {step.arguments['gid']!r}"
        return ("not_done", f"{name} is still there") if there else ("done", f"{name} is gone")
    now = seen(conn, int(step.arguments["pid"]))
    who = f"pid {step.arguments['pid']} (session of {step.arguments['backend_start'][:19]} UTC)"
    return (
        ("done", f"{who} has let go")
        if let_go(step, now)
        else ("not_done", f"{who} is still there, and holds its locks")
    )
