"""Search products by words

Revision ID: f2a85d9c0b46
Revises: 60c9e4a3b71d
Create Date: 2025-04-15 09:03:37.261954

"""

from alembic import op

revision = "f2a85d9c0b46"
down_revision = "60c9e4a3b71d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE products ADD COLUMN search tsvector
        GENERATED ALWAYS AS (to_tsvector('english', name)) STORED
        """
    )
    op.execute("CREATE STATISTICS st_products_category_price (dependencies) ON category_id, price FROM products")
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_products_search", "products", ["search"], postgresql_using="gin", postgresql_concurrently=True
        )
        op.create_index("ix_order_items_product_id", "order_items", ["product_id"], postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_index("ix_order_items_product_id", table_name="order_items")
    op.drop_index("ix_products_search", table_name="products")
    op.execute("DROP STATISTICS st_products_category_price")
    op.drop_column("products", "search")
