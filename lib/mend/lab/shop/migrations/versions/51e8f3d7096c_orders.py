"""Orders and their items

Revision ID: 51e8f3d7096c
Revises: c4b97e02ad61
Create Date: 2024-03-18 08:27:45.640512

"""

import sqlalchemy as sa
from alembic import op

revision = "51e8f3d7096c"
down_revision = "c4b97e02ad61"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), primary_key=True),
        sa.Column(
            "customer_id", sa.Integer(), sa.ForeignKey("customers.id", name="fk_orders_customer_id"), nullable=False
        ),
        sa.Column(
            "status",
            sa.Enum("new", "paid", "shipped", "delivered", "cancelled", name="order_status"),
            server_default="new",
            nullable=False,
        ),
        sa.Column("placed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("total", sa.Numeric(12, 2), server_default="0", nullable=False),
        sa.Column("coupon_code", sa.String(20)),
        sa.Column("note", sa.Text()),
        sa.CheckConstraint("total >= 0", name="ck_orders_total"),
    )
    op.create_index("ix_orders_customer_id_placed_at", "orders", ["customer_id", sa.text("placed_at DESC")])
    op.create_index(
        "ix_orders_open",
        "orders",
        ["placed_at"],
        postgresql_where=sa.text("status IN ('new', 'paid')"),
    )
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("line_no", sa.SmallInteger(), nullable=False),
        sa.Column("product_id", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price", sa.Numeric(10, 2), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "line_no", name="pk_order_items"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_order_items_order_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], name="fk_order_items_product_id"),
        sa.CheckConstraint("quantity > 0", name="ck_order_items_quantity"),
    )


def downgrade() -> None:
    op.drop_table("order_items")
    op.drop_table("orders")
    sa.Enum(name="order_status").drop(op.get_bind())
