"""One change of rows taken apart: what can be read is read exactly, and what cannot says why."""

from __future__ import annotations

import pytest
from mend.slow import dml

BATCHES = [
    "with b as (select id from t where a is null order by id limit 10) update t set a = 'x' where id in (select id from b)",
    "WITH b AS MATERIALIZED (SELECT t.id FROM app.t WHERE t.a IS NULL LIMIT $1 FOR UPDATE SKIP LOCKED) UPDATE app.t SET a = 'x' FROM b WHERE t.id = b.id",
    "update t set a = 'x' where id in (select z.id from t as z where z.a is null order by z.id limit :n)",
    "update t set a = 'x' where id = any(array(select id from t where a is null limit 10))",
]


@pytest.mark.parametrize("sql", BATCHES)
def test_a_loops_statement_is_the_change_that_its_batches_make(sql: str) -> None:
    found = dml.read(sql)
    assert found is not None
    assert (found.kind, found.batch_key, found.why_not, found.given, found.limited) == ("update", "id", "", False, True)
    assert found.where.lower().replace("t.", "") == "a is null"
    assert dict(found.values) == {"a": "'x'"}


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("update t set a = u.b from u where u.id = t.id", "other tables"),
        ("update t set a = (select max(b) from u)", "other rows"),
        ("update t set a = 1 where id in (select id from u)", "other rows"),
        ("update t set a = 1 where id in (select id from t group by id)", "other rows"),
        ("update t set (a, b) = (1, 2)", "several columns"),
        ("update t set a = default", "DEFAULT"),
        ("update t set a = 1 where current of c", "cursor"),
        ("delete from t using u where u.id = t.id", "other tables"),
        ("with recursive b as (select 1) update t set a = 1", "recursive"),
        ("with b as (select 1), c as (select 2) update t set a = 1", "several queries"),
        ("insert into t (a) select 1", "inserts"),
        ("update t set a = 1 where a is null returning id", "RETURNING"),
    ],
)
def test_what_cannot_be_named_by_a_condition_alone_says_why(sql: str, why: str) -> None:
    found = dml.read(sql)
    assert found is not None
    assert why in found.why_not
    assert found.table == "t"


@pytest.mark.parametrize(
    "sql", ["select 1", "vacuum t", "update t set a = $x$ ; drop table t $x$", "", "update", "create index i on t (a)"]
)
def test_what_is_no_change_of_rows_is_nothing(sql: str) -> None:
    found = dml.read(sql)
    assert found is None or found.why_not


def test_names_and_aliases_are_kept_exactly() -> None:
    found = dml.read(
        'update only "We ird"."T b" as "T" set "c d" = lower("T"."x") /* c */ where "T"."x" > 1 returning *;'
    )
    assert found is not None
    assert (found.table, dict(found.values), found.where) == ('"We ird"."T b"', {'"c d"': 'lower(t."x")'}, 't."x" > 1')


@pytest.mark.parametrize(
    "sql", ["update t set a = $1 where b = 1", "update t set a = 1 where b = %(b)s", "update t set a = 1 where b = :b"]
)
def test_parameters_are_said_to_be_unknown(sql: str) -> None:
    found = dml.read(sql)
    assert found is not None
    assert found.given
    assert dml.shape(sql) == dml.shape(sql.replace("$1", "7").replace("%(b)s", "'x'").replace(":b", "2"))


def test_the_same_words_with_other_names_are_another_statement() -> None:
    assert dml.shape("update t set a = 1") != dml.shape("update t set b = 1")
    assert dml.shape("update t set a = 'x'") == dml.shape("UPDATE  t SET a = NULL")


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("a = 1 and t.b = 'x' and c is null", (["a", "b"], ["c"])),
        ("a = b", ([], [])),
        ("a = lower('x')", ([], [])),
        ("a = 1 or b = 2", ([], [])),
        ("a = mend_given::varchar", (["a"], [])),
        ("", ([], [])),
    ],
)
def test_only_equalities_with_a_value_can_use_an_index(where: str, found: tuple[list[str], list[str]]) -> None:
    assert dml.equalities(where) == found
