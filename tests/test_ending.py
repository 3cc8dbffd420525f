"""Ending sessions of others: exactly the one that was reviewed, or nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_runs import Look, until
from mend.change.writer import Writer
from mend.database import target
from mend.errors import MendError, PreconditionFailed, Refused, StepFailed
from mend.execution import execute, resolve
from mend.journal import Journal
from mend.plan import Plan, Statement, Step
from mend.queue import ending, waits
from mend.queue.backends import Backend, denied
from mend.queue.ending import Prepared

ROLES = {
    "ending_app": "login",
    "ending_mender": "login",
    "ending_signaller": "login in role pg_signal_backend, pg_monitor",
}


@pytest.fixture
def look(database: str) -> Look:
    """An empty database with a table that everybody may use."""
    found = Look(database)
    for name, options in ROLES.items():
        if not found.query("select 1 from pg_roles where rolname = %s", name):
            found.execute(f"create role {name} {options}")
    name = found.query("select current_database()")[0][0]
    found.execute(
        "create table t (a int primary key)",
        "insert into t values (1), (2)",
        "grant all on t to public",
        f'grant create on database "{name}" to ending_mender, ending_signaller',
        "grant execute on function pg_control_system() to ending_mender, ending_signaller",
    )
    return found


@pytest.fixture
def make_writer(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Writer]:
    """``make_writer(role)``: what steps need, as one role."""

    def make(role: str = "postgres") -> Writer:
        monkeypatch.setenv("ENDING_URL", look.url.replace("postgres@", f"{role}@"))
        where = target.resolve("env:ENDING_URL")
        journal = Journal(tmp_path / f"{role}.jsonl")
        journal.append("run_opened")
        return Writer(
            where, where.identity(), f"20260101T000000Z-deadlock-{abs(hash(role)) % 16**6:06x}", journal, lambda text: None,
            lock_timeout_ms=200, statement_timeout_ms=5000,
        )  # fmt: skip

    return make


@pytest.fixture
def writer(make_writer: Callable[..., Writer]) -> Writer:
    return make_writer()


@contextmanager
def session(
    look: Look, *statements: str, role: str = "ending_app", name: str = "web-1", runs: str = ""
) -> Iterator[int]:
    """A session that ran statements in a transaction and sits in it, or goes on with ``runs`` in a thread; its pid."""
    with closing(look.connect(user=role, application_name=name)) as conn:
        for statement in ("begin", *statements):
            conn.execute(statement.encode())
        pid = conn.info.backend_pid
        thread = threading.Thread(target=_run, args=(conn, runs))
        if runs:
            thread.start()
            until(
                lambda: look.query("select 1 from pg_stat_activity where pid = %s and state = 'active'", pid),
                what="it runs",
            )
        try:
            yield pid
        finally:
            look.query("select pg_terminate_backend(%s)", pid)
            if runs:
                thread.join()


def _run(conn: psycopg.Connection[Any], sql: str) -> None:
    with suppress(psycopg.Error):
        conn.execute(sql.encode())


def backend(writer: Writer, pid: int) -> Backend:
    with waits.glance(writer.target) as conn:
        return waits.sessions(conn, [pid])[pid]


def another(writer: Writer) -> Writer:
    """The next run."""
    return replace(writer, run_id="20260101T000000Z-deadlock-000002")


def alive(look: Look, pid: int) -> bool:
    return bool(look.query("select 1 from pg_stat_activity where pid = %s", pid))


def plan_of(*steps: Step) -> Plan:
    return Plan("deadlock", {}, {}, "terminate", steps=steps)


def events(writer: Writer, kind: str) -> list[dict[str, Any]]:
    return [dict(event.payload) for event in writer.journal.of(kind)]


def test_a_session_idle_in_its_transaction_is_terminated_at_once(writer: Writer, look: Look) -> None:
    with session(look, "update t set a = a + 10") as pid:
        step = ending.step(backend(writer, pid), by=("cancel", "terminate"), patience_s=10)
        assert [s.sql.split("\n")[0] for s in step.statements] == [
            "select a.pid, pg_terminate_backend(a.pid) as signalled"
        ]
        execute.apply(writer, plan_of(step))
        assert not alive(look, pid)
    assert events(writer, "backend_signalled") == [
        {"step": 0, "rung": "terminate", "pid": pid, "found": True, "answer": True}
    ]
    assert look.query("select a from t order by a") == [(1,), (2,)]


def test_a_statement_is_cancelled_and_its_session_lives(writer: Writer, look: Look) -> None:
    with session(look, "select from t", runs="select pg_sleep(300)") as pid:
        execute.apply(writer, plan_of(ending.step(backend(writer, pid), by=("cancel", "terminate"), patience_s=10)))
        assert alive(look, pid)
        assert not look.query("select 1 from pg_locks where pid = %s and granted", pid)
    assert [event["rung"] for event in events(writer, "backend_signalled")] == ["cancel"]


def test_one_that_swallows_the_cancel_is_terminated(writer: Writer, look: Look) -> None:
    stubborn = (
        "do $$ begin loop begin perform pg_sleep(300); exception when query_canceled then null; end; end loop; end $$"
    )
    with session(look, "select from t", runs=stubborn) as pid:
        execute.apply(writer, plan_of(ending.step(backend(writer, pid), by=("cancel", "terminate"), patience_s=0.3)))
        until(lambda: not alive(look, pid), what="it is gone")
    assert [event["rung"] for event in events(writer, "backend_signalled")] == ["cancel", "terminate"]


def test_where_only_cancel_was_approved_a_stubborn_session_is_told_of_and_lives(writer: Writer, look: Look) -> None:
    stubborn = (
        "do $$ begin loop begin perform pg_sleep(300); exception when query_canceled then null; end; end loop; end $$"
    )
    with session(look, "select from t", runs=stubborn) as pid:
        step = ending.step(backend(writer, pid), by=("cancel",), patience_s=0.2)
        with pytest.raises(StepFailed, match="still holds its locks"):
            execute.apply(writer, plan_of(step))
        assert alive(look, pid)


# --- killing the wrong backend is impossible -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("backend_start", "2026-01-01 00:00:00.000001+00", "backend_start"),
        ("xact_start", "2026-01-01 00:00:00.000001+00", "xact_start"),
        ("xact_start", "", "xact_start"),
        ("role", "postgres", "role"),
        ("application", "web-2", "application_name"),
        ("query_hash", "42", "hash of its statement"),
    ],
)
def test_a_pid_that_another_session_has_is_refused_and_nobody_is_signalled(
    writer: Writer, look: Look, part: str, value: str, says: str
) -> None:
    with session(look, "update t set a = a + 10") as pid:
        before = replace(backend(writer, pid), **{part: value})
        step = ending.step(before, by=("terminate",), patience_s=1)
        with pytest.raises(Refused, match="Nobody was signalled") as refused:
            execute.apply(writer, plan_of(step))
        assert f"pid {pid} is not what was reviewed" in refused.value.message
        assert says in refused.value.message
        assert alive(look, pid)
    assert events(writer, "backend_signalled") == [
        {"step": 0, "rung": "terminate", "pid": pid, "found": False, "answer": None}
    ]


def test_a_session_that_went_on_to_its_next_transaction_is_refused(writer: Writer, look: Look) -> None:
    with look.connect(user="ending_app", autocommit=False) as conn:
        conn.execute("select 1 from t")
        step = ending.step(backend(writer, conn.info.backend_pid), by=("terminate",), patience_s=1)
        conn.commit()
        conn.execute("select 1 from t")
        with pytest.raises(Refused, match="xact_start"):
            execute.apply(writer, plan_of(step))
        conn.commit()


def test_a_session_that_has_ended_by_itself_is_no_failure_and_nobody_is_signalled(writer: Writer, look: Look) -> None:
    with look.connect(user="ending_app", autocommit=False) as conn:
        conn.execute("select 1 from t")
        pid = conn.info.backend_pid
        step = ending.step(backend(writer, pid), by=("terminate",), patience_s=1)
    until(lambda: not alive(look, pid), what="it is gone")
    execute.apply(writer, plan_of(step))
    assert events(writer, "backend_gone") == [{"step": 0, "pid": pid}]
    assert not events(writer, "backend_signalled")


# --- the deny list ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"superuser": True, "role": "postgres"}, "superuser"),
        ({"backend_type": "walsender"}, "walsender"),
        ({"application": "mend:2026-x:0"}, "mend's own"),
        (
            {"backend_type": "autovacuum worker", "query": "autovacuum: VACUUM public.t (to prevent wraparound)"},
            "wraparound",
        ),
        ({"backend_type": "autovacuum worker", "query": "autovacuum: VACUUM public.t"}, "gives way by itself"),
        ({"backend_type": "logical replication worker"}, "not a client's session"),
        ({"backend_start": "", "query": "<insufficient privilege>"}, "grant pg_monitor"),
        ({"here": False, "database": "other"}, "database other"),
    ],
)
def test_who_is_never_ended(writer: Writer, look: Look, change: dict[str, Any], why: str) -> None:
    with session(look, "select from t") as pid:
        seen = backend(writer, pid)
    assert denied(seen) == ""
    who = replace(seen, **change)
    assert why in denied(who)
    with pytest.raises(Refused, match="Nobody was signalled"):
        ending.step(who, by=("terminate",), patience_s=1)


def test_the_statement_that_signals_holds_the_deny_list_too(writer: Writer, look: Look) -> None:
    """Whatever a plan says of a session, PostgreSQL compares: here it says that a superuser's session is an application's."""
    with session(look, "select from t", role="postgres") as pid:
        who = replace(backend(writer, pid), superuser=False)
        with pytest.raises(Refused, match="deny list"):
            execute.apply(writer, plan_of(ending.step(who, by=("terminate",), patience_s=1)))
        assert alive(look, pid)
        said = ending.step(replace(who, superuser=True), by=("terminate",), patience_s=10, superusers=True)
        execute.apply(
            replace(writer, run_id="20260101T000000Z-deadlock-000002"), replace(plan_of(said), evidence={"n": 2})
        )
        assert not alive(look, pid)


def test_mends_own_session_is_not_signalled_even_if_a_plan_says_so(writer: Writer, look: Look) -> None:
    with session(look, "select from t", name="mend:run:1") as pid:
        step = ending.step(replace(backend(writer, pid), application="x"), by=("terminate",), patience_s=1)
        forged = step.statements[0].sql.replace("application_name = 'x'", "application_name = 'mend:run:1'")
        with pytest.raises(Refused, match="Nobody was signalled"):
            execute.apply(writer, plan_of(replace(step, statements=(Statement(forged),))))
        assert alive(look, pid)


def test_a_role_without_pg_signal_backend_is_told_what_to_grant(make_writer: Callable[..., Writer], look: Look) -> None:
    writer, mender = make_writer(), make_writer("ending_mender")
    with session(look, "select from t") as pid:
        who = backend(writer, pid)
        with waits.glance(mender.target) as conn:
            assert "grant pg_monitor" in denied(waits.sessions(conn, [pid])[pid])
        look.execute("grant pg_monitor to ending_mender")
        with waits.glance(mender.target) as conn, pytest.raises(Refused, match="grant pg_signal_backend"):
            ending.step(waits.sessions(conn, [pid])[pid], by=("terminate",), patience_s=1)
        with pytest.raises(PreconditionFailed, match="Grant pg_signal_backend to ending_mender") as failed:
            execute.apply(mender, plan_of(ending.step(who, by=("terminate",), patience_s=1)))
        assert "Nobody was signalled" in failed.value.message
        assert alive(look, pid)
    look.execute("revoke pg_monitor from ending_mender")


def test_pg_signal_backend_is_enough(make_writer: Callable[..., Writer], look: Look) -> None:
    writer = make_writer("ending_signaller")
    with session(look, "select from t") as pid:
        execute.apply(writer, plan_of(ending.step(backend(writer, pid), by=("terminate",), patience_s=10)))
        assert not alive(look, pid)


# --- prepared transactions ----------------------------------------------------------------------------------------------


def prepare(look: Look, gid: str) -> Prepared:
    with look.connect(user="ending_app") as conn:
        for text in ("begin", "update t set a = a + 10", "prepare transaction '{}'".format(gid.replace("'", "''"))):
            conn.execute(text.encode())
    with look.connect() as conn:
        found = conn.execute(
            "select gid, cast(transaction as text), to_char(prepared at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', owner, database from pg_prepared_xacts where gid = %s",
            [gid],
        ).fetchone()
    assert found
    return Prepared(*found)


def test_a_prepared_transaction_is_rolled_back(writer: Writer, look: Look) -> None:
    one = prepare(look, "it's 5% done")
    execute.apply(writer, plan_of(ending.prepared_step(one)))
    assert look.query("select gid from pg_prepared_xacts") == []
    assert look.query("select a from t order by a") == [(1,), (2,)]


def test_a_later_transaction_of_the_same_name_is_left_alone(writer: Writer, look: Look) -> None:
    one = prepare(look, "same-name")
    look.execute("rollback prepared 'same-name'")
    prepare(look, "same-name")
    with pytest.raises(Refused, match="is another one now"):
        execute.apply(writer, plan_of(ending.prepared_step(one)))
    look.execute("rollback prepared 'same-name'")
    with pytest.raises(Refused, match="is gone: it was committed or rolled back"):
        execute.apply(another(writer), replace(plan_of(ending.prepared_step(one)), evidence={"n": 2}))


def test_who_did_not_prepare_it_may_not_roll_it_back(make_writer: Callable[..., Writer], look: Look) -> None:
    one = prepare(look, "not-yours")
    with pytest.raises(PreconditionFailed, match="Run as ending_app or as a superuser"):
        execute.apply(make_writer("ending_signaller"), plan_of(ending.prepared_step(one)))
    look.execute("rollback prepared 'not-yours'")


# --- after a crash ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["step_started", "backend_signalled"])
def test_after_a_crash_the_session_itself_tells_what_happened(
    writer: Writer, look: Look, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Journal.append

    def dying(self: Journal, kind: str, *args: Any, **more: Any) -> Any:
        event = append(self, kind, *args, **more)
        if kind == when:
            raise KeyboardInterrupt
        return event

    with session(look, "select from t") as pid:
        plan = plan_of(ending.step(backend(writer, pid), by=("terminate",), patience_s=10))
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", dying)
            with suppress(MendError, KeyboardInterrupt):
                execute.apply(writer, plan)
        if when == "backend_signalled":
            until(lambda: not alive(look, pid), what="it is gone")
        found = resolve.outcomes(writer.target, plan, writer.journal.events())
        assert found[0].state == ("done" if when == "backend_signalled" else "not_done")
        execute.resume(another(writer), plan, found)
        assert not alive(look, pid)


def test_a_step_survives_the_way_through_its_record(writer: Writer, look: Look) -> None:
    from mend.plan import from_record

    with session(look, "select from t", name='it\'s \\ "web" 5%') as pid:
        plan = plan_of(ending.step(backend(writer, pid), by=("terminate",), patience_s=10))
        again = from_record(plan.as_record())
        assert again.digest() == plan.digest()
        execute.apply(writer, again)
        assert not alive(look, pid)


def test_what_a_session_runs_is_kept_by_its_shape_only(writer: Writer, look: Look) -> None:
    with session(look, "select a from t where a = 4711 and 'ann@example.org' <> ''") as pid:
        who = backend(writer, pid)
        assert who.query == "select a from t where a = 0 and '' <> ''"
        kept = str(asdict(ending.step(who, by=("terminate",), patience_s=1)))
        assert "ann@example" not in kept
        assert "4711" not in who.query
