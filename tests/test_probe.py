"""The probe: where env.py leads, what a revision sends, and the guarded upgrade; always as a child process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import projects
import psycopg
import pytest
from mend.database import catalog
from mend.errors import ProjectBroken, WrongDatabase
from mend.histories import project
from mend.histories.project import Event, Project
from mend.probe.sqltext import kind_of, literal, reads_user_tables, skeleton
from mend.probe.trial import obstacle
from projects import chain, keywords

pytestmark = pytest.mark.usefixtures("cold_starts")


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(**keywords(url), autocommit=True) as conn:  # type: ignore[arg-type]
        cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def record(asked: Project, revision: str, place: str, parents: list[str] | None = None) -> dict[str, Any]:
    """Replay one revision in the database ``place``; the events by kind, statements as a list."""
    request = {
        "action": "replay", "revision": revision, "parents": ["first"] if parents is None else parents,
        "snapshot_sql": catalog.SNAPSHOT_SQL, "scratch": keywords(place),
    }  # fmt: skip
    events = project.ask(asked, request, timeout_s=60)
    return {
        "statements": [e for e in events if e["event"] == "statement"],
        "last": events[-1],
        **{e["event"]: e for e in events},
    }


def upgraded(folder: Path, body: str, place: str, **more: Any) -> dict[str, Any]:
    """Record revision ``work``, whose parent makes two tables."""
    return record(projects.project(folder, chain(first=projects.ORDERS, work=body), **more), "work", place)


# --- where env.py leads -------------------------------------------------------------------------------------------------


def test_env_py_is_followed_to_its_database_and_nothing_is_written(database: str, tmp_path: Path) -> None:
    found = project.environment(projects.project(tmp_path, chain(first=projects.ORDERS), url=database))
    assert found.database == keywords(database)["dbname"]
    assert found.system_identifier == sql(database, "select system_identifier::text from pg_control_system()")[0][0]
    assert (found.role, found.dialect, found.driver, found.connections) == ("postgres", "postgresql", "psycopg", 1)
    assert (found.version_table, found.version_table_schema, found.in_external_transaction) == (
        "alembic_version",
        None,
        False,
    )
    assert sql(database, "select count(*) from pg_tables where schemaname = 'public'") == [(0,)]


def test_options_of_the_migration_context_are_reported(database: str, tmp_path: Path) -> None:
    options = ", version_table='v', version_table_schema='app', transaction_per_migration=True"
    found = project.environment(projects.project(tmp_path, {}, url=database, options=options))
    assert (found.version_table, found.version_table_schema, found.transaction_per_migration) == ("v", "app", True)


def test_an_async_env_py_is_followed(database: str, tmp_path: Path) -> None:
    found = project.environment(projects.project(tmp_path, {}, url=database, env=projects.ASYNC))
    assert (found.database, found.driver) == (keywords(database)["dbname"], "psycopg")


def test_sql_before_configure_is_seen(database: str, tmp_path: Path) -> None:
    assert project.environment(
        projects.project(tmp_path, {}, url=database, env=projects.SQL_FIRST)
    ).in_external_transaction


def test_what_env_py_would_write_on_the_way_is_told_and_not_sent(database: str, tmp_path: Path) -> None:
    env = projects.SQL_FIRST.replace("select 1", "create schema if not exists tenant")
    found = project.environment(projects.project(tmp_path, {}, url=database, env=env))
    assert found.unsent == ("create schema if not exists tenant",)
    assert sql(database, "select to_regnamespace('tenant')") == [(None,)]


def test_a_migrators_advisory_lock_is_neither_taken_nor_waited_for(database: str, tmp_path: Path) -> None:
    env = projects.SQL_FIRST.replace("select 1", "select pg_advisory_lock(4711)")
    with psycopg.connect(**keywords(database), autocommit=True) as other:  # type: ignore[arg-type]
        other.execute("select pg_advisory_lock(4711)")
        found = project.environment(projects.project(tmp_path, {}, url=database, env=env))
    assert found.unsent == ("select pg_advisory_lock(4711)",)


def test_a_project_may_use_mend_itself_and_have_modules_named_as_ours(database: str, tmp_path: Path) -> None:
    (tmp_path / "recorder.py").write_text("MINE = True\n")
    (tmp_path / "mend").mkdir()
    (tmp_path / "mend" / "__init__.py").write_text("MINE = True\n")
    env = "import recorder, mend\nassert recorder.MINE and mend.MINE\n" + projects.PLAIN
    assert project.environment(projects.project(tmp_path, {}, url=database, env=env)).driver == "psycopg"


def test_a_write_past_sqlalchemy_is_stopped_by_the_server(database: str, tmp_path: Path) -> None:
    env = (
        "import os, psycopg\npsycopg.connect(os.environ['SHOP_URL'].replace('+psycopg', '')).execute('create table t ()')\n"
        + projects.PLAIN
    )
    with pytest.raises(ProjectBroken, match="read-only transaction"):
        project.environment(projects.project(tmp_path, {}, url=database, env=env))


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("import os\nos.environ['NO_SUCH_VARIABLE']", "KeyError: 'NO_SUCH_VARIABLE'"),
        ("def (", "SyntaxError"),
        ("from alembic import context", r"never called context.run_migrations\(\)"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "ended with code -9"),
        ("import sys\nsys.exit(3)", "ended with code 3"),
        ("import no_such_package", "No module named 'no_such_package'"),
    ],
)
def test_an_env_py_that_cannot_run_says_what_it_said(tmp_path: Path, env: str, says: str) -> None:
    with pytest.raises((ProjectBroken, WrongDatabase), match=says):
        project.environment(projects.project(tmp_path, {}, env=env))


def test_a_password_in_what_the_project_printed_is_not_shown(tmp_path: Path) -> None:
    env = "print('postgresql://ann:hunter22@db/shop')\nraise RuntimeError('postgresql://ann:hunter22@db/shop')"
    with pytest.raises(ProjectBroken) as caught:
        project.environment(projects.project(tmp_path, {}, env=env))
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("end", ["raise RuntimeError('first line\\nhunter22')", "import os\nos._exit(3)"])
def test_of_what_the_project_said_one_line_is_told(tmp_path: Path, end: str) -> None:
    env = f"import sys\nprint('the password is hunter22', file=sys.stderr)\nprint('goodbye', file=sys.stderr, flush=True)\n{end}"
    with pytest.raises(ProjectBroken) as caught:
        project.environment(projects.project(tmp_path, {}, env=env))
    assert "hunter22" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "RuntimeError: first line" in str(caught.value) or "printed last: goodbye" in str(caught.value)


def test_a_project_that_hangs_is_ended_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ProjectBroken, match="did not finish within 2 s"):
        project.environment(projects.project(tmp_path, {}, env="import time\ntime.sleep(60)"), timeout_s=2)
    assert time.monotonic() - started < 20


def test_an_interpreter_without_alembic_is_named(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ProjectBroken, match="has no alembic"):
        project.environment(Project(projects.project(tmp_path, {}).alembic_ini, bare))


def test_modules_of_the_project_are_its_own_though_mend_has_the_same_names(database: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text("URL = __import__('os').environ['SHOP_URL']\n")
    env = projects.PLAIN.replace("import os", "import settings").replace('os.environ["SHOP_URL"]', "settings.URL")
    assert (
        project.environment(projects.project(tmp_path, {}, url=database, env=env)).database
        == keywords(database)["dbname"]
    )


# --- what a revision sends ----------------------------------------------------------------------------------------------


def test_statements_carry_their_operation_their_values_and_their_changes(database: str, tmp_path: Path) -> None:
    body = """
op.add_column("orders", sa.Column("channel", sa.String(10), server_default="web's 5%"))
op.get_bind().execute(sa.text("update orders set note = :x where id > :n"), {"x": "a'b%", "n": 3})
op.bulk_insert(sa.table("orders", sa.column("id"), sa.column("note")), [{"id": 1, "note": "x"}, {"id": 2, "note": None}])
op.execute("drop  table customers;")
"""
    found = upgraded(tmp_path, body, database)["statements"]
    assert [(s["operation"], s["op"], s["says"]) for s in found] == [
        (1, "add_column", "add_column orders.channel"),
        (2, "statement", "statement update orders set note = 'a''b%' where id > 3"),
        (3, "bulk_insert", "bulk_insert orders"),
        (4, "execute", "execute drop table customers"),
    ]
    assert found[0]["sql"] == "ALTER TABLE orders ADD COLUMN channel VARCHAR(10) DEFAULT 'web''s 5%'"
    assert found[2]["sql"].count("INSERT") == 2
    assert all(s["rendered"] for s in found)
    assert [s["data"] for s in found] == [False, True, True, False]
    assert found[0]["changes"][0] == ["column", "public.orders.channel", None, "character varying(10)"]
    assert ["table", "public.customers", "permanent", None] in found[3]["changes"]


def test_the_history_never_reaches_the_address_of_env_py(database: str, tmp_path: Path) -> None:
    """env.py names a host where nothing answers; a second, raw connection goes to scratch as well."""
    body = 'import psycopg\nwith psycopg.connect("host=192.0.2.1 dbname=nowhere") as raw:\n    raw.execute("create table raw ()")'
    found = upgraded(tmp_path, body, database)
    assert found["last"]["event"] == "done"
    assert sql(database, "select to_regclass('raw') is not null") == [(True,)]


def test_a_driver_that_cannot_be_restrained_is_refused(database: str, tmp_path: Path) -> None:
    last = upgraded(tmp_path, "sa.create_engine('sqlite://').connect()", database)["last"]
    assert (last["event"], last["refused"]) == ("error", True)
    assert "does not know how to restrain" in last["message"]


def test_a_creator_function_cannot_smuggle_a_connection_in(database: str, tmp_path: Path) -> None:
    body = "import sqlite3\nsa.create_engine('postgresql+psycopg://', creator=lambda: sqlite3.connect(':memory:')).connect()"
    last = upgraded(tmp_path, body, database)["last"]
    assert last["refused"]
    assert "could not see" in last["message"]


def test_a_batch_is_one_operation(database: str, tmp_path: Path) -> None:
    body = 'with op.batch_alter_table("orders") as batch:\n    batch.add_column(sa.Column("a", sa.Integer))\n    batch.alter_column("note", nullable=False)'
    found = upgraded(tmp_path, body, database)["statements"]
    assert [(s["operation"], s["op"]) for s in found] == [(1, "batch_alter_table")] * 2


def test_an_operation_of_the_users_own_making_is_one_operation(database: str, tmp_path: Path) -> None:
    body = """
from alembic.operations import MigrateOperation, Operations
@Operations.register_operation("audit_table")
class AuditTableOp(MigrateOperation):
    def __init__(self, table_name): self.table_name = table_name
    @classmethod
    def audit_table(cls, operations, name): return operations.invoke(cls(name))
@Operations.implementation_for(AuditTableOp)
def audit(operations, operation):
    operations.execute(f"alter table {operation.table_name} add column changed_at timestamptz")
    operations.create_index(f"ix_{operation.table_name}_changed", operation.table_name, ["changed_at"])
Operations(op.get_context()).audit_table("orders")
"""
    found = upgraded(tmp_path, body, database)["statements"]
    assert [(s["operation"], s["says"]) for s in found] == [(1, "audit_table orders")] * 2


def test_transactions_part_the_statements_into_segments(database: str, tmp_path: Path) -> None:
    body = """
op.add_column("orders", sa.Column("a", sa.Integer))
op.add_column("orders", sa.Column("b", sa.Integer))
with op.get_context().autocommit_block():
    op.create_index("ix_a", "orders", ["a"], postgresql_concurrently=True)
    op.create_index("ix_b", "orders", ["b"], postgresql_concurrently=True)
op.add_column("orders", sa.Column("c", sa.Integer))
op.get_bind().commit()
op.add_column("orders", sa.Column("d", sa.Integer))
op.execute("COMMIT")
op.add_column("orders", sa.Column("e", sa.Integer))
"""
    found = upgraded(tmp_path, body, database)["statements"]
    assert [(s["segment"], s["autocommit"]) for s in found] == [
        (1, False), (1, False), (2, True), (3, True), (4, False), (5, False), (6, False),
    ]  # fmt: skip


def test_reads_are_told_apart_from_what_changes_something(database: str, tmp_path: Path) -> None:
    body = """
conn = op.get_bind()
conn.execute(sa.text("select count(*) from orders where note = :x"), {"x": 1 and "a"})
sa.inspect(conn).get_table_names()
conn.execute(sa.text("select pg_advisory_xact_lock(1), random(), now()"))
op.execute("create function fill() returns void language sql as 'insert into orders values (7)'")
conn.execute(sa.text("select fill()"))
conn.execute(sa.text("with gone as (delete from orders returning *) select count(*) from gone"))
op.execute("set lock_timeout = '3s'")
op.execute("select setval('orders_id_seq', 5)")
op.execute("select * into copy_of_orders from orders")
"""
    found = upgraded(tmp_path, body, database)
    assert [s["sql"][:12] for s in found["statements"]] == [
        "create funct",
        "select fill(",
        "with gone as",
        "select setva",
        "select * int",
    ]
    assert found["recorded"]["reads"] == ["select count(*) from orders where note = %(x)s"]
    assert found["recorded"]["looks"]
    assert found["statements"][-1]["settings"] == ["set lock_timeout = '3s'"]


def test_work_that_upgrade_takes_back_by_a_savepoint_is_not_its_work(database: str, tmp_path: Path) -> None:
    body = """
op.add_column("orders", sa.Column("a", sa.Integer))
nested = op.get_bind().begin_nested()
op.add_column("orders", sa.Column("gone", sa.Integer))
nested.rollback()
op.add_column("orders", sa.Column("b", sa.Integer))
"""
    found = upgraded(tmp_path, body, database)
    assert [s["says"] for s in found["statements"]] == ["add_column orders.a", "add_column orders.b"]
    assert [[c[1] for c in s["changes"]] for s in found["statements"]] == [["public.orders.a"], ["public.orders.b"]]
    assert found["recorded"]["warnings"] == ["upgrade() itself rolls 1 of its statements back"]


def test_sessions_of_a_revision_that_block_each_other_are_ended(database: str, tmp_path: Path) -> None:
    body = """
op.add_column("orders", sa.Column("a", sa.Integer))
with op.get_bind().engine.connect() as second:
    second.execute(sa.text("set lock_timeout = '100ms'"))
    second.execute(sa.text("insert into orders values (1)"))
"""
    assert upgraded(tmp_path, body, database)["last"]["sqlstate"] == "55P03"


def test_an_orm_session_is_recorded(database: str, tmp_path: Path) -> None:
    body = """
from sqlalchemy.orm import Session, declarative_base
class Order(declarative_base()):
    __tablename__ = "orders"
    id = sa.Column(sa.Integer, primary_key=True)
    note = sa.Column(sa.String)
session = Session(bind=op.get_bind())
session.add(Order(id=9, note="it's"))
session.commit()
"""
    found = upgraded(tmp_path, body, database)["statements"]
    assert [(s["op"], s["data"]) for s in found] == [("statement", True)]
    assert "'it''s'" in found[0]["sql"]


def test_a_second_session_of_the_revision_is_followed_with_its_own_eyes(database: str, tmp_path: Path) -> None:
    body = """
op.add_column("orders", sa.Column("a", sa.Integer))
with op.get_bind().engine.connect() as second:
    second.execute(sa.text("create table side (id int)"))
    second.commit()
op.add_column("orders", sa.Column("b", sa.Integer))
"""
    found = upgraded(tmp_path, body, database)["statements"]
    assert [sorted({c[1] for c in s["changes"] if c[0] in ("table", "column")}) for s in found] == [
        ["public.orders.a"], ["public.side", "public.side.id"], ["public.orders.b"],
    ]  # fmt: skip


def test_an_async_project_is_recorded_with_its_values(database: str, tmp_path: Path) -> None:
    body = 'op.add_column("orders", sa.Column("a", sa.Integer))\nop.get_bind().execute(sa.text("delete from orders where note = :n"), {"n": "o\'x"})'
    found = upgraded(tmp_path, body, database, env=projects.ASYNC)["statements"]
    assert [s["sql"] for s in found] == [
        "ALTER TABLE orders ADD COLUMN a INTEGER",
        "delete from orders where note = 'o''x'",
    ]
    assert found[0]["changes"] == [["column", "public.orders.a", None, "integer"]]


def test_a_version_table_in_a_schema_that_no_revision_makes_works(database: str, tmp_path: Path) -> None:
    found = upgraded(tmp_path, "pass", database, options=", version_table_schema='ops'")
    assert found["last"]["event"] == "done"
    assert sql(database, "select version_num from ops.alembic_version") == [("work",)]


def test_an_earlier_revision_that_commits_by_itself_does_not_disturb_the_next(database: str, tmp_path: Path) -> None:
    revisions = chain(
        first=projects.ORDERS + "op.get_bind().commit()",
        second='op.add_column("orders", sa.Column("a", sa.Integer))',
        work="op.execute('drop table customers')",
    )
    found = record(projects.project(tmp_path, revisions), "work", database, ["second"])
    assert [s["says"] for s in found["statements"]] == ["execute drop table customers"]
    assert sql(database, "select version_num from alembic_version") == [("work",)]


def test_a_failing_statement_is_named_and_those_before_it_are_kept(database: str, tmp_path: Path) -> None:
    found = upgraded(
        tmp_path,
        'op.add_column("orders", sa.Column("a", sa.Integer))\nop.execute("alter table nowhere add b int")',
        database,
    )
    assert [s["says"] for s in found["statements"]] == ["add_column orders.a"]
    assert (found["last"]["sqlstate"], found["last"]["sql"], found["last"]["inside"]) == (
        "42P01",
        "alter table nowhere add b int",
        True,
    )


# --- reading SQL --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("select 1", "read"), ("  -- drop it\n select 'insert into x'", "read"), ("(select 1) union (select 2)", "read"), ("values (1)", "read"),
        ("with a as (select 1) select * from a", "read"), ("with a as (insert into t values (1)) select 1", "statement"),
        ("select * into t from u", "statement"), ("explain analyze delete from t", "statement"), ("explain select 1", "read"),
        ("select 1; drop table t", "statement"), ("begin; set x = 1; commit", "control"), ("", "control"), ("do $$ begin commit; end $$", "statement"),
        ("update t set a = 1", "statement"), ("/* select */ create table t ()", "statement"), ("select $q$; drop table t$q$", "read"),
        ("create function f() returns int begin atomic; select 1; end", "statement"),
    ],
)  # fmt: skip
def test_statements_are_told_from_reads_and_control(statement: str, kind: str) -> None:
    assert kind_of(skeleton(statement)) == kind


@pytest.mark.parametrize(
    ("statement", "reads"),
    [("select * from pg_class", False), ("select * from information_schema.tables", False), ("select 1", False), ("select * from generate_series(1, 2)", False),
     ("select * from pg_class join orders on true", True), ('select * from "Orders"', True), ("select * from app.orders o", True)],
)  # fmt: skip
def test_reads_of_user_tables_are_told_from_reads_of_the_catalog(statement: str, reads: bool) -> None:
    assert reads_user_tables(skeleton(statement)) == reads


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (7, "7"), ("it's", "'it''s'"), ("a\\b'", "E'a\\\\b'''"), (b"\x00\xff", "'\\x00ff'::bytea"), ([1, None], "array[1, null]"),
     (float("inf"), "'inf'::float8")],
)  # fmt: skip
def test_values_become_literals(value: object, text: str) -> None:
    assert literal(value) == text


def test_a_value_of_an_unknown_type_is_never_guessed() -> None:
    with pytest.raises(TypeError, match="no literal for object"):
        literal(object())


@pytest.mark.parametrize(
    ("statement", "removal"),
    [
        ("CREATE TABLE app.t (id int)", "drop table app.t cascade"),
        ('create unique index concurrently if not exists "Ix" on only app.t (a)', 'drop index app."Ix" cascade'),
        ("create index on t (a)", ""),
        ("alter table t add column if not exists c int", "alter table t drop column c cascade"),
        ("alter table only t add c int", "alter table t drop column c cascade"),
        ("alter table t add constraint k check (true)", "alter table t drop constraint k cascade"),
        ("alter table t add foreign key (a) references b", ""),
        ("create type mood as enum ('a')", "drop type mood cascade"),
        ("update t set a = 1", ""),
    ],
)
def test_what_stands_in_the_way_of_a_statement_is_known(statement: str, removal: str) -> None:
    assert obstacle(statement) == removal


# --- the guarded upgrade ------------------------------------------------------------------------------------------------

HALF = """
op.add_column("orders", sa.Column("a", sa.Integer))
op.get_bind().execute(sa.text("update orders set note = :x"), {"x": "b"})
with op.get_context().autocommit_block():
    op.create_index("ix_orders_a", "orders", ["a"], postgresql_concurrently=True)
"""


def upgrade(
    asked: Project,
    url: str,
    *,
    expected: dict[str, Any] | None = None,
    on_event: Callable[[Event], None] | None = None,
    **more: Any,
) -> list[Event]:
    identity = {
        "system_identifier": sql(url, "select system_identifier::text from pg_control_system()")[0][0],
        "database": keywords(url)["dbname"],
    }
    request = {
        "action": "upgrade",
        "revision": "work",
        "expected": expected or identity,
        "settings": {"lock_timeout": "2s", "application_name": "mend:test"},
        **more,
    }
    return project.ask(asked, request, timeout_s=60, on_event=on_event)


@pytest.fixture
def half_applied(database: str, tmp_path: Path) -> tuple[Project, str]:
    """Revision ``work`` with its first statement done and its version row not advanced."""
    found = projects.project(tmp_path, chain(first=projects.ORDERS, work=HALF), url=database)
    record(projects.project(tmp_path / "before", chain(first=projects.ORDERS)), "first", database, [])
    sql(database, "alter table orders add column a integer")
    sql(database, "insert into orders values (1, 'a')")
    return found, database


def test_done_statements_are_left_out_and_the_version_row_is_advanced(half_applied: tuple[Project, str]) -> None:
    asked, url = half_applied
    told: list[Event] = []
    last = upgrade(
        asked,
        url,
        skip=["alter table orders  ADD COLUMN a INTEGER".replace("alter table", "ALTER TABLE")],
        on_event=told.append,
    )[-1]
    assert last["event"] == "done"
    statements = [(e["sql"].split("\n")[0], e["skipped"]) for e in told if e["event"] == "statement"]
    assert statements[:3] == [
        ("ALTER TABLE orders ADD COLUMN a INTEGER", True),
        ("update orders set note = 'b'", False),
        ("CREATE INDEX CONCURRENTLY ix_orders_a ON orders (a)", False),
    ]
    assert statements[3][0].startswith("UPDATE alembic_version")
    assert [int(e["xid"]) > 0 for e in told if e["event"] == "commit"] == [True, True]
    assert sql(url, "select version_num, (select note from orders) from alembic_version") == [("work", "b")]


def test_time_limits_are_off_in_a_concurrent_build_and_hold_again_after_it(database: str, tmp_path: Path) -> None:
    """An index expression that fails where lock_timeout is on; a later statement that fails where it is off."""
    check = "create function limited(n int, wanted text) returns int immutable language plpgsql as $$ begin \
             if current_setting('lock_timeout') <> wanted then raise 'lock_timeout is %', current_setting('lock_timeout'); end if; return n; end $$"
    body = """
with op.get_context().autocommit_block():
    op.execute("create index concurrently ix_limited on orders (limited(id, '0'))")
op.execute("insert into customers select limited(1, '2s')")
"""
    record(projects.project(tmp_path / "before", chain(first=projects.ORDERS)), "first", database, [])
    sql(database, "insert into orders values (1, 'a')")
    sql(database, check)
    last = upgrade(projects.project(tmp_path, chain(first=projects.ORDERS, work=body), url=database), database)[-1]
    assert last["event"] == "done", last


def test_nothing_is_sent_when_env_py_leads_to_another_database(half_applied: tuple[Project, str]) -> None:
    asked, url = half_applied
    before = sql(url, "select * from alembic_version")
    last = upgrade(asked, url, expected={"system_identifier": "1", "database": keywords(url)["dbname"]})[-1]
    assert (last["event"], last["refused"]) == ("error", True)
    assert isinstance(project.broken({**last, "printed": ""}), WrongDatabase)
    assert sql(url, "select * from alembic_version") == before


def test_a_statement_that_could_not_be_written_down_is_not_sent(half_applied: tuple[Project, str]) -> None:
    asked, url = half_applied

    class DiskFull(Exception): ...

    def journal(event: Event) -> None:
        if event["event"] == "statement":
            raise DiskFull

    with pytest.raises(DiskFull):
        upgrade(asked, url, on_event=journal)
    assert sql(url, "select note from orders") == [("a",)]


def test_a_statement_to_be_left_out_that_never_comes_fails_before_the_version_row(
    half_applied: tuple[Project, str],
) -> None:
    asked, url = half_applied
    last = upgrade(asked, url, skip=["ALTER TABLE orders ADD COLUMN a INTEGER", "drop table elsewhere"])[-1]
    assert (last["event"], last["refused"]) == ("error", True)
    assert sql(url, "select version_num from alembic_version") == [("first",)]


def test_it_refuses_to_run_any_other_revision(database: str, tmp_path: Path) -> None:
    last = upgrade(projects.project(tmp_path, chain(first=projects.ORDERS, work=HALF), url=database), database)[-1]
    assert last["refused"]
    assert "for work alone" in last["message"]
    assert sql(database, "select to_regclass('orders')") == [(None,)]
