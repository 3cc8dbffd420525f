"""The verdicts of environment_mismatch: three incidents mended and taken back, and every way in which a database can be unlike its history."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import projects
import pytest
from fix_runs import Desk, Look, Ran, options
from fix_shop import Broken
from mend.database import target
from mend.diagnosis import Site
from mend.errors import InvalidParameter, Refused
from mend.histories.project import Project
from mend.modes import environment_mismatch
from projects import revision

SLUG = "environment_mismatch"
Incident = Callable[..., Broken]


@pytest.fixture
def drifted(broken: Incident) -> Broken:
    return broken("drifted", slug=SLUG)


@pytest.fixture
def stamped(broken: Incident) -> Broken:
    return broken("false_stamp", slug=SLUG)


def found(ran: Ran) -> dict[tuple[str, str], tuple[str | None, int | None, str]]:
    """Each difference: its revision, operation and attribution."""
    rows: list[dict[str, Any]] = ran.document["differences"]
    assert all(set(row) == {"kind", "identity", "expected", "live", "revision", "index", "attribution"} for row in rows)
    return {(row["kind"], row["identity"]): (row["revision"], row["index"], row["attribution"]) for row in rows}


DRIFT = {
    ("index", "public.ix_orders_total_by_hand"): (None, None, "out of band"),
    ("column", "public.suppliers.name"): ("8d20e6b1f57a", 5, "changed since"),
    ("constraint", "public.orders.ck_orders_total"): ("51e8f3d7096c", 1, "changed since"),
    ("column", "public.customers.loyalty_points"): ("6b0d9f42c7e1", 1, "never ran"),
    ("default", "public.customers.loyalty_points"): ("6b0d9f42c7e1", 1, "never ran"),
    ("not_null", "public.customers.loyalty_points"): ("6b0d9f42c7e1", 1, "never ran"),
    ("index", "public.ix_customers_loyalty_points"): ("6b0d9f42c7e1", 2, "never ran"),
}


# --- triage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["drifted", "false_stamp", "other_target"])
def test_triage_names_it_first(desk: Desk, broken: Incident, scenario: str) -> None:
    incident = broken(scenario, slug=SLUG)
    words = ["triage", "-t", incident.parameters["target"], "-a", str(incident.alembic_ini)]
    ran = desk.here(*words, "--error-file", str(incident.error_file))
    assert ran.document["findings"][0]["slug"] == SLUG, ran.document["findings"]
    assert f"plan {SLUG}" in ran.document["findings"][0]["command"]
    if scenario != "other_target":
        assert desk.here(*words).document["findings"][0]["slug"] == SLUG


# --- healthy ------------------------------------------------------------------------------------------------------------


def test_a_healthy_shop_differs_in_nothing(desk: Desk, healthy: Broken) -> None:
    ran = desk.here(
        "plan", SLUG, "-p", "target", healthy.parameters["target"], "-p", "alembic_ini", str(healthy.alembic_ini)
    )
    assert ran.document["differences"] == []
    assert {c["name"]: c["verdict"] for c in ran.document["checks"]} == dict.fromkeys(
        ["environment", "version_rows", "revisions", "differences", "groups", "files", "server", "sessions"], "healthy"
    )
    assert ran.code == 0, ran.err


# --- a database that several projects share -----------------------------------------------------------------------------


def test_what_another_project_has_beside_this_one_is_no_difference_and_is_not_taken_back(
    desk: Desk, healthy: Broken
) -> None:
    """alembic#710, #1495: a version table for each project, in a schema of its own or in the same one."""
    look = Look(healthy.url)
    look.execute(
        'create schema "Billing.x"', 'create table "Billing.x".alembic_version (version_num varchar(32) primary key)',
        'create table "Billing.x".invoices (id integer primary key references public.customers, note text default 0)',
        'grant usage on schema "Billing.x" to public', 'comment on column "Billing.x".invoices.note is $$their own$$',
        'alter default privileges in schema "Billing.x" grant select on tables to public',
        "create table alembic_version_reports (version_num varchar(32) primary key)",
    )  # fmt: skip
    ran = desk.here("plan", SLUG, *options(healthy))
    assert ran.document["differences"] == []
    assert "Billing.x" in ran.check("differences")["says"]
    look.execute("create table reports (id integer)")
    refused = desk.here("plan", SLUG, *options(healthy, option="revert"))
    assert refused.code == 3, refused.err
    assert "alembic_version_reports" in refused.err
    chosen = desk.here("plan", SLUG, *options(healthy, resolve="public.reports=revert"))
    assert len(chosen.document["plan"]["steps"]) == 1, chosen.err


# --- drifted ------------------------------------------------------------------------------------------------------------


def test_each_difference_is_of_its_operation_or_of_nobody(desk: Desk, drifted: Broken) -> None:
    ran = desk.plan(drifted)
    assert ran.code == 2, ran.err
    assert found(ran) == DRIFT
    assert ran.document["plan"]["chosen"] == "report"
    assert ran.document["plan"]["steps"] == []
    revisions = {row["revision"]: row["state"] for row in ran.check("revisions")["sample"]}
    assert revisions == {"6b0d9f42c7e1": "never ran", "8d20e6b1f57a": "changed since", "51e8f3d7096c": "changed since"}
    assert "6b0d9f42c7e1" in ran.check("revisions")["says"]
    assert ran.check("groups")["sample"][0]["object"] == "public.customers"


def test_what_differs_is_made_as_the_history_makes_it_and_comes_back(desk: Desk, drifted: Broken) -> None:
    look = Look(drifted.url)
    rows, catalog, version = look.rows(), look.catalog(), look.version()
    planned = desk.plan(drifted, option="revert")
    assert planned.code == 2, planned.err
    assert (look.rows(), look.catalog()) == (rows, catalog)
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert applied.document["differences"] == list(planned.document["differences"])
    assert desk.plan(drifted).code == 0
    assert drifted.alembic("upgrade", "head").exit_code == 0
    assert drifted.alembic("downgrade", "6b0d9f42c7e1").exit_code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog(), look.version()) == (rows, catalog, version)


def test_a_repair_after_which_something_else_differs_is_not_called_done(desk: Desk, drifted: Broken) -> None:
    """A table that comes back gets what default privileges give now; the history gave nothing."""
    look = Look(drifted.url)
    look.execute(
        "create table by_hand (id integer)", "drop table order_items cascade",
        "alter default privileges in schema public grant select on tables to public",
    )  # fmt: skip
    planned = desk.plan(drifted, resolve="public.order_items=revert; public.by_hand=revert")
    assert planned.document["plan"]["warnings"][0].startswith("public.order_items: made anew, without what was in it")
    applied = desk.apply(planned)
    assert applied.code == 1, applied.err
    assert "grant table public.order_items to public has come to differ" in applied.err


def test_each_difference_gets_what_was_chosen_for_it(desk: Desk, drifted: Broken) -> None:
    look = Look(drifted.url)
    rows, catalog, version = look.rows(), look.catalog(), look.version()
    (drifted.project.directory / "migrations" / "versions" / "f49a3e1b85d0_more_loyalty_points.py").unlink()
    choices = (
        "index public.ix_orders_total_by_hand=adopt; column public.suppliers.name=adopt; "
        "constraint public.orders.ck_orders_total = revert; public.customers=repair"
    )
    planned = desk.plan(drifted, resolve=choices)
    assert planned.code == 2, planned.err
    shown = str(planned.document["plan"]["steps"])
    assert "concurrently" in shown.lower()
    assert "not valid" in shown.lower()
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    again = desk.plan(drifted)
    assert (again.code, again.document["differences"]) == (0, [])
    (written,) = (drifted.project.directory / "migrations" / "versions").glob("*_adopt_*.py")
    assert look.version() == [written.name[:12]]
    assert drifted.alembic("downgrade", "6b0d9f42c7e1").exit_code == 0
    assert drifted.alembic("upgrade", "head").exit_code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog(), look.version()) == (rows, catalog, version)
    assert not written.exists()


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"option": "merge"}, "option is 'merge'"),
    ({"resolve": "index public.nothing=revert"}, "nothing of that name differs"),
    ({"resolve": "index public.ix_orders_total_by_hand"}, "kind identity=option"),
    ({"resolve": "index public.ix_orders_total_by_hand=repair"}, "No operation that never ran"),
    ({"resolve": "index public.ix_orders_total_by_hand=adopt"}, "6 differences would stay"),
    ({"option": "stamp"}, "something differs"),
    ({"option": "adopt"}, "Upgrade first"),
]


def test_what_cannot_be_done_is_said_and_nothing_is_written(drifted: Broken) -> None:
    look = Look(drifted.url)
    before = look.rows(), look.catalog()
    place = target.resolve(drifted.parameters["target"])
    site = Site(place, place.identity(), Project(drifted.alembic_ini, Path(sys.executable)), lambda text: None)
    diagnosis = environment_mismatch.diagnose(site, other="", base="", base_revision="", roles=True)
    for given, says in REFUSED:
        with pytest.raises((InvalidParameter, Refused), match=says):
            environment_mismatch.plan(diagnosis, **({"option": "", "resolve": "", "revision": ""} | given))
    assert (look.rows(), look.catalog()) == before


def test_the_notebook_alone_plans_and_with_the_digest_applies(desk: Desk, drifted: Broken) -> None:
    choice = "index public.ix_orders_total_by_hand=revert"
    planned = desk.papermill(drifted, resolve=choice)
    assert planned.code == 0, planned.err
    applied = desk.papermill(drifted, resolve=choice, dry_run=False, approve=planned.digest)
    assert applied.code == 0, applied.err
    assert ("index", "public.ix_orders_total_by_hand") not in Look(drifted.url).catalog()


# --- version rows -------------------------------------------------------------------------------------------------------


def test_a_row_that_was_put_back_is_put_forward_where_nothing_differs(desk: Desk, stamped: Broken) -> None:
    look = Look(stamped.url)
    planned = desk.plan(stamped, option="stamp")
    assert planned.code == 2, planned.err
    assert {attribution for _, _, attribution in found(planned).values()} == {"pending"}
    assert found(planned)["table", "public.loyalty_levels"] == ("0c5e8a71d3f6", 1, "pending")
    assert "0c5e8a71d3f6" in planned.check("revisions")["says"]
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.version() == ["0c5e8a71d3f6"]
    assert stamped.alembic("upgrade", "head").exit_code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.version() == ["b04e7c6f21d9"]


def test_a_stamp_too_far_is_put_back(desk: Desk, drifted: Broken) -> None:
    """The other differences are gone, so the schema is exactly what the revision before makes."""
    look = Look(drifted.url)
    look.execute(
        "drop index ix_orders_total_by_hand", "alter table suppliers alter column name type varchar(120)",
        "alter table orders add constraint ck_orders_total check (total >= 0)",
    )  # fmt: skip
    applied = desk.apply(desk.plan(drifted, option="stamp"))
    assert applied.code == 0, applied.err
    assert look.version() == ["b04e7c6f21d9"]
    assert drifted.alembic("upgrade", "head").exit_code == 0


def test_a_row_that_no_file_has_is_compared_with_the_revision_that_fits(desk: Desk, stamped: Broken) -> None:
    Look(stamped.url).execute("update alembic_version set version_num = 'gone0123'")
    ran = desk.plan(stamped, option="stamp")
    assert ran.code == 2, ran.err
    assert ran.document["differences"] == []
    assert "unknown to the files" in ran.check("version_rows")["says"]
    (step,) = ran.document["plan"]["steps"]
    assert "'0c5e8a71d3f6' where version_num = 'gone0123'" in step["sql"]


def test_a_dependency_keeps_no_row_of_its_own(
    desk: Desk, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """alembic takes the row of a dependency away; with both rows there every upgrade says that they overlap."""
    monkeypatch.setenv("SHOP_URL", database)
    made = {name: f'op.execute("create table {name} (id integer)")' for name in "abc"}
    files = {
        "a": revision("a1", None, made["a"]),
        "b": revision("b1", None, made["b"]),
        "c": revision("c1", "a1", made["c"], "depends_on = 'b1'"),
    }
    ini = projects.project(tmp_path / "project", files).alembic_ini
    look = Look(database)
    look.execute("create table alembic_version (version_num varchar(32) constraint alembic_version_pkc primary key)")
    look.execute(
        "insert into alembic_version values ('a1'), ('b1')", *(f"create table {name} (id integer)" for name in made)
    )
    words = ["-p", "target", "env:SHOP_URL", "-p", "alembic_ini", str(ini), "-p", "option", "stamp"]
    applied = desk.apply(desk.here("plan", SLUG, *words))
    assert applied.code == 0, applied.err
    assert look.version() == ["c1"]


# --- another target -----------------------------------------------------------------------------------------------------


def test_two_databases_of_one_revision_are_compared(
    desk: Desk, broken: Incident, shop_template: str, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = broken("other_target", slug=SLUG)
    monkeypatch.setenv("STAGING_URL", new_database(shop_template))
    (noted,) = Look(incident.url).query("select count(*) from orders where remark is not null")
    ran = desk.plan(incident, other="env:STAGING_URL")
    assert ran.code == 2, ran.err
    assert found(ran) == {
        ("column", "public.orders.note"): ("51e8f3d7096c", 1, "changed since"),
        ("column", "public.orders.remark"): (None, None, "other"),
        ("column", "public.suppliers.name"): ("8d20e6b1f57a", 5, "changed since"),
        ("index", "public.ix_customers_email"): ("3f1c7a9be204", 2, "never ran"),
    }
    assert ran.check("server")["verdict"] == "healthy"
    applied = desk.apply(desk.plan(incident, other="env:STAGING_URL", option="revert"))
    assert applied.code == 0, applied.err
    assert Look(incident.url).query("select count(*) from orders where note is not null")[0] == noted
    assert desk.plan(incident, other="").code == 0
