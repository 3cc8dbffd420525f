"""Reporting views

Revision ID: 7b3ac8150ef9
Revises: e902b5f46d1c
Create Date: 2024-07-02 13:09:58.417725

"""

from alembic import op

revision = "7b3ac8150ef9"
down_revision = "e902b5f46d1c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE VIEW order_totals AS
        SELECT o.id AS order_id, o.customer_id, o.status, o.placed_at, count(i.line_no) AS items,
               coalesce(sum(i.quantity * i.unit_price), 0) AS total
        FROM orders o
        LEFT JOIN order_items i ON i.order_id = o.id
        GROUP BY o.id
        """
    )
    op.execute(
        """
        CREATE VIEW customer_totals AS
        SELECT c.id AS customer_id, c.email, count(t.order_id) AS orders, coalesce(sum(t.total), 0) AS spent
        FROM customers c
        LEFT JOIN order_totals t ON t.customer_id = c.id AND t.status <> 'cancelled'
        GROUP BY c.id
        """
    )
    op.execute(
        """
        CREATE MATERIALIZED VIEW daily_sales AS
        SELECT (placed_at AT TIME ZONE 'UTC')::date AS day, count(*) AS orders, sum(total) AS total
        FROM orders
        WHERE status <> 'cancelled'
        GROUP BY 1
        """
    )
    op.execute("CREATE UNIQUE INDEX uq_daily_sales_day ON daily_sales (day)")
    op.execute("COMMENT ON VIEW customer_totals IS 'Read by the finance dashboard'")


def downgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW daily_sales")
    op.execute("DROP VIEW customer_totals")
    op.execute("DROP VIEW order_totals")
