"""How far a revision got, on the projects that real users have: other version tables, several heads, async, odd names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fix_runs import Desk, Look, Ran
from fix_shop import Broken
from mend.database.catalog import Change
from mend.database.target import Identity
from mend.histories.project import Environment
from mend.repairs import halfway

HEAD = "b04e7c6f21d9"
HEADER = 'import sqlalchemy as sa\nfrom alembic import op\n\nrevision = "{id}"\ndown_revision = {down!r}\n\n\ndef upgrade():\n'
Edit = Callable[..., None]


def add(project: Broken, revision: str, *lines: str, down: str = HEAD) -> None:
    """A revision of these lines."""
    body = "".join(f"    {line}\n" for line in lines) or "    pass\n"
    project.project.add_revision(f"{revision}_added", HEADER.format(id=revision, down=down) + body)


TWO = (
    'op.add_column("products", sa.Column("grade", sa.String(3)))',
    'op.create_index("ix_products_grade", "products", ["grade"])',
)
HALF = "alter table products add column grade varchar(3)"


def mended(desk: Desk, project: Broken, **given: str) -> tuple[Ran, Ran]:
    """Plan and apply; back again by undo, the catalog being what it was."""
    look = Look(project.url)
    before = look.catalog()
    plan = desk.plan(project, **given)
    assert plan.code == 2, plan.err
    applied = desk.apply(plan)
    assert applied.code == 0, applied.err
    assert desk.plan(project).code == 0
    undone = desk.here("undo", applied.run_id)
    assert undone.code == 0, undone.err
    assert look.catalog() == before
    again = desk.apply(desk.plan(project, **given))
    assert again.code == 0, again.err
    return plan, again


# --- values -----------------------------------------------------------------------------------------------------------------

HERE = Environment(
    "77",
    "shop",
    5,
    "ann",
    None,
    None,
    "",
    "public",
    180000,
    "alembic_version",
    None,
    False,
    False,
    "postgresql",
    "psycopg",
    "1.20",
    "2.0",
    1,
    1,
    (),
)
TARGET = Identity("77", "shop", 5, "18.1", 180001, "ann", "ann", False, False, True, "")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"system_identifier": "78"}, False),
        ({"database": "other"}, False),
        ({"database_oid": 6}, False),
        ({"system_identifier": None}, False),
    ],
)
def test_env_py_leads_here_only_if_cluster_and_database_are_the_same(change: dict[str, object], same: bool) -> None:
    assert halfway.same_database(TARGET, replace(HERE, **change)) is same  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "identity", "definition", "relation"),
    [
        ("table", "public.t", "permanent", "public.t"),
        ("column", "public.t.a", "text", "public.t"),
        ("constraint", 'app."T x".ck', "CHECK (true)", 'app."T x"'),
        ("index", "public.ix", "CREATE INDEX ix ON public.t USING btree (a)", "public.t"),
        ("function", "public.f(integer)", "create function", ""),
        ("enum", "public.mood", "('sad')", ""),
    ],
)
def test_every_facet_knows_its_relation(kind: str, identity: str, definition: str, relation: str) -> None:
    assert halfway.relation_of(Change(kind, identity, None, definition)) == relation
    assert halfway.relation_of(Change(kind, identity, definition, None)) == relation


# --- version tables ------------------------------------------------------------------------------------------------------------


def test_a_version_table_of_another_name_in_another_schema_is_the_one_that_moves(
    desk: Desk, healthy: Broken, edit: Edit
) -> None:
    edit(
        healthy.project.env_py,
        "context.configure(connection=connection, target_metadata=target_metadata)",
        'context.configure(connection=connection, version_table="revisions", version_table_schema="ops")',
    )
    look = Look(healthy.url)
    look.execute(
        "create schema ops",
        "alter table alembic_version set schema ops",
        "alter table ops.alembic_version rename to revisions",
        "alter table ops.revisions rename constraint alembic_version_pkc to revisions_pkc",
    )
    add(healthy, "feedbeef0010", *TWO)
    look.execute(HALF)
    plan, _ = mended(desk, healthy)
    assert 'update "ops"."revisions" set version_num' in plan.document["plan"]["steps"][-1]["sql"]
    assert look.query("select version_num from ops.revisions") == [("feedbeef0010",)]
    assert healthy.alembic("current").output.count("feedbeef0010 (head)") == 1


def test_a_stray_version_table_is_found_and_left_alone(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    look.execute(
        "create schema old",
        "create table old.alembic_version (version_num varchar(32) primary key)",
        "insert into old.alembic_version values ('3f1c7a9be204')",
    )
    add(healthy, "feedbeef0010", *TWO)
    look.execute(HALF)
    plan = desk.plan(healthy)
    assert plan.check("version_rows")["verdict"] == "found"
    assert {(row["schema"], row["position"]) for row in plan.check("version_rows")["sample"]} == {
        ("public", "behind by 1"),
        ("old", "not the configured table"),
    }
    assert desk.apply(plan).code == 0
    assert look.query("select version_num from old.alembic_version") == [("3f1c7a9be204",)]


def test_a_row_that_no_file_knows_is_found(desk: Desk, healthy: Broken) -> None:
    Look(healthy.url).execute("insert into alembic_version values ('0123456789ab')")
    ran = desk.plan(healthy)
    assert {row["position"] for row in ran.check("version_rows")["sample"]} == {"head", "unknown to the files"}
    assert ran.code != 0


# --- graphs ---------------------------------------------------------------------------------------------------------------------


def test_of_two_heads_the_half_applied_one_is_mended_and_the_other_stays_pending(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    add(healthy, "feedbeef0011", 'op.execute("CREATE TABLE other_branch (i int)")')
    add(healthy, "feedbeef0012", *TWO)
    look.execute(HALF)
    plan = desk.plan(healthy)
    assert {row["revision"] for row in plan.document["operations"]} == {"feedbeef0012"}
    assert desk.apply(plan).code == 0
    assert look.version() == ["feedbeef0012"]
    upgraded = healthy.alembic("upgrade", "heads")
    assert (upgraded.exit_code, look.version()) == (0, ["feedbeef0011", "feedbeef0012"]), upgraded


def test_the_second_branch_of_a_branch_point_gets_a_row_of_its_own(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    add(healthy, "feedbeef0011", 'op.execute("CREATE TABLE other_branch (i int)")')
    assert healthy.alembic("upgrade", "head").exit_code == 0
    add(healthy, "feedbeef0012", *TWO)
    look.execute(HALF)
    mended(desk, healthy, revision="feedbeef0012")
    assert look.version() == ["feedbeef0011", "feedbeef0012"]


def test_a_merge_takes_the_rows_of_both_its_parents(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    add(healthy, "feedbeef0011")
    add(healthy, "feedbeef0012")
    assert healthy.alembic("upgrade", "heads").exit_code == 0
    body = "".join(f"    {line}\n" for line in TWO)
    header = HEADER.replace("{down!r}", "{down}").format(id="feedbeef0013", down='("feedbeef0011", "feedbeef0012")')
    healthy.project.add_revision("feedbeef0013_merge", header + body)
    look.execute(HALF)
    mended(desk, healthy)
    assert look.version() == ["feedbeef0013"]


# --- environments ------------------------------------------------------------------------------------------------------------------

ASYNC = """
import asyncio, os
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine


def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(os.environ["SHOP_DATABASE_URL"], poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
"""


def test_an_async_env_py_is_mended_like_any_other(desk: Desk, healthy: Broken) -> None:
    healthy.project.env_py.write_text(ASYNC)
    add(healthy, "feedbeef0010", *TWO)
    Look(healthy.url).execute(HALF)
    mended(desk, healthy)
    assert Look(healthy.url).version() == ["feedbeef0010"]


def test_a_transaction_per_migration_is_mended_like_any_other(desk: Desk, healthy: Broken, edit: Edit) -> None:
    edit(
        healthy.project.env_py,
        "target_metadata=target_metadata)\n\n        with",
        "target_metadata=target_metadata, transaction_per_migration=True)\n\n        with",
    )
    add(healthy, "feedbeef0010", *TWO)
    Look(healthy.url).execute(HALF)
    mended(desk, healthy)


# --- statements ---------------------------------------------------------------------------------------------------------------------

ODD = 'Kunden "x"; drop table orders --'


def test_odd_names_are_only_names(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    quoted = '"' + ODD.replace('"', '""') + '"'
    add(
        healthy,
        "feedbeef0014",
        f"op.create_table({ODD!r}, sa.Column('ключ', sa.Integer, primary_key=True), sa.Column('a b', sa.Text))",
        f"op.create_index('ix %(odd)s', {ODD!r}, ['a b'])",
    )
    look.execute(f'create table {quoted} ("ключ" serial not null, "a b" text, primary key ("ключ"))')
    plan = desk.plan(healthy)
    assert plan.states == {1: "DONE", 2: "NOT_DONE"}, plan.document["operations"]
    mended(desk, healthy)
    assert look.query("select to_regclass('orders') is not null") == [(True,)]


def test_batch_operations_are_told_statement_by_statement(desk: Desk, healthy: Broken) -> None:
    add(
        healthy,
        "feedbeef0015",
        'with op.batch_alter_table("products") as batch:',
        '    batch.add_column(sa.Column("grade", sa.String(3)))',
        '    batch.create_check_constraint("ck_grade", "grade <> \'\'")',
    )
    Look(healthy.url).execute(HALF)
    plan, _ = mended(desk, healthy)
    assert "ck_grade" in plan.document["plan"]["steps"][0]["sql"]
    assert "ADD COLUMN" not in plan.document["plan"]["steps"][0]["sql"]


def test_a_constraint_that_was_left_not_valid_is_validated_and_undo_leaves_it_so_again(
    desk: Desk, healthy: Broken
) -> None:
    look = Look(healthy.url)
    add(
        healthy,
        "feedbeef0016",
        "op.execute(\"ALTER TABLE products ADD CONSTRAINT ck_name CHECK (name <> '') NOT VALID\")",
        'op.execute("ALTER TABLE products VALIDATE CONSTRAINT ck_name")',
    )
    look.execute("alter table products add constraint ck_name check (name <> '') not valid")
    plan = desk.plan(healthy)
    assert plan.states == {1: "DONE", 2: "NOT_DONE"}
    applied = desk.apply(plan)
    assert applied.code == 0, applied.err
    assert not look.query("select 1 from pg_constraint where not convalidated")


def test_values_that_a_rollback_drops_come_back_with_undo(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    add(healthy, "feedbeef0010", *TWO)
    look.execute(HALF, "update products set grade = id % 7 where id % 2 = 0")
    rows = look.rows()
    applied = desk.apply(desk.plan(healthy, option="roll_back"))
    assert applied.code == 0, applied.err
    assert look.rows() != rows
    assert desk.here("undo", applied.run_id).code == 0
    assert look.rows() == rows


def test_rows_written_after_a_rollback_s_undo_are_not_overwritten_by_it(desk: Desk, healthy: Broken) -> None:
    """What was deleted or added meanwhile stays deleted or added."""
    look = Look(healthy.url)
    add(healthy, "feedbeef0010", *TWO)
    look.execute("create table scratchpad (id int primary key)", HALF, "update products set grade = 'x'")
    applied = desk.apply(desk.plan(healthy, option="roll_back"))
    (some,) = look.query(
        "select max(id) from products where not exists (select from order_items where product_id = products.id)"
    )
    look.execute(f"delete from products where id = {some[0] or 0}")
    count = look.query("select count(*) from products")
    assert desk.here("undo", applied.run_id).code == 0
    assert look.query("select count(*) from products") == count
    assert look.query("select count(*) from products where grade is distinct from 'x'") == [(0,)]


def test_a_migration_that_still_runs_is_seen(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    add(healthy, "feedbeef0010", *TWO)
    look.execute(HALF)
    with look.holding("create index ix_running on products (name)") as pid:
        ran = desk.plan(healthy)
    assert ran.check("sessions")["verdict"] == "found"
    assert [row["pid"] for row in ran.check("sessions")["sample"]] == [pid]


def test_a_migration_that_holds_a_table_so_that_nothing_can_be_read_is_named(desk: Desk, healthy: Broken) -> None:
    look = Look(healthy.url)
    add(healthy, "feedbeef0010", *TWO)
    look.execute(HALF)
    with look.holding("alter table products alter column grade set default 'a'") as pid:
        ran = desk.plan(healthy)
    assert (ran.code, ran.document["outcome"]) == (1, "failed")
    assert f"pid {pid} (postgres, in-the-way, idle in transaction" in ran.err
    assert "holds public.products" in ran.err


@pytest.mark.parametrize("guard", ["", "IF NOT EXISTS "], ids=["plain", "guarded"])
def test_a_revision_of_nothing_but_a_failed_index_build_is_resumed(desk: Desk, healthy: Broken, guard: str) -> None:
    """A concurrent build in a revision of its own is good practice, and the commonest to fail."""
    look = Look(healthy.url)
    add(
        healthy,
        "feedbeef0018",
        "with op.get_context().autocommit_block():",
        f'    op.execute("CREATE INDEX CONCURRENTLY {guard}ix_alone ON products (name)")',
    )
    look.execute(
        "create index ix_alone on products (name)",
        "update pg_index set indisvalid = false, indisready = false where indexrelid = 'ix_alone'::regclass",
    )
    plan, _ = mended(desk, healthy)
    assert plan.states == {1: "DIFFERENT"}
    assert plan.options["retry"]
    assert plan.document["plan"]["chosen"] == "resume"
    assert look.version() == ["feedbeef0018"]


def test_a_row_change_of_which_nobody_knows_is_never_sent_unasked(desk: Desk, healthy: Broken) -> None:
    """It stands between what is there and what is not, in a transaction of its own."""
    look = Look(healthy.url)
    add(
        healthy,
        "feedbeef0019",
        TWO[0],
        "with op.get_context().autocommit_block():",
        "    op.execute(\"UPDATE products SET name = name || '!'\")",
        TWO[1],
    )
    look.execute(HALF)
    ran = desk.plan(healthy)
    assert ran.states == {1: "DONE", 2: "DATA", 3: "NOT_DONE"}
    assert ran.document["plan"]["chosen"] == "none"
    assert "operation 2" in ran.options["resume"]
    sent = {
        said: [step["sql"] for step in desk.plan(healthy, data_operations=said).document["plan"]["steps"]]
        for said in ("ran", "not_run")
    }
    assert "UPDATE products" not in str(sent["ran"])
    assert str(sent["not_run"]).count("UPDATE products") == 1


def test_a_guarded_revision_that_hides_an_invalid_index_is_not_called_done(desk: Desk, healthy: Broken) -> None:
    """IF NOT EXISTS finds the name, and reports success."""
    look = Look(healthy.url)
    add(
        healthy,
        "feedbeef0017",
        "with op.get_context().autocommit_block():",
        '    op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_guarded ON products (name)")',
    )
    look.execute(
        "create index ix_guarded on products (name)",
        "update pg_index set indisvalid = false where indexrelid = 'ix_guarded'::regclass",
    )
    ran = desk.plan(healthy)
    assert ran.states == {1: "DIFFERENT"}
    assert "reports success and changes nothing" in str(ran.check("retry")["sample"])
    plan, _ = mended(desk, healthy)
    assert plan.document["plan"]["chosen"] == "resume"
