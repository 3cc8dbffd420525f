"""The verdicts of version_skew: four incidents mended and taken back, with both applications really run, and every way to ask wrongly."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import projects
import pytest
from fix_runs import Desk, Look, Ran
from fix_shop import Broken
from mend.database import parameters, target
from mend.diagnosis import Site
from mend.errors import MendError
from mend.histories.project import Project as AlembicProject
from mend.lab.shop import Project
from mend.modes import version_skew
from mend.skew import application

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
                stop("full_name")  # none of the old application is left
                look.execute("update customers set language = 'en' where language is null")
            planned = desk.plan(phases)
            assert (planned.document["plan"]["chosen"], planned.code) == ("phased", 2), planned.err
            bound = planned.record.plan().evidence["phase"]  # type: ignore[union-attr]
            assert (bound["phase"], bound["after_run"]) == (phase, runs[-1] if runs else "")
            if phase == "backfill":
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


def test_a_phase_waits_for_the_one_before_and_for_its_gate(desk: Desk, phases: Broken) -> None:
    look = Look(phases.url)
    early = desk.plan(phases, option="phased", phase="backfill")
    assert early.code == 3
    assert "expand comes first" in early.err
    assert desk.apply(desk.plan(phases)).code == 0
    planned = desk.plan(phases)
    (trigger,) = look.query("select tgname from pg_trigger where tgname like 'zzz_mend_twin%'")
    look.execute(f"alter table customers disable trigger {trigger[0]}")
    refused = desk.apply(planned)
    assert refused.code == 3, refused.err
    assert "shut" in refused.err
    look.execute(f"alter table customers enable trigger {trigger[0]}")
    assert desk.apply(desk.plan(phases)).code == 0
    with look.connect(application_name="app_before"):
        waits = desk.plan(phases, option="phased", old_application="app_before")
        assert waits.code == 3
        assert "app_before" in waits.err
    look.execute("insert into customers (email, full_name) values ('late@example.org', 'Late')")
    shut = desk.plan(phases, option="phased")
    assert shut.code == 3
    assert "without language" in shut.err
    assert desk.apply(desk.plan(phases, option="phased", phase="backfill")).code == 0
    assert look.query("select language from customers where email = 'late@example.org'") == [("en",)]


HOSTILE = """
op.execute('create schema "app""x"')
op.execute('create table "app""x"."We; Ird%s" (id serial primary key, "Spä""lte" json, gone text not null, size int, code text)')
"""
BREAKING = """
op.execute('alter table "app""x"."We; Ird%s" rename "Spä""lte" to "50%"')
op.execute('alter table "app""x"."We; Ird%s" drop column gone')
op.execute('alter table "app""x"."We; Ird%s" add column kind text not null')
op.execute('alter table "app""x"."We; Ird%s" alter column size set not null')
op.execute('alter table "app""x"."We; Ird%s" add constraint "ck %s" check (size > 0)')
op.execute('alter table "app""x"."We; Ird%s" add constraint uq unique (code)')
op.execute('create index on "app""x"."We; Ird%s" (size)')
op.execute('create index on "app""x"."We; Ird%s" (("50%"::text))')
"""
_TABLE = '"app""x"."We; Ird%s"'
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
}
SAYS = {
    "raises": "no configuration",
    "exits": "exits with 7",
    "vanishes": "code 9",
    "prints": "neither a MetaData",
    "lacks": "Base",
    "hangs": "within 3 s",
}


def test_a_module_that_misbehaves_is_told_in_one_paragraph(
    shop: Project, cold_starts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "TIMEOUT_S", 3.0)
    project = AlembicProject(shop.alembic_ini, Path(sys.executable))
    for name, text in MODULES.items():
        (shop.directory / f"{name}.py").write_text(text + "\n")
        found = application.load("new", project, metadata=f"{name}:Base", statements="")
        assert SAYS[name] in found.why_not
        assert "\n" not in found.why_not
        assert found.tables == ()


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
