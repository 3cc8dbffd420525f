"""Foreign keys that cannot be made, by real alembic: rows point at parents that went away while no key kept them."""

from __future__ import annotations

from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD

KEY = "select convalidated from pg_constraint where conrelid = cast(%s as regclass) and conname = %s"


def orphaned_orders(bench: Bench) -> dict[str, str]:
    """The key was dropped so that customers could be erased; now it comes back, and the orders of those erased are in the way."""
    bench.project.add_revision("5e0b93d7a1f4_customers_may_be_erased", CUSTOMERS_MAY_BE_ERASED)
    _applied(bench, "5e0b93d7a1f4")
    bench.progress("the erasure job deletes customers; their orders stay")
    bench.change("delete from customers where id % 10 = 3")
    bench.project.add_revision("9ad41c6f02e8_orders_refer_to_customers", ORDERS_REFER_TO_CUSTOMERS)
    _refused(bench, "orders", "fk_orders_customer_id", 'is not present in table "customers"', at="5e0b93d7a1f4")
    return {"revision": "9ad41c6f02e8"}


def composite_key(bench: Bench) -> dict[str, str]:
    """Shipments refer to order lines by two columns, which may not be NULL; lines were deleted while the key was away."""
    bench.project.add_revision("7c18e5f2ab90_import_of_shipments", IMPORT_OF_SHIPMENTS)
    _applied(bench, "7c18e5f2ab90")
    bench.progress("a clean-up deletes order lines; their shipments stay")
    bench.change("delete from order_items where line_no = 1 and order_id % 16 = 7")
    bench.project.add_revision("b3f6209d81ce_shipments_refer_to_lines", SHIPMENTS_REFER_TO_LINES)
    _refused(bench, "shipments", "fk_shipments_order_items", 'is not present in table "order_items"', at="7c18e5f2ab90")
    return {"revision": "b3f6209d81ce"}


def self_reference(bench: Bench) -> dict[str, str]:
    """A feed brings categories in chains whose topmost parent never came."""
    bench.project.add_revision("d1740c8be592_categories_come_from_a_feed", CATEGORIES_COME_FROM_A_FEED)
    _applied(bench, "d1740c8be592")
    bench.progress("the feed brings categories in chains, without the tops")
    bench.change(FEED)
    bench.project.add_revision("2e95a7d3f06b_categories_form_a_tree", CATEGORIES_FORM_A_TREE)
    _refused(bench, "categories", "fk_categories_parent_id", 'is not present in table "categories"', at="d1740c8be592")
    return {"revision": "2e95a7d3f06b"}


def unindexed_parent(bench: Bench) -> dict[str, str]:
    """The key refers to a column that has an index, but not a unique one: no row can be looked up by it for certain."""
    bench.project.add_revision("6b02e9d4f7a8_orders_keep_an_email", ORDERS_KEEP_AN_EMAIL)
    _applied(bench, "6b02e9d4f7a8")
    bench.project.add_revision("f80b36c5d19a_orders_by_email", ORDERS_BY_EMAIL)
    tried = bench.alembic("upgrade", "head")
    says = 'there is no unique constraint matching given keys for referenced table "customers"'
    bench.expect("exit code of the second upgrade", tried.exit_code, 1)
    bench.expect_words(tried, "InvalidForeignKey", says)
    bench.expect("version row", bench.version(), "6b02e9d4f7a8")
    return {"revision": "f80b36c5d19a"}


def _applied(bench: Bench, revision: str) -> None:
    """The revision that drops the key."""
    done = bench.alembic("upgrade", "head")
    bench.expect("exit code of the first upgrade", done.exit_code, 0)
    bench.expect("version row", bench.version(), revision)


def _refused(bench: Bench, table: str, constraint: str, detail: str, *, at: str) -> None:
    """The revision that makes it again: 23503, and all of it is rolled back."""
    tried = bench.alembic("upgrade", "head")
    bench.expect("exit code of the second upgrade", tried.exit_code, 1)
    says = f'insert or update on table "{table}" violates foreign key constraint "{constraint}"'
    bench.expect_words(tried, "ForeignKeyViolation", says, detail)
    bench.expect("version row", bench.version(), at)
    bench.expect(f"constraint {constraint}", bench.query(KEY, table, constraint), [])


SCENARIOS: dict[str, Scenario] = {
    "orphaned_orders": orphaned_orders,
    "composite_key": composite_key,
    "self_reference": self_reference,
    "unindexed_parent": unindexed_parent,
}

FEED = """
    insert into categories (id, parent_id, name)
    select 100000 + i, case when i % 4 = 1 then 500000 + i else 100000 + i - 1 end, 'Feed category ' || i
    from generate_series(1, (select greatest(count(*) / 500, 8) from orders)) as i
"""

CUSTOMERS_MAY_BE_ERASED = f'''"""Customers may be erased, their orders stay

Revision ID: 5e0b93d7a1f4
Revises: {HEAD}
Create Date: 2025-10-02 09:48:15.220741

"""

import sqlalchemy as sa
from alembic import op

revision = "5e0b93d7a1f4"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("fk_orders_customer_id", "orders", type_="foreignkey")
    op.alter_column("orders", "customer_id", existing_type=sa.Integer(), nullable=True)


def downgrade() -> None:
    op.alter_column("orders", "customer_id", existing_type=sa.Integer(), nullable=False)
    op.create_foreign_key("fk_orders_customer_id", "orders", "customers", ["customer_id"], ["id"])
'''

ORDERS_REFER_TO_CUSTOMERS = '''"""Orders refer to customers again

Revision ID: 9ad41c6f02e8
Revises: 5e0b93d7a1f4
Create Date: 2026-01-19 14:06:33.518207

"""

import sqlalchemy as sa
from alembic import op

revision = "9ad41c6f02e8"
down_revision = "5e0b93d7a1f4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customers", sa.Column("erase_after", sa.Date()))
    op.create_foreign_key(
        "fk_orders_customer_id", "orders", "customers", ["customer_id"], ["id"], ondelete="SET NULL"
    )
    op.execute("COMMENT ON COLUMN orders.customer_id IS 'NULL once the customer was erased'")


def downgrade() -> None:
    op.execute("COMMENT ON COLUMN orders.customer_id IS NULL")
    op.drop_constraint("fk_orders_customer_id", "orders", type_="foreignkey")
    op.drop_column("customers", "erase_after")
'''

IMPORT_OF_SHIPMENTS = f'''"""Shipments are imported in bulk

Revision ID: 7c18e5f2ab90
Revises: {HEAD}
Create Date: 2025-11-11 17:22:50.731164

"""

from alembic import op

revision = "7c18e5f2ab90"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("fk_shipments_order_items", "shipments", type_="foreignkey")
    op.drop_index("ix_shipments_order_id_line_no", table_name="shipments")


def downgrade() -> None:
    op.create_index("ix_shipments_order_id_line_no", "shipments", ["order_id", "line_no"])
    op.create_foreign_key(
        "fk_shipments_order_items", "shipments", "order_items", ["order_id", "line_no"], ["order_id", "line_no"]
    )
'''

SHIPMENTS_REFER_TO_LINES = '''"""Shipments refer to order lines again

Revision ID: b3f6209d81ce
Revises: 7c18e5f2ab90
Create Date: 2026-02-03 08:15:42.902355

"""

from alembic import op

revision = "b3f6209d81ce"
down_revision = "7c18e5f2ab90"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_foreign_key(
        "fk_shipments_order_items", "shipments", "order_items", ["order_id", "line_no"], ["order_id", "line_no"]
    )


def downgrade() -> None:
    op.drop_constraint("fk_shipments_order_items", "shipments", type_="foreignkey")
'''

CATEGORIES_COME_FROM_A_FEED = f'''"""Categories come from a feed, in any order

Revision ID: d1740c8be592
Revises: {HEAD}
Create Date: 2025-12-08 11:39:04.447918

"""

from alembic import op

revision = "d1740c8be592"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("fk_categories_parent_id", "categories", type_="foreignkey")


def downgrade() -> None:
    op.create_foreign_key("fk_categories_parent_id", "categories", "categories", ["parent_id"], ["id"])
'''

CATEGORIES_FORM_A_TREE = '''"""Categories form a tree

Revision ID: 2e95a7d3f06b
Revises: d1740c8be592
Create Date: 2026-03-05 16:53:27.018832

"""

from alembic import op

revision = "2e95a7d3f06b"
down_revision = "d1740c8be592"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_foreign_key("fk_categories_parent_id", "categories", "categories", ["parent_id"], ["id"])


def downgrade() -> None:
    op.drop_constraint("fk_categories_parent_id", "categories", type_="foreignkey")
'''

ORDERS_KEEP_AN_EMAIL = f'''"""Orders keep the e-mail address of their customer

Revision ID: 6b02e9d4f7a8
Revises: {HEAD}
Create Date: 2026-04-14 09:12:08.350417

"""

import sqlalchemy as sa
from alembic import op

revision = "6b02e9d4f7a8"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("customer_email", sa.String(255)))
    op.execute("UPDATE orders SET customer_email = c.email FROM customers c WHERE c.id = orders.customer_id")


def downgrade() -> None:
    op.drop_column("orders", "customer_email")
'''

ORDERS_BY_EMAIL = '''"""Orders refer to customers by e-mail

Revision ID: f80b36c5d19a
Revises: 6b02e9d4f7a8
Create Date: 2026-04-21 10:27:56.683029

"""

from alembic import op

revision = "f80b36c5d19a"
down_revision = "6b02e9d4f7a8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_foreign_key("fk_orders_customer_email", "orders", "customers", ["customer_email"], ["email"])


def downgrade() -> None:
    op.drop_constraint("fk_orders_customer_email", "orders", type_="foreignkey")
'''
