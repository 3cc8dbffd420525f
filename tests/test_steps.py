"""Steps run forward and back on a real server: the catalog is as each step says, and content is what it was before.

Every case is recorded as a replay would: each statement alone, with what it changes. Then its steps run as the executor runs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

import psycopg
import pytest
import sqlalchemy
from mend.database import catalog
from mend.database.catalog import Change
from mend.errors import NotInvertible
from mend.plan import Statement, Step
from mend.postgres.server import Server
from mend.record import ledger
from mend.repairs.steps import Keeper, Wanted, drop_index, make, net, primary_keys, take_back
from psycopg import sql

SCHEMA = """
create schema app;
create extension citext schema app;
create type app.mood as enum ('sad', 'ok', 'happy');
create domain app.short as varchar(5) check (value <> '');
create function public.touch() returns trigger language plpgsql as $$ begin new.touched := clock_timestamp(); return new; end $$;
create table public.users (id bigserial primary key, email app.citext unique, name varchar(50) not null, mood app.mood default 'ok',
  score numeric(10, 4), born timestamptz, doc json, tags app.mood[], nick app.short, big bigint, zip text collate "C", pay integer default 7 not null,
  touched timestamptz, label varchar(10) default 'l', constraint adult check (pay > 0));
create index users_born on public.users (born);
create trigger touch before update on public.users for each row execute function public.touch();
create trigger never before update on public.users for each row execute function public.touch();
alter table public.users disable trigger never;
create trigger ever after update of name on public.users for each row execute function public.touch();
alter table public.users enable always trigger ever;
insert into public.users (email, name, mood, score, born, doc, tags, nick, big, zip, pay) select 'U' || n || '@x', 'name ' || n,
  case when n % 3 > 0 then 'happy'::app.mood end, n / 7.0, timestamptz '2024-01-01 00:00:00.123456+02' + n * interval '1 hour', json_build_object('n', n), array['sad', 'ok']::app.mood[],
  case when n % 2 > 0 then 'nick' end, n * 1000, 'z' || n, n from generate_series(1, 20) as n;
create table public.orders (zebra text, id integer generated always as identity primary key, user_id bigint references public.users, apple integer,
  twice integer generated always as (apple * 2) stored, line serial, unique (zebra));
create index orders_apple on public.orders (apple) where apple > 3;
create trigger touch after insert or update on public.orders for each statement execute function pg_catalog.suppress_redundant_updates_trigger();
drop trigger touch on public.orders;
insert into public.orders (zebra, user_id, apple) select 'z' || n, n, n from generate_series(1, 9) as n;
create table public.pairs (a integer, "B, (x" text, v text, w integer, primary key ("B, (x", a));
insert into public.pairs select n, 'b"' || n, 'v' || n, n from generate_series(1, 5) as n;
create table public.by_mood (mood app.mood primary key, v text);
insert into public.by_mood values ('sad', 'x'), ('happy', null);
create table public.by_uuid (id uuid primary key default gen_random_uuid(), v bytea, f double precision);
insert into public.by_uuid (v, f) select decode('00ff' || n, 'hex'), 0.1 + n / 3.0 from generate_series(10, 14) as n;
create table public.no_key (a integer, v text);
insert into public.no_key values (1, 'x'), (1, 'x'), (null, null);
create table public.split (id integer, at date not null, v text, primary key (id, at)) partition by range (at);
create table public.split_1 partition of public.split for values from ('2024-01-01') to ('2025-01-01');
create table public.split_2 partition of public.split default;
insert into public.split select n, date '2024-12-28' + n, 'v' || n from generate_series(1, 8) as n;
create table public.base (id integer primary key, v text);
create table public.heir (w text) inherits (public.base);
insert into public.base values (1, 'b'); insert into public.heir values (2, 'h', 'w');
create table public.forced (id integer primary key, v text);
insert into public.forced values (1, 'mine'), (2, 'hidden');
create policy own on public.forced using (id = 1);
alter table public.forced enable row level security, force row level security;
create view app.people as select id, name from public.users;
create materialized view public.sums as select user_id, sum(apple) as total from public.orders group by 1;
create unique index sums_key on public.sums (user_id);
create table app."It's 100%" ("a ""b" integer primary key, "c.%s" text);
insert into app."It's 100%" values (1, '%s %'), (2, null);
"""

#: statement by statement; a trailing " -- rows" marks a change of rows
REVERSIBLE: dict[str, list[str]] = {
    "add a column": ["alter table users add column extra text default 'x' not null"],
    "drop a column": ["alter table users drop column zip"],
    "drop a column with a default and not null": ["alter table users drop column pay"],
    "drop a column of an enum": ["alter table users drop column mood"],
    "drop a column of an enum, and the enum": ["alter table users drop column mood, drop column tags", "drop table by_mood", "drop type app.mood"],
    "drop a column of a domain": ["alter table users drop column nick", "drop domain app.short"],
    "drop a json column": ["alter table users drop column doc"],
    "drop an indexed column": ["drop index users_born", "alter table users drop column born"],
    "drop a column of an extension's type": ["alter table users drop column email"],
    "drop two columns at once": ["alter table users drop column zip, drop column big"],
    "drop a column with a sequence": ["alter table orders drop column line"],
    "drop a generated column": ["alter table orders drop column twice"],
    "drop the source of a generated column": ["alter table orders drop column twice, drop column apple cascade", "drop materialized view sums"][::-1],
    "drop a column with a foreign key": ["drop materialized view sums", "alter table orders drop column user_id"],
    "drop a column beside a composite quoted key": ["alter table pairs drop column v"],
    "drop a column beside a key of an enum": ["alter table by_mood drop column v"],
    "drop columns beside a uuid": ["alter table by_uuid drop column v, drop column f"],
    "drop a column of a partitioned table": ["alter table split drop column v"],
    "drop a column with odd names": ['alter table app."It\'s 100%" drop column "c.%s"'],
    "drop a unique column": ["alter table orders drop column zebra"],
    "rename a column": ["alter table users rename column zip to postcode"],
    "rename a column, then drop it": ["alter table users rename column zip to postcode", "alter table users drop column postcode"],
    "add a column, fill it, and make it not null": ["alter table pairs add column slug text", "update pairs set slug = v -- rows", "alter table pairs alter column slug set not null"],
    "add a column, fill it, and drop the old one": ["alter table pairs add column code text", "update pairs set code = v -- rows", "alter table pairs drop column v"],
    "rename a table": ["alter table pairs rename to couples"],
    "rename a table, then drop a column of it": ["alter table pairs rename to couples", "alter table couples drop column v"],
    "rename a constraint and an index": ["alter table users rename constraint adult to grown", "alter index users_born rename to users_birth"],
    "drop a table": ["drop table pairs"],
    "drop a table with identity, serial, generated columns": ["drop materialized view sums", "drop table orders"],
    "drop a table without a key": ["drop table no_key"],
    "drop a table with a key of an enum": ["drop table by_mood"],
    "drop a table with policies": ["drop table forced"],
    "drop a partitioned table": ["drop table split"],
    "drop a partition": ["drop table split_2"],
    "detach a partition": ["alter table split detach partition split_1"],
    "drop a table that inherits": ["drop table heir"],
    "drop a parent and its heir": ["drop table heir, base"],
    "drop a table and its schema": ['drop table app."It\'s 100%"'],
    "drop a referenced table": ["alter table orders drop constraint orders_user_id_fkey", "drop view app.people", "drop table users"],
    "create a table and fill it": ["create table notes (id serial primary key, body text)", "insert into notes (body) values ('a'), ('b') -- rows"],
    "create a table, drop another": ["create table pairs_2 (like pairs including all)", "insert into pairs_2 select * from pairs -- rows", "drop table pairs"],
    "narrow a numeric": ["alter table users alter column score type numeric(10, 1)"],
    "narrow a timestamp to a date": ["alter table users alter column born type date"],
    "narrow a float to an integer": ["alter table by_uuid alter column f type integer"],
    "narrow a text": ["alter table users alter column zip type varchar(5)"],
    "widen a text": ["alter table users alter column label type text"],
    "widen an integer": ["alter table users alter column pay type bigint"],
    "widen a key": ["alter table orders alter column id type bigint"],
    "narrow a big integer": ["alter table users alter column big type integer"],
    "text to an enum": ["alter table users alter column zip type app.mood using 'sad'::app.mood"],
    "json to jsonb": ["alter table users alter column doc type jsonb"],
    "set and drop defaults": ["alter table users alter column pay drop default", "alter table users alter column zip set default 'none'"],
    "set not null": ["alter table users alter column zip set not null"],
    "drop not null": ["alter table users alter column name drop not null"],
    "add and drop constraints": ["alter table users add constraint zips check (zip <> '')", "alter table users drop constraint adult", "alter table pairs add constraint w_key unique (w)"],
    "a constraint that is validated later": ["alter table orders add constraint positive check (apple > 0) not valid", "alter table orders validate constraint positive"],
    "drop a primary key": ["alter table pairs drop constraint pairs_pkey"],
    "change a view": ["create or replace view app.people as select id, name, zip from users"],
    "drop a view": ["drop view app.people"],
    "drop a materialized view": ["drop materialized view sums"],
    "indexes in a transaction": ["create index users_zip on users (zip)", "drop index users_born"],
    "a trigger and its function": ["drop trigger touch on users", "drop trigger never on users", "drop trigger ever on users", "drop function touch()"],
    "a new type and a column of it": ["create type app.size as enum ('s', 'm')", "alter table users add column size app.size default 's'"],
    "comments and options": ["comment on column users.zip is 'it''s'", "alter table users set (fillfactor = 70)"],
    "an index concurrently, between two transactions": [
        "alter table users add column slug text", "create index concurrently users_slug on users (slug)", "alter table users alter column slug set default 'x'",
    ],
    "a constraint, an index, then its validation": [
        "alter table users add constraint zips check (zip <> '') not valid", "create unique index concurrently users_zip on users (zip)", "alter table users validate constraint zips",
    ],
    "drop an index concurrently": ["drop index concurrently users_born"],
    "change one default twice around an index": [
        "alter table users alter column pay set default 8", "create index concurrently users_zip on users (zip)", "alter table users alter column pay set default 9",
    ],
}  # fmt: skip

IRREVERSIBLE: dict[str, tuple[list[str], str]] = {
    "a new value of an enum": (["alter type app.mood add value 'glad'"], "cannot take a value out of an enum"),
    "a column of a table without a key": (["alter table no_key drop column v"], "public.no_key has no primary key, so the values of public.no_key.v could not be kept"),
    "a column of the key itself": (["alter table pairs drop column a"], "public.pairs.a is part of the primary key"),
    "rows changed": (["update users set name = 'x' -- rows"], "it changes rows by the project's own SQL"),
    "rows deleted": (["delete from no_key -- rows"], "whose old values are not kept"),
    "rows filled and others changed": (["alter table users add column slug text", "update users set slug = name, name = 'x' -- rows"], "whose old values are not kept"),
    "rows filled and others deleted": (["alter table users add column slug text", "update users set slug = 'x'; delete from no_key -- rows"], "whose old values are not kept"),
    "rows moved": (["create table gone (a integer, v text)", "with moved as (delete from no_key returning *) insert into gone select * from moved -- rows"], "whose old values are not kept"),
    "rows of a narrowed key": (["alter table by_uuid drop constraint by_uuid_pkey, add primary key (f)", "alter table by_uuid alter column f type real"], "is part of the primary key"),
}  # fmt: skip


@pytest.fixture(scope="module")
def template(server: Server) -> Iterator[str]:
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("create database steps_template")
        with psycopg.connect(server.url("steps_template").replace("+psycopg", "")) as conn:
            conn.execute(SCHEMA.encode())
            for text in ledger.schema_statements("mend"):
                conn.execute(text.encode())
        yield "steps_template"
        admin.execute("drop database steps_template with (force)")


@pytest.fixture
def url(new_database: Callable[..., str], template: str) -> str:
    return new_database(template)


@pytest.fixture
def conn(url: str) -> Iterator[psycopg.Connection]:
    """Autocommit, as the executor's sessions are."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as conn:
        yield conn


Live = dict[tuple[str, str], str]


def facets(conn: psycopg.Connection) -> Live:
    rows = conn.execute(catalog.SNAPSHOT_SQL.encode()).fetchall()
    return {(kind, identity): definition for kind, identity, definition in rows if kind not in catalog.ROLE_KINDS}


def differ(before: Live, after: Live) -> tuple[Change, ...]:
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return tuple(Change(*key, before.get(key), after.get(key)) for key in keys)


def record(conn: psycopg.Connection, texts: Sequence[str], settings: Sequence[tuple[str, ...]] = ()) -> list[Wanted]:
    """Run the statements in a transaction that is rolled back, as in a scratch database; what each of them changes."""
    found = []
    conn.execute("begin")
    for n, marked in enumerate(texts):
        text = marked.removesuffix(" -- rows")
        before = facets(conn)
        own = settings[n] if settings else ()
        for one in own:
            conn.execute(one.encode())
        conn.execute(text.replace(" concurrently ", " ").encode())
        for one in own:
            conn.execute(re.sub(r" = .*", " to default", one).encode())
        found.append(Wanted(text, text.partition("\n")[0], differ(before, facets(conn)), marked != text, own))
    conn.execute("rollback")
    return found


def rows(conn: psycopg.Connection) -> dict[str, list[str]]:
    """Every row of every table and materialized view but mend's own, whatever the order of its columns."""
    found = {}
    names = conn.execute(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where c.relkind in ('r', 'm') and n.nspname in ('public', 'app') order by 1"
    ).fetchall()
    for (name,) in names:
        query = (
            f"select to_jsonb(t)::text from only {name} as t order by 1"
            if name != "public.sums"
            else f"select to_jsonb(t)::text from {name} as t order by 1"
        )
        found[name] = [json.dumps(json.loads(row[0]), sort_keys=True) for row in conn.execute(query.encode())]
    return found


def unmet(live: Live, step: Step, side: str) -> list[str]:
    return [
        f"{e.kind} {e.identity}: {e.definition!r} != {live.get((e.kind, e.identity))!r}"
        for e in getattr(step, side)
        if live.get((e.kind, e.identity)) != e.definition
    ]


def perform(conn: psycopg.Connection, steps: Sequence[Step]) -> None:
    """As the executor does: what must stand before, the statements with their row counts, what stands after."""
    for step in steps:
        assert unmet(facets(conn), step, "before") == []
        conn.execute("begin" if step.transactional else "select 1")
        for statement in step.statements:
            done = conn.execute(statement.sql.encode()).rowcount
            assert statement.exactly in (None, done)
        conn.execute("commit" if step.transactional else "select 1")
        assert unmet(facets(conn), step, "after") == []


def back(steps: Sequence[Step]) -> list[Step]:
    return [undo for step in reversed(steps) for undo in step.undo]


def planned(conn: psycopg.Connection, texts: Sequence[str]) -> tuple[Step, ...]:
    live = facets(conn)
    return make(record(conn, texts), live=live, keeper=Keeper("mend", "key", primary_keys(live)))


@pytest.mark.parametrize("case", REVERSIBLE)
def test_forward_and_back_gives_the_catalog_and_the_rows_that_were(conn: psycopg.Connection, case: str) -> None:
    catalog_before, rows_before = facets(conn), rows(conn)
    steps = planned(conn, REVERSIBLE[case])
    assert [step.irreversible for step in steps] == [""] * len(steps)
    perform(conn, steps)
    assert facets(conn) != catalog_before
    perform(conn, back(steps))
    assert differ(catalog_before, facets(conn)) == ()
    assert rows(conn) == rows_before


@pytest.mark.parametrize("case", IRREVERSIBLE)
def test_what_cannot_be_taken_back_says_why_and_still_goes_forward(conn: psycopg.Connection, case: str) -> None:
    texts, why = IRREVERSIBLE[case]
    steps = planned(conn, texts)
    reasons = [step.irreversible for step in steps if not step.reversible()]
    assert len(reasons) == 1
    assert why in reasons[0]
    assert not [step.undo for step in steps if step.irreversible and step.undo]
    perform(conn, steps)


# -- content -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "insert"),
    [
        (["drop materialized view sums", "drop table orders"], "insert into orders (zebra) values ('new')"),
        (["alter table orders drop column line"], "insert into orders (zebra) values ('new')"),
        (
            ["alter table orders drop constraint orders_user_id_fkey", "drop view app.people", "drop table users"],
            "insert into users (name) values ('new')",
        ),
    ],
)
def test_the_next_row_after_an_undo_gets_the_number_it_would_have_had(
    conn: psycopg.Connection, texts: list[str], insert: str
) -> None:
    steps = planned(conn, texts)
    perform(conn, steps)
    perform(conn, back(steps))
    table = insert.split()[2]
    conn.execute(insert.encode())
    (row,) = conn.execute(f"select to_jsonb(t) from {table} as t order by id desc limit 1".encode())
    numbers = {key: row[0][key] for key in ("id", "line") if key in row[0]}
    assert set(numbers.values()) == {21 if table == "users" else 10}


def test_an_identity_that_is_generated_always_comes_back_with_its_numbers(conn: psycopg.Connection) -> None:
    conn.execute(
        "create table tickets (key text primary key, number integer generated always as identity (start with 100), v text)"
    )
    conn.execute(
        "insert into tickets (key) values ('a'), ('b'); delete from tickets where key = 'a'; insert into tickets (key) values ('c')"
    )
    before = facets(conn), rows(conn)
    steps = planned(conn, ["alter table tickets drop column number"])
    perform(conn, steps)
    perform(conn, back(steps))
    assert (facets(conn), rows(conn)) == before
    conn.execute("insert into tickets (key) values ('d')")
    assert conn.execute("select number from tickets where key = 'd'").fetchone() == (103,)


def test_what_was_changed_since_is_not_overwritten_by_an_undo(conn: psycopg.Connection) -> None:
    steps = planned(conn, ["alter table users alter column score type numeric(10, 1)"])
    before = dict(conn.execute("select id, score from users").fetchall())
    perform(conn, steps)
    conn.execute(
        "alter table users disable trigger all; update users set score = 5.5 where id = 3; update users set score = null where id = 4; delete from users where id = 20"
    )
    perform(conn, back(steps))
    after = dict(conn.execute("select id, score from users").fetchall())
    assert (float(after.pop(3)), after.pop(4)) == (5.5, None)
    assert after == {key: value for key, value in before.items() if key not in (3, 4, 20)}
    (kept,) = conn.execute(
        "select relname from pg_class c join pg_attribute on attrelid = c.oid and attname = 'changed' where relnamespace = 'mend'::regnamespace"
    ).fetchall()
    conflicts = conn.execute(
        sql.SQL("select id, score from mend.{} where changed order by id").format(sql.Identifier(kept[0]))
    ).fetchall()
    assert conflicts == [(3, before[3]), (4, before[4])]


def test_rows_that_came_since_survive_an_undo_of_a_dropped_column(conn: psycopg.Connection) -> None:
    steps = planned(conn, ["alter table pairs drop column v"])
    perform(conn, steps)
    conn.execute("insert into pairs values (9, 'new', 9); delete from pairs where a = 1")
    perform(conn, back(steps))
    assert conn.execute("select a, v from pairs order by a").fetchall() == [
        (2, "v2"),
        (3, "v3"),
        (4, "v4"),
        (5, "v5"),
        (9, None),
    ]


def test_an_undo_wakes_no_trigger_and_leaves_each_as_it_was(conn: psycopg.Connection) -> None:
    before = conn.execute(
        "select tgname, tgenabled from pg_trigger where tgrelid = 'users'::regclass order by 1"
    ).fetchall()
    steps = planned(conn, ["alter table users drop column zip"])
    perform(conn, steps)
    perform(conn, back(steps))
    assert conn.execute("select count(*) from users where touched is not null").fetchone() == (0,)
    assert (
        conn.execute("select tgname, tgenabled from pg_trigger where tgrelid = 'users'::regclass order by 1").fetchall()
        == before
    )


def test_nobody_writes_between_the_copy_and_the_loss(conn: psycopg.Connection, url: str) -> None:
    (step,) = planned(conn, ["alter table pairs drop column v"])
    at = next(n for n, statement in enumerate(step.statements) if statement.sql.startswith('create table "mend".'))
    conn.execute("begin")
    for statement in step.statements[: at + 1]:
        conn.execute(statement.sql.encode())
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("update pairs set v = 'too late'")
        other.rollback()
        assert other.execute("select count(*) from pairs").fetchone() == (5,)
    conn.execute("rollback")


def test_a_policy_hides_no_row_from_the_copy(conn: psycopg.Connection, server: Server) -> None:
    for text in (
        "create role tenant",
        "grant all on schema public, mend to tenant",
        "alter table forced owner to tenant",
        "grant tenant to postgres",
    ):
        conn.execute(text.encode())
    try:
        (step,) = planned(conn, ["alter table forced drop column v"])
        conn.execute("set role tenant")
        conn.execute("begin")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            conn.execute("; ".join(statement.sql for statement in step.statements).encode())
        conn.execute("rollback; reset role")
    finally:
        conn.execute("reset role; drop owned by tenant cascade; drop role tenant")


def test_the_users_types_can_be_dropped_although_values_of_them_are_kept(conn: psycopg.Connection) -> None:
    perform(conn, planned(conn, ["alter table users drop column mood, drop column tags", "drop table by_mood"]))
    conn.execute("drop type app.mood")
    assert not conn.execute(
        "select 1 from pg_depend d join pg_class c on c.oid = d.objid and c.relnamespace = 'mend'::regnamespace where d.refclassid = 'pg_type'::regclass and d.deptype = 'n'"
    ).fetchall()


def test_what_is_kept_is_invisible_marked_and_expires(conn: psycopg.Connection) -> None:
    before = facets(conn)
    steps = planned(conn, ["alter table pairs drop column v"])
    perform(conn, steps)
    perform(conn, back(steps))
    assert facets(conn) == before
    comments = conn.execute(
        "select obj_description(oid, 'pg_class') from pg_class where relnamespace = 'mend'::regnamespace and relname like 'kept%'"
    ).fetchall()
    assert comments == [("mend: values of public.pairs.v; expires 30 days after the run",)]


def test_an_undo_that_would_lose_what_was_written_since_keeps_that_too(conn: psycopg.Connection) -> None:
    steps = planned(
        conn, ["create table notes (id integer primary key, body text)", "alter table pairs add column extra text"]
    )
    perform(conn, steps)
    conn.execute("insert into notes values (1, 'since'); update pairs set extra = 'since' where a = 2")
    perform(conn, back(steps))
    found = [
        row[0]
        for row in conn.execute(
            "select relname from pg_class where relnamespace = 'mend'::regnamespace and relname like 'kept%' and relkind = 'r'"
        )
    ]
    kept = [
        conn.execute(sql.SQL("select to_jsonb(t) from mend.{} as t").format(sql.Identifier(name))).fetchall()
        for name in found
    ]
    assert sorted(json.dumps(row[0], sort_keys=True) for rows_ in kept for row in rows_) == [
        '{"B, (x": "b\\"2", "a": 2, "extra": "since"}',
        '{"body": "since", "id": 1}',
    ]


# -- how statements are put together -----------------------------------------------------------------------------------


def test_neighbours_share_a_transaction_and_what_cannot_stands_alone(conn: psycopg.Connection) -> None:
    steps = planned(conn, [
        "alter table users add column a integer", "alter table users add column b integer", "create index concurrently ia on users (a)",
        "create index concurrently ib on users (b)", "alter table users drop column zip",
    ])  # fmt: skip
    assert [(step.transactional, step.retryable) for step in steps] == [
        (True, True),
        (False, False),
        (False, False),
        (True, True),
    ]
    assert [step.sql().count("add column") for step in steps] == [2, 0, 0, 0]
    assert [s.sql for s in steps[1].restart] == ["drop index concurrently if exists public.ia"]


def test_a_new_value_of_an_enum_is_committed_before_it_is_used(conn: psycopg.Connection) -> None:
    steps = make([
        *record(conn, ["alter table users add column extra text", "alter type app.mood add value 'glad' before 'happy'"]),
        Wanted("update users set mood = 'glad' where id = 1", "use it", (), changes_rows=True),
    ], live=facets(conn), keeper=Keeper("mend", "key"))  # fmt: skip
    assert [step.transactional for step in steps] == [True, True, True]
    perform(conn, steps)
    assert conn.execute("select mood from users where id = 1").fetchone() == ("glad",)


def test_a_setting_holds_for_its_statement_and_ends_with_it(conn: psycopg.Connection) -> None:
    conn.execute("create table app.things (a integer); create table public.things (a integer)")
    path = ("set local search_path = app",)
    wanted = record(
        conn,
        [
            "alter table things add column x text",
            "alter table things add column y text",
            "alter table things add column z text",
        ],
        [path, path, ()],
    )
    (step,) = make(wanted, live=facets(conn), keeper=Keeper("mend", "key"))
    assert step.sql().count("search_path = app") == 1
    perform(conn, [step])
    assert ("column", "public.things.z") in facets(conn)


def test_a_ceiling_stays_with_its_statement(conn: psycopg.Connection) -> None:
    (step,) = make(
        [
            Wanted("alter table pairs drop column v", "", (Change("column", "public.pairs.v", "text", None),)),
            Wanted("update pairs set w = 1", "", (), True, at_most=5),
        ],
        live=facets(conn),
        keeper=Keeper("mend", "k"),
    )
    assert [s for s in step.statements if s.at_most is not None] == [Statement("update pairs set w = 1", at_most=5)]


@pytest.mark.parametrize(
    ("text", "relation", "mode", "rewrite"),
    [
        ("alter table users drop column zip", "public.users", "ACCESS EXCLUSIVE", False),
        ("create index concurrently i on users (zip)", "users", "SHARE UPDATE EXCLUSIVE", False),
        ("alter table users alter column big type numeric", "users", "ACCESS EXCLUSIVE", None),
    ],
)
def test_a_step_says_its_strongest_lock_and_whether_it_rewrites(
    conn: psycopg.Connection, text: str, relation: str, mode: str, rewrite: bool | None
) -> None:
    (step,) = planned(conn, [text])
    modes = {lock.relation: lock.mode for lock in step.locks}
    assert mode in (modes.get(relation), modes.get(relation.removeprefix("public.")))
    assert step.rewrite in (rewrite, None if rewrite is None else rewrite, True if rewrite is None else rewrite)


def test_the_first_and_the_last_state_are_what_counts() -> None:
    a, b = Change("default", "t.c", "1", "2"), Change("default", "t.c", "2", "1")
    assert net([a, b]) == ()
    assert net([a, Change("default", "t.c", "2", None)]) == (Change("default", "t.c", "1", None),)


def test_primary_keys_are_read_whatever_is_in_the_names(conn: psycopg.Connection) -> None:
    found = primary_keys(facets(conn))
    assert found["public.pairs"] == ('"B, (x"', "a")
    assert found['app."It\'s 100%"'] == ('"a ""b"',)
    assert found["public.split_1"] == found["public.split"] == ("id", "at")
    assert "public.no_key" not in found


# -- taking back -------------------------------------------------------------------------------------------------------

TAKEN_BACK: dict[str, list[str]] = {
    "a table": ["create table notes (id serial primary key, body text not null, unique (body))", "insert into notes (body) values ('a'), ('b')"],
    "a column that was filled": ["alter table pairs add column slug text", "update pairs set slug = v", "alter table pairs alter column slug set not null", "create unique index pairs_slug on pairs (slug)"],
    "an index": ["create index users_zip on users (zip)"],
    "a widened type": ["alter table users alter column pay type bigint"],
    "several": ["create table a (id integer primary key)", "create unique index a_x on a (id)", "create table b (id integer primary key references a)", "alter table b add constraint k check (id > 0)"],
    "a default, and a null": ["alter table pairs add column tier text default 'gold'", "update pairs set tier = null"],
    "a rename among others": ["alter table users rename column pay to wage", "alter table users add column tier text default 'x'", "alter table pairs rename to couples"],
    "a dropped default": ["alter table users alter column pay drop default"],
}  # fmt: skip


def one_by_one(conn: psycopg.Connection, texts: Sequence[str]) -> list[tuple[str, tuple[Change, ...]]]:
    """Run each statement, and tell what it changed."""
    found = []
    for text in texts:
        before = facets(conn)
        conn.execute(text.encode())
        found.append((text, differ(before, facets(conn))))
    return found


@pytest.mark.parametrize("case", TAKEN_BACK)
def test_what_is_there_is_taken_back_and_comes_again_with_its_rows(conn: psycopg.Connection, case: str) -> None:
    before, rows_before = facets(conn), rows(conn)
    done = one_by_one(conn, TAKEN_BACK[case])
    live, rows_done = facets(conn), rows(conn)
    steps = take_back(done, says="Take it back", live=live, keeper=Keeper("mend", "key", primary_keys(live)))
    perform(conn, steps)
    assert differ(before, facets(conn)) == ()
    assert rows(conn) == rows_before
    perform(conn, back(steps))
    assert differ(live, facets(conn)) == ()
    assert rows(conn) == rows_done


def test_indexes_are_taken_back_first_and_without_blocking(conn: psycopg.Connection) -> None:
    before = facets(conn)
    done = one_by_one(conn, ["alter table users add column slug text", "create index users_slug on users (slug)"])
    live = facets(conn)
    steps = take_back(done, says="Take it back", live=live, keeper=Keeper("mend", "key", primary_keys(live)))
    assert [(step.transactional, step.statements[-1].sql) for step in steps] == [
        (False, "drop index concurrently if exists public.users_slug"), (True, "alter table public.users drop column slug"),
    ]  # fmt: skip
    perform(conn, steps)
    assert differ(before, facets(conn)) == ()


def test_what_has_no_inverse_is_not_taken_back_at_all(conn: psycopg.Connection) -> None:
    done = one_by_one(conn, ["alter type app.mood add value 'glad'"])
    with pytest.raises(NotInvertible, match="cannot take a value out of an enum"):
        take_back(done, says="", live=facets(conn), keeper=Keeper("mend", "key"))


@pytest.mark.parametrize("state", ["", " INVALID", " INVALID, ready"])
def test_an_index_is_built_again_as_it_was_found(state: str) -> None:
    definition = f'CREATE UNIQUE INDEX "I x" ON public.t USING btree (a) WHERE (a > 0){state}'
    step = drop_index('public."I x"', definition, says="Drop it")
    (again,) = step.undo
    assert again.statements[0].sql == 'CREATE UNIQUE INDEX CONCURRENTLY "I x" ON public.t USING btree (a) WHERE (a > 0)'
    assert again.kind == ("invalid_index" if state else "sql")
    assert (again.before, again.after) == (step.after, step.before)
    assert step.before[0].definition == definition


def test_every_statement_of_a_plan_survives_the_percent_signs_of_its_names(conn: psycopg.Connection, url: str) -> None:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    steps = planned(conn, ['alter table app."It\'s 100%" drop column "c.%s"'])
    with engine.begin() as ours:
        for statement in steps[0].statements:
            ours.exec_driver_sql(statement.sql.replace("%", "%%"))
    assert ("column", 'app."It\'s 100%"."c.%s"') not in facets(conn)


def test_an_index_over_partitions_is_dropped_as_postgresql_allows() -> None:
    made = Change("index", "app.ix", None, "CREATE INDEX ix ON ONLY app.log USING btree (id)")
    live = {("index", "app.ix"): str(made.after), ("table", "app.log"): "permanent partition by RANGE (at)"}
    (step,) = take_back([("", [made])], says="Take it back", live=live, keeper=Keeper("mend", "k"))
    assert [one.sql for one in step.statements] == ["drop index app.ix"]
