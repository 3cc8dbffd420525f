"""A repair of rows as a step: what it reviews, what it refuses, and how it goes through a plan's record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mend.batches import batch, rows
from mend.batches import deletion as deletions
from mend.batches.rows import Repair
from mend.change.kept import Facets, Keeper
from mend.errors import InvalidParameter, Refused
from mend.plan import Plan, Step, from_record

LIVE: dict[tuple[str, str], str] = {
    ("table", "public.t"): "permanent",
    ("column", "public.t.id"): "integer generated always as identity",
    ("column", "public.t.email"): "character varying(20)",
    ("column", "public.t.code"): "text",
    ("column", "public.t.size"): "integer generated always as (length(code)) stored",
    ("not_null", "public.t.id"): "not null",
    ("not_null", "public.t.code"): "not null",
    ("constraint", "public.t.t_pkey"): "PRIMARY KEY (id)",
    ("index", "public.t_code"): "CREATE UNIQUE INDEX t_code ON public.t USING btree (code)",
    ("view", "public.v"): " select 1",
    ("foreign_table", "public.f"): "server s",
    ("table", "public.p"): "permanent partition by RANGE (at)",
    ("column", "public.p.at"): "date",
    ("column", "public.p.x"): "text",
    ("table", "public.p1"): "permanent",
    ("partition", "public.p1"): "public.p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
}


def step(live: Facets = LIVE, **given: Any) -> Step:
    values = {"job": "k_0", "table": "public.t", "action": "update", **given}
    if values["action"] == "update":
        values.setdefault("values", {"email": "lower(t.code)"})
    return rows.step(Repair(**values), says="repair", live=live, keeper=Keeper("mend", "k"))


def without(*gone: tuple[str, str]) -> dict[tuple[str, str], str]:
    return {key: text for key, text in LIVE.items() if key not in gone}


PRIMARY = ("constraint", "public.t.t_pkey")


def test_the_statement_of_a_batch_is_what_is_reviewed() -> None:
    made = step(where="t.email is null")
    assert made.kind == "backfill"
    assert not made.transactional
    assert not made.retryable
    assert (made.locks[0].relation, made.locks[0].mode) == ("public.t", "ROW EXCLUSIVE")
    assert made.sql() == (
        "with mend_hit as materialized (\n"
        "  select t.ctid as mend_place, t.tableoid as mend_leaf, t.id as mend_k1, t.email as mend_o1\n"
        "    from only public.t as t\n"
        "   where t.ctid >= :from1\n     and t.ctid < :upto1\n     and (t.email is null)\n"
        "   order by t.ctid limit :rows\n     for no key update of t skip locked\n"
        "), mend_done as (\n"
        "  update only public.t as t set email = (lower(t.code))\n    from mend_hit as w\n"
        "   where t.ctid = w.mend_place\n     and t.ctid >= :from1\n     and t.ctid < :upto1\n"
        "  returning cast(null as int8) as w, mend_k1 as k1, mend_o1 as o1, t.email as n1\n"
        "), mend_kept as (\n"
        '  insert into "mend"."image_k_0" (w, k1, o1, n1) select w, k1, o1, n1 from mend_done\n)\n'
        "select count(*) as found, (select count(*) from mend_done) as changed, cast(max(mend_place) as text) as last from mend_hit;\n"
        "-- PostgreSQL 18 and newer: while nobody else holds a row of the batch, the same in one go\n"
        "with mend_done as (\n"
        "  update only public.t as t set email = (lower(t.code))\n"
        "   where t.ctid >= :from1\n     and t.ctid < :upto1\n     and (t.email is null)\n"
        "  returning with (old as mend_old, new as mend_new) cast(null as int8) as w, mend_old.id as k1, mend_old.email as o1, mend_new.email as n1\n"
        "), mend_kept as (\n"
        '  insert into "mend"."image_k_0" (w, k1, o1, n1) select w, k1, o1, n1 from mend_done\n)\n'
        "select count(*) as found, count(*) as changed, cast(null as text) as last from mend_done;"
    )


@pytest.mark.parametrize(
    "given",
    [
        {"where": "t.email is null", "by": "keyset", "at_most": 7, "workers": 2},
        {"action": "delete", "where": "t.id in (1, 2)"},
        {"work": "select 1 as k1, 'x' as v1", "match": ("id",), "values": {"email": "w.v1"}},
        {"action": "insert", "work": "select 1 as k1", "match": ("id",), "values": {"id": "w.k1", "code": "'x'"}},
    ],
)
def test_a_repair_comes_back_from_a_plans_record(given: dict[str, Any]) -> None:
    made = step(**given)
    plan = Plan("rows", {}, {}, "repair", steps=(made,))
    again = from_record(json.loads(json.dumps(plan.as_record())))
    assert batch.job_of(again.steps[0]) == batch.job_of(made)
    assert batch.job_of(again.steps[0].undo[0]) == batch.job_of(made)
    assert ":rows" in made.sql() or "keyset" in given.values() or "work" in given
    assert ":above" in made.undo[0].sql()


# -- what tells rows apart ------------------------------------------------------------------------------------------------


def key(**more: Any) -> tuple[str, ...]:
    return batch.job_of(step(**more)).repair.key


def test_the_primary_key_tells_rows_apart() -> None:
    assert key() == ("id",)


def test_a_unique_index_over_columns_that_are_never_null_does_too() -> None:
    assert key(live=without(PRIMARY)) == ("code",)


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE UNIQUE INDEX t_code ON public.t USING btree (code) WHERE (id > 1)",
        "CREATE UNIQUE INDEX t_code ON public.t USING btree (lower(code))",
        'CREATE UNIQUE INDEX t_code ON public.t USING btree (code COLLATE "C")',
        "CREATE UNIQUE INDEX t_code ON public.t USING btree (code) INVALID, ready",
        "CREATE UNIQUE INDEX t_code ON public.t USING btree (email)",
        "CREATE UNIQUE INDEX t_code ON other.t USING btree (code)",
        "CREATE INDEX t_code ON public.t USING btree (code)",
    ],
)
def test_no_other_index_does(definition: str) -> None:
    made = step(live=without(PRIMARY) | {("index", "public.t_code"): definition})
    assert batch.job_of(made).repair.key == ()
    assert made.undo == ()
    assert "no key" in made.irreversible


def test_a_column_that_is_not_null_only_for_new_rows_tells_nothing_apart() -> None:
    live = without(PRIMARY) | {("not_null", "public.t.code"): "not null not valid"}
    assert key(live=live) == ()


def test_a_key_that_changes_itself_cannot_find_the_rows_again() -> None:
    assert key(values={"code": "'x'"}, live=without(PRIMARY)) == ()
    assert key(values={"code": "'x'"}) == ("id",)


def test_rows_are_locked_against_foreign_keys_only_where_these_may_refer_to_what_changes() -> None:
    assert "for no key update of t skip locked" in step().sql()
    assert "for update of t skip locked" in step(values={"code": "'x'"}).sql()
    assert "for update of t skip locked" in step(action="delete", where="t.id = 1").sql()


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"table": "public.v", "values": {"x": "1"}}, "public.v is a view"),
        ({"table": "public.f", "values": {"x": "1"}}, "public.f is a foreign table"),
        ({"table": "public.gone", "values": {"x": "1"}}, "public.gone is not among the tables"),
        ({"values": {"size": "1"}}, "public.t.size is generated always"),
        ({"values": {"id": "1"}}, "public.t.id is generated always"),
        ({"table": "public.p", "values": {"at": "now()"}}, "public.p is partitioned by at"),
    ],
)
def test_what_could_not_be_run_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=f"^{said}.*Nothing was changed"):
        step(**given)


def test_a_partition_on_another_server_is_refused() -> None:
    live = LIVE | {("foreign_table", "public.p1"): "server s"}
    with pytest.raises(Refused, match=r"^public\.p1 is a foreign table"):
        step(table="public.p", values={"x": "1"}, live=live)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"job": "Job 1"}, "is no name of a job"),
        ({"job": "j" * 41}, "is no name of a job"),
        ({"values": {}}, "means nothing"),
        ({"action": "delete", "values": {"email": "1"}}, "means nothing"),
        ({"values": {"emial": "1"}}, "has no column emial"),
        ({"action": "insert", "values": {"id": "w.k1"}}, "needs a worklist"),
        ({"work": "select 1 as k1"}, "matched by no column"),
        ({"match": ("id",)}, "needs a worklist"),
        ({"workers": 0}, "at least one worker"),
        ({"by": "keyset", "live": {k: v for k, v in LIVE.items() if k[0] not in ("constraint", "index")}}, "has no key to walk along"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{said}.*Nothing was changed"):
        step(**given)


# -- deletes --------------------------------------------------------------------------------------------------------------

REFERENCES = {
    ("table", "public.c"): "permanent",
    ("column", "public.c.t_id"): "integer",
    ("column", "public.c.n"): "integer",
    ("default", "public.c.t_id"): "0",
}


def family(rule: str, **more: str) -> dict[tuple[str, str], str]:
    key = ("constraint", "public.c.c_t_fkey")
    return LIVE | REFERENCES | {key: f"FOREIGN KEY (t_id) REFERENCES public.t(id){rule}"} | more


def deletion(live: Facets, **more: Any) -> list[tuple[str, str, str, dict[str, str]]]:
    found = deletions.deletion(Repair("k", "public.t", "delete", where="t.code = 'x'"), live=live, **more)
    return [(one.job, one.table, one.action, dict(one.values)) for one in found]


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        (" ON DELETE CASCADE", ("ka", "public.c", "delete", {})),
        (" ON UPDATE CASCADE ON DELETE SET NULL", ("ka", "public.c", "update", {"t_id": "null"})),
        (" ON DELETE SET DEFAULT NOT VALID", ("ka", "public.c", "update", {"t_id": "0"})),
    ],
)
def test_what_a_foreign_key_would_do_is_done_first(rule: str, first: tuple[str, str, str, dict[str, str]]) -> None:
    assert deletion(family(rule)) == [first, ("k", "public.t", "delete", {})]


def test_a_row_to_which_another_refers_is_left_alone() -> None:
    (*_, last) = deletions.deletion(Repair("k", "public.t", "delete"), live=family(" ON DELETE CASCADE"))
    made = rows.step(last, says="delete", live=family(" ON DELETE CASCADE"), keeper=Keeper("mend", "k"))
    assert "not exists (select from public.c as c where c.t_id = t.id)" in made.sql()


@pytest.mark.parametrize("rule", ["", " ON DELETE RESTRICT", " ON UPDATE CASCADE"])
def test_a_foreign_key_without_a_rule_forbids_a_delete(rule: str) -> None:
    with pytest.raises(Refused, match=r"public\.c \(t_id\) refers to them without ON DELETE"):
        deletion(family(rule))
    assert deletion(family(rule), strict=False) == [("k", "public.t", "delete", {})]


def test_a_column_that_must_not_be_null_is_not_set_to_null() -> None:
    live = family(" ON DELETE SET NULL") | {("not_null", "public.c.t_id"): "not null"}
    with pytest.raises(Refused, match=r"public\.c\.t_id is set to null .* but is NOT NULL"):
        deletion(live)


def test_tables_that_take_each_other_along_are_refused() -> None:
    back = {("constraint", "public.t.t_c_fkey"): "FOREIGN KEY (id) REFERENCES public.c(n) ON DELETE CASCADE"}
    with pytest.raises(Refused, match=r"public\.t and public\.c take each other along"):
        deletion(family(" ON DELETE CASCADE") | back)
