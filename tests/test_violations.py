"""The rows in the way of a constraint are found exactly when the server refuses the constraint.

Each definition comes from a real server: the constraint is made on empty tables, and read from the catalog as replay would. Then
rows are put in, the question is asked, and the constraint is really tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
import sqlalchemy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mend.database import catalog, target
from mend.database.catalog import Change
from mend.errors import MendError, sqlstate
from mend.postgres.server import Server
from mend.repairs.violations import LIMIT, Obstacle, obstacle
from sqlalchemy import Connection

NOCASE = "create collation app.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
WITHOUT_ICU = 'create collation app.nocase from "C"'
SCHEMA = """
create extension citext schema app;
create type public.mood as enum ('sad', 'happy');
create function public.is_odd(integer) returns boolean immutable language sql return mod($1, 2) = 1;
create table public.parent (x integer, y integer, z text, unique (x), unique (x, y), unique (y, x));
create table app."Odd, (parent).x" ("k,(1" integer, "k.2" integer, unique ("k,(1", "k.2"));
create table public.child (a integer, b integer, t text, c text collate app.nocase, ci app.citext, m public.mood, d date, flag boolean,
  n numeric, "q, (a).b" integer, "Ü ""x" text, big bigint);
create table app."Odd, (child).t" ("c,(1" integer, "c.2" integer);
create table public.split (a integer, b integer) partition by list (b);
create table public.split_1 partition of public.split for values in (1);
create table public.split_2 partition of public.split default;
create table public.base (a integer, b integer);
create table public.heir () inherits (public.base);
create unique index heir_key on public.heir (a);
create materialized view public.seen as select a from public.child;
"""

#: made on empty tables: (statement, the codes with which the server refuses it where rows stand in the way)
UNIQUE = [
    "create unique index ix on child (a)",
    "create unique index ix on child (a, b)",
    "create unique index ix on child (lower(t))",
    "create unique index ix on child ((a + b))",
    "create unique index ix on child (coalesce(a, 0), lower(t) desc nulls last)",
    "create unique index ix on child ((t || ') include (b) where (a = 1'))",
    "create unique index ix on child (a) where b is null",
    "create unique index ix on child (a) where flag",
    "create unique index ix on child (a) where is_odd(b)",
    "create unique index ix on child (a) where t <> 'it''s) where (' and b is distinct from 2",
    "create unique index ix on child (a) where t like '%x%' or t = ':name'",
    "create unique index ix on child (a) include (b) with (fillfactor = 70) where b > 0",
    "create unique index ix on child (t)",
    'create unique index ix on child (t collate "C")',
    "create unique index ix on child (t collate app.nocase)",
    "create unique index ix on child (lower(t) collate app.nocase desc)",
    "create unique index ix on child (c)",
    'create unique index ix on child (c collate "C")',
    "create unique index ix on child (ci)",
    "create unique index ix on child (ci app.citext_pattern_ops)",
    "create unique index ix on child (t text_pattern_ops desc nulls first)",
    'create unique index ix on child (t collate "C" text_pattern_ops, a desc)',
    "create unique index ix on child (m)",
    "create unique index ix on child (n)",
    "create unique index ix on child (extract(year from d))",
    "create unique index ix on child ((d is null))",
    "create unique index ix on child ((1)) where flag",
    "create unique index ix on child ((flag and a = 1))",
    'create unique index ix on child ("q, (a).b" desc, "Ü ""x")',
    'create unique index "ix ON public.parent USING btree (x" on child (a)',
    'create unique index "ix ON (a) WHERE" on app."Odd, (child).t" ("c,(1", "c.2")',
    "create unique index ix on split (a, b)",
    "create unique index ix on base (a)",
    "create unique index ix on only base (a, b)",
    "alter table child add unique (a)",
    "alter table child add unique (a, b) include (t)",
    "alter table child add unique (a) deferrable initially deferred",
    'alter table child add constraint "u (x), y" unique ("q, (a).b", "Ü ""x")',
    'alter table app."Odd, (child).t" add unique ("c,(1", "c.2")',
    "alter table child add unique (ci)",
    "alter table child add unique (c)",
    "alter table split add unique (a, b)",
    "alter table base add unique (a)",
    "alter table child add primary key (a)",
    "alter table child add primary key (a, b)",
    'alter table child add primary key ("q, (a).b")',
    "alter table split add primary key (a, b)",
    "alter table base add primary key (b)",
]
SINCE_15 = [
    "create unique index ix on child (a) nulls not distinct",
    "create unique index ix on child (a, lower(t) desc) include (b) nulls not distinct with (fillfactor = 80) where flag",
    "alter table child add unique nulls not distinct (a, b) include (t)",
]
FOREIGN = [
    "alter table child add foreign key (a) references parent (x)",
    "alter table child add foreign key (a, b) references parent (x, y)",
    "alter table child add foreign key (a, b) references parent (x, y) match full",
    "alter table child add foreign key (b, a) references parent (x, y) match full on delete cascade",
    "alter table child add foreign key (a, b) references parent (y, x) on delete set default deferrable initially deferred",
    "alter table child add foreign key (big) references parent (x)",
    'alter table app."Odd, (child).t" add constraint "f (a) REFERENCES public.parent(x)" foreign key ("c,(1", "c.2") references app."Odd, (parent).x" ("k,(1", "k.2")',
    "alter table parent add foreign key (x, y) references parent (y, x)",
    "alter table split add foreign key (a) references parent (x)",
    "alter table base add foreign key (a) references parent (x)",
    "alter table child add foreign key (a) references heir (a)",
]
OTHER = [
    "alter table child add check (a > 0)",
    "alter table child add check (a > 0 or t like '%x%' and t <> ':name')",
    "alter table child add check (not flag)",
    "alter table child add check (flag)",
    "alter table child add check (is_odd(a))",
    "alter table child add check (child is not null)",
    "alter table child add check (t <> ') NO INHERIT' and t <> ' NOT VALID')",
    'alter table child add constraint "c) NOT VALID" check ("q, (a).b" > 0 and "Ü ""x" <> \'\')',
    "alter table base add check (a > 0)",
    "alter table base add check (a > 0) no inherit",
    "alter table split add check (a > 0)",
    "alter table child alter column a set not null",
    'alter table child alter column "Ü ""x" set not null',
    "alter table split alter column a set not null",
    "alter table base alter column a set not null",
]
#: the server looks at no row for these
NEVER_REFUSED = [
    "alter table child add check (a > 0) not valid",
    "alter table base add check (a > 0) no inherit not valid",
    "alter table child add foreign key (a) references parent (x) not valid",
    "create index ix on child (a)",
    "alter table child add extra integer",
    "alter table child alter column a set default 5",
]
NEVER_REFUSED_SINCE_18 = [
    "alter table child add constraint n not null a not valid",
    "alter table child add check (a > 0) not enforced",
    "alter table child add foreign key (a) references parent (x) not enforced",
]
NOT_ASKED = ["alter table child add exclude using btree (a with =)"]
NOT_ASKED_SINCE_18 = [
    "create extension btree_gist; create table times (id int, v int4range); alter table times add constraint k primary key (id, v without overlaps)",
    "create extension btree_gist; create table times (id int, v int4range, primary key (id, v without overlaps)); "
    "create table more (id int, v int4range); alter table more add constraint f foreign key (id, period v) references times (id, period v)",
]


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("create database violations")
        with psycopg.connect(server.url("violations").replace("+psycopg", "")) as conn:
            conn.execute("create schema app")
            conn.commit()
            try:
                conn.execute(NOCASE)
            except psycopg.errors.FeatureNotSupported:
                conn.rollback()
                conn.execute(WITHOUT_ICU)
            conn.execute(SCHEMA.encode())
        yield server.url("violations")
        admin.execute("drop database violations with (force)")


@pytest.fixture(scope="module")
def session(url: str) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as conn:
        yield conn


@pytest.fixture
def conn(session: Connection) -> Iterator[Connection]:
    """One session for all; every example, and every test, is rolled back."""
    yield session
    session.rollback()


def run(conn: Connection, statement: str, *values: Any) -> None:
    """On the driver's own cursor, which reads percent signs only where there are values."""
    if not conn.in_transaction():
        conn.begin()
    conn.connection.cursor().execute(statement, values or None)


def version(conn: Connection) -> int:
    return int((conn.dialect.server_version_info or (0,))[0])


def changes(conn: Connection, statement: str) -> tuple[tuple[Change, ...], dict[tuple[str, str], str]]:
    """What a statement changes in the catalog of empty tables, and the catalog before it."""
    first = catalog.snapshot(conn)
    run(conn, statement)
    second = catalog.snapshot(conn)
    conn.rollback()
    return catalog.diff(first, second), {(row.kind, row.identity): row.definition for row in first.itertuples()}


def questions(conn: Connection, statement: str) -> list[Obstacle]:
    made, live = changes(conn, statement)
    assert made
    return [found for change in made if (found := obstacle(change, live))]


def ask(conn: Connection, wanted: Sequence[Obstacle]) -> list[list[Any]]:
    """The answers, as failed_migration asks: percent signs doubled, because the driver reads them."""
    return [list(conn.exec_driver_sql(one.sql.replace("%", "%%"))) for one in wanted]


def refused(conn: Connection, statement: str) -> str:
    """The SQLSTATE with which the server refuses it, or ''."""
    try:
        run(conn, statement)
        run(conn, "set constraints all immediate")
    except psycopg.Error as error:
        return sqlstate(error)
    return ""


SMALL = st.none() | st.integers(0, 3)
WORDS = st.sampled_from([None, "", "a", "A", "x1", "X1", "%x", ":name", "it's) where ("])
CHILD = st.tuples(
    SMALL, SMALL, WORDS, WORDS, WORDS, st.sampled_from([None, "sad", "happy"]), st.sampled_from([None, "2024-01-01", "2024-12-31", "2025-01-01"]),
    st.sampled_from([None, True, False]), st.sampled_from([None, "1", "1.0", "1.00", "2"]), SMALL, WORDS, SMALL,
)  # fmt: skip
PAIR = st.tuples(SMALL, SMALL)
FILLED = st.fixed_dictionaries({
    "public.child": st.lists(CHILD, max_size=3),
    "public.parent (x, y)": st.lists(PAIR, max_size=3, unique_by=(lambda pair: pair[0], lambda pair: pair)),
    'app."Odd, (parent).x"': st.lists(PAIR, max_size=2, unique=True),
    'app."Odd, (child).t"': st.lists(PAIR, max_size=3),
    "public.split": st.lists(PAIR, max_size=3),
    "public.base": st.lists(PAIR, max_size=2),
    "public.heir": st.lists(PAIR, max_size=2, unique_by=lambda pair: pair[0]),
})  # fmt: skip
EMPTY: dict[str, list[tuple[Any, ...]]] = {}
ONE_ROW = {"public.child": [(1, 1, "a", "a", "a", "sad", "2024-01-01", True, 1, 1, "a", 1)]}
TWICE = {
    "public.child": [
        (1, 1, "x1", "a", "a", "sad", "2024-01-01", True, 1, 1, "a", 1),
        (1, 1, "X1", "A", "A", "sad", "2024-12-31", True, 1, 1, "a", 1),
    ]
}
NULLS = {
    "public.child": [(None,) * 12, (None,) * 12],
    "public.split": [(None, None)] * 2,
    "public.base": [(None, None)] * 2,
    'app."Odd, (child).t"': [(None, 1), (1, None)],
}
INHERITED = {
    "public.base": [(1, 1), (-1, None)],
    "public.heir": [(1, 1), (-2, None)],
    "public.split": [(1, 1), (1, 2), (1, 1), (-1, 5)],
}


def fill(conn: Connection, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    for table, values in rows.items():
        for row in values:
            run(conn, f"insert into {table} values ({', '.join(['%s'] * len(row))})", *row)


@pytest.mark.parametrize("statement", UNIQUE + SINCE_15 + FOREIGN + OTHER)
def test_rows_are_found_exactly_when_the_server_refuses_the_constraint(conn: Connection, statement: str) -> None:
    if statement in SINCE_15 and version(conn) < 15:
        pytest.skip("NULLS NOT DISTINCT came with 15")
    wanted = questions(conn, statement)
    assert wanted, "nothing would be asked"

    @given(FILLED)
    @example(EMPTY)
    @example(ONE_ROW)
    @example(TWICE)
    @example(NULLS)
    @example(INHERITED)
    @settings(
        max_examples=8,
        deadline=None,
        suppress_health_check=[HealthCheck.nested_given, HealthCheck.differing_executors],
    )
    def holds(rows: dict[str, list[tuple[Any, ...]]]) -> None:
        try:
            fill(conn, rows)
            found = any(ask(conn, wanted))
            code = refused(conn, statement)
        finally:
            conn.rollback()
        assert code in ("", "23502", "23503", "23505", "23514")
        assert found == bool(code), [one.sql for one in wanted]

    holds()


@pytest.mark.parametrize("statement", NEVER_REFUSED + NEVER_REFUSED_SINCE_18)
def test_nothing_is_asked_where_the_server_looks_at_no_row(conn: Connection, statement: str) -> None:
    if statement in NEVER_REFUSED_SINCE_18 and version(conn) < 18:
        pytest.skip("it came with 18")
    assert questions(conn, statement) == []
    fill(conn, {**TWICE, "public.base": [(-1, -1)]})
    assert refused(conn, statement) == ""
    conn.rollback()


@pytest.mark.parametrize("statement", NOT_ASKED + NOT_ASKED_SINCE_18)
def test_overlaps_are_not_asked_about_and_not_misread(conn: Connection, statement: str) -> None:
    if statement in NOT_ASKED_SINCE_18 and version(conn) < 18:
        pytest.skip("it came with 18")
    made, live = changes(conn, statement)
    keys = [
        change
        for change in made
        if change.kind == "constraint" and change.identity.rpartition(".")[2] in ("k", "f", "child_a_excl")
    ]
    assert keys
    assert [obstacle(change, live) for change in keys] == [None] * len(keys)


@pytest.mark.parametrize(
    ("making", "validating"),
    [
        ("alter table child add constraint k check (a > 0) not valid", "alter table child validate constraint k"),
        (
            "alter table child add constraint k foreign key (a) references parent (x) not valid",
            "alter table child validate constraint k",
        ),
    ],
)
def test_validation_is_asked_about(conn: Connection, making: str, validating: str) -> None:
    run(conn, making)
    first = catalog.snapshot(conn)
    run(conn, validating)
    (change,) = catalog.diff(first, catalog.snapshot(conn))
    conn.rollback()
    wanted = obstacle(change)
    assert wanted is not None
    fill(conn, {"public.child": [(0, *[None] * 11)]})
    assert len(ask(conn, [wanted])[0]) == 1
    conn.rollback()


def test_a_late_not_null_is_asked_about_when_it_is_validated() -> None:
    assert obstacle(Change("not_null", "public.t.c", None, "not null not valid")) is None
    assert obstacle(Change("not_null", "public.t.c", "not null not valid", "not null")) is not None


@pytest.mark.parametrize("state", ["", " INVALID", " INVALID, ready"])
def test_an_index_that_is_invalid_is_asked_about_as_the_index_it_shall_be(state: str) -> None:
    plain = obstacle(Change("index", "public.ix", None, "CREATE UNIQUE INDEX ix ON public.t USING btree (a)"))
    assert plain
    assert (
        obstacle(Change("index", "public.ix", None, f"CREATE UNIQUE INDEX ix ON public.t USING btree (a){state}"))
        == plain
    )


def test_what_goes_is_asked_nothing_about() -> None:
    assert obstacle(Change("constraint", "public.t.k", "UNIQUE (a)", None)) is None
    assert obstacle(Change("table", "public.t", None, "permanent")) is None


@pytest.mark.parametrize(
    ("statement", "slug"),
    [
        ("create unique index ix on child (a)", "unique_violation"),
        ("alter table child add foreign key (a) references parent (x)", "foreign_key_violation"),
        ("alter table child alter column a set not null", "not_null_violation"),
        ("alter table child add check (a > 0)", "not_null_violation"),
    ],
)
def test_each_question_names_the_runbook_that_mends_its_rows(conn: Connection, statement: str, slug: str) -> None:
    assert [one.slug for one in questions(conn, statement)] == [slug]


def test_a_few_groups_are_enough_to_know(conn: Connection) -> None:
    (wanted,) = questions(conn, "create unique index ix on child (a)")
    run(conn, "insert into child (a) select n from generate_series(1, 100) as n, generate_series(1, 3)")
    (groups,) = ask(conn, [wanted])
    conn.rollback()
    assert len(groups) == LIMIT
    assert {row.rows for row in groups} == {3}


def test_a_unique_index_of_a_materialized_view_is_asked_about_its_rows(conn: Connection) -> None:
    (wanted,) = questions(conn, "create unique index ix on seen (a)")
    fill(conn, TWICE)
    run(conn, "refresh materialized view seen")
    assert len(ask(conn, [wanted])[0]) == 1
    assert refused(conn, "create unique index ix on seen (a)") == "23505"
    conn.rollback()


def test_a_check_whose_function_writes_is_stopped_by_the_reading_session(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as setup:
        setup.execute(
            "create table written (n integer); create table checked (a integer); insert into checked values (1)"
        )
        setup.execute(
            "create function writes(integer) returns boolean language plpgsql as 'begin insert into written values ($1); return false; end'"
        )
    wanted = obstacle(Change("constraint", "public.checked.k", None, "CHECK (public.writes(a))"))
    assert wanted
    monkeypatch.setenv("HERE_URL", url)
    with pytest.raises(MendError) as caught, target.resolve("env:HERE_URL").reading() as reading:
        ask(reading, [wanted])
    assert sqlstate(caught.value) == "25006"
    with psycopg.connect(url.replace("+psycopg", "")) as conn:
        assert conn.execute("select count(*) from written").fetchone() == (0,)
