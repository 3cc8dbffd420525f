"""What acts: nothing but the reviewed plan runs, once; and whatever cuts it off, what happened is known and gone on with."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from fix_runs import SLUG, Desk, Look, Ran, closing, meanwhile, options, until, verdict
from fix_shop import Broken
from mend.change.locks import locks_of
from mend.change.writer import Writer
from mend.database import target
from mend.errors import (
    Interrupted,
    LockNotAcquired,
    MendError,
    OutcomeUnknown,
    PlanConsumed,
    PreconditionFailed,
    Refused,
    StepFailed,
    TooManyRows,
)
from mend.execution import execute, runners
from mend.journal import Journal
from mend.plan import Expect, Lock, Plan, Statement, Step
from mend.postgres.server import Server
from mend.record import archive, ledger
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

Incident = Callable[[str], Broken]
INDEX = "ix_orders_status_placed_at"

# --- one writer, small plans -------------------------------------------------------------------------------------------


@pytest.fixture
def writer(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Writer:
    """What steps need, on an empty database with one table of three rows."""
    Look(database).execute(
        "create table t (a int primary key, b text)", "insert into t values (1, 'x'), (2, 'x'), (3, 'y%')"
    )
    monkeypatch.setenv("WRITER_URL", database)
    where = target.resolve("env:WRITER_URL")
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("run_opened")
    return Writer(
        where,
        where.identity(),
        "20260101T000000Z-failed_migration-abcdef",
        journal,
        lambda text: None,
        lock_timeout_ms=200,
        statement_timeout_ms=5000,
    )


def plan_of(*steps: Step, mark: str = "") -> Plan:
    return Plan(SLUG, {}, {"mark": mark}, "resume", steps=steps)


def sql(*texts: str, **more: Any) -> Step:
    return Step("a step", tuple(Statement(text) for text in texts), **more)


def kinds(writer: Writer) -> list[str]:
    return [event.kind for event in writer.journal.events()]


@pytest.mark.parametrize("found", [0, 2])
def test_a_statement_that_meets_another_number_of_rows_than_planned_rolls_its_step_back(
    writer: Writer, database: str, found: int
) -> None:
    before = Look(database).rows()
    where = "b = 'x'" if found else "a > 9"
    step = Step(
        "change one row",
        (Statement("insert into t values (7, 'z')"), Statement(f"update t set b = 'q' where {where}", exactly=1)),
    )
    with pytest.raises(TooManyRows, match=f"affected {found} rows where exactly 1"):
        execute.apply(writer, plan_of(step))
    assert Look(database).rows() == before
    assert writer.journal.of("step_failed")[0].payload["outcome"] == "rolled_back"


def test_a_statement_that_meets_more_rows_than_its_ceiling_rolls_its_step_back(writer: Writer, database: str) -> None:
    before = Look(database).rows()
    with pytest.raises(TooManyRows):
        execute.apply(writer, plan_of(Step("empty it", (Statement("delete from t", at_most=2),))))
    assert Look(database).rows() == before
    execute.apply(writer_again(writer), plan_of(Step("empty it", (Statement("delete from t", at_most=3),))))
    assert Look(database).query("select count(*) from t") == [(0,)]


def writer_again(writer: Writer) -> Writer:
    """The next run."""
    return Writer(**{**writer.__dict__, "run_id": writer.run_id[:-1] + "0"})


def test_steps_before_a_failed_one_stand_and_those_after_it_never_start(writer: Writer, database: str) -> None:
    with pytest.raises(StepFailed, match=r"Step 2 .*42P01.*Steps before it stand"):
        execute.apply(
            writer,
            plan_of(
                sql("insert into t values (4, 'z')"),
                sql("insert into nowhere values (1)"),
                sql("insert into t values (5, 'z')"),
            ),
        )
    assert Look(database).query("select a from t where b = 'z'") == [(4,)]
    assert kinds(writer).count("step_started") == 2


def test_percent_signs_quotes_and_backslashes_reach_the_server_as_they_are(writer: Writer, database: str) -> None:
    execute.apply(writer, plan_of(sql("update t set b = 'it''s 100%% \\ %s :x' where b like 'y%'")))
    assert Look(database).query("select b from t where a = 3") == [("it's 100%% \\ %s :x",)]


def test_a_step_does_nothing_where_the_catalog_is_not_as_it_expects(writer: Writer, database: str) -> None:
    step = sql("drop table t", before=(Expect("column", "public.t.b", "integer"),))
    with pytest.raises(PreconditionFailed, match=r"column public\.t\.b: expected integer, found text"):
        execute.apply(writer, plan_of(step))
    assert Look(database).query("select count(*) from t") == [(3,)]


def test_the_transaction_id_is_on_disk_before_commit(writer: Writer, database: str) -> None:
    execute.apply(writer, plan_of(sql("insert into t values (4, 'z')")))
    assert kinds(writer) == ["run_opened", "apply_started", "step_started", "step_xid", "step_done", "applied"]
    xid = writer.journal.of("step_xid")[0].payload["xid"]
    assert Look(database).query("select pg_xact_status(cast(%s as xid8))", xid) == [("committed",)]
    assert writer.journal.of("step_xid")[0].server_time


def test_a_plan_applies_once(writer: Writer, database: str) -> None:
    plan = plan_of(sql("insert into t values (4, 'z')"))
    execute.apply(writer, plan)
    with pytest.raises(PlanConsumed):
        execute.apply(writer_again(writer), plan)
    assert Look(database).query("select count(*) from t") == [(4,)]


def test_a_schema_of_that_name_which_is_not_ours_is_left_alone(writer: Writer, database: str) -> None:
    Look(database).execute("create schema mend", "create table mend.run (theirs int)")
    with pytest.raises(Refused, match="was not made by mend"):
        execute.apply(writer, plan_of(sql("drop table t")))
    assert Look(database).query("select to_regclass('t') is not null") == [(True,)]


def test_a_ledger_that_another_role_laid_out_runs_none_of_its_code(writer: Writer, database: str) -> None:
    look = Look(database)
    look.execute(
        "create role hostile",
        "do $$ begin execute format('grant create on database %I to hostile', current_database()); end $$",
        "set role hostile; create schema mend; comment on schema mend is 'mend: hello'; create table mend.run (run_id text, slug text, digest text, "
        "action text, started_at timestamptz, finished_at timestamptz, outcome text, journal_length int, journal_head text); create function mend.f() "
        "returns trigger language plpgsql as $$ begin execute 'create table public.pwned as select current_user as who'; return new; end $$; "
        "create trigger t before insert on mend.run for each row execute function mend.f(); reset role; grant create on schema public to hostile",
    )
    try:
        with pytest.raises(
            Refused, match=r"Schema mend cannot be used: it belongs to role hostile.*Nothing was changed"
        ):
            execute.apply(writer, plan_of(sql("delete from t")))
        assert look.query("select cast(to_regclass('public.pwned') as text), (select count(*) from t)") == [(None, 3)]
        assert "apply_started" not in kinds(writer)
    finally:
        look.execute("drop owned by hostile cascade", "drop role hostile")


def test_the_ledger_is_for_its_owner_alone(writer: Writer, database: str, role: Callable[..., str]) -> None:
    execute.apply(writer, plan_of(sql("insert into t values (4, 'z')")))
    with (
        psycopg.connect(as_role(database, role("stranger")).replace("+psycopg", "")) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("select * from mend.run")


def test_the_journal_s_end_is_anchored_in_the_target(writer: Writer) -> None:
    execute.apply(writer, plan_of(sql("insert into t values (4, 'z')")))
    last = writer.journal.events()[-1]
    with writer.target.reading() as conn:
        assert ledger.anchor(conn, "mend", writer.run_id) == (last.seq + 1, last.hash)


def test_another_run_s_lock_keeps_this_one_out(writer: Writer, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_HOLD_WAIT_S", 0.3)
    before = Look(database).catalog()
    with Look(database).connect(application_name="mend:other:lock") as other:
        other.execute("select pg_advisory_lock(%s, 0)", [execute.ADVISORY_CLASS])
        with pytest.raises(Refused, match=r"mend:other:lock \(pid \d+, role postgres"):
            execute.apply(writer, plan_of(sql("drop table t")))
    assert Look(database).catalog() == before
    assert kinds(writer) == ["run_opened"]


def test_no_further_step_starts_once_the_lock_is_lost(writer: Writer, database: str) -> None:
    """As behind a pooler in transaction mode."""
    ends_holder = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%:lock' and datname = current_database()"
    steps = (sql(ends_holder), sql("drop table t"))
    with pytest.raises(Interrupted, match="No further step was started"):
        execute.apply(writer, plan_of(*steps))
    assert Look(database).query("select to_regclass('t') is not null") == [(True,)]


def test_every_writing_session_has_a_dead_man_s_switch(writer: Writer, database: str) -> None:
    asked = "insert into t select 10 + row_number() over (), name || '=' || setting from pg_settings where name = any ('{lock_timeout,statement_timeout,idle_in_transaction_session_timeout,client_connection_check_interval}')"
    execute.apply(writer, plan_of(sql(asked)))
    found = dict(row[0].split("=") for row in Look(database).query("select b from t where a > 10"))
    assert found == {
        "lock_timeout": "200",
        "statement_timeout": "5000",
        "idle_in_transaction_session_timeout": "60000",
        "client_connection_check_interval": "1000",
    }


def test_a_concurrent_index_build_has_no_time_limit(writer: Writer, database: str) -> None:
    """A timeout there is what leaves INVALID indexes behind."""
    step = sql("create index concurrently ix on t (b)", transactional=False, retryable=False)
    quick = Writer(**{**writer.__dict__, "lock_timeout_ms": 50, "statement_timeout_ms": 50})
    look = Look(database)

    def release() -> None:
        until(
            lambda: look.query("select 1 from pg_stat_progress_create_index where phase like 'waiting%'"),
            what="the build waits",
        )
        until(
            lambda: look.query(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query_start < clock_timestamp() - interval '0.3 s'"
            ),
            what="longer than the limit",
        )
        until(lambda: writer.journal.of("waits"), what="it says whom it waits for")
        holder.rollback()

    with look.connect(autocommit=False) as holder:
        holder.execute("insert into t values (9, 'secret')")
        pid = holder.info.backend_pid
        with meanwhile(release):
            execute.apply(quick, plan_of(step))
    assert look.catalog()["index", "public.ix"].endswith("(b)")
    (waited, *_) = writer.journal.of("waits")
    (blocker,) = waited.payload["blockers"]
    assert (blocker["pid"], blocker["state"]) == (pid, "idle in transaction")
    assert "secret" not in str(blocker)


def test_hostile_names_are_only_names(writer: Writer, database: str) -> None:
    name = 'a"; drop table t; --'
    quoted = '"' + name.replace('"', '""') + '"'
    step = sql(
        f"create table {quoted} (i int)",
        locks=(Lock(f"public.{quoted}", "ACCESS EXCLUSIVE"),),
        after=(Expect("table", f"public.{quoted}", "permanent"),),
    )
    execute.apply(writer, plan_of(step))
    assert Look(database).query("select count(*) from t") == [(3,)]
    assert (("table", f"public.{quoted}")) in Look(database).catalog()


def test_a_blocker_is_named_and_the_step_gives_way_until_it_is_gone(
    writer: Writer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_BACKOFF_S", (0.2, 0.2, 0.2, 5.0))
    told: list[str] = []
    patient = Writer(**{**writer.__dict__, "progress": told.append, "lock_timeout_ms": 100})
    step = sql("alter table t add column c int", locks=(Lock("public.t", "ACCESS EXCLUSIVE"),))

    def release() -> None:
        until(lambda: "step_retried" in kinds(writer), what="the step gave way")
        holder.rollback()

    with Look(database).connect(autocommit=False) as holder:
        holder.execute("select 'ann@b.co' from t")
        with meanwhile(release):
            execute.apply(patient, plan_of(step))
        pid = holder.info.backend_pid
    assert kinds(writer).count("step_done") == 1
    assert any(f"pid {pid} (postgres, idle in transaction" in line for line in told)
    blocker = writer.journal.of("step_retried")[0].payload["blockers"][0]
    assert (blocker["pid"], blocker["query"]) == (pid, "select '' from t"), "no value of anybody's is journaled"


def test_a_session_that_is_ended_in_its_transaction_leaves_nothing(writer: Writer, database: str) -> None:
    with pytest.raises(StepFailed, match=r"57P01.*It was rolled back"):
        execute.apply(
            writer, plan_of(sql("insert into t values (4, 'z')", "select pg_terminate_backend(pg_backend_pid())"))
        )
    assert Look(database).query("select count(*) from t") == [(3,)]


def test_a_statement_that_takes_too_long_is_ended_and_rolled_back(writer: Writer, database: str) -> None:
    quick = Writer(**{**writer.__dict__, "statement_timeout_ms": 100})
    with pytest.raises(StepFailed, match=r"57014.*It was rolled back"):
        execute.apply(quick, plan_of(sql("insert into t values (4, 'z')", "select pg_sleep(60)")))
    assert Look(database).query("select count(*) from t") == [(3,)]


def test_an_answer_to_commit_that_is_lost_is_looked_up(
    writer: Writer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runners.transaction

    @contextmanager
    def cut(conn: Connection, writer: Writer, **more: Any) -> Iterator[None]:
        with real(conn, writer, **more):
            yield
        if kinds(writer)[-1] == "step_xid":
            raise OperationalError(
                "commit", None, psycopg.OperationalError("server closed the connection unexpectedly")
            )

    monkeypatch.setattr(runners, "transaction", cut)
    with pytest.raises(StepFailed, match=r"It took effect all the same \(transaction \d+ is committed\)"):
        execute.apply(writer, plan_of(sql("insert into t values (4, 'z')")))
    assert writer.journal.of("step_failed")[0].payload["outcome"] == "done"


def test_who_holds_the_table_of_an_index_that_is_to_go_is_seen(writer: Writer, database: str) -> None:
    look = Look(database)
    look.execute("create index ix on t (b)")
    told: list[str] = []
    step = sql("drop index public.ix", locks=locks_of("drop index public.ix"), retryable=False)
    with (
        look.holding("select * from t") as pid,
        pytest.raises(LockNotAcquired, match=f"pid {pid} .* holds AccessShareLock on table of public.ix"),
    ):
        execute.apply(Writer(**{**writer.__dict__, "progress": told.append}), plan_of(step))
    assert not [line for line in told if "could not be checked" in line]


def test_an_interrupt_while_it_waits_to_try_again_is_an_interruption(writer: Writer, database: str) -> None:
    def impatient(text: str) -> None:
        if "trying again" in text:
            raise KeyboardInterrupt

    step = sql("alter table t add column c int", locks=(Lock("public.t", "ACCESS EXCLUSIVE"),))
    with Look(database).holding("select * from t"), pytest.raises(Interrupted, match=f"mend resume {writer.run_id}"):
        execute.apply(Writer(**{**writer.__dict__, "progress": impatient, "lock_timeout_ms": 50}), plan_of(step))
    assert writer.journal.of("step_failed")[0].payload["outcome"] == "rolled_back"


# --- the plan that was reviewed is the plan that runs -------------------------------------------------------------------


def moved_version_row(incident: Broken) -> None:
    Look(incident.url).execute("update alembic_version set version_num = 'f2a85d9c0b46'")


def made_an_index(incident: Broken) -> None:
    Look(incident.url).execute("create index ix_somebody on shipments (carrier)")


def dropped_an_index(incident: Broken) -> None:
    Look(incident.url).execute(f"drop index {INDEX}")


def edited_the_revision(incident: Broken) -> None:
    path = next((incident.project.directory / "migrations" / "versions").glob("4d7f20c91be6*"))
    path.write_text(path.read_text() + "\n# reviewed again\n")


MOVES = {
    moved_version_row: ("version_rows", "f2a85d9c0b46"),
    made_an_index: ("objects", "ix_somebody"),
    dropped_an_index: ("objects", INDEX),
    edited_the_revision: ("files", "4d7f20c91be6"),
}


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_a_plan_is_refused_once_something_moved_and_what_moved_is_printed(
    desk: Desk, broken: Incident, move: Callable[[Broken], None]
) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    move(incident)
    look = Look(incident.url)
    before, rows = look.catalog(), look.rows()
    refused = desk.apply(plan)
    assert (refused.code, refused.document["outcome"]) == (3, "refused")
    subject, name = MOVES[move]
    assert f"{subject}: " in refused.err
    assert name in refused.err
    assert any(name in line for line in refused.document["refused"]["differences"])
    assert (look.catalog(), look.rows(), look.schemas()) == (before, rows, ["information_schema", "public"])
    assert verdict(refused.run_id) == "whole"


def test_rows_that_move_do_not_make_a_plan_stale(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    Look(incident.url).execute("update orders set note = 'busy' where id < 5")
    assert desk.apply(plan).code == 0


def test_a_digest_that_is_not_the_plan_s_is_refused(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    plan, other = desk.plan(incident), desk.plan(incident, option="roll_back")
    for digest in ("0" * 16, other.digest, plan.digest.upper(), ""):
        assert desk.here("apply", plan.run_id, "--approve", digest).code == 3
    assert desk.here("apply", plan.run_id).code == 3
    assert desk.here("apply", SLUG, *options(incident), "--approve", "0" * 16).code == 3
    assert Look(incident.url).schemas() == ["information_schema", "public"]


def test_the_same_plan_is_applied_once(desk: Desk, broken: Incident) -> None:
    plan = desk.plan(broken("interrupted_index"))
    assert desk.apply(plan).code == 0
    again = desk.apply(plan)
    assert (again.code, again.document["outcome"]) == (3, "refused")


def test_a_plan_for_one_database_never_runs_on_its_clone(
    desk: Desk, broken: Incident, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    clone = new_database(incident.url.rpartition("?")[0].rpartition("/")[2])
    for variable in (incident.parameters["target"].removeprefix("env:"), "SHOP_DATABASE_URL"):
        monkeypatch.setenv(variable, clone)
    refused = desk.apply(plan)
    assert refused.code == 3
    assert "target database_oid" in refused.err
    assert Look(clone).schemas() == ["information_schema", "public"]


def test_an_approval_alone_applies_nothing(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    ran = desk.papermill(incident, approve=plan.digest)
    assert ran.document["outcome"] == "planned"
    assert Look(incident.url).schemas() == ["information_schema", "public"]


def test_wanting_to_apply_without_an_approval_is_refused(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    ran = desk.papermill(incident, dry_run=False)
    assert ran.document["outcome"] == "refused"
    assert Look(incident.url).schemas() == ["information_schema", "public"]


@pytest.mark.parametrize("value", ["false", "False", 0, None])
def test_a_dry_run_that_is_not_a_boolean_is_an_error_not_an_apply(desk: Desk, broken: Incident, value: object) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    ran = desk.papermill(incident, dry_run=value, approve=plan.digest)
    assert "InvalidParameter: " in ran.err
    assert "dry_run" in ran.err
    assert ran.run_id == plan.run_id, "no run began"
    assert Look(incident.url).schemas() == ["information_schema", "public"]


def test_of_two_applies_at_once_one_is_refused(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    both = [desk.start("apply", plan.run_id, "--approve", plan.digest) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 3], said
    look = Look(incident.url)
    assert look.version() == ["4d7f20c91be6"]
    assert look.query("select count(*) from mend.run") == [(1,)]


def test_a_blocker_that_never_ends_leaves_everything_as_it_was(
    desk: Desk, broken: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_BACKOFF_S", (0.05, 0.05))
    incident = broken("env_order")
    look = Look(incident.url)
    before, rows = look.catalog(), look.rows()
    plan = desk.plan(incident, lock_timeout_ms="100")
    with look.holding("lock table customers in access share mode") as pid:
        failed = desk.apply(plan)
    assert (failed.code, failed.document["outcome"]) == (1, "failed")
    assert closing(failed.run_id)["error"] == "LockNotAcquired"
    assert f"pid {pid}" in failed.err
    assert (look.catalog(), look.rows()) == (before, rows)
    assert verdict(failed.run_id) == "whole"
    assert desk.apply(desk.plan(incident)).code == 0, "a new plan applies once the blocker is gone"


def test_a_step_that_gave_up_is_gone_on_with_once_the_blocker_is_gone(
    desk: Desk, broken: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_BACKOFF_S", (0.05,))
    incident = broken("interrupted_index")
    look = Look(incident.url)
    plan = desk.plan(incident, lock_timeout_ms="100")
    with look.holding("lock table shipments in access share mode"):
        failed = desk.apply(plan)
    assert (failed.code, failed.kinds.count("step_done")) == (1, 2)
    assert look.version() == ["b04e7c6f21d9"]
    resumed = desk.here("resume", failed.run_id)
    assert resumed.code == 0, resumed.err
    assert look.version() == ["4d7f20c91be6"]


# --- roles and broken surroundings ---------------------------------------------------------------------------------------


@pytest.fixture
def role(server: Server) -> Iterator[Callable[..., str]]:
    """``role("reader")`` makes a role that may log in and nothing else; gone after the test."""
    made: list[str] = []
    admin = Look(server.url())

    def make(name: str) -> str:
        admin.execute(f"create role {name} login")
        made.append(name)
        return name

    yield make
    for name in made:
        for (database,) in admin.query("select datname from pg_database where datallowconn and datname <> 'template0'"):
            Look(server.url(database)).execute(f"drop owned by {name}")
        admin.execute(f"drop role {name}")


def as_role(url: str, name: str) -> str:
    return url.replace("postgres@", f"{name}@", 1)


def log_in(incident: Broken, name: str, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Let the target be used with this role, env.py's own connection with it."""
    for variable in (incident.parameters["target"].removeprefix("env:"), "SHOP_DATABASE_URL"):
        monkeypatch.setenv(variable, as_role(incident.url, name))
    return Look(incident.url)


@pytest.mark.parametrize(
    ("transactional", "error", "says"),
    [
        (
            True,
            StepFailed,
            "It was rolled back.* Run as a role that may do this and from which row security hides nothing",
        ),
        (False, OutcomeUnknown, "It is not known whether it ran"),  # an update on its own leaves no trace to read
    ],
)
def test_rows_that_a_policy_hides_stop_a_step_instead_of_being_left_out(
    writer: Writer, database: str, role: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
    transactional: bool, error: type[MendError], says: str,
) -> None:  # fmt: skip
    look, owner = Look(database), role("filtered")
    look.execute(
        f"do $$ begin execute format('grant create on database %I to {owner}', current_database()); end $$",
        f"alter table t owner to {owner}",
        "alter table t enable row level security",
        "alter table t force row level security",
        "create policy p on t using (a <= 2)",
    )
    monkeypatch.setenv("WRITER_URL", as_role(database, owner))
    filtered = Writer(**{**writer.__dict__, "target": target.resolve("env:WRITER_URL")})
    before = look.rows()
    with pytest.raises(error, match=f"row-level security.*42501.*{says}"):
        execute.apply(filtered, plan_of(sql("update t set b = 'q'", transactional=transactional)))
    assert look.rows() == before


READS = "grant select on all tables in schema public to {}"


def one_paragraph(ran: Ran) -> str:
    """What the command complained of, which is one paragraph and no traceback."""
    complaint = next(line for line in ran.err.splitlines() if line.startswith("mend: "))
    assert "Traceback" not in ran.err
    assert "Nothing was changed" in complaint or "rolled back" in complaint, complaint
    return complaint


def test_a_role_that_may_not_read_the_version_table_is_told_so(
    desk: Desk, broken: Incident, role: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("interrupted_index")
    log_in(incident, role("nobody_special"), monkeypatch)
    ran = desk.plan(incident)
    assert (ran.code, ran.document["outcome"]) == (1, "failed")
    assert "alembic_version" in one_paragraph(ran)
    assert verdict(ran.run_id) == "whole"


def test_a_role_that_may_not_make_the_ledger_is_told_so_before_anything_runs(
    desk: Desk, broken: Incident, role: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("env_order")
    name = role("no_creator")
    look = log_in(incident, name, monkeypatch)
    look.execute(READS.format(name))
    before = look.catalog()
    ran = desk.apply(desk.plan(incident))
    assert (ran.code, ran.document["outcome"]) == (1, "failed")
    assert closing(ran.run_id)["error"] == "PrivilegeMissing"
    assert "CREATE on the database" in one_paragraph(ran)
    assert look.catalog() == before
    assert verdict(ran.run_id) == "whole"


def test_a_role_that_does_not_own_the_table_is_told_so_and_the_step_is_rolled_back(
    desk: Desk, broken: Incident, role: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("env_order")
    name = role("no_owner")
    look = log_in(incident, name, monkeypatch)
    look.execute(
        READS.format(name), f'grant create on database "{look.query("select current_database()")[0][0]}" to {name}'
    )
    before = look.catalog()
    ran = desk.apply(desk.plan(incident))
    assert (ran.code, ran.document["outcome"]) == (1, "failed")
    assert "42501" in one_paragraph(ran)
    assert look.catalog() == before
    assert verdict(ran.run_id) == "whole"


def test_an_env_py_that_leads_elsewhere_is_refused_when_planning_and_runs_nothing(
    desk: Desk, broken: Incident, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("interrupted_index")
    monkeypatch.setenv("SHOP_DATABASE_URL", database)
    there = Look(database).catalog()
    ran = desk.plan(incident)
    assert (ran.code, ran.document["outcome"]) == (3, "refused")
    assert closing(ran.run_id)["error"] == "WrongDatabase"
    one_paragraph(ran)
    assert Look(database).catalog() == there
    assert verdict(ran.run_id) == "whole"


def test_an_env_py_that_leads_elsewhere_by_the_time_of_the_apply_is_refused(
    desk: Desk, broken: Incident, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    monkeypatch.setenv("SHOP_DATABASE_URL", database)
    assert desk.apply(plan).code == 3
    assert Look(incident.url).schemas() == ["information_schema", "public"]


def broken_ini(incident: Broken) -> None:
    incident.alembic_ini.write_text("[alembic\nscript_location = nowhere\n")


def syntax_error(incident: Broken) -> None:
    path = next((incident.project.directory / "migrations" / "versions").glob("4d7f20c91be6*"))
    path.write_text(path.read_text().replace("def upgrade() -> None:", "def upgrade() -> None"))


def env_py_raises(incident: Broken) -> None:
    incident.project.env_py.write_text("raise RuntimeError('no settings')\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(broken_ini, "alembic.ini"), (syntax_error, "4d7f20c91be6"), (env_py_raises, "no settings")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_project_is_named_in_one_paragraph_and_leaves_a_record(
    desk: Desk, broken: Incident, spoil: Callable[[Broken], None], says: str
) -> None:
    incident = broken("interrupted_index")
    spoil(incident)
    ran = desk.plan(incident)
    assert ran.code in (1, 3)
    assert says in ran.err
    assert "Traceback" not in ran.err.replace("printed last", "")[:200]
    assert verdict(ran.run_id) == "whole"
    assert Look(incident.url).schemas() == ["information_schema", "public"]


def test_a_revision_that_is_not_there_is_an_error(desk: Desk, broken: Incident) -> None:
    ran = desk.plan(broken("interrupted_index"), revision="0123456789ab")
    assert ran.code == 1
    assert "0123456789ab" in one_paragraph(ran)
    assert verdict(ran.run_id) == "whole"


def test_a_server_that_is_down_is_an_error_with_a_record(
    desk: Desk, broken: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("interrupted_index")
    monkeypatch.setenv(
        incident.parameters["target"].removeprefix("env:"), "postgresql://ann:hunter2hunter2@127.0.0.1:9/shop"
    )
    ran = desk.plan(incident)
    assert ran.code == 1
    assert "hunter2" not in ran.err + ran.out + ran.record.journal.path.read_text()
    assert closing(ran.run_id)["error"] == "TargetUnreachable"
    one_paragraph(ran)
    assert verdict(ran.run_id) == "whole"


# --- killed at every event ------------------------------------------------------------------------------------------------

AT = [
    ("apply_started", 1, False),
    ("apply_started", 1, True),
    ("step_started", 1, False),
    ("step_started", 1, True),
    ("step_done", 1, False),
    ("step_done", 1, True),
    ("step_started", 2, True),
    ("step_done", 2, False),
    ("step_started", 3, True),
    ("step_xid", 1, False),
    ("step_xid", 1, True),
    ("step_done", 3, False),
    ("step_done", 3, True),
    ("applied", 1, True),
    ("verified", 1, False),
    ("run_closed", 1, False),
]


def named(value: object) -> str:
    return {True: "after", False: "before"}.get(value, str(value)) if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(("kind", "nth", "after"), AT, ids=named)
def test_a_run_killed_at_any_event_is_gone_on_with_and_nothing_is_done_twice(
    desk: Desk, broken: Incident, kind: str, nth: int, after: bool
) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    rows = look.rows()
    plan = desk.plan(incident)
    killed = desk.crash("apply", plan.run_id, "--approve", plan.digest, kind=kind, nth=nth, after=after)
    assert verdict(killed) == "unfinished"
    if (kind, after) == ("apply_started", False):
        assert desk.here("resume", killed).code == 3, "nothing was begun"
        assert desk.apply(plan).code == 0
        return
    resumed = desk.here("resume", killed)
    assert (resumed.code, resumed.document["outcome"]) == (0, "completed"), resumed.err
    assert look.version() == ["4d7f20c91be6"]
    assert look.rows() == {**rows, "public.alembic_version": look.rows()["public.alembic_version"]}
    assert verdict(resumed.run_id) == "whole"
    left = archive.find(killed)
    assert (verdict(killed), left.journal.events()[-1].payload) == ("whole", {"by": resumed.run_id}), (
        "sealed as it was left"
    )
    assert left.outcome in ("interrupted", "unknown")
    assert_each_step_took_effect_once(killed, resumed)
    assert desk.plan(incident).code == 0


def assert_each_step_took_effect_once(killed: str, resumed: Ran) -> None:
    """A step that was found done was not started again; every other one was done by the resume."""
    found = {event.payload["step"]: event.payload["outcome"] for event in resumed.record.journal.of("step_resolved")}
    again = [event.payload["step"] for event in resumed.record.journal.of("step_done")]
    assert sorted(found) == [0, 1, 2]
    assert again == [n for n, outcome in found.items() if outcome != "done"]
    said_done = {event.payload["step"] for event in archive.find(killed).journal.of("step_done")}
    assert all(found[n] == "done" for n in said_done)


def test_a_commit_that_was_sent_and_not_journaled_is_resolved_by_its_transaction_id(
    desk: Desk, broken: Incident
) -> None:
    plan = desk.plan(broken("interrupted_index"))
    killed = desk.crash("apply", plan.run_id, "--approve", plan.digest, kind="step_done", nth=3, after=False)
    resumed = desk.here("resume", killed)
    assert resumed.code == 0, resumed.err
    (last,) = [e.payload for e in resumed.record.journal.of("step_resolved") if e.payload["step"] == 2]
    assert last["outcome"] == "done"
    assert "is committed" in last["how"]


def test_a_resume_that_is_killed_is_resumed(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    before = Look(incident.url).catalog()
    plan = desk.plan(incident)
    killed = desk.crash("apply", plan.run_id, "--approve", plan.digest, kind="step_done", nth=1, after=True)
    again = desk.crash("resume", killed, kind="step_done", nth=1, after=False)
    resumed = desk.here("resume", again)
    assert resumed.code == 0, resumed.err
    undone = desk.here("undo", killed)
    assert undone.code == 0, undone.err
    assert Look(incident.url).catalog() == before


def test_a_run_is_not_gone_on_with_after_another_plan_was_applied(desk: Desk, broken: Incident) -> None:
    """What it left open may be done by now, a change of rows too."""
    incident = broken("interrupted_index")
    plan = desk.plan(incident)
    killed = desk.crash("apply", plan.run_id, "--approve", plan.digest, kind="step_started", nth=3, after=True)
    other = desk.apply(desk.plan(incident))
    assert other.code == 0, other.err
    refused = desk.here("resume", killed)
    assert refused.code == 3
    assert other.run_id in refused.err


@pytest.mark.parametrize(
    ("kind", "nth", "after"),
    [
        ("step_started", 1, True),
        ("step_xid", 1, True),
        ("step_done", 1, False),
        ("step_done", 2, False),
        ("step_started", 3, True),
        ("step_done", 3, False),
        ("applied", 1, True),
    ],
    ids=named,
)
def test_an_undo_that_is_killed_is_gone_on_with_as_an_undo(
    desk: Desk, broken: Incident, kind: str, nth: int, after: bool
) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    before, rows = look.catalog(), look.rows()
    applied = desk.apply(desk.plan(incident))
    killed = desk.crash("undo", applied.run_id, kind=kind, nth=nth, after=after)
    if kind == "step_done" and nth == 1:
        refused = desk.here("undo", applied.run_id)
        assert refused.code == 3
        assert f"mend resume {killed}" in refused.err
    resumed = desk.here("resume", killed)
    assert (resumed.code, resumed.document["outcome"]) == (0, "completed"), resumed.err
    assert (look.catalog(), look.rows()) == (before, rows)
    assert desk.here("undo", applied.run_id).code == 3


# --- cut off while a statement runs ----------------------------------------------------------------------------------------

BUILDS = f"select pid from pg_stat_activity where query ilike 'create index concurrently%{INDEX}%' and state = 'active' and application_name like 'mend:%' and datname = current_database()"


@pytest.fixture
def blocked(desk: Desk, broken: Incident) -> Iterator[Blocked]:
    """A plan whose CREATE INDEX CONCURRENTLY will wait for an application's transaction."""
    incident = broken("interrupted_index")
    look = Look(incident.url)
    look.execute(f"drop index {INDEX}")
    application = look.connect(autocommit=False)
    application.execute("update orders set note = 'Ring twice' where id = 1")
    yield Blocked(incident, look, application, desk.plan(incident))
    application.close()


@dataclass(frozen=True)
class Blocked:
    incident: Broken
    look: Look
    application: psycopg.Connection[Any]
    plan: Ran

    def is_building(self) -> None:
        until(lambda: self.look.query(BUILDS), what="the index is being built")

    def state(self) -> str | None:
        return self.look.catalog().get(("index", f"public.{INDEX}"))

    def go_on(self, desk: Desk, run_id: str) -> None:
        """Resume once the application is done; the index is built, once, and all is well."""
        with suppress(psycopg.OperationalError):  # the server may have died meanwhile
            self.application.rollback()
        resumed = desk.here("resume", run_id)
        assert (resumed.code, resumed.document["outcome"]) == (0, "completed"), resumed.err
        assert (self.state() or "").endswith("(status, placed_at)")
        assert self.look.version() == ["4d7f20c91be6"]
        assert verdict(resumed.run_id) == "whole"
        assert desk.plan(self.incident).code == 0


@pytest.fixture
def building(desk: Desk, blocked: Blocked) -> Iterator[subprocess.Popen[str]]:
    """The real command in the middle of that build."""
    process = desk.start("apply", blocked.plan.run_id, "--approve", blocked.plan.digest)
    blocked.is_building()
    yield process
    for each in family(process):
        each.kill()
    process.communicate(timeout=30)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A process and everything below it: the kernel has a process group of its own."""
    try:
        top = psutil.Process(process.pid)
        return [*top.children(recursive=True), top]
    except psutil.NoSuchProcess:
        return []


def newest() -> str:
    return archive.runs()[0].run_id


def test_the_machine_dies_in_the_middle_of_an_index_build(
    desk: Desk, blocked: Blocked, building: subprocess.Popen[str]
) -> None:
    killed = newest()
    for each in family(building):
        each.kill()
    until(
        lambda: not blocked.look.query(BUILDS),
        what="the server noticed that nobody waits for its answer",
        patience_s=10,
    )
    assert (blocked.state() or "").endswith(" INVALID")
    assert verdict(killed) == "unfinished"
    blocked.go_on(desk, killed)


def test_the_command_dies_and_its_kernel_does_not_go_on_alone(
    desk: Desk, blocked: Blocked, building: subprocess.Popen[str]
) -> None:
    killed, everybody = newest(), family(building)
    building.kill()
    until(
        lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in everybody),
        what="the kernel noticed",
        patience_s=20,
    )
    assert blocked.look.version() == ["b04e7c6f21d9"]
    blocked.go_on(desk, killed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_statement_and_closes_the_record(
    desk: Desk, blocked: Blocked, building: subprocess.Popen[str], number: signal.Signals
) -> None:
    building.send_signal(number)
    out, err = building.communicate(timeout=30)
    assert building.returncode == 4, err
    stopped = newest()
    assert f'"run_id": "{stopped}"' in out
    assert archive.find(stopped).outcome == "interrupted"
    assert f"mend resume {stopped}" in err
    assert not blocked.look.query(BUILDS), "the statement does not run on"
    assert verdict(stopped) == "whole"
    blocked.go_on(desk, stopped)


def test_somebody_terminates_the_session_that_builds(desk: Desk, blocked: Blocked) -> None:
    def terminate() -> None:
        blocked.is_building()
        blocked.look.query(f"select pg_terminate_backend(pid) from ({BUILDS}) as b")

    with meanwhile(terminate):
        failed = desk.apply(blocked.plan)
    assert (failed.code, failed.document["outcome"]) == (1, "failed")
    assert f"mend resume {failed.run_id}" in failed.err
    (event,) = failed.record.journal.of("step_failed")
    assert (event.payload["outcome"], event.payload["sqlstate"]) == ("partial", "57P01")
    assert desk.here("undo", failed.run_id).code == 3, "half done: first resume"
    blocked.go_on(desk, failed.run_id)


def test_the_server_dies_in_the_middle_of_an_index_build(desk: Desk, blocked: Blocked, server: Server) -> None:
    (said,) = blocked.look.query("select pg_read_file('postmaster.pid')")
    postmaster = psutil.Process(int(said[0].splitlines()[0]))

    def end() -> None:
        blocked.is_building()
        postmaster.send_signal(signal.SIGQUIT)

    with meanwhile(end):
        unknown = desk.apply(blocked.plan)
    until(lambda: not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE, what="the server is down")
    server.start()
    assert (unknown.code, unknown.document["outcome"]) == (4, "unknown"), unknown.err
    assert f"mend resume {unknown.run_id}" in unknown.err
    assert "Nothing was changed" not in unknown.err
    assert verdict(unknown.run_id) == "whole"
    blocked.go_on(desk, unknown.run_id)


def test_somebody_else_s_index_of_that_name_is_never_cleared_away(desk: Desk, blocked: Blocked) -> None:
    blocked.application.rollback()
    killed = desk.crash("apply", blocked.plan.run_id, "--approve", blocked.plan.digest, kind="step_started", after=True)
    blocked.look.execute(f"create index {INDEX} on orders (note)")
    refused = desk.here("resume", killed)
    assert (refused.code, refused.document["outcome"]) == (4, "unknown")
    assert "(note)" in (blocked.state() or "")


# --- undo -------------------------------------------------------------------------------------------------------------------


def test_an_undo_is_done_once(desk: Desk, broken: Incident) -> None:
    applied = desk.apply(desk.plan(broken("interrupted_index")))
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    for run_id in (applied.run_id, undone.run_id):
        again = desk.here("undo", run_id)
        assert again.code == 3
        assert "undo" in again.err
    assert desk.here("resume", applied.run_id).code == 3


def test_a_plan_that_was_not_applied_cannot_be_undone_or_resumed(desk: Desk, broken: Incident) -> None:
    plan = desk.plan(broken("interrupted_index"))
    for action in ("undo", "resume"):
        refused = desk.here(action, plan.run_id)
        assert refused.code == 3
        assert "applied nothing" in refused.err


def test_an_undo_is_refused_where_somebody_changed_what_the_run_made(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    applied = desk.apply(desk.plan(incident))
    look.execute("alter table shipments alter column delivery_slot set default 'evening'")
    before = look.catalog()
    refused = desk.here("undo", applied.run_id)
    assert (refused.code, refused.document["outcome"]) == (3, "refused")
    assert "'evening'" in refused.err
    assert look.catalog() == before
    look.execute("alter table shipments alter column delivery_slot set default 'afternoon'")
    assert desk.here("undo", applied.run_id).code == 0


def test_an_undo_does_not_mind_what_others_made_meanwhile(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    before = look.catalog()
    applied = desk.apply(desk.plan(incident))
    look.execute("create table somebody_s (i int)", "create index ix_somebody on products (name)")
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert {name for _, name in look.catalog().keys() - before.keys()} >= {"public.somebody_s", "public.ix_somebody"}
    assert before.items() <= look.catalog().items()


def test_an_undo_changes_nothing_once_a_later_revision_was_applied(desk: Desk, broken: Incident) -> None:
    incident = broken("interrupted_index")
    look = Look(incident.url)
    applied = desk.apply(desk.plan(incident))
    incident.project.add_revision("later", LATER)
    assert incident.alembic("upgrade", "head").exit_code == 0
    before, rows = look.catalog(), look.rows()
    refused = desk.here("undo", applied.run_id)
    assert refused.code in (1, 3)
    assert "4d7f20c91be6" in refused.err
    assert (look.catalog(), look.rows(), look.version()) == (before, rows, ["feedbeef0002"])
    assert incident.alembic("downgrade", "-1").exit_code == 0
    assert desk.here("undo", applied.run_id).code == 0


LATER = """
from alembic import op
revision = "feedbeef0002"
down_revision = "4d7f20c91be6"

def upgrade():
    op.execute("CREATE TABLE later (i int)")

def downgrade():
    op.execute("DROP TABLE later")
"""
