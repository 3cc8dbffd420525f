"""data_loss after the fact: the option `recover` finds the column and reads it, `restore` puts back what is missing and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fix_bench import Bench
from fix_runs import Desk, Look, Ran
from fix_shop import Broken
from mend.change.kept import Copy, Keeper
from mend.command import archived
from mend.loss import dropped, dropped_history
from mend.loss.dropped import Dropped, Type
from mend.loss.dropped_history import Column
from mend.loss.layouts import Layout
from mend.record import ledger

SLUG = "data_loss"
Incident = Callable[..., Broken]
TEXT = Dropped(
    "public.t", "public.t", "r", 2, -1, "i", False, "x", True, -1, 0, "700", 50, False, 100.0, 8192, ("id", None, "n")
)
TEXTS, JSONB, BYTES = (Layout(form, 0, -1, 4) for form in ("text", "jsonb", "bytes"))
FIXED = Layout("fixed", 0, 4, 4)
AS_TEXT = Type("25", "text", "b", -1, "i", False, "x", True, False, False, 10_000, TEXTS)


@pytest.fixture
def lost(broken: Incident) -> Broken:
    """Orders that have lost their notes."""
    return broken("dropped", slug=SLUG)


def recovered(desk: Desk, lost: Broken, **more: str) -> tuple[Ran, str]:
    """The run that recovered the notes, and the name of its copy."""
    ran = desk.apply(desk.plan(lost, **more))
    assert ran.code == 0, ran.err
    ((name,),) = Look(lost.url).query(
        "select name from mend.manifest where source = 'public.orders.note' order by created_at desc limit 1"
    )
    return ran, name


def restoring(desk: Desk, lost: Broken, copy: str) -> Ran:
    given = {name: lost.parameters[name] for name in ("target", "alembic_ini")} | {"copy": copy}
    return desk.here("plan", SLUG, *(word for name, value in given.items() for word in ("-p", name, value)))


ORIGINAL = "select count(*) from notes_as_they_were as o where o.note is not null and o.id % 11 <> 0"
BACK = 'select count(*) from notes_as_they_were as o join orders as t using (id) where t.note = o.note collate "C"'


# -- recover ------------------------------------------------------------------------------------------------------------


def test_the_history_says_what_the_column_was_and_what_can_be_read_is_told_in_advance(desk: Desk, lost: Broken) -> None:
    ran = desk.plan(lost)
    assert ran.code == 2, ran.err
    (row,) = ran.check("dropped")["sample"]
    assert (row["column"], row["type"], row["dropped by"], row["number"]) == (
        "public.orders.note",
        "text",
        "c7d2504ba91e",
        7,
    )
    (counted,) = ran.check("readable")["sample"]
    look = Look(lost.url)
    ((older, every),) = look.query("select count(*) filter (where id % 11 <> 0 and id <= 200), count(*) from orders")
    assert (counted["rows as old as the column"], counted["rows written since"]) == (older, every - older)
    assert ran.document["plan"]["chosen"] == "recover"


OPTIONS = "select c.reloptions, t.reloptions from pg_class as c join pg_class as t on t.oid = c.reltoastrelid where c.oid = 'orders'::regclass"


def test_a_round_trip_gives_the_notes_back_and_undo_takes_them_again(desk: Desk, lost: Broken) -> None:
    look = Look(lost.url)
    look.execute(
        "alter table orders set (autovacuum_enabled = true, fillfactor = 70, toast.autovacuum_vacuum_threshold = 77)"
    )
    in_order = look.query(OPTIONS)
    catalog, attributes = (
        look.catalog(),
        look.query(
            "select ctid::text, cast(a as text) from pg_attribute as a where attrelid = 'orders'::regclass order by attnum"
        ),
    )
    ran, copy = recovered(desk, lost)
    assert look.catalog() == catalog
    assert (
        look.query(
            "select ctid::text, cast(a as text) from pg_attribute as a where attrelid = 'orders'::regclass order by attnum"
        )
        == attributes
    )
    assert look.query(OPTIONS) == in_order
    assert "catalog_compared" in ran.kinds
    before = look.rows()
    planned = restoring(desk, lost, copy)
    assert planned.code == 2, planned.err
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.query(BACK) == look.query(ORIGINAL)
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.catalog(), look.rows()) == (catalog, before)
    again = desk.here("undo", ran.run_id)
    assert again.code == 0, again.err
    assert (
        look.query("select count(*) from mend.manifest where source = 'public.orders.note' and expires_at > now()")[0][
            0
        ]
        >= 1
    )


def test_what_the_application_has_written_since_stays(desk: Desk, lost: Broken) -> None:
    look = Look(lost.url)
    _, copy = recovered(desk, lost)
    look.execute(
        "alter table orders add column note text",
        "update orders set note = 'written since' where id in (4, 6)",
        "delete from shipments where order_id = 8",
        "delete from payments where order_id = 8",
        "delete from orders where id = 8",
    )
    ran = desk.apply(restoring(desk, lost, copy))
    assert ran.code == 0, ran.err
    assert look.query("select id, note from orders where id in (4, 6, 8) order by 1") == [
        (4, "written since"),
        (6, "written since"),
    ]
    ((back,),), ((wanted,),) = look.query(BACK), look.query(f"{ORIGINAL} and id not in (4, 6, 8)")
    assert back == wanted


def test_a_copy_that_was_altered_is_refused(desk: Desk, lost: Broken) -> None:
    _, copy = recovered(desk, lost)
    look = Look(lost.url)
    for harm, why in (
        (f"update mend.{copy} set note = note || '?' where id = 4", "the checksum differs"),
        (f"delete from mend.{copy} where id = 4", "rows where"),
    ):
        look.execute(harm)
        before = look.rows(), look.catalog()
        ran = restoring(desk, lost, copy)
        assert ran.document["plan"]["steps"] == []
        assert why in ran.options["restore"]
        assert (look.rows(), look.catalog()) == before


def test_without_a_superuser_it_says_what_can_still_be_done(desk: Desk, lost: Broken) -> None:
    look = Look(lost.url)
    look.execute(
        "drop role if exists plain",
        "create role plain login",
        "grant pg_read_all_data to plain",
        "grant execute on function pg_control_system() to plain",
    )
    try:
        ran = desk.plan(lost, **as_role(lost, "plain"))
        assert "needs a superuser, which plain is not" in ran.options["recover"], ran.err
        assert "restore a backup" in ran.options["recover"]
    finally:
        look.execute("drop owned by plain", "drop role plain")


def as_role(lost: Broken, role: str) -> dict[str, str]:
    import os

    os.environ["PLAIN_URL"] = lost.url.replace("postgres@", f"{role}@")
    return {"target": "env:PLAIN_URL"}


def test_without_a_project_the_operator_says_the_type_and_a_wrong_one_is_refused(desk: Desk, bench: Bench) -> None:
    look = bench.look
    look.execute(
        "create table t (id integer primary key, body text, doc jsonb, n bigint)", "insert into t select n, 'b' || n, '[1]', n from generate_series(1, 20) as n",
        "vacuum full t", "alter table t drop column body, drop column doc, drop column n",
    )  # fmt: skip
    given = ["-p", "target", "env:BENCH_URL", "-p", "table", "t"]
    unsaid = desk.here("plan", SLUG, *given)
    assert "say which dropped column is meant" in unsaid.options["recover"]
    for attnum, kind, why in (
        ("2", "jsonb", "collation was yes"),
        ("3", "point[]", "alignment was i"),
        ("3", "tsvector", "can crash the server"),
        ("2", "integer", "length was -1"),
        ("2", "nothing", "is not in this database"),
    ):
        ran = desk.here("plan", SLUG, *given, "-p", "attnum", attnum, "-p", "column_type", kind)
        assert why in ran.options["recover"], ran.err
    alike = desk.here("plan", SLUG, *given, "-p", "attnum", "4", "-p", "column_type", "timestamptz")
    assert any("Any 8 bytes can be read as timestamp" in line for line in alike.document["plan"]["warnings"])
    garbage = desk.here("plan", SLUG, *given, "-p", "attnum", "2", "-p", "column_type", "text); drop table t; --")
    assert "is no name of a type" in garbage.err
    planned = desk.here("plan", SLUG, *given, "-p", "attnum", "2", "-p", "column", "body", "-p", "column_type", "TEXT")
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    ((name,),) = look.query("select name from mend.manifest where source = 'public.t.body'")
    assert look.query(f"select count(*), min(body) from mend.{name}") == [(20, "b1")]


def test_cut_off_in_the_middle_autovacuum_stays_off_until_resume_or_undo(desk: Desk, lost: Broken) -> None:
    look = Look(lost.url)
    off = "select 'autovacuum_enabled=off' = any(reloptions) from pg_class where oid = 'orders'::regclass"
    catalog, wanted = look.catalog(), look.query(ORIGINAL)
    planned = desk.plan(lost)
    run = desk.crash("apply", planned.run_id, "--approve", planned.digest, kind="values_read", after=True)
    assert look.query(off) == [(True,)]
    resumed = desk.here("resume", run)
    assert resumed.code == 0, resumed.err
    assert look.catalog() == catalog
    ((name,),) = look.query("select name from mend.manifest")
    assert look.query(f"select count(*) from mend.{name}") == wanted


def test_a_type_changed_by_hand_is_told_and_undo_switches_autovacuum_on_again(
    desk: Desk, lost: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    look = Look(lost.url)
    shown = (
        "update pg_attribute set attisdropped = {}, atttypid = {} where attrelid = 'orders'::regclass and attnum = 7"
    )
    with look.connect(autocommit=False) as conn:
        conn.execute(shown.format("false", "'bytea'::regtype").encode())
        conn.execute("update orders set \"........pg.dropped.7........\" = decode('ff00', 'hex') where id = 4")
        conn.execute(shown.format("true", "0").encode())
    catalog, rows = look.catalog(), look.rows()
    ran = desk.apply(desk.plan(lost))
    assert ran.code == 1
    assert "not of the type that it is taken for" in ran.err
    capsys.readouterr()
    archived.tell(ran.record, brief=True)
    assert f"mend undo {ran.run_id}" in capsys.readouterr().out
    again = desk.plan(lost, column_type="bytea")
    assert any("Autovacuum of public.orders is off" in line for line in again.document["plan"]["warnings"])
    undone = desk.here("undo", ran.run_id)
    assert undone.code == 0, undone.err
    assert (look.catalog(), look.rows()) == (catalog, rows)
    _, copy = recovered(desk, lost, column_type="bytea")
    assert look.query(f"select note from mend.{copy} where id = 4") == [(b"\xff\x00",)]


def test_cut_off_in_the_middle_undo_switches_autovacuum_on_again(desk: Desk, lost: Broken) -> None:
    look = Look(lost.url)
    catalog = look.catalog()
    planned = desk.plan(lost)
    run = desk.crash("apply", planned.run_id, "--approve", planned.digest, kind="values_read", after=True)
    undone = desk.here("undo", run)
    assert undone.code == 0, undone.err
    assert look.catalog() == catalog


def test_a_table_that_is_empty_again_gets_only_the_rows_that_it_lacks(desk: Desk, lost: Broken) -> None:
    look = Look(lost.url)
    look.execute(
        "create schema if not exists mend",
        "comment on schema mend is 'mend: undo data and applied plans; `mend runs` lists them'",
    )
    rows = "select id, product_id, customer_id, rating, body, created_at from reviews order by id"
    before = look.query(rows)
    copy = kept_rows(look, "public.reviews", "public.reviews (rows)")
    other = kept_rows(look, "public.reviews", "public.reviews (body, rating)")
    assert "`mend undo` of its run" in restoring(desk, lost, other).options["restore"]
    look.execute("delete from reviews where id % 2 = 0", "update reviews set body = 'written since' where id = 3")
    planned = restoring(desk, lost, copy)
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert [row for row in look.query(rows) if row[0] != 3] == [row for row in before if row[0] != 3]
    assert look.query("select body from reviews where id = 3") == [("written since",)]


def kept_rows(look: Look, table: str, source: str) -> str:
    """A copy of a table with its note, as a rescue makes it."""
    copy = Copy(Keeper("mend", "test"), source, table)
    made = (*copy.made(f"select * from {table}"), copy.noted())
    look.execute("set application_name = 'mend:test:0'", *ledger.schema_statements("mend"), *(one.sql for one in made))
    return copy.name


# -- which type ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "kind", "named", "certain", "why"),
    [
        (TEXT, AS_TEXT, "text", True, ""),
        (TEXT, AS_TEXT, "text", False, ""),
        (TEXT, None, "mood", True, "is not in this database any more"),
        (TEXT, Type("23", "integer", "b", 4, "i", True, "p", False, False, False, 10_000, FIXED), "integer", True, "length was -1, and would be 4"),
        (TEXT, Type("3802", "jsonb", "b", -1, "i", False, "x", False, False, False, 10_000, JSONB), "jsonb", True, "collation"),
        (replace(TEXT, collated=False), Type("3802", "jsonb", "b", -1, "i", False, "x", False, False, False, 10_000, None), "jsonb", True, "can crash the server"),
        (replace(TEXT, collated=False), Type("3802", "jsonb", "b", -1, "i", False, "x", False, False, False, 10_000, JSONB), "jsonb", True, ""),
        (replace(TEXT, collated=False), Type("17", "bytea", "b", -1, "i", False, "x", False, False, False, 10_000, BYTES), "bytea", False, ""),
        (replace(TEXT, modifier=24), Type("1043", "character varying(20)", "b", -1, "i", False, "x", True, False, False, 10_000, TEXTS), "varchar(20)", False, ""),
        (replace(TEXT, modifier=24), Type("1043", "character varying(20)", "b", -1, "i", False, "x", True, False, False, 10_000, TEXTS), "character varying(10)", True, "modifier was 20, and would be 10"),
        (replace(TEXT, dimensions=1), AS_TEXT, "text", True, "array"),
        (replace(TEXT, length=4, by_value=True, collated=False, storage="p"), Type("9", "public.mood", "e", 4, "i", True, "p", False, False, True, 20, FIXED), "public.mood", True, "made or changed after"),
        (replace(TEXT, storage="p", collated=False), Type("3802", "jsonb", "b", -1, "i", False, "x", False, False, False, 10_000, JSONB), "jsonb", True, ""),
        (TEXT, Type("2278", "void", "p", 4, "i", True, "p", False, False, False, 10_000, FIXED), "void", True, "no type of a column"),
    ],
)  # fmt: skip
def test_a_type_is_read_only_where_it_fits_and_is_known(
    column: Dropped, kind: Type | None, named: str, certain: bool, why: str
) -> None:
    found = dropped.objection(column, kind, named=named, certain=certain)
    assert (why in found) if why else found == "", found


def test_a_number_tells_the_column_only_where_the_table_is_as_the_history_made_it() -> None:
    history = (
        Column("public.t", "id", "integer"),
        Column("public.t", "body", "text", revision="abc"),
        Column("public.t", "n", "integer"),
    )
    (match,) = dropped_history.matches(history, [TEXT])
    assert (match.certain, match.column) == (True, history[1])
    (match,) = dropped_history.matches(history, [replace(TEXT, columns=("id", None, "other"))])
    assert (match.certain, match.column) == (False, None)
