"""Orders refer to coupons

Revision ID: b04e7c6f21d9
Revises: f2a85d9c0b46
Create Date: 2025-08-27 17:11:04.398120

"""

import sqlalchemy as sa
from alembic import op

revision = "b04e7c6f21d9"
down_revision = "f2a85d9c0b46"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_foreign_key("fk_orders_coupon_code", "orders", "coupons", ["coupon_code"], ["code"])
    op.create_index(
        "ix_orders_coupon_code", "orders", ["coupon_code"], postgresql_where=sa.text("coupon_code IS NOT NULL")
    )
    op.alter_column("customers", "phone", existing_type=sa.String(32), comment="E.164, since the import of 2025-06")


def downgrade() -> None:
    op.alter_column("customers", "phone", existing_type=sa.String(32), comment=None)
    op.drop_index("ix_orders_coupon_code", table_name="orders")
    op.drop_constraint("fk_orders_coupon_code", "orders", type_="foreignkey")
