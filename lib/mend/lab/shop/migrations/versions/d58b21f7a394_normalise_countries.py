"""Write countries in capitals

Revision ID: d58b21f7a394
Revises: 19f6d0e8c2a5
Create Date: 2024-11-05 15:20:41.886309

"""

from alembic import op

revision = "d58b21f7a394"
down_revision = "19f6d0e8c2a5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE addresses SET country = upper(country) WHERE country <> upper(country)")
    op.execute("UPDATE addresses SET country = 'GB' WHERE country = 'UK'")


def downgrade() -> None:
    pass
