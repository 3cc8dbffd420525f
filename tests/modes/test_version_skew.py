"""The verdicts of version_skew: four incidents mended and taken back, with both applications really run, and every way to ask wrongly."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import projects
import pytest
from fix_runs import Desk, Look, Ran
from fix_shop import Broken
from mend.change.kept import Keeper
from mend.database import parameters, target
from mend.diagnosis import Site
from mend.errors import MendError, Refused
from mend.histories.project import Project as AlembicProject
from mend.lab.shop import Project
from mend.mismatch.reconcile import Ground
from mend.modes import version_skew
from mend.skew import application, placeholders, prepared, twins

SLUG = "version_skew"
OLD, NEW = "app_before.py", "app_after.py"
Incident = Callable[..., Broken]


@pytest.fixture
def behind(broken: Incident) -> Broken:
    return broken("behind", slug=SLUG)


@pytest.fixture
def ahead(broken: Incident) -> Broken:
    return broken("ahead", slug=SLUG)


@pytest.fixture
def renamed(broken: Incident) -> Broken:
    return broken("renamed", slug=SLUG)


@pytest.fixture
def phases(broken: Incident) -> Broken:
    return broken("phases", slug=SLUG)


def works(incident: Broken) -> dict[str, int]:
    """The exit codes of the old application and the new one, run for real."""
    return {name: incident.project.python(name).exit_code for name in (OLD, NEW)}


def cells(ran: Ran) -> dict[tuple[str, str], str]:
    return {
        (row["application"].split()[0], row["schema"].split()[0]): row["verdict"]
        for row in ran.check("matrix")["sample"]
    }


# --- behind: the application was deployed first --------------------------------------------------------------------------


def test_the_application_gets_the_revision_that_it_needs_and_it_is_taken_back(desk: Desk, behind: Broken) -> None:
    look = Look(behind.url)
    rows, catalog, version = look.rows(), look.catalog(), look.version()
    planned = desk.plan(behind)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "upgrade"
    assert cells(planned) == {
        ("old", "old"): "works",
        ("old", "new"): "works",
        ("new", "old"): "breaks",
        ("new", "new"): "works",
    }
    (missing,) = planned.check("expectations")["sample"]
    assert (missing["application"], missing["sqlstate"]) == ("new", "42703")
    assert (look.rows(), look.catalog()) == (rows, catalog)
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert works(behind) == {OLD: 0, NEW: 0}
    assert desk.plan(behind).code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog(), look.version()) == (rows, catalog, version)


def test_without_a_parameter_the_new_application_is_what_env_py_says(desk: Desk, behind: Broken) -> None:
    ran = desk.plan(behind, metadata="", old_metadata="")
    assert cells(ran)["new", "old"] == "breaks"
    assert cells(ran)["old", "old"] == "could_not_check"
    assert ran.document["plan"]["chosen"] == "upgrade"


# --- ahead: the migration ran first ----------------------------------------------------------------------------------------


def test_an_unknown_column_may_be_null_for_a_while(desk: Desk, ahead: Broken) -> None:
    look = Look(ahead.url)
    rows, catalog = look.rows(), look.catalog()
    planned = desk.plan(ahead)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "shim"
    assert cells(planned) == {
        ("old", "old"): "works",
        ("old", "new"): "breaks",
        ("new", "old"): "breaks",
        ("new", "new"): "works",
    }
    assert planned.check("unknown_columns")["sample"][0]["column"] == "public.customers.language"
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert works(ahead) == {OLD: 0, NEW: 0}
    again = desk.plan(ahead)
    assert applied.run_id in again.check("standing")["says"]
    assert any(
        "taken away" in one.payload["says"] or "take the emergency" in one.payload["says"]
        for one in again.record.journal.of("prevented")
    )
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (look.rows(), look.catalog()) == (rows, catalog)
    assert desk.plan(ahead).check("standing")["verdict"] == "healthy"


def test_an_unknown_column_gets_the_default_that_is_named(desk: Desk, ahead: Broken) -> None:
    planned = desk.plan(ahead, option="shim", fill="customers.language='en'")
    assert "set default 'en'" in str(planned.document["plan"]["steps"])
    computed = desk.plan(ahead, option="shim", fill="customers.language=email")
    assert "cannot be made of other columns (email)" in computed.err
    assert desk.apply(planned).code == 0
    assert works(ahead) == {OLD: 0, NEW: 0}
    assert Look(ahead.url).query(
        "select attnotnull from pg_attribute where attrelid = 'customers'::regclass and attname = 'language'"
    ) == [(True,)]


def test_a_database_ahead_of_this_checkout_is_said(desk: Desk, ahead: Broken) -> None:
    next((ahead.project.directory / "migrations" / "versions").glob("a91f3b6d20c4*")).unlink()
    ran = desk.plan(ahead, metadata="app_before:Base", old_metadata="")
    assert "a91f3b6d20c4" in ran.check("heads")["says"]
    assert cells(ran)["old", "new"] == "breaks"
    assert cells(ran)["old", "old"] == "works"
    assert "ahead of this code" in ran.options["upgrade"]


def test_a_renamed_column_keeps_its_old_name_in_step(desk: Desk, renamed: Broken) -> None:
    look = Look(renamed.url)
    catalog = look.catalog()
    planned = desk.plan(renamed)
    assert planned.document["plan"]["chosen"] == "shim", planned.err
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert works(renamed) == {OLD: 0, NEW: 0}
    assert look.query("select count(*) from customers where name is distinct from full_name") == [(0,)]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.catalog() == catalog


# --- in phases --------------------------------------------------------------------------------------------------------------


def test_both_applications_work_between_the_phases(desk: Desk, phases: Broken) -> None:
    """Rows are written all the while by both versions, and the backfill is killed in its middle."""
    look = Look(phases.url)
    catalog, version = look.catalog(), look.version()
    runs = []
    with writing(look) as stop:
        for phase, ends in (
            ("expand", {OLD: 0, NEW: 0}),
            ("backfill", {OLD: 0, NEW: 0}),
            ("contract", {OLD: 1, NEW: 0}),
        ):
            if phase == "contract":
                waits = desk.plan(phases, option="phased", old_application="full_name")
                assert (waits.code, "no session of full_name is left" in waits.err) == (3, True), waits.err
                stop("full_name")  # none of the old application is left
                shut = desk.plan(phases, option="phased")
                assert (shut.code, "without language" in shut.err) == (3, True), shut.err
                again = desk.apply(desk.plan(phases, option="phased", phase="backfill"))
                assert again.code == 0, again.err
                runs.append(again.run_id)
            planned = desk.plan(phases)
            assert (planned.document["plan"]["chosen"], planned.code) == ("phased", 2), planned.err
            bound = planned.record.plan().evidence["phase"]  # type: ignore[union-attr]
            assert (bound["phase"], bound["after_run"]) == (phase, runs[-1] if runs else "")
            if phase == "expand":
                early = desk.plan(phases, option="phased", phase="backfill")
                assert (early.code, "expand comes first" in early.err) == (3, True), early.err
            if phase == "backfill":
                (trigger,) = look.query("select tgname from pg_trigger where tgname like 'zzz_mend_twin%'")
                look.execute(f"alter table customers disable trigger {trigger[0]}")
                refused = desk.apply(planned)
                assert (refused.code, "shut" in refused.err) == (3, True), refused.err
                look.execute(f"alter table customers enable always trigger {trigger[0]}")
                crashed = desk.crash(
                    "apply", planned.run_id, "--approve", planned.digest, kind="step_done", nth=2, after=False
                )
                applied = desk.here("resume", crashed)
            else:
                applied = desk.apply(planned)
            assert applied.code == 0, applied.err
            assert works(phases) == ends
            runs.append(applied.run_id)
            if phase == "expand":
                stop("name", begin=True)
    assert look.version() == ["e58b07d4c91f"]
    assert phases.alembic("upgrade", "head").exit_code == 0
    assert desk.plan(phases, old_metadata="").check("expectations")["verdict"] == "healthy"
    before = look.query("select id, name from customers order by id")
    for run in reversed(runs):
        if run == runs[2]:  # the trigger and the column are there again, but not the one phase without the other
            early = desk.here("undo", runs[0])
            assert (early.code, "undo the run of the later phase first" in early.err) == (1, True), early.err
        undone = desk.here("undo", run)
        assert undone.code in (0, 2), undone.err
    assert works(phases)[OLD] == 0
    assert (look.catalog(), look.version()) == (catalog, version)
    assert look.query("select id, full_name from customers order by id") == before


@contextlib.contextmanager
def writing(look: Look) -> Iterator[Callable[..., None]]:
    """Two writers that insert and rename, as the old version and as the new one would; each finds what it wrote under its own name.

    ``stop(column)`` ends one, ``stop(column, begin=True)`` begins it.
    """
    ended = {"full_name": threading.Event(), "name": threading.Event()}
    crew = ThreadPoolExecutor(2)

    def work(column: str) -> None:
        more = ", language" if column == "name" else ""
        values = ", 'en'" if more else ""
        with look.connect(application_name=column) as conn:
            while not ended[column].is_set():
                insert = f"insert into customers (email, {column}{more}) values (%s, %s{values}) returning id"
                (made,) = conn.execute(insert.encode(), [f"{uuid.uuid4().hex}@example.org", "first"]).fetchone() or (0,)
                conn.execute(f"update customers set {column} = %s where id = %s".encode(), ["second", made])
                found = conn.execute(f"select {column} from customers where id = %s".encode(), [made]).fetchone()
                assert found == ("second",)
                ended[column].wait(0.02)

    begun = {"full_name": crew.submit(work, "full_name")}

    def stop(column: str, *, begin: bool = False) -> None:
        if begin:
            begun[column] = crew.submit(work, column)
        else:
            ended[column].set()
            begun[column].result(30)

    try:
        yield stop
    finally:
        for event in ended.values():
            event.set()
        crew.shutdown()
    for one in begun.values():
        one.result()


CROWDED = (
    "create table t (id int not null, full_name text not null, search text, kind int not null) partition by list (kind)",
    "create table t1 partition of t for values in (1)",
    "create table t2 partition of t for values in (2)",
    "create unique index on t (full_name, kind)",
    """create function s() returns trigger language plpgsql as
    $$ begin new.full_name := trim(new.full_name); new.search := lower(new.full_name); return new; end $$""",
    "create trigger s before insert or update on t for each row execute function s()",
    "insert into t values (1, 'Anna', null, 1), (2, 'Bert', null, 2)",
)


def test_a_second_name_is_one_column_to_every_writer(database: str) -> None:
    """The table's own triggers see what is written under either name; whoever may write the one may write the other."""
    look = Look(database)
    role = f"clerk_{uuid.uuid4().hex[:8]}"
    look.execute(*CROWDED, f"create role {role}", f"grant select, insert, update (full_name) on t to {role}")
    look.execute(f"grant insert (full_name) on t to {role} with grant option")
    before = look.catalog()
    ground = Ground(before, Keeper("mend", "k", {}), 18, {})
    added = twins.added("public.t.full_name", "name", ground)
    look.execute(*(one.sql for one in added.statements))
    with look.connect() as conn:
        conn.execute(f"set role {role}".encode())
        conn.execute("insert into t (id, name, kind) values (3, ' Carl ', 1), (4, 'Dora', 2)")
        conn.execute("insert into t (id, full_name, kind) values (5, 'Eve ', 2)")
        conn.execute("update t set name = 'BERT' where id = 2")
        conn.execute("update t set full_name = 'Fred' where id = 4")
        conn.execute("reset role")
        again = "insert into t (id, {0}, kind) values (9, 'Eve', 2) on conflict (full_name, kind) do update set {0} = excluded.{0} || '{1}'"
        conn.execute(again.format("name", " II").encode())
        conn.execute(again.format("full_name", "!").encode())
        conn.execute("set session_replication_role = replica")  # as the worker of a subscription is
        conn.execute("update t set kind = 2, name = 'Gert', search = 'gert' where id = 3")
        conn.execute("reset session_replication_role")
        with conn.cursor().copy("copy t (id, name, kind) from stdin") as copy:
            copy.write(b"6\t Hans\t1\n")
    assert look.query("select id, full_name, name, search from t order by id") == [
        (1, "Anna", None, "anna"), (2, "BERT", "BERT", "bert"), (3, "Gert", "Gert", "gert"), (4, "Fred", "Fred", "fred"),
        (5, "Eve II", "Eve II", "eve ii"), (6, "Hans", "Hans", "hans"), (9, "Eve", "Eve", "eve"),
    ]  # fmt: skip
    look.execute(*(one.sql for one in added.undo[0].statements))
    assert look.catalog() == before
    look.execute("create trigger u after insert or update of search, full_name on t for each row execute function s()")
    with pytest.raises(Refused, match=r"public\.t\.u fires on UPDATE OF full_name"):
        twins.added("public.t.full_name", "name", replace(ground, live=look.catalog()))
    look.execute(f"drop owned by {role}", f"drop role {role}")


def test_a_name_that_is_in_use_until_the_contract_is_not_given_again(
    desk: Desk, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "op.execute('create table t (id int, a text, b text)')"
    rename = "op.execute('alter table t rename a to c')"
    monkeypatch.setenv("SHOP_URL", database)
    for second, says in (
        (
            f"{rename}\nop.execute('alter table t add a int')",
            "the column public.t.a is there already: what has this name is in use",
        ),
        (f"{rename}\nop.execute('alter table t rename c to d')", "public.t.c is renamed twice"),
    ):
        made = projects.project(tmp_path, projects.chain(one=table, two=second), url=database)
        if not Look(database).query("select 1 from pg_class where relname = 't'"):
            command = [sys.executable, "-m", "alembic", "-c", str(made.alembic_ini), "upgrade", "one"]
            subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
        refused = desk.here("plan", SLUG, "-t", "env:SHOP_URL", "-a", str(made.alembic_ini), "-p", "option", "phased")
        assert (refused.code, says in refused.err) == (3, True), refused.err


HOSTILE = """
op.execute('create schema "app""x"')
op.execute('create table "app""x"."We; */ Ird%s" (id serial primary key, "Spä""lte" json, gone text not null, size int, code text)')
"""
BREAKING = """
op.execute('alter table "app""x"."We; */ Ird%s" rename "Spä""lte" to "50%"')
op.execute('alter table "app""x"."We; */ Ird%s" drop column gone')
op.execute('alter table "app""x"."We; */ Ird%s" add column kind text not null')
op.execute('alter table "app""x"."We; */ Ird%s" alter column size set not null')
op.execute('alter table "app""x"."We; */ Ird%s" add constraint "ck %s" check (size > 0)')
op.execute('alter table "app""x"."We; */ Ird%s" add constraint uq unique (code)')
op.execute('create index on "app""x"."We; */ Ird%s" (size)')
op.execute('create index on "app""x"."We; */ Ird%s" (("50%"::text))')
"""
_TABLE = '"app""x"."We; */ Ird%s"'
OLD_SQL = f"""insert into {_TABLE} ("Spä""lte", gone, size, code) values (:a, :b, :c, :d); select "Spä""lte", gone from {_TABLE};"""
NEW_SQL = (
    f"""insert into {_TABLE} ("50%", kind, size, code) values (:a, :b, :c, :d); select "50%", kind from {_TABLE};"""
)


def test_names_and_types_of_any_kind_pass_through_the_phases(
    desk: Desk, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = projects.project(tmp_path, projects.chain(one=HOSTILE, two=BREAKING), url=database)
    monkeypatch.setenv("SHOP_URL", database)
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(made.alembic_ini), "upgrade", "one"],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    (tmp_path / "old.sql").write_text(OLD_SQL, encoding="utf-8")
    (tmp_path / "new.sql").write_text(NEW_SQL, encoding="utf-8")
    look, runs = Look(database), []
    look.execute(
        f"""insert into {_TABLE} ("Spä""lte", gone, size, code) select '{{}}', 'g', 1, i::text from generate_series(1, 50) i"""
    )
    values = f"""select id, "Spä""lte"::text, gone, size, code from {_TABLE} order by id"""
    catalog, rows = look.catalog(), look.query(values)
    given = {"target": "env:SHOP_URL", "alembic_ini": str(made.alembic_ini), "statements": "new.sql", "old_statements": "old.sql",
             "fill": f"{_TABLE}.kind='k'"}  # fmt: skip
    words = [word for name, value in given.items() for word in ("-p", name, value)]
    for phase in ("expand", "backfill", "contract"):
        planned = desk.here("plan", SLUG, *words)
        assert (planned.document["plan"] or {}).get("chosen") == "phased", (
            phase,
            planned.err,
            [
                (o["option"], o["possible"], o["why_not"])
                for o in (planned.document.get("plan") or {}).get("options", [])
            ],
        )
        if phase != "expand":
            assert (cells(planned)["old", "old"], cells(planned)["new", "old"]) == ("works", "works")
        applied = desk.apply(planned)
        assert applied.code == 0, applied.err
        runs.append(applied.run_id)
    assert look.version() == ["two"]
    assert desk.here("plan", "environment_mismatch", *words[:6]).code == 0
    for run in reversed(runs):
        undone = desk.here("undo", run)
        assert undone.code == 0, undone.err
    assert (look.catalog(), look.query(values)) == (catalog, rows)


READS = """
for (name,) in op.get_bind().execute(sa.text("select note from t")).fetchall():
    op.execute(sa.text("insert into copies values (:name)").bindparams(name=name))
op.add_column("t", sa.Column("size", sa.Integer))
"""


def test_several_revisions_run_up_to_the_one_that_is_needed(
    desk: Desk, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second computes its SQL from rows, so its upgrade() itself is run; the fourth is not needed."""
    one = "op.execute('create table t (id int, note text)'); op.execute('create table copies (note text)')"
    later = "op.add_column('t', sa.Column('later', sa.Integer))"
    history = projects.chain(one=one, two=READS, three="op.create_index('ix', 't', ['size'])", four=later)
    made = projects.project(tmp_path, history, url=database)
    monkeypatch.setenv("SHOP_URL", database)
    command = [sys.executable, "-m", "alembic", "-c", str(made.alembic_ini), "upgrade", "one"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    look = Look(database)
    look.execute("insert into t values (1, 'a'), (2, 'b')")
    (tmp_path / "new.sql").write_text("select size from t where id = :id")
    words = ["-t", "env:SHOP_URL", "-a", str(made.alembic_ini), "-p", "statements", "new.sql"]
    planned = desk.here("plan", SLUG, *words)
    assert planned.document["plan"]["chosen"] == "upgrade", planned.err
    assert "up to two" in planned.document["plan"]["options"][0]["says"]
    planned = desk.here("plan", SLUG, *words, "-p", "revision", "three")
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.version() == ["three"]
    assert look.query("select note from copies order by 1") == [("a",), ("b",)]


# --- bad input --------------------------------------------------------------------------------------------------------------

MODULES = {
    "raises": "raise RuntimeError('no configuration')",
    "exits": "import sys; sys.exit(7)",
    "vanishes": "import os; os._exit(9)",
    "prints": "print('hello'); import os; os.write(1, b'{\"event\": \"done\"}'); Base = 3",
    "lacks": "x = 1",
    "hangs": "import time; time.sleep(600)",
    "forks": "import os, time\nif os.fork() == 0: time.sleep(60)\nBase = 3",
}
SAYS = {
    "raises": "no configuration",
    "exits": "exits with 7",
    "vanishes": "code 9",
    "prints": "neither a MetaData",
    "lacks": "Base",
    "hangs": "within 2 s",
    "forks": "neither a MetaData",
}


def test_a_module_that_misbehaves_is_told_in_one_paragraph(
    shop: Project, cold_starts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "TIMEOUT_S", 2.0)
    project = AlembicProject(shop.alembic_ini, Path(sys.executable))
    for name, text in MODULES.items():
        (shop.directory / f"{name}.py").write_text(text + "\n")
        begun = time.monotonic()
        found = application.load("new", project, metadata=f"{name}:Base", statements="")
        assert time.monotonic() - begun < 30
        assert SAYS[name] in found.why_not
        assert "\n" not in found.why_not
        assert found.tables == ()


MODELS = """
import os, sys
from sqlalchemy import Column, Computed, Enum, Identity, Integer, MetaData, String, Table
os.chdir("/"); sys.stdin.read()
metadata = MetaData(schema="app", naming_convention={"pk": "pk_%(table_name)s"})
Table("We Ird", metadata, Column("id", Integer, Identity(), primary_key=True), Column("mood", Enum("a", name="mood")),
      Column("na me", String(9, collation="C"), nullable=False), Column("double", Integer, Computed("id * 2")))
"""


def test_metadata_of_every_kind_is_read(shop: Project) -> None:
    (shop.directory / "models.py").write_text(MODELS)
    project = AlembicProject(shop.alembic_ini, Path(sys.executable))
    (table,) = application.load("new", project, metadata="models:metadata", statements="").tables
    assert (table.quoted, [(c.name, c.type, c.nullable, c.fills) for c in table.columns]) == (
        '"app"."We Ird"',
        [("id", "INTEGER", False, "automatic"), ("mood", "app.mood", True, ""), ("na me", "VARCHAR(9)", False, ""), ("double", "INTEGER", True, "computed")],
    )  # fmt: skip


SEEN = (
    "create table c (id int primary key, name text not null, lang text not null, phone text not null default 'x')",
    "create view v as select id, name from c",
    "create table k (full_name text, name text not null)",
    "create function mend_twin_x() returns trigger language plpgsql as $$ begin return new; end $$",
    "create trigger x before insert on k for each row execute function mend_twin_x('full_name', 'given_name')",
)
ASKED = {  # a statement, and what stands against it
    "merge into c using (select 1 as x) as s on id = x when not matched then insert (id, name) values (1, 'n')": ("breaks", "c.lang"),
    "insert into v (id, name) values (1, 'n')": ("could_not_check", "is a view"),
    "insert into k (full_name) values ('n')": ("breaks", "k.name"),
    "insert into c (id, name, lang) values (1, 'n', 'en')": None,
}  # fmt: skip
ID, NAME, LANG = (application.Column(*one) for one in (("id", "INTEGER", False, ""), ("name", "TEXT", False, ""), ("lang", "TEXT", False, "")))  # fmt: skip
DECLARED = (  # the columns of c, and what stands against them
    ((ID, NAME, LANG), None),
    ((replace(ID, fills="automatic"), NAME, LANG), ("breaks", "c.id is NOT NULL")),
    ((ID, NAME, replace(LANG, fills="server")), ("breaks", "c.lang is NOT NULL")),
    ((ID, replace(NAME, type="INTEGER"), LANG), ("breaks", "text = integer")),
    ((ID, NAME, LANG, application.Column("phone", "TEXT", True, "")), ("could_not_check", "may write NULL")),
)


def test_the_matrix_says_works_of_nothing_that_breaks(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Look(database).execute(*SEEN)
    monkeypatch.setenv("SEEN_URL", database)
    said = [(application.Application("old", "f", said=placeholders.split(text, name="f")), wanted) for text, wanted in ASKED.items()]  # fmt: skip
    told = [(application.Application("old", "f", tables=(application.Table("", "c", columns),)), wanted) for columns, wanted in DECLARED]  # fmt: skip
    with target.resolve("env:SEEN_URL").reading("seen") as conn:
        for one, wanted in (*said, *told):
            against = [(a.verdict, a.why) for a in prepared.answers(conn, one) if a.verdict != "works"]
            assert [verdict for verdict, _ in against] == ([wanted[0]] if wanted else []), (one, against)
            assert all(wanted and wanted[1] in why for _, why in against), against


STATEMENTS = """-- what the application runs
select id, email from customers where email = :email and created_at > %(since)s::timestamptz;
insert into customers (email, full_name) values ($1, $2);
update customers set mobile = :mobile where id = :id;
selec 1;
drop table customers;
select ';', "id" from customers /* ; /* ; */ */ limit %s;
select 1 from customers where
  nothing = 3;
"""


def test_statements_are_analysed_and_never_executed(desk: Desk, behind: Broken) -> None:
    look = Look(behind.url)
    rows, catalog = look.rows(), look.catalog()
    (behind.project.directory / "queries.sql").write_text(STATEMENTS)
    ran = desk.plan(behind, metadata="", old_metadata="", old_statements="queries.sql")
    said = {row["asked"]: row for row in ran.check("expectations")["sample"] if row["application"] == "old"}
    assert set(said) == {"queries.sql:4", "queries.sql:5", "queries.sql:6", "queries.sql:8"}
    assert (said["queries.sql:4"]["verdict"], said["queries.sql:4"]["sqlstate"]) == ("breaks", "42703")
    assert "does not parse" in said["queries.sql:5"]["says"]
    assert "line 5, character 1" in said["queries.sql:5"]["says"]
    assert "line 9, character 3" in said["queries.sql:8"]["says"]
    assert said["queries.sql:6"]["verdict"] == "could_not_check"
    assert (look.rows(), look.catalog()) == (rows, catalog)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"metadata": "import os"}, "module:attribute"),
    ({"old_metadata": "a:b; drop"}, "module:attribute"),
    ({"statements": "nowhere.sql"}, "cannot be read"),
    ({"option": "phased", "phase": "retract"}, "phase is 'retract'"),
    ({"old_ref": "--upload-pack=touch x"}, "old_ref"),
    ({"changed_at": "yesterday"}, "changed_at"),
    ({"fill": "nonsense"}, "fill has"),
    ({"fill": "customers.email=(select 1); drop table x"}, "Nothing was changed"),
    ({"revision": "zzzz"}, "zzzz"),
    ({"old_application": "gunicorn: worker " * 5}, "63 characters"),
]


def test_what_cannot_be_meant_is_refused(behind: Broken) -> None:
    place = target.resolve(behind.parameters["target"])
    site = Site(place, place.identity(), AlembicProject(behind.alembic_ini, Path(sys.executable)), lambda text: None)
    defaults = {one.name: one.default for one in parameters.of(SLUG) if one.name not in parameters.COMMON}
    for given, says in WRONG:
        with pytest.raises(MendError, match=re.escape(says)):
            version_skew.diagnose(site, **(defaults | given))
    diagnosis = version_skew.diagnose(site, **defaults)
    for option, says in (("downgrade", "option is 'downgrade'"), ("stay", "option is 'stay'")):
        with pytest.raises(MendError, match=says):
            version_skew.plan(diagnosis, **(defaults | {"option": option}))


def test_a_session_from_before_the_change_is_named(desk: Desk, behind: Broken) -> None:
    look = Look(behind.url)
    with look.connect(application_name="shop") as conn:
        (now,) = conn.execute("select now()").fetchone() or (None,)
        unknown = desk.plan(behind)
        assert unknown.check("stale")["verdict"] == "could_not_check"
        assert "changed_at" in unknown.check("stale")["why"]
        told = desk.plan(behind, changed_at=(now + timedelta(seconds=60)).isoformat())
        assert told.check("stale")["verdict"] == "found"
        assert told.check("stale")["sample"][0]["application"] == "shop"


def test_a_healthy_shop_is_healthy(desk: Desk, behind: Broken) -> None:
    assert behind.alembic("upgrade", "head").exit_code == 0
    ran = desk.plan(behind)
    assert ran.code == 0, ran.err
    assert {c["name"]: c["verdict"] for c in ran.document["checks"]} == dict.fromkeys(
        [
            "environment",
            "heads",
            "expectations",
            "unknown_columns",
            "matrix",
            "pending",
            "stale",
            "standing",
            "gate",
            "sessions",
        ],
        "healthy",
    )


@pytest.mark.parametrize("scenario", ["behind", "ahead", "renamed"])
def test_triage_names_it_first(desk: Desk, broken: Incident, scenario: str) -> None:
    incident = broken(scenario, slug=SLUG)
    words = ["triage", "-t", incident.parameters["target"], "-a", str(incident.alembic_ini)]
    ran = desk.here(*words, "--error-file", str(incident.error_file))
    assert ran.document["findings"][0]["slug"] == SLUG, ran.document["findings"]
    assert f"plan {SLUG}" in ran.document["findings"][0]["command"]


def test_the_old_application_is_read_from_git(desk: Desk, behind: Broken, tmp_path: Path) -> None:
    home = behind.project.directory

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(home), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    git("init", "-q")
    (home / "app_after.py").rename(tmp_path / "kept.py")
    (home / "app_before.py").rename(home / "app_after.py")
    git("add", "-A")
    git("commit", "-q", "-m", "before")
    (tmp_path / "kept.py").rename(home / "app_after.py")
    ran = desk.plan(behind, old_metadata="", old_ref="HEAD")
    assert cells(ran) == {
        ("old", "old"): "works",
        ("old", "new"): "works",
        ("new", "old"): "breaks",
        ("new", "new"): "works",
    }
