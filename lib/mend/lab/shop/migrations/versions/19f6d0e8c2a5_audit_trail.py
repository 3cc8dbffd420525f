"""Audit trail of orders

Revision ID: 19f6d0e8c2a5
Revises: 7b3ac8150ef9
Create Date: 2024-09-11 07:48:22.130478

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "19f6d0e8c2a5"
down_revision = "7b3ac8150ef9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("table_name", sa.String(63), nullable=False),
        sa.Column("row_id", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("changed_by", sa.String(63), server_default=sa.text("CURRENT_USER"), nullable=False),
        sa.Column("before", postgresql.JSONB()),
        sa.Column("after", postgresql.JSONB()),
    )
    op.create_index("ix_audit_log_table_name_row_id", "audit_log", ["table_name", "row_id"])
    op.execute(
        """
        CREATE FUNCTION log_order_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO audit_log (table_name, row_id, before, after)
            VALUES (tg_table_name, old.id, to_jsonb(old), to_jsonb(new));
            RETURN new;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER log_order_change AFTER UPDATE OF status, total ON orders
        FOR EACH ROW WHEN (old.* IS DISTINCT FROM new.*) EXECUTE FUNCTION log_order_change()
        """
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER log_order_change ON orders")
    op.execute("DROP FUNCTION log_order_change()")
    op.drop_table("audit_log")
