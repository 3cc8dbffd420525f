"""Attribution on two public histories: what was stamped, dropped, altered or deleted is found at the right revision, and nothing else."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fix_runs import Look
from mend.database import target
from mend.database.catalog import SNAPSHOT_SQL, Change
from mend.diagnosis import Site
from mend.histories import history
from mend.histories.history import Project
from mend.mismatch import drift, drift_checks, drifted
from mend.mismatch.drift import Difference, Drift
from mend.postgres.server import Server
from mend.replays import scratch
from mend.replays.expected import Expected, Place, Step
from mend.replays.recording import Statement
from sqlalchemy import make_url
from test_public_histories import hub, hub_at, keywords, optuna

__all__ = ["hub_at"]

# One plain upgrade in the project's own interpreter, with a snapshot after each revision: the truth about who set what.
STEPS = """
import json, sys
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

config = Config(sys.argv[1])
script = ScriptDirectory.from_config(config)
sql = sys.stdin.read()
found = []

def watched(step, context):
    upgrade = step.migration_fn
    def run(**kw):
        upgrade(**kw)
        cursor = context.connection.connection.cursor()
        cursor.execute(sql)
        found.append([step.revision.revision, [list(row) for row in cursor.fetchall()]])
        cursor.close()
    step.migration_fn = run
    return step

def work(heads, context):
    return [watched(step, context) for step in script._upgrade_revs("head", heads)]

with EnvironmentContext(config, script, fn=work, as_sql=False, destination_rev="head"):
    script.run_env()
print("TRUTH" + json.dumps(found))
"""


def truth(project: Project, before: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Upgrade to the head; which revision changed each facet last, by whole snapshots of a plain run."""
    done = subprocess.run(
        [project.python, "-c", STEPS, str(project.alembic_ini)], input=SNAPSHOT_SQL, capture_output=True, text=True, check=False,
        timeout=120, cwd=project.alembic_ini.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout[done.stdout.index("TRUTH") + 5 :])
    state, by = dict(before), {}
    for revision, rows in told:
        now = {(kind, identity): text for kind, identity, text in rows}
        by.update(dict.fromkeys((key for key in state.keys() | now.keys() if state.get(key) != now.get(key)), revision))
        state = now
    return by


class Desk:
    """One public project with a database at its head, and the truth about it."""

    def __init__(
        self, project: Callable[[Path, str], Project], url: str, base: Path | None, start: str, by: dict[Any, str]
    ) -> None:
        self.project, self.url, self.base, self.start, self.by = project, url, base, start, by


@pytest.fixture(scope="module")
def optuna_at_head(keep_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    url = keep_database("optuna_at_head")
    return Desk(optuna, url, None, "", truth(optuna(tmp_path_factory.mktemp("optuna"), url), {}))


@pytest.fixture(scope="module")
def hub_at_head(
    server: Server,
    hub_at: Callable[[str], str],
    keep_database: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Desk:
    """jupyterhub cannot start from nothing: from a dump of the schema at one revision."""
    start = "0eee8c825d24"
    folder = tmp_path_factory.mktemp("hub_head")
    url = keep_database("hub_drift", hub_at(start))
    pg_dump = scratch._clients(server.binaries.major)[0]
    dump = scratch._run([pg_dump, "--schema-only", "--no-owner", "--no-privileges"], keywords(url))
    (folder / "base.sql").write_text(re.sub(r"^\\(un)?restrict .*$", "", dump, flags=re.MULTILINE))
    return Desk(hub, url, folder / "base.sql", start, truth(hub(folder, url), Look(url).catalog()))


@pytest.fixture(params=["optuna", "hub"])
def desk(request: pytest.FixtureRequest) -> Desk:
    found: Desk = request.getfixturevalue(f"{request.param}_at_head")
    return found


@pytest.fixture
def look(
    server: Server, new_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[drifted.Facts, Look]]:
    """A clone of the project's database, changed, and what is found in it."""

    def looked(
        desk: Desk, *statements: str, files: Callable[[Project], None] = lambda project: None
    ) -> tuple[drifted.Facts, Look]:
        url = new_database(make_url(desk.url).database)
        at = Look(url)
        at.execute(*statements)
        project = desk.project(tmp_path, desk.url)  # the files alone count, so that one replay serves all
        files(project)
        monkeypatch.setenv("PUBLIC_URL", url.replace("+psycopg", ""))
        place = target.resolve("env:PUBLIC_URL")
        address = {"conninfo": server.url().replace("+psycopg", "", 1)}
        monkeypatch.setattr(scratch, "choose", lambda *_, **__: scratch.Scratch(server.binaries.major, address))
        site = Site(place, place.identity(), project, lambda text: None)
        facts = drifted.look(site, project, other="", base=str(desk.base or ""), base_revision=desk.start, roles=True)
        return facts, at

    return looked


Looked = Callable[..., tuple[drifted.Facts, Look]]


def test_an_untouched_database_differs_in_nothing(desk: Desk, look: Looked) -> None:
    facts, _ = look(desk)
    assert facts.drift.differences == ()
    for ask in drift_checks.QUESTIONS:
        assert ask(facts).verdict == "healthy", ask(facts)


def test_dropped_indexes_and_altered_types_are_of_the_revision_that_set_them(desk: Desk, look: Looked) -> None:
    pick = random.Random(20261122)
    catalog = Look(desk.url).catalog()
    indexes = [identity for kind, identity in sorted(catalog) if kind == "index"]
    columns = [
        i
        for k, i in sorted(catalog)
        if k == "column" and catalog[k, i].startswith("character varying") and "alembic_version" not in i
    ]
    gone, altered = pick.sample(indexes, min(4, len(indexes))), pick.sample(columns, 4)
    facts, _ = look(
        desk, *(f"drop index {one}" for one in gone), "create index by_hand on " + altered[0].rpartition(".")[0] + " (" + altered[0].rpartition(".")[2] + ")",
        *(f"alter table {one.rpartition('.')[0]} alter column {one.rpartition('.')[2]} type varchar(777)" for one in altered),
    )  # fmt: skip
    found = {one.key: one for one in facts.drift.differences}
    assert set(found) == {("index", one) for one in gone} | {("column", one) for one in altered} | {
        ("index", "public.by_hand")
    }
    assert found.pop(("index", "public.by_hand")).attribution == drift.OUT_OF_BAND
    for key, one in found.items():
        if key in desk.by:
            assert one.revision == desk.by[key], one
            step = facts.expected.set_by[key]
            assert (one.index, step.place.revision) == (step.place.operation, one.revision)
            assert one.attribution == (
                drift.NEVER_RAN
                if key[0] == "index" and all(c.kind in ("index", "comment") for c in step.changes)
                else one.attribution
            )
        else:
            assert (one.revision, one.attribution) == ("", drift.BASE), one


def test_a_stamp_too_early_and_too_late_is_seen_and_named(desk: Desk, look: Looked) -> None:
    facts, at = look(desk)
    head = at.version()
    order = [one for one in facts.expected.ran if one in set(desk.by.values())]
    for wrong in {order[0], order[len(order) // 2]} if not desk.base else {order[0]}:
        facts, _ = look(desk, f"update alembic_version set version_num = '{wrong}'")
        later = set(facts.expected.ran[facts.expected.own :]) & set(desk.by.values())
        assert {one.attribution for one in facts.drift.differences} == {drift.PENDING}
        assert {one.revision for one in facts.drift.differences} <= later
        for one in facts.drift.differences:
            if one.live is not None:
                assert one.revision == desk.by[one.key] or one.revision in later
        assert facts.drift.best is not None
        assert facts.drift.best.differences == 0
        assert "fits" in drift_checks.revisions(facts).says
    assert head == list(facts.fitting_rows()) or not set(facts.expected.ran[facts.drift.best.revisions :]) & set(
        desk.by.values()
    )


def test_revisions_that_were_stamped_and_never_ran_are_named(desk: Desk, look: Looked, tmp_path: Path) -> None:
    """The last revisions that leave a trace are taken back by hand, and the version row stays."""
    facts, _ = look(desk)
    traced = [one for one in facts.expected.ran if one in set(desk.by.values())]
    before = drift.at(
        facts.expected, next(n for n, s in enumerate(facts.expected.steps) if s.place.revision == traced[-1])
    )
    from mend.change import ddl

    changes = [
        Change(*key, before.get(key), facts.live.get(key))
        for key in before.keys() | facts.live.keys()
        if before.get(key) != facts.live.get(key)
    ]
    facts, _ = look(desk, *ddl.inverse_of(changes))
    assert {(one.revision, one.attribution) for one in facts.drift.differences} == {(traced[-1], drift.NEVER_RAN)}
    assert traced[-1] in drift_checks.revisions(facts).says


def test_a_deleted_file_is_named(look: Looked, optuna_at_head: Desk, tmp_path: Path) -> None:
    """optuna's files lie in its package: a copy of them loses its newest."""
    import shutil

    source = history.read(optuna(tmp_path, optuna_at_head.url).alembic_ini)
    lost = source.heads[0]

    def without_head(project: Project) -> None:
        shutil.copytree(source.script_location, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        next((tmp_path / "scripts").rglob(source.revisions[lost].path.name)).unlink()
        text = project.alembic_ini.read_text()
        project.alembic_ini.write_text(
            re.sub(r"^script_location = .*", f"script_location = {tmp_path / 'scripts'}", text, flags=re.MULTILINE)
        )

    facts, _ = look(optuna_at_head, files=without_head)
    assert facts.unknown == (lost,)
    assert lost in drift_checks.version_rows(facts).says
    assert {one.attribution for one in facts.drift.differences} <= {drift.OUT_OF_BAND, drift.CHANGED}
    assert {one.key for one in facts.drift.differences} == {
        key for key, by in optuna_at_head.by.items() if by == lost and key[1] != "public.alembic_version"
    }


# --- pure ---------------------------------------------------------------------------------------------------------------


def made(*changes: tuple[str, Change], own: int = 99, base: dict[Any, str] | None = None) -> Expected:
    """A history with one operation for each change, of the revision that is named."""
    counts: dict[str, int] = {}
    steps, state = [], dict(base or {})
    for at, (revision, change) in enumerate(changes):
        counts[revision] = counts.get(revision, 0) + 1
        statement = Statement(
            revision, counts[revision], 1, "execute", str(at), "select", True, False, 1, (change,), False
        )
        steps.append(Step(Place(at, revision, counts[revision]), str(at), (statement,), at < own))
        if at < own:
            state.pop((change.kind, change.identity), None)
            if change.after is not None:
                state[change.kind, change.identity] = change.after
    ran = tuple(dict.fromkeys(revision for revision, _ in changes))
    return Expected(
        (),
        base or {},
        state,
        tuple(steps),
        ran,
        len({s.place.revision for s in steps if s.own}),
        (),
        "v",
        "me",
        (),
        "",
        "18.0",
    )


def compare(history: Expected, live: dict[Any, str]) -> Drift:
    return Drift(history, history.facets, live, len([s for s in history.steps if s.own]))


TABLE = ("a", Change("table", "public.t", None, "permanent"))
INDEX = ("b", Change("index", "public.ix", None, "CREATE INDEX ix ON public.t USING btree (a)"))
COLUMN = ("a", Change("column", "public.t.a", None, "integer"))
WIDER = ("c", Change("column", "public.t.a", "integer", "bigint"))


def test_what_an_earlier_revision_made_belongs_to_the_one_that_set_it_last() -> None:
    found = compare(
        made(TABLE, COLUMN, INDEX, WIDER), {("table", "public.t"): "permanent", ("column", "public.t.a"): "smallint"}
    ).differences
    assert [(one.key, one.revision, one.attribution) for one in found] == [
        (("column", "public.t.a"), "c", drift.CHANGED), (("index", "public.ix"), "b", drift.NEVER_RAN),
    ]  # fmt: skip


def test_a_state_that_a_later_revision_makes_is_pending_only_if_all_of_it_is_there() -> None:
    history = made(TABLE, COLUMN, WIDER, own=2)
    ahead = compare(history, {("table", "public.t"): "permanent", ("column", "public.t.a"): "bigint"})
    assert [(one.revision, one.attribution) for one in ahead.differences] == [("c", drift.PENDING)]
    assert (ahead.best.revisions, ahead.best.differences) == (2, 0) if ahead.best else False


def test_what_was_there_before_the_first_revision_is_of_the_base() -> None:
    history = made(TABLE, base={("table", "public.old"): "permanent"})
    assert [
        (one.name, one.attribution) for one in compare(history, {("table", "public.t"): "permanent"}).differences
    ] == [("table public.old", drift.BASE)]


def test_the_role_of_the_scratch_server_is_the_one_that_runs_the_migrations() -> None:
    here = {
        ("owner", "table public.t"): "deploy",
        ("owner", "table public.u"): "deploy",
        ("owner", "table public.v"): "root",
    }
    there = dict.fromkeys(here, "postgres") | {("grant", "table public.t to postgres"): "SELECT"}
    who = drift.migrator(there, here, scratch="postgres")
    mapped = drift.as_role(there, scratch="postgres", migrator=who)
    assert who == "deploy"
    assert mapped["grant", "table public.t to deploy"] == "SELECT"
    assert [
        one.key
        for one in Drift(made(), mapped, here | {("grant", "table public.t to deploy"): "SELECT"}, 0).differences
    ] == [("owner", "table public.v")]


def test_server_facts_are_not_differences_of_the_schema() -> None:
    live = {("setting", "database.work_mem"): "8MB", ("extension", "pg_trgm"): "schema public version '1.6'"}
    assert compare(made(), live).differences == ()


def test_groups_are_the_largest_first_and_hundreds_are_readable() -> None:
    many = [
        Difference("column", f"public.t{n % 7}.c{n}", None, "integer", "", 0, drift.OUT_OF_BAND) for n in range(300)
    ]
    few = [
        Difference("index", "public.ix", "CREATE INDEX ix ON public.t0 USING btree (a)", None, "b", 1, drift.NEVER_RAN)
    ]
    frame = drift_checks.grouped([*few, *many])
    assert list(frame["differences"]) == sorted(frame["differences"], reverse=True)
    assert (len(frame), int(frame["differences"].sum()), frame["object"].iloc[-1]) == (8, 301, "public.t0")
