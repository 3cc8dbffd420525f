"""Databases that are not what their version row says: changed by hand, stamped past a revision, stamped back, unlike their twin."""

from __future__ import annotations

import psycopg
from psycopg import sql

from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD, plain

COLUMN = """
    select count(*)::int from pg_attribute
    where attrelid = cast(%s as regclass) and attname = %s and not attisdropped
"""
TYPE = (
    "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = cast(%s as regclass) and attname = %s"
)


def drifted(bench: Bench) -> dict[str, str]:
    """An index by hand, a wider column, a constraint dropped for an import, and a revision that was stamped instead of run."""
    bench.project.add_revision("6b0d9f42c7e1_loyalty_points", LOYALTY)
    stamped = bench.alembic("stamp", "head")
    bench.progress("production is changed by hand")
    bench.change("create index ix_orders_total_by_hand on orders (total)")
    bench.change("alter table suppliers alter column name type varchar(200)")
    bench.change("alter table orders drop constraint ck_orders_total")
    bench.project.add_revision("f49a3e1b85d0_more_loyalty_points", MORE_LOYALTY)
    first = bench.alembic("upgrade", "head")
    bench.expect("exit code of the stamp", stamped.exit_code, 0)
    bench.expect("exit code of the upgrade", first.exit_code, 1)
    bench.expect_words(first, "UndefinedColumn", 'column "loyalty_points" of relation "customers" does not exist')
    bench.expect("version row", bench.version(), "6b0d9f42c7e1")
    bench.expect("column customers.loyalty_points", bench.query(COLUMN, "customers", "loyalty_points"), [(0,)])
    return {}


def false_stamp(bench: Bench) -> dict[str, str]:
    """Two revisions ran, and the version row was put back by somebody who stamped the wrong database."""
    bench.project.add_revision("6b0d9f42c7e1_loyalty_points", LOYALTY)
    bench.project.add_revision("0c5e8a71d3f6_loyalty_levels", LEVELS)
    ran = bench.alembic("upgrade", "head")
    back = bench.alembic("stamp", HEAD)
    first = bench.alembic("upgrade", "head")
    bench.expect("exit codes before", (ran.exit_code, back.exit_code), (0, 0))
    bench.expect("exit code of the upgrade", first.exit_code, 1)
    bench.expect_words(first, "DuplicateColumn", 'column "loyalty_points" of relation "customers" already exists')
    bench.expect("version row", bench.version(), HEAD)
    return {}


def other_target(bench: Bench) -> dict[str, str]:
    """Staging and production are at the same revision; in production a column was renamed by hand, and an index is missing."""
    staging = f"{psycopg.conninfo.conninfo_to_dict(plain(bench.project.url))['dbname']}_staging"
    _copied(bench, staging)
    bench.change("alter table orders rename column note to remark")
    bench.change("drop index ix_customers_email")
    bench.change("alter table suppliers alter column name type text")
    bench.project.add_revision("93d7e0ab41c8_longer_notes", LONGER_NOTES)
    first = bench.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", first.exit_code, 1)
    bench.expect_words(first, "UndefinedColumn", 'column "note" of relation "orders" does not exist')
    bench.expect("type of suppliers.name", bench.query(TYPE, "suppliers", "name"), [("text",)])
    bench.expect("version row", bench.version(), HEAD)
    return {"other": f"lab:{staging}"}


def _copied(bench: Bench, name: str) -> None:
    """A second database on the same server, as the shop is now."""
    own = psycopg.conninfo.conninfo_to_dict(plain(bench.project.url))
    with psycopg.connect(plain(bench.project.url), dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(str(own["dbname"])))
        )


SCENARIOS: dict[str, Scenario] = {"drifted": drifted, "false_stamp": false_stamp, "other_target": other_target}

_HEADER = '''"""{doc}

Revision ID: {revision}
Revises: {down}
Create Date: 2026-05-0{day} 08:41:19.{revision_number}

"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None

'''

LOYALTY = (
    _HEADER.format(doc="Loyalty points", revision="6b0d9f42c7e1", down=HEAD, day=4, revision_number="402716")
    + """
def upgrade() -> None:
    op.add_column("customers", sa.Column("loyalty_points", sa.Integer(), server_default="0", nullable=False))
    op.create_index("ix_customers_loyalty_points", "customers", ["loyalty_points"])


def downgrade() -> None:
    op.drop_index("ix_customers_loyalty_points", table_name="customers")
    op.drop_column("customers", "loyalty_points")
"""
)
MORE_LOYALTY = (
    _HEADER.format(
        doc="More loyalty points than fit",
        revision="f49a3e1b85d0",
        down="6b0d9f42c7e1",
        day=6,
        revision_number="118254",
    )
    + """
def upgrade() -> None:
    op.alter_column("customers", "loyalty_points", existing_type=sa.Integer(), comment="Counted since 2026-05")
    op.alter_column("customers", "loyalty_points", existing_type=sa.Integer(), type_=sa.BigInteger())


def downgrade() -> None:
    op.alter_column("customers", "loyalty_points", existing_type=sa.BigInteger(), type_=sa.Integer(), comment=None)
"""
)
LEVELS = (
    _HEADER.format(doc="Loyalty levels", revision="0c5e8a71d3f6", down="6b0d9f42c7e1", day=7, revision_number="730551")
    + """
def upgrade() -> None:
    op.create_table(
        "loyalty_levels",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("loyalty_levels")
"""
)
LONGER_NOTES = (
    _HEADER.format(doc="Notes say what they are", revision="93d7e0ab41c8", down=HEAD, day=8, revision_number="205113")
    + """
def upgrade() -> None:
    op.alter_column("orders", "note", existing_type=sa.Text(), comment="What the customer wrote")
    op.alter_column("orders", "note", existing_type=sa.Text(), server_default="")


def downgrade() -> None:
    op.alter_column("orders", "note", existing_type=sa.Text(), comment=None, server_default=None)
"""
)
