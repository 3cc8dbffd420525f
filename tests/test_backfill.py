"""Many rows in short batches: every row once, its before-image kept, whoever writes meanwhile; and all of it back again."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from fix_bench import Bench
from fix_runs import meanwhile, until
from mend.batches import batch, walk
from mend.batches.batch import Window
from mend.batches.deletion import deletion
from mend.batches.repair import Repair
from mend.errors import Interrupted, LockNotAcquired, PreconditionFailed, Refused, StepFailed, TooManyRows
from mend.execution import execute
from mend.plan import Plan, Step

ROWS = 3_000
FILL = {"email": "lower(t.name) || '@shop'"}
NULL = "t.email is null"


def people(bench: Bench, key: str = "id int primary key", value: str = "n", rows: int = ROWS) -> None:
    """A table t whose column email is null in two rows of three."""
    bench.look.execute(
        f"create table t ({key}, email text, name text not null)",
        f"insert into t select {value}, case when n % 3 = 0 then 'm' || n end, 'Name' || n from generate_series(1, {rows}) as n",
        "analyze t",
    )


def fill(bench: Bench, **more: Any) -> Step:
    return bench.step("public.t", "update", FILL, where=NULL, **more)


def filled(bench: Bench) -> bool:
    """Every row has the email that it should have."""
    right = "email is not null and (email like 'm%' or email = lower(name) || '@shop')"
    return bench.look.query(f"select count(*) from t where not ({right})") == [(0,)]


# -- each way of walking, each kind of key ------------------------------------------------------------------------------

KEYS = {
    "integer": ("id int primary key", "n"),
    "far apart": ("id int8 primary key", "cast(n as int8) * 1000000007 - 1000000000000"),
    "uuid": ("id uuid primary key", "cast(md5(cast(n as text)) as uuid)"),
    "text": ("id text primary key", "'k''' || n || '\\%s :x'"),
    "composite": ("a int, b text, primary key (b, a)", "n % 7, 'b' || n"),
    "timestamp": ("id timestamptz primary key", "timestamptz '2025-10-26 00:00+00' + n * interval '1 minute'"),
    "numeric": ("id numeric primary key", "n / 7.0"),
    "unique": ("id int not null unique, other int unique", "n, null"),
    "own types": (
        "a app.mood, b app.code, primary key (a, b)",
        "cast((array['sad', 'happy'])[n % 2 + 1] as app.mood), 'c' || n",
    ),
}


@pytest.fixture
def locking_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on servers before PostgreSQL 18."""
    monkeypatch.setattr(batch.Job, "at_once", False)


@pytest.mark.parametrize(
    ("key", "by", "workers", "at_once"),
    [(key, by, 1 + (n + m) % 2, n % 3 > 0) for n, key in enumerate(KEYS) for m, by in enumerate(("ctid", "keyset"))],
)
def test_every_row_is_changed_once_and_comes_back(
    bench: Bench, key: str, by: str, workers: int, at_once: bool, request: pytest.FixtureRequest
) -> None:
    if not at_once:
        request.getfixturevalue("locking_first")
    bench.look.execute(
        "create schema app", "create type app.mood as enum ('sad', 'happy')", "create domain app.code as varchar(9)"
    )
    people(bench, *KEYS[key])
    before = bench.look.rows()
    step = fill(bench, by=by, workers=workers)
    assert bench.state(step) == "not_done"
    done = bench.apply(step)
    assert filled(bench)
    assert done.journal.of("step_done")[0].payload["rows"] == 2_000
    assert bench.images("count(*), count(distinct n1), count(o1)") == [(2_000, 2_000, 0)]
    assert bench.state(step) == "done"
    undone = bench.undo(step)
    assert bench.look.rows() == before
    assert bench.restored(undone) == {"step": 0, "table": "public.t", "rows": 2_000, "conflicts": 0, "sample": []}
    assert bench.state(step.undo[0]) == "done"


@pytest.mark.parametrize("by", ["ctid", "keyset"])
@pytest.mark.parametrize(
    ("schema", "table"),
    [("app", '"We Ird"'), ('"S""ch%s"', '"T:b"'), ('"ünï"', '"select"'), (f'"S{"s" * 62}"', f'"T{"t" * 62}"')],
)
def test_names_of_every_kind_are_taken_as_they_are(bench: Bench, schema: str, table: str, by: str) -> None:
    name = f"{schema}.{table}"
    bench.look.execute(
        f"create schema {schema}",
        f'create table {name} ("Id ""x" int, "%s:b" int, "w" text, "t" text, "old" text, primary key ("%s:b", "Id ""x"))',
        f"insert into {name} select n, n, null, 'x', 'y' from generate_series(1, 700) as n",
    )
    before = bench.look.rows()
    step = bench.step(name, "update", {"w": "t.t || '100%'", "old": "null"}, where="t.w is null", by=by)
    bench.apply(step)
    assert bench.look.query(f"select distinct w, old from {name}") == [("x100%", None)]
    bench.undo(step)
    assert bench.look.rows() == before


def test_a_table_that_is_empty_or_needs_nothing_is_done_at_once(bench: Bench) -> None:
    people(bench, rows=0)
    bench.apply(fill(bench))
    bench.look.execute("insert into t values (1, 'm1', 'Name1')")
    bench.apply(fill(bench, job="job_1", workers=3))
    assert bench.images("count(*)") == bench.images("count(*)", job="job_1") == [(0,)]


def test_no_batch_reads_the_whole_table(bench: Bench) -> None:
    people(bench, rows=100_000)
    bench.look.execute("create index on t (id) where email is null", "analyze t")
    work = "select id as k1 from t where email is null"
    for more in ({"by": "ctid"}, {"by": "keyset"}, {"work": work, "match": ("id",)}):
        step = fill(bench, job=f"job_{len(more)}_{more.get('by', '')}", **more)
        job = batch.job_of(step)
        bench.look.execute("create schema if not exists mend", *batch.opening(job))
        window = {
            "ctid": Window("only public.t", ("(100,0)",), ("(120,0)",)),
            "keyset": Window("only public.t", ("40000",), ("42000",)),
            "work": Window("only public.t", ("40000",), ("42000",)),
        }[job.walks]
        texts = [batch.change(job, window, rows=20_000)]
        if replace(job, returns_old=returns_old(bench)).at_once:
            texts.append(batch.change_at_once(job, window))
        for text in texts:
            plan = bench.look.query(f"explain {text}")
            assert not [line for (line,) in plan if "Seq Scan on t" in line], plan


def test_postgresql_13_walks_along_the_key(bench: Bench) -> None:
    """It would read the whole table for every part of its pages."""
    people(bench)
    step, writer = fill(bench), bench.writer()
    old = replace(writer, identity=replace(writer.identity, version_num=130_022))
    execute.apply(old, Plan("bench", {}, {}, "repair", steps=(step,)))
    assert filled(bench)
    assert bench.look.query("select lo, at is null or at[1] !~ ',' from mend.range_job_0 where n > 0") == [(None, True)]
    bench.look.execute("create table u (a int, b int)")
    old = replace(bench.writer(), identity=old.identity)
    without = bench.step("public.u", "update", {"b": "1"}, where="t.b is null", job="job_1")
    with pytest.raises(PreconditionFailed, match=r"public\.u has no key, and PostgreSQL 13"):
        execute.apply(old, Plan("bench", {}, {}, "repair", steps=(without,)))


# -- tables of every kind ------------------------------------------------------------------------------------------------


def partitioned(bench: Bench) -> None:
    bench.look.execute(
        "create table t (id int, at date, email text, name text not null, primary key (id, at)) partition by range (at)",
        "create table t_24 partition of t for values from ('2024-01-01') to ('2025-01-01')",
        "create table t_25 partition of t for values from ('2025-01-01') to ('2026-01-01') partition by list (id)",
        "create table t_25_odd partition of t_25 for values in (1, 3, 5, 7, 9)",
        "create table t_rest partition of t_25 default",
        "insert into t select n, date '2024-07-01' + n % 365, null, 'Name' || n from generate_series(1, 3000) as n",
        "analyze t",
    )


@pytest.mark.parametrize(
    "more", [{}, {"by": "keyset"}, {"work": "select id as k1, at as k2 from t", "match": ("id", "at")}]
)
def test_the_rows_of_all_partitions_are_changed(bench: Bench, more: dict[str, Any]) -> None:
    partitioned(bench)
    before = bench.look.rows()
    step = fill(bench, workers=2, **more)
    bench.apply(step)
    assert filled(bench)
    bench.undo(step)
    assert bench.look.rows() == before


def test_rows_of_tables_that_inherit_are_left_alone(bench: Bench) -> None:
    people(bench, rows=300)
    bench.look.execute("create table child () inherits (t)", "insert into child values (1, null, 'Child')")
    step = fill(bench)
    bench.apply(step)
    assert bench.look.query("select count(*) from only t where email is null") == [(0,)]
    assert bench.look.query("select email from child") == [(None,)]
    bench.undo(step)


def test_rows_without_a_key_are_changed_for_good(bench: Bench) -> None:
    people(bench, "id int", "n")
    step = fill(bench)
    assert not step.reversible()
    assert "has no key" in step.irreversible
    bench.apply(step)
    assert filled(bench)


def test_values_come_back_to_the_letter(bench: Bench) -> None:
    bench.look.execute(
        "create schema app",
        "create type app.pair as (a int, b text)",
        'create collation app.ci from "C"',
        "create table t (id int primary key, a json, c point, d numeric, e app.pair, f text[], g bytea, h float8, i varchar(5) collate app.ci, "
        "j int4range, k timestamptz, l interval, done bool not null default false)",
        "insert into t values (1, '{ \"b\":1,  \"b\":2}', '(1,2)', 1.00, '(1,\"x, y\")', '{a,NULL,\"c d\"}', '\\x00ff', 0.1, 'AbC', '[1,5)', "
        "'infinity', '1 mon 30 days'), (2, null, null, 'NaN', null, null, null, 'NaN', null, 'empty', null, null)",
    )
    before = bench.look.rows()
    columns = "acdefghijkl"
    step = bench.step("public.t", "update", dict.fromkeys(columns, "null") | {"done": "true"}, where="not t.done")
    bench.apply(step)
    assert bench.look.query("select count(*) from t where done and a is null and d is null and k is null") == [(2,)]
    bench.undo(step)
    assert bench.look.rows() == before


def test_a_value_that_is_equal_but_not_the_same_was_changed_by_somebody(bench: Bench) -> None:
    bench.look.execute(
        "create table t (id int primary key, a numeric, b interval)", "insert into t values (1), (2), (3)"
    )
    step = bench.step("public.t", "update", {"a": "1.0", "b": "interval '1 day'"}, where="t.a is null")
    bench.apply(step)
    bench.look.execute("update t set a = 1.00 where id = 1", "update t set b = interval '24 hours' where id = 2")
    said = bench.restored(bench.undo(step))
    assert (said["rows"], said["conflicts"]) == (1, 2)


def test_letters_that_a_collation_takes_for_equal_are_told_apart(bench: Bench) -> None:
    try:
        bench.look.execute("create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server was built without ICU")
    bench.look.execute(
        "create table t (id text collate ci primary key, a text collate ci)", "insert into t values ('a'), ('b')"
    )
    for by in ("ctid", "keyset"):
        step = bench.step("public.t", "update", {"a": "'abc'"}, where="t.a is null", by=by, job=by)
        bench.apply(step)
        bench.look.execute("update t set a = 'ABC', id = 'A' where id = 'a'")
        said = bench.restored(bench.undo(step))
        assert (said["rows"], said["conflicts"]) == (1, 1)
        bench.look.execute("update t set a = null")


def test_deleted_rows_come_back_whole(bench: Bench) -> None:
    bench.look.execute(
        "create table t (id int generated always as identity primary key, a text, b int generated always as (length(a)) stored, c text default 'c')",
        "insert into t (a, c) select 'a' || n, null from generate_series(1, 3000) as n",
    )
    before = bench.look.rows()
    step = bench.step("public.t", "delete", where="t.id % 2 = 0")
    bench.apply(step)
    assert bench.look.query("select count(*) from t") == [(1_500,)]
    bench.undo(step)
    assert bench.look.rows() == before
    assert bench.look.query("insert into t (a) values ('next') returning id") == [(3_001,)]


def test_inserted_rows_go_again_unless_somebody_uses_them(bench: Bench) -> None:
    bench.look.execute(
        "create table parent (id int primary key, name text default 'stub')",
        "create table child (id int primary key, parent_id int references parent on delete cascade)",
        "alter table child disable trigger all",
        "insert into child select n, n % 1000 from generate_series(1, 3000) as n",
        "alter table child enable trigger all",
        "insert into parent select n, 'own' from generate_series(0, 99) as n",
    )
    work = "select distinct parent_id as k1 from child order by 1"
    step = bench.step("public.parent", "insert", {"id": "w.k1"}, work=work, match=("id",))
    bench.apply(step)
    assert bench.look.query("select name, count(*) from parent group by 1 order by 1") == [("own", 100), ("stub", 900)]
    bench.look.execute("delete from child where id <> 500", "update parent set name = 'used' where id = 600")
    undone = bench.undo(step)
    assert bench.look.query("select id from parent where id >= 100 order by 1") == [(500,), (600,)]
    assert bench.look.query("select count(*) from child") == [(1,)]
    assert (bench.restored(undone)["rows"], bench.restored(undone)["conflicts"]) == (898, 2)


def test_a_worklist_is_done_once_for_each_of_its_lines(bench: Bench) -> None:
    """Its condition may hold still when a line is done: that is no reason to do it again."""
    people(bench)
    before = bench.look.rows()
    work = "select id as k1, id * 2 as v1 from t order by id desc"
    step = bench.step("public.t", "update", {"name": "t.name || '/' || w.v1"}, work=work, match=("id",), workers=2)
    bench.apply(step)
    assert bench.look.query("select count(*) from t where name <> 'Name' || id || '/' || id * 2") == [(0,)]
    assert bench.images("count(*), count(distinct w)") == [(ROWS, ROWS)]
    bench.undo(step)
    assert bench.look.rows() == before


def test_the_tables_own_triggers_fire(bench: Bench) -> None:
    people(bench)
    bench.look.execute(
        "create function upper_name() returns trigger language plpgsql as $$ begin new.name := upper(new.name); new.email := new.email || '!'; return new; end $$",
        "create trigger tr before update on t for each row execute function upper_name()",
    )
    step = fill(bench)
    bench.apply(step)
    assert bench.look.query("select email, name from t where id = 1") == [("name1@shop!", "NAME1")]
    bench.look.execute("drop trigger tr on t")
    assert bench.restored(bench.undo(step))["rows"] == 2_000  # what a trigger made of a value is what was written


def test_a_trigger_that_keeps_rows_as_they_are_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mend.batches.backfill.SWEEPS", 0)
    people(bench)
    bench.look.execute(
        "create function keep() returns trigger language plpgsql as $$ begin return null; end $$",
        "create trigger tr before update on t for each row when (old.id = 7) execute function keep()",
    )
    with pytest.raises(StepFailed, match=r"1 rows of public\.t still need the change"):
        bench.apply(fill(bench))


# -- what cannot be changed -----------------------------------------------------------------------------------------------


def test_rows_that_fail_alone_are_set_aside_with_the_reason_and_tried_again(bench: Bench) -> None:
    people(bench)
    bench.look.execute("alter table t alter column email type varchar(13)", "create unique index on t (email)")
    bench.look.execute(
        "update t set name = 'much too long' where id in (100, 1000)",
        "update t set email = 'name200@shop' where id = 3",
    )
    step = fill(bench)
    with pytest.raises(
        StepFailed, match=r"3 rows of public\.t could not be changed .*2 rows: value too long.*22001.*; 1 rows: .*23505"
    ):
        bench.apply(step)
    assert bench.aside("k1, sqlstate") == [(100, "22001"), (200, "23505"), (1000, "22001")]
    assert bench.look.query("select count(*) from t where email is null") == [(3,)]
    assert bench.state(step) == "partial"
    bench.look.execute(
        "update t set name = 'new' || id where id in (100, 1000)", "update t set email = 'm3' where id = 3"
    )
    bench.resume(step)
    assert filled(bench)
    assert bench.state(step) == "done"
    assert bench.aside("k1") == []
    assert bench.restored(bench.undo(step))["rows"] == 2_000


@pytest.mark.parametrize(
    "more", [{"by": "keyset"}, {"work": "select id as k1 from t where email is null", "match": ("id",)}]
)
def test_rows_that_fail_are_found_whatever_is_walked_along(bench: Bench, more: dict[str, Any]) -> None:
    people(bench)
    bench.look.execute("alter table t add check (email <> 'name1001@shop')")
    with pytest.raises(StepFailed, match="1 rows of"):
        bench.apply(fill(bench, **more))
    assert bench.aside("sqlstate") == [("23514",)]
    assert bench.look.query("select id from t where email is null") == [(1001,)]


def test_too_many_rows_that_fail_stop_the_repair(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MOST_ASIDE", 20)
    people(bench)
    bench.look.execute("alter table t alter column email type varchar(3) using left(email, 3)")
    with pytest.raises(StepFailed, match="More than 20 rows cannot be changed"):
        bench.apply(fill(bench))


def test_a_deferred_constraint_is_checked_batch_by_batch(bench: Bench) -> None:
    people(bench)
    bench.look.execute(
        "alter table t add constraint uq unique (email) deferrable initially deferred",
        "update t set email = 'name8@shop' where id = 3",
    )
    with pytest.raises(StepFailed, match="23505"):
        bench.apply(fill(bench))
    assert bench.aside("k1, sqlstate") == [(8, "23505")]


def test_the_ceiling_holds_for_all_batches_together(bench: Bench) -> None:
    people(bench)
    step = fill(bench, at_most=1_500, workers=2)
    with pytest.raises(TooManyRows, match="at most 1,500 were planned"):
        bench.apply(step)
    ((changed,),) = bench.images("count(*)")
    assert 0 < changed <= 1_500
    assert bench.look.query("select count(*) from t where email is null") == [(2_000 - changed,)]
    bench.undo(step)
    assert bench.look.query("select count(*) from t where email is null") == [(2_000,)]


@pytest.mark.parametrize("key", ["id int primary key", "id int"])
def test_a_change_that_leaves_the_condition_true_is_not_made(bench: Bench, key: str) -> None:
    """The guide's loop rewrites the same rows for ever where lower(NULL) is NULL."""
    people(bench, key)
    before = bench.look.rows()
    step = bench.step("public.t", "update", {"email": "lower(t.email)"}, where=NULL)
    with pytest.raises(StepFailed, match=r"satisfy the condition .* still after their change.* 0 rows are changed"):
        bench.apply(step)
    assert bench.look.rows() == before


def test_a_change_that_leaves_the_condition_true_of_some_rows_is_not_repeated(bench: Bench) -> None:
    people(bench)
    step = bench.step("public.t", "update", {"email": "nullif(t.name, 'Name2000')"}, where=NULL)
    with pytest.raises(StepFailed, match=r"still after their change.* 2,000 rows are changed .*`mend undo"):
        bench.apply(step)
    assert bench.images("count(*), count(distinct k1)") == [(2_000, 2_000)]
    bench.undo(step)


def test_new_values_from_old_ones_are_looked_at_after_each_batch(bench: Bench) -> None:
    """One increase brings the first rows over the bound; of the others it would have to be made again and again."""
    bench.look.execute(
        "create table t (id int primary key, price numeric not null)",
        "insert into t select n, case when n <= 4000 then 95 else 10 end from generate_series(1, 6000) as n",
    )
    step = bench.step("public.t", "update", {"price": "t.price * 1.2"}, where="t.price < 100", each=True, batch_ms=1)
    with pytest.raises(StepFailed, match="still after their change"):
        bench.apply(step)
    assert bench.look.query("select distinct price from t where price < 95") == [(10,)]


def test_every_workers_error_is_told_and_what_is_committed_stands(bench: Bench) -> None:
    people(bench, rows=20_000)
    right = "create or replace function email(id int) returns text language sql as $$ select 'name' || id || '@shop' $$"
    bench.look.execute(
        "create function email(id int) returns text language plpgsql as $$ begin "
        "perform pg_sleep(1); raise exception 'broken' using errcode = 'XX000'; end $$"  # both are at work by then
    )
    step = bench.step("public.t", "update", {"email": "public.email(t.id)"}, where=NULL, workers=2)
    with pytest.raises(
        StepFailed, match=r"worker 1: broken .*XX000.* worker 2: broken .* 0 rows are changed"
    ) as failed:
        bench.apply(step)
    assert failed.value.sqlstate == "XX000"
    assert bench.state(step) == "partial"
    bench.look.execute("drop function email", right)
    bench.resume(step)
    assert filled(bench)
    assert bench.images("count(*), count(distinct k1)") == [(13_334, 13_334)]


# -- while others write ---------------------------------------------------------------------------------------------------


def test_a_row_that_somebody_holds_is_passed_over_and_swept_up(bench: Bench) -> None:
    people(bench)
    letting_go = threading.Event()

    def hold() -> None:
        with bench.look.holding("update t set name = 'Held' where id = 500"):
            letting_go.wait(30)

    with meanwhile(hold):
        until(
            lambda: bench.look.query(
                "select 1 from pg_stat_activity where application_name = 'in-the-way' and xact_start is not null"
            ),
            what="held",
        )
        threading.Timer(0.5, letting_go.set).start()
        bench.apply(fill(bench))
    assert filled(bench)
    assert bench.images("count(*)") == [(2_000,)]


def returns_old(bench: Bench) -> bool:
    ((version,),) = bench.look.query("select cast(current_setting('server_version_num') as int4)")
    return int(version) >= 180000


def test_a_batch_that_would_wait_for_a_row_locks_first_instead(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    if not returns_old(bench):
        pytest.skip("this server does not return old values")
    people(bench)
    meeting_a_lock, undisturbed = fill(bench, until_none=False), fill(bench, job="job_1")
    sent: list[str] = []
    for name in ("change", "change_at_once"):
        text = getattr(batch, name)
        monkeypatch.setattr(batch, name, lambda *a, name=name, text=text, **k: (sent.append(name), text(*a, **k))[1])
    with bench.look.holding("update t set name = 'Held' where id = 500"):
        bench.apply(meeting_a_lock)
    assert sent[:2] == ["change_at_once", "change"]
    assert bench.look.query("select id from t where email is null") == [(500,)]
    sent.clear()
    bench.apply(undisturbed)
    assert set(sent) == {"change_at_once"}


def test_what_somebody_changes_while_a_batch_waits_is_what_is_kept_and_changed(bench: Bench) -> None:
    if not returns_old(bench):
        pytest.skip("this server does not return old values")
    people(bench, rows=30)
    step = bench.step("public.t", "update", {"email": "lower(t.name)", "name": "'x'"}, where=NULL)
    job = batch.job_of(step)
    bench.look.execute("create schema mend", *batch.opening(job))
    text = batch.change_at_once(job, Window("only public.t", ("(0,0)",), ("(9,0)",)))
    done: list[Any] = []
    with bench.look.connect(autocommit=False) as application:
        application.execute("update t set name = 'Held' where id = 10")
        application.execute("update t set email = 'theirs' where id = 11")
        application.execute("delete from t where id = 13")
        ours = threading.Thread(target=lambda: done.extend(bench.look.query(text)))
        ours.start()
        waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        until(lambda: bench.look.query(waits), what="the batch waits")
        application.commit()
        ours.join()
    assert done == [(18, 18, None)]
    assert bench.look.query("select o1, o2, n1, n2 from mend.image_job_0 where k1 = 10") == [
        (None, "Held", "held", "x")
    ]
    assert bench.look.query("select id, email from t where id in (10, 11) order by id") == [
        (10, "held"),
        (11, "theirs"),
    ]
    assert bench.images("count(*) filter (where k1 in (11, 13))") == [(0,)]


def test_rows_that_stay_locked_are_told_and_a_resume_finds_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mend.batches.backfill.SWEEPS", 2)
    people(bench)
    step = fill(bench)
    with (
        bench.look.holding("select from t where id = 500 for update"),
        pytest.raises(StepFailed, match=r"1 rows of public\.t still need the change"),
    ):
        bench.apply(step)
    assert bench.state(step) == "partial"
    bench.resume(step)
    assert filled(bench)


def test_a_repair_may_be_content_with_one_sweep(bench: Bench) -> None:
    people(bench)
    step = fill(bench, until_none=False)
    with bench.look.holding("select from t where id = 500 for update"):
        bench.apply(step)
    assert bench.look.query("select id from t where email is null") == [(500,)]
    assert any("1 rows are left" in line for line in bench.told)
    assert bench.state(step) == "done"


def test_a_batch_gives_way_where_it_would_wait_for_the_application(bench: Bench) -> None:
    people(bench)
    bench.look.execute(
        "create table domain (name text primary key)", "insert into domain values ('shop')",
        "alter table t add column domain text references domain",
    )  # fmt: skip
    step = bench.step("public.t", "update", {"domain": "'shop'"}, where="t.domain is null")
    letting_go = threading.Event()

    def hold() -> None:
        with bench.look.holding("select from domain for update"):
            letting_go.wait(30)

    with meanwhile(hold):
        until(
            lambda: bench.look.query(
                "select 1 from pg_stat_activity where application_name = 'in-the-way' and xact_start is not null"
            ),
            what="held",
        )
        threading.Timer(1.5, letting_go.set).start()
        bench.apply(step)
    assert bench.look.query("select count(*) from t where domain is null") == [(0,)]


def test_a_row_whose_parent_stays_locked_keeps_no_other_from_its_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mend.batches.backfill.SWEEPS", 0)
    people(bench)
    bench.look.execute(
        "create table domain (name text primary key)",
        "insert into domain select 'd' || n from generate_series(1, 3000) as n",
        "alter table t add column domain text references domain",
    )
    step = bench.step("public.t", "update", {"domain": "'d' || t.id"}, where="t.domain is null", workers=2)
    locked = bench.look.holding("select from domain where name in ('d700', 'd2700') for update")
    with locked, pytest.raises(StepFailed, match=r"2 rows of public\.t still need the change"):
        bench.apply(step)
    assert bench.look.query("select id from t where domain is null order by 1") == [(700,), (2700,)]
    bench.resume(step)
    assert bench.look.query("select count(*) from t where domain is null") == [(0,)]


def test_a_lock_that_is_never_granted_ends_the_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "PATIENCE", 2)
    people(bench)
    step = fill(bench)
    with (
        bench.look.holding("lock table t in share mode"),
        pytest.raises(LockNotAcquired, match="0 rows are changed and stand"),
    ):
        bench.apply(step)
    bench.resume(step)
    assert filled(bench)


class Application:
    """Inserts, updates and deletes rows for as long as it is asked to, at first rows that need the repair; ``errors`` it met."""

    def __init__(self, bench: Bench) -> None:
        self.errors: list[str] = []
        self.kept: dict[int, str] = {}
        self.gone: set[int] = set()
        self._bench = bench
        self._ended = threading.Event()

    def work(self) -> None:
        with self._bench.look.connect(application_name="shop") as conn:
            n = 0
            while not self._ended.is_set():
                n += 1
                try:
                    self._once(conn, n)
                except psycopg.Error as error:
                    self.errors.append(str(error))

    def _once(self, conn: psycopg.Connection[Any], n: int) -> None:
        new, old = 1_000_000 + n, (n * 37) % 20_000 + 1
        conn.execute("insert into t values (%s, %s, %s)", (new, None if n < 200 else "new", f"New{n}"))
        with conn.transaction():
            conn.execute("update t set name = name || 'x' where id = %s", (old,))
            conn.execute("update t set email = %s where id = %s", (f"mine{n}", new))
        self.kept[new] = f"mine{n}"
        if n % 5 == 0:
            conn.execute("delete from t where id = %s", (old,))
            self.gone.add(old)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with meanwhile(self.work):
            until(lambda: len(self.kept) > 20, what="the application works")
            yield
            self._ended.set()


@pytest.mark.parametrize("by", ["ctid", "keyset"])
def test_an_application_that_writes_meanwhile_gets_no_error_and_loses_nothing(bench: Bench, by: str) -> None:
    people(bench, rows=20_000)
    app = Application(bench)
    step = bench.step("public.t", "update", {"email": "'filled'"}, where=NULL, by=by, workers=2)
    with app.at_work():
        bench.apply(step)
        until(lambda: len(app.kept) > 300, what="it goes on")
    assert app.errors == []
    look = bench.look
    assert (
        dict(look.query("select id, email from t where id > 1000000 and email <> 'filled'")).items() <= app.kept.items()
    )
    assert {row[0] for row in look.query("select id from t where id > 1000000")} == app.kept.keys()
    assert {
        row[0] for row in look.query("select id from generate_series(1, 20000) as id except select id from t")
    } == app.gone
    assert look.query("select count(*) from t where email is null and id <= 1000000") == [(0,)]


# -- conflicts ------------------------------------------------------------------------------------------------------------


def test_rows_that_were_changed_since_are_left_alone_and_listed(bench: Bench) -> None:
    people(bench)
    step = fill(bench)
    bench.apply(step)
    bench.look.execute(
        "update t set email = 'new@shop' where id <= 10", "delete from t where id = 100", "update t set email = null where id = 200",
        "update t set name = 'other' where id = 301",
    )  # fmt: skip
    undone = bench.undo(step)
    assert bench.look.query("select count(*) from t where email = 'new@shop'") == [(10,)]
    assert bench.look.query("select email, name from t where id = 301") == [(None, "other")]
    said = bench.restored(undone)
    assert (said["rows"], said["conflicts"]) == (2_000 - 7 - 1 - 1, 8)
    assert (
        said["sample"][0] == {"key": ["10"], "reason": "changed since"}
        or {"key": ["1"], "reason": "changed since"} in said["sample"]
    )
    assert {"key": ["100"], "reason": "the row is gone"} in said["sample"]
    assert any("8 rows of public.t did not go back" in line for line in bench.told)


def test_a_deleted_row_does_not_come_back_over_another_or_without_its_parent(bench: Bench) -> None:
    bench.look.execute(
        "create table parent (id int primary key)", "insert into parent values (1), (2)",
        "create table t (id int primary key, parent_id int references parent, email text unique)",
        "insert into t select n, 1 + n % 2, 'e' || n from generate_series(1, 300) as n",
    )  # fmt: skip
    step = bench.step("public.t", "delete", where="true")
    bench.apply(step)
    bench.look.execute("insert into t values (7, 2, 'again'), (1000, 2, 'e9')", "delete from parent where id = 1")
    undone = bench.undo(step)
    assert bench.look.query("select email from t where id = 7") == [("again",)]
    assert (bench.restored(undone)["rows"], bench.restored(undone)["conflicts"]) == (148, 152)


KEPT = "create function keep() returns trigger language plpgsql as $$ begin return null; end $$"


@pytest.mark.parametrize(
    ("action", "fires", "after", "told"),
    [
        ("update", "update on t for each row when (old.id = 7)", "email = 'x'", "a trigger or a rule kept it"),
        ("delete", "insert on t for each row when (new.id = 7)", "", "a trigger or a rule kept it out"),
        ("delete", "insert on t for each row when (new.id = 7)", "other", "a trigger or a rule altered it"),
        ("insert", "delete on t for each row when (old.id = 7)", "email = 'x'", "a trigger or a rule kept it"),
    ],
)
def test_a_row_that_a_trigger_keeps_from_going_back_is_told(
    bench: Bench, action: str, fires: str, after: str, told: str
) -> None:
    bench.look.execute("create table t (id int primary key, email text)")
    work = {"work": "select n as k1 from generate_series(1, 10) as n", "match": ("id",)} if action == "insert" else {}
    if action != "insert":
        bench.look.execute("insert into t select n, null from generate_series(1, 10) as n")
    values = {"update": {"email": "'x'"}, "insert": {"id": "w.k1", "email": "'x'"}}.get(action)
    step = bench.step("public.t", action, values, where="true" if action != "update" else NULL, **work)
    bench.apply(step)
    alters = KEPT.replace("return null", "new.email := 'altered'; return new") if after == "other" else KEPT
    bench.look.execute(alters, f"create trigger tr before {fires} execute function keep()")
    said = bench.restored(bench.undo(step))
    assert (said["rows"], said["conflicts"], said["sample"]) == (9, 1, [{"key": ["7"], "reason": told}])
    there = {"kept it": [("x",)], "kept it out": [], "altered it": [("altered",)]}
    assert bench.look.query("select email from t where id = 7") == there[told.partition("rule ")[2]]


@pytest.mark.parametrize("action", ["update", "insert"])
def test_a_row_that_somebody_writes_just_before_it_is_locked_goes_back_all_the_same(bench: Bench, action: str) -> None:
    """Its other columns, that is.  The statement locks the new version and cannot change it; the next one can."""
    bench.look.execute("create table t (id int primary key, email text, name text)")
    values, more = {"email": "'x'"}, {"where": NULL}
    if action == "insert":
        work = "select n as k1 from generate_series(1, 10) as n"
        values, more = {"id": "w.k1", "email": "'x'"}, {"work": work, "match": ("id",)}
    else:
        bench.look.execute("insert into t select n from generate_series(1, 10) as n")
    step = bench.step("public.t", action, values, **more)
    bench.apply(step)
    fires = "update on t for each row when (old.id = 1 and new.email is null)" if action == "update" else "delete on t for each row when (old.id = 1)"  # fmt: skip
    bench.look.execute(
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.2); return coalesce(new, old); end'",
        f"create trigger slow before {fires} execute function slow()",
    )
    sleeps = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
    write = "update t set name = 'new' where id = 7" if action == "update" else "update t set email = 'x' where id = 7"
    with meanwhile(lambda: (until(lambda: bench.look.query(sleeps), what="it sleeps"), bench.look.execute(write))):
        said = bench.restored(bench.undo(step))
    assert (said["rows"], said["conflicts"]) == (10, 0)
    left = [(7, None, "new")] if action == "update" else []
    assert bench.look.query("select * from t where id = 7") == left


def test_nobody_comes_to_refer_to_a_row_while_it_is_looked_at_and_taken_away(bench: Bench) -> None:
    bench.look.execute(
        "create table t (id int primary key)",
        "create table child (id int primary key, t_id int references t on delete cascade)",
        "insert into t values (1)",
    )
    work = "select n as k1 from generate_series(2, 10) as n"
    step = bench.step("public.t", "insert", {"id": "w.k1"}, work=work, match=("id",))
    bench.apply(step)
    waits = "select 1 from pg_locks where not granted and mode = 'ExclusiveLock' and relation = to_regclass('t')"
    referred, waited = threading.Event(), []

    def refer() -> None:
        with bench.look.connect(autocommit=False) as conn:
            conn.execute("insert into child values (1, 1)")
            referred.set()
            waited.append(until(lambda: bench.look.query(waits), what="the way back waits", patience_s=10))
            conn.execute("insert into child values (2, 5)")
            conn.commit()

    with meanwhile(refer):
        referred.wait(10)
        said = bench.restored(bench.undo(step))
    assert waited
    assert (said["conflicts"], said["sample"]) == (1, [{"key": ["5"], "reason": "rows refer to it"}])
    assert bench.look.query("select id, t_id from child order by 1") == [(1, 1), (2, 5)]


# -- what the database or the role is set to ------------------------------------------------------------------------------


def test_values_come_back_whatever_the_database_is_set_to(bench: Bench) -> None:
    bench.look.execute(
        "create type pair as (a float8, b date, c interval, d bytea)",
        "create table t (id int primary key, p pair, on_day date)",
        "insert into t values (1, row(0.1::float8 + 0.2::float8, '2026-02-01', '-1 day -02:03:00', '\\x00ff'), null)",
        _database("extra_float_digits = -5"),
        _database("datestyle = 'SQL, DMY'"),
        _database("intervalstyle = 'sql_standard'"),
        _database("bytea_output = 'escape'"),
    )
    binary = "select (p).a = 0.1::float8 + 0.2::float8, extract(month from (p).b), extract(epoch from (p).c), length((p).d) from t"
    before = bench.look.query(binary)
    assert before[0][0]
    step = bench.step("public.t", "update", {"p": "null", "on_day": "'03/02/2026'"}, where="t.p is not null")
    bench.apply(step)
    day = bench.look.query("select extract(month from on_day), extract(day from on_day) from t")
    assert day == [(2, 3)], "the database's own order of day and month"
    bench.look.execute(_database("datestyle = 'ISO, MDY'"), _database("bytea_output = 'hex'"))
    assert bench.restored(bench.undo(step))["rows"] == 1
    assert bench.look.query(binary) == before


def test_what_ends_or_isolates_sessions_of_the_application_leaves_ours_alone(bench: Bench) -> None:
    people(bench, rows=300)
    bench.look.execute(
        _database("idle_session_timeout = '150ms'"), _database("default_transaction_isolation = 'serializable'")
    )
    slow = {"email": "lower(t.name) || '@shop' || substr(cast(pg_sleep(0.002) as text), 1, 0)"}
    with bench.look.connect() as other:
        other.execute("set idle_session_timeout = 0")
        bench.apply(bench.step("public.t", "update", slow, where=NULL))
    assert filled(bench)


def _database(setting: str) -> str:
    return f"do $$ begin execute format('alter database %I set {setting.replace(chr(39), chr(39) * 2)}', current_database()); end $$"


# -- an end before the end ------------------------------------------------------------------------------------------------


def test_a_worker_that_is_ended_interrupts_and_a_resume_goes_on(bench: Bench) -> None:
    people(bench, rows=60_000)
    step = bench.step("public.t", "update", {"email": "lower(t.name) || '@shop'"}, where=NULL, workers=2, batch_ms=5)
    end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'mend:%:w1' and state <> 'idle'"
    with (
        meanwhile(lambda: until(lambda: bench.look.query(end) != [(0,)], what="ended")),
        pytest.raises(Interrupted, match=r"worker 1: .*rows are changed and stand.*`mend resume"),
    ):
        bench.apply(step)
    assert bench.state(step) == "partial"
    bench.resume(step)
    assert filled(bench)
    assert bench.images("count(*), count(distinct k1)") == [(40_000, 40_000)]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python hears SIGINT, also where the tests' runner was started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_operator_who_interrupts_lets_each_batch_end(bench: Bench) -> None:
    people(bench, rows=15_000)
    bench.look.execute(
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.0003); return new; end'",
        "create trigger slow before update on t for each row execute function slow()",
    )
    step = fill(bench, workers=2, batch_ms=5)
    began = "select from mend.image_job_0 limit 1"

    def interrupt() -> None:
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            until(lambda: bench.look.query("select to_regclass('mend.image_job_0')") != [(None,)], what="it began")
            until(lambda: bench.look.query(began), what="rows are changed")
        _thread.interrupt_main()

    with meanwhile(interrupt), pytest.raises(Interrupted, match=r"is done in part: .*rows changed.* goes on from here"):
        bench.apply(step)
    assert bench.look.query("select count(*) from t where email is null") > [(0,)]
    assert bench.look.query("select count(*) from pg_stat_activity where application_name ~ '^mend:.*:w'") == [(0,)]
    bench.look.execute("drop trigger slow on t")
    bench.resume(step)
    assert filled(bench)
    assert bench.images("count(*), count(distinct k1)") == [(10_000, 10_000)]


def test_pages_that_are_fuller_than_the_statistics_say_make_no_large_batch(bench: Bench) -> None:
    bench.look.execute(
        "create table t (id int primary key, email text)",
        "insert into t select n, 'x' from generate_series(1, 20000) as n",
        "delete from t where id > 20",
        "vacuum (analyze, truncate off) t",
        "insert into t select n, null from generate_series(20001, 22000) as n",
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.0002); return new; end'",
        "create trigger slow before update on t for each row execute function slow()",
    )
    bench.apply(bench.step("public.t", "update", {"email": "'x'"}, where="t.email is null"))
    largest = "select max(rows) from (select count(*) as rows from mend.image_job_0 group by xmin) as batches"
    assert bench.look.query(largest)[0][0] < 1_500


def test_the_journal_tells_how_it_went(bench: Bench) -> None:
    people(bench)
    done = bench.apply(fill(bench))
    last = done.journal.of("batch_sample")[-1].payload
    assert (last["step"], last["rows"], last["workers"]) == (0, 2_000, 1)
    assert done.journal.of("step_done")[0].payload["rows"] == 2_000


def test_tables_of_another_repair_of_the_same_name_are_left_alone(bench: Bench) -> None:
    people(bench)
    bench.apply(fill(bench))
    other = bench.step("public.t", "update", {"email": "'x'"}, where="t.id < 10")
    with pytest.raises(Refused, match="belongs to another repair"):
        bench.apply(other)


def test_what_is_done_of_an_interrupted_repair_can_be_given_back(bench: Bench) -> None:
    people(bench)
    before = bench.look.rows()
    step = fill(bench, at_most=1_000)
    with pytest.raises(TooManyRows):
        bench.apply(step)
    assert bench.images("count(*) > 0") == [(True,)]
    bench.undo(step)
    assert bench.look.rows() == before


def test_a_deadline_stops_the_step_and_a_resume_goes_on(bench: Bench) -> None:
    people(bench, rows=50_000)
    step = bench.step(
        "public.t",
        "update",
        {"email": "lower(t.name) || '@shop' || substr(pg_sleep(0.0003)::text, 1, 0)"},
        where=NULL,
        deadline_s=1,
    )
    with pytest.raises(Interrupted, match="The deadline of 1 s has passed"):
        bench.apply(step)
    assert bench.state(step) == "partial"


# -- what refers to the rows ----------------------------------------------------------------------------------------------


def deleted(bench: Bench, table: str, where: str, **more: Any) -> tuple[Step, ...]:
    found = deletion(Repair("job", table, "delete", where=where), live=bench.live(), **more)
    return tuple(bench.stepped(one) for one in found)


FAMILY = (
    "create table a (id int primary key, up int references a on delete cascade)",
    "create table b (id int primary key, a_id int references a on delete cascade)",
    "create table c (id int primary key, b_id int references b on delete cascade, a_id int references a on delete set null)",
    "create table d (id int primary key, c_id int default 0 references c on delete set default)",
    "insert into a select n, nullif(n / 3, 0) from generate_series(1, 60) as n",
    "insert into b select n, 1 + n % 60 from generate_series(1, 600) as n",
    "insert into c select n, 1 + n % 600, 1 + n % 59 from generate_series(0, 1200) as n",
    "insert into d select n, n % 1200 from generate_series(1, 2400) as n",
    "update c set b_id = null, a_id = null where id = 0",
)


def test_a_delete_takes_along_what_the_foreign_keys_would_and_all_of_it_comes_back(bench: Bench) -> None:
    bench.look.execute(*FAMILY)
    before = bench.look.rows()
    steps = deleted(bench, "public.a", "t.id in (2, 5)")
    bench.apply(*steps)
    after = bench.look.rows()
    kept = sum(bench.look.query(f"select count(*) from mend.image_{step.arguments['job']}")[0][0] for step in steps)
    bench.undo(*steps)
    assert bench.look.rows() == before
    bench.look.execute("delete from a where id in (2, 5)")
    assert bench.look.rows() == after
    assert kept > 100


def test_a_row_to_which_another_refers_meanwhile_is_not_deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mend.batches.backfill.SWEEPS", 1)
    bench.look.execute(*FAMILY)
    *children, last = deleted(bench, "public.b", "t.id <= 10")
    bench.apply(*children)
    bench.look.execute("insert into c values (9999, 5, null)")
    with pytest.raises(StepFailed, match=r"1 rows of public\.b still need"):
        bench.apply(last)
    assert bench.look.query("select b_id from c where id = 9999") == [(5,)]


def test_a_foreign_key_without_a_rule_forbids_the_delete(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mend.batches.backfill.SWEEPS", 1)
    bench.look.execute(
        "create table a (id int primary key)", "create table b (id int primary key, a_id int references a)",
        "insert into a values (1), (2)", "insert into b values (1, 1)",
    )  # fmt: skip
    with pytest.raises(Refused, match=r"public\.b \(a_id\) refers to them without ON DELETE"):
        deleted(bench, "public.a", "true")
    with pytest.raises(StepFailed, match=r"1 rows of public\.a could not be changed.*23503"):
        bench.apply(*deleted(bench, "public.a", "true", strict=False))
    assert bench.look.query("select id from a") == [(1,)]
