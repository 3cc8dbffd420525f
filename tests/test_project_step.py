"""The step that runs the project's own upgrade(), whose SQL depends on rows: done operations left out, every statement told first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fix_runs import Desk, Look, Ran, verdict
from fix_shop import Broken
from mend.record import archive

REVISION = "feedbeef0003"
TEXT = """
import sqlalchemy as sa
from alembic import op

revision = "feedbeef0003"
down_revision = "b04e7c6f21d9"


def upgrade():
    op.add_column("customers", sa.Column("tier", sa.String(8)))
    op.create_table("carriers", sa.Column("name", sa.String(40), primary_key=True))
    with op.get_context().autocommit_block():
        op.create_index("ix_customers_tier", "customers", ["tier"], postgresql_concurrently=True)
    bind = op.get_bind()
    for (name,) in bind.execute(sa.text("SELECT DISTINCT carrier FROM shipments ORDER BY 1")).fetchall():
        bind.execute(sa.text("INSERT INTO carriers VALUES (:name)"), {"name": name})
    bind.execute(sa.text("UPDATE customers SET full_name = full_name || '!' WHERE id = (SELECT min(id) FROM customers)"))
    op.create_index("ix_carriers_upper", "carriers", [sa.text("upper(name)")])
"""
BEGAN = (
    "alter table customers add column tier varchar(8)",
    "create table carriers (name varchar(40) not null, constraint carriers_pkey primary key (name))",
)
INVALID = "update pg_index set indisvalid = false, indisready = false where indexrelid = 'ix_customers_tier'::regclass"


@pytest.fixture
def begun(healthy: Broken) -> Broken:
    """A revision that reads rows and was cut off: its first two operations are there, and an INVALID index."""
    healthy.project.add_revision("feedbeef0003_tiers", TEXT)
    Look(healthy.url).execute(*BEGAN, "create index ix_customers_tier on customers (tier)", INVALID)
    return healthy


@pytest.fixture
def planned(desk: Desk, begun: Broken) -> Ran:
    plan = desk.plan(begun, data_operations="not_run")
    assert plan.code == 2, plan.err
    return plan


def first_name(look: Look) -> str:
    return str(look.query("select full_name from customers order by id limit 1")[0][0])


def statements(*run_ids: str) -> list[str]:
    return [
        event.payload["sql"] for run_id in run_ids for event in archive.find(run_id).journal.of("statement_started")
    ]


def is_mended(desk: Desk, begun: Broken) -> bool:
    look = Look(begun.url)
    names = look.query("select name from carriers order by 1")
    return (look.version(), names, first_name(look).count("!"), desk.plan(begun).code) == (
        [REVISION],
        look.query("select distinct carrier from shipments order by 1"),
        1,
        0,
    )


def test_nobody_but_the_operator_can_say_whether_rows_were_changed(desk: Desk, begun: Broken) -> None:
    ran = desk.plan(begun)
    assert list(ran.states.values())[:3] == ["DONE", "DONE", "DIFFERENT"]
    assert ran.document["plan"]["chosen"] == "none"
    assert "data_operations" in ran.options["resume"]


def test_the_plan_says_that_the_project_s_own_code_runs_and_that_there_is_no_way_back(planned: Ran) -> None:
    clears, runs = planned.document["plan"]["steps"]
    assert clears["sql"] == "drop index concurrently if exists public.ix_customers_tier;"
    assert f"upgrade() of {REVISION}" in runs["says"]
    assert runs["irreversible"]


def test_done_operations_are_left_out_and_every_other_statement_is_journaled_before_it_is_sent(
    desk: Desk, begun: Broken, planned: Ran
) -> None:
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    sent = statements(applied.run_id)
    assert not [one for one in sent if "ADD COLUMN" in one or "CREATE TABLE" in one]
    assert (
        sum(one.startswith("INSERT INTO carriers") for one in sent)
        == Look(begun.url).query("select count(distinct carrier) from shipments")[0][0]
    )
    assert applied.kinds.count("step_xid") >= 1
    assert is_mended(desk, begun)
    assert verdict(applied.run_id) == "whole"


def test_it_cannot_be_taken_back_and_says_so(desk: Desk, planned: Ran) -> None:
    applied = desk.apply(planned)
    refused = desk.here("undo", applied.run_id)
    assert refused.code == 3
    assert "computed from rows" in refused.err


def test_a_failure_before_any_commit_is_rolled_back_and_said_to_be(
    desk: Desk, begun: Broken, edit: Callable[..., None]
) -> None:
    path = begun.project.directory / "migrations" / "versions" / "feedbeef0003_tiers.py"
    edit(
        path,
        '    with op.get_context().autocommit_block():\n        op.create_index("ix_customers_tier", "customers", ["tier"], postgresql_concurrently=True)\n',
        "",
    )
    look = Look(begun.url)
    look.execute(
        "drop index ix_customers_tier",
        "alter table customers add constraint no_shouting check (full_name not like '%!')",
    )
    before, rows = look.catalog(), look.rows()
    failed = desk.apply(desk.plan(begun, data_operations="not_run"))
    assert failed.code == 1, failed.err
    assert "no_shouting" in failed.err
    assert "rolled back" in failed.err
    assert (look.catalog(), look.rows()) == (before, rows)
    assert verdict(failed.run_id) == "whole"


def test_a_failure_after_a_part_was_committed_says_so_and_a_new_plan_goes_on(desk: Desk, begun: Broken) -> None:
    look = Look(begun.url)
    look.execute("alter table customers add constraint no_shouting check (full_name not like '%!')")
    failed = desk.apply(desk.plan(begun, data_operations="not_run"))
    assert failed.code == 4, failed.err
    assert "Make a new plan" in failed.err
    assert look.catalog()["index", "public.ix_customers_tier"].endswith("(tier)")
    look.execute("alter table customers drop constraint no_shouting")
    applied = desk.apply(desk.plan(begun, data_operations="not_run"))
    assert applied.code == 0, applied.err
    assert is_mended(desk, begun)


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_killed_before_a_statement_nothing_of_an_open_transaction_stays_and_nothing_is_done_twice(
    desk: Desk, begun: Broken, planned: Ran, nth: int
) -> None:
    killed = desk.crash(
        "apply", planned.run_id, "--approve", planned.digest, kind="statement_started", nth=nth, after=True
    )
    goes_on(desk, begun, killed)


@pytest.mark.parametrize("after", [False, True])
def test_killed_around_the_last_commit_it_is_either_done_or_not(
    desk: Desk, begun: Broken, planned: Ran, after: bool
) -> None:
    killed = desk.crash("apply", planned.run_id, "--approve", planned.digest, kind="step_xid", nth=1, after=after)
    goes_on(desk, begun, killed)


def goes_on(desk: Desk, begun: Broken, killed: str) -> None:
    """A resume either goes on, or says that only a new plan can tell; that one goes on then."""
    resumed = desk.here("resume", killed)
    if resumed.code == 4:
        assert "Make a new plan" in resumed.err
        resumed = desk.apply(desk.plan(begun, data_operations="not_run"))
    assert resumed.code == 0, resumed.err
    assert is_mended(desk, begun)
