"""What locks.py says is compared with pg_locks while the statement's transaction is open."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from mend.change import locks
from mend.change.locks import Lock
from mend.postgres.server import Server

SCHEMA = """
create table users (id bigint primary key, name text, score integer, constraint positive check (score > 0) not valid);
create table orders (id bigint, user_id bigint constraint fk references users, total integer);
create unique index orders_id on orders (id);
create index orders_total on orders (total);
create table "Odd ""T" ("a.b" integer);
create table parts (at date, v integer) partition by range (at);
create table parts_1 partition of parts for values from ('2024-01-01') to ('2025-01-01');
create table parts_2 (at date, v integer);
create table base (a integer); create table child (a integer);
create view people as select id from users;
create materialized view totals as select count(*) as n from orders;
create unique index totals_n on totals (n);
create function f() returns trigger language plpgsql as 'begin return new; end';
create trigger tr before insert on users for each row execute function f();
create policy p on users using (true);
create table referring (user_id bigint references users);
create sequence s;
create type mood as enum ('sad');
create domain dom as integer;
create statistics st on id, total from orders;
"""

STATEMENTS = [
    "alter table users add column a integer, add column b text default 'x'",
    "ALTER TABLE IF EXISTS ONLY public.users /* why */ DROP COLUMN score -- gone",
    "alter table users alter column name set not null",
    "alter table users alter name set default 'x'",
    "alter table users alter score type bigint",
    "alter table users alter name set statistics 500",
    "alter table users alter name set (n_distinct = 5)",
    "alter table users alter name set storage external",
    "alter table users set (fillfactor = 70), alter name set statistics 10",
    "alter table users reset (fillfactor)",
    "alter table users rename name to full_name",
    "alter table users rename to customers",
    "alter table users owner to current_user",
    "alter table child set unlogged",
    "alter table users replica identity full",
    "alter table users enable row level security",
    "alter table users disable trigger tr",
    "alter table users add constraint c check (score < 9) not valid",
    "alter table users validate constraint positive",
    "alter table users add unique (name)",
    "alter table orders add constraint u unique using index orders_id",
    "alter table orders add constraint f2 foreign key (user_id) references users (id)",
    "alter table orders add constraint f2 foreign key (user_id) references public.users not valid",
    "alter table orders add column owner_id bigint references users",
    "alter table orders drop constraint fk",
    "alter table orders cluster on orders_total",
    "alter table parts attach partition parts_2 for values from ('2025-01-01') to ('2026-01-01')",
    "alter table parts detach partition parts_1",
    "alter table child inherit base",
    'alter table "Odd ""T" rename "a.b" to "c, d"',
    "create index i on users (lower(name)) where score > 5",
    'create unique index if not exists "I" on only public.parts using btree (at)',
    "create index on users using hash (name)",
    "drop index orders_total",
    "alter index orders_total rename to other",
    "alter index orders_total set (fillfactor = 70)",
    "create table n (id bigint primary key, u bigint references users, o integer)",
    "create table n (like users including all)",
    "create table n (c integer) inherits (base)",
    "create table n partition of parts for values from ('2030-01-01') to ('2031-01-01')",
    "create table n as select u.id from users u join orders o on o.user_id = u.id",
    "create view v as select * from users where id in (select user_id from orders)",
    "create or replace view people as select id from users where id > 5",
    "create materialized view m as with x as (select * from orders) select * from x",
    "drop table referring",
    "drop table if exists child, base",
    "drop view people",
    "drop materialized view totals",
    "refresh materialized view totals",
    "refresh materialized view concurrently totals",
    "alter view people rename to folks",
    "alter sequence s increment by 2",
    "alter sequence s owned by users.id",
    "alter sequence s rename to s2",
    "drop sequence s",
    "create trigger t2 after update of name on users for each row execute function f()",
    "drop trigger tr on users",
    "create rule r as on update to users do also nothing",
    "create policy p2 on users for select using (id > 0)",
    "alter policy p on users using (false)",
    "drop policy p on users",
    "truncate table child, only base",
    "lock table users, orders in share row exclusive mode",
    "lock users",
    "analyze users",
    "reindex table users",
    "reindex index orders_total",
    "cluster orders using orders_total",
    "create statistics st2 on id, name from users",
    "drop statistics st",
    "comment on table users is 'it; -- isn''t'",
    "comment on column public.users.name is 'n'",
    "comment on index orders_total is 'i'",
    "comment on constraint positive on users is 'c'",
    "comment on trigger tr on users is 't'",
    "comment on function f() is 'f'",
    "create type t as enum ('a')",
    "alter type mood add value 'glad'",
    "drop type mood",
    "create domain d as integer",
    "create function g() returns integer language sql as 'select 1'",
    "create or replace function f() returns trigger language plpgsql as 'begin return null; end'",
    "create schema sch",
    "create sequence q",
    "grant select on users to public",
    "revoke all on users from public",
    "set local lock_timeout = '2s'",
    "select * from users u left join orders on true where u.id = 1",
    "select * from users for update",
    "insert into users (id) select id from orders",
    "insert into users (id) values (1) on conflict (id) do update set name = 'x'",
    "update users set name = o.id::text from orders o where o.user_id = users.id",
    "delete from orders using users where users.id = orders.user_id",
    "with gone as (delete from orders returning user_id) update users set score = 1 where id in (select user_id from gone)",
]

# locks on relations that the transaction itself made are nobody else's business; indexes go with their table's lock
HELD = """
select relation, mode from pg_locks where pid = pg_backend_pid() and locktype = 'relation' and relation = any(%s)
"""


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[psycopg.Connection]:
    address = server.url().replace("+psycopg", "")
    with psycopg.connect(address, autocommit=True) as admin:
        admin.execute("create database lock_cases")
        with psycopg.connect(server.url("lock_cases").replace("+psycopg", "")) as connection:
            connection.execute(SCHEMA)
            connection.commit()
            yield connection
        admin.execute("drop database lock_cases")


def held(connection: psycopg.Connection, statement: str) -> dict[str, str]:
    """The strongest mode per relation, as PostgreSQL holds it after the statement."""
    known = [
        oid
        for (oid,) in connection.execute(
            "select oid from pg_class where relnamespace = 'public'::regnamespace"
        ).fetchall()
    ]
    names = dict(
        connection.execute(
            """select oid, relname || case when relkind in ('i', 'I') then '#' else '' end
                                       from pg_class where oid = any(%s)""",
            [known],
        ).fetchall()
    )
    connection.commit()
    with connection.transaction(force_rollback=True):
        connection.cursor().execute(statement)
        rows = connection.execute(HELD, [known]).fetchall()
    found: dict[str, str] = {}
    for oid, mode in rows:
        found[names[oid]] = max(found.get(names[oid], PG_MODES[mode]), PG_MODES[mode], key=locks.MODES.index)
    return found


PG_MODES = {
    "AccessShareLock": "ACCESS SHARE", "RowShareLock": "ROW SHARE", "RowExclusiveLock": "ROW EXCLUSIVE",
    "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE", "ShareLock": "SHARE", "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE",
    "ExclusiveLock": "EXCLUSIVE", "AccessExclusiveLock": "ACCESS EXCLUSIVE",
}  # fmt: skip
TABLE_OF = {"table of orders_total": "orders", "table of st": "orders"}
# what a statement's text cannot show, and a note says
BY_NOTE = {
    "alter table orders drop constraint fk": {"users": "ACCESS EXCLUSIVE"},
    "drop table referring": {"users": "ACCESS EXCLUSIVE"},
    "refresh materialized view totals": {"orders": "ACCESS SHARE"},
    "refresh materialized view concurrently totals": {"orders": "ACCESS SHARE"},
}


def said(statement: str) -> dict[str, str]:
    found = {}
    for lock in locks.locks_of(statement):
        name = TABLE_OF.get(lock.relation, lock.relation.removeprefix("public."))
        found[name[1:-1].replace('""', '"') if name.startswith('"') else name] = lock.mode
    return found


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_locks_are_those_that_postgresql_holds(connection: psycopg.Connection, statement: str) -> None:
    truth = held(connection, statement)
    indexes = {name[:-1] for name in truth if name.endswith("#")}
    tables = {name: mode for name, mode in truth.items() if not name.endswith("#")}
    claimed = said(statement) | BY_NOTE.get(statement, {})
    if connection.info.server_version < 180000 and statement.startswith(("grant", "revoke")):
        tables["users"] = "ACCESS SHARE"  # older servers take no lock there; one too many is fine
    if connection.info.server_version < 140000 and "detach" in statement:
        tables["parts_1"] = "ACCESS EXCLUSIVE"  # 13 takes a weaker one
    assert {name: mode for name, mode in claimed.items() if name not in indexes} == tables
    assert all(truth[f"{name}#"] == mode for name, mode in claimed.items() if name in indexes)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("create index concurrently if not exists i on t (a)", [("t", "SHARE UPDATE EXCLUSIVE")]),
        ('CREATE UNIQUE INDEX CONCURRENTLY ON app."T" USING btree (a)', [('app."T"', "SHARE UPDATE EXCLUSIVE")]),
        ("drop index concurrently if exists i", [("table of i", "SHARE UPDATE EXCLUSIVE"), ("i", "SHARE UPDATE EXCLUSIVE")]),
        ("reindex index concurrently i", [("table of i", "SHARE UPDATE EXCLUSIVE"), ("i", "SHARE UPDATE EXCLUSIVE")]),
        ("reindex table concurrently t", [("t", "SHARE UPDATE EXCLUSIVE")]),
        ("alter table p detach partition p1 concurrently", [("p", "SHARE UPDATE EXCLUSIVE"), ("p1", "ACCESS EXCLUSIVE")]),
        ("vacuum (full, analyze) t", [("t", "ACCESS EXCLUSIVE")]),
        ("vacuum analyze t", [("t", "SHARE UPDATE EXCLUSIVE")]),
        ("copy t (a) from stdin", [("t", "ROW EXCLUSIVE")]),
        ("alter table a add column x int; alter table b validate constraint c", [("a", "ACCESS EXCLUSIVE"), ("b", "SHARE UPDATE EXCLUSIVE")]),
        ("do $$ begin drop table users; end $$", [("?", "ACCESS EXCLUSIVE")]),
        ("call fix_everything()", [("?", "ACCESS EXCLUSIVE")]),
        ("frobnicate users", [("?", "ACCESS EXCLUSIVE")]),
        ("/* a /* nested */ one */ lock \"a;b\" in share mode", [('"a;b"', "SHARE")]),
        ("select 'from secrets; drop table x' from t", [("t", "ACCESS SHARE")]),
        ("", []),
    ],
)  # fmt: skip
def test_statements_outside_transactions_and_unknown_ones_have_known_locks(
    statement: str, expected: list[tuple[str, str]]
) -> None:
    assert [(lock.relation, lock.mode) for lock in locks.locks_of(statement)] == expected


def test_an_unknown_statement_is_assumed_to_take_the_strongest() -> None:
    assert locks.locks_of("do $$ begin null; end $$") == (
        Lock("?", "ACCESS EXCLUSIVE", "not recognised: assume the strongest"),
    )


@pytest.mark.parametrize(
    "statement",
    [
        "create index concurrently c on users (name)",
        "drop index concurrently orders_total",
        "reindex (verbose) table concurrently users",
        "vacuum users",
        "create database x",
        "alter system set work_mem = '1MB'",
        "alter table parts detach partition parts_1 concurrently",
        "discard all",
        "select 1",
        "create index c on users (name)",
        "alter type mood add value 'x'",
        "refresh materialized view concurrently totals",
        "reindex table users",
        "comment on table users is 'create index concurrently'",
        "rollback to savepoint here",
        "truncate users cascade",
    ],
)
def test_runs_in_transaction_agrees_with_the_server(connection: psycopg.Connection, statement: str) -> None:
    if connection.info.server_version < 140000 and "detach" in statement:
        pytest.skip("DETACH CONCURRENTLY came with 14")
    connection.execute("savepoint here")
    try:
        connection.cursor().execute(statement)
        allowed = True
    except psycopg.errors.ActiveSqlTransaction:
        allowed = False
    finally:
        connection.rollback()
    assert locks.runs_in_transaction(statement) is allowed


@pytest.mark.parametrize(
    "action",
    [
        "add column a integer", "add column a text default 'x' not null", "add column a timestamptz default now()",
        "add a timestamptz default clock_timestamp()", "add column a uuid default gen_random_uuid()", "add column a bigserial",
        "add column if not exists a integer generated always as identity", "add a integer generated always as (id + 1) stored",
        "add column a integer default (5 + 1), add column b date default current_date", "set unlogged", "drop column name",
        "alter name set not null", "add constraint c check (id > 0)", "add constraint u unique (id)", "alter name type bigint",
        "alter name type text", "add column a mood", "add column a checked", "add column a integer default secret()",
        "set (fillfactor = 70)", "rename name to other", "alter name set default 7", "add foreign key (id) references users",
    ],
)  # fmt: skip
def test_rewrites_never_contradicts_the_server(connection: psycopg.Connection, action: str) -> None:
    claimed = locks.rewrites(f"alter table numbers {action}")
    with connection.transaction(force_rollback=True):
        connection.execute("create domain checked as integer check (value > 0)")
        connection.execute("create function secret() returns integer language sql volatile as 'select 1'")
        connection.execute("create table numbers (id bigint, name integer)")
        connection.execute("insert into users (id) values (1); insert into numbers values (1, 1)")
        (before,) = connection.execute("select pg_relation_filenode('numbers')").fetchone() or (None,)
        connection.cursor().execute(f"alter table numbers {action}")
        (after,) = connection.execute("select pg_relation_filenode('numbers')").fetchone() or (None,)
    assert claimed in (None, before != after)
    assert (claimed is None) == any(word in action for word in ("type ", "mood", "checked", "secret"))
