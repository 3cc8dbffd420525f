"""What a repair would write is refused, with the rows that prove it, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from mend.constraints import proposals
from mend.constraints.proposals import Objection, Proposal
from mend.errors import InvalidParameter, PrivilegeMissing
from mend.postgres.server import Server
from sqlalchemy import Connection

Ask = Callable[..., tuple[Objection, ...]]


@pytest.fixture
def ask(reading: Callable[[], Connection]) -> Ask:
    """``ask(table, {column: expression}, ...)``: what speaks against it."""

    def objections(
        table: str, values: dict[str, str], *, mask: bool = True, timeout_ms: int = 5000, **more: Any
    ) -> tuple[Objection, ...]:
        return proposals.objections(reading(), Proposal(table, values, **more), mask=mask, timeout_ms=timeout_ms)

    return objections


PEOPLE = """
create table people (id int primary key, email varchar(12), name text, code int);
insert into people select i, case when i % 2 = 0 then 'a' || i || '@x.co' end, 'Ann ' || i, i from generate_series(1, 100) as i;
"""


def test_values_that_may_be_written_meet_no_objection(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE + "create unique index on people (email)")
    assert ask("public.people", {"email": "'n' || id"}, where="email is null", not_null=["email"]) == ()
    assert ask("public.people", {"email": "null"}, where="email is null") == ()


def test_nulls_are_counted_and_shown(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE)
    (found,) = ask("public.people", {"email": "nullif(name, 'Ann 3')"}, where="id < 6", not_null=["email"])
    assert (found.rows, found.says) == (1, "The value for email is NULL in 1 row.")
    assert found.frame.to_dict("records") == [{"id": 3, "new email": None}]


def test_what_is_too_long_is_an_objection_and_masked(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE)
    (found,) = ask("public.people", {"email": "name || ' much too long'"}, where="id <= 30")
    assert (found.rows, len(found.frame)) == (30, proposals.SAMPLE)
    assert "does not fit email character varying(12)" in found.says
    assert found.frame["new email"][0] == "Xxx 9 xxxx xxx xxxx"
    (shown,) = ask("public.people", {"email": "name || ' much too long'"}, where="id = 1", mask=False)
    assert shown.frame["new email"][0] == "Ann 1 much too long"


def test_spaces_that_would_be_cut_are_none(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE)
    assert ask("public.people", {"email": "'abc' || repeat(' ', 40)"}) == ()


def test_a_value_that_cannot_be_computed_names_its_rows(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(
        "create table t (id int primary key, raw text, n int); insert into t select i, i::text from generate_series(1, 5000) i; update t set raw = 'Ann 77' where id in (77, 4711)"
    )
    (found,) = ask("public.t", {"n": "raw::int"})
    assert found.frame["id"].tolist() == [77, 4711] or sorted(found.frame["id"]) == [77, 4711]
    assert "2 rows" in found.says
    assert "22P02" in found.says
    assert "Ann" not in found.says + str(found.frame.to_dict())
    assert 'integer: "Xxx 99"' in found.frame["why"][0]


def test_a_condition_that_cannot_be_computed_is_said(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE)
    (found,) = ask("public.people", {"code": "1"}, where="10 / (id - 7) > 0")
    assert (found.rows, found.frame.empty) == (None, True)
    assert "division by zero" in found.says


def test_what_the_server_does_not_take_is_said_in_its_words(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE)
    (found,) = ask("public.people", {"code": "name"})
    assert "is of type integer but expression is of type text" in found.says
    with pytest.raises(InvalidParameter, match="no column nope"):
        ask("public.people", {"nope": "1"})
    with pytest.raises(InvalidParameter, match=r"no table public\.nothing"):
        ask("public.nothing", {"nope": "1"})


def test_new_values_collide_with_each_other_and_with_what_stays(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE + "create unique index people_email on people (email)")
    (found,) = ask("public.people", {"email": "'a' || (id / 10 * 10) || '@x.co'"}, where="email is null and id < 30")
    assert (found.rows, "public.people_email" in found.says) == (15, True)
    assert set(found.frame["rows present"]) == {0, 1}


@pytest.mark.parametrize(("nulls", "rows"), [("", None), ("nulls not distinct", 50)])
def test_nulls_collide_where_the_index_says_so(
    prepared: Callable[[str], None], ask: Ask, reading: Callable[[], Connection], nulls: str, rows: int | None
) -> None:
    if nulls and (reading().dialect.server_version_info or (0,)) < (15,):
        pytest.skip("PostgreSQL 15 has it first")
    prepared(
        f"create table t (id int primary key, a int); insert into t select i, i from generate_series(1, 100) i; create unique index on t (a) {nulls}"
    )
    found = ask("public.t", {"a": "null"}, where="id <= 50")
    assert [one.rows for one in found] == ([rows] if rows else [])


def test_the_index_s_own_equality_decides(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("""create extension citext;
        create table t (id int primary key, a citext, b text, c text, d text, gone bool not null default false);
        insert into t values (1, 'Ann', 'Ann', 'Ann', 'x', false), (2, null, null, null, null, false);
        create unique index t_a on t (a); create unique index t_b on t (lower(b)); create unique index t_c on t (c) where not gone;""")
    assert "t_a" in ask("public.t", {"a": "'ANN'"}, where="id = 2")[0].says
    assert "t_b" in ask("public.t", {"b": "'aNN'"}, where="id = 2")[0].says
    assert ask("public.t", {"c": "'ann'"}, where="id = 2") == ()
    assert "t_c" in ask("public.t", {"c": "'Ann'"}, where="id = 2")[0].says
    assert ask("public.t", {"c": "'Ann'", "gone": "true"}, where="id = 2") == ()


def test_a_nondeterministic_collation_decides_what_is_equal(
    prepared: Callable[[str], None], ask: Ask, database: str
) -> None:
    try:
        prepared("create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except sqlalchemy.exc.DBAPIError:
        pytest.skip("this server was built without ICU")
    prepared("""create table t (id int primary key, a text collate loose, b text); create unique index t_a on t (a);
        create unique index t_b on t (b collate loose); insert into t values (1, 'Ann', 'Ann'), (2, null, null)""")
    assert "t_a" in ask("public.t", {"a": "'ANN'"}, where="id = 2")[0].says
    assert "t_b" in ask("public.t", {"b": "'ANN'"}, where="id = 2")[0].says
    assert ask("public.t", {"a": "'Ann'"}, where="id = 1") == ()


def test_a_value_that_another_row_gives_up_later_is_not_free_yet(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(
        "create table t (id int primary key, a int unique, b int); insert into t select i, i, i from generate_series(1, 3) i"
    )
    assert ask("public.t", {"a": "a"}) == ()
    assert ask("public.t", {"a": "a + 3"}) == ()
    (found,) = ask("public.t", {"a": "a + 1"})
    assert (found.rows, "held by a row that is there" in found.says) == (2, True)
    assert ask("public.t", {"b": "b + 1"}, wanted=["UNIQUE (b)"]) == (), "only when all is done"


def test_a_work_list_has_one_line_for_each_row(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE)
    work = "select code as k1, name as v1 from people union all select 7, 'x'"
    (found,) = ask("public.people", {"name": "w.v1"}, work=work, match=("id",))
    assert (found.rows, "more than one line" in found.says) == (1, True)


def test_a_wanted_constraint_counts_too(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE)
    wanted = [
        "UNIQUE (name)",
        "CREATE UNIQUE INDEX ix ON public.people USING btree (lower(name)) WHERE (id < 50)",
        "CHECK ((id > 0))",
    ]
    found = ask("public.people", {"name": "'ann 1'"}, where="id in (2, 60)", wanted=wanted)
    assert [one.rows for one in found] == [2, 1]


def test_checks_domains_and_generated_columns_are_asked_with_the_new_values(
    prepared: Callable[[str], None], ask: Ask
) -> None:
    prepared("""create domain short as varchar(5) constraint lower_only check (value = lower(value)) not null;
        create table t (id int primary key, a int constraint positive check (a > 0), s short default 'x', twice int generated always as (a * 2) stored unique,
                        constraint below_id check (a < id));
        insert into t (id, a) select i, i - 1 from generate_series(2, 20) i;""")
    says = [one.says for one in ask("public.t", {"a": "-1"}, where="id = 3")]
    assert len(says) == 1
    assert "public.t.positive" in says[0]
    assert "public.t.below_id" in ask("public.t", {"a": "100"}, where="id = 3")[0].says
    assert "t_twice_key" in ask("public.t", {"a": "a - 1"}, where="id = 5")[0].says
    assert "lower_only" in ask("public.t", {"s": "'X'"}, where="id = 3")[0].says
    assert "NULL" in ask("public.t", {"s": "null"}, where="id = 3")[0].says
    assert "character varying(5)" in ask("public.t", {"s": "'toolong'"}, where="id = 3")[0].says


def test_a_value_without_parent_and_a_value_with_children(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("""create table parent (a int, b int, primary key (a, b)); insert into parent values (1, 1), (2, 2);
        create table child (id int primary key, a int, b int, foreign key (a, b) references parent on update cascade);
        insert into child values (1, 1, 1), (2, null, null);""")
    assert ask("public.child", {"a": "2", "b": "2"}) == ()
    assert ask("public.child", {"a": "2"}, where="id = 2") == ()
    (found,) = ask("public.child", {"a": "9", "b": "9"}, where="id = 2")
    assert "no parent in public.parent" in found.says
    (found,) = ask("public.parent", {"a": "a + 10"})
    assert (found.rows, "would be changed with it" in found.says) == (1, True)


def test_match_full_refuses_half_a_key(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("""create table parent (a int, b int, primary key (a, b)); insert into parent values (1, 1);
        create table child (id int primary key, a int, b int, foreign key (a, b) references parent match full);
        insert into child values (1, 1, 1);""")
    assert ask("public.child", {"a": "null", "b": "null"}) == ()
    assert "no parent" in ask("public.child", {"a": "null"})[0].says


def test_a_work_list_gives_the_values(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(PEOPLE + "create unique index people_email on people (email)")
    work = "select id as k1, name || '_dup' as v1 from people where id in (4, 6)"
    assert ask("public.people", {"email": "w.v1"}, work=work, match=("id",)) == ()
    clash = "select id as k1, 'a8@x.co' as v1 from people where id in (4, 6)"
    (found,) = ask("public.people", {"email": "w.v1"}, work=clash, match=("id",))
    assert found.rows == 2
    same = "select id as k1, email as v1 from people where email is not null"
    assert ask("public.people", {"email": "w.v1"}, work=same, match=("id",)) == ()


def test_new_rows_are_asked_about_too(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared(
        "create table p (id int primary key, name text not null, at date default now(), code varchar(3) unique); insert into p values (1, 'x', null, 'abc')"
    )
    work = "select i as v1 from generate_series(2, 4) as i"
    assert ask("public.p", {"id": "w.v1", "name": "'unknown'"}, work=work, action="insert") == ()
    (found,) = ask("public.p", {"id": "w.v1"}, work=work, action="insert")
    assert "name is NOT NULL" in found.says
    found = ask("public.p", {"id": "w.v1 - 1", "name": "'x'", "code": "'abc'"}, work=work, action="insert")
    assert [one.rows for one in found] == [3, 1]


def test_partitions_and_their_own_rules(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("""create table m (id int, at int, a int, primary key (id, at)) partition by range (at);
        create table m1 partition of m for values from (0) to (10); create table m2 partition of m for values from (10) to (20);
        insert into m select i, i, i from generate_series(1, 19) i;
        create unique index m2_a on m2 (a); alter table m2 add constraint m2_small check (a < 100);""")
    assert ask("public.m", {"a": "5"}, where="at < 10") == ()
    assert "m2_a" in ask("public.m", {"a": "5"})[0].says
    assert "m2_small" in ask("public.m", {"a": "id + 200"})[0].says
    assert "partition" in ask("public.m", {"at": "at + 1"})[0].says


def test_a_question_that_takes_too_long_is_an_objection(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("create table t (id int primary key, a int); insert into t select i from generate_series(1, 200000) i")
    found = ask("public.t", {"a": "(select count(*) from generate_series(1, 100000 + id))"}, timeout_ms=200)
    assert len(found) == 1
    assert "did not end within 0.2 s" in found[0].says


def test_strange_names_arrays_and_tables_without_a_key(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("""create schema "App s"; create table "App s"."We ""Ird" ("Größe" varchar(3), "a%b" numeric(4,2), tags varchar(3)[]);
        insert into "App s"."We ""Ird" values ('abc', 1, '{a}'), (null, null, null)""")
    table = '"App s"."We ""Ird"'
    assert ask(table, {'"a%b"': "12.34", "tags": "'{abc}'::text[]"}) == ()
    (found,) = ask(table, {'"a%b"': 'coalesce(t."a%b", 99.995)'}, where='"Größe" is null')
    assert "numeric(4,2)" in found.says
    assert found.frame.to_dict("records") == [{"ctid": "(0,2)", "new a%b": "99.999"}]
    (found,) = ask(table, {"tags": "array['abc', 'abc' || coalesce(\"Größe\", 'd')]"})
    assert found.rows == 2


def test_exclusion_constraints_are_asked_pair_by_pair(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("""create table t (id int primary key, during int4range, constraint apart exclude using gist (during with &&));
        insert into t select i, int4range(i * 10, i * 10 + 5) from generate_series(1, 20) i;""")
    assert ask("public.t", {"during": "int4range(id * 10 + 5, id * 10 + 10)"}) == ()
    (found,) = ask("public.t", {"during": "int4range(30, 32)"}, where="id in (1, 2)")
    assert (found.rows, "public.apart" in found.says) == (2, True)


def test_tables_that_inherit_have_keys_of_their_own(prepared: Callable[[str], None], ask: Ask) -> None:
    prepared("""create table t (id int primary key, a text unique); create table c (unique (a)) inherits (t);
        insert into t values (1, 'x'); insert into c values (2, 'y'), (3, 'z');""")
    assert ask("public.t", {"a": "'x'"}, where="id = 2") == ()
    assert ask("public.t", {"a": "'x'"}, where="id = 2", wanted=["UNIQUE (a)"]) == ()
    (found,) = ask("public.t", {"a": "'y'"}, where="id in (1, 3)")
    assert (found.rows, "public.c_a_key" in found.says) == (1, True)


def test_a_missing_privilege_is_said(
    prepared: Callable[[str], None], ask: Ask, reading: Callable[[], Connection]
) -> None:
    prepared(PEOPLE + "create role clerk_of_values; grant select on people to clerk_of_values")
    try:
        reading().exec_driver_sql("set local role clerk_of_values")
        with pytest.raises(PrivilegeMissing):
            ask("public.people", {"code": "1"})
    finally:
        reading().rollback()
        prepared("drop owned by clerk_of_values; drop role clerk_of_values")


# -- compared with what really happens ---------------------------------------------------------------------------------

RULES = [
    "create unique index on t (a)", "create unique index on t (a, b)", "create unique index on t (a) where b > 1", "create unique index on t (lower(s))",
    "create unique index on t ((a % 3))", "alter table t add check (a < b)", "alter table t add check (length(s) > 1)", "alter table t alter s set not null",
    "alter table t add foreign key (a) references p", "alter table t add foreign key (a, b) references q match full", "alter table t alter s type varchar(3)",
    "alter table t add g int generated always as (a + b) stored unique", "alter table t alter a type numeric(2, 1)", "alter table t alter s type positive_text",
    "alter table t add exclude using gist (a with =, b with <>)", "alter table t add unique (a) deferrable",
]  # fmt: skip
VALUES = {
    "a": ["a + 1", "b", "null", "1", "coalesce(a, b)", "9", "12", "id", "10 / (a - 2)", "-a"],
    "b": ["a", "null", "b + 1", "2"],
    "s": ["s || 'x'", "'AB'", "null", "left(s, 1)", "'long text'", "a::text", "s || id"],
}
WHERES = ["true", "a is null", "b > 1", "s is null", "id < 3", "s = 'ab'"]
CELLS = st.tuples(
    st.sampled_from([None, 0, 1, 2, 3]),
    st.sampled_from([None, 0, 1, 2, 3]),
    st.sampled_from([None, "ab", "AB", "abc", "b"]),
)


@pytest.fixture(scope="module")
def bench(server: Server) -> Iterator[Connection]:
    """A session that may write, and whose every change is rolled back."""
    engine = sqlalchemy.create_engine(server.url("postgres"), poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as conn:
        yield conn


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
@given(
    rows=st.lists(CELLS, min_size=1, max_size=5),
    rules=st.lists(st.sampled_from(RULES), min_size=1, max_size=2, unique=True),
    values=st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(0, 9), min_size=1, max_size=2),
    where=st.sampled_from(WHERES),
)
def test_what_meets_no_objection_can_be_written_and_what_meets_one_cannot(
    bench: Connection, rows: list[Any], rules: list[str], values: dict[str, int], where: str
) -> None:
    change = {name: VALUES[name][n % len(VALUES[name])] for name, n in values.items()}
    with bench.begin() as transaction:
        try:
            _build(bench, rows, rules)
        except sqlalchemy.exc.DBAPIError:
            transaction.rollback()
            reject()  # rows that break the rules as they are
        found = proposals.objections(bench, Proposal("public.t", change, where), timeout_ms=20_000)
        sets = ", ".join(f"{name} = ({value})" for name, value in change.items())
        orders = [f"update t set {sets} where {where}"]
        ids = [row[0] for row in bench.exec_driver_sql(f"select id from t where {where} order by id")]
        one_by_one = [f"update t set {sets} where id = {one}" for one in ids]
        failures = [_failure(bench, statements) for statements in (orders, one_by_one, one_by_one[::-1])]
        transaction.rollback()
    assert bool(found) == any(failures), (found, failures)
    assert not any("Could not check" in one.says for one in found)


def _build(conn: Connection, rows: list[Any], rules: list[str]) -> None:
    conn.exec_driver_sql("""create extension btree_gist; create domain positive_text as text check (value <> 'AB'); create table p (a numeric primary key); insert into p values (0), (1), (2);
        create table q (a int, b int, primary key (a, b)); insert into q values (0, 0), (1, 2), (2, 2), (2, 3);
        create table t (id int primary key, a int, b int, s text)""")
    for n, (a, b, s) in enumerate(rows, 1):
        conn.exec_driver_sql("insert into t values (%s, %s, %s, %s)", (n, a, b, s))
    for rule in rules:
        conn.exec_driver_sql(rule.replace("%", "%%"))


def _failure(conn: Connection, statements: list[str]) -> str:
    """What stops these statements, which are rolled back."""
    savepoint = conn.begin_nested()
    try:
        for statement in statements:
            conn.exec_driver_sql(statement)
        conn.exec_driver_sql("set constraints all immediate")
    except sqlalchemy.exc.DBAPIError as error:
        return str(error.orig)
    finally:
        savepoint.rollback()
    return ""
