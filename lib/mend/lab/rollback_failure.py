"""Ways back that end in an error: what others built on a column, a revision that says no, and an enum that stayed behind."""

from __future__ import annotations

from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD

COLUMN = """
    select count(*)::int from pg_attribute
    where attrelid = cast(%s as regclass) and attname = %s and not attisdropped
"""
TYPE = "select count(*)::int from pg_type where typname = %s"


def dependents(bench: Bench) -> dict[str, str]:
    """A revision added a column and widened another; reports, a table and a function were built on both before it was to go back."""
    bench.project.add_revision("2f8c61d90be3_loyalty_numbers", LOYALTY)
    ran = bench.alembic("upgrade", "head")
    bench.progress("the reporting team builds on it")
    bench.change(BY_HAND)
    first = bench.alembic("downgrade", "-1")
    bench.expect("exit code of the upgrade", ran.exit_code, 0)
    bench.expect("exit code of the downgrade", first.exit_code, 1)
    bench.expect_words(
        first,
        "DependentObjectsStillExist",
        "cannot drop column loyalty_number of table customers because other objects depend on it",
        "materialized view loyal_countries depends on column loyalty_number",
    )
    bench.expect("version row", bench.version(), "2f8c61d90be3")
    bench.expect("column customers.loyalty_number", bench.query(COLUMN, "customers", "loyalty_number"), [(1,)])
    return {}


def not_implemented(bench: Bench) -> dict[str, str]:
    """Three revisions are to go back, and the one in the middle says that it cannot."""
    bench.project.add_revision("7be04c19fa25_gift_cards", GIFT_CARDS)
    bench.project.add_revision("c83f5a6e01d7_split_names", NAMES)
    bench.project.add_revision("e19d7042cb68_greetings", GREETINGS)
    ran = bench.alembic("upgrade", "head")
    first = bench.alembic("downgrade", HEAD)
    bench.expect("exit code of the upgrade", ran.exit_code, 0)
    bench.expect("exit code of the downgrade", first.exit_code, 1)
    bench.expect_words(first, "NotImplementedError", "Running downgrade e19d7042cb68 -> c83f5a6e01d7")
    bench.expect("version row", bench.version(), "e19d7042cb68")
    return {"revision": HEAD}


def enum_left_behind(bench: Bench) -> dict[str, str]:
    """A downgrade dropped its table and not the type of one of its columns: the next upgrade meets that."""
    bench.project.add_revision("94a0d3b7e6f1_returns", RETURNS)
    up = bench.alembic("upgrade", "head")
    down = bench.alembic("downgrade", "-1")
    first = bench.alembic("upgrade", "head")
    bench.expect("exit codes before", (up.exit_code, down.exit_code), (0, 0))
    bench.expect("exit code of the second upgrade", first.exit_code, 1)
    bench.expect_words(first, "DuplicateObject", 'type "return_reason" already exists')
    bench.expect("version row", bench.version(), HEAD)
    bench.expect("type return_reason", bench.query(TYPE, "return_reason"), [(1,)])
    return {}


SCENARIOS: dict[str, Scenario] = {
    "dependents": dependents,
    "not_implemented": not_implemented,
    "enum_left_behind": enum_left_behind,
}

_HEADER = '''"""{doc}

Revision ID: {revision}
Revises: {down}
Create Date: 2026-06-{day:02} 10:22:47.{number}

"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None

'''

LOYALTY = (
    _HEADER.format(doc="Loyalty numbers", revision="2f8c61d90be3", down=HEAD, day=2, number="610238")
    + """
def upgrade() -> None:
    op.add_column("customers", sa.Column("loyalty_number", sa.String(12), comment="Printed on the card"))
    op.execute("UPDATE customers SET loyalty_number = 'L' || lpad(id::text, 9, '0') WHERE id % 2 = 0")
    op.create_unique_constraint("uq_customers_loyalty_number", "customers", ["loyalty_number"])
    op.alter_column("customers", "full_name", existing_type=sa.String(120), type_=sa.String(200))


def downgrade() -> None:
    op.drop_column("customers", "loyalty_number")
    op.alter_column("customers", "full_name", existing_type=sa.String(200), type_=sa.String(120))
"""
)
BY_HAND = """
    do $$ begin
      if not exists (select from pg_roles where rolname = 'shop_reporting') then create role shop_reporting nologin; end if;
    end $$;
    grant select on customers, addresses to shop_reporting;

    create view loyal_customers as select id, full_name, loyalty_number from customers where loyalty_number is not null;
    comment on view loyal_customers is 'Read by the newsletter';
    alter view loyal_customers owner to shop_reporting;
    grant select on loyal_customers to public;
    create view loyal_names as select full_name from loyal_customers;
    create materialized view loyal_countries as
      select a.country, count(c.loyalty_number) as loyal from customers c join addresses a on a.customer_id = c.id group by a.country;
    create unique index uq_loyal_countries on loyal_countries (country);
    comment on column loyal_countries.loyal is 'Customers with a card';
    create table loyalty_cards (
      id integer generated always as identity primary key, printed_on date not null,
      number varchar(12) not null constraint fk_loyalty_cards_number references customers (loyalty_number));
    insert into loyalty_cards (printed_on, number)
      select date '2026-06-03', loyalty_number from customers where loyalty_number is not null;
    create index ix_customers_loyalty_by_hand on customers (loyalty_number, created_at);
    create function is_loyal(customer integer) returns boolean language plpgsql stable as
      $$ begin return exists (select from customers where id = customer and loyalty_number is not null); end $$;

    create view customer_names with (security_barrier = true) as select id, full_name from customers;
    comment on view customer_names is 'Read by support';
    comment on column customer_names.full_name is 'As on the invoice';
    alter view customer_names owner to shop_reporting;
    grant select (id) on customer_names to public;
    create materialized view first_letters as select left(full_name, 1) as letter, count(*) as customers from customer_names group by 1;
    create unique index uq_first_letters on first_letters (letter);
    comment on materialized view first_letters is 'Refreshed at night';
    alter materialized view first_letters owner to shop_reporting;
"""
GIFT_CARDS = (
    _HEADER.format(doc="Gift cards", revision="7be04c19fa25", down=HEAD, day=9, number="204117")
    + """
def upgrade() -> None:
    op.create_table(
        "gift_cards",
        sa.Column("code", sa.String(20), primary_key=True),
        sa.Column("amount", sa.Numeric(10, 2), nullable=False),
        sa.Column("customer_id", sa.Integer(), sa.ForeignKey("customers.id", name="fk_gift_cards_customer_id")),
    )
    op.execute("INSERT INTO gift_cards SELECT 'G' || id, 20, id FROM customers WHERE id % 10 = 0")


def downgrade() -> None:
    op.drop_table("gift_cards")
"""
)
NAMES = (
    _HEADER.format(doc="First and last names", revision="c83f5a6e01d7", down="7be04c19fa25", day=11, number="871530")
    + """
def upgrade() -> None:
    op.add_column("customers", sa.Column("last_name", sa.String(120)))
    op.execute("UPDATE customers SET last_name = split_part(full_name, ' ', 2)")


def downgrade() -> None:
    raise NotImplementedError("what support typed as last names would be lost")
"""
)
GREETINGS = (
    _HEADER.format(doc="Greetings", revision="e19d7042cb68", down="c83f5a6e01d7", day=12, number="355096")
    + """
def upgrade() -> None:
    op.add_column("customers", sa.Column("greeting", sa.String(20), server_default="Hello", nullable=False))


def downgrade() -> None:
    op.drop_column("customers", "greeting")
"""
)
RETURNS = (
    _HEADER.format(doc="Returns", revision="94a0d3b7e6f1", down=HEAD, day=16, number="480912")
    + """
def upgrade() -> None:
    op.create_table(
        "returns",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("order_id", sa.BigInteger(), sa.ForeignKey("orders.id", name="fk_returns_order_id"), nullable=False),
        sa.Column("reason", sa.Enum("damaged", "wrong", "unwanted", name="return_reason"), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("returns")
"""
)
