"""The verdicts of migration_conflict: the four incidents there and back, and every kind of broken history (facts 2.4) by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import projects
import pytest
from fix_runs import Desk, Look, Ran
from fix_shop import Broken
from mend import files
from mend.lab import shop as shop_room
from mend.symptoms import triage
from projects import revision

SLUG = "migration_conflict"
Incident = Callable[..., Broken]
CONSENT, LOCALE, PREVIEW = "6b1d84f0a2c7", "93e5c7d2f810", "7f20d6a94e13"


# --- triage and round trips of the lab's incidents ------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["two_heads", "deleted_file", "unknown_row", "overlapping_rows"])
def test_triage_names_it_first_by_text_by_database_and_by_both(desk: Desk, broken: Incident, scenario: str) -> None:
    incident = broken(scenario, slug=SLUG)
    text = ("--error-file", str(incident.error_file))
    where = ("-t", incident.parameters["target"], "-a", str(incident.alembic_ini))
    for words in (text, where, (*where, *text)):
        findings = desk.here("triage", *words).document["findings"]
        assert [one["slug"] for one in findings] == [SLUG], words
        assert f"plan {SLUG}" in findings[0]["command"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FAILED: Multiple head revisions are present for given argument 'head'; please specify", {}),
        (
            "  File \"/v/alembic/script/revision.py\", line 245, in _revision_map\n    down = map_[rev]\nKeyError: 'abc'",
            {"revision": "abc"},
        ),
        ("FAILED: Can't locate revision identified by 'abc123'", {"revision": "abc123"}),
        ("FAILED: Requested revision c1 overlaps with other requested revisions a1", {"revision": "c1"}),
        ("alembic.script.revision.CycleDetected: Cycle is detected in revisions (a1, b1, c1)", {}),
        ("alembic.script.revision.LoopDetected: Self-loop is detected in revisions (b1)", {}),
        ("UserWarning: Revision b1 is present more than once", {"revision": "b1"}),
    ],
)
def test_a_text_alone_names_it(text: str, found: dict[str, str]) -> None:
    assert [(one.slug, one.parameters) for one in triage.triage(text)] == [(SLUG, found)]


def test_two_heads_are_merged_and_the_merge_is_taken_back(desk: Desk, broken: Incident) -> None:
    incident = broken("two_heads", slug=SLUG)
    look = Look(incident.url)
    catalog, files = look.catalog(), versions_of(incident)
    planned = desk.plan(incident)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "merge"
    assert "customers" in planned.check("shared")["says"]
    assert [planned.check(name)["verdict"] for name in ("graph", "heads", "order", "proof")] == [
        "healthy",
        "found",
        "healthy",
        "healthy",
    ]
    assert (look.catalog(), versions_of(incident)) == (catalog, files)
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    (made,) = versions_of(incident).keys() - files.keys()
    assert f"'{CONSENT}', '{LOCALE}'" in versions_of(incident)[made]
    assert incident.alembic("upgrade", "head").exit_code == 0
    assert look.version() == [made.split("_")[0]]
    refused = desk.here("undo", applied.run_id)
    assert refused.code != 0, "a merge that the database has had must not lose its file"
    assert made in versions_of(incident)
    assert incident.alembic("downgrade", CONSENT).exit_code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert (versions_of(incident), look.version()) == (files, [CONSENT, LOCALE])


def test_the_branch_that_nobody_has_can_be_put_after_the_other(desk: Desk, broken: Incident) -> None:
    incident = broken("two_heads", slug=SLUG)
    files = versions_of(incident)
    planned = desk.plan(incident, option="reparent")
    assert planned.code == 2, planned.err
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    (changed,) = [name for name, text in versions_of(incident).items() if files.get(name) != text]
    assert changed == f"{LOCALE}_customer_locale.py"
    assert f'down_revision = "{CONSENT}"' in versions_of(incident)[changed]
    assert f"Revises: {CONSENT}\n" in versions_of(incident)[changed]
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert versions_of(incident) == files


def test_a_deleted_file_comes_back_from_git(desk: Desk, broken: Incident) -> None:
    incident = broken("deleted_file", slug=SLUG)
    files = versions_of(incident)
    planned = desk.plan(incident)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "restore"
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert versions_of(incident).keys() - files.keys() == {f"{CONSENT}_marketing_consent.py"}
    assert incident.alembic("upgrade", "head").exit_code == 0
    assert desk.plan(incident).code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert versions_of(incident) == files


def test_an_unknown_row_is_set_to_the_revision_whose_catalog_is_there(desk: Desk, broken: Incident) -> None:
    incident = broken("unknown_row", slug=SLUG)
    look = Look(incident.url)
    planned = desk.plan(incident)
    assert planned.code == 2, planned.err
    assert planned.document["plan"]["chosen"] == "set_row"
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.version() == [shop_room.HEAD]
    assert incident.alembic("upgrade", "head").exit_code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.version() == [PREVIEW]


def test_a_plan_for_a_row_goes_stale_when_the_catalog_moves(desk: Desk, broken: Incident) -> None:
    incident = broken("unknown_row", slug=SLUG)
    planned = desk.plan(incident)
    Look(incident.url).execute("alter table orders add column by_hand integer")
    stale = desk.apply(planned)
    assert stale.code == 3, stale.err
    assert "orders.by_hand" in stale.err
    assert Look(incident.url).version() == [PREVIEW]
    again = desk.plan(incident, option="set_row")
    assert again.code == 3
    assert "by_hand" in again.err


def test_of_overlapping_rows_the_ancestor_goes(desk: Desk, broken: Incident) -> None:
    incident = broken("overlapping_rows", slug=SLUG)
    look = Look(incident.url)
    before = look.version()
    planned = desk.plan(incident)
    assert planned.document["plan"]["chosen"] == "delete_row", planned.err
    applied = desk.apply(planned)
    assert applied.code == 0, applied.err
    assert look.version() == [shop_room.HEAD]
    assert incident.alembic("upgrade", "head").exit_code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert set(look.version()) == {*before, CONSENT} - {shop_room.HEAD}


def test_a_descendant_that_was_never_applied_keeps_its_ancestor(desk: Desk, broken: Incident) -> None:
    """The row of the later revision is the false one: deleting the earlier would leave nothing true."""
    incident = broken("overlapping_rows", slug=SLUG)
    Look(incident.url).execute("alter table orders drop constraint fk_orders_coupon_code")
    ran = desk.plan(incident, option="delete_row")
    assert ran.code == 3
    assert "fk_orders_coupon_code" in ran.err


def test_a_healthy_history_has_nothing_to_mend(desk: Desk, healthy: Broken) -> None:
    values = healthy.parameters
    ran = desk.here("plan", SLUG, "-p", "target", values["target"], "-p", "alembic_ini", values["alembic_ini"])
    assert ran.code == 0, ran.err
    assert {check["verdict"] for check in ran.document["checks"]} == {"healthy"}


def versions_of(incident: Broken) -> dict[str, str]:
    folder = incident.alembic_ini.parent / "migrations" / "versions"
    return {path.name: path.read_text() for path in folder.glob("*.py")}


def made_again(incident: Broken, files: Mapping[str, str]) -> set[str]:
    return set(versions_of(incident)) - set(files)


# --- histories by hand ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A small project and its database."""

    desk: Desk
    folder: Path
    url: str

    @property
    def versions(self) -> Path:
        return self.folder / "migrations" / "versions"

    @property
    def look(self) -> Look:
        return Look(self.url)

    def plan(self, **given: str) -> Ran:
        values = {"target": "env:SHOP_URL", "alembic_ini": str(self.folder / "alembic.ini"), **given}
        return self.desk.here("plan", SLUG, *(word for pair in values.items() for word in ("-p", *pair)))

    def carry_out(self, planned: Ran) -> None:
        """What the plan's steps do, without a run: the guards around them have tests of their own."""
        plan = planned.record.plan()
        assert plan, planned.err
        assert plan.steps, planned.err
        for step in plan.steps:
            if step.kind == "file":
                files.replace(step.arguments)
            else:
                self.look.execute(*(one.sql for one in step.statements))

    def alembic(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "alembic", "-c", str(self.folder / "alembic.ini"), *words]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60)

    def at(self, *rows: str, sql: str = "", table: str = "alembic_version") -> None:
        """The database as if these rows and this schema had come about."""
        key = f"create table if not exists {table} (version_num varchar(32) not null primary key)"
        self.look.execute(*filter(None, [sql, key, *(f"insert into {table} values ('{row}')" for row in rows)]))

    def git(self, *words: str) -> None:
        settings = ("-c", "user.name=Test", "-c", "user.email=test@invalid", "-c", "commit.gpgsign=false")
        environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", *settings, *words], cwd=self.folder, check=True, capture_output=True, env=environ)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "-qm", message)


@pytest.fixture
def case(
    desk: Desk, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, str]], Case]:
    """``case({"a": text, ...})`` makes a project of these files."""

    def make(revisions: Mapping[str, str], **options: str) -> Case:
        folder = tmp_path / "by hand"
        monkeypatch.setenv("SHOP_URL", database)
        projects.project(folder, revisions, url=database, **options)
        mako = shop_room.HERE / "migrations" / "script.py.mako"
        (folder / "migrations" / "script.py.mako").write_text(mako.read_text())
        return Case(desk, folder, database)

    return make


Make = Callable[..., Case]
USERS = "create table users (id integer primary key, name varchar(20))"
BASE = revision("a1", None, 'op.execute("' + USERS + '")')


def adds(name: str, down: str | tuple[str, ...] | None, column: str, kind: str = "Integer") -> str:
    return revision(name, down, f'op.add_column("users", sa.Column("{column}", sa.{kind}))')


def test_both_branches_add_the_same_column(case: Make) -> None:
    """open-webui#24253: no merge can help, for the second always fails; the plan says which and why."""
    made = case({"a": BASE, "b": adds("b1", "a1", "email"), "c": adds("c1", "a1", "email")})
    made.at("b1", sql=USERS + "; alter table users add email integer")
    ran = made.plan()
    assert ran.document["plan"]["chosen"] == "none", ran.err
    assert (
        "column public.users.email" in str(ran.check("shared")["sample"])
        or "users.email" in ran.check("shared")["says"]
    )
    assert ran.check("order")["verdict"] == "found"
    assert "42701" in ran.options["merge"]
    assert "b1" in ran.options["merge"] or "c1" in ran.options["merge"]


def test_branches_whose_order_matters_are_merged_only_by_name(case: Make) -> None:
    changes = 'op.execute("alter table users alter name type varchar({})")'
    made = case(
        {"a": BASE, "b": revision("b1", "a1", changes.format(30)), "c": revision("c1", "a1", changes.format(40))}
    )
    made.at("a1", sql=USERS)
    ran = made.plan()
    assert ran.document["plan"]["chosen"] == "none", ran.err
    assert ran.check("order")["sample"][0]["identity"] == "public.users.name"
    assert ran.options["merge"] == "", "whoever names it may still have it"


def test_a_branch_that_a_named_database_has_is_not_moved(
    case: Make, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """galaxy#15771, ontos#282, stash#354, avibe#1556: what is put before an applied revision never runs there."""
    made = case({"a": BASE, "b": adds("b1", "a1", "email"), "c": adds("c1", "a1", "phone")})
    made.at("b1", sql=USERS + "; alter table users add email integer")
    other = new_database()
    monkeypatch.setenv("STAGING_URL", other)
    Case(made.desk, made.folder, other).at("c1")
    held = made.plan(option="reparent", also="env:STAGING_URL")
    assert held.code == 3
    assert "env:STAGING_URL" in held.err
    monkeypatch.setenv("GONE_URL", other.replace("test_", "gone_"))
    assert "cannot tell" in made.plan(also="env:GONE_URL").options["reparent"]
    assert "this database" in made.plan(revision="b1").options["reparent"]


def test_three_heads_are_merged_at_once(case: Make) -> None:
    made = case({"a": BASE, **{n: adds(f"{n}1", "a1", n) for n in "bcd"}})
    made.at("a1", sql=USERS)
    planned = made.plan()
    made.carry_out(planned)
    assert made.alembic("upgrade", "head").returncode == 0
    assert len(made.look.version()) == 1


def test_a_message_that_breaks_the_file_is_refused(case: Make) -> None:
    made = case({"a": BASE, "b": adds("b1", "a1", "email"), "c": adds("c1", "a1", "phone")})
    made.at("b1", sql=USERS + "; alter table users add email integer")
    assert "syntax error" in made.plan(message='say """ who').options["merge"]


def test_a_merge_is_not_proposed_for_heads_that_are_meant(case: Make) -> None:
    label = "branch_labels = ('reports',)"
    made = case(
        {"a": BASE, "b": adds("b1", "a1", "email"), "c": revision("c1", "a1", head=label), "d": revision("d1", None)}
    )
    made.at("b1", sql=USERS + "; alter table users add email integer")
    ran = made.plan()
    assert ran.check("heads")["verdict"] == "healthy", ran.check("heads")
    assert ran.document["plan"]["steps"] == []


def test_a_database_of_a_newer_release_is_left_as_it_is(case: Make) -> None:
    """conda-store#590: the image was set back; the row and what it made are right, the files are old."""
    made = case({"a": BASE})
    made.at("b1", sql=USERS + "; alter table users add email integer")
    ran = made.plan()
    assert ran.document["plan"]["chosen"] == "none"
    assert "users.email" in ran.options["set_row"]
    assert "newer release" in ran.document["plan"]["next"]
    assert ran.check("version_rows")["verdict"] == "found"


def test_a_phantom_row_of_a_preview_is_set_back_only_when_its_changes_are_gone(case: Make) -> None:
    """agentrove#918: a pull request's preview shared the database."""
    made = case({"a": BASE, "b": adds("b1", "a1", "email")})
    made.at("feed0", sql=USERS + "; alter table users add email integer; alter table users add preview integer")
    assert "users.preview" in made.plan().options["set_row"]
    made.look.execute("alter table users drop column preview")
    planned = made.plan()
    assert planned.document["plan"]["chosen"] == "set_row", planned.err
    made.carry_out(planned)
    assert made.look.version() == ["b1"]
    assert made.alembic("current").returncode == 0


def test_where_several_revisions_have_the_same_catalog_the_operator_says_which(case: Make) -> None:
    made = case({"a": BASE, "b": revision("b1", "a1", 'op.execute("update users set name = null")')})
    made.at("feed0", sql=USERS)
    ran = made.plan()
    assert ran.document["plan"]["chosen"] == "none"
    assert "onto" in ran.options["set_row"]
    named = made.plan(onto="b1")
    assert named.document["plan"]["chosen"] == "set_row", named.err
    assert "'b1'" in str(named.document["plan"]["steps"][0]["sql"])


def test_a_lost_revision_gets_a_stub_after_the_named_parent(case: Make) -> None:
    made = case({"a": BASE, "c": adds("c1", "b1", "phone")})
    made.at("c1", sql=USERS + "; alter table users add phone integer")
    planned = made.plan(option="stub")
    assert planned.code == 2, planned.err
    assert planned.check("git")["verdict"] == "could_not_check"
    made.carry_out(planned)
    (stub,) = made.versions.glob("b1_*.py")
    assert "down_revision: Union[str, Sequence[str], None] = 'a1'" in stub.read_text()
    assert made.alembic("upgrade", "head").returncode == 0


def test_a_stub_for_an_unknown_row_needs_the_database_to_have_its_parent(case: Make) -> None:
    made = case({"a": BASE, "b": adds("b1", "a1", "email")})
    made.at("lost1", sql=USERS + "; alter table users add other integer")
    assert "users.email" in made.plan().options["stub"]
    planned = made.plan(option="stub", onto="a1")
    assert planned.code == 2, planned.err
    made.carry_out(planned)
    assert "lost1 (head)" in made.alembic("current").stdout


def test_a_squashed_history_is_not_brought_back_the_row_is_set(case: Make) -> None:
    """simpler-grants#643, langflow#2905: many revisions became one; a database still names an old one."""
    made = case({"a": BASE, "b": adds("b1", "a1", "email")})
    made.at("b1", sql=USERS + "; alter table users add email integer")
    made.git("init", "-q")
    made.commit("all revisions")
    for name in ("a", "b"):
        (made.versions / f"{name}.py").unlink()
    squashed = revision(
        "s1",
        None,
        'op.execute("' + USERS.replace(")", "", 0) + '")\nop.add_column("users", sa.Column("email", sa.Integer))',
    )
    (made.versions / "s.py").write_text(squashed)
    made.commit("squash")
    ran = made.plan()
    assert "begun anew" in ran.options["restore"]
    assert ran.document["plan"]["chosen"] == "set_row", ran.err
    made.carry_out(ran)
    assert made.look.version() == ["s1"]


def test_several_deleted_files_come_back_together(case: Make) -> None:
    made = case(
        {"a": BASE, "b": adds("b1", "a1", "email"), "c": adds("c1", "b1", "phone"), "d": adds("d1", "c1", "street")}
    )
    made.git("init", "-q")
    made.commit("all revisions")
    for name in ("b", "c"):
        (made.versions / f"{name}.py").unlink()
    made.at("d1", sql=USERS)
    planned = made.plan()
    assert planned.document["plan"]["chosen"] == "restore", planned.err
    assert [step["says"].split()[5] for step in planned.document["plan"]["steps"]] == ["c1", "b1"]
    made.carry_out(planned)
    assert made.alembic("heads").stdout.startswith("d1 (head)")


def test_a_file_of_another_branch_is_found_for_an_unknown_row(case: Make) -> None:
    made = case({"a": BASE})
    made.git("init", "-q")
    made.commit("trunk")
    made.git("checkout", "-qb", "feature")
    (made.versions / "b.py").write_text(adds("feature1", "a1", "email"))
    made.commit("a branch")
    made.git("checkout", "-q", "-")
    made.at("feature1", sql=USERS + "; alter table users add email integer")
    planned = made.plan()
    assert planned.document["plan"]["chosen"] == "restore", planned.err
    made.carry_out(planned)
    assert "feature1 (head)" in made.alembic("current").stdout


def test_an_id_that_was_another_migration_before_is_said(case: Make) -> None:
    """hindsight#1117: the row resolves, to something that never ran here."""
    made = case({"a": BASE, "b": adds("b1", "a1", "email")})
    made.git("init", "-q")
    made.commit("first")
    (made.versions / "b.py").unlink()
    (made.versions / "other.py").write_text(adds("b1", "a1", "phone"))
    made.commit("second")
    made.at("b1", sql=USERS + "; alter table users add email integer")
    ran = made.plan()
    assert ran.check("git")["verdict"] == "found"
    assert "b1" in ran.check("git")["says"]
    assert "environment_mismatch" in ran.document["plan"]["next"]


def test_a_file_that_was_only_moved_and_tidied_is_the_same_migration(case: Make) -> None:
    made = case({"a": BASE, "b": adds("b1", "a1", "email")})
    made.git("init", "-q")
    made.commit("first")
    made.git("mv", "migrations/versions/b.py", "migrations/versions/2026_b.py")
    made.commit("names with dates")
    moved = made.versions / "2026_b.py"
    moved.write_text(adds("b1", "a1", "email").replace("sa.Integer", "sa.Integer()"))
    made.commit("tidied")
    made.at("b1", sql=USERS + "; alter table users add email integer")
    ran = made.plan()
    assert ran.code == 0, ran.check("git")


def test_a_file_that_would_not_come_back_byte_by_byte_is_left_to_the_operator(case: Make) -> None:
    made = case({"a": BASE, "c": adds("c1", "b1", "phone")})
    text = "# -*- coding: latin-1 -*-\n# caf\u00e9\n" + adds("b1", "a1", "email")
    (made.versions / "b.py").write_bytes(text.encode("latin-1"))
    made.git("init", "-q")
    made.commit("first")
    (made.versions / "b.py").unlink()
    made.at("c1", sql=USERS + "; alter table users add email integer, add phone integer")
    assert "not UTF-8" in made.plan().options["restore"]


def test_one_of_two_lost_files_comes_back_where_git_has_no_more(case: Make) -> None:
    """What is still missing then was missing before: the repair did what it said."""
    made = case(
        {"a": BASE, "c": adds("c1", "b1", "phone"), "d": adds("d1", "c1", "x").replace("'c1'", "('c1', 'never1')")}
    )
    (made.versions / "b.py").write_text(adds("b1", "a1", "email"))
    made.git("init", "-q")
    made.commit("first")
    (made.versions / "b.py").unlink()
    made.at("c1", sql=USERS + "; alter table users add email integer, add phone integer")
    planned = made.plan()
    assert planned.document["plan"]["chosen"] == "restore", planned.err
    applied = made.desk.apply(planned)
    assert applied.code == 0, applied.err
    assert (made.versions / "b.py").exists()


def test_two_files_with_one_id_the_one_that_nobody_has_gets_another(case: Make) -> None:
    dates = {name: f"Create Date: 2026-01-0{n} 10:00:00" for n, name in enumerate("bc", 1)}
    made = case(
        {
            "a": BASE,
            **{n: adds("b1", "a1", n).replace('"""b1"""', f'"""{n}\n\nRevision ID: b1\n{dates[n]}\n"""') for n in "bc"},
        }
    )
    made.at("a1", sql=USERS)
    planned = made.plan(option="rename")
    assert planned.code == 2, planned.err
    assert planned.check("graph")["verdict"] == "found"
    made.carry_out(planned)
    assert "Revision ID: b1\n" in (made.versions / "b.py").read_text()
    assert "revision = 'b1'" not in (made.versions / "c.py").read_text()
    assert made.plan().document["plan"]["chosen"] == "merge"


def test_which_of_two_files_with_one_id_ran_here_is_for_the_operator_to_say(case: Make) -> None:
    made = case({"a": BASE, "b": adds("b1", "a1", "email"), "c": adds("b1", "a1", "phone")})
    made.at("b1", sql=USERS + "; alter table users add email integer")
    assert all(name in made.plan().options["rename"] for name in ("b.py", "c.py"))
    planned = made.plan(option="rename", file="c.py")
    made.carry_out(planned)
    assert made.alembic("heads").returncode == 0


def test_an_id_too_long_for_the_version_table_is_shortened_with_what_comes_after_it(case: Make) -> None:
    long = "b" * 33
    leans = revision("d1", None, head=f"depends_on = ({long!r},)")
    made = case({"a": BASE, "b": adds(long, "a1", "email"), "c": adds("c1", long, "phone"), "d": leans})
    made.at("a1", sql=USERS)
    planned = made.plan(option="rename")
    assert "32 characters" in planned.check("graph")["says"]
    assert planned.check("version_tables")["verdict"] == "found"
    assert len(planned.document["plan"]["steps"]) == 3
    made.carry_out(planned)
    assert made.alembic("upgrade", "heads").returncode == 0
    assert made.look.version() == ["c1", "d1"]


def test_a_long_id_is_no_finding_where_the_version_table_is_wide(case: Make) -> None:
    long = "b" * 33
    made = case({"a": BASE, "b": adds(long, "a1", "email")})
    made.look.execute(
        USERS,
        "create table alembic_version (version_num varchar(255) primary key)",
        "insert into alembic_version values ('a1')",
    )
    assert made.plan().check("graph")["verdict"] == "healthy"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": revision("a1", "c1"), "b": revision("b1", "a1"), "c": revision("c1", "b1")}, "a circle: a1, b1, c1"),
        ({"a": BASE, "b": revision("b1", "b1")}, "a circle: b1"),
        ({"a": BASE, "b": revision("b1", "a1", head="depends_on = 'gone1'")}, "b1 needs gone1"),
        ({"a": BASE, "b": "<<<<<<< HEAD\n" + revision("b1", "a1") + ">>>>>>> theirs\n"}, "merge conflict marker in line 1"),
        ({"a": BASE, "b": revision("b1", "a1").replace("def upgrade", "def upgrade(:")}, "syntax error"),
    ],
    ids=["cycle", "self-loop", "missing depends_on", "conflict marker", "syntax error"],
)  # fmt: skip
def test_what_alembic_cannot_load_is_told_all_the_same(case: Make, files: dict[str, str], says: str) -> None:
    made = case(files)
    made.at("a1", sql=USERS)
    ran = made.plan()
    assert ran.code in (1, 2), ran.err
    assert says in ran.check("graph")["says"]
    assert ran.document["plan"]["steps"] == []


def test_a_circle_is_opened_where_the_operator_says(case: Make) -> None:
    made = case({"a": revision("a1", "c1"), "b": revision("b1", "a1"), "c": revision("c1", "b1")})
    planned = made.plan(option="reparent", revision="a1", onto="base")
    assert planned.code == 2, planned.err
    made.carry_out(planned)
    assert "down_revision = None" in (made.versions / "a.py").read_text()
    assert made.alembic("heads").stdout.startswith("c1 (head)")


def test_rows_of_every_schema_are_told_apart(case: Make) -> None:
    """alembic#710, #1495, #569: one version table for each schema, of this project and of another."""
    made = case({"a": BASE, "b": adds("b1", "a1", "email")}, options=', version_table_schema="app"')
    made.look.execute("create schema app", "create schema tenant", "create schema other")
    made.at("a1", sql=USERS, table="app.alembic_version")
    made.at("a1", "b1", table="tenant.alembic_version")
    made.at("foreign1", table="other.alembic_version")
    rows = {
        (row["schema"], row["version_num"]): (row["table_is"], row["position"])
        for row in made.plan().check("version_rows")["sample"]
    }
    assert rows["app", "a1"] == ("the configured table", "behind by 1")
    assert rows["tenant", "a1"] == ("another table of this project", "an ancestor of another row")
    assert rows["tenant", "b1"][1] == "head"
    assert rows["other", "foreign1"] == ("of another project", "")


def test_a_row_that_stands_twice_goes_once(case: Make) -> None:
    made = case({"a": BASE, "b": adds("b1", "a1", "email")})
    made.look.execute(
        USERS,
        "create table alembic_version (version_num varchar(32) not null)",
        *["insert into alembic_version values ('a1')"] * 3,
    )
    assert "3 found" in made.alembic("upgrade", "head").stdout
    ran = made.plan()
    assert ran.check("version_tables")["verdict"] == "found"
    assert ran.document["plan"]["chosen"] == "delete_row", ran.err
    made.carry_out(ran)
    made.carry_out(made.plan())
    assert made.look.version() == ["a1"]
    assert made.alembic("upgrade", "head").returncode == 0


def test_branches_of_a_history_that_cannot_start_from_nothing_are_walked_on_a_copy(case: Make) -> None:
    made = case(
        {
            "a": revision("a1", None, 'op.add_column("users", sa.Column("phone", sa.Integer))'),
            "b": adds("b1", "a1", "email"),
            "c": adds("c1", "a1", "street"),
        }
    )
    made.at("a1", sql=USERS + "; alter table users add phone integer")
    ran = made.plan()
    assert ran.check("proof")["verdict"] == "healthy", ran.check("proof")
    assert "copies of the live schema" in ran.check("proof")["says"]
    assert ran.document["plan"]["chosen"] == "merge"
    made.look.execute("update alembic_version set version_num = 'b1'", "alter table users add email integer")
    elsewhere = made.plan()
    assert elsewhere.check("proof")["verdict"] == "could_not_check"
    assert elsewhere.document["plan"]["chosen"] == "none"


def test_a_database_that_env_py_does_not_lead_to_gets_no_plan(
    case: Make, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case({"a": BASE, "b": adds("b1", "a1", "email"), "c": adds("c1", "a1", "phone")})
    made.at("a1", sql=USERS)
    other = new_database()
    monkeypatch.setenv("OTHER_URL", other)
    ran = made.plan(target="env:OTHER_URL")
    assert ran.code == 3, ran.err
    assert "env.py leads to" in ran.err


def test_a_file_that_a_colleague_edits_meanwhile_is_left_alone(case: Make) -> None:
    made = case({"a": BASE, "b": adds("b1", "a1", "email"), "c": adds("c1", "a1", "phone")})
    made.at("b1", sql=USERS + "; alter table users add email integer")
    planned = made.plan(option="reparent")
    text = (made.versions / "c.py").read_text() + "# mine\n"
    (made.versions / "c.py").write_text(text)
    stale = made.desk.apply(planned)
    assert stale.code == 3
    assert (made.versions / "c.py").read_text() == text


def test_an_option_that_is_not_called_for_is_refused(case: Make) -> None:
    made = case({"a": BASE})
    made.at("a1", sql=USERS)
    ran = made.plan()
    assert ran.code == 0, ran.err
    assert all(ran.options.values()), "each says why it is not possible"
    assert set(ran.options) == {"restore", "delete_row", "set_row", "rename", "merge", "reparent", "stub"}
    for option, says in (("merge", "not possible"), ("nonsense", "option is 'nonsense'")):
        refused = made.plan(option=option)
        assert refused.code in (1, 3)
        assert says in refused.err
        assert "Nothing was changed" in refused.err
