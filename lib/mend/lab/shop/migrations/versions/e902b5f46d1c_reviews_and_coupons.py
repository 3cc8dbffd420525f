"""Reviews and coupons

Revision ID: e902b5f46d1c
Revises: a67d14c9e3b8
Create Date: 2024-05-21 10:31:07.955063

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "e902b5f46d1c"
down_revision = "a67d14c9e3b8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("product_id", sa.Integer(), sa.ForeignKey("products.id", ondelete="CASCADE"), nullable=False),
        sa.Column("customer_id", sa.Integer(), sa.ForeignKey("customers.id", ondelete="SET NULL")),
        sa.Column("rating", sa.SmallInteger(), nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name="ck_reviews_rating"),
    )
    op.create_index("ix_reviews_product_id_rating", "reviews", ["product_id", "rating"])
    op.create_table(
        "coupons",
        sa.Column("code", sa.String(20), primary_key=True),
        sa.Column("percent_off", sa.SmallInteger(), nullable=False),
        sa.Column("valid_during", postgresql.DATERANGE(), nullable=False),
        sa.CheckConstraint("percent_off BETWEEN 1 AND 90", name="ck_coupons_percent_off"),
    )
    op.create_index("ix_customers_lower_email", "customers", [sa.text("lower(email)")])


def downgrade() -> None:
    op.drop_index("ix_customers_lower_email", table_name="customers")
    op.drop_table("coupons")
    op.drop_table("reviews")
