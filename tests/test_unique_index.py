"""A unique key made in steps leaves the catalog that its own statement leaves, whatever an earlier try left; and it goes as it came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from mend.change.kept import Facets, Keeper
from mend.constraints import unique_index
from mend.constraints.unique_index import Making
from mend.database.catalog import SNAPSHOT_SQL, Change
from mend.plan import Step

SCHEMA = """
create schema app;
create table app."Ta""ble (1)" (id int primary key, a int, "b, (c)" text, flag boolean);
create table t (a int not null, b int, c text);
create table split (a int, b int) partition by list (b);
create table split_1 partition of split for values in (1);
"""
ODD = 'app."Ta""ble (1)"'
CONSTRAINTS = [
    "alter table t add constraint u unique (a)",
    "alter table t add constraint u unique (a, b) include (c)",
    "alter table t add constraint u unique (a) include (b, c) with (fillfactor = 70)",
    "alter table t add constraint u unique (b) deferrable",
    "alter table t add constraint u unique (b, a) deferrable initially deferred",
    "alter table t add constraint u primary key (a)",
    f'alter table {ODD} add constraint "u (x) DEFERRABLE, y" unique (a, "b, (c)")',
]
SINCE_15 = [
    "alter table t add constraint u unique nulls not distinct (b, c) include (a) with (fillfactor = 80) deferrable"
]
INDEXES = [
    "create unique index ix on t (lower(c) desc nulls last)",
    "create unique index ix on t (a) where b > 0",
    "create unique index ix on t (c collate \"C\" text_pattern_ops, b desc) include (a) with (fillfactor = 70) where c <> ') where ('",
    f'create unique index "ix ON t USING btree (a)" on {ODD} (lower("b, (c)")) where flag',
]
KEEPER = Keeper("mend", "k")


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as conn:
        conn.execute(SCHEMA.encode())
        yield conn


def facets(conn: psycopg.Connection[Any]) -> Facets:
    return {(kind, one): text for kind, one, text in conn.execute(SNAPSHOT_SQL.encode()).fetchall()}


def wanted(conn: psycopg.Connection[Any], statement: str) -> Change:
    if statement in SINCE_15 and conn.info.server_version < 150000:
        pytest.skip("NULLS NOT DISTINCT came with 15")
    before = facets(conn)
    with conn.transaction(force_rollback=True):
        conn.execute(statement.encode())
        after = facets(conn)
    ((key, text),) = after.items() - before.items()
    return Change(*key, None, text)


def made(conn: psycopg.Connection[Any], change: Change) -> Making:
    return unique_index.making(change, live=facets(conn), keeper=KEEPER)


def send(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> None:
    for step in steps:
        live = facets(conn)
        assert [e for e in step.before if live.get((e.kind, e.identity)) != e.definition] == []
        for statement in step.statements:
            conn.execute(statement.sql.encode())
        live = facets(conn)
        assert [e for e in step.after if live.get((e.kind, e.identity)) != e.definition] == []


def back(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    assert all(step.reversible() for step in steps)
    return tuple(one for step in reversed(steps) for one in step.undo)


@pytest.mark.parametrize("statement", CONSTRAINTS + SINCE_15 + INDEXES)
def test_the_steps_leave_what_the_statement_leaves(conn: psycopg.Connection[Any], statement: str) -> None:
    change, before = wanted(conn, statement), facets(conn)
    making = made(conn, change)
    assert (making.clear, making.why_not) == ((), "")
    assert "CONCURRENTLY" in making.build[0].sql()
    send(conn, making.build)
    assert facets(conn) == {**before, (change.kind, change.identity): change.after}
    assert made(conn, change) == Making(), "there is nothing left to make"
    send(conn, back(making.build))
    assert facets(conn) == before


@pytest.mark.parametrize("statement", [CONSTRAINTS[0], CONSTRAINTS[3], INDEXES[0]])
def test_a_build_that_met_a_duplicate_is_taken_back_and_begun_again(
    conn: psycopg.Connection[Any], statement: str
) -> None:
    change, before = wanted(conn, statement), facets(conn)
    making = made(conn, change)
    conn.execute("insert into t values (1, 1, 'x'), (1, 1, 'X')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        send(conn, making.build)
    index = unique_index.index_of(change)
    assert facets(conn)["index", index.identity] == f"{index.definition} INVALID"
    again = made(conn, change)
    assert "Drop the INVALID index" in again.clear[0].says
    conn.execute("delete from t where c = 'X'")
    for statement_ in making.build[0].restart:
        conn.execute(statement_.sql.encode())
    send(conn, making.build)
    send(conn, back(making.build))
    assert facets(conn) == before


def test_a_step_is_taken_back_alone_where_the_one_after_it_did_not_run(conn: psycopg.Connection[Any]) -> None:
    change, before = wanted(conn, CONSTRAINTS[0]), facets(conn)
    making = made(conn, change)
    send(conn, making.build[:1])
    assert facets(conn) != before
    send(conn, back(making.build[:1]))
    assert facets(conn) == before


def test_an_index_that_was_built_by_hand_becomes_the_constraint_and_comes_back(conn: psycopg.Connection[Any]) -> None:
    change = wanted(conn, CONSTRAINTS[0])
    conn.execute("create unique index u on t (a)")
    before = facets(conn)
    making = made(conn, change)
    assert [step.sql() for step in making.build] == ["alter table public.t add constraint u unique using index u;"]
    send(conn, making.build)
    assert facets(conn)["constraint", "public.t.u"] == "UNIQUE (a)"
    send(conn, back(making.build))
    assert facets(conn) == before


def test_another_index_of_that_name_is_left_alone(conn: psycopg.Connection[Any]) -> None:
    change = wanted(conn, CONSTRAINTS[0])
    conn.execute("create index u on t (b)")
    assert "it is another one" in made(conn, change).why_not


def test_a_primary_key_over_a_column_that_may_be_null_is_left_to_the_revision(conn: psycopg.Connection[Any]) -> None:
    conn.execute("alter table t alter column a drop not null")
    change = Change("constraint", "public.t.u", None, "PRIMARY KEY (a)")
    assert "a may be null" in made(conn, change).why_not


def test_a_name_for_a_constraint_that_nobody_named() -> None:
    assert unique_index.named("public.t", ("a" * 60, "b")).startswith("uq_")
    assert len(unique_index.named("public.t", ("a" * 60, "b"))) <= 63
