"""Migrations that are still at work: real alembic runs on, in a process of its own, when the scenario returns.

This machine is faster than a production database under load, and a practice migration must last long enough to be looked at.  So
every row that it changes costs it a fixed time, by a trigger that reads a setting of *its* session alone: the UPDATE lasts about
ten minutes, and ends by itself.  Who takes its work over does not pay that price.  It dies with the lab's server or database.
"""

from __future__ import annotations

import time

from mend.errors import LabFailed
from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD

LASTS_S = 600.0
_MOST_MS = 1000.0  # of one row; a shop of few rows is done sooner
_PATIENCE_S = 30.0

ROW_COST = """
create function row_cost() returns trigger language plpgsql as $$
begin
    perform pg_sleep(coalesce(nullif(current_setting('shop.row_cost_ms', true), ''), '0')::float8 / 1000);
    return new;
end
$$;
create trigger row_cost before update on orders for each row execute function row_cost();
create trigger row_cost before update on payments for each row execute function row_cost();
"""
# A role of its own, as in production: what belongs to a superuser is never ended without being told to.
MIGRATOR = """
do $$
begin
    if not exists (select from pg_roles where rolname = 'shop_migrator') then
        create role shop_migrator login in role postgres;
    end if;
exception when duplicate_object or unique_violation then null; -- another database's lab was quicker
end
$$
"""
AT_WORK = """
    select count(*)::int from pg_stat_activity
    where datname = current_database() and state = 'active' and backend_type = 'client backend' and query ~* %s
      and xact_start < clock_timestamp() - interval '1.2 seconds' -- a younger one is everyday, and no triage names it
"""


def long_update(bench: Bench) -> dict[str, str]:
    """One UPDATE of most orders inside upgrade(); an index and a default come after it."""
    (rows,) = bench.query("select count(*)::int from orders where note is null")[0]
    return _running(bench, "6fd0a1b7c3e2_orders_have_a_note", EMPTY_NOTES, rows, r"^\s*update orders set note")


def batch_loop(bench: Bench) -> dict[str, str]:
    """The loop that everybody writes: ORDER BY id LIMIT n in one transaction, so each batch passes over all that is done."""
    (rows,) = bench.query("select count(*)::int from orders where note is null")[0]
    text = EMPTY_NOTES_IN_BATCHES.replace("BATCH = 0", f"BATCH = {max(10, rows // 200)}")
    return _running(bench, "93c5e7f80d14_orders_have_a_note", text, rows, r"^\s*with batch as")


def missing_index(bench: Bench) -> dict[str, str]:
    """A statement for each payment, found by a column that no index has: each reads the whole table."""
    (rows,) = bench.query("select count(*)::int from payments where paid_at is not null")[0]
    return _running(
        bench, "e15b09d4f7a8_payments_by_the_second", BY_REFERENCE, rows, r"^\s*update payments set paid_at"
    )


def _running(bench: Bench, name: str, text: str, rows: int, statement: str) -> dict[str, str]:
    bench.project.add_revision(name, text)
    bench.change(ROW_COST)
    bench.change(MIGRATOR)
    cost_ms = min(LASTS_S * 1000 / max(rows, 1), _MOST_MS)
    environ = {
        "SHOP_DATABASE_URL": bench.project.url.replace("//postgres@", "//shop_migrator@", 1),
        "PGOPTIONS": f"-c shop.row_cost_ms={cost_ms:.3f}",
    }
    bench.start_alembic("upgrade", "head", environ=environ)
    deadline = time.monotonic() + _PATIENCE_S
    while bench.query(AT_WORK, statement) != [(1,)]:
        if time.monotonic() > deadline:
            said = bench.error_file.read_text()[-2000:]
            raise LabFailed(
                f"The lab's migration did not begin its work within {_PATIENCE_S:.0f} s. Only the lab was touched. `mend lab reset` starts afresh; alembic said:\n{said}"
            )
        time.sleep(0.05)
    bench.expect("version row", bench.version(), HEAD)
    return {"revision": name.partition("_")[0]}


SCENARIOS: dict[str, Scenario] = {
    "long_update": long_update,
    "batch_loop": batch_loop,
    "missing_index": missing_index,
}

EMPTY_NOTES = f'''"""Orders have a note, if an empty one

Revision ID: 6fd0a1b7c3e2
Revises: {HEAD}
Create Date: 2026-06-02 08:14:55.730216

"""

import sqlalchemy as sa
from alembic import op

revision = "6fd0a1b7c3e2"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("COMMENT ON COLUMN orders.note IS 'What the customer asks for; empty: nothing'")
    op.execute("UPDATE orders SET note = '' WHERE note IS NULL")
    op.create_index("ix_orders_noted", "orders", ["placed_at"], postgresql_where=sa.text("note <> ''"))
    op.alter_column("orders", "note", existing_type=sa.Text(), server_default="")


def downgrade() -> None:
    op.alter_column("orders", "note", existing_type=sa.Text(), server_default=None)
    op.drop_index("ix_orders_noted", table_name="orders")
    op.execute("UPDATE orders SET note = NULL WHERE note = ''")
    op.execute("COMMENT ON COLUMN orders.note IS NULL")
'''

EMPTY_NOTES_IN_BATCHES = f'''"""Orders have a note, if an empty one

Revision ID: 93c5e7f80d14
Revises: {HEAD}
Create Date: 2026-06-03 17:40:02.118394

"""

import sqlalchemy as sa
from alembic import op

revision = "93c5e7f80d14"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None

BATCH = 0


def upgrade() -> None:
    bind = op.get_bind()
    while True:
        changed = bind.execute(
            sa.text(
                """
                WITH batch AS (
                    SELECT id FROM orders WHERE note IS NULL
                    ORDER BY id LIMIT :size
                )
                UPDATE orders SET note = ''
                WHERE id IN (SELECT id FROM batch)
                """
            ),
            {{"size": BATCH}},
        )
        if changed.rowcount == 0:
            break
    op.alter_column("orders", "note", existing_type=sa.Text(), server_default="")


def downgrade() -> None:
    op.alter_column("orders", "note", existing_type=sa.Text(), server_default=None)
    op.execute("UPDATE orders SET note = NULL WHERE note = ''")
'''

BY_REFERENCE = f'''"""The bank knows payments by the second

Revision ID: e15b09d4f7a8
Revises: {HEAD}
Create Date: 2026-06-09 11:26:37.902581

"""

import sqlalchemy as sa
from alembic import op

revision = "e15b09d4f7a8"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    bind = op.get_bind()
    paid = bind.execute(sa.text("SELECT reference FROM payments WHERE paid_at IS NOT NULL ORDER BY reference"))
    for (reference,) in paid.fetchall():
        bind.execute(
            sa.text("UPDATE payments SET paid_at = date_trunc('second', paid_at) WHERE reference = :reference"),
            {{"reference": reference}},
        )


def downgrade() -> None:
    pass
'''
