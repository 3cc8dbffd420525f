"""What mend keeps in the target: made once, read by its owner alone, never seen by a snapshot; a plan applies once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
import sqlalchemy
from mend.database import catalog
from mend.errors import sqlstate
from mend.record import ledger
from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

NAMES = ["mend", "Repairs of ann", 'a"b.c', "it's 100% %s %(x)s", "ünï"]


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        yield conn


@pytest.fixture
def other_role(conn: Connection, database: str) -> Iterator[Callable[[str], None]]:
    """``other_role("select 1")`` runs a statement as a role that has been granted nothing by hand."""
    conn.exec_driver_sql("create role curious")

    def run(statement: str) -> None:
        with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as session:
            session.execute("set role curious")
            session.execute(statement.encode())

    yield run
    conn.exec_driver_sql("drop owned by curious cascade")
    conn.exec_driver_sql("drop role curious")


def make(conn: Connection, schema: str = "mend") -> None:
    for text in ledger.schema_statements(schema):
        conn.exec_driver_sql(text)


def quoted(schema: str) -> str:
    return sql.Identifier(schema).as_string(None)


@pytest.mark.parametrize("schema", NAMES)
def test_a_run_is_entered_ended_and_remembered_whatever_the_schema_is_called(conn: Connection, schema: str) -> None:
    assert ledger.state(conn, schema) == "absent"
    assert (ledger.last(conn, schema), ledger.anchor(conn, schema, "r1")) == (None, None)
    make(conn, schema)
    assert ledger.state(conn, schema) == "ours"
    assert (
        conn.execute(
            sqlalchemy.text("select count(*) from pg_namespace where nspname = :name"), {"name": schema}
        ).scalar()
        == 1
    )
    assert ledger.last(conn, schema) is None
    conn.exec_driver_sql(*ledger.begin_run(schema, run_id="r1", slug="deadlock", digest="d1", action="apply"))
    assert ledger.last(conn, schema) == ledger.Entry("r1", "d1")
    assert ledger.anchor(conn, schema, "r1") is None
    conn.exec_driver_sql(*ledger.end_run(schema, run_id="r1", outcome="done", length=12, head="abc"))
    assert ledger.anchor(conn, schema, "r1") == (12, "abc")
    assert ledger.anchor(conn, schema, "r2") is None


def test_making_it_again_harms_nothing(conn: Connection) -> None:
    make(conn)
    conn.exec_driver_sql(*ledger.begin_run("mend", run_id="r1", slug="s", digest="d1", action="apply"))
    make(conn)
    assert ledger.last(conn, "mend") == ledger.Entry("r1", "d1")


def test_a_digest_is_consumed_once(conn: Connection) -> None:
    make(conn)
    conn.exec_driver_sql(*ledger.begin_run("mend", run_id="r1", slug="s", digest="d1", action="apply"))
    for run_id, digest in (("r2", "d1"), ("r1", "d2")):
        with pytest.raises(IntegrityError) as caught:
            conn.exec_driver_sql(*ledger.begin_run("mend", run_id=run_id, slug="s", digest=digest, action="apply"))
        assert sqlstate(caught.value) == "23505"
    conn.exec_driver_sql(*ledger.begin_run("mend", run_id="r2", slug="s", digest="d2", action="apply"))
    assert ledger.last(conn, "mend") == ledger.Entry("r2", "d2")


def test_of_two_that_consume_a_plan_at_once_one_waits_and_is_refused(conn: Connection, database: str) -> None:
    make(conn)
    text, values = ledger.begin_run("mend", run_id="r1", slug="s", digest="d1", action="apply")
    with (
        psycopg.connect(database.replace("+psycopg", "")) as first,
        psycopg.connect(database.replace("+psycopg", "")) as second,
    ):
        first.execute(text.encode(), values)
        second.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute(text.encode(), {**values, "run_id": "r2"})
        second.rollback()
        first.commit()
        with pytest.raises(psycopg.errors.UniqueViolation):
            second.execute(text.encode(), {**values, "run_id": "r2"})


@pytest.mark.parametrize("comment", [None, "somebody's own", "mended by hand", " mend: no"])
def test_a_schema_of_that_name_which_is_somebody_elses_is_foreign(conn: Connection, comment: str | None) -> None:
    conn.exec_driver_sql("create schema mend")
    conn.exec_driver_sql("create table mend.run (run_id text, digest text)")
    conn.exec_driver_sql("insert into mend.run values ('theirs', 'x')")
    if comment:
        conn.exec_driver_sql(sql.SQL("comment on schema mend is {}").format(sql.Literal(comment)).as_string(None))
    assert ledger.state(conn, "mend") == "foreign"
    assert (ledger.last(conn, "mend"), ledger.anchor(conn, "mend", "theirs")) == (None, None)


OURS = "create table mend.run (run_id text primary key, slug text not null, digest text not null unique, action text not null, started_at timestamptz not null default clock_timestamp(), finished_at timestamptz, outcome text not null default 'started', journal_length int4, journal_head text)"
RUNS_AS_US = (
    "create function mend.f() returns trigger language plpgsql as $$ begin create table public.pwned as select current_user as who; return new; end $$",
    "create trigger t before insert on mend.run for each row execute function mend.f()",
)


@pytest.fixture
def creator(conn: Connection, other_role: Callable[[str], None]) -> Callable[[str], None]:
    """The other role, which may make schemas here."""
    conn.exec_driver_sql(
        "do $$ begin execute format('grant create on database %%I to curious', current_database()); end $$"
    )
    return other_role


def test_a_ledger_that_another_role_made_beforehand_is_foreign_and_its_owner_named(
    conn: Connection, creator: Callable[[str], None]
) -> None:
    for text in ("create schema mend", f"comment on schema mend is '{ledger.MARK}'", OURS):
        creator(text)
    creator("insert into mend.run (run_id, slug, digest, action) values ('theirs', 's', 'd', 'apply')")
    assert ledger.state(conn, "mend") == "foreign"
    assert "role curious" in ledger.why_foreign(conn, "mend")
    assert (ledger.last(conn, "mend"), ledger.anchor(conn, "mend", "theirs")) == (None, None)
    conn.exec_driver_sql("alter schema mend owner to current_user")
    assert "its table run belongs to role curious" in ledger.why_foreign(conn, "mend")
    conn.exec_driver_sql("alter table mend.run owner to current_user")
    assert (ledger.state(conn, "mend"), ledger.why_foreign(conn, "mend")) == ("ours", "")


def test_a_ledger_of_a_role_that_one_is_a_member_of_is_foreign(
    conn: Connection, other_role: Callable[[str], None], database: str
) -> None:
    make(conn)
    conn.exec_driver_sql("create role member in role curious")
    conn.exec_driver_sql("grant all on schema public to member")
    try:
        conn.exec_driver_sql("alter schema mend owner to curious")
        conn.exec_driver_sql("alter table mend.run owner to curious")
        conn.exec_driver_sql("set role member")
        assert ledger.state(conn, "mend") == "foreign"
        conn.exec_driver_sql("set role curious")
        assert ledger.state(conn, "mend") == "ours"
    finally:
        conn.exec_driver_sql("reset role")
        conn.exec_driver_sql("drop owned by member")
        conn.exec_driver_sql("drop role member")


@pytest.mark.parametrize(
    "changed",
    [
        RUNS_AS_US,
        ("alter table mend.run rename to other", "create view mend.run as select * from mend.other"),
        ("create rule r as on insert to mend.run do also delete from mend.run",),
        ("alter table mend.run enable row level security",),
        ("alter table mend.run alter journal_head set default current_user",),
        ("alter table mend.run add check (slug <> '')",),
        ("alter table mend.run add column more int",),
        ("create index on mend.run (lower(slug))",),
        ("drop table mend.run",),
    ],
    ids=["trigger", "view", "rule", "rls", "default", "check", "column", "index", "gone"],
)
def test_a_ledger_that_is_not_as_it_was_made_is_foreign(conn: Connection, changed: tuple[str, ...]) -> None:
    make(conn)
    for text in changed:
        conn.exec_driver_sql(text)
    assert ledger.state(conn, "mend") == "foreign"
    assert "its table run" in ledger.why_foreign(conn, "mend") or "has no table run" in ledger.why_foreign(conn, "mend")
    assert ledger.last(conn, "mend") is None


@pytest.mark.parametrize("schema", NAMES)
def test_it_is_readable_by_its_owner_only(conn: Connection, other_role: Callable[[str], None], schema: str) -> None:
    make(conn, schema)
    conn.exec_driver_sql(f"create table {quoted(schema)}.kept_1 as select 1 as secret".replace("%", "%%"))
    for statement in (
        f"select * from {quoted(schema)}.run",
        f"select * from {quoted(schema)}.kept_1",
        f"create table {quoted(schema)}.mine ()",
        f"drop table {quoted(schema)}.run",
    ):
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable)):
            other_role(statement)


def test_default_privileges_do_not_open_it(conn: Connection, other_role: Callable[[str], None]) -> None:
    conn.exec_driver_sql("alter default privileges grant usage on schemas to curious, public")
    conn.exec_driver_sql("alter default privileges grant select on tables to curious, public")
    make(conn)
    conn.exec_driver_sql("create table mend.kept_1 as select 1 as secret")
    for statement in ("select * from mend.run", "select * from mend.kept_1"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other_role(statement)
    assert (
        conn.exec_driver_sql(
            "select count(*) from pg_namespace, aclexplode(nspacl) as a where nspname = 'mend' and a.grantee <> nspowner"
        ).scalar()
        == 0
    )


def test_a_role_that_may_not_read_it_is_told_and_not_answered_with_nothing(
    conn: Connection, other_role: Callable[[str], None], database: str
) -> None:
    make(conn)
    conn.exec_driver_sql("set role curious")
    with pytest.raises(DBAPIError) as caught:
        ledger.last(conn, "mend")
    assert sqlstate(caught.value) == "42501"
    conn.exec_driver_sql("reset role")


@pytest.mark.parametrize("schema", NAMES)
def test_a_snapshot_does_not_see_it_nor_what_is_kept_in_it(conn: Connection, schema: str) -> None:
    before = catalog.snapshot(conn)
    make(conn, schema)
    place = quoted(schema).replace("%", "%%")
    for text in (
        "create table {0}.kept_1 (id serial primary key, v text default 'x' check (v <> ''))", "create index i on {0}.kept_1 (v)", "comment on table {0}.kept_1 is 'mend: x'",
        "create view {0}.v as select 1 as one", "create function {0}.f() returns integer language sql return 1", "create type {0}.e as enum ('a')", "grant usage on schema {0} to public",
    ):  # fmt: skip
        conn.exec_driver_sql(text.format(place))
    assert catalog.diff(before, catalog.snapshot(conn)) == ()


def test_a_snapshot_sees_a_foreign_schema_of_that_name(conn: Connection) -> None:
    before = catalog.snapshot(conn)
    conn.exec_driver_sql("create schema mend")
    assert ("schema", "mend") in {
        (change.kind, change.identity) for change in catalog.diff(before, catalog.snapshot(conn))
    }


def test_the_last_run_is_the_one_that_began_last(conn: Connection) -> None:
    make(conn)
    for run_id in ("b", "a", "c"):
        conn.exec_driver_sql(*ledger.begin_run("mend", run_id=run_id, slug="s", digest=f"d{run_id}", action="apply"))
    conn.exec_driver_sql(*ledger.end_run("mend", run_id="b", outcome="done", length=1, head="x"))
    assert ledger.last(conn, "mend") == ledger.Entry("c", "dc")
