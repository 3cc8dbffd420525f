"""The verdicts of not_null_violation: diagnose (healthy, broken, repaired, half repaired), refusals, round trip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fix_runs import Desk, Look, Ran
from fix_shop import Broken

SLUG = "not_null_violation"
Incident = Callable[..., Broken]


@pytest.fixture
def notes(broken: Incident) -> Broken:
    return broken("null_notes", slug=SLUG)


@pytest.fixture
def phones(broken: Incident) -> Broken:
    return broken("null_phones", slug=SLUG)


def refused(desk: Desk, incident: Broken, **given: str) -> Ran:
    """A plan that must not come about, and write nothing."""
    look = Look(incident.url)
    before = look.rows(), look.catalog()
    ran = desk.plan(incident, **given)
    assert (look.rows(), look.catalog()) == before
    assert ran.document.get("plan") is None or ran.document["plan"]["steps"] == []
    return ran


# --- triage and round trip ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "table", "column"), [("null_notes", "orders", "note"), ("null_phones", "customers", "phone")]
)
def test_triage_names_it_first_with_table_and_column(
    desk: Desk, broken: Incident, scenario: str, table: str, column: str
) -> None:
    incident = broken(scenario, slug=SLUG)
    ran = desk.here(
        "triage",
        "-t",
        incident.parameters["target"],
        "-a",
        str(incident.alembic_ini),
        "--error-file",
        str(incident.error_file),
    )
    first = ran.document["findings"][0]
    assert first["slug"] == SLUG
    assert {"table": table, "columns": column, "revision": incident.parameters["revision"]}.items() <= first[
        "parameters"
    ].items()
    assert f"plan {SLUG}" in first["command"]
    assert f"-p columns {column}" in first["command"]


def test_from_the_incident_to_a_mended_shop_and_back(desk: Desk, notes: Broken) -> None:
    look = Look(notes.url)
    rows, catalog, version = look.rows(), look.catalog(), look.version()
    planned = desk.plan(notes)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "backfill"
    assert (look.rows(), look.catalog()) == (rows, catalog)
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.query("select count(*) from orders where note is null") == [(0,)]
    assert look.version() == [notes.parameters["revision"]]
    assert notes.alembic("upgrade", "head").exit_code == 0
    assert [c["verdict"] for c in desk.plan(notes).document["checks"] if c["name"] in ("nulls", "guards")] == [
        "healthy",
        "healthy",
    ]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog(), look.version()) == (rows, catalog, version)


def test_the_notebook_alone_plans_and_with_the_digest_applies(desk: Desk, notes: Broken) -> None:
    planned = desk.papermill(notes)
    assert planned.code == 0, planned.err
    applied = desk.papermill(notes, dry_run=False, approve=planned.digest)
    assert applied.code == 0, applied.err
    assert applied.document["outcome"] == "completed"
    assert Look(notes.url).version() == [notes.parameters["revision"]]


def test_what_the_revision_wants_is_found_without_any_name(desk: Desk, notes: Broken) -> None:
    ran = desk.plan(notes, revision="", table="", columns="")
    assert ran.code == 2, ran.err
    assert ran.document["plan"]["chosen"] == "backfill"


def test_rows_that_the_application_changed_since_are_left_alone_by_undo(desk: Desk, notes: Broken) -> None:
    look = Look(notes.url)
    (changed,) = look.query("select id from orders where note is null order by id limit 1")[0]
    applied = desk.apply(desk.plan(notes))
    look.execute(f"update orders set note = 'Bring a ladder' where id = {changed}")
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 2, undone.err
    assert f"1 rows of public.orders did not go back: {changed} (changed since)" in undone.document["says"]
    assert look.query("select note from orders where id = %s", changed) == [("Bring a ladder",)]
    restored = [event.payload for event in undone.record.journal.of("restored")]
    assert sum(one["conflicts"] for one in restored) == 1


# --- what is written ----------------------------------------------------------------------------------------------------


def test_without_a_default_the_operator_must_say_what_to_write(desk: Desk, phones: Broken) -> None:
    ran = refused(desk, phones)
    assert ran.code == 2, ran.err
    assert ran.document["plan"]["chosen"] == "stop"
    assert "fill" in ran.options["backfill"]


def test_an_expression_over_the_row_is_written(desk: Desk, phones: Broken) -> None:
    look = Look(phones.url)
    before = dict(look.query("select id, 'c' || id from customers where phone is null"))
    applied = desk.apply(desk.plan(phones, fill="'c' || id"))
    assert applied.code == 0, applied.err
    assert before == dict(look.query("select id, phone from customers where phone like 'c%'"))


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        ("nullif(id, id)::text", "NULL"),
        ("repeat('0', 33)", "long"),
        ("nextval('customers_id_seq')::text", "nextval"),
        ("(delete from reviews returning 'x')", "fill|expression"),
        ("'x'); drop table reviews; --", "expression"),
        ("no_such_column", "no_such_column"),
        ("unknown", "'unknown'"),
    ],
)
def test_what_may_not_be_written_is_refused_before_anything_is(
    desk: Desk, phones: Broken, fill: str, says: str
) -> None:
    ran = refused(desk, phones, fill=fill, option="backfill")
    assert ran.code in (1, 3)
    assert any(word in ran.err + ran.document.get("says", "") for word in says.split("|"))


def test_the_sample_shows_shapes_and_not_content(desk: Desk, phones: Broken) -> None:
    (name,) = Look(phones.url).query("select full_name from customers where phone is null order by id limit 1")[0]
    shown = str(desk.plan(phones).check("rows")["sample"])
    assert name not in shown
    assert "Xxx" in shown
    assert name in str(desk.plan(phones, mask="false").check("rows")["sample"])


# --- delete -------------------------------------------------------------------------------------------------------------


def test_rows_with_children_that_must_stay_are_not_deleted(desk: Desk, phones: Broken) -> None:
    ran = refused(desk, phones, option="delete")
    assert ran.code == 3
    assert "orders" in ran.err


def test_rows_and_what_hangs_on_them_are_deleted_and_come_back(desk: Desk, notes: Broken) -> None:
    look = Look(notes.url)
    look.execute("delete from payments", "delete from shipments")
    rows, catalog = look.rows(), look.catalog()
    planned = desk.plan(notes, option="delete")
    assert planned.code == 2, planned.err
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.query("select count(*) from orders where note is null") == [(0,)]
    assert look.query(
        "select count(*) from order_items as i where not exists (select from orders where id = i.order_id)"
    ) == [(0,)]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog()) == (rows, catalog)


# --- other states -------------------------------------------------------------------------------------------------------


def test_a_shop_that_wants_nothing_is_healthy(desk: Desk, healthy: Broken) -> None:
    ran = desk.here(
        "plan", SLUG, "-p", "target", healthy.parameters["target"], "-p", "alembic_ini", str(healthy.alembic_ini)
    )
    assert ran.code == 0, ran.err
    assert ran.document["outcome"] == "completed"


@pytest.mark.parametrize(
    "left",
    [
        "alter table orders add constraint note_there check (note is not null) not valid",
        "alter table orders add constraint note_there not null note not valid",
    ],
)
def test_a_guard_that_an_earlier_try_left_is_used(desk: Desk, notes: Broken, left: str) -> None:
    look = Look(notes.url)
    look.execute("update orders set note = '' where id % 2 = 0 and note is null", left)
    planned = desk.plan(notes)
    assert planned.check("guards")["verdict"] == "found"
    assert not any("no new NULL" in step["says"] for step in planned.document["plan"]["steps"])
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.query(
        "select attnotnull from pg_attribute where attrelid = 'orders'::regclass and attname = 'note'"
    ) == [(True,)]
    assert notes.alembic("upgrade", "head").exit_code == 0


def test_a_repaired_shop_is_healthy(desk: Desk, notes: Broken) -> None:
    assert desk.apply(desk.plan(notes)).code == 0
    again = desk.plan(notes)
    assert again.code == 0, again.err
    assert again.document["plan"]["steps"] == []


def test_names_that_need_quoting(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    look.execute(
        'create schema "App; drop"',
        'create table "App; drop"."We ""ird%s" ("Key One" int, "key:two" uuid default gen_random_uuid(), "Töne %" text, primary key ("Key One", "key:two"))',
        'insert into "App; drop"."We ""ird%s" ("Key One", "Töne %") select i, case when i % 3 = 0 then \'a\' end from generate_series(1, 300) as i',
    )
    rows, catalog = look.rows(), look.catalog()
    named = Broken(
        healthy.project,
        healthy.error_file,
        healthy.parameters | {"table": '"App; drop"."We ""ird%s"', "columns": '"Töne %"'},
        SLUG,
    )
    planned = desk.plan(named, fill="'100 %'")
    assert planned.code == 2, planned.err
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.query('select count(*) from "App; drop"."We ""ird%%s" where "Töne %%" = \'100 %%\' and %s', True) == [
        (200,)
    ]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog()) == (rows, catalog)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"table": "no_such"}, "no_such"),
        ({"columns": "no_such"}, "no column"),
        ({"option": "fill"}, "backfill, delete, stop"),
        ({"table": 'x"; drop table orders; --'}, "table"),
    ],
)
def test_a_name_that_is_not_there_is_an_error(desk: Desk, notes: Broken, given: dict[str, str], says: str) -> None:
    ran = refused(desk, notes, **given)
    assert ran.code == 1
    assert says in ran.err


def test_a_revision_that_rows_stop_elsewhere_too_is_left_to_alembic(
    desk: Desk, phones: Broken, edit: Callable[[Path, str, str], None]
) -> None:
    (file,) = (phones.project.directory / "migrations" / "versions").glob("d3f70a6b18c2_*.py")
    wanted = '    op.alter_column("customers", "phone", existing_type=sa.String(32), nullable=False)\n'
    edit(file, wanted, wanted + '    op.alter_column("orders", "note", existing_type=sa.Text(), nullable=False)\n')
    planned = desk.plan(phones, fill="'unknown'")
    assert planned.code == 2, planned.err
    assert "public.orders.note" in planned.document["plan"]["next"]
    assert not any("record revision" in step["says"] for step in planned.document["plan"]["steps"])
    look = Look(phones.url)
    version = look.version()
    assert desk.apply(planned).code == 0
    assert look.query("select count(*) from customers where phone is null") == [(0,)]
    assert look.version() == version
