"""An application and a database of different versions, proven by the application itself: a small SQLAlchemy program, old and new.

Each program registers a customer and reads one, in a transaction that it rolls back; with ``keep`` it commits.
"""

from __future__ import annotations

from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD, Attempt

OLD, NEW = "app_before", "app_after"
_OURS = {"metadata": f"{NEW}:Base", "old_metadata": f"{OLD}:Base"}
_OLD_COLUMNS = {"full_name": "Mapped[str] = mapped_column(String(120))"}


def behind(bench: Bench) -> dict[str, str]:
    """The new application was deployed before its revision ran: it expects a column that is not there."""
    bench.project.add_revision("7c20d95e1ab8_mobile_numbers", MOBILE)
    old, new = _deployed(bench, {**_OLD_COLUMNS, "mobile": "Mapped[Optional[str]] = mapped_column(String(32))"})
    _expect_failure(bench, new, "UndefinedColumn", "mobile")
    bench.expect("exit code of the old application", old.exit_code, 0)
    bench.expect("version row", bench.version(), HEAD)
    return dict(_OURS)


def ahead(bench: Bench) -> dict[str, str]:
    """The revision ran while the old application is still at work: its INSERT does not know a NOT NULL column."""
    bench.project.add_revision("a91f3b6d20c4_customers_have_a_language", LANGUAGE)
    ran = bench.project.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", ran.exit_code, 0)
    old, new = _deployed(bench, {**_OLD_COLUMNS, "language": 'Mapped[str] = mapped_column(String(8), default="en")'})
    _expect_failure(bench, old, "NotNullViolation", '"language" of relation "customers"')
    bench.expect("exit code of the new application", new.exit_code, 0)
    return dict(_OURS)


def renamed(bench: Bench) -> dict[str, str]:
    """A column was renamed under the old application, which still reads and writes the old name."""
    bench.project.add_revision("e58b07d4c91f_customers_have_a_name", RENAMED)
    ran = bench.project.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", ran.exit_code, 0)
    old, new = _deployed(bench, {"name": "Mapped[str] = mapped_column(String(120))"})
    _expect_failure(bench, old, "UndefinedColumn", "full_name")
    bench.expect("exit code of the new application", new.exit_code, 0)
    return dict(_OURS)


def phases(bench: Bench) -> dict[str, str]:
    """The next revision would break the application that is running: it renames a column, and adds one that is NOT NULL."""
    bench.project.add_revision("e58b07d4c91f_customers_have_a_name", RENAMED + _AND_LANGUAGE)
    columns = {
        "name": "Mapped[str] = mapped_column(String(120))",
        "language": 'Mapped[str] = mapped_column(String(8), default="en")',
    }
    old, new = _deployed(bench, columns)
    _expect_failure(bench, new, "UndefinedColumn", "name")
    bench.expect("exit code of the old application", old.exit_code, 0)
    return {**_OURS, "fill": "public.customers.language='en'"}


def _deployed(bench: Bench, columns: dict[str, str]) -> tuple[Attempt, Attempt]:
    """Write both programs, run each once."""
    for module, own in ((OLD, _OLD_COLUMNS), (NEW, columns)):
        declared = "\n".join(f"    {name}: {text}" for name, text in own.items())
        name = next(iter(own))
        text = APPLICATION.replace("{columns}", declared).replace("{name}", name)
        (bench.project.directory / f"{module}.py").write_text(text)
    env = bench.project.env_py
    known = f"from {NEW} import Base\n\ntarget_metadata = Base.metadata"
    env.write_text(env.read_text().replace("target_metadata = None", known))
    return bench.python(f"{OLD}.py"), bench.python(f"{NEW}.py")


def _expect_failure(bench: Bench, attempt: Attempt, *words: str) -> None:
    bench.expect(f"exit code of `{attempt.command}`", attempt.exit_code, 1)
    bench.expect_words(attempt, *words)


SCENARIOS: dict[str, Scenario] = {"behind": behind, "ahead": ahead, "renamed": renamed, "phases": phases}

APPLICATION = '''"""The shop's application: what every request does. `python <file>` tries it and keeps nothing; `keep` commits."""

import configparser
import os
import sys
import uuid
from datetime import datetime
from typing import Optional

from sqlalchemy import DateTime, ForeignKey, Numeric, String, Text, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(255))
{columns}
    phone: Mapped[Optional[str]] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    total: Mapped[float] = mapped_column(Numeric(12, 2), server_default="0")
    note: Mapped[Optional[str]] = mapped_column(Text)


def request(session: Session) -> None:
    """Register, rename, order, read."""
    customer = Customer(email=f"{uuid.uuid4().hex}@example.org", {name}="Ann Probe")
    session.add(customer)
    session.flush()
    customer.{name} = "Ann Probe the Second"
    session.add(Order(customer_id=customer.id))
    session.flush()
    session.expire_all()
    found = session.scalars(select(Customer).where(Customer.id == customer.id)).one()
    assert found.{name} == "Ann Probe the Second", found.{name}
    session.scalars(select(Customer).order_by(Customer.id).limit(5)).all()


def main() -> None:
    settings = configparser.RawConfigParser()
    settings.read(os.path.join(os.path.dirname(os.path.abspath(__file__)), "alembic.ini"))
    url = os.environ.get("SHOP_DATABASE_URL") or settings.get("alembic", "sqlalchemy.url").replace("%%", "%")
    engine = create_engine(url, poolclass=NullPool, connect_args={"application_name": os.path.basename(__file__)[:-3]})
    with Session(engine) as session:
        request(session)
        if "keep" in sys.argv[1:]:
            session.commit()


if __name__ == "__main__":
    main()
'''

_HEADER = '''"""{doc}

Revision ID: {revision}
Revises: {down}
Create Date: 2026-06-{day} 09:12:44.{fraction}

"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None

'''

MOBILE = (
    _HEADER.format(doc="Mobile numbers", revision="7c20d95e1ab8", down=HEAD, day="02", fraction="551208")
    + """
def upgrade() -> None:
    op.add_column("customers", sa.Column("mobile", sa.String(32), nullable=True))


def downgrade() -> None:
    op.drop_column("customers", "mobile")
"""
)
LANGUAGE = (
    _HEADER.format(doc="Customers have a language", revision="a91f3b6d20c4", down=HEAD, day="09", fraction="204417")
    + """
def upgrade() -> None:
    op.add_column("customers", sa.Column("language", sa.String(8), server_default="en", nullable=False))
    op.alter_column("customers", "language", existing_type=sa.String(8), server_default=None)


def downgrade() -> None:
    op.drop_column("customers", "language")
"""
)
RENAMED = (
    _HEADER.format(doc="Customers have a name", revision="e58b07d4c91f", down=HEAD, day="16", fraction="913360")
    + """
def downgrade() -> None:
    op.alter_column("customers", "name", new_column_name="full_name")


def upgrade() -> None:
    op.alter_column("customers", "full_name", new_column_name="name")
"""
)
_AND_LANGUAGE = """    op.add_column("customers", sa.Column("language", sa.String(8), nullable=True))
    op.execute("update customers set language = 'en' where language is null")
    op.alter_column("customers", "language", existing_type=sa.String(8), nullable=False)
"""
