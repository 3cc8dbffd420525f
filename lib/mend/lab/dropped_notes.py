"""What the scenario `dropped` of data_loss stands on: a revision that dropped the notes of orders, and what has happened to them since.

The notes are of every kind in which PostgreSQL stores a text: short, compressed in place, out of line, out of line and compressed.
"""

from __future__ import annotations

from mend.lab.bench import Bench
from mend.lab.shop import HEAD

REVISION = "c7d2504ba91e"

# A digest's digits do not compress; words do. Out of line begins at 2 kB.
_NOTES = """
update orders set note = case id % 10
    when 0 then null
    when 1 then (select string_agg(md5(cast(id * 1000 + n as text)), '') from generate_series(1, 120) as n)
    when 2 then repeat('Please ring twice. ', 60 + cast(id % 40 as int4))
    when 3 then (select string_agg(md5(cast(n as text)) || repeat('-', 200), '') from generate_series(1, 100 + id % 7) as n)
    when 4 then 'Grüße, ' || id || E' \\\\ \\t\\n'
    when 5 then ''
    else 'note ' || id end
 where id <= 2000
"""


def dropped(bench: Bench) -> dict[str, str]:
    """The notes of orders were dropped by mistake; since then some orders have been paid, and new ones came."""
    bench.project.add_revision(f"{REVISION}_orders_lose_their_notes", TEXT)
    bench.change(_NOTES)
    bench.change("create table notes_as_they_were as select id, note from orders")
    done = bench.alembic("upgrade", "head")
    bench.expect("exit code", done.exit_code, 0)
    bench.expect("version row", bench.version(), REVISION)
    bench.change("update orders set status = 'paid' where id % 11 = 0")
    bench.change("insert into orders (customer_id) select customer_id from orders where id <= 20")
    return {"table": "orders", "column": "note"}


TEXT = f'''"""Nobody reads the notes any more

Revision ID: {REVISION}
Revises: {HEAD}
Create Date: 2026-05-19 11:20:08.731644

"""

import sqlalchemy as sa
from alembic import op

revision = "{REVISION}"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("orders", "note")


def downgrade() -> None:
    op.add_column("orders", sa.Column("note", sa.Text()))
'''
