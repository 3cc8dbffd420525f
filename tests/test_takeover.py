"""What may be taken over, and what may not: pure values, known ones, and rows that are not found again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fix_runs import Look
from mend.slow import dml, takeover
from mend.slow.takeover import Takeover
from sqlalchemy import Connection

MADE = (
    "create table t (id int8 primary key, a text, b text, n int, at timestamptz, k uuid, v varchar(5), g int generated always as (n + 1) stored); "
    "insert into t (id, a, b, n) select i, case when i % 3 = 0 then 'X' end, 'B' || i, i from generate_series(1, 300) as i; "
    "create table parent (id int primary key, a text); create table child () inherits (parent); "
    "create function noted(text) returns text language plpgsql volatile as $$ begin return $1; end $$"
)


@pytest.fixture
def examine(
    database: str, prepared: Callable[[str], None], reading: Callable[[], Connection]
) -> Callable[[str], Takeover]:
    prepared(MADE)
    live = Look(database).catalog()
    return lambda sql: takeover.examine(
        reading(), dml.read(sql), "public.parent" if "parent" in sql else "public.t", live
    )


PURE = [
    ("update t set a = '' where a is null", True),
    ("update t set a = lower(b)", False),
    ("update t set a = upper(b) where a is not null", False),
    ("update t set a = 'x', at = now() where a is null", True),
    ("update t set k = gen_random_uuid() where k is null", True),
    ("update t set at = now() where at is null", True),
    ("update t as z set b = z.a || 'x' where z.id > 5", False),
    (
        "with q as (select id from t where a is null order by id limit 9) update t set a = '' where id in (select id from q)",
        True,
    ),
    ("update t set v = left(b, 5) where v is null", True),
]


def test_a_pure_change_that_can_be_told_from_what_is_done(examine: Callable[[str], Takeover]) -> None:
    found = {sql: examine(sql) for sql, _ in PURE}
    assert {sql: (one.why_not, one.closes) for sql, one in found.items()} == {sql: ("", closes) for sql, closes in PURE}


NOT_TAKEN = [
    ("update t set n = n + 1", "cannot be told"),
    ("update t set b = b || 'x' where n > 3", "cannot be told"),
    ("update t set at = now()", "tells a row"),
    ("update t set k = gen_random_uuid() where id > 3", "cannot be told"),
    ("update t set a = noted(b)", "volatile"),
    ("update t set a = nextval('s')::text", "nextval"),
    ("update t set a = (select 'x')", "other rows"),
    ("update t set a = $1 where a is null", "parameters"),
    ("update t set a = u.b from t as u where u.id = t.id", "other tables"),
    ("update t set nowhere = 1", "no column nowhere"),
    ("update t set a = 'x' where noted(b) = 'y'", "volatile"),
    ("delete from t where a is null", "deletes"),
    ("insert into t (id) select 1000", "INSERT"),
    ("update t set v = b || 'long' where v is null", "does not fit v"),
    (
        "with q as (select b from t where a is null limit 9) update t set a = '' where b in (select b from q)",
        "no primary key",
    ),
    ("create index i on t (a)", "no UPDATE"),
    ("update t set a = current_user where a is null", "current_user means"),
    ("update t set a = '' where a is null and b = session_user", "session_user means"),
    ("update t set a = lower(b) where a is null returning id", "RETURNING"),
    ("update parent set a = '' where a is null", "inherit"),
]


def test_what_is_not_taken_over_says_why(examine: Callable[[str], Takeover]) -> None:
    said = {sql: examine(sql).why_not for sql, _ in NOT_TAKEN}
    assert [(sql, said[sql]) for sql, why in NOT_TAKEN if why not in said[sql]] == []


def test_the_condition_leaves_out_what_holds_its_value_already(
    examine: Callable[[str], Takeover], database: str
) -> None:
    found = examine("update t set a = lower(b), at = now() where id <= 100")
    assert "at" not in found.where
    assert any("another value in each batch" in note for note in found.notes)
    look = Look(database)
    assert look.query(f"select count(*) from t where {found.where}") == [(100,)]
    look.execute("update t set a = lower(b) where id <= 40")
    assert look.query(f"select count(*) from t where {found.where}") == [(60,)]


def test_values_that_come_from_their_own_columns_are_watched_batch_by_batch(examine: Callable[[str], Takeover]) -> None:
    assert not examine("update t set a = lower(b)").own
    found = examine("update t set n = n / 2 where n > 100")
    assert (found.own, found.repair("job", at_most=10, workers=1, batch_ms=100).each) == (True, True)
