"""Stock per warehouse

Revision ID: c4b97e02ad61
Revises: 8d20e6b1f57a
Create Date: 2024-03-04 11:02:33.019284

"""

from alembic import op

revision = "c4b97e02ad61"
down_revision = "8d20e6b1f57a"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE DOMAIN quantity AS integer CONSTRAINT ck_quantity CHECK (VALUE >= 0)")
    op.execute(
        """
        CREATE TABLE inventory (
            warehouse varchar(8) NOT NULL,
            product_id integer NOT NULL,
            supplier_id integer NOT NULL,
            on_hand quantity DEFAULT 0 NOT NULL,
            reserved quantity DEFAULT 0 NOT NULL,
            counted_at timestamptz,
            CONSTRAINT pk_inventory PRIMARY KEY (warehouse, product_id),
            CONSTRAINT ck_inventory_reserved CHECK (reserved <= on_hand),
            CONSTRAINT fk_inventory_product_suppliers FOREIGN KEY (product_id, supplier_id)
                REFERENCES product_suppliers (product_id, supplier_id)
        )
        """
    )
    op.create_index("ix_inventory_product_id_supplier_id", "inventory", ["product_id", "supplier_id"])


def downgrade() -> None:
    op.drop_table("inventory")
    op.execute("DROP DOMAIN quantity")
