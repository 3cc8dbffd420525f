"""What is predicted of a table's rewrite is what its file shows: relfilenode before and after, on a real server."""

from __future__ import annotations

import psycopg
import pytest
from mend.change import locks, rewriting
from mend.lab.shop import plain

COLUMNS = {
    "i": "integer", "v": "character varying(40)", "v0": "character varying", "t": "text", "n": "numeric(10,2)", "c": "character(8)",
    "ts": "timestamp without time zone", "tz": "timestamp with time zone", "ts3": "timestamp(3) without time zone", "ci": "cidr",
    "iv": "interval", "b": "bit varying(8)", "big": "bigint", "j": "json",
}  # fmt: skip
TRUTH = [
    # facts 1.3
    ("alter table w add column x integer", None),
    ("alter table w add column x integer default 7", None),
    ("alter table w add column x timestamptz default now()", None),
    ("alter table w add column x timestamptz default current_timestamp not null", None),
    ("alter table w add column x timestamptz default clock_timestamp()", None),
    ("alter table w add column x uuid default gen_random_uuid()", None),
    ("alter table w add column x float8 default random()", None),
    ("alter table w add column x bigserial", None),
    ("alter table w add column x bigint generated always as identity", None),
    ("alter table w add column x integer generated always as (i + 1) stored", None),
    ("alter table w alter column i type bigint", ("i", "bigint")),
    ("alter table w alter column i type bigint using i::bigint", ("i", "bigint")),
    ("alter table w alter column v type varchar(80)", ("v", "character varying(80)")),
    ("alter table w alter column v type varchar(20)", ("v", "character varying(20)")),
    ("alter table w alter column v type varchar", ("v", "character varying")),
    ("alter table w alter column v type text", ("v", "text")),
    ("alter table w alter column v0 type varchar(20)", ("v0", "character varying(20)")),
    ("alter table w alter column t type varchar", ("t", "character varying")),
    ("alter table w alter column t type varchar(20)", ("t", "character varying(20)")),
    ("alter table w alter column t type text using lower(t)", ("t", "text")),
    ("alter table w alter column n type numeric(12,2)", ("n", "numeric(12,2)")),
    ("alter table w alter column n type numeric(12,3)", ("n", "numeric(12,3)")),
    ("alter table w alter column n type numeric(8,2)", ("n", "numeric(8,2)")),
    ("alter table w alter column n type numeric", ("n", "numeric")),
    ("alter table w alter column c type char(10)", ("c", "character(10)")),
    ("alter table w alter column c type text", ("c", "text")),
    ("alter table w alter column ts type timestamptz", ("ts", "timestamp with time zone")),
    ("alter table w alter column tz type timestamp", ("tz", "timestamp without time zone")),
    ("alter table w alter column ts type timestamp(3)", ("ts", "timestamp(3) without time zone")),
    ("alter table w alter column ts3 type timestamp", ("ts3", "timestamp without time zone")),
    ("alter table w alter column ci type inet", ("ci", "inet")),
    ("alter table w alter column b type bit varying(16)", ("b", "bit varying(16)")),
    ("alter table w alter column big type integer", ("big", "integer")),
    ("alter table w alter column j type jsonb using j::jsonb", ("j", "jsonb")),
    ("alter table w set unlogged", None),
    ("alter table w alter column i set default 3", None),
    ("alter table w alter column i set not null", None),
    ("alter table w add constraint ck check (i > 0) not valid", None),
    ("alter table w drop column i", None),
]  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna"])
def test_what_is_predicted_is_what_the_relfilenode_shows(database: str, zone: str) -> None:
    wrong = []
    with psycopg.connect(plain(database), autocommit=True) as conn:
        conn.execute(f"set timezone = '{zone}'".encode())
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        conn.execute(f"create table w ({columns})".encode())
        conn.execute(b"insert into w (i) values (1)")
        for sql, change in TRUTH:
            types = {change[0]: (COLUMNS[change[0]], change[1])} if change else None
            predicted = locks.rewrites(sql, types=types, utc=zone == "UTC")
            conn.execute(b"begin")
            (before,) = conn.execute("select pg_relation_filenode('w')").fetchone() or (0,)
            conn.execute(sql.encode())
            (after,) = conn.execute("select pg_relation_filenode('w')").fetchone() or (0,)
            conn.execute(b"rollback")
            if predicted is not (before != after):
                wrong.append((sql, predicted, before != after))
    assert wrong == []


@pytest.mark.parametrize(("before", "after"), [("app.mood", "text"), ("integer", "app.amount"), ("citext", "text")])
def test_of_a_type_that_is_not_postgresqls_own_nothing_is_promised(before: str, after: str) -> None:
    assert rewriting.type_rewrites(before, after) is None


def test_without_the_types_a_change_of_type_is_not_known() -> None:
    assert locks.rewrites("alter table t alter column a type bigint") is None
    assert locks.rewrites("alter table t alter column a type bigint", types={"a": ("integer", "bigint")}) is True
