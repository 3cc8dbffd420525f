"""deadlock: real sessions and real alembic in a queue; who is in the way is named, freed by an approved plan, and nobody else is touched."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from fix_runs import Desk, Look, Ran, meanwhile, until, verdict
from fix_shop import Broken
from mend import lab
from mend.database import queries, target
from mend.errors import InvalidParameter, Refused
from mend.lab import sessions
from mend.lab.deadlock import REVISION
from mend.lab.shop import HEAD, Project, point
from mend.modes import deadlock
from mend.queue import freeing, jam_checks, waits
from mend.queue.forest import Forest
from mend.queue.jam import Facts, named_pids

SLUG = "deadlock"
Jam = Callable[[str], Broken]


@pytest.fixture
def jam(shop: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jam:
    """``jam(scenario)`` breaks a shop of this test's own; its sessions end with its database."""

    def make(scenario: str) -> Broken:
        error_file = tmp_path / "error.txt"
        parameters = lab.stage(SLUG, scenario, project=shop, error_file=error_file)
        monkeypatch.setenv("JAM_URL", shop.url)
        monkeypatch.setenv("SHOP_DATABASE_URL", shop.url)
        point(
            shop.alembic_ini, "postgresql+psycopg://set.by.the.environment/"
        )  # the same in every test: its replay is kept
        project = Project(shop.directory, shop.url, {"SHOP_DATABASE_URL": shop.url})
        return Broken(project, error_file, {**parameters, "target": "env:JAM_URL"}, SLUG)

    return make


@pytest.fixture
def named(shop: Project, monkeypatch: pytest.MonkeyPatch) -> Broken:
    """A healthy shop as a target, to be jammed by the test itself."""
    Look(shop.url).execute(
        "do $$ begin create role shop_app login; exception when duplicate_object then null; end $$",
        "grant all on all tables in schema public to shop_app",
    )
    monkeypatch.setenv("JAM_URL", shop.url)
    return Broken(shop, Path("none"), {"target": "env:JAM_URL", "alembic_ini": str(shop.alembic_ini)}, SLUG)


@contextmanager
def holding(shop: Broken, *statements: str, role: str = "shop_app", name: str = "web-1") -> Iterator[int]:
    """A session idle in a transaction."""
    conn = Look(sessions.as_role(shop.url, role)).connect(application_name=name)
    for statement in ("begin", *statements):
        conn.execute(statement.encode())
    try:
        yield conn.info.backend_pid
    finally:
        conn.close()


@contextmanager
def queued(shop: Broken, sql: str = "alter table orders add column extra int") -> Iterator[None]:
    """A statement that waits, in another thread; ended with the block if it waits still."""
    look = Look(shop.url)
    conn = look.connect(application_name="ddl")

    def send() -> None:
        with suppress(psycopg.OperationalError):
            conn.execute(sql.encode())

    with meanwhile(send):
        until(lambda: late(look), what="it waits")
        try:
            yield
        finally:
            look.query("select pg_terminate_backend(%s)", conn.info.backend_pid)
    conn.close()


def late(look: Look) -> list[Any]:
    """Who has waited for longer than a second, which is what the runbook takes for too long."""
    return look.query(
        "select a.pid from pg_stat_activity as a where a.datname = current_database() and a.wait_event_type = 'Lock' and a.query_start < clock_timestamp() - interval '1.1 s'"
    )


def triaged(desk: Desk, broken: Broken) -> tuple[dict[str, Any], list[str]]:
    """The first finding, and its command as words."""
    said = desk.here(
        "triage",
        "-t",
        broken.parameters["target"],
        "-a",
        str(broken.alembic_ini),
        "--error-file",
        str(broken.error_file),
    )
    first = said.document["findings"][0]
    return first, shlex.split(first["command"])[1:]


def steps(planned: Ran) -> list[dict[str, Any]]:
    return list(planned.document["plan"]["steps"])


def chosen(planned: Ran) -> str:
    return planned.record.plan().chosen  # type: ignore[union-attr]


# --- every incident of the lab, from triage to the migration's end ------------------------------------------------------

SCENARIOS = {
    "idle_in_transaction": ("terminate", "idle in transaction"),
    "queue_behind_reader": ("cancel", "long statement"),
    "prepared_transaction": ("rollback_prepared", "prepared transaction"),
    "two_migrators": ("terminate", "another migrator, idle"),
    "dead_client": ("cancel", "long statement"),
}


def test_every_incident_of_the_lab_is_tried_here() -> None:
    assert {*SCENARIOS, "deadlock"} == set(lab.scenarios()[SLUG])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_triage_plan_apply_and_the_migration_passes(desk: Desk, jam: Jam, scenario: str) -> None:
    broken = jam(scenario)
    look = Look(broken.url)
    option, kind = SCENARIOS[scenario]
    finding, command = triaged(desk, broken)
    assert finding["slug"] == SLUG
    written = look.query("select count(*) from pg_stat_activity where datname = current_database()")
    planned = desk.here(*command)
    assert (planned.code, planned.document["outcome"], chosen(planned)) == (2, "planned", option)
    assert planned.check("roots")["sample"][0]["what"] == kind
    assert planned.check("waits")["verdict"] == "found"
    frees = planned.check("frees")["sample"][0]
    assert frees["freed"] == frees["of_those_behind"] == len(planned.check("waits")["sample"]) - 1
    assert look.query("select count(*) from pg_stat_activity where datname = current_database()") == written, (
        "a plan ends nobody"
    )
    applied = desk.apply(planned)
    assert (applied.code, applied.document["outcome"]) == (0, "completed"), applied.err
    again = broken.alembic("upgrade", "head")
    assert again.exit_code == 0, again.output
    until(lambda: look.version() == [REVISION], what="the migration came to its end")
    if scenario == "idle_in_transaction":
        assert verdict(applied.run_id) == "whole"
        assert desk.plan(broken, revision="").code == 0, "healthy now"
        undone = desk.here("undo", applied.run_id)
        assert undone.code == 3
        assert "cannot be taken back" in undone.err + undone.out


def test_a_real_deadlock_is_explained_and_its_revision_run_again(desk: Desk, jam: Jam) -> None:
    broken = jam("deadlock")
    finding, command = triaged(desk, broken)
    assert finding["slug"] == SLUG
    assert "waits for AccessExclusiveLock" in finding["parameters"]["detail"]
    planned = desk.here(*command)
    assert (planned.code, chosen(planned)) == (2, "retry"), planned.err
    told = planned.check("deadlocks")
    assert "public.customers and public.orders in opposite order" in told["says"]
    assert {row["on"] for row in told["sample"]} == {"public.customers", "public.orders"}
    assert Look(broken.url).version() == [HEAD]
    with holding(broken, "select from orders") as pid:
        before = desk.plan(broken, option="retry").check("migration")
        assert (before["verdict"], before["sample"][0]["pid"]) == ("found", pid), (
            "who is in the way is named before it is asked for"
        )
        assert chosen(desk.plan(broken, blockers=str(pid))) == "terminate"
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert broken.alembic("upgrade", "head").exit_code == 0
    assert Look(broken.url).version() == [REVISION]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert Look(broken.url).version() == [HEAD]


def test_the_sessions_of_the_lab_end_with_their_database(
    shop: Project, tmp_path: Path, new_database: Callable[..., str], server: Any
) -> None:
    lab.stage(SLUG, "two_migrators", project=shop, error_file=tmp_path / "error.txt")
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(shop.directory) in " ".join(p.info["cmdline"] or [])]
    assert len(mine) == 2, "two alembic processes"
    lab.drop(server, Look(shop.url).query("select current_database()")[0][0])
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in mine), what="they are gone")


def test_the_notebook_runs_as_plain_papermill_runs_it(desk: Desk, jam: Jam) -> None:
    ran = desk.papermill(jam("idle_in_transaction"))
    assert (ran.code, ran.document["outcome"]) == (0, "planned"), ran.err
    (looked,) = ran.record.journal.of("watched")
    assert "ending it frees 6 of 6 behind it" in looked.payload["says"]


# --- a healthy database --------------------------------------------------------------------------------------------------


def test_a_healthy_database_is_called_healthy(desk: Desk, named: Broken) -> None:
    planned = desk.plan(named)
    assert (planned.code, planned.document["outcome"], steps(planned)) == (0, "completed", [])
    assert {check["verdict"] for check in planned.document["checks"]} == {"healthy"}


def test_looking_takes_no_lock_on_any_table_and_gives_up_early(named: Broken) -> None:
    with (
        holding(named, "lock table orders in access exclusive mode"),
        waits.glance(target.resolve("env:JAM_URL")) as conn,
    ):
        waits.look(conn)
        mine = conn.exec_driver_sql(
            "select c.relname from pg_locks as l join pg_class as c on c.oid = l.relation where l.pid = pg_backend_pid() and c.relnamespace not in (select oid from pg_namespace where nspname = 'pg_catalog')"
        ).fetchall()
        limits = conn.exec_driver_sql(
            "select current_setting('lock_timeout'), current_setting('statement_timeout')"
        ).one()
    assert mine == []
    assert tuple(limits) == ("200ms", "1s")


@pytest.mark.parametrize("name", ["waits/edges"])
def test_the_question_for_older_servers_answers_the_same(named: Broken, name: str) -> None:
    def ask(major: int) -> list[tuple[Any, ...]]:
        rows = Look(named.url).query(queries.question(name, version_num=major * 10000).sql)
        return [(row[0], *row[2:]) for row in rows]  # but for the seconds

    with holding(named, "select from orders"), queued(named):
        assert ask(13) == ask(14)
        assert len(ask(13)) == 1


# --- the default option --------------------------------------------------------------------------------------------------


def test_a_statement_that_nobody_named_is_waited_for(desk: Desk, jam: Jam) -> None:
    broken = jam("queue_behind_reader")
    planned = desk.plan(broken, patience_s="0.5")
    assert (planned.code, chosen(planned)) == (2, "wait")
    failed = desk.apply(planned)
    assert failed.code == 1
    assert "still wait, the longest for" in failed.err
    assert "report" in failed.err


def test_waiting_ends_when_the_queue_has_drained(desk: Desk, named: Broken) -> None:
    look = Look(named.url)
    with holding(named, "select from orders") as pid, queued(named):
        planned = desk.plan(named, option="wait")

        def let_go() -> None:
            until(
                lambda: look.query("select 1 from pg_stat_activity where application_name like 'mend:%%:lock'"),
                what="the apply began",
            )
            look.query("select pg_terminate_backend(%s)", pid)

        with meanwhile(let_go):
            applied = desk.apply(planned)
    assert applied.code == 0, applied.err


def test_a_migrator_that_idles_with_the_advisory_lock_is_found_and_ended(desk: Desk, named: Broken) -> None:
    idle = Look(sessions.as_role(named.url, "shop_app")).connect(application_name="pod-1")
    idle.execute("select pg_advisory_lock(7243392)")
    with queued(named, "select pg_advisory_lock(7243392)"):
        found = desk.here("triage", "-t", "env:JAM_URL").document["findings"][0]
        assert (found["slug"], found["parameters"]["blockers"]) == (SLUG, str(idle.info.backend_pid))
        planned = desk.plan(named)
        assert (planned.code, chosen(planned)) == (2, "terminate")
        root = planned.check("roots")["sample"][0]
        assert (root["what"], root["open_s"]) == ("another migrator, idle", None)
        assert desk.apply(planned).code == 0
    idle.close()


def test_two_that_must_end_together_need_leave_for_two(desk: Desk, named: Broken) -> None:
    with (
        holding(named, "select from orders") as one,
        holding(named, "select from orders", name="web-2") as two,
        queued(named),
    ):
        refused = desk.plan(named)
        assert chosen(refused) == "wait"
        assert "2 would have to end together" in refused.options["terminate"]
        planned = desk.plan(named, at_most="2")
        assert chosen(planned) == "terminate"
        assert [f"pid {pid} " in steps(planned)[n]["says"] for n, pid in enumerate(sorted((one, two)))] == [True, True]
        assert desk.apply(planned).code == 0


# --- nobody else is ended ------------------------------------------------------------------------------------------------


def test_if_somebody_else_is_in_the_way_now_the_plan_is_refused_and_says_so(desk: Desk, named: Broken) -> None:
    with holding(named, "select from orders") as first, queued(named):
        planned = desk.plan(named)
    with holding(named, "select from orders") as second, queued(named, "alter table orders add column other int"):
        refused = desk.apply(planned)
        assert Look(named.url).query("select 1 from pg_stat_activity where pid = %s", second), "nobody is ended instead"
    assert refused.code == 3
    assert "The database moved since the plan was made. Nothing was changed." in refused.err
    assert all(f"pid {pid}" in refused.err for pid in (first, second))


def test_a_pid_that_is_gone_is_refused(desk: Desk, named: Broken) -> None:
    with holding(named, "select from orders") as pid, queued(named):
        refused = desk.plan(named, blockers="999999")
        assert refused.code == 3
        assert "pid 999999 is gone" in refused.err
        with holding(named, "select 1", name="bystander") as other:
            refused = desk.plan(named, blockers=str(other))
            assert refused.code == 3
            assert "is in nobody's way now" in refused.err
        Look(named.url).query("select pg_terminate_backend(%s)", pid)


def test_a_superusers_session_is_ended_only_if_that_was_said(desk: Desk, named: Broken) -> None:
    with holding(named, "select from orders", role="postgres") as pid, queued(named):
        planned = desk.plan(named)
        assert chosen(planned) == "wait"
        assert "postgres is a superuser" in planned.options["terminate"]
        assert "superuser" in planned.check("roots")["sample"][0]["may_be_ended"]
        refused = desk.plan(named, blockers=str(pid), option="terminate")
        assert refused.code == 3
        assert "nobody was signalled" in refused.err
        said = desk.plan(named, end_superusers="true")
        assert (chosen(said), desk.apply(said).code) == ("terminate", 0)


def test_what_is_hidden_is_named_and_never_shown_as_no_locks(
    desk: Desk, named: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(named.url)
    look.execute(
        "do $$ begin create role jam_blind login; exception when duplicate_object then null; end $$",
        "grant execute on function pg_control_system() to jam_blind",
        "grant select on alembic_version to jam_blind",
    )
    monkeypatch.setenv("JAM_URL", sessions.as_role(named.url, "jam_blind"))
    with holding(named, "select from orders") as pid, queued(named):
        planned = desk.plan(named)
        assert planned.check("visibility")["verdict"] == "could_not_check"
        assert "shop_app" in planned.check("visibility")["why"]
        assert "Grant pg_monitor to jam_blind" in planned.check("visibility")["why"]
        assert planned.check("waits")["verdict"] == "found"
        assert planned.check("roots")["sample"][0]["what"] == "not visible"
        assert "grant pg_monitor" in planned.options["terminate"]
        look.execute("grant pg_monitor to jam_blind")
        seeing = desk.plan(named)
        assert seeing.check("visibility")["verdict"] == "healthy"
        assert "grant pg_signal_backend" in seeing.options["terminate"]
        look.execute("revoke pg_monitor from jam_blind")
        look.query("select pg_terminate_backend(%s)", pid)


def test_a_prepared_transaction_is_rolled_back_only_if_it_was_named(desk: Desk, jam: Jam) -> None:
    broken = jam("prepared_transaction")
    gid = broken.parameters["gid"]
    planned = desk.here("plan", SLUG, "-t", broken.parameters["target"], "-a", str(broken.alembic_ini))
    assert chosen(planned) == "wait"
    refused = desk.plan(broken, gid="no-such-thing")
    assert refused.code == 3
    assert "No transaction is prepared under the name 'no-such-thing'" in refused.err
    assert Look(broken.url).query("select gid from pg_prepared_xacts where gid = %s", gid)


# --- what cannot be shown by a lab: values alone --------------------------------------------------------------------------

GIVEN = {
    "option": "", "blockers": "", "gid": "", "at_most": 1, "end_superusers": False, "min_wait_s": 1.0, "patience_s": 1.0,
    "revision": "", "python": "", "lock_timeout_ms": 800, "detail": "",
}  # fmt: skip


def test_a_look_that_failed_is_never_called_healthy() -> None:
    facts = Facts(None, "canceling statement due to statement timeout", GIVEN)
    for check in (jam_checks.waiting, jam_checks.roots, jam_checks.frees, jam_checks.prepared, jam_checks.migration):
        assert check(facts).verdict == "could_not_check"
        assert "statement timeout" in check(facts).why
    assert "0 prepared" not in jam_checks.prepared(facts).says
    with pytest.raises(Refused, match="could not be seen who was named"):  # and not: he is gone
        deadlock._require_named_are_there(replace(facts, named={7: None}))


def test_what_is_hidden_is_not_said_to_be_seen() -> None:
    row = {
        "role": "app",
        "superuser": False,
        "sees_all": False,
        "may_signal": False,
        "sessions": 9,
        "hidden": 4,
        "hidden_roles": "other",
    }
    said = jam_checks.visibility(Facts(Forest(), "", GIVEN, seen=row)).says
    assert "4 of them hidden" in said
    assert "all to be seen" not in said


def test_a_pooler_and_a_standby_are_named() -> None:
    facts = Facts(Forest(), "", GIVEN, pooled=True, in_recovery=True)
    said = jam_checks.between(facts).says
    assert "A pooler stands in between" in said
    assert "This is a standby" in said
    assert {choice.possible for choice, _, _ in freeing.ways_out(facts)} == {False}
    assert "standby" in freeing.ways_out(facts)[0][0].why_not


@pytest.mark.parametrize("text", ["x", "1;2", "-5", "1, two", "99999999999"])
def test_what_is_no_pid_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="blockers is"):
        named_pids(text)


def test_an_unknown_option_is_refused(desk: Desk, named: Broken) -> None:
    refused = desk.plan(named, option="kill")
    assert refused.code == 1
    assert "Write one of wait, retry, cancel, terminate, rollback_prepared" in refused.err
