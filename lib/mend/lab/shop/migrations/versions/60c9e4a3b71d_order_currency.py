"""Currency of an order

Revision ID: 60c9e4a3b71d
Revises: d58b21f7a394
Create Date: 2025-01-23 12:36:10.574291

"""

import sqlalchemy as sa
from alembic import op

revision = "60c9e4a3b71d"
down_revision = "d58b21f7a394"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("orders") as batch:
        batch.add_column(sa.Column("currency", sa.String(3), server_default="EUR", nullable=False))
        batch.create_check_constraint("ck_orders_currency", "currency ~ '^[A-Z]{3}$'")
    with op.batch_alter_table("payments") as batch:
        batch.add_column(sa.Column("currency", sa.String(3), server_default="EUR", nullable=False))
        batch.alter_column("reference", type_=sa.String(80), existing_type=sa.String(64))


def downgrade() -> None:
    with op.batch_alter_table("payments") as batch:
        batch.alter_column("reference", type_=sa.String(64), existing_type=sa.String(80))
        batch.drop_column("currency")
    with op.batch_alter_table("orders") as batch:
        batch.drop_constraint("ck_orders_currency", type_="check")
        batch.drop_column("currency")
