"""The verdicts of slow_migration: triage, diagnose (healthy, at work, hidden, gone), the options, round trips."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fix_runs import Desk, Look, Ran, until
from fix_shop import Broken
from mend import lab
from mend.diagnosis import Check, Diagnosis
from mend.lab import shop as shop_room
from mend.lab import slow_migration as scenario
from mend.lab.shop import Project
from mend.modes import slow_migration
from mend.postgres.server import Server
from mend.slow.eta import Course, Estimate

SLUG = "slow_migration"
ROWS = 3000  # so many that a scan of a table is dear, and few enough to be changed at once
AT_WORK = "select count(*) from pg_stat_activity where datname = current_database() and usename = 'shop_migrator'"
QUICK = {"watch_s": "0.4"}
Slow = Callable[[str], Broken]


@pytest.fixture(scope="session")
def larger_shop(keep_database: Callable[..., str], session_directory: Path) -> str:
    """A healthy shop of more rows, to be cloned."""
    project = shop_room.check_out(session_directory / "larger_shop", keep_database("larger_shop"))
    shop_room.build(project, rows=ROWS)
    return "larger_shop"


@pytest.fixture
def slow(
    larger_shop: str,
    new_database: Callable[..., str],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Slow]:
    """``slow(scenario)``: a shop in which a real migration is at work; it ends with the test, and so does its process."""
    with ExitStack() as stack:

        def make(scenario: str) -> Broken:
            url = new_database(larger_shop)
            made = shop_room.check_out(tmp_path / "project", url)
            error_file = tmp_path / "error.txt"
            stack.callback(_ended, error_file)
            stack.callback(lab.drop, server, urlsplit(url).path.removeprefix("/"))
            parameters = lab.stage(SLUG, scenario, project=made, error_file=error_file)
            shop_room.point(made.alembic_ini, "postgresql+psycopg://set.by.the.environment/")
            monkeypatch.setenv("SHOP_DATABASE_URL", url)
            project = Project(made.directory, url, {"SHOP_DATABASE_URL": url})
            own = {"target": "env:SHOP_DATABASE_URL", "alembic_ini": str(made.alembic_ini)}
            return Broken(project, error_file, {**parameters, **own, **QUICK}, SLUG)

        yield make


def _ended(error_file: Path) -> None:
    """Without its database alembic ends, with an error: nothing is left at work."""
    said = r"Error|exception"
    until(lambda: re.search(said, error_file.read_text()), what="the migration's process ends")


def applied(desk: Desk, incident: Broken, **given: str) -> Ran:
    """Plan, look what is planned, apply."""
    planned = desk.plan(incident, **given)
    assert planned.code == 2, planned.err
    ran = desk.apply(planned)
    assert ran.code == 0, ran.err
    return ran


# --- triage and round trips ---------------------------------------------------------------------------------------------


def test_from_a_long_update_to_a_finished_revision_and_back(desk: Desk, slow: Slow) -> None:
    incident = slow("long_update")
    look = Look(incident.url)
    rows, catalog, version = look.rows(), look.catalog(), look.version()
    pid = look.query(
        "select pid from pg_stat_activity where datname = current_database() and usename = 'shop_migrator'"
    )
    for more in ([], ["-a", str(incident.alembic_ini), "--error-file", str(incident.error_file)]):
        seen = desk.here("triage", "-t", incident.parameters["target"], *more)
        first = seen.document["findings"][0]
        assert (first["slug"], first["parameters"]["pid"], first["parameters"]["table"]) == (
            SLUG,
            pid[0][0],
            "public.orders",
        )
        assert f"plan {SLUG}" in first["command"]
    assert first["parameters"]["revision"] == incident.parameters["revision"]
    planned = desk.plan(incident)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "backfill"
    assert planned.check("progress")["verdict"] == "found"
    assert "rows/s" in planned.check("progress")["says"]
    assert (look.rows(), look.catalog(), look.query(AT_WORK)) == (rows, catalog, [(1,)])
    ran = desk.apply(planned)
    assert ran.code == 0, ran.err
    assert look.query(AT_WORK) == [(0,)]
    assert look.query("select count(*) from orders where note is null") == [(0,)]
    assert look.query("select last_analyze is not null from pg_stat_user_tables where relname = 'orders'") == [(True,)]
    assert look.version() == [incident.parameters["revision"]]
    assert incident.alembic("upgrade", "head").exit_code == 0
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog(), look.version()) == (rows, catalog, version)


def test_a_loop_of_batches_is_taken_over_as_the_change_that_it_is(desk: Desk, slow: Slow) -> None:
    incident = slow("batch_loop")
    look = Look(incident.url)
    planned = desk.plan(incident)
    assert "passes over all that is done" in planned.check("plan")["says"]
    assert planned.document["plan"]["chosen"] == "backfill"
    ran = desk.apply(planned)
    assert ran.code == 0, ran.err
    assert look.query("select count(*) from orders where note is null") == [(0,)]
    assert look.version() == [incident.parameters["revision"]]
    assert incident.alembic("upgrade", "head").exit_code == 0


def test_a_loop_that_commits_is_ended_in_whichever_transaction_it_is(
    desk: Desk, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide's own: connection.commit() in the loop, which also loses the version row."""
    text = scenario.EMPTY_NOTES_IN_BATCHES
    commits = "        if changed.rowcount == 0:\n            break\n"
    assert commits in text
    monkeypatch.setattr(scenario, "EMPTY_NOTES_IN_BATCHES", text.replace(commits, f"{commits}        bind.commit()\n"))
    incident = slow("batch_loop")
    look = Look(incident.url)
    planned = desk.plan(incident, watch_s="4")
    assert "commits each of its batches" in planned.check("progress")["says"], planned.check("progress")
    ran = desk.apply(planned)
    assert ran.code == 0, ran.err
    assert look.query("select count(*) from orders where note is null") == [(0,)]
    assert look.version() == [incident.parameters["revision"]]


def test_the_index_that_a_statement_lacks_is_built_once_nobody_is_in_its_way(desk: Desk, slow: Slow) -> None:
    incident = slow("missing_index")
    look = Look(incident.url)
    catalog = look.catalog()
    planned = desk.plan(incident)
    assert planned.check("plan")["verdict"] == "found"
    assert "reference" in planned.check("plan")["says"]
    assert planned.document["plan"]["chosen"] == "index"
    assert "parameters" in planned.options["backfill"]
    ran = desk.apply(planned)
    assert ran.code == 0, ran.err
    assert any(
        "payments USING btree (reference)" in text for (kind, _), text in look.catalog().items() if kind == "index"
    )
    plan = look.query("explain (format json) update payments set paid_at = paid_at where reference = 'x'")
    assert "mend_tmp_" in str(plan)
    assert incident.alembic("upgrade", "head").exit_code == 0
    assert look.version() == [incident.parameters["revision"]]
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 0, undone.err
    assert look.catalog() == catalog


# --- the other options, and what is refused ------------------------------------------------------------------------------


def test_one_migration_at_work_is_waited_for_cancelled_hidden_or_gone(
    desk: Desk, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = slow("long_update")
    look = Look(incident.url)
    rows = look.rows()

    # Who has the time waits, and nothing is done.
    waiting = desk.plan(incident, patience_s="100000")
    assert (waiting.document["plan"]["chosen"], waiting.document["plan"]["steps"]) == ("wait", [])
    assert waiting.code == 2, waiting.err

    # A pid that is not at work names nobody.
    gone = desk.plan(incident, pid="1")
    assert gone.code == 3
    assert "pid 1 has no work under way" in gone.err

    # A role that may not see what others do says so, and shows nobody as healthy.
    look.execute(
        "do $$ begin if not exists (select from pg_roles where rolname = 'onlooker') then create role onlooker login; end if; end $$",
        "grant execute on function pg_control_system() to onlooker",
    )
    monkeypatch.setenv("ONLOOKER_URL", incident.url.replace("//postgres@", "//onlooker@", 1))
    hidden = desk.here("plan", SLUG, "-p", "target", "env:ONLOOKER_URL", "-p", "watch_s", "0")
    running = hidden.check("at_work")
    assert running["verdict"] == "could_not_check"
    assert "pg_monitor" in running["why"]
    assert hidden.code != 0

    # One that ended meanwhile, or whose pid somebody else has, is not ended: the plan is stale.
    planned = desk.plan(incident, option="cancel")
    assert planned.code == 2, planned.err
    look.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shop_migrator' and datname = current_database()"
    )
    until(lambda: look.query(AT_WORK) == [(0,)], what="the migration has ended")
    stale = desk.apply(planned)
    assert stale.code == 3
    assert "session: pid" in stale.err
    assert look.rows() == rows

    # With nothing at work, what is pending can be done ahead of the migration.
    ahead = desk.plan(incident)
    assert ahead.document["plan"]["steps"] == []
    assert "still to be changed" in ahead.check("progress")["says"]
    ran = applied(desk, incident, option="backfill")
    assert look.version() == [incident.parameters["revision"]]
    assert ran.check("at_work")["verdict"] == "healthy"


def test_what_another_statement_of_the_revision_must_come_before_is_not_done_first(
    desk: Desk, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes are carried over first, then the rest are emptied: emptied first, nothing would be carried over."""
    first = "op.execute(\"UPDATE orders SET note = 'carried over' WHERE note IS NULL AND id <= 20\")"
    comment = "op.execute(\"COMMENT ON COLUMN orders.note IS 'What the customer asks for; empty: nothing'\")"
    assert comment in scenario.EMPTY_NOTES
    monkeypatch.setattr(scenario, "EMPTY_NOTES", scenario.EMPTY_NOTES.replace(comment, first))
    incident = slow("long_update")
    look = Look(incident.url)
    until(
        lambda: "note = ''" in str(look.query("select query from pg_stat_activity where usename = 'shop_migrator'")),
        what="the second",
    )
    planned = desk.plan(incident)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "wait"
    assert "operation 1 of the revision changes rows of public.orders before it" in planned.options["backfill"]


def test_a_table_that_the_migration_has_locked_is_not_waited_for_and_cancelling_ends_it(
    desk: Desk, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ALTER before the UPDATE, in one transaction: not even the definitions can be read."""
    text = 'op.execute("ALTER TABLE orders ALTER COLUMN note SET STATISTICS 200, ALTER COLUMN note SET STORAGE MAIN")'
    comment = "op.execute(\"COMMENT ON COLUMN orders.note IS 'What the customer asks for; empty: nothing'\")"
    assert comment in scenario.EMPTY_NOTES
    monkeypatch.setattr(scenario, "EMPTY_NOTES", scenario.EMPTY_NOTES.replace(comment, text))
    incident = slow("long_update")
    planned = desk.plan(incident)
    progress = planned.check("progress")
    assert progress["verdict"] == "could_not_check"
    assert "ACCESS EXCLUSIVE" in progress["why"]
    assert planned.options["backfill"]
    assert planned.document["plan"]["chosen"] == "wait"
    applied(desk, incident, option="cancel")
    look = Look(incident.url)
    assert look.query(AT_WORK) == [(0,)]
    assert look.query("select count(*) > 0 from orders where note is null") == [(True,)]
    assert look.version() == [shop_room.HEAD]


def test_a_healthy_shop_is_healthy(desk: Desk, healthy: Broken) -> None:
    ran = desk.here(
        "plan", SLUG, "-p", "target", healthy.parameters["target"], "-p", "alembic_ini", str(healthy.alembic_ini)
    )
    assert ran.code == 0, ran.err
    assert {check["verdict"] for check in ran.document["checks"]} <= {"healthy", "not_asked"}


def test_the_notebook_alone_looks_and_draws(desk: Desk, slow: Slow) -> None:
    planned = desk.papermill(slow("long_update"), watch_s=0.4)
    assert planned.code == 0, planned.err
    assert "watched" in planned.kinds
    assert planned.record.journal.of("looks")[0].payload["rows"][0]["unit"] == "rows"


# --- plan: pure ---------------------------------------------------------------------------------------------------------


def test_a_change_whose_condition_stays_true_warns_of_what_the_application_writes() -> None:
    from test_long_work import facts

    def warned(closes: bool) -> str:
        take = replace(facts().take, closes=closes, told=("a",))
        diagnosis = Diagnosis(
            (Check("environment", "?", "healthy", "", ""),),
            {"revision": None, "statement": 0},
            replace(facts(), take=take),
        )
        return str(slow_migration.plan(diagnosis, option="backfill").warnings)

    assert "the application writes a meanwhile" in warned(False)
    assert "meanwhile" not in warned(True)


def test_what_is_done_soon_is_waited_for_and_a_queue_is_not_slowness() -> None:
    from test_long_work import facts

    def chosen(**changed: object) -> str:
        check = Check("environment", "?", "healthy", "", "")
        diagnosis = Diagnosis((check,), {"revision": None, "statement": 0}, replace(facts(), **changed))
        return slow_migration.plan(diagnosis, option="").chosen

    soon, late = Estimate(10, 20, 15, 30, 0.5), Estimate(10, 900, 800, 1000, 0.1)
    course = Course("rows", ())
    assert chosen(estimate=soon, course=course) == "wait"
    assert chosen(estimate=late, course=course) == "backfill"
    worker = facts().worker
    assert worker is not None
    assert chosen(estimate=late, worker=replace(worker, blocked_by=(7,))) == "wait"
