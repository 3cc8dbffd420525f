"""The snapshot says the same of the same object in every session, leaves nothing behind, and misses no change."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest
import sqlalchemy
from mend.change import ddl
from mend.database import catalog
from mend.database.catalog import Change
from sqlalchemy import Connection

SCHEMA = """
create schema app;
create type app.mood as enum ('sad', 'happy');
create table app.users (id bigserial primary key, mood app.mood default 'sad', born timestamptz default '2020-01-01 00:00+00',
  span interval default '1 day 2 hours', name varchar(20) not null check (name <> ''));
create table public.orders (id integer primary key, user_id bigint references app.users, mood app.mood);
create index on app.users (lower(name));
create view public.sad as select id, mood from app.users where mood = 'sad';
create function public.first(m app.mood) returns app.mood language sql as 'select m';
create function app.touch() returns trigger language plpgsql as 'begin return new; end';
create trigger touched before update on app.users for each row execute function app.touch();
create policy own on app.users using (mood = 'sad');
create statistics app.st on id, name from app.users;
create table public.log (at timestamptz not null) partition by range (at);
create table public.log_2024 partition of public.log for values from ('2024-01-01 00:00+00') to ('2025-01-01 00:00+00');
comment on column app.users.name is 'the name';
"""
SESSIONS = [
    "set search_path = app, public",
    "set search_path = ''",
    "set search_path = pg_catalog, app",
    "set timezone = 'Asia/Kolkata'; set datestyle = 'German, DMY'; set intervalstyle = 'iso_8601'",
    "set quote_all_identifiers = on; set extra_float_digits = -5; set bytea_output = 'escape'",
    "create temp table users (id integer); create temp table orders (id integer)",
    "set enable_hashjoin = off; set enable_mergejoin = off; set from_collapse_limit = 1; set join_collapse_limit = 1",
    "set enable_nestloop = off; set jit_above_cost = 0; set max_parallel_workers_per_gather = 4; set parallel_setup_cost = 0",
    "set default_transaction_read_only = on",
]


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.NullPool)
    with engine.connect() as conn:
        run(conn, SCHEMA)
        conn.commit()
        yield conn


def run(conn: Connection, statement: str) -> None:
    """On the driver's own cursor, which leaves percent signs alone; SQLAlchemy must be told that a transaction began."""
    if not conn.in_transaction():
        conn.begin()
    conn.connection.cursor().execute(statement)


def facets(conn: Connection) -> dict[tuple[str, str], str]:
    return {(row.kind, row.identity): row.definition for row in catalog.snapshot(conn).itertuples()}


@pytest.mark.parametrize("session", SESSIONS)
def test_the_same_object_reads_the_same_in_every_session(conn: Connection, database: str, session: str) -> None:
    plain = catalog.snapshot(conn)
    with sqlalchemy.create_engine(
        database, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    ).connect() as other:
        run(other, session)
        assert catalog.diff(plain, catalog.snapshot(other)) == ()


SETTINGS = (
    "search_path",
    "timezone",
    "datestyle",
    "intervalstyle",
    "extra_float_digits",
    "bytea_output",
    "quote_all_identifiers",
)


@pytest.mark.parametrize("local", ["", "local "])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_every_setting_is_what_it_was_before_and_after_the_transaction_ends(
    conn: Connection, local: str, end: str
) -> None:
    def settings() -> list[str]:
        return [conn.exec_driver_sql(f"show {name}").scalar_one() for name in SETTINGS]

    changes = f"set {local}search_path = app, \"$user\"; set {local}timezone = 2; set {local}datestyle = 'SQL, DMY'"
    run(conn, changes)
    during = settings()
    getattr(conn, end)()
    after_without = settings()
    run(conn, "reset all")
    conn.commit()
    run(conn, changes)
    catalog.snapshot(conn)
    assert settings() == during
    getattr(conn, end)()
    assert settings() == after_without


def test_the_settings_survive_an_autocommit_session(database: str) -> None:
    with sqlalchemy.create_engine(
        database, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    ).connect() as conn:
        run(conn, "set search_path = app, public")
        catalog.snapshot(conn)
        assert conn.exec_driver_sql("show search_path").scalar_one() == "app, public"


def test_an_empty_database_has_settings_too(database: str) -> None:
    with sqlalchemy.create_engine(database, poolclass=sqlalchemy.NullPool).connect() as conn:
        run(conn, "set local search_path = app; drop schema public")
        catalog.snapshot(conn)
        assert conn.exec_driver_sql("show search_path").scalar_one() == "app"


def test_the_snapshot_is_one_statement_without_anything_that_a_driver_reads() -> None:
    assert not set("%:;?") & set(catalog.SNAPSHOT_SQL)


def test_it_leaves_the_users_transaction_usable(conn: Connection) -> None:
    run(conn, "create table public.fresh (id integer)")
    assert ("table", "public.fresh") in facets(conn)
    run(conn, "insert into public.fresh values (1)")
    conn.rollback()
    assert ("table", "public.fresh") not in facets(conn)


def test_identities_are_quoted_and_unique(conn: Connection) -> None:
    run(
        conn,
        f'create schema "a.b"; create table "a.b"."C ""d" ("e.f" integer not null default 1, "select" text, "{"ü" * 31}" text)',
    )
    frame = catalog.snapshot(conn)
    assert not frame.duplicated(["kind", "identity"]).any()
    found = facets(conn)
    assert found["column", '"a.b"."C ""d"."e.f"'] == "integer"
    assert found["default", '"a.b"."C ""d"."e.f"'] == "1"
    assert ("column", f'"a.b"."C ""d"."{"ü" * 31}"') in found


def test_what_is_not_ours_to_look_at_is_left_out(conn: Connection) -> None:
    before = catalog.snapshot(conn)
    run(
        conn,
        "create schema kept; comment on schema kept is 'mend: before images'; create table kept.t (id serial primary key)",
    )
    run(
        conn,
        "create view kept.v as select * from kept.t; comment on table kept.t is 'x'; create type kept.e as enum ('a')",
    )
    run(conn, "create function kept.f() returns integer language sql as 'select 1'; grant select on kept.t to public")
    run(conn, "create temp table scratch (id integer primary key)")
    assert catalog.diff(before, catalog.snapshot(conn)) == ()
    run(conn, "create extension citext schema app")
    assert [change.kind for change in catalog.diff(before, catalog.snapshot(conn))] == ["extension"]


def test_partitions_are_not_noise_but_their_invalid_indexes_are_seen(conn: Connection) -> None:
    run(
        conn,
        "alter table log add id bigint not null default 0, add primary key (at, id), add check (id >= 0); create index log_id on log (id)",
    )
    found = facets(conn)
    assert {key for key in found if key[1].startswith("public.log_2024")} == {
        ("table", "public.log_2024"),
        ("partition", "public.log_2024"),
    }
    run(conn, "alter table log_2024 alter id set default 7")
    assert facets(conn)["default", "public.log_2024.id"] == "7"
    run(conn, "update pg_index set indisvalid = false where indexrelid = 'log_2024_id_idx'::regclass")
    assert facets(conn)["index", "public.log_2024_id_idx"].endswith(" INVALID, ready")


def test_an_index_says_its_state_in_a_form_that_can_be_parted(conn: Connection) -> None:
    run(conn, "create index plain on orders (user_id); create index at_only on only log (at)")
    found = facets(conn)
    assert catalog.index_state(found["index", "public.plain"])[1] == ""
    assert catalog.index_state(found["index", "public.at_only"])[1] == " INVALID, not attached to all partitions"
    for valid, ready, live, state in (
        ("f", "f", "t", " INVALID"),
        ("f", "t", "t", " INVALID, ready"),
        ("f", "f", "f", " INVALID, dead"),
    ):
        run(
            conn,
            f"update pg_index set indisvalid = '{valid}', indisready = '{ready}', indislive = '{live}' where indexrelid = 'plain'::regclass",
        )
        definition, found_state = catalog.index_state(facets(conn)["index", "public.plain"])
        assert (definition, found_state) == ("CREATE INDEX plain ON public.orders USING btree (user_id)", state)


def test_a_failed_concurrent_unique_index_is_invalid(conn: Connection, database: str) -> None:
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("insert into public.orders (id, mood) values (1, 'sad'), (2, 'sad')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            other.execute("create unique index concurrently once on public.orders (mood)")
    assert facets(conn)["index", "public.once"].endswith(" INVALID")


def test_an_invalid_index_of_a_constraint_is_listed(conn: Connection) -> None:
    assert ("index", "public.orders_pkey") not in facets(conn)
    run(conn, "update pg_index set indisvalid = false where indexrelid = 'orders_pkey'::regclass")
    assert facets(conn)["index", "public.orders_pkey"].endswith(" INVALID, ready")


def test_not_null_tells_whether_it_was_checked(conn: Connection) -> None:
    assert facets(conn)["not_null", "app.users.name"] == "not null"
    if (conn.dialect.server_version_info or (0,))[0] >= 18:
        run(conn, "alter table orders add constraint nn not null user_id not valid")
        assert facets(conn)["not_null", "public.orders.user_id"] == "not null not valid"
        assert ("constraint", "public.orders.nn") not in facets(conn)


def test_an_unreadable_role_still_sees_every_object(conn: Connection, database: str) -> None:
    run(conn, "create role nobody_special")
    mine = catalog.snapshot(conn)
    run(conn, "set local role nobody_special")
    assert catalog.diff(mine, catalog.snapshot(conn)) == ()
    conn.rollback()


def test_a_difference_is_one_small_thing(conn: Connection) -> None:
    before = catalog.snapshot(conn)
    run(conn, "alter table orders add note text not null default 'x'; alter table orders alter mood set default 'sad'")
    assert catalog.diff(before, catalog.snapshot(conn)) == (
        Change("column", "public.orders.note", None, "text"),
        Change("default", "public.orders.mood", None, "'sad'::app.mood"),
        Change("default", "public.orders.note", None, "'x'::text"),
        Change("not_null", "public.orders.note", None, "not null"),
    )


def test_a_diff_read_backwards_is_the_diff_reversed(conn: Connection) -> None:
    before = catalog.snapshot(conn)
    run(conn, "drop view sad; alter table orders drop column mood; create index i on orders (user_id)")
    after = catalog.snapshot(conn)
    assert catalog.diff(after, before) == tuple(change.reversed() for change in catalog.diff(before, after))
    assert catalog.diff(after, after.sample(frac=1, random_state=1)) == ()


def test_changes_as_a_frame_keep_their_columns_when_there_are_none(conn: Connection) -> None:
    frame = catalog.as_frame([Change("index", "public.i", None, "CREATE INDEX")])
    assert frame.isna().to_numpy().tolist() == [[False, False, True, False]]
    assert (
        [str(dtype) for dtype in catalog.as_frame([]).dtypes] == ["str"] * 4 == [str(dtype) for dtype in frame.dtypes]
    )


def test_importing_the_catalog_loads_nothing_heavy() -> None:
    code = "import sys, mend.database.catalog, mend.change.ddl, mend.change.locks; print({'pandas', 'sqlalchemy', 'alembic'} & sys.modules.keys())"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


# --- the same schema, made in another order, by another server, or with the rarer kinds ---------------------------------

PIECES = [
    "create type app.shade as enum ('light', 'dark')",
    "create domain app.percent as integer check (value between 0 and 100)",
    "create table app.left_one (id bigserial primary key, name varchar(20) not null default 'x', done boolean)",
    "create table app.right_one (id integer generated always as identity, born timestamptz default now(), twice integer generated always as (id * 2) stored)",
    "create unlogged table app.fast (k integer, v text) with (fillfactor = 70)",
    "create table app.parted (k integer not null, v text) partition by list (k); create table app.parted_1 partition of app.parted for values in (1)",
    "create table app.alone (a integer check (a > 0), b text collate \"C\", unique (a, b)); create index alone_low on app.alone (lower(b)) where a > 5",
    "create view app.listed as select relname from pg_catalog.pg_class",
    "create materialized view app.counted as select count(*) as n from pg_catalog.pg_class",
    "create function app.one(a integer default 1) returns integer language sql immutable as 'select a'",
    "create procedure app.act() language plpgsql as 'begin end'",
    "create aggregate app.total (integer) (sfunc = int4pl, stype = integer, initcond = '0')",
    "create sequence app.numbers increment 5",
    "create type app.pair as (a integer, b text)",
    "create type app.span as range (subtype = integer)",
    "comment on schema app is 'ours'",
    "grant usage on schema app to public",
    "alter default privileges in schema public grant select on tables to public",
    "create publication some_of_it",
]  # fmt: skip


def made_in(url: str, statements: list[str]) -> dict[tuple[str, str], str]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as conn:
        conn.execute("create schema app")
        for statement in statements:
            conn.execute(statement.encode())
        return {(kind, identity): text for kind, identity, text in conn.execute(catalog.SNAPSHOT_SQL.encode())}


def test_the_same_schema_built_in_any_order_gives_an_empty_diff(new_database: Callable[..., str]) -> None:
    first = made_in(new_database(), PIECES)
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(PIECES, len(PIECES))
        other = made_in(new_database(), shuffled)
        assert {
            key: (first.get(key), other.get(key))
            for key in first.keys() | other.keys()
            if first.get(key) != other.get(key)
        } == {}


def test_another_major_version_gives_the_same_where_postgresql_does(
    new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Run where a second installation is at hand: 15 of the system beside 18 of the package."""
    from mend.errors import NoServerBinaries
    from mend.postgres.server import Server, find_binaries
    from mend.replays.compare import level

    try:
        old = Server(tmp_path_factory.mktemp("pg15"), find_binaries(15), settings={"autovacuum": "off"}, detached=False)
    except NoServerBinaries:
        pytest.skip("no binaries of PostgreSQL 15 on this machine")
    first = made_in(new_database(), [*PIECES, SCHEMA.replace("create schema app;", "")])
    old.start()
    try:
        other = made_in(old.url(), [*PIECES, SCHEMA.replace("create schema app;", "")])
    finally:
        old.destroy()
    odd = {
        key
        for key in first.keys() | other.keys()
        if level(key[0], first.get(key), cross=True) != level(key[0], other.get(key), cross=True)
    }
    assert odd == set()


def test_settings_default_privileges_and_foreign_options_are_facets(conn: Connection) -> None:
    name = conn.exec_driver_sql("select current_database()").scalar_one()
    run(conn, f"alter database \"{name}\" set work_mem = '8MB'")
    run(conn, "alter default privileges in schema app grant select, insert on tables to public")
    run(conn, "alter default privileges revoke execute on functions from public")
    run(
        conn,
        "create extension postgres_fdw; create server far foreign data wrapper postgres_fdw; create user mapping for public server far options (password 'x')",
    )
    run(
        conn,
        "create foreign table public.ft (a integer options (column_name 'b')) server far options (table_name 'it''s')",
    )
    found = facets(conn)
    who = conn.exec_driver_sql("select quote_ident(current_user)").scalar_one()
    assert found["setting", "database.work_mem"] == "8MB"
    assert found["default_privilege", f"for {who} in app on tables to public"] == "INSERT, SELECT"
    assert found["default_privilege", f"for {who} on routines to public"] == "none"
    assert found["foreign_option", "public.ft.a.column_name"] == "b"
    assert found["foreign_option", "public.ft.table_name"] == "it's"
    assert found["user_mapping", "far.public"] == "present"
    assert "x" not in [text for (kind, _), text in found.items() if kind == "user_mapping"]


def test_the_new_kinds_are_taken_back(conn: Connection) -> None:
    run(
        conn,
        "create extension postgres_fdw; create server far foreign data wrapper postgres_fdw; create foreign table public.ft (a integer) server far options (table_name 'x')",
    )
    before = catalog.snapshot(conn)
    run(conn, "alter default privileges in schema app grant select on tables to public")
    run(conn, "alter foreign table public.ft alter column a options (add column_name 'b')")
    run(conn, "alter foreign table public.ft options (set table_name 'y')")
    changes = catalog.diff(before, catalog.snapshot(conn))
    assert {change.kind for change in changes} == {"default_privilege", "foreign_option"}
    for statement in ddl.inverse_of(changes):
        run(conn, statement)
    assert catalog.diff(before, catalog.snapshot(conn)) == ()
