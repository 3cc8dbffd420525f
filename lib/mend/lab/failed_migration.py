"""Half-applied revisions, made by real alembic: parts of a revision are there, and the version row says otherwise."""

from __future__ import annotations

from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD

COLUMN = """
    select count(*)::int from pg_attribute
    where attrelid = cast(%s as regclass) and attname = %s and not attisdropped
"""
INDEX = "select indisvalid, indisready from pg_index where indexrelid = to_regclass(%s)"


def interrupted_index(bench: Bench) -> dict[str, str]:
    """CREATE INDEX CONCURRENTLY waits for a session that sits idle in its transaction, until lock_timeout cancels it."""
    bench.project.add_revision("4d7f20c91be6_delivery_slots", DELIVERY_SLOTS)
    bench.progress("an application session updates an order and stays idle in its transaction")
    with bench.session("update orders set note = 'Ring twice' where id = 1", name="shop-worker"):
        first = bench.alembic("upgrade", "head", environ={"PGOPTIONS": "-c lock_timeout=1s"})
    again = bench.alembic("upgrade", "head")
    bench.expect("exit code of the first upgrade", first.exit_code, 1)
    bench.expect_words(first, "LockNotAvailable", "CREATE INDEX CONCURRENTLY ix_orders_status_placed_at")
    bench.expect("exit code of the retry", again.exit_code, 1)
    bench.expect_words(again, "DuplicateColumn", 'column "delivery_slot" of relation "shipments" already exists')
    bench.expect("version row", bench.version(), HEAD)
    bench.expect("column shipments.delivery_slot", bench.query(COLUMN, "shipments", "delivery_slot"), [(1,)])
    filled = bench.query("select count(*) > 0 from shipments where delivery_slot = 'morning'")
    bench.expect("effect of the data-only operation", filled, [(True,)])
    bench.expect("validity of the index", bench.query(INDEX, "ix_orders_status_placed_at"), [(False, False)])
    bench.expect("the index made after the block", bench.query(INDEX, "ix_shipments_delivery_slot"), [])
    return {"revision": "4d7f20c91be6"}


def duplicate_keys(bench: Bench) -> dict[str, str]:
    """A unique index is built concurrently over e-mail addresses that an import brought in twice."""
    bench.project.add_revision("82a5c3e60d17_unique_customer_email", UNIQUE_CUSTOMER_EMAIL)
    bench.progress("an import brings customers in a second time")
    bench.change(IMPORTED_TWICE)
    first = bench.alembic("upgrade", "head")
    again = bench.alembic("upgrade", "head")
    bench.expect("exit code of the first upgrade", first.exit_code, 1)
    bench.expect_words(first, "UniqueViolation", 'could not create unique index "uq_customers_email"', "is duplicated")
    bench.expect("exit code of the retry", again.exit_code, 1)
    bench.expect_words(again, "DuplicateColumn", 'column "email_verified_at" of relation "customers" already exists')
    bench.expect("version row", bench.version(), HEAD)
    bench.expect("validity of the index", bench.query(INDEX, "uq_customers_email"), [(False, False)])
    bench.expect("table made after the block", bench.query("select to_regclass('email_changes')::text"), [(None,)])
    return {"revision": "82a5c3e60d17"}


def lost_stamp(bench: Bench) -> dict[str, str]:
    """upgrade() commits Alembic's transaction itself: exit 0, and all that came after, the version row too, is lost."""
    bench.project.add_revision("c90b6e2f1d43_shipping_weight", SHIPPING_WEIGHT)
    first = bench.alembic("upgrade", "head")
    bench.alembic("current")
    again = bench.alembic("upgrade", "head")
    bench.expect("exit code of the first upgrade", first.exit_code, 0)
    bench.expect_words(first, f"Running upgrade {HEAD} -> c90b6e2f1d43")
    bench.expect("exit code of the retry", again.exit_code, 1)
    bench.expect_words(again, "DuplicateColumn", 'column "weight_g" of relation "order_items" already exists')
    bench.expect("version row", bench.version(), HEAD)
    missed = bench.query("select count(*)::int from order_items where weight_g is null")
    bench.expect("rows that were not filled", missed, [(0,)])
    bench.expect("the index made after the commit", bench.query(INDEX, "ix_order_items_heavy"), [])
    return {"revision": "c90b6e2f1d43"}


def env_order(bench: Bench) -> dict[str, str]:
    """env.py runs SQL before context.configure(), so nobody commits: exit 0, and everything is rolled back."""
    bench.project.add_revision("17e8d4b5a60c_loyalty_points", LOYALTY_POINTS)
    text = bench.project.env_py.read_text()
    configure = "        context.configure(connection=connection"
    bench.expect("place for the change in env.py", text.count(configure), 1)
    text = text.replace(configure, f"        connection.execute(text(\"SET lock_timeout = '4s'\"))\n{configure}")
    text = text.replace("import engine_from_config, pool\n", "import engine_from_config, pool, text\n")
    bench.project.env_py.write_text(text)
    first = bench.alembic("upgrade", "head")
    current = bench.alembic("current")
    again = bench.alembic("upgrade", "head")
    for attempt in (first, again):
        bench.expect("exit code of the upgrade", attempt.exit_code, 0)
        bench.expect_words(attempt, f"Running upgrade {HEAD} -> 17e8d4b5a60c")
    bench.expect_words(current, HEAD)
    bench.expect("version row", bench.version(), HEAD)
    bench.expect("column customers.points", bench.query(COLUMN, "customers", "points"), [(0,)])
    return {"revision": "17e8d4b5a60c"}


SCENARIOS: dict[str, Scenario] = {
    "interrupted_index": interrupted_index,
    "duplicate_keys": duplicate_keys,
    "lost_stamp": lost_stamp,
    "env_order": env_order,
}

IMPORTED_TWICE = """
    insert into customers (email, full_name, phone, created_at)
    select email, full_name, phone, created_at + interval '1 day' from customers where id % 50 = 0 or id = 7
"""

DELIVERY_SLOTS = f'''"""Delivery slots

Revision ID: 4d7f20c91be6
Revises: {HEAD}
Create Date: 2026-03-12 10:22:47.905316

"""

import sqlalchemy as sa
from alembic import op

revision = "4d7f20c91be6"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("shipments", sa.Column("delivery_slot", sa.String(16)))
    op.create_check_constraint(
        "ck_shipments_delivery_slot", "shipments", "delivery_slot IN ('morning', 'afternoon', 'evening')"
    )
    op.execute("UPDATE shipments SET delivery_slot = 'morning' WHERE carrier = 'DHL'")

    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_status_placed_at", "orders", ["status", "placed_at"], postgresql_concurrently=True
        )

    op.create_index("ix_shipments_delivery_slot", "shipments", ["delivery_slot", "shipped_at"])
    op.alter_column("shipments", "delivery_slot", existing_type=sa.String(16), server_default="afternoon")
    op.execute("COMMENT ON COLUMN shipments.delivery_slot IS 'Chosen by the customer at checkout'")


def downgrade() -> None:
    op.drop_index("ix_shipments_delivery_slot", table_name="shipments")
    with op.get_context().autocommit_block():
        op.drop_index("ix_orders_status_placed_at", table_name="orders", postgresql_concurrently=True)
    op.drop_column("shipments", "delivery_slot")
'''

UNIQUE_CUSTOMER_EMAIL = f'''"""One account per e-mail address

Revision ID: 82a5c3e60d17
Revises: {HEAD}
Create Date: 2026-03-30 15:41:09.117254

"""

import sqlalchemy as sa
from alembic import op

revision = "82a5c3e60d17"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customers", sa.Column("email_verified_at", sa.DateTime(timezone=True)))
    op.create_check_constraint("ck_customers_email", "customers", "position('@' in email) > 1")

    with op.get_context().autocommit_block():
        op.create_index("uq_customers_email", "customers", ["email"], unique=True, postgresql_concurrently=True)

    op.create_table(
        "email_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("customer_id", sa.Integer(), sa.ForeignKey("customers.id", ondelete="CASCADE"), nullable=False),
        sa.Column("old_email", sa.String(255), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.drop_index("ix_customers_email", table_name="customers")


def downgrade() -> None:
    op.create_index("ix_customers_email", "customers", ["email"])
    op.drop_table("email_changes")
    op.drop_index("uq_customers_email", table_name="customers")
    op.drop_constraint("ck_customers_email", "customers", type_="check")
    op.drop_column("customers", "email_verified_at")
'''

SHIPPING_WEIGHT = f'''"""Shipping weight of every order line

Revision ID: c90b6e2f1d43
Revises: {HEAD}
Create Date: 2026-04-14 09:05:32.660871

"""

import sqlalchemy as sa
from alembic import op

revision = "c90b6e2f1d43"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None

BATCH = 20_000


def upgrade() -> None:
    op.add_column("order_items", sa.Column("weight_g", sa.Integer()))

    bind = op.get_bind()
    first, last = bind.execute(sa.text("SELECT min(order_id), max(order_id) FROM order_items")).one()
    while first is not None and first <= last:
        bind.execute(
            sa.text(
                """
                UPDATE order_items i SET weight_g = i.quantity * (p.attributes ->> 'weight_g')::int
                FROM products p
                WHERE p.id = i.product_id AND i.order_id >= :first AND i.order_id < :after
                """
            ),
            {{"first": first, "after": first + BATCH}},
        )
        bind.commit()
        first += BATCH

    op.create_index(
        "ix_order_items_heavy", "order_items", ["weight_g"], postgresql_where=sa.text("weight_g > 10000")
    )
    op.create_check_constraint("ck_order_items_weight_g", "order_items", "weight_g >= 0")


def downgrade() -> None:
    op.drop_column("order_items", "weight_g")
'''

LOYALTY_POINTS = f'''"""Loyalty points

Revision ID: 17e8d4b5a60c
Revises: {HEAD}
Create Date: 2026-05-06 13:18:55.284093

"""

import sqlalchemy as sa
from alembic import op

revision = "17e8d4b5a60c"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customers", sa.Column("points", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "point_bookings",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("customer_id", sa.Integer(), sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("order_id", sa.BigInteger(), sa.ForeignKey("orders.id")),
        sa.Column("points", sa.Integer(), nullable=False),
    )
    op.create_index("ix_point_bookings_customer_id", "point_bookings", ["customer_id"])
    op.execute("UPDATE customers SET points = 100 WHERE created_at < timestamptz '2024-02-01 00:00:00+00'")


def downgrade() -> None:
    op.drop_table("point_bookings")
    op.drop_column("customers", "points")
'''
