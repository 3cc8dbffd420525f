"""Payments and shipments

Revision ID: a67d14c9e3b8
Revises: 51e8f3d7096c
Create Date: 2024-04-09 14:55:19.208846

"""

import sqlalchemy as sa
from alembic import op

revision = "a67d14c9e3b8"
down_revision = "51e8f3d7096c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "payments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), nullable=False),
        sa.Column("reference", sa.String(64)),
        sa.Column("paid_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_payments_order_id"),
        sa.CheckConstraint("method IN ('card', 'transfer', 'invoice', 'voucher')", name="ck_payments_method"),
    )
    op.create_index("ix_payments_order_id", "payments", ["order_id"])
    op.create_index("ix_payments_unpaid", "payments", ["order_id"], postgresql_where=sa.text("paid_at IS NULL"))
    op.create_table(
        "shipments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), primary_key=True),
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("line_no", sa.SmallInteger(), nullable=False),
        sa.Column("carrier", sa.String(32), nullable=False),
        sa.Column("tracking_code", sa.String(64)),
        sa.Column("shipped_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id", "line_no"],
            ["order_items.order_id", "order_items.line_no"],
            name="fk_shipments_order_items",
        ),
    )
    op.create_index("ix_shipments_order_id_line_no", "shipments", ["order_id", "line_no"])


def downgrade() -> None:
    op.drop_table("shipments")
    op.drop_table("payments")
