"""Only one pure expression over the columns of one table is accepted, and it is used as it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mend.errors import InvalidParameter, PrivilegeMissing
from mend.values import expressions
from mend.values.expressions import Expression
from sqlalchemy import Connection

Check = Callable[..., Expression]
TABLE = 'app."T x"'


#: A table with a column of every kind that matters, and functions with every label.
SPECIMEN = """
    create schema app; create type app.mood as enum ('sad', 'happy'); create domain app.positive as int check (value > 0);
    create function app.careless(int) returns int language sql volatile as 'select 1';
    create function app.careful(int) returns int language sql stable as 'select 1';
    create sequence app.s;
    create table app."T x" (id int primary key, email varchar(12), n int not null default 0, m app.mood, d date, j jsonb, p app.positive,
        "We Ird" text, num numeric(5,2), g int generated always as (n * 2) stored, idy int generated always as identity, u uuid,
        ts timestamptz, tags text[], "größe" int);
    create function public.field(app."T x") returns int language sql volatile as 'select 1';
    insert into app."T x" (id, email) select i, 'a' || i from generate_series(1, 10) i"""


@pytest.fixture(scope="session")
def specimen(keep_database: Callable[..., str]) -> str:
    """Name of the database that these tests clone."""
    engine = sqlalchemy.create_engine(keep_database("expressions"), poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as conn:
        conn.exec_driver_sql(SPECIMEN)
    return "expressions"


@pytest.fixture
def database(specimen: str, new_database: Callable[..., str]) -> str:
    """A clone of the specimen, for tests that change it."""
    return new_database(specimen)


@pytest.fixture
def check(reading: Callable[[], Connection]) -> Check:
    """``check(text, column)`` in a clone of the specimen."""

    def checked(text: str, column: str = "", *, table: str = TABLE) -> Expression:
        return expressions.checked(reading(), text, table=table, column=column)

    return checked


@pytest.fixture(scope="module")  # a test in another module lets the server crash under whoever is connected
def look(specimen: str, keep_database: Callable[..., str]) -> Iterator[Check]:
    """``look(text, column)`` in a clone that the tests share, because no check changes it."""
    engine = sqlalchemy.create_engine(
        keep_database("expressions_looked_at", specimen), poolclass=sqlalchemy.pool.NullPool
    )
    with engine.connect() as conn:
        conn.exec_driver_sql("set default_transaction_read_only = on")
        conn.commit()
        yield lambda text, column="": expressions.checked(conn, text, table=TABLE, column=column)
    engine.dispose()


ACCEPTED = [
    ("'unknown'", "email", "text", ()),
    ("0", "n", "integer", ()),
    ("-1", "n", "integer", ()),
    ("null", "email", "text", ()),
    ("'happy'", "m", "text", ()),
    ("'happy'::app.mood", "m", "app.mood", ()),
    ("cast('happy' as app.mood)", "m", "app.mood", ()),
    ("'2020-01-01'", "d", "text", ()),
    ("date '2020-01-01'", "d", "date", ()),
    ("lower(t.email) || '@x'", "email", "text", ("email",)),
    ("LOWER(T.EMAIL)", "email", "text", ("email",)),
    ("left(email, 5) || '%'", "email", "text", ("email",)),
    ('t."We Ird" collate "C"', "email", "text", ('"We Ird"',)),
    ("größe + 1", "n", "integer", ('"größe"',)),
    ("n % 2", "n", "integer", ("n",)),
    ("case when n > 3 then 1 else id end", "n", "integer", ("n", "id")),
    ("coalesce(n, 0) + 1", "n", "integer", ("n",)),
    ("nullif(email, '')", "email", "text", ("email",)),
    ("greatest(n, 1)", "n", "integer", ("n",)),
    ("date_part('year', d) + extract(day from d)::int", "num", "double precision", ("d",)),
    ("substring(email from 1 for 3)", "email", "text", ("email",)),
    ("trim(both ' ' from email)", "email", "text", ("email",)),
    ("concat_ws('-', email, id)", "email", "text", ("email", "id")),
    ("format('%s-%s', email, id)", "email", "text", ("email", "id")),
    ("regexp_replace(email, '\\s+', '', 'g')", "email", "text", ("email",)),
    (r"E'it\'s'", "email", "text", ()),
    ("j->>'x'", "email", "text", ("j",)),
    ("(j ? 'x')::int", "n", "integer", ("j",)),
    ("email::varchar(5)", "email", "character varying", ("email",)),
    ("(n in (1, 2))::int", "n", "integer", ("n",)),
    ("(email like 'a%' escape '!')::int", "n", "integer", ("email",)),
    ("tags[1]", "email", "text", ("tags",)),
    ("array['a', email]", "tags", "character varying[]", ("email",)),
    ("current_user", "email", "name", ()),
    ("now() - interval '1 day'", "ts", "timestamp with time zone", ()),
    ("current_timestamp", "ts", "timestamp with time zone", ()),
    ("ts at time zone 'utc'", "ts", "timestamp without time zone", ("ts",)),
    ("app.careful(id)", "n", "integer", ("id",)),
    ("gen_random_uuid()", "u", "uuid", ()),
    ("md5(random()::text)", "", "text", ()),
]


@pytest.mark.parametrize(("text", "column", "type_", "columns"), ACCEPTED, ids=[one[0] for one in ACCEPTED])
def test_a_pure_expression_is_accepted(
    look: Check, text: str, column: str, type_: str, columns: tuple[str, ...]
) -> None:
    found = look(f"  {text}\n", column)
    assert (found.text, found.type) == (text, type_)
    assert sorted(found.columns) == sorted(columns)
    assert found.volatile == ("random" in text)


REFUSED = [
    ("1); drop table t; --", "semicolon"),
    ("1) from app.\"T x\" as t where (true", "not opened"),
    ("(select pg_terminate_backend(1))", "subquery"),
    ("(with x as (delete from t returning 1) select 1 from x)", "subquery"),
    ("(delete from t returning 1)", "does not parse"),
    ("exists (select 1)", "subquery"),
    ("array(select 1)", "subquery"),
    ("n in (select 1)", "subquery"),
    ("(values (1))", "subquery"),
    ("(table t)", "subquery"),
    ("select 1", "subquery"),
    ("nextval('app.s')", "volatile"),
    ("pg_catalog.nextval('app.s')", "volatile"),
    ('"nextval"(\'app.s\')', "volatile"),
    ("NextVal ('app.s')", "volatile"),
    ("setval('app.s', 1)", "volatile"),
    ("currval('app.s')", "volatile"),
    ("app.careless(1)", "volatile"),
    ("lower(app.careless(1)::text)", "volatile"),
    ("1::numeric(app.careless(1))", "volatile"),
    ("pg_terminate_backend(1)", "about the server"),
    ("pg_advisory_lock(1)", "about the server"),
    ("pg_sleep(1)", "about the server"),
    ("pg_notify('a', 'b')", "about the server"),
    ("pg_current_xact_id()", "about the server"),
    ("txid_current()", "about the server"),
    ("lo_unlink(1)", "about the server"),
    ("set_config('a', 'b', false)", "about the server"),
    ("current_setting('a')", "about the server"),
    ("query_to_xml('drop table t', true, true, '')", "about the server"),
    ("table_to_xml('t', true, true, '')", "about the server"),
    ("nothing_of_this_name(1)", "no function"),
    ("dblink_exec('x')", "no function"),
    ("count(*)", "star"),
    ("count(n)", "aggregate"),
    ("max(n)", "aggregate"),
    ("mode() within group (order by n)", "no place|does not parse|aggregate"),
    ("array_agg(n)", "aggregate"),
    ("row_number() over ()", "window"),
    ("sum(n) over ()", "window"),
    ("generate_series(1, 2)", "set of rows"),
    ("unnest(tags)", "no place|set of rows"),
    ("t", "no column t"),
    ("t.*", "star"),
    ("*", "star"),
    ("(t).n", "can call a function"),
    ("(t).field", "can call a function"),
    ("t.field", "no column field"),
    ("n.field", "no column of t"),
    ('app."T x".n', "no column of t"),
    ("w.v1", "no column of t"),
    ("ctid", "no column ctid"),
    ("xmin", "no column xmin"),
    ("1, 2", "list"),
    ("(1, 2)", "row of several values"),
    ("1 as x", "more than one|not one expression|no place|does not parse"),
    ("1 from t", "not one expression|more than one|does not parse"),
    ("1 union select 2", "not one|no place|more than one|does not parse"),
    ("n, n desc", "list"),
    ("default", "DEFAULT"),
    ("n operator(pg_catalog.+) 1", "write the operator"),
    ("$1", "dollar"),
    (":x", "colon"),
    ("?", "parameter|does not parse"),
    ("%s", "no place|parse|server says"),
    ("n +", "parse|server says"),
    ("case when true then 1", "parse"),
    ("not " * 2000 + "true", "parse"),
    ("array[" * 16 + "1" + "]" * 16, "parse"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[one[0][:40] for one in REFUSED])
def test_what_writes_or_is_no_expression_is_refused(look: Check, text: str, why: str) -> None:
    with pytest.raises(InvalidParameter, match=why) as caught:
        look(text)
    assert "Nothing was changed." in caught.value.message


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("unknown", "email", "did you mean the text 'unknown'\\? Then put it in single quotes"),
        ('"unknown"', "email", "double quotes are for names"),
        ("it's", "email", "quote is not closed"),
        ("emial", "email", "did you mean email"),
        ("'angry'", "m", 'invalid input value for enum app.mood: "angry"'),
        ("'2020-13-01'", "d", "out of range"),
        ("'much too long for it'", "email", "too long for type character varying\\(12\\)"),
        ("123456", "num", "numeric field overflow"),
        ("'abc'", "n", "invalid input syntax for type integer"),
        ("email", "n", "is of type integer but expression is of type character varying"),
        ("n in (1, 2)", "n", "is of type integer but expression is of type boolean"),
        ("1/0", "n", "division by zero"),
        ("lower(n)", "email", "function lower\\(integer\\) does not exist"),
        ("1", "g", "can only be updated to DEFAULT"),
        ("1", "idy", "can only be updated to DEFAULT"),
    ],
)
def test_a_mistake_is_said_in_words_that_help(look: Check, text: str, column: str, why: str) -> None:
    with pytest.raises(InvalidParameter, match=why):
        look(text, column)


def test_operators_and_types_of_the_project_are_looked_at(check: Check, prepared: Callable[[str], None]) -> None:
    prepared("""create function public.add(date, text) returns date language sql volatile as 'select $1';
        create operator public.+ (function = public.add, leftarg = date, rightarg = text);
        create domain app.checked as text check (app.careless(length(value)) > 0);
        create type app.pair as (a int, b int);
        create function app.to_text(app.pair) returns text language sql volatile as 'select 1::text';
        create cast (app.pair as text) with function app.to_text(app.pair);
        create aggregate app.biggest(int) (sfunc = int4larger, stype = int);
        create procedure app.run(int) language sql as 'select 1';""")
    for text, why in (
        ("d + '1'::text", "operator public.\\+"),
        ("'x'::app.checked", "type app.checked uses"),
        ("('(1,2)'::app.pair)::text", "type app.pair uses"),
        ("app.biggest(n)", "aggregate"),
        ("app.run(n)", "procedure"),
    ):
        with pytest.raises(InvalidParameter, match=why):
            check(text)


def test_a_function_of_the_project_cannot_take_a_trusted_name(check: Check, prepared: Callable[[str], None]) -> None:
    prepared(
        "create function public.gen_random_uuid(int) returns uuid language sql volatile as 'select pg_catalog.gen_random_uuid()'"
    )
    with pytest.raises(InvalidParameter, match=r"public\.gen_random_uuid"):
        check("gen_random_uuid()", "u")
    assert check("pg_catalog.gen_random_uuid()", "u").volatile


def test_a_constant_that_takes_long_to_compute_is_refused(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "TIMEOUT_MS", 50)
    with pytest.raises(InvalidParameter, match="takes that long to compute"):
        check("length(factorial(32000)::text)")


def test_notes_say_what_a_reviewer_should_know(look: Check) -> None:
    assert look("'x'").notes == ()
    assert "another value each time" in look("gen_random_uuid()").notes[0]
    assert "time of the batch" in look("now()").notes[0]
    assert "the project's own function" in look("app.careful(1)").notes[0]


def test_the_old_rules_of_strings_are_met_with_refusal(check: Check, reading: Callable[[], Connection]) -> None:
    assert check(r"'a\b'").type == "text"
    reading().exec_driver_sql("set local escape_string_warning = off")
    reading().exec_driver_sql("set local standard_conforming_strings = off")
    with pytest.raises(InvalidParameter, match="standard_conforming_strings is off"):
        check(r"'a\b'")
    with pytest.raises(InvalidParameter, match="quote is not closed"):
        check(r"'\' || n || '")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cn", "Co"]), max_size=40))
def test_any_text_in_quotes_is_itself(check: Check, reading: Callable[[], Connection], text: str) -> None:
    found = check("'" + text.replace("'", "''") + "'", '"We Ird"')
    assert reading().exec_driver_sql(f"select ({found.text})".replace("%", "%%")).scalar() == text


def test_the_table_and_the_column_must_be_there(check: Check) -> None:
    with pytest.raises(InvalidParameter, match=r"no table app\.nothing"):
        check("1", table="app.nothing")
    with pytest.raises(InvalidParameter, match="is not the name of a table"):
        check("1", table="a.b.c.d.e")
    with pytest.raises(InvalidParameter, match=r"no column emial\. .* Did you mean email"):
        check("1", "emial")


def test_a_missing_privilege_is_said(
    check: Check, reading: Callable[[], Connection], prepared: Callable[[str], None]
) -> None:
    prepared(
        "create role reader_of_values; grant usage on schema app to reader_of_values; grant select on all tables in schema app to reader_of_values"
    )
    try:
        reading().exec_driver_sql("set local role reader_of_values")
        assert check("n + 1").type == "integer"
        with pytest.raises(PrivilegeMissing):
            check("n + 1", "n")
    finally:
        reading().rollback()
        prepared("drop owned by reader_of_values; drop role reader_of_values")


def test_the_session_and_its_locks_are_as_before(check: Check, reading: Callable[[], Connection]) -> None:
    check("n + 1", "n")
    for text in ("1/0", "nextval('app.s')", "unknown"):
        with pytest.raises(InvalidParameter):
            check(text, "n")
    locks = (
        reading()
        .exec_driver_sql(
            "select mode from pg_locks where relation = 'app.\"T x\"'::regclass and pid = pg_backend_pid()"
        )
        .scalars()
    )
    assert "RowExclusiveLock" not in set(locks)
    assert reading().exec_driver_sql("show statement_timeout").scalar() == "15s"


def test_an_order_is_a_list_of_expressions_with_directions(check: Check, reading: Callable[[], Connection]) -> None:
    found = expressions.ordering(reading(), "ts DESC nulls last, lower(email) asc, t.id", table=TABLE)
    assert [one.text for one in found] == ["ts DESC nulls last", "lower(email) asc", "t.id"]
    assert [one.columns for one in found] == [("ts",), ("email",), ("id",)]
    for text, why in (
        ("1", "names no column"),
        ("'x' desc", "names no column"),
        ("id; drop", "semicolon"),
        ("id,", "empty"),
        ("nextval('app.s')", "volatile"),
        ("id using <", "parse|place"),
    ):
        with pytest.raises(InvalidParameter, match=why):
            expressions.ordering(reading(), text, table=TABLE)


def test_assignments_are_columns_with_expressions(check: Check, reading: Callable[[], Connection]) -> None:
    found = expressions.assignments(reading(), "email = 'a=b, c', \"We Ird\" = lower('X'), N = 1 + 2", table=TABLE)
    assert {column: one.text for column, one in found.items()} == {
        "email": "'a=b, c'",
        '"We Ird"': "lower('X')",
        "n": "1 + 2",
    }
    for text, why in (
        ("email", "column = expression"),
        ("nope = 1", "no column nope"),
        ("n = 1, n = 2", "set twice"),
        ("n = 'x'", "invalid input"),
        ("n == 1", "column = expression"),
        ("n =", "column = expression"),
    ):
        with pytest.raises(InvalidParameter, match=why):
            expressions.assignments(reading(), text, table=TABLE)
