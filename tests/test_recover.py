"""A dropped column's values come back as they were, and the catalog is never left changed: on every server version at hand."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_bench import Bench
from fix_runs import FORKS, Look, until
from mend import journal
from mend.change.kept import Copy, Keeper
from mend.database import target
from mend.errors import MendError, NoServerBinaries, OutcomeUnknown, StepFailed
from mend.execution import resolve
from mend.loss import dropped, recover
from mend.loss.dropped import Dropped
from mend.plan import Step
from mend.postgres.server import Server, find_binaries

PATIENCE_S = 60
TYPES = {
    "small": ("smallint", "n"), "whole": ("integer", "n * 1000"), "big": ("bigint", "n * 10000000000"), "exact": ("numeric(20,6)", "n / 7.0"),
    "single": ("real", "n / 3.0"), "double": ("double precision", "n / 3.0"), "yes": ("boolean", "n % 2 = 0"), "at": ("timestamp with time zone", "timestamptz '2020-02-02 02:02:02.020202+02' + n * interval '1 hour'"),
    "day": ("date", "date '2020-02-29' + n"), "span": ("interval", "n * interval '1 mon 2 days 3.000004 s'"), "id16": ("uuid", "cast(md5(n::text) as uuid)"), "doc": ("jsonb", "jsonb_build_object('n', n, 'deep', array[n, null], 'text', repeat('ü', n))"),
    "raw": ("bytea", "decode(md5(n::text), 'hex')"), "word": ("character varying(40)", "'Grüße ' || n || E'\\n\\t\\\\'"), "fixed": ("character(8)", "'a' || n"), "mood": ("public.mood", "(enum_range(null::mood))[1 + n % 3]"),
    "positive": ("public.positive", "n"), "list": ("integer[]", "array[n, null, n + 1]"), "moods": ("public.mood[]", "array['ok']::mood[]"), "pair": ("bytea", "decode(md5('x' || n), 'hex')"),
    "reach": ("int4range", "int4range(n, n + 10)"), "named": ("name", "'n' || n"), "prices": ("numeric(9,2)[]", "array[[n / 3.0, null], [0, -n]]"), "far": ("numrange", "numrange(n / 7.0, null, '[]')"),
    "address": ("inet", "inet '10.0.0.0' + n"), "flags": ("varbit(9)", "n::bit(9)"), "plain": ("json", "json_build_object('n', n)"), "shares": ("numeric", "(array['NaN', 1e-90, 0, -n])[1 + n % 4]::numeric"), "words": ("text[]", "array['a' || n, null, '']"), "doubled": ("integer", ""),
}  # fmt: skip
ROWS = 60
# One text of each kind of storage: in the row, compressed there, out of line, out of line and compressed.
TEXTS = """
case n % 6 when 0 then null when 1 then '' when 2 then 'short ' || n when 3 then repeat('word ', 700)
  when 4 then (select string_agg(md5(cast(n * 1000 + i as text)), '') from generate_series(1, 150) as i)
  else (select string_agg(md5(cast(i as text)) || repeat('-', 300), '') from generate_series(1, 60 + n) as i) end
"""


@pytest.fixture(scope="module", params=[18, 15])
def own_server(request: pytest.FixtureRequest, session_directory: Path) -> Iterator[Server]:
    """A server of that version, which may be crashed."""
    try:
        binaries = find_binaries(request.param)
    except NoServerBinaries:
        pytest.skip(f"no binaries of PostgreSQL {request.param} on this machine")
    server = Server(
        session_directory / f"pg-recover-{request.param}", binaries, settings={"autovacuum": "off"}, detached=False
    )
    server.start()
    yield server
    server.destroy()


@pytest.fixture
def specimen(own_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    """An empty database of its own."""
    admin = Look(own_server.url())
    admin.execute("create database specimen")
    monkeypatch.setenv("BENCH_URL", own_server.url("specimen"))
    yield Bench(own_server.url("specimen"), tmp_path / "bench")
    admin.execute("drop database specimen with (force)")


def columns(bench: Bench, table: str) -> tuple[Dropped, ...]:
    with target.resolve("env:BENCH_URL").reading() as conn:
        return dropped.columns(conn, table)


def reading(
    bench: Bench, table: str, column: str, definition: str, *places: Dropped, key: str = "id", run: str = ""
) -> Step:
    keeper = Keeper("mend", f"key {run}")
    with target.resolve("env:BENCH_URL").reading() as conn:
        kind = dropped.type_of(conn, definition, -1)
    assert kind is not None
    assert kind.layout is not None
    copy = Copy(keeper, f"{table}.{column}", table)
    wanted = recover.Wanted(table, column, definition, kind.layout, {key: "integer"}, places, copy)
    return recover.step(wanted, rows_expected=None)


def kept(step: Step) -> str:
    match = re.search(r"create table (\S+) as", step.sql())
    assert match
    return match[1]


def attributes(look: Look, *tables: str) -> list[tuple[Any, ...]]:
    """pg_attribute of these tables, each row whole, where it lies and which transaction wrote it."""
    named = ", ".join(f"'{table}'::regclass" for table in tables)
    return look.query(
        f"select ctid::text, xmin::text, cast(a as text) from pg_attribute as a where attrelid in ({named}) order by attrelid, attnum"
    )


def texts(bench: Bench, storage: str = "extended", compression: str = "") -> Look:
    """A table ``t`` that has lost its texts; ``o`` has them as they were."""
    look = bench.look
    look.execute(
        "create table t (id integer primary key, body text, n integer)",
        f"alter table t alter body set storage {storage}",
    )
    if compression:
        look.execute(f"alter table t alter body set compression {compression}")
    look.execute(
        f"insert into t select n, {TEXTS}, n from generate_series(1, {ROWS}) as n",
        "create table o as select id, body from t",
        "alter table t drop column body",
    )
    return look


SAME = 'select count(*), count(*) filter (where o.body = k.body collate "C" and octet_length(o.body) = octet_length(k.body)) from {} as k join o using (id)'
OLD = "select count(*) from o where body is not null"


# -- what comes back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "compression"), [("extended", ""), ("external", ""), ("main", ""), ("extended", "lz4")]
)
def test_texts_come_back_byte_for_byte_however_they_were_stored(
    specimen: Bench, storage: str, compression: str
) -> None:
    try:
        look = texts(specimen, storage, compression)
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server is built without lz4")
    before = attributes(look, "t")
    (place,) = columns(specimen, "public.t")
    step = reading(specimen, "public.t", "body", "text", place)
    writer = specimen.apply(step)
    ((wanted,),) = look.query(OLD)
    assert look.query(SAME.format(kept(step))) == [(wanted, wanted)]
    assert attributes(look, "t") == before
    (said,) = writer.journal.of("catalog_compared")
    assert (said.payload["same"], said.payload["status"]) == (True, "aborted")


def test_values_of_every_type_come_back(specimen: Bench) -> None:
    look = specimen.look
    made = ", ".join(
        f"{name} {kind}" + (" generated always as (id * 2) stored" if name == "doubled" else "")
        for name, (kind, _) in TYPES.items()
    )
    stored = {name: value for name, (_, value) in TYPES.items() if value}
    look.execute(
        "create type mood as enum ('sad', 'ok', 'happy')", "create domain positive as integer check (value > 0)",
        f"create table t (id integer primary key, {made})",
        f"insert into t (id, {', '.join(stored)}) select n, {', '.join(stored.values())} from generate_series(1, {ROWS}) as n",
        "create table o as select * from t",
        f"alter table t {', '.join(f'drop column {name}' for name in TYPES)}",
    )  # fmt: skip
    before = attributes(look, "t")
    places = dict(zip(TYPES, columns(specimen, "public.t"), strict=True))
    steps = {}
    for name, (definition, _) in TYPES.items():
        with target.resolve("env:BENCH_URL").reading() as conn:
            kind = dropped.type_of(conn, definition, places[name].modifier)
        assert dropped.objection(places[name], kind, named=definition, certain=True) == ""
        steps[name] = reading(specimen, "public.t", name, definition, places[name])
    specimen.apply(*steps.values())
    for name, step in steps.items():
        same = f"select count(*) from {kept(step)} as k join o using (id) where cast(k.{name} as text) = cast(o.{name} as text)"
        assert look.query(same) == [(ROWS,)], name
    assert attributes(look, "t") == before


def test_rows_written_since_hold_nothing_and_are_told_in_advance(bench: Bench) -> None:
    look = texts(bench)
    look.execute(
        "update t set n = n + 1 where id <= 12",
        "insert into t select i from generate_series(101, 103) as i",
        "vacuum (freeze) t",
    )
    (place,) = columns(bench, "public.t")
    with target.resolve("env:BENCH_URL").reading() as conn:
        counted = dropped.rows(conn, place)
    assert (counted.older, counted.written, place.rewritten) == (ROWS - 12, 15, False)
    step = reading(bench, "public.t", "body", "text", place)
    bench.apply(step)
    ((wanted,),) = look.query(f"{OLD} and id > 12")
    assert look.query(SAME.format(kept(step))) == [(wanted, wanted)]


def test_rows_that_the_dropping_transaction_wrote_before_it_dropped_are_read(bench: Bench) -> None:
    look = bench.look
    look.execute(
        "create table t (id integer primary key, body text, n integer)",
        "insert into t select n, 'b' || n from generate_series(1, 10) as n",
    )
    with look.connect(autocommit=False) as conn:
        conn.execute("update t set body = body || '!' where id <= 4")
        conn.execute("alter table t drop column body")
        conn.execute("update t set n = 1 where id in (1, 9)")
    (place,) = columns(bench, "public.t")
    with target.resolve("env:BENCH_URL").reading() as other:
        assert dropped.rows(other, place).older == 8
    step = reading(bench, "public.t", "body", "text", place)
    bench.apply(step)
    assert look.query(f"select count(*), count(*) filter (where body like '%!') from {kept(step)}") == [(8, 3)]


def test_a_table_written_anew_holds_nothing_and_that_is_told_as_possible(bench: Bench) -> None:
    look = texts(bench)
    look.execute("vacuum full t")
    (place,) = columns(bench, "public.t")
    assert place.rewritten
    step = reading(bench, "public.t", "body", "text", place)
    bench.apply(step)
    assert look.query(f"select count(*) from {kept(step)}") == [(0,)]


def test_a_column_dropped_twice_under_one_name_and_added_back_is_told_by_its_number(bench: Bench) -> None:
    look = bench.look
    look.execute(
        "create table t (id integer primary key, body text)", "insert into t select n, 'first' || n from generate_series(1, 5) as n", "alter table t drop column body",
        "alter table t add column body text", "insert into t select n, 'second' || n from generate_series(6, 9) as n", "alter table t drop column body",
        "alter table t add column body text",
    )  # fmt: skip
    found = columns(bench, "public.t")
    assert [one.attnum for one in found] == [2, 3]
    for n, place in enumerate(found):
        step = reading(bench, "public.t", "body", "text", place, run=str(n))
        bench.apply(step)
        assert look.query(f"select min(body), count(*) from {kept(step)}") == [
            ("first1", 5) if n == 0 else ("second6", 4)
        ]


def test_each_partition_is_read_by_its_own_number(bench: Bench) -> None:
    look = bench.look
    look.execute(
        "create table t (id integer primary key, body text) partition by range (id)", "create table t_1 partition of t for values from (0) to (50)",
        "create table t_2 (junk bigint, body text, id integer not null)", "alter table t_2 drop column junk", "alter table t attach partition t_2 for values from (50) to (100)",
        "insert into t select n, 'b' || n from generate_series(1, 99) as n", "create table o as select * from t", "alter table t drop column body",
    )  # fmt: skip
    before = attributes(look, "t", "t_1", "t_2")
    found = [one for one in columns(bench, "public.t") if one.kind == "r" and one.shape[0] == -1]
    assert [(one.relation, one.root, one.attnum) for one in found] == [
        ("public.t_1", "public.t", 2),
        ("public.t_2", "public.t", 2),
    ]
    step = reading(bench, "public.t", "body", "text", *found)
    bench.apply(step)
    assert look.query(SAME.format(kept(step))) == [(99, 99)]
    assert attributes(look, "t", "t_1", "t_2") == before


def test_what_a_fast_default_gave_is_not_on_disk(bench: Bench) -> None:
    """DROP COLUMN forgets attmissingval: rows from before ADD COLUMN are read as NULL."""
    look = bench.look
    look.execute(
        "create table t (id integer primary key)", "insert into t select n from generate_series(1, 5) as n", "alter table t add column body text default 'given'",
        "insert into t values (6, 'own'), (7, default)", "alter table t drop column body",
    )  # fmt: skip
    (place,) = columns(bench, "public.t")
    step = reading(bench, "public.t", "body", "text", place)
    bench.apply(step)
    assert look.query(f"select id, body from {kept(step)} order by 1") == [(6, "own"), (7, "given")]


# -- nothing is left ----------------------------------------------------------------------------------------------------


def test_the_reading_transaction_cannot_be_committed(specimen: Bench) -> None:
    look = texts(specimen)
    before = attributes(look, "t")
    (place,) = columns(specimen, "public.t")
    step = reading(specimen, "public.t", "body", "text", place)
    with look.connect() as conn:
        conn.execute("begin isolation level repeatable read")
        for text in step.arguments["reading"]:
            conn.execute(text.encode())
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("commit")
        conn.execute("begin")
        for text in step.arguments["reading"]:
            conn.execute(text.encode())
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("prepare transaction 'later'")
    assert attributes(look, "t") == before


def test_others_read_and_write_meanwhile_and_never_see_the_column(bench: Bench) -> None:
    look = texts(bench)
    (place,) = columns(bench, "public.t")
    step = reading(bench, "public.t", "body", "text", place)
    with look.connect() as conn, look.connect() as other:
        other.execute("select * from t").fetchall()
        conn.execute("begin isolation level repeatable read")
        for text in step.arguments["reading"]:
            conn.execute(text.encode())
        assert conn.execute(f"select count({place.name}) from t".encode()).fetchone() != (0,)
        other.execute("update t set n = 0 where id = 1")
        other.execute("insert into t values (1000, 1)")
        assert [one.name for one in other.execute("select * from t").description or ()] == ["id", "n"]
        with pytest.raises(psycopg.errors.UndefinedColumn):
            other.execute(f"select {place.name} from t".encode())
        other.execute("set lock_timeout = 50")
        for ddl in (
            "alter table t add column later integer",
            "vacuum full t",
            "analyze t",
            "create index on t (n)",
            "truncate t",
            "drop table t",
        ):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(ddl.encode())
        conn.execute("rollback")
        other.execute("alter table t add column later integer")
        assert [one.name for one in conn.execute("select * from t").description or ()] == ["id", "n", "later"]


def test_a_mark_that_is_not_as_it_was_reviewed_is_not_touched(bench: Bench) -> None:
    look = texts(bench)
    (place,) = columns(bench, "public.t")
    step = reading(bench, "public.t", "body", "text", place)
    look.execute("drop table t", "create table t (id integer primary key, body text)", "alter table t drop column body")
    before = attributes(look, "t")
    with pytest.raises(StepFailed, match="not in the catalog as it was reviewed"):
        bench.apply(step)
    assert attributes(look, "t") == before
    assert look.query("select count(*) from pg_tables where schemaname = 'mend' and tablename like 'kept%'") == [(0,)]


# -- cut off ------------------------------------------------------------------------------------------------------------

EVENTS = ["values_read", "step_xid"]


def doomed(environ: dict[str, str], bench: Bench, step: Step, kind: str) -> None:
    """In a process of its own: apply a step, and be killed at an event of its journal."""
    os.environ.update(environ)
    append = journal.Journal.append

    def deadly(self: journal.Journal, what: str, *args: Any, **kwargs: Any) -> journal.Event:
        event = append(self, what, *args, **kwargs)
        if what == kind:
            os.kill(os.getpid(), signal.SIGKILL)
        return event

    journal.Journal.append = deadly  # type: ignore[method-assign]
    bench.apply(step)


@pytest.mark.parametrize("kind", EVENTS)
def test_killed_at_any_moment_it_leaves_the_catalog_as_it_was_and_is_told_done_or_not(
    specimen: Bench, kind: str
) -> None:
    look = texts(specimen)
    before = attributes(look, "t")
    (place,) = columns(specimen, "public.t")
    step = reading(specimen, "public.t", "body", "text", place)
    child = FORKS.Process(target=doomed, args=(dict(os.environ), specimen, step, kind))
    child.start()
    child.join(PATIENCE_S)
    assert child.exitcode == -signal.SIGKILL
    resolve.await_survivors(target.resolve("env:BENCH_URL"), "mend:")
    assert attributes(look, "t") == before
    events = journal.Journal(specimen.directory / "run1" / "journal.jsonl").events()
    found = resolve.outcome(target.resolve("env:BENCH_URL"), 0, step, events)
    there = look.query("select count(*) from pg_tables where schemaname = 'mend' and tablename like 'kept%'") == [(1,)]
    assert (found.state == "done") == there
    if not there:
        specimen.runs = 1
        specimen.apply(step)
    ((wanted,),) = look.query(OLD)
    assert look.query(SAME.format(kept(step))) == [(wanted, wanted)]


def ended(look: Look, which: str, how: str) -> Callable[[], None]:
    """Ends one of the step's sessions: told to, or killed as the kernel would when memory runs out."""

    def end() -> None:
        suffix = ":reading" if which == "reading" else ":0"
        ((pid,),) = look.query("select pid from pg_stat_activity where application_name like %s", f"mend:%{suffix}")
        if how == "terminate":
            look.query(f"select pg_terminate_backend({pid})")
        else:
            os.kill(pid, signal.SIGKILL)
        with suppress(psycopg.OperationalError):
            until(lambda: not look.query(f"select 1 from pg_stat_activity where pid = {pid}"), what="it is gone")

    return end


@pytest.mark.parametrize("which", ["reading", "loading"])
@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_a_session_that_is_lost_in_the_middle_leaves_everything_as_it_was(
    specimen: Bench, monkeypatch: pytest.MonkeyPatch, which: str, how: str
) -> None:
    look = texts(specimen)
    before = attributes(look, "t")
    (place,) = columns(specimen, "public.t")
    step = reading(specimen, "public.t", "body", "text", place)
    stream, end = recover._stream, ended(look, which, how)

    def cut_off(*given: Any) -> None:
        end()
        stream(*given)

    with monkeypatch.context() as patch:
        patch.setattr(recover, "_stream", cut_off)
        with pytest.raises(MendError) as caught:
            specimen.apply(step)
    assert isinstance(caught.value, StepFailed | OutcomeUnknown), caught.value

    def answers() -> bool:
        with suppress(psycopg.OperationalError):
            return look.query("select 1") == [(1,)]
        return False

    until(answers, what="the server is back")
    assert attributes(look, "t") == before
    assert look.query("select count(*) from pg_tables where schemaname = 'mend' and tablename like 'kept%'") == [(0,)]
    specimen.apply(step)
    ((wanted,),) = look.query(OLD)
    assert look.query(SAME.format(kept(step))) == [(wanted, wanted)]
