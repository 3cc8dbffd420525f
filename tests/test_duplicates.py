"""Which rows go, and which stays: once the worklist is done the server accepts the key, and nothing more was done than that.

Each wanted key is made by the server on an empty table and read from its catalog, as replay would; then rows are put in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mend.constraints import duplicates
from mend.constraints.duplicates import Column, Ranking, Reference
from mend.database.catalog import SNAPSHOT_SQL, Change
from mend.errors import InvalidParameter
from mend.postgres.server import Server
from mend.repairs import violations
from mend.repairs.violations import Uniqueness

Rows = list[tuple[Any, ...]]

NOCASE = "create collation app.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
WITHOUT_ICU = 'create collation app.nocase from "C"'
SCHEMA = """
create extension citext;
create table app."Ta""ble (1)" (id int generated always as identity primary key, a int, "b, (c)" text, ci citext, nc text collate app.nocase,
  flag boolean, at timestamptz, n int, size int);
create table child (id int generated always as identity primary key, a int references app."Ta""ble (1)", kind text, unique (a, kind));
"""
TABLE = 'app."Ta""ble (1)"'
KEYS = [
    f"alter table {TABLE} add unique (a)",
    f'alter table {TABLE} add constraint "u (x), y" unique (a, "b, (c)")',
    f"alter table {TABLE} add unique (a, n, size) deferrable initially deferred",
    f'create unique index ix on {TABLE} ("b, (c)")',
    f'create unique index ix on {TABLE} (lower("b, (c)") desc nulls last)',
    f'create unique index ix on {TABLE} (coalesce(a, 0), lower("b, (c)"))',
    f"create unique index ix on {TABLE} (a) where flag",
    f"create unique index ix on {TABLE} ((1)) where flag",
    f"create unique index ix on {TABLE} (\"b, (c)\") where a is null and \"b, (c)\" <> 'it''s) where ('",
    f"create unique index ix on {TABLE} (ci)",
    f"create unique index ix on {TABLE} (nc)",
    f'create unique index ix on {TABLE} (nc collate "C")',
    f'create unique index ix on {TABLE} ("b, (c)" collate app.nocase)',
    f"create unique index ix on {TABLE} ((a is null), n) include (size)",
]
SINCE_15 = [
    f'alter table {TABLE} add unique nulls not distinct (a, "b, (c)")',
    f"create unique index ix on {TABLE} (lower(nc)) nulls not distinct where flag",
]
WORDS = st.sampled_from([None, "", "a", "A", "x@y.z", "X@y.z", "x@@y", "it's) where ("])
SMALL = st.none() | st.integers(0, 2)
TIMES = st.sampled_from([None, "2024-01-01", "2024-01-02"])
ROWS = st.lists(
    st.tuples(SMALL, WORDS, WORDS, WORDS, st.sampled_from([None, True, False]), TIMES, SMALL, SMALL), max_size=9
)


@pytest.fixture(scope="module")  # a test in another module lets the server crash under whoever is connected
def session(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("create database duplicates")
        with psycopg.connect(server.url("duplicates").replace("+psycopg", "")) as conn:
            conn.execute("create schema app")
            conn.commit()
            try:
                conn.execute(NOCASE)
            except psycopg.errors.FeatureNotSupported:
                conn.rollback()
                conn.execute(WITHOUT_ICU)
            conn.execute(SCHEMA.encode())
            conn.commit()
            yield conn
        admin.execute("drop database duplicates with (force)")


@pytest.fixture
def conn(session: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """One session for all; every test is rolled back."""
    yield session
    session.rollback()


def run(conn: psycopg.Connection[Any], sql: str) -> Rows:
    cursor = conn.execute(sql.encode())
    return cursor.fetchall() if cursor.description else []


def wanted(conn: psycopg.Connection[Any], statement: str) -> Uniqueness:
    if statement in SINCE_15 and conn.info.server_version < 150000:
        pytest.skip("NULLS NOT DISTINCT came with 15")
    before = {(kind, identity) for kind, identity, _ in run(conn, SNAPSHOT_SQL)}
    run(conn, statement)
    made = [Change(kind, one, None, text) for kind, one, text in run(conn, SNAPSHOT_SQL) if (kind, one) not in before]
    conn.rollback()
    (found,) = [key for change in made if (key := violations.uniqueness(change))]
    return found


def fill(conn: psycopg.Connection[Any], rows: Rows) -> None:
    for row in rows:
        conn.execute(
            f'insert into {TABLE} (a, "b, (c)", ci, nc, flag, at, n, size) values (%s, %s, %s, %s, %s, %s, %s, %s)'.encode(),
            row,
        )


def accepted(conn: psycopg.Connection[Any], statement: str) -> bool:
    try:
        with conn.transaction():
            conn.execute(statement.encode())
            conn.execute("set constraints all immediate")
            raise psycopg.Rollback
    except psycopg.errors.UniqueViolation:
        return False
    return True


@pytest.mark.parametrize("statement", KEYS + SINCE_15)
def test_without_the_listed_rows_the_key_holds_and_no_row_less_would_do(
    conn: psycopg.Connection[Any], statement: str
) -> None:
    key = wanted(conn, statement)
    ranking = Ranking(key, ("id",), (("at", False),))

    @given(ROWS)
    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[HealthCheck.nested_given, HealthCheck.differing_executors],
    )
    def holds(rows: Rows) -> None:
        try:
            fill(conn, rows)
            sizes = run(conn, duplicates.sizes(ranking))
            assert accepted(conn, statement) == (not sizes)
            listed = run(conn, duplicates.losers(ranking))
            assert len(listed) == sum((size - 1) * groups for size, groups in sizes)
            assert len({row[0] for row in listed}) == len(listed)
            sample = run(conn, duplicates.sample(ranking))
            assert {int(row[0]) for row in listed} == {int(one) for row in sample for one in row[-1][1:]}
            gone = f"delete from {TABLE} as t using ({duplicates.losers(ranking)}) as w where t.id = w.k1 and {duplicates.still_a_loser(ranking)} returning t.id"
            assert len(run(conn, gone)) == len(listed)
            assert accepted(conn, statement)
        finally:
            conn.rollback()

    holds()


def test_the_oldest_stays_or_the_newest_nulls_last_and_ties_go_by_the_key(conn: psycopg.Connection[Any]) -> None:
    ranking = Ranking(wanted(conn, KEYS[0]), ("id",), (("at", False),))
    fill(conn, [(1, None, None, None, None, at, 0, 0) for at in (None, "2024-01-02", "2024-01-01", "2024-01-01", None)])
    ids = [row[0] for row in run(conn, f"select id from {TABLE} order by id")]
    (oldest,) = run(conn, duplicates.sample(ranking))
    (newest,) = run(conn, duplicates.sample(replace(ranking, newest=True)))
    assert [ids.index(int(one)) for one in oldest[-1]] == [2, 3, 1, 0, 4]
    assert [ids.index(int(one)) for one in newest[-1]] == [1, 3, 2, 4, 0]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["x+dup2@y.z", "x+dup3@y.z", "a-dup2", "x@@y-dup2"]),
        ("_{n}'", ["x_2'@y.z", "x_3'@y.z", "a_2'", "x@@y_2'"]),
        ("\\1 %s :x {n}", ["x\\1 %s :x 2@y.z", "x\\1 %s :x 3@y.z", "a\\1 %s :x 2", "x@@y\\1 %s :x 2"]),
    ],
)
def test_a_suffix_goes_before_the_at_of_an_address_and_else_at_the_end(
    conn: psycopg.Connection[Any], pattern: str, expected: list[str]
) -> None:
    ranking = Ranking(wanted(conn, KEYS[3]), ("id",))
    fill(conn, [(1, word, None, None, None, None, 0, 0) for word in ("x@y.z",) * 3 + ("a",) * 2 + ("x@@y",) * 2])
    assert [row[1] for row in run(conn, duplicates.suffixed(ranking, '"b, (c)"', pattern))] == expected


def test_the_key_of_a_row_makes_a_suffix_that_nobody_else_has(conn: psycopg.Connection[Any]) -> None:
    ranking = Ranking(wanted(conn, KEYS[9]), ("id",))
    fill(conn, [(1, None, word, None, None, None, 0, 0) for word in ("a", "A")])
    ((key, new, old),) = run(conn, duplicates.suffixed(ranking, "ci", "-{key}"))
    assert (new, old) == (f"A-{key}", "A")


@pytest.mark.parametrize("pattern", ["-dup", "{n", "{m}", "-{n}-{id}", "{}"])
def test_a_suffix_that_would_be_the_same_for_all_is_refused(pattern: str) -> None:
    ranking = Ranking(Uniqueness("public.t.u", "public.t", "public.t", ("a",)), ("id",))
    with pytest.raises(InvalidParameter, match=r"suffix is .* Write \{n\}"):
        duplicates.suffixed(ranking, "a", pattern)


def test_rows_that_point_at_what_goes_are_counted_and_told_where_to_point(conn: psycopg.Connection[Any]) -> None:
    ranking = Ranking(wanted(conn, KEYS[0]), ("id",))
    fill(conn, [(one, None, None, None, None, None, 0, 0) for one in (7, 7, 8)])
    ids = [row[0] for row in run(conn, f"select id from {TABLE} order by id")]
    for at, kind in ((0, "x"), (1, "x"), (1, "y"), (2, "z")):
        conn.execute("insert into child (a, kind) values (%s, %s)", (ids[at], kind))
    reference = Reference("public.child.f", "public.child", ("a",), ("id",))
    assert run(conn, duplicates.pointing(ranking, reference)) == [(2, 1)]
    pointing = [row[0] for row in run(conn, f"select id from child where a = {ids[1]} order by id")]
    assert run(conn, duplicates.movers(ranking, reference, ("id",))) == [(one, ids[0], ids[1]) for one in pointing]
    assert run(conn, duplicates.movers(ranking, reference, ())) == [(ids[1], ids[0])]


def test_a_row_that_stays_and_points_at_one_of_its_own_group_is_named(conn: psycopg.Connection[Any]) -> None:
    run(conn, "create table nodes (id int primary key, parent int references nodes, name text)")
    run(conn, "insert into nodes values (1, 1, 'a'), (2, 3, 'b'), (3, 2, 'b'), (4, 5, 'c'), (5, null, 'd')")
    reference = Reference("public.nodes.f", "public.nodes", ("parent",), ("id",))
    ranking = Ranking(Uniqueness("public.nodes.u", "public.nodes", "only public.nodes", ("name",)), ("id",))
    assert run(conn, duplicates.circles(ranking, reference)) == [("2", 3)]
    assert run(conn, duplicates.circles(replace(ranking, newest=True), reference)) == [("3", 2)]
    assert duplicates.circles(ranking, replace(reference, child="public.other")) == ""


def test_a_listed_row_is_left_alone_once_it_is_no_duplicate_any_more(conn: psycopg.Connection[Any]) -> None:
    ranking = Ranking(wanted(conn, KEYS[4]), ("id",))
    fill(conn, [(1, word, None, None, None, None, 0, 0) for word in ("a", "A", "b", "B")])
    run(conn, f"create temporary table w on commit drop as {duplicates.losers(ranking)}")
    ids = [row[0] for row in run(conn, f"select id from {TABLE} order by id")]
    run(conn, f"update {TABLE} set \"b, (c)\" = 'other' where id = {ids[1]}")
    run(conn, f"delete from {TABLE} where id = {ids[2]}")
    gone = f"delete from {TABLE} as t using w where t.id = w.k1 and {duplicates.still_a_loser(ranking)} returning t.id"
    assert run(conn, gone) == [], "the one has another value now, of the other the row that stays is gone"


def columns(*listed: Column) -> dict[str, Column]:
    return {one.name: one for one in listed}


def test_spellings_are_shown_where_the_key_minds_case(conn: psycopg.Connection[Any]) -> None:
    fill(conn, [(1, word, word, word, None, None, 0, 0) for word in ("a", "A", "a", "b")])
    known = columns(
        Column('"b, (c)"', "text", True), Column("ci", "citext", True, folds=True), Column("a", "integer", False)
    )
    minds = Ranking(wanted_now(KEYS[3], conn), ("id",))
    assert run(conn, duplicates.folded(minds, known)) == [(2, ["A", "a"])]
    both = Ranking(replace(minds.wanted, keys=("a", '"b, (c)"')), ("id",))
    assert run(conn, duplicates.folded(both, known))[0][0] == 2
    assert duplicates.folded(Ranking(replace(minds.wanted, keys=("ci",)), ("id",)), known) == ""
    assert duplicates.folded(Ranking(replace(minds.wanted, keys=('lower("b, (c)")',)), ("id",)), known) == ""


def wanted_now(statement: str, conn: psycopg.Connection[Any]) -> Uniqueness:
    """As ``wanted``, without a rollback: of the statement's own words."""
    definition = (
        statement.replace("create unique index", "CREATE UNIQUE INDEX")
        .replace(" on ", " ON ")
        .replace(f"{TABLE} (", f"{TABLE} USING btree (")
    )
    found = violations.uniqueness(Change("index", "app.ix", None, definition))
    assert found is not None
    return found


def test_an_order_names_columns_of_the_table() -> None:
    known = columns(Column("id", "integer", False), Column('"Last Login"', "date", False))
    assert duplicates.order_of("Last Login desc, id", known) == (('"Last Login"', True), ("id", False))
    assert duplicates.order_of('"Last Login"', known) == (('"Last Login"', False),)
    assert duplicates.order_of("", known) == ()
    for wrong in ("nothing", "id; drop table x", "id desc nulls first", "lower(id)"):
        with pytest.raises(InvalidParameter, match="no column of the table"):
            duplicates.order_of(wrong, known)
