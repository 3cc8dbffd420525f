"""Revisions that destroy content: one that is pending while the application still writes what it will lose."""

from __future__ import annotations

from mend.lab import sessions
from mend.lab.bench import Bench, Scenario
from mend.lab.dropped_notes import dropped
from mend.lab.sessions import Session
from mend.lab.shop import HEAD

REVISION = "9e47c2a0d615"
# The application: it changes a note, a phone number and a review five times a second, for as long as there is something to write to.
_WRITES = """
do $$
declare n bigint := 0;
begin
  loop
    n := n + 1;
    begin
      update orders set note = 'changed at ' || clock_timestamp() where id = 1 + n % 50;
      update customers set phone = '+4420' || lpad(cast(n as text), 8, '0') where id = 1 + n % 20;
      insert into reviews (product_id, customer_id, rating, body) values (1, 1, 5, 'written meanwhile');
    exception when undefined_column or undefined_table then null;
    end;
    commit;
    perform pg_sleep(0.2);
  end loop;
end $$
"""


def pending(bench: Bench) -> dict[str, str]:
    """A tidy-up waits to be deployed: it drops two columns and a table that the application still writes."""
    bench.project.add_revision(f"{REVISION}_tidy_up", TIDY_UP)
    script = bench.alembic("upgrade", f"{HEAD}:head", "--sql")
    bench.expect("exit code", script.exit_code, 0)
    bench.expect_words(script, "ALTER TABLE orders DROP COLUMN note", "DROP TABLE reviews")
    bench.expect("version row", bench.version(), HEAD)
    (there,) = bench.query("select count(*)::int from orders where note is not null")[0]
    bench.expect("orders with a note", there > 0, True)
    sessions.start(bench.project.url, sessions=[Session("web-1", (_WRITES,), role="postgres")])
    bench.progress("the application goes on writing")
    return {"revision": REVISION}


SCENARIOS: dict[str, Scenario] = {"pending": pending, "dropped": dropped}

TIDY_UP = f'''"""Tidy up: what nobody needs any more

Revision ID: {REVISION}
Revises: {HEAD}
Create Date: 2026-06-09 10:02:37.118452

"""

from alembic import op

revision = "{REVISION}"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("orders", "note")
    op.drop_column("customers", "phone")
    op.drop_table("reviews")


def downgrade() -> None:
    raise NotImplementedError
'''
