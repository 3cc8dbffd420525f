"""The catalog that a history makes, and who set what: the spies in the scratch database must tell what whole snapshots tell."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import projects
import psycopg
import pytest
from mend.database import target
from mend.errors import ReplayFailed, ScratchUnavailable
from mend.histories import history
from mend.postgres.server import Server
from mend.replays import expected, replay
from mend.replays import scratch as scratch_room
from mend.replays.expected import Expected
from mend.replays.scratch import Scratch
from projects import ORDERS, chain, keywords, revision


@pytest.fixture
def scratch(server: Server) -> Scratch:
    return Scratch(server.binaries.major, {"conninfo": server.url().replace("+psycopg", "", 1)}, ("reader",))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEND_HOME", str(tmp_path / "home"))


#: What a spy could miss: names that others show, objects that go along, what runs outside or is taken back, what no DDL trigger tells.
WORK = {
    "tables": '''
op.execute("create schema app")
op.execute("create type app.mood as enum ('sad', 'happy')")
op.execute("create domain app.email as text constraint looks check (value like '%@%')")
op.create_table("people", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(20)), sa.Column("at", sa.DateTime), schema="app")
op.create_index("ix_name", "people", ["name"], schema="app")
op.add_column("people", sa.Column("age", sa.Integer), schema="app")
op.create_index("ix_age", "people", ["age"], schema="app")
op.execute("alter table app.people add column mood app.mood default 'sad', add column email app.email")
op.execute("create table app.part (k int, v text) partition by list (k); create table app.part1 partition of app.part for values in (1)")
op.execute("create table app.old_part (k int, v text)")
op.execute("create table app.base (a int default 1); create table app.child (b int) inherits (app.base)")''',
    "views": '''
op.execute("create view app.names as select id, name from app.people")
op.execute("create materialized view app.ages as select age from app.people")
op.execute("create unique index ix_ages on app.ages (age)")
op.execute("create function app.touch() returns trigger language plpgsql as 'begin return new; end'")
op.execute("create trigger touched before update on app.people for each row execute function app.touch()")
op.execute("comment on trigger touched on app.people is 'why'; comment on column app.people.name is 'n'; comment on index app.ix_name is 'i'")
op.execute("create policy own on app.people using (age > 0); alter table app.people enable row level security")
op.execute("create statistics app.st on name, age from app.people")
op.execute("create rule quiet as on insert to app.names do instead nothing")
op.execute("create sequence app.counter; alter sequence app.counter owned by app.people.age")
op.execute("grant select on app.people to reader")
op.execute("alter default privileges in schema app grant select on tables to reader")
op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True), sa.Column("who", sa.Integer, sa.ForeignKey("app.people.id")))''',
    "names": '''
op.alter_column("people", "name", new_column_name="full_name", schema="app")
op.rename_table("people", "persons", schema="app")
op.execute("alter type app.mood rename value 'sad' to 'blue'")
op.execute("alter table app.part attach partition app.old_part for values in (2)")
op.execute("alter table app.base alter column a set default 2")
op.execute("alter table app.base add column c int not null default 5")
op.execute("do $$ begin execute 'alter table orders add column done boolean'; end $$")
op.execute("alter type app.mood add value 'calm'")
op.execute("set local search_path = app, public")
op.execute("create table plain (id int)")''',
    "ways": '''
bind = op.get_bind()
with bind.begin_nested():
    op.execute("create table kept (id int)")
try:
    with bind.begin_nested():
        op.execute("create table gone (id int)")
        op.execute("alter table kept add column lost int")
        raise ValueError
except ValueError:
    pass
op.add_column("kept", sa.Column("here", sa.Integer))
with op.get_context().autocommit_block():
    op.execute("create index concurrently ix_done on orders (done)")
    op.execute("drop index concurrently app.ix_age")
op.execute("insert into kept (id) values (1)")
op.alter_column("kept", "id", type_=sa.BigInteger)
engine = sa.create_engine(bind.engine.url)
op.execute("create table if not exists kept (id int)")
op.create_index("ix_kept", "kept", ["id"])
op.drop_index("ix_kept", table_name="kept")''',
    "drops": '''
op.execute("alter table app.persons drop column full_name cascade")
op.execute("drop type app.mood cascade")
op.execute("drop table app.persons cascade")
op.execute("alter table app.part detach partition app.old_part")
op.execute("alter table app.child no inherit app.base")
op.drop_table("plain", schema="app")
op.execute("drop function app.touch() cascade")''',
}  # fmt: skip


def told(made: Expected) -> list[tuple[str, int, str, list[object]]]:
    return [(s.place.revision, s.place.operation, s.says, sorted(s.changes)) for s in made.steps]


def test_the_spies_tell_what_whole_snapshots_tell(
    scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = projects.project(tmp_path / "project", chain(**WORK))
    spied = expected.expected(project, ["drops"], scratch=scratch)
    shutil.rmtree(tmp_path / "home" / "cache")
    monkeypatch.setattr(Scratch, "superuser", lambda *_: False)
    whole = expected.expected(project, ["drops"], scratch=scratch)
    assert not spied.cached
    assert not whole.cached
    for one, other in zip(told(spied), told(whole), strict=True):
        assert one == other
    assert spied.facets == whole.facets
    assert spied.warnings == ("upgrade() itself rolls 2 of its statements back",)
    assert [s.says for s in spied.steps if s.place.revision == "ways"][:2] == [
        "execute create table kept (id int)",
        "add_column kept.here",
    ]


def test_every_state_between_can_be_told_from_one_run(scratch: Scratch, tmp_path: Path) -> None:
    """At each revision, what the changes add up to is what a run to that revision alone makes."""
    from mend.mismatch import drift

    project = projects.project(tmp_path / "project", chain(**WORK))
    whole = expected.expected(project, ["drops"], scratch=scratch)
    for name in ("views", "ways"):
        alone = expected.expected(project, [name], scratch=scratch)
        assert alone.ran == whole.ran
        steps = len([s for s in alone.steps if s.own])
        assert drift.at(whole, steps) == alone.facets
        assert alone.stopped == ""


def test_operations_have_the_numbers_that_failed_migration_gives_them(scratch: Scratch, tmp_path: Path) -> None:
    project = projects.project(tmp_path / "project", chain(**WORK))
    made = expected.expected(project, ["drops"], scratch=scratch)
    alone = replay.replay(project, "names", scratch=scratch)
    numbered = {(one.operation, one.says): one.changes for one in alone.statements}
    mine = {(s.operation, s.says): s.changes for step in made.steps for s in step.statements if s.revision == "names"}
    assert mine.keys() == numbered.keys()
    assert {key: sorted(changes) for key, changes in mine.items()} == {
        key: sorted(changes) for key, changes in numbered.items()
    }


def test_several_heads_are_reached_and_what_lies_beyond_too(scratch: Scratch, tmp_path: Path) -> None:
    files = {
        "a": revision("a", None, ORDERS), "b": revision("b", "a", 'op.add_column("orders", sa.Column("b", sa.Integer))'),
        "c": revision("c", "a", 'op.add_column("orders", sa.Column("c", sa.Integer))'),
        "d": revision("d", ("b", "c"), 'op.create_index("ix_b", "orders", ["b"])'), "e": revision("e", "d", 'op.drop_column("orders", "nothing")'),
    }  # fmt: skip
    project = projects.project(tmp_path / "project", files)
    made = expected.expected(project, ["b", "c"], scratch=scratch)
    assert (set(made.ran[: made.own]), made.ran[made.own :]) == ({"a", "b", "c"}, ("d",))
    assert made.set_by["column", "public.orders.c"].place.revision == "c"
    assert ("index", "public.ix_b") not in made.facets
    assert (
        made.pending_by[("index", "public.ix_b"), "CREATE INDEX ix_b ON public.orders USING btree (b)"].place.revision
        == "d"
    )
    assert made.stopped.startswith("e: ")
    again = expected.expected(project, ["c", "b"], scratch=scratch)
    assert (again.cached, again.facets, told(again)) == (True, made.facets, told(made))


def test_a_database_without_rows_has_everything_before_it(scratch: Scratch, tmp_path: Path) -> None:
    made = expected.expected(projects.project(tmp_path / "project", chain(a=ORDERS)), [], scratch=scratch)
    assert (made.own, made.ran, ("table", "public.orders") in made.facets) == (0, ("a",), False)
    assert not any(step.own for step in made.steps)
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"PGDMP\x01\x0f\x00", "without -Fc"), (b"-- \xff\n", "can't decode")],
    ids=["missing", "custom format", "not UTF-8"],
)
def test_a_base_that_is_no_dump_is_refused(scratch: Scratch, tmp_path: Path, content: bytes | None, says: str) -> None:
    base = tmp_path / "base.sql"
    if content is not None:
        base.write_bytes(content)
    project = projects.project(tmp_path / "project", chain(a=ORDERS))
    with pytest.raises(ReplayFailed, match=says):
        expected.expected(project, ["a"], scratch=scratch, base=base)


def test_an_extension_that_scratch_lacks_asks_for_another_server(scratch: Scratch, tmp_path: Path) -> None:
    project = projects.project(tmp_path / "project", chain(a='op.execute("create extension nowhere_to_be_had")'))
    with pytest.raises(ScratchUnavailable, match=r"revision a, operation 1 .* `scratch =` in mend.toml"):
        expected.expected(project, ["a"], scratch=scratch)


def test_what_fails_is_named_by_revision_and_operation_and_the_way_out_is_said(
    scratch: Scratch, tmp_path: Path
) -> None:
    project = projects.project(
        tmp_path / "project",
        chain(
            a=ORDERS, b='op.add_column("orders", sa.Column("x", sa.Integer))\nop.drop_column("nobody", "x")', c="pass"
        ),
    )
    with pytest.raises(ReplayFailed) as caught:
        expected.expected(project, ["c"], scratch=scratch)
    for words in (
        "revision b, operation 2 (drop_column nobody.x) fails",
        'relation "nobody" does not exist',
        "42P01",
        "base_revision",
    ):
        assert words in caught.value.message


def test_a_dump_stands_in_for_what_cannot_be_replayed(
    scratch: Scratch, new_database: Callable[..., str], tmp_path: Path
) -> None:
    files = chain(
        a='op.execute("select * from made_by_create_all")', b='op.add_column("made", sa.Column("x", sa.Integer))'
    )
    project = projects.project(tmp_path / "project", files)
    (tmp_path / "base.sql").write_text(
        "create table public.made (id integer); create table public.made_by_create_all (id integer);"
    )
    made = expected.expected(project, ["b"], scratch=scratch, base=tmp_path / "base.sql", base_revision="a")
    assert made.ran == ("b",)
    assert ("column", "public.made.x") in made.set_by
    assert ("table", "public.made") not in made.set_by
    assert "from a dump at a" in made.warnings[0]


def test_a_changed_file_is_replayed_again(scratch: Scratch, tmp_path: Path) -> None:
    project = projects.project(tmp_path / "project", chain(a=ORDERS))
    first = expected.expected(project, ["a"], scratch=scratch)
    projects.project(tmp_path / "project", chain(a=ORDERS + '\nop.add_column("orders", sa.Column("x", sa.Integer))'))
    second = expected.expected(project, ["a"], scratch=scratch)
    assert (first.cached, second.cached) == (False, False)
    assert ("column", "public.orders.x") in second.facets


def test_nothing_is_left_on_the_scratch_server(scratch: Scratch, server: Server, tmp_path: Path) -> None:
    def databases() -> list[str]:
        with psycopg.connect(**keywords(server.url())) as conn:  # type: ignore[arg-type]
            return [
                row[0] for row in conn.execute("select datname from pg_database where datname like 'mend_scratch%'")
            ]

    project = projects.project(tmp_path / "project", chain(a="raise RuntimeError('no')"))
    with pytest.raises(ReplayFailed):
        expected.expected(project, ["a"], scratch=scratch)
    assert history.read(project.alembic_ini).heads == ("a",)
    assert databases() == []


def test_names_without_a_schema_mean_what_they_mean_in_the_target(
    server: Server, new_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALTER DATABASE, ALTER ROLE or the address give another search_path: the history makes its tables there."""
    url = new_database()
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as conn:
        conn.execute('create schema "App one"')
        conn.execute('create table "App one".alembic_version (version_num varchar(32))')
        conn.execute("select set_config('search_path', '\"App one\", public', false)")
        conn.execute(f"alter database {conn.info.dbname} set search_path from current")
    monkeypatch.setenv("SHOP_URL", url)
    chosen = scratch_room.choose(target.resolve("env:SHOP_URL"), version_num=server.binaries.major * 10000)
    assert (chosen.path, chosen.schemas) == ('"App one", public', ("App one",))
    place = replace(chosen, address={"conninfo": server.url().replace("+psycopg", "", 1)})
    project = projects.project(tmp_path / "project", chain(a=ORDERS))
    made = expected.expected(project, ["a"], scratch=place)
    assert ("table", '"App one".orders') in made.facets
    assert ("table", "public.orders") not in made.facets
