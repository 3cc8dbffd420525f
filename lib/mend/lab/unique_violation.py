"""Duplicates in the way of a unique constraint, made by real alembic: accounts that an import brought in a second time.

The copies have orders, addresses and reviews of their own, so that dropping them is not enough.
"""

from __future__ import annotations

from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD

THERE = "select to_regclass(%s) is not null"
GROUPS = "select count(*)::int from (select 1 from customers group by email having count(*) > 1) as g"
FOLDED = "select count(*)::int from (select 1 from customers group by lower(email) having count(*) > 1) as g"
COLUMN = """
    select count(*)::int from pg_attribute
    where attrelid = cast(%s as regclass) and attname = %s and not attisdropped
"""


def duplicate_emails(bench: Bench) -> dict[str, str]:
    """A unique constraint over e-mail addresses, of which some stand twice, and some twice but for their case."""
    bench.project.add_revision("5b0e94d17c32_one_account_per_email", ONE_ACCOUNT_PER_EMAIL)
    _import_again(bench)
    failed = bench.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", failed.exit_code, 1)
    bench.expect_words(failed, "UniqueViolation", 'could not create unique index "uq_customers_email"', "is duplicated")
    bench.expect("version row", bench.version(), HEAD)
    bench.expect("column customers.email_verified_at", bench.query(COLUMN, "customers", "email_verified_at"), [(0,)])
    bench.expect("the index dropped at the end", bench.query(THERE, "ix_customers_email"), [(True,)])
    (groups,), (folded,) = bench.query(GROUPS)[0], bench.query(FOLDED)[0]
    bench.expect("duplicates by case only", groups >= 2 and folded > groups, True)
    return {"revision": "5b0e94d17c32"}


def lower_email(bench: Bench) -> dict[str, str]:
    """A unique index on lower(email), built in a transaction: addresses that differ by case only are duplicates now."""
    bench.project.add_revision("c84f1d6ba905_email_without_case", EMAIL_WITHOUT_CASE)
    _import_again(bench)
    failed = bench.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", failed.exit_code, 1)
    bench.expect_words(failed, "UniqueViolation", 'could not create unique index "uq_customers_lower_email"')
    bench.expect("version row", bench.version(), HEAD)
    bench.expect("the index", bench.query(THERE, "uq_customers_lower_email"), [(False,)])
    return {"revision": "c84f1d6ba905"}


def sequence_behind(bench: Bench) -> dict[str, str]:
    """Rows were loaded with their ids and the sequence was not moved: the next insert meets an id that is taken."""
    bench.project.add_revision("e27a60c5f819_gift_cards", GIFT_CARDS)
    bench.progress("a load writes categories with their ids")
    bench.change(LOADED_WITH_IDS)
    failed = bench.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", failed.exit_code, 1)
    bench.expect_words(failed, "UniqueViolation", 'duplicate key value violates unique constraint "categories_pkey"')
    bench.expect("version row", bench.version(), HEAD)
    behind = "select (select max(id) from categories) > (select last_value from categories_id_seq)"
    bench.expect("the sequence behind the ids", bench.query(behind), [(True,)])
    return {"revision": "e27a60c5f819", "table": "public.categories", "constraint": "categories_pkey"}


def _import_again(bench: Bench) -> None:
    bench.progress("an import brings customers in a second time, and the copies place orders")
    bench.change(IMPORTED_AGAIN)
    bench.change(IMPORTED_A_THIRD_TIME)


SCENARIOS: dict[str, Scenario] = {
    "duplicate_emails": duplicate_emails,
    "lower_email": lower_email,
    "sequence_behind": sequence_behind,
}

# One customer in ten comes twice, one in ten twice but for the case of the address; customer 13 in the very same instant, so
# that the time alone does not say which of the two is the older.
IMPORTED_AGAIN = """
    with copies as (
        insert into customers (email, full_name, phone, created_at)
        select case when id % 10 = 5 then initcap(email) else email end, full_name, phone,
               created_at + case when id = 13 then interval '0' else interval '1 day' end
          from customers where id % 10 in (3, 5)
         order by id
        returning id
    ), ordered as (
        insert into orders (customer_id, status, total, note)
        select id, 'paid', 19.50, 'Placed with the second account' from copies
    ), addressed as (
        insert into addresses (customer_id, line1, city, postal_code, country)
        select id, '1 Second Street', 'Graz', '8010', 'AT' from copies
    )
    insert into reviews (product_id, customer_id, rating, body) select 1, id, 4, 'Written with the second account' from copies
"""

IMPORTED_A_THIRD_TIME = """
    insert into customers (email, full_name, phone, created_at)
    select email, full_name, phone, created_at + interval '2 days' from customers where id = 3
"""

LOADED_WITH_IDS = (
    "insert into categories (id, name) select 40 + i, 'Loaded category ' || i from generate_series(1, 5) as i"
)

ONE_ACCOUNT_PER_EMAIL = f'''"""One account per e-mail address

Revision ID: 5b0e94d17c32
Revises: {HEAD}
Create Date: 2026-04-02 09:52:18.440275

"""

import sqlalchemy as sa
from alembic import op

revision = "5b0e94d17c32"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customers", sa.Column("email_verified_at", sa.DateTime(timezone=True)))
    op.create_unique_constraint("uq_customers_email", "customers", ["email"])
    op.drop_index("ix_customers_email", table_name="customers")


def downgrade() -> None:
    op.create_index("ix_customers_email", "customers", ["email"])
    op.drop_constraint("uq_customers_email", "customers", type_="unique")
    op.drop_column("customers", "email_verified_at")
'''

EMAIL_WITHOUT_CASE = f'''"""E-mail addresses are unique whatever their case

Revision ID: c84f1d6ba905
Revises: {HEAD}
Create Date: 2026-04-20 16:07:44.092613

"""

import sqlalchemy as sa
from alembic import op

revision = "c84f1d6ba905"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("uq_customers_lower_email", "customers", [sa.text("lower(email)")], unique=True)
    op.drop_index("ix_customers_lower_email", table_name="customers")


def downgrade() -> None:
    op.create_index("ix_customers_lower_email", "customers", [sa.text("lower(email)")])
    op.drop_index("uq_customers_lower_email", table_name="customers")
'''

GIFT_CARDS = f'''"""Categories for gift cards and spare parts

Revision ID: e27a60c5f819
Revises: {HEAD}
Create Date: 2026-05-11 11:38:02.775190

"""

from alembic import op

revision = "e27a60c5f819"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("COMMENT ON TABLE categories IS 'What the shop sells, as a tree'")
    op.execute("INSERT INTO categories (name) VALUES ('Gift cards'), ('Spare parts')")


def downgrade() -> None:
    op.execute("DELETE FROM categories WHERE name IN ('Gift cards', 'Spare parts')")
    op.execute("COMMENT ON TABLE categories IS NULL")
'''
