"""Version rows move as Alembic moves them, only from where they were reviewed, and exactly back."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import alembic.command
import alembic.config
import psycopg
import pytest
from mend.plan import Statement
from mend.postgres.server import Server
from mend.repairs.versions import VersionTable, advance
from projects import PLAIN, project, revision
from psycopg import sql

#: revision -> (down revisions, depends_on)
GRAPH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a": ((), ()),
    "b1": (("a",), ()),
    "b2": (("a",), ()),
    "b3": (("a",), ()),
    "two": (("b1", "b2"), ()),
    "three": (("two", "b3"), ()),
    "c1": (("three",), ()),
    "c2": (("three",), ()),
    "c3": (("three",), ()),
    "all": (("c1", "c2", "c3"), ()),
    "root2": ((), ()),
    "dep1": (("root2",), ("all",)),
    "root3": ((), ("dep1",)),
    "end": (("root3",), ()),
}
#: without a pool, whose connections would outlive env.py in this process
ENV = PLAIN.replace(
    'create_engine(os.environ["SHOP_URL"])',
    'create_engine(os.environ["SHOP_URL"], poolclass=__import__("sqlalchemy").NullPool)',
)
ROUTES = [
    ["a", "b1", "b2", "two"],
    ["a", "b2", "b1", "b3", "two", "three", "c1", "c2", "c3", "all"],
    ["a", "b1", "b2", "b3", "two", "three", "c3", "root2", "c1", "c2", "all", "dep1", "root3", "end"],
    ["root2", "a", "b3", "b2", "b1"],
]


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as conn:
        yield conn


class Stale(Exception):
    """A statement met other rows than it may."""


def send(conn: psycopg.Connection, statements: Sequence[Statement]) -> None:
    """One transaction, each statement held to its rows, as the executor does it."""
    with conn.transaction():
        for statement in statements:
            rows = conn.execute(statement.sql.encode()).rowcount
            if statement.exactly is not None and rows != statement.exactly:
                raise Stale(f"{rows} rows: {statement.sql}")


def made(
    conn: psycopg.Connection, rows: Sequence[str], schema: str = "public", name: str = "alembic_version"
) -> VersionTable:
    """A version table as Alembic makes it, with these rows."""
    place = sql.Identifier(schema, name)
    conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
    conn.execute(
        sql.SQL("create table {} (version_num varchar(32) not null, constraint {} primary key (version_num))").format(
            place, sql.Identifier(f"{name}_pkc")
        )
    )
    for row in rows:
        conn.execute(sql.SQL("insert into {} values ({})").format(place, sql.Literal(row)))
    return VersionTable(schema, name, tuple(rows))


def rows_of(conn: psycopg.Connection, table: VersionTable) -> set[str]:
    return {row[0] for row in conn.execute(b"select version_num from " + table.quoted().encode())}


CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], set[str]]] = {
    "linear": (("a",), ("a",), {"x"}),
    "root of an empty table": ((), (), {"x"}),
    "root beside another branch": (("q",), (), {"q", "x"}),
    "merge of two": (("a", "b"), ("a", "b"), {"x"}),
    "merge of three": (("a", "b", "c"), ("c", "a", "b"), {"x"}),
    "merge of two beside a third branch": (("a", "b", "q"), ("a", "b"), {"q", "x"}),
    "merge of which one parent went on": (("a", "b2"), ("a", "b"), {"b2", "x"}),
    "second branch of a branch point": (("first",), ("a",), {"first", "x"}),
    "linear beside another branch": (("a", "q"), ("a",), {"q", "x"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rows_advance_and_go_exactly_back(conn: psycopg.Connection, case: str) -> None:
    rows, parents, expected = CASES[case]
    table = made(conn, rows)
    move = advance(table, "x", parents)
    send(conn, move.forward)
    assert rows_of(conn, table) == expected
    with pytest.raises(Stale):
        send(conn, move.forward)
    assert rows_of(conn, table) == expected
    send(conn, move.back)
    assert rows_of(conn, table) == set(rows)
    with pytest.raises(Stale):
        send(conn, move.back)
    assert rows_of(conn, table) == set(rows)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: "-".join(route))
def test_the_rows_are_those_that_alembic_itself_would_leave(
    conn: psycopg.Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: list[str]
) -> None:
    files = {
        name: revision(name, down or None, head=f"depends_on = {depends!r}" if depends else "")
        for name, (down, depends) in GRAPH.items()
    }
    project(tmp_path, files, env=ENV)
    monkeypatch.setenv("SHOP_URL", database)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    config.set_main_option("path_separator", "os")
    ours = made(conn, (), "mine")
    theirs = VersionTable("public", "alembic_version", ())
    for name in route:
        with contextlib.redirect_stdout(io.StringIO()):
            alembic.command.upgrade(config, name)
        down, depends = GRAPH[name]
        now = VersionTable("mine", "alembic_version", tuple(sorted(rows_of(conn, ours))))
        send(conn, advance(now, name, down + depends).forward)
        assert rows_of(conn, ours) == rows_of(conn, theirs), name


def test_a_row_that_moved_since_it_was_reviewed_is_left_alone(conn: psycopg.Connection) -> None:
    for rows, parents, moved in (
        (("a",), ("a",), "update alembic_version set version_num = 'b'"),
        (("a", "b"), ("a", "b"), "delete from alembic_version where version_num = 'b'"),
        ((), (), "insert into alembic_version values ('x')"),
    ):
        conn.execute("drop table if exists alembic_version")
        table = made(conn, rows)
        conn.execute(moved.encode())
        now = rows_of(conn, table)
        with pytest.raises(Stale):
            send(conn, advance(table, "x", parents).forward)
        assert rows_of(conn, table) == now


def test_of_two_that_move_one_row_at_once_one_is_told(conn: psycopg.Connection, database: str) -> None:
    table = made(conn, ["a"])
    move = advance(table, "x", ["a"])
    with psycopg.connect(database.replace("+psycopg", "")) as other:
        other.execute(move.forward[0].sql.encode())
        with psycopg.connect(database.replace("+psycopg", "")) as late:
            late.execute("set lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                late.execute(move.forward[0].sql.encode())
        other.commit()
    with pytest.raises(Stale):
        send(conn, move.forward)


def test_a_row_that_stands_twice_where_the_primary_key_is_gone_is_not_moved(conn: psycopg.Connection) -> None:
    table = made(conn, ["a"])
    conn.execute(
        "alter table alembic_version drop constraint alembic_version_pkc; insert into alembic_version values ('a')"
    )
    with pytest.raises(Stale, match="2 rows"):
        send(conn, advance(table, "x", ["a"]).forward)


HOSTILE = [
    ("public", "alembic_version"),
    ('a"b.c', "alembic_version"),
    ("The App", 'ver"s; drop table x; --'),
    ("100% %s", ":name %(x)s"),
    ("ünï", "n" * 55),
]


@pytest.mark.parametrize(("schema", "name"), HOSTILE)
def test_schema_table_and_revision_are_quoted(conn: psycopg.Connection, schema: str, name: str) -> None:
    table = made(conn, ["it's", 'a"b'], schema, name)
    move = advance(table, "x'; drop table y; --", ["it's", 'a"b'])
    send(conn, move.forward)
    assert rows_of(conn, table) == {"x'; drop table y; --"}
    send(conn, move.back)
    assert rows_of(conn, table) == {"it's", 'a"b'}


@pytest.mark.parametrize(("schema", "name"), HOSTILE)
def test_a_missing_table_is_made_as_alembic_makes_it_and_goes_again(
    conn: psycopg.Connection, database: str, server: Server, schema: str, name: str
) -> None:
    conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
    table = VersionTable(schema, name, (), exists=False)
    move = advance(table, "x", ["a"])
    send(conn, move.forward)
    assert rows_of(conn, table) == {"x"}
    definitions = conn.execute(
        "select conname, pg_get_constraintdef(oid) from pg_constraint where contype = 'p' and conrelid = %s::regclass",
        [table.quoted()],
    ).fetchall()
    assert definitions == [(f"{name}_pkc", "PRIMARY KEY (version_num)")]
    column = conn.execute(
        "select format_type(atttypid, atttypmod), attnotnull from pg_attribute where attname = 'version_num' and attrelid = %s::regclass",
        [table.quoted()],
    )
    assert column.fetchall() == [("character varying(32)", True)]
    send(conn, move.back)
    assert conn.execute("select to_regclass(%s)", [table.quoted()]).fetchone() == (None,)


def test_a_table_that_was_made_stays_if_somebody_has_used_it_since(conn: psycopg.Connection) -> None:
    table = VersionTable("public", "alembic_version", (), exists=False)
    move = advance(table, "x", ())
    send(conn, move.forward)
    conn.execute("insert into alembic_version values ('other')")
    with pytest.raises(Stale, match="1 rows: select"):
        send(conn, move.back)
    assert rows_of(conn, table) == {"x", "other"}
