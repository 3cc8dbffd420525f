"""A column is made NOT NULL over rows that have no value, by real alembic: it fails with SQLSTATE 23502, and nothing is left behind."""

from __future__ import annotations

from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD

NULLS = "select attnotnull from pg_attribute where attrelid = cast(%s as regclass) and attname = %s"


def null_notes(bench: Bench) -> dict[str, str]:
    """Orders without a note; the revision also gives the column a default, which is what a row without a value should have had."""
    return _broken(bench, "5e21c7d09b4a_notes_are_never_null", NOTES, table="orders", column="note")


def null_phones(bench: Bench) -> dict[str, str]:
    """Customers without a telephone number; nobody has said what a row without one should get."""
    return _broken(bench, "d3f70a6b18c2_phones_are_required", PHONES, table="customers", column="phone")


def _broken(bench: Bench, name: str, text: str, *, table: str, column: str) -> dict[str, str]:
    bench.project.add_revision(name, text)
    first = bench.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", first.exit_code, 1)
    bench.expect_words(first, "NotNullViolation", f'column "{column}" of relation "{table}" contains null values')
    bench.expect("version row", bench.version(), HEAD)
    bench.expect("the column's rule", bench.query(NULLS, table, column), [(False,)])
    return {"revision": name.partition("_")[0], "table": table, "columns": column}


SCENARIOS: dict[str, Scenario] = {"null_notes": null_notes, "null_phones": null_phones}

NOTES = f'''"""Every order has a note, if only an empty one

Revision ID: 5e21c7d09b4a
Revises: {HEAD}
Create Date: 2026-04-14 09:03:11.482017

"""

import sqlalchemy as sa
from alembic import op

revision = "5e21c7d09b4a"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("orders", "note", existing_type=sa.Text(), nullable=False, server_default="")


def downgrade() -> None:
    op.alter_column("orders", "note", existing_type=sa.Text(), nullable=True, server_default=None)
'''

PHONES = f'''"""Couriers call ahead: a telephone number is required

Revision ID: d3f70a6b18c2
Revises: {HEAD}
Create Date: 2026-04-21 16:27:40.118530

"""

import sqlalchemy as sa
from alembic import op

revision = "d3f70a6b18c2"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("customers", "phone", existing_type=sa.String(32), nullable=False)


def downgrade() -> None:
    op.alter_column("customers", "phone", existing_type=sa.String(32), nullable=True)
'''
