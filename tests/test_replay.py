"""Replay and comparison: what a revision does, and how far it got, from a history or by trial on a copy of the schema."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import projects
import psycopg
import pytest
import sqlalchemy
from mend.database import catalog
from mend.database.catalog import Change
from mend.errors import ReplayFailed, RevisionNotFound, ScratchUnavailable
from mend.histories import history
from mend.histories.project import Project
from mend.postgres.server import Server
from mend.replays import replay
from mend.replays.replay import Replay, Scratch, Statement
from projects import ORDERS, chain, keywords
from sqlalchemy.pool import NullPool


@pytest.fixture
def scratch(server: Server) -> Scratch:
    return Scratch(server.binaries.major, {"conninfo": server.url().replace("+psycopg", "", 1)})


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEND_HOME", str(tmp_path / "home"))


def change(url: str, *statements: str) -> None:
    with psycopg.connect(**keywords(url), autocommit=True) as conn:  # type: ignore[arg-type]
        for statement in statements:
            conn.execute(statement.encode())


def snapshot(url: str) -> pandas.DataFrame:
    with sqlalchemy.create_engine(url, poolclass=NullPool).connect() as conn:
        return catalog.snapshot(conn)


def judged(replayed: Replay, url: str) -> pandas.DataFrame:
    return replay.operations(replay.compare(replayed, snapshot(url)))


def states(replayed: Replay, url: str) -> list[str]:
    return list(judged(replayed, url)["state"])


# --- by history ---------------------------------------------------------------------------------------------------------

WORK = """
op.add_column("orders", sa.Column("channel", sa.String(10)))
op.execute("update orders set channel = 'web'")
with op.get_context().autocommit_block():
    op.create_index("ix_channel", "orders", ["channel"], postgresql_concurrently=True)
op.create_check_constraint("ck_channel", "orders", "channel <> ''")
op.execute("comment on table orders is 'what was bought'")
"""
PARENT = (
    "create table customers (id serial primary key)",
    "create table orders (id serial primary key, note varchar(20))",
)
DONE = (
    "alter table orders add column channel varchar(10)", "create index ix_channel on orders (channel)",
    "alter table orders add constraint ck_channel check (channel <> '')", "comment on table orders is 'what was bought'",
)  # fmt: skip


@pytest.fixture
def work(scratch: Scratch, tmp_path: Path) -> Replay:
    """Revision ``work`` of a small project, replayed."""
    return replay.replay(projects.project(tmp_path, chain(first=ORDERS, work=WORK)), "work", scratch=scratch)


@pytest.mark.parametrize("count", range(5))
def test_how_far_a_revision_got_is_told_operation_by_operation(work: Replay, database: str, count: int) -> None:
    change(database, *PARENT, *DONE[:count])
    found = [state for state in states(work, database) if state != "DATA"]
    assert found == ["DONE"] * count + ["NOT_DONE"] * (4 - count)


def test_a_replay_says_how_it_was_made(work: Replay) -> None:
    assert (work.method, work.error, work.stamped, work.persisted, work.warnings, work.cached) == (
        "history",
        None,
        True,
        True,
        (),
        False,
    )
    assert [(one.operation, one.index, one.op) for one in work.statements] == [
        (1, 1, "add_column"), (2, 1, "execute"), (3, 1, "create_index"), (4, 1, "create_check_constraint"), (5, 1, "execute"),
    ]  # fmt: skip
    assert work.base is not None
    assert ("column", "public.orders.note", "character varying(20)") in list(
        work.base.itertuples(index=False, name=None)
    )


def test_a_data_operation_is_told_by_its_transaction(work: Replay, database: str) -> None:
    change(database, *PARENT)
    assert "rolled back with its transaction (operation 1 is missing)" in judged(work, database)["detail"][1]
    change(database, DONE[0])
    found = judged(work, database)
    assert found["state"][1] == "DATA"
    assert (
        "not visible in the catalog: data; it ran: its transaction committed (operation 1 is there)"
        in found["detail"][1]
    )


def test_an_invalid_index_is_different_and_its_effect_is_said(work: Replay, database: str) -> None:
    change(
        database, *PARENT, *DONE[:2], "update pg_index set indisvalid = false where indexrelid = 'ix_channel'::regclass"
    )
    found = judged(work, database)
    assert list(found["state"]) == ["DONE", "DATA", "DIFFERENT", "NOT_DONE", "NOT_DONE"]
    assert (
        found["detail"][2]
        == "index public.ix_channel is INVALID (not used, but kept up to date; a unique one is enforced)"
    )


def test_an_object_that_was_changed_by_hand_is_different_and_does_not_spoil_the_others(
    work: Replay, database: str
) -> None:
    change(database, *PARENT, *DONE, "alter table orders alter column channel type varchar(99)")
    found = judged(work, database)
    assert list(found["state"]) == ["DIFFERENT", "DATA", "DONE", "DONE", "DONE"]
    assert (
        found["detail"][0]
        == "column public.orders.channel: expected character varying(10), found character varying(99)"
    )


def test_a_constraint_that_was_never_validated_is_different(work: Replay, database: str) -> None:
    change(database, *PARENT, *DONE[:2], DONE[2] + " not valid")
    assert judged(work, database)["detail"][3] == "constraint public.orders.ck_channel is NOT VALID"


def test_a_missing_table_is_no_proof_that_a_revision_dropped_something(
    scratch: Scratch, database: str, tmp_path: Path
) -> None:
    revisions = chain(
        first=ORDERS + 'op.alter_column("orders", "note", nullable=False)',
        work='op.alter_column("orders", "note", nullable=True)',
    )
    replayed = replay.replay(projects.project(tmp_path, revisions), "work", scratch=scratch)
    found = judged(replayed, database)
    assert list(found["state"]) == ["DIFFERENT"]
    assert "public.orders is missing" in found["detail"][0] or "public.orders.note is missing" in found["detail"][0]


def test_operations_done_out_of_order_are_told_each_by_its_own_objects(work: Replay, database: str) -> None:
    change(database, *PARENT, "alter table orders add column channel varchar(10)", DONE[2])
    found = judged(work, database)
    assert list(found["state"]) == ["DONE", "DATA", "NOT_DONE", "DONE", "NOT_DONE"]
    assert "cannot be told" in found["detail"][1]


def test_an_operation_of_which_a_part_ran_counts_its_statements(
    scratch: Scratch, database: str, tmp_path: Path
) -> None:
    body = 'with op.batch_alter_table("orders") as b:\n    b.add_column(sa.Column("a", sa.Integer))\n    b.add_column(sa.Column("c", sa.Integer))'
    replayed = replay.replay(projects.project(tmp_path, chain(first=ORDERS, work=body)), "work", scratch=scratch)
    change(database, *PARENT, "alter table orders add column a integer")
    found = judged(replayed, database)
    assert list(found["state"]) == ["DIFFERENT"]
    assert found["detail"][0] == "1 of 2 statements ran"


def test_a_column_that_is_added_and_then_altered_is_followed_through_both(
    scratch: Scratch, new_database: Callable[..., str], tmp_path: Path
) -> None:
    body = 'op.add_column("orders", sa.Column("n", sa.Integer))\nop.alter_column("orders", "n", type_=sa.BigInteger)\nop.execute("create table t ()")\nop.drop_table("t")'
    replayed = replay.replay(projects.project(tmp_path, chain(first=ORDERS, work=body)), "work", scratch=scratch)
    for column, expected in (
        ("", ["NOT_DONE", "NOT_DONE"]),
        ("integer", ["DONE", "NOT_DONE"]),
        ("bigint", ["DONE", "DONE"]),
        ("text", ["DIFFERENT"] * 2),
    ):
        url = new_database()
        change(url, *PARENT, *([f"alter table orders add column n {column}"] if column else []))
        found = judged(replayed, url)
        assert list(found["state"])[:2] == expected
    url = new_database()
    change(url, *PARENT, "alter table orders add column n bigint")
    assert judged(replayed, url)["state"][2] == "DATA"
    assert "the revision takes it back itself" in judged(replayed, url)["detail"][2]


@pytest.mark.parametrize(
    ("scenario", "expected", "kept"),
    [("interrupted_index", {"DONE", "DIFFERENT", "NOT_DONE"}, True), ("duplicate_keys", {"DONE", "DIFFERENT", "NOT_DONE"}, True),
     ("lost_stamp", {"DONE", "NOT_DONE"}, True), ("env_order", {"NOT_DONE"}, False)],
)  # fmt: skip
def test_the_practice_incidents_are_seen_for_what_they_are(
    scenario: str, expected: set[str], kept: bool, incident: Callable[..., Any], scratch: Scratch
) -> None:
    broken = incident(scenario)
    asked = Project(broken.alembic_ini, Path(sys.executable))
    replayed = replay.replay(asked, broken.parameters["revision"], scratch=scratch)
    assert (replayed.stamped, replayed.persisted, replayed.error) == (kept, kept, None)
    assert set(states(replayed, broken.url)) - {"DATA"} == expected
    if scenario == "interrupted_index":
        assert "is INVALID" in judged(replayed, broken.url).query("state == 'DIFFERENT'")["detail"].iloc[0]
    if scenario == "lost_stamp":  # its commit stands in a loop over rows, and scratch has none: reading the file tells
        assert "FROM order_items" in replayed.reads[0]
        assert "commit" in list(history.lint(history.read(broken.alembic_ini))["finding"])


@pytest.mark.parametrize(
    ("env", "body"),
    [(projects.PLAIN, 'op.get_bind().commit()\nop.add_column("orders", sa.Column("b", sa.Integer))'), (projects.SQL_FIRST, 'op.add_column("orders", sa.Column("b", sa.Integer))')],
)  # fmt: skip
def test_a_revision_that_loses_its_version_row_is_caught_in_scratch(
    env: str, body: str, scratch: Scratch, tmp_path: Path
) -> None:
    asked = projects.project(tmp_path, chain(first=ORDERS, second="op.execute('select 1')", work=body), env=env)
    replayed = replay.replay(asked, "work", scratch=scratch)
    assert (replayed.stamped, replayed.persisted) == (False, False)


def test_sql_past_sqlalchemy_is_noticed(scratch: Scratch, tmp_path: Path) -> None:
    body = 'op.get_bind().connection.cursor().execute("create table hidden ()")'
    replayed = replay.replay(projects.project(tmp_path, chain(first=ORDERS, work=body)), "work", scratch=scratch)
    assert replayed.statements == ()
    assert replayed.warnings == (
        "changed by SQL that mend could not record: owner table public.hidden, table public.hidden",
    )


def test_roles_of_the_target_exist_while_the_history_grants_to_them(server: Server, tmp_path: Path) -> None:
    revisions = chain(first=ORDERS, work='op.execute("grant select on orders to mend_test_clerk")')
    address = {"conninfo": server.url().replace("+psycopg", "", 1)}
    replayed = replay.replay(
        projects.project(tmp_path, revisions),
        "work",
        scratch=Scratch(server.binaries.major, address, ("mend_test_clerk",)),
    )
    assert replayed.error is None
    with psycopg.connect(address["conninfo"]) as conn:
        assert conn.execute("select count(*) from pg_roles where rolname = 'mend_test_clerk'").fetchone() == (0,)
        assert conn.execute("select count(*) from pg_database where datname like 'mend_scratch_%'").fetchone() == (0,)


# --- the cache ----------------------------------------------------------------------------------------------------------


def unreachable(server: Server) -> Scratch:
    """A private scratch server that must not be started."""
    found = Scratch(server.binaries.major)
    found._private = lambda: pytest.fail("a cached replay must not start a server")  # type: ignore[method-assign]
    return found


def test_a_second_replay_comes_from_the_cache_and_starts_no_server(
    scratch: Scratch, server: Server, database: str, tmp_path: Path
) -> None:
    asked = projects.project(tmp_path, chain(first=ORDERS, work=WORK))
    first = replay.replay(asked, "work", scratch=scratch)
    again = replay.replay(asked, "work", scratch=unreachable(server))
    assert again.cached
    assert again.statements == first.statements
    assert again.base is not None
    assert again.base.equals(first.base)
    assert again.seconds < 1
    change(database, *PARENT, *DONE)
    assert states(again, database) == states(first, database)


def test_a_changed_import_of_the_project_makes_the_cache_stale(scratch: Scratch, tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text("NAME = 'a'\n")
    asked = projects.project(
        tmp_path, chain(first=ORDERS, work='import words\nop.add_column("orders", sa.Column(words.NAME, sa.Integer))')
    )
    assert replay.replay(asked, "work", scratch=scratch).statements[0].says == "add_column orders.a"
    assert replay.replay(asked, "work", scratch=scratch).cached
    (tmp_path / "words.py").write_text("NAME = 'b'\n")
    again = replay.replay(asked, "work", scratch=scratch)
    assert (again.cached, again.statements[0].says) == (False, "add_column orders.b")


def test_a_damaged_cache_file_is_made_again(scratch: Scratch, tmp_path: Path) -> None:
    asked = projects.project(tmp_path, chain(first=ORDERS, work=WORK))
    replay.replay(asked, "work", scratch=scratch)
    (kept,) = (tmp_path / "home/cache/replay").glob("*.json")
    kept.write_text(kept.read_text()[:-20])
    assert not replay.replay(asked, "work", scratch=scratch).cached


def test_a_history_of_a_hundred_revisions_is_replayed_in_time_and_tells_its_progress(
    scratch: Scratch, tmp_path: Path
) -> None:
    revisions = chain(
        **{
            f"r{n:03}": f'op.create_table("t{n}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("x", sa.Text, index=True))'
            for n in range(100)
        }
    )
    told: list[tuple[int, int, str]] = []
    started = time.monotonic()
    replayed = replay.replay(
        projects.project(tmp_path, revisions), "r099", scratch=scratch, progress=lambda *step: told.append(step)
    )
    assert time.monotonic() - started < 15
    assert len(replayed.statements) == 2
    assert told[0] == (1, 100, "replaying r000")
    assert len(told) == 99


# --- by trial, where a history cannot start from an empty database ------------------------------------------------------


def tried(folder: Path, body: str, scratch: Scratch, url: str) -> Replay:
    """A project whose first revision needs a table that create_all made; ``body`` is tried on the live schema."""
    revisions = chain(first='op.add_column("orders", sa.Column("note", sa.String(20)))', work=body)
    return replay.replay(projects.project(folder, revisions), "work", scratch=scratch, live=keywords(url))


# What a revision does, the same by hand, and by hand in another way ('' where there is none).  Every case has its own objects.
TRIALS = {
    "add_column": ('op.add_column("t", sa.Column("a", sa.Integer))', "alter table t add column a integer", "alter table t add column a text"),
    "create_index": ('op.create_index("ix", "t", ["note"], if_not_exists=True)', "create index ix on t (note)", "create index ix on t (id)"),
    "create_table": ('op.create_table("new", sa.Column("id", sa.Integer, primary_key=True))', "create table new (id serial primary key)", "create table new (id bigserial primary key)"),
    "unnamed key": ('op.execute("alter table t add foreign key (id) references customers")', "alter table t add foreign key (id) references customers", ""),
    "check": ('op.create_check_constraint("ck", "t", "id > 0")', "alter table t add constraint ck check (id > 0)", "alter table t add constraint ck check (id > 1)"),
    "enum value": ("op.execute(\"alter type mood add value 'happy'\")", "alter type mood add value 'happy'", ""),
    "create_type": ("op.execute(\"create type size as enum ('s', 'm')\")", "create type size as enum ('s', 'm')", "create type size as enum ('s')"),
    "drop_column": ('op.drop_column("t", "unused")', "alter table t drop column unused", ""),
    "drop_table": ('op.drop_table("unused")', "drop table unused", ""),
    "rename": ('op.rename_table("old", "young")', "alter table old rename to young", ""),
    "rename column": ('op.alter_column("t", "old", new_column_name="young")', "alter table t rename old to young", ""),
    "not null": ('op.alter_column("t", "strict", nullable=False)', "alter table t alter strict set not null", ""),
    "view": ('op.execute("create view v as select id from t")', "create view v as select id from t", "create view v as select id, note from t"),
}  # fmt: skip
BEFORE = (
    *PARENT, "create type mood as enum ('sad')", "create table unused ()", "create table old ()",
    "create table t (id int primary key, note text, unused int, old int, strict int)",
)  # fmt: skip


@pytest.mark.parametrize("way", ["NOT_DONE", "DONE", "DIFFERENT"])
def test_a_trial_tells_done_from_not_done_and_from_different(
    way: str, scratch: Scratch, database: str, tmp_path: Path
) -> None:
    by_hand = {name: {"NOT_DONE": "", "DONE": case[1], "DIFFERENT": case[2]}[way] for name, case in TRIALS.items()}
    change(database, *BEFORE, *filter(None, by_hand.values()))
    replayed = tried(tmp_path, "\n".join(case[0] for case in TRIALS.values()), scratch, database)
    assert (replayed.method, replayed.error) == ("trial", None)
    expected = {name: way if statement else "NOT_DONE" for name, statement in by_hand.items()}
    assert dict(zip(TRIALS, states(replayed, database), strict=True)) == expected


def test_a_trial_follows_a_revision_that_stopped_in_the_middle(scratch: Scratch, database: str, tmp_path: Path) -> None:
    body = WORK + 'op.drop_column("orders", "note")\nop.execute("update orders set id = 1")'
    change(
        database, *PARENT, *DONE[:2], "update pg_index set indisvalid = false where indexrelid = 'ix_channel'::regclass"
    )
    replayed = tried(tmp_path, body, scratch, database)
    found = judged(replayed, database)
    assert list(found["state"]) == ["DONE", "DATA", "DIFFERENT", "NOT_DONE", "NOT_DONE", "NOT_DONE", "DATA"]
    assert "is INVALID" in found["detail"][2]
    assert 'relation "orders" does not exist' in replayed.warnings[0]
    assert replayed.warnings[1] == replay.TRIED


def test_a_trial_leaves_the_live_database_as_it_was(scratch: Scratch, database: str, tmp_path: Path) -> None:
    change(database, *PARENT, "insert into customers values (1)")
    before = snapshot(database)
    tried(tmp_path, WORK, scratch, database)
    assert snapshot(database).equals(before)


def test_extensions_and_schemas_that_a_dba_made_beforehand_need_no_trial(
    scratch: Scratch, database: str, tmp_path: Path
) -> None:
    change(database, "create extension citext", "create schema app")
    revisions = chain(
        first='op.execute("create table app.t (email citext)")', work='op.execute("alter table app.t add a int")'
    )
    replayed = replay.replay(projects.project(tmp_path, revisions), "work", scratch=scratch, live=keywords(database))
    assert replayed.method == "history"
    assert replayed.warnings == ("schemas and extensions of the live database were made beforehand",)


def test_a_dump_that_the_user_names_is_a_base(scratch: Scratch, tmp_path: Path) -> None:
    (tmp_path / "base.sql").write_text("create table orders (id int);\n")
    revisions = chain(
        first="op.execute('not even sql')",
        second='op.add_column("orders", sa.Column("a", sa.Integer))',
        work='op.add_column("orders", sa.Column("b", sa.Integer))',
    )
    replayed = replay.replay(
        projects.project(tmp_path, revisions),
        "work",
        scratch=scratch,
        base=tmp_path / "base.sql",
        base_revision="first",
    )
    assert (replayed.method, replayed.error, [one.says for one in replayed.statements]) == (
        "history",
        None,
        ["add_column orders.b"],
    )


# --- what cannot be replayed --------------------------------------------------------------------------------------------


def test_a_history_that_does_not_start_and_no_live_database_says_what_to_do(scratch: Scratch, tmp_path: Path) -> None:
    revisions = chain(first="op.execute('alter table nowhere add a int')", work="pass")
    with pytest.raises(ReplayFailed, match=r"revision first fails in a scratch database: .*nowhere.*base"):
        replay.replay(projects.project(tmp_path, revisions), "work", scratch=scratch)


def test_an_unknown_revision_is_refused_before_anything_starts(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RevisionNotFound):
        replay.replay(projects.project(tmp_path, chain(first=ORDERS)), "nope", scratch=unreachable(server))


def test_a_scratch_server_that_does_not_answer_is_said(tmp_path: Path) -> None:
    nowhere = Scratch(
        18, {"host": "127.0.0.1", "port": "1", "user": "ann", "password": "hunter22", "connect_timeout": "2"}
    )
    with pytest.raises(ScratchUnavailable, match="does not answer") as caught:
        replay.replay(projects.project(tmp_path, chain(first=ORDERS)), "first", scratch=nowhere)
    assert "hunter22" not in str(caught.value)


def test_a_private_server_is_started_for_the_replay_and_stopped_after_it(server: Server, tmp_path: Path) -> None:
    replayed = replay.replay(
        projects.project(tmp_path, chain(first=ORDERS)), "first", scratch=Scratch(server.binaries.major)
    )
    assert len(replayed.statements) == 2
    (home,) = (path for path in (tmp_path / "home/scratch").iterdir() if path.is_dir())
    found = Server(home, server.binaries, detached=False)
    assert not found.running()
    found.destroy()
    shutil.rmtree(home, ignore_errors=True)


def test_another_major_version_is_said(server: Server) -> None:
    found = Scratch(13, {"conninfo": server.url().replace("+psycopg", "", 1)})
    assert found.warning == f"expected definitions were made by PostgreSQL {server.binaries.major}, the target runs 13"


# --- comparing, without a server ----------------------------------------------------------------------------------------


def made(*changes: tuple[Change, ...], segments: tuple[int, ...] = ()) -> Replay:
    statements = tuple(
        Statement(
            "r",
            n,
            1,
            "execute",
            f"op {n}",
            "sql",
            True,
            False,
            segments[n - 1] if segments else 1,
            several,
            not several,
        )
        for n, several in enumerate(changes, 1)
    )
    return Replay("history", "r", None, statements, (), None, True, True, (), "18.1", 0.0)


def live(**columns: str) -> pandas.DataFrame:
    rows = [("column", f"t.{name}", text) for name, text in columns.items()]
    return pandas.DataFrame(rows, columns=["kind", "identity", "definition"])


def column(name: str, before: str | None, after: str | None) -> tuple[Change, ...]:
    return (Change("column", f"t.{name}", before, after),)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"a": "int", "b": "int"}, "it ran: a later operation is there"),
        ({}, "it did not run: an earlier operation is missing"),
        ({"a": "int"}, "whether it ran cannot be told from the catalog"),
    ],
)
def test_an_operation_without_trace_is_told_by_its_neighbours(there: dict[str, str], said: str) -> None:
    found = replay.compare(
        made(column("a", None, "int"), (), column("b", None, "int"), segments=(1, 2, 3)), live(**there)
    )
    assert found["state"][1] == "DATA"
    assert said in found["detail"][1]


def test_owners_and_privileges_are_not_compared() -> None:
    found = replay.compare(made((Change("grant", "table t to ann", None, "select"),)), live())
    assert list(found["state"]) == ["DATA"]
    assert "not compared" in found["detail"][0]


def test_views_of_different_major_versions_are_levelled() -> None:
    view = (Change("view", "public.v", None, "SELECT id FROM t"),)
    there = pandas.DataFrame(
        [("view", "public.v", "SELECT  t.id\n FROM t")], columns=["kind", "identity", "definition"]
    )
    assert list(replay.compare(made(view), there, live_major=15)["state"]) == ["DONE"]
    assert list(replay.compare(made(view), there, live_major=18)["state"]) == ["DIFFERENT"]


def test_nothing_to_compare_keeps_the_columns() -> None:
    found = replay.compare(made(), live())
    assert found.empty
    assert list(found.columns) == [
        "revision",
        "operation",
        "op",
        "statement",
        "says",
        "objects",
        "state",
        "ran",
        "detail",
        "sql",
    ]
    assert list(replay.operations(found).columns) == ["revision", "index", "operation", "objects", "state", "detail"]
