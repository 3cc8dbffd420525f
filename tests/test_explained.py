"""Plans of statements that are not run, the index that one lacks, and pg_stat_statements in every state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fix_runs import Look
from mend.slow import dml, explained
from sqlalchemy import Connection

MADE = (
    'create schema app; create table app."T t" (id int8 primary key, "Ref x" text, "order" text, note text); '
    "insert into app.\"T t\" select i, 'R' || i, 'o' || i, case when i % 2 = 0 then 'n' end from generate_series(1, 3000) as i; analyze app.\"T t\""
)
TABLE = 'app."T t"'
PRINTED = {"id": "id", "Ref x": '"Ref x"', "order": '"order"', "note": "note"}


def _missing(conn: Connection, sql: str, *, indexed: frozenset[str] = frozenset({"id"})) -> explained.Missing | None:
    found = explained.plan_of(conn, sql)
    assert found.why == ""
    return explained.missing(found, dml.read(sql), TABLE, rows=3000, printed=PRINTED, indexed=indexed)


@pytest.mark.parametrize("value", ["'R7'", "$1", "$1::text"])
def test_the_index_that_a_lookup_lacks_is_named_and_can_be_made(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection], value: str
) -> None:
    prepared(MADE)
    sql = f'update {TABLE} set note = \'x\' where "Ref x" = {value} and "order" = {value.replace("R", "o")}'
    wanted = _missing(reading(), sql)
    assert wanted is not None
    reading().rollback()  # an open snapshot is what CREATE INDEX CONCURRENTLY waits for
    look = Look(database)
    look.execute(wanted.sql)
    assert look.catalog()["index", wanted.identity] == wanted.definition
    assert _missing(reading(), sql, indexed=frozenset({"id", "Ref x", "order"})) is None


def test_no_index_is_wanted_where_it_would_not_help(
    prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    conn = reading()
    for sql in (
        f"update {TABLE} set note = 'x' where id = 7",
        f"update {TABLE} set note = 'x'",
        f"update {TABLE} set note = 'x' where note = 'n'",  # half of the table
        f"update {TABLE} set note = 'x' where lower(\"Ref x\") = 'r7'",
    ):
        assert _missing(conn, sql) is None


def test_nothing_is_run_and_no_value_is_shown(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    conn = reading()
    found = explained.plan_of(conn, f"update {TABLE} set note = 'secret' where \"Ref x\" = 'R7'")
    assert "R7" not in found.nodes.to_string()
    assert "secret" not in found.nodes.to_string()
    assert Look(database).query("select count(*) from app.\"T t\" where note = 'secret'") == [(0,)]
    held = [
        row[0]
        for row in conn.exec_driver_sql(
            "select mode from pg_locks where pid = pg_backend_pid() and mode = 'RowExclusiveLock'"
        )
    ]
    assert held == []


@pytest.mark.parametrize(
    "sql", ["create index i on x (a)", "update t set a = 1; drop table t", "vacuum", "do $$ begin end $$"]
)
def test_what_cannot_be_explained_says_so(reading: Callable[[], Connection], sql: str) -> None:
    assert explained.plan_of(reading(), sql).why


def test_a_table_that_is_locked_is_not_waited_for(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> None:
    prepared(MADE)
    with Look(database).holding(f"lock table {TABLE} in access exclusive mode"):
        assert "lock" in explained.plan_of(reading(), f"update {TABLE} set note = 'x'").why


def test_statistics_say_how_to_get_them_or_what_was_costly(database: str, reading: Callable[[], Connection]) -> None:
    frame, why, _ = explained.statistics(reading())
    assert list(frame.columns) == explained.STATISTICS
    assert "create extension pg_stat_statements" in why
    look = Look(database)
    if not look.query("select count(*) from pg_available_extensions where name = 'pg_stat_statements'")[0][0]:
        pytest.skip("this server has no contrib")
    look.execute("create schema elsewhere", "create extension pg_stat_statements schema elsewhere", "select 'a secret'")
    reading().rollback()
    frame, why, _ = explained.statistics(reading())
    assert "42P01" not in why
    assert not frame.empty or "55000" in why
    assert "a secret" not in frame.to_string()
