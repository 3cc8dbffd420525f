"""Content that is about to go is copied whole, beside what tells its rows apart, whatever it is and whatever it is called.

``test_steps.py`` takes content away and brings it back, type by type; here is what is kept, what is not, and under which names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mend.change import kept
from mend.change.kept import Keeper, Keeping
from mend.database import catalog, names
from mend.database.catalog import Change
from mend.errors import NotInvertible
from mend.plan import Statement
from mend.record import ledger
from psycopg import sql

Live = dict[tuple[str, str], str]

TABLE: Live = {
    ("table", "public.t"): "permanent",
    ("column", "public.t.id"): "bigint generated always as identity",
    ("column", "public.t.mood"): "app.mood",
    ("column", "public.t.moods"): 'app."My moods"[]',
    ("column", "public.t.v"): "numeric(10,2)",
    ("column", "public.t.w"): "integer generated always as ((id + 1)) stored",
    ("constraint", "public.t.t_pkey"): "PRIMARY KEY (id)",
}
COLUMN = Change("column", "public.t.v", None, "numeric(10,2)")


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.replace("+psycopg", "")) as conn:
        for text in ledger.schema_statements("mend"):
            conn.execute(text.encode())
        yield conn


def facets(conn: psycopg.Connection) -> Live:
    return {(kind, identity): definition for kind, identity, definition in conn.execute(catalog.SNAPSHOT_SQL.encode())}


def send(conn: psycopg.Connection, *parts: Sequence[Statement]) -> None:
    for part in parts:
        for statement in part:
            conn.execute(statement.sql.encode())


def content(
    *changes: Change, live: Mapping[tuple[str, str], str] = TABLE, key: str = "k", purpose: str = "p"
) -> list[Keeping]:
    return kept.keepings(changes, keeper=Keeper("mend", key), purpose=purpose, content=live)


def texts(keeping: Keeping) -> str:
    return "\n".join(s.sql for s in keeping.keep)


def test_a_column_is_kept_beside_its_key_without_its_nulls() -> None:
    (found,) = content(COLUMN)
    assert "as select id as id, v as v from public.t where v is not null" in texts(found)
    assert found.restore[0].sql.startswith("update public.t as t set v = k.v from ")
    assert found.restore[0].sql.endswith(" as k where t.id = k.id")


def test_a_table_is_kept_column_by_column_without_what_is_generated() -> None:
    (found,) = content(Change("table", "public.t", None, "permanent"))
    assert (
        "select id as id, cast(mood as text) as mood, cast(moods as text) as moods, v as v from only public.t"
        in texts(found)
    )
    (restore,) = found.restore
    assert (
        '(id, mood, moods, v) overriding system value select id, cast(mood as app.mood), cast(moods as app."My moods"[]), v'
        in restore.sql
    )


def test_nobody_writes_from_the_copy_on() -> None:
    for changes in ((COLUMN,), (Change("table", "public.t", None, "permanent"),)):
        (found,) = content(*changes)
        assert found.keep[0].sql == "lock table public.t in share row exclusive mode"


@given(
    st.lists(
        st.tuples(st.text(max_size=4), st.text(max_size=4), st.sampled_from(["public.t.v", "public.t.mood"])),
        min_size=2,
        max_size=6,
        unique=True,
    )
)
@settings(deadline=None, max_examples=50)
def test_every_plan_purpose_and_object_has_a_place_of_its_own(asked: list[tuple[str, str, str]]) -> None:
    changes = {"public.t.v": COLUMN, "public.t.mood": Change("column", "public.t.mood", None, "app.mood")}
    places = {
        (key + purpose, identity): content(changes[identity], key=key, purpose=purpose)[0].keep[1].sql.split()[2]
        for key, purpose, identity in asked
    }
    assert len(set(places.values())) == len(places)


@pytest.mark.parametrize(
    ("change", "live", "why"),
    [
        (COLUMN, {key: text for key, text in TABLE.items() if key[0] != "constraint"}, "public.t has no primary key, so the values of public.t.v could not be kept"),
        (Change("column", "public.t.id", None, "bigint"), TABLE, "public.t.id is part of the primary key, so without it the rows could not be told apart"),
        (Change("column", "public.t.id", "real", "double precision"), TABLE, "public.t.id is part of the primary key"),
        (Change("table", "public.t", None, "permanent"), {}, "the columns of public.t are not known, so its rows could not be kept"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_says_why(change: Change, live: Live, why: str) -> None:
    with pytest.raises(NotInvertible, match=why.replace(".", r"\.")):
        content(change, live=live)


@pytest.mark.parametrize(
    "changes",
    [
        (Change("column", "public.t.w", None, "integer generated always as ((id + 1)) stored"),),
        (Change("table", "public.t", None, "permanent partition by RANGE (id)"),),
        (Change("foreign_table", "public.f", None, "server s"),),
        (Change("column", "public.t.id", "integer", "bigint"),),
        (Change("column", "public.t.v", None, "text"), Change("partition", "public.t", "public.p DEFAULT", None)),
        (Change("column", "public.t.v", "text", None), Change("column", "public.t.x", None, "text")),
        (Change("index", "public.ix", None, "CREATE INDEX ix ON public.t USING btree (v)"),),
        (Change("column", "public.t.v", None, None),),
    ],
    ids=["generated", "partitioned", "foreign", "integers", "detached", "renamed", "index", "nothing"],
)
def test_what_is_not_lost_is_not_kept(changes: tuple[Change, ...]) -> None:
    assert content(*(c for c in changes if c.before != c.after)) == []


HOSTILE = [
    '"; drop table x; --',
    "it's",
    "a.b",
    "100% %s %(x)s :y",
    "Ü 🐘",
    "$1 $$ $mend$",
    "n" * 63,
    "a, (b",
    " lead",
    "select",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_kept_and_come_back(conn: psycopg.Connection, name: str) -> None:
    other = f"x{name}"[:60]
    schema, table, key, column, typ = (sql.Identifier(one) for one in (name, other, name, other, f"t{name}"[:60]))
    conn.execute(
        sql.SQL(
            "create schema {0}; create type {0}.{4} as enum ({5}, 'b'); create table {0}.{1} ({2} serial, {3} {0}.{4}, primary key ({2}))"
        ).format(schema, table, key, column, typ, sql.Literal(name))
    )
    conn.execute(
        sql.SQL("insert into {0}.{1} ({2}) values ({3}), (null), ('b')").format(
            schema, table, column, sql.Literal(name)
        )
    )
    live = facets(conn)
    before = conn.execute(sql.SQL("select * from {}.{} order by 1").format(schema, table)).fetchall()
    (of_column,) = content(
        next(
            Change(*found, None, text)
            for found, text in live.items()
            if found[0] == "column" and names.unquoted(names.last(found[1])) == other
        ),
        live=live,
    )
    send(conn, of_column.keep)
    conn.execute(sql.SQL("update {}.{} set {} = null").format(schema, table, column))
    send(conn, of_column.restore, of_column.finish)
    assert conn.execute(sql.SQL("select * from {}.{} order by 1").format(schema, table)).fetchall() == before
    (of_table,) = content(
        next(Change(*found, None, text) for found, text in live.items() if found[0] == "table"), live=live
    )
    send(conn, of_table.keep)
    conn.execute(sql.SQL("truncate {}.{} restart identity").format(schema, table))
    send(conn, of_table.restore, of_table.finish)
    assert conn.execute(sql.SQL("select * from {}.{} order by 1").format(schema, table)).fetchall() == before
    conn.execute(sql.SQL("insert into {}.{} default values").format(schema, table))
    assert conn.execute(sql.SQL("select max({}) from {}.{}").format(key, schema, table)).fetchone() == (4,)


VALUES = {
    "real": "'1.1'", "double precision": "0.1::float8 + 0.2", "numeric": "1e-30", "money": "'$1.23'", "bytea": "'\\x00ff'", "timestamptz": "'2024-01-01 00:00:00.123456+05'", "time with time zone": "'12:00:00.5+02'",
    "interval": "'1 mon -2 days 03:04:05.678'", "json": "'{\"b\" : 1, \"b\":2}'", "jsonb": "'{\"b\": 1e400}'", "xml": "'<a/>'", "inet": "'::1/64'", "bit varying(9)": "'010'", "tsvector": "'''a'':1 b:2A'", "int4range": "'[1,5)'",
    "int[]": "'[0:1]={1,NULL}'", "text[]": "array['', 'NULL', null, '\"', ',']", "point": "'(1.1,2)'", "uuid": "gen_random_uuid()", "character(5)": "'a '", "text": "E'\\n\\t\\\\ ''\\u00e9'", "boolean": "true", "pg_lsn": "'16/B374D848'",
    "app.pair": "'(1,)'", "app.pair[]": "array['(1,)'::app.pair]", "app.positive": "5", "app.mood": "'it''s'", "app.mood[]": "array['it''s', null]::app.mood[]", "regclass": "'pg_class'", '"char"': "'x'", "name": "'n'",
}  # fmt: skip


def test_a_value_of_any_type_comes_back_as_it_was(conn: psycopg.Connection) -> None:
    conn.execute(
        "create schema app; create type app.mood as enum ('it''s'); create type app.pair as (a integer, b text); create domain app.positive as integer check (value > 0)"
    )
    usable = []
    for typ, value in VALUES.items():
        try:
            with conn.transaction():
                conn.execute(f"select cast({value} as {typ})".encode())
                usable.append(typ)
        except psycopg.errors.FeatureNotSupported:  # a server without libxml
            continue
    columns = ", ".join(f"c{n} {typ}" for n, typ in enumerate(usable))
    conn.execute(f"create table every (id uuid, other app.mood, {columns}, primary key (other, id))".encode())
    conn.execute(
        f"insert into every select gen_random_uuid(), 'it''s', {', '.join(VALUES[typ] for typ in usable)}".encode()
    )
    conn.execute("insert into every (id, other) values (gen_random_uuid(), 'it''s')")
    before = conn.execute("select cast(every as text) from every order by 1").fetchall()
    live = facets(conn)
    for n in range(len(usable)):
        (found,) = content(
            Change("column", f"public.every.c{n}", None, live["column", f"public.every.c{n}"]), live=live
        )
        send(conn, found.keep)
        conn.execute(f"update every set c{n} = null".encode())
        send(conn, found.restore)
    (whole,) = content(Change("table", "public.every", None, "permanent"), live=live, purpose="whole")
    send(conn, whole.keep)
    conn.execute("delete from every")
    send(conn, whole.restore)
    assert conn.execute("select cast(every as text) from every order by 1").fetchall() == before
