"""Catalogue: categories, products, suppliers

Revision ID: 8d20e6b1f57a
Revises: 3f1c7a9be204
Create Date: 2024-02-13 16:40:08.771930

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "8d20e6b1f57a"
down_revision = "3f1c7a9be204"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "categories",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("parent_id", sa.Integer(), sa.ForeignKey("categories.id", name="fk_categories_parent_id")),
        sa.Column("name", sa.String(80), nullable=False),
        sa.UniqueConstraint("parent_id", "name", name="uq_categories_parent_id_name"),
    )
    op.create_table(
        "products",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("sku", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("category_id", sa.Integer(), nullable=False),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
        sa.Column("attributes", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("discontinued_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("price >= 0", name="ck_products_price"),
        sa.ForeignKeyConstraint(["category_id"], ["categories.id"], name="fk_products_category_id"),
        sa.UniqueConstraint("sku", name="uq_products_sku"),
    )
    op.create_index("ix_products_category_id", "products", ["category_id"])
    op.create_index("ix_products_attributes", "products", ["attributes"], postgresql_using="gin")
    op.create_table(
        "suppliers",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("vat_number", sa.String(20), unique=True),
    )
    op.create_table(
        "product_suppliers",
        sa.Column("product_id", sa.Integer(), nullable=False),
        sa.Column("supplier_id", sa.Integer(), nullable=False),
        sa.Column("lead_time_days", sa.SmallInteger(), server_default="7", nullable=False),
        sa.PrimaryKeyConstraint("product_id", "supplier_id", name="pk_product_suppliers"),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["supplier_id"], ["suppliers.id"]),
    )


def downgrade() -> None:
    op.drop_table("product_suppliers")
    op.drop_table("suppliers")
    op.drop_table("products")
    op.drop_table("categories")
