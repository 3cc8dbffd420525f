"""mend.migrations inside real revisions, run by real alembic: nothing waits forever, and any half-done state is finished by running again."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import projects
import psycopg
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from fix_runs import Desk, Look, until
from fix_shop import Broken
from mend import migrations
from mend.postgres.server import Server
from sqlalchemy import Column, ForeignKey, Integer, Text, UniqueConstraint

OLD_PYTHON = Path(os.environ.get("MEND_OLD_PYTHON", Path(__file__).parents[1] / ".venv-old" / "bin" / "python"))

ENV = """
from alembic import context
from sqlalchemy import create_engine, pool
url = context.config.get_main_option("sqlalchemy.url")
options = context.config.attributes
if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options["configure"])
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url, poolclass=pool.NullPool, **options["engine"]).connect() as connection:
        if options["first"]:
            connection.exec_driver_sql(options["first"])
        context.configure(connection=connection, target_metadata=options["metadata"], **options["configure"])
        with context.begin_transaction():
            context.run_migrations()
"""
SHOP = (
    "create table customers (id int primary key, email text)",
    "create table orders (id int primary key, customer_id int, note text, customer int)",
    "insert into customers select n, n || '@x.org' from generate_series(1, 100) as n",
    "insert into orders select n, 1 + n % 100, 'note ' || n, 1 from generate_series(1, 1000) as n",
)
QUICK = "first_pause_s=0.02, longest_pause_s=0.05"


@dataclass
class Tiny:
    """A project of one table and a half, whose revisions are written by the test."""

    folder: Path
    url: str
    revisions: int = 0

    def revision(self, *lines: str) -> str:
        """One more revision of these lines; its id."""
        self.revisions += 1
        name, down = f"r{self.revisions}", f"r{self.revisions - 1}" if self.revisions > 1 else None
        body = "from mend import migrations\n" + "\n".join(lines)
        (self.folder / "migrations" / "versions" / f"{name}.py").write_text(projects.revision(name, down, body))
        return name

    def config(self, **more: object) -> Config:
        config = Config(self.folder / "alembic.ini", output_buffer=StringIO())
        config.set_main_option("sqlalchemy.url", self.url.replace("%", "%%"))
        config.attributes.update({"configure": {}, "engine": {}, "first": "", "metadata": None, **more})
        return config

    def upgrade(self, **more: object) -> None:
        command.upgrade(self.config(**more), "head")

    def script(self, **more: object) -> str:
        config = self.config(**more)
        command.upgrade(config, "head", sql=True)
        return config.output_buffer.getvalue()

    @property
    def look(self) -> Look:
        return Look(self.url)

    def one(self, sql: str) -> object:
        ((value,),) = self.look.query(sql)
        return value


@pytest.fixture(scope="session")
def orders_template(keep_database: Callable[..., str]) -> str:
    Look(keep_database("orders_template")).execute(*SHOP)
    return "orders_template"


@pytest.fixture
def tiny(orders_template: str, new_database: Callable[..., str], tmp_path: Path) -> Tiny:
    projects.project(tmp_path, {}, env=ENV)
    (tmp_path / "alembic.ini").write_text(projects.INI + "path_separator = os\n")
    return Tiny(tmp_path, new_database(orders_template))


@pytest.fixture(params=[False, True], ids=["one transaction", "a transaction per migration"])
def run(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"configure": {"transaction_per_migration": request.param}}


ADD = (
    "for attempt in migrations.attempts({}):",
    "    with attempt:",
    "        op.add_column('orders', sa.Column('channel', sa.Text))",
)


def adding(arguments: str) -> tuple[str, ...]:
    return tuple(line.format(arguments) for line in ADD)


def settings_after(tiny: Tiny) -> None:
    """One more revision, which notes the settings that it finds."""
    tiny.revision(
        "op.execute(\"create table seen as select current_setting('lock_timeout') as lock, current_setting('statement_timeout') as statement\")"
    )


# --- attempts -----------------------------------------------------------------------------------------------------------


def test_an_operation_waits_its_time_names_who_is_in_the_way_and_tries_again(
    tiny: Tiny, run: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    tiny.revision(*adding(f"lock_timeout_ms=50, tries=500, {QUICK}"))
    settings_after(tiny)
    with caplog.at_level(logging.WARNING, "alembic.mend"), ThreadPoolExecutor(1) as beside:
        with tiny.look.holding("select count(*) from orders where note = 'secret 77'") as pid:
            upgrading = beside.submit(tiny.upgrade, **run)
            until(lambda: len(caplog.messages) >= 2 or upgrading.done(), what="two tries")
            assert not upgrading.done()
        upgrading.result(30)
    assert f"pid {pid} (" in caplog.messages[0]
    assert "in-the-way, idle in transaction" in caplog.messages[0]
    assert "holds AccessShareLock on public.orders: select count(*) from orders where note =" in caplog.messages[0]
    assert "secret" not in caplog.text
    assert tiny.look.query("select * from seen") == [("0", "0")]
    assert tiny.look.version() == ["r2"]


def test_between_tries_nothing_of_the_table_stays_locked(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    tiny.revision(*adding("lock_timeout_ms=20, tries=3, first_pause_s=0.01, longest_pause_s=0.01"))
    with tiny.look.holding("select from orders"), pytest.raises(migrations.LockNotAcquired) as stopped:
        tiny.upgrade()
    assert "Try 3 of 3" in str(stopped.value)
    assert "None of this operation is done" in str(stopped.value)
    assert len([m for m in caplog.messages if "Trying again" in m]) == 2
    assert tiny.one("select count(*) from pg_class where relname = 'alembic_version'") == 0
    tiny.upgrade()


def test_it_is_not_tried_again_while_another_table_stays_locked(tiny: Tiny) -> None:
    body = (
        "op.add_column('customers', sa.Column('name', sa.Text))",
        "op.create_table('fresh', sa.Column('id', sa.Integer))",
    )
    tiny.revision(*body, *adding("lock_timeout_ms=20"))
    with tiny.look.holding("select from orders"), pytest.raises(migrations.LockNotAcquired) as stopped:
        tiny.upgrade()
    assert "Try 1 of 10" in str(stopped.value)
    assert "keeps public.customers (AccessExclusiveLock) locked" in str(stopped.value)
    assert "fresh" not in str(stopped.value)


def test_alone_it_commits_what_stands_before_and_is_tried_again(tiny: Tiny, run: dict[str, object]) -> None:
    tiny.revision(
        "op.add_column('customers', sa.Column('name', sa.Text))", *adding(f"lock_timeout_ms=50, tries=500, {QUICK}, alone=True"),
    )  # fmt: skip
    with ThreadPoolExecutor(1) as beside:
        with tiny.look.holding("select from orders"):
            upgrading = beside.submit(tiny.upgrade, **run)
            until(lambda: ("column", "public.customers.name") in tiny.look.catalog(), what="the first column")
            assert not upgrading.done()
        upgrading.result(30)
    assert ("column", "public.orders.channel") in tiny.look.catalog()


def test_other_errors_pass_and_a_forgotten_with_is_an_error(tiny: Tiny) -> None:
    tiny.revision("for attempt in migrations.attempts():", "    with attempt:", "        op.execute('select 1 / 0')")
    with pytest.raises(Exception, match="division by zero"):
        tiny.upgrade()
    tiny.revisions = 0
    tiny.revision("for attempt in migrations.attempts():", "    op.execute('create table once ()')")
    with pytest.raises(migrations.NotPossible, match="with attempt:"):
        tiny.upgrade()


def test_where_alembic_commits_nothing_or_each_statement_it_says_so(tiny: Tiny) -> None:
    tiny.revision("migrations.not_null('orders', 'note')")
    with pytest.raises(migrations.NotPossible, match="commits nothing"):
        tiny.upgrade(first="select 1")
    with pytest.raises(migrations.NotPossible, match="AUTOCOMMIT"):
        tiny.upgrade(engine={"isolation_level": "AUTOCOMMIT"})
    assert (
        tiny.one("select attnotnull from pg_attribute where attrelid = 'orders'::regclass and attname = 'note'")
        is False
    )


@pytest.mark.parametrize(
    ("setup", "line", "says"),
    [
        ("begin; lock table customers; prepare transaction 'left'", "op.drop_constraint('fk', 'orders')", "prepared transaction 'left'"),
        ("lock table part_1 in access share mode", "op.add_column('parts', sa.Column('n', sa.Integer))", "AccessShareLock on public.part_1"),
    ],
    ids=["a prepared transaction on the referenced table", "a reader of one partition"],
)  # fmt: skip
def test_who_is_in_the_way_is_found_on_tables_that_the_statement_does_not_name(
    tiny: Tiny, server: Server, setup: str, line: str, says: str
) -> None:
    tiny.look.execute(
        ADDED,
        "create table parts (id int) partition by list (id)",
        "create table part_1 partition of parts for values in (1)",
    )
    tiny.revision(
        "for attempt in migrations.attempts(lock_timeout_ms=20, tries=1):", "    with attempt:", f"        {line}"
    )
    prepared = setup.startswith("begin")
    with tiny.look.connect(autocommit=prepared) as conn:
        for statement in setup.split("; "):
            conn.execute(statement.encode())
        with pytest.raises(migrations.LockNotAcquired) as stopped:
            tiny.upgrade()
        if prepared:
            conn.execute("rollback prepared 'left'")
    assert says in str(stopped.value)


def test_in_a_pause_alone_the_session_is_idle_in_no_transaction(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[object] = []
    own = "select count(*) filter (where state <> 'idle') from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and application_name <> 'in-the-way'"
    monkeypatch.setattr(migrations.time, "sleep", lambda seconds: states.append(tiny.one(own)))
    tiny.revision(*adding("lock_timeout_ms=20, tries=2, alone=True"))
    with tiny.look.holding("select from orders"), pytest.raises(migrations.LockNotAcquired):
        tiny.upgrade()
    assert states == [0]


# --- indexes ------------------------------------------------------------------------------------------------------------

INDEX = "migrations.concurrent_index('ix', 'orders', ['customer_id'], postgresql_where=sa.text('customer_id > 0'))"
BUILT = "CREATE INDEX ix ON public.orders USING btree (customer_id) WHERE (customer_id > 0)"
UNIQUE = "migrations.unique_constraint('uq', 'orders', ['note', 'id'])"


def made_invalid(name: str) -> str:
    return f"update pg_index set indisvalid = false where indexrelid = '{name}'::regclass"


@pytest.mark.parametrize(
    "before",
    [(), (BUILT,), (BUILT, made_invalid("ix")), ("create index ix on orders (note)", made_invalid("ix"))],
    ids=["nothing", "built", "interrupted", "interrupted, of other columns"],
)
def test_a_concurrent_index_is_valid_at_the_end_whatever_was_there(
    tiny: Tiny, run: dict[str, object], before: tuple[str, ...]
) -> None:
    tiny.look.execute(*before)
    tiny.revision(INDEX)
    settings_after(tiny)
    kept = tiny.one("select coalesce(to_regclass('ix')::oid, 0)")
    tiny.upgrade(**run)
    assert tiny.look.catalog()["index", "public.ix"] == BUILT
    assert (tiny.one("select 'ix'::regclass::oid") == kept) == (before == (BUILT,))
    assert tiny.look.query("select * from seen") == [("0", "0")]


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("create index ix on orders (customer_id)", "exists and is another one"),
        ("create unique index ix on orders (customer_id, id) where customer_id > 0", "exists and is another one"),
        ("create index ix on customers (email)", "is taken by CREATE INDEX ix ON public.customers"),
        ("create table ix ()", "something that is no index"),
    ],
)
def test_what_else_has_the_name_is_left_alone(tiny: Tiny, before: str, says: str) -> None:
    tiny.look.execute(before)
    there = tiny.look.catalog()
    tiny.revision(INDEX)
    with pytest.raises(migrations.DifferentObject, match=says):
        tiny.upgrade()
    assert tiny.look.catalog() == there


def test_an_invalid_index_of_another_table_or_one_that_is_built_now_is_left_alone(tiny: Tiny) -> None:
    tiny.revision(INDEX)
    tiny.look.execute("create index ix on customers (email)", made_invalid("ix"))
    with pytest.raises(migrations.DifferentObject, match="is taken by"):
        tiny.upgrade()
    tiny.look.execute("drop index ix", BUILT, made_invalid("ix"))
    with (
        tiny.look.holding("lock orders in share update exclusive mode") as pid,
        pytest.raises(migrations.NotPossible, match=f"pid {pid} holds SHARE UPDATE EXCLUSIVE"),
    ):
        tiny.upgrade()
    assert tiny.one("select indisvalid from pg_index where indexrelid = 'ix'::regclass") is False


def test_a_build_that_meets_duplicates_fails_and_after_the_repair_goes_through(tiny: Tiny) -> None:
    tiny.look.execute("update orders set note = 'same' where id < 3")
    tiny.revision("migrations.unique_constraint('uq', 'orders', ['note'])")
    with pytest.raises(Exception, match="could not create unique index"):
        tiny.upgrade()
    assert tiny.one("select indisvalid from pg_index where indexrelid = 'uq'::regclass") is False
    tiny.look.execute("update orders set note = 'mine' where id = 1")
    tiny.upgrade()
    assert tiny.look.catalog()["constraint", "public.orders.uq"] == "UNIQUE (note)"


@pytest.mark.parametrize(
    "before",
    [(), ("create unique index uq on orders (note, id)",), ("alter table orders add constraint uq unique (note, id)",)],
    ids=["nothing", "index", "constraint"],
)
def test_a_unique_constraint_is_finished_from_any_state(
    tiny: Tiny, run: dict[str, object], before: tuple[str, ...]
) -> None:
    tiny.look.execute(*before)
    tiny.revision(UNIQUE)
    tiny.upgrade(**run)
    assert tiny.look.catalog()["constraint", "public.orders.uq"] == "UNIQUE (note, id)"


def test_a_unique_constraint_of_another_kind_is_an_error(tiny: Tiny) -> None:
    tiny.look.execute("alter table orders add constraint uq unique (note, id) deferrable")
    tiny.revision(UNIQUE)
    with pytest.raises(migrations.DifferentObject, match="is another one"):
        tiny.upgrade()


def test_a_partitioned_table_says_how_else(tiny: Tiny) -> None:
    tiny.look.execute("create table parts (id int, customer_id int) partition by range (id)")
    tiny.revision(INDEX.replace("'orders'", "'parts'"))
    with pytest.raises(migrations.NotPossible, match="ATTACH PARTITION"):
        tiny.upgrade()


def test_the_index_is_dropped_on_the_way_back(tiny: Tiny) -> None:
    tiny.look.execute(BUILT)
    tiny.revision(
        "migrations.drop_concurrent_index('ix', 'orders')", "migrations.drop_concurrent_index('ix', 'orders')"
    )
    tiny.upgrade()
    assert ("index", "public.ix") not in tiny.look.catalog()


# --- constraints --------------------------------------------------------------------------------------------------------

NOT_NULL = "migrations.not_null('orders', 'note')"
CHECK = "alter table orders add constraint orders_note_not_null_check check (note is not null)"
FOREIGN_KEY = "migrations.foreign_key('fk', 'orders', 'customers', ['customer_id'], ['id'], ondelete='CASCADE')"
ADDED = "alter table orders add constraint fk foreign key (customer_id) references customers (id) on delete cascade"
NAMED = "alter table orders add not null note not valid"  # PostgreSQL 18


@pytest.mark.parametrize(
    "before",
    [
        (),
        (f"{CHECK} not valid",),
        (CHECK,),
        (CHECK, "alter table orders alter note set not null"),
        ("alter table orders alter note set not null",),
        (NAMED,),
    ],
    ids=["nothing", "check", "validated", "set", "done", "not valid"],
)
def test_not_null_is_finished_from_any_state(
    tiny: Tiny, server: Server, run: dict[str, object], before: tuple[str, ...]
) -> None:
    if before == (NAMED,) and server.binaries.major < 18:
        pytest.skip("PostgreSQL 18 has NOT NULL NOT VALID")
    tiny.look.execute(*before)
    tiny.revision(NOT_NULL)
    settings_after(tiny)
    tiny.upgrade(**run)
    found = tiny.look.catalog()
    assert found["not_null", "public.orders.note"] == "not null"
    assert ("constraint", "public.orders.orders_note_not_null_check") not in found
    assert tiny.look.query("select * from seen") == [("0", "0")]
    with pytest.raises(psycopg.errors.NotNullViolation):
        tiny.look.execute("insert into orders values (0, 1, null)")


def test_nulls_stop_it_before_anything_is_changed(tiny: Tiny) -> None:
    tiny.look.execute("update orders set note = null where id < 4")
    there = tiny.look.catalog()
    tiny.revision(NOT_NULL)
    with pytest.raises(
        migrations.RowsLeft, match=r"3 rows of orders hold NULL in note \(select \* from orders where note IS NULL\)"
    ):
        tiny.upgrade()
    assert tiny.look.catalog() == there
    tiny.look.execute(f"{CHECK} not valid")
    with pytest.raises(migrations.RowsLeft, match="DROP CONSTRAINT orders_note_not_null_check takes it away"):
        tiny.upgrade()


def test_a_constraint_of_the_checks_name_that_says_something_else_is_left_alone(tiny: Tiny) -> None:
    tiny.look.execute("alter table orders add constraint orders_note_not_null_check check (note <> '')")
    tiny.revision(NOT_NULL)
    with pytest.raises(migrations.DifferentObject, match="another check_name"):
        tiny.upgrade()


def test_rows_are_read_while_others_write(tiny: Tiny) -> None:
    """VALIDATE waits for nobody who writes: a writer sits in its transaction from the first short lock to the end."""
    tiny.look.execute(f"{CHECK} not valid", f"{ADDED} not valid")
    tiny.revision(FOREIGN_KEY)
    with tiny.look.holding("update orders set note = note where id = 1"):
        tiny.upgrade()
    assert "NOT VALID" not in tiny.look.catalog()["constraint", "public.orders.fk"]


@pytest.mark.parametrize("before", [(), (f"{ADDED} not valid",), (ADDED,)], ids=["nothing", "not valid", "done"])
def test_a_foreign_key_is_finished_from_any_state(tiny: Tiny, run: dict[str, object], before: tuple[str, ...]) -> None:
    tiny.look.execute(*before)
    tiny.revision(FOREIGN_KEY)
    tiny.upgrade(**run)
    assert (
        tiny.look.catalog()["constraint", "public.orders.fk"]
        == "FOREIGN KEY (customer_id) REFERENCES public.customers(id) ON DELETE CASCADE"
    )


@pytest.mark.parametrize(
    "other",
    [ADDED.replace(" on delete cascade", ""), ADDED.replace("(customer_id)", "(customer)"), ADDED + " deferrable"],
)
def test_another_foreign_key_of_the_name_is_left_alone(tiny: Tiny, other: str) -> None:
    tiny.look.execute(other)
    tiny.revision(FOREIGN_KEY)
    with pytest.raises(migrations.DifferentObject, match="exists and is another one"):
        tiny.upgrade()


def test_orphans_leave_it_not_valid_and_the_next_run_finishes(tiny: Tiny) -> None:
    tiny.look.execute("update orders set customer_id = 1000 where id = 1")
    tiny.revision(FOREIGN_KEY)
    with pytest.raises(migrations.RowsLeft, match="stays NOT VALID"):
        tiny.upgrade()
    assert "NOT VALID" in tiny.look.catalog()["constraint", "public.orders.fk"]
    tiny.look.execute("update orders set customer_id = 1 where id = 1")
    tiny.upgrade()
    assert tiny.look.version() == ["r1"]


# --- rows ---------------------------------------------------------------------------------------------------------------


def test_a_backfill_that_is_not_finished_stops_the_revision(tiny: Tiny) -> None:
    tiny.revision(
        "migrations.backfilled('orders', \"note like 'note 1%' or note = ':x' or 1::int = 2\")",
        "op.create_table('later')",
    )
    with pytest.raises(
        migrations.RowsLeft, match=r"112 rows of orders are not filled yet \(select \* from orders where note like"
    ):
        tiny.upgrade()
    tiny.look.execute("update orders set note = 'x'")
    tiny.upgrade()
    tiny.revision("migrations.backfilled('orders', \"note = 'x'\", at_most=10)")
    with pytest.raises(migrations.RowsLeft, match="at least 10 rows"):
        tiny.upgrade()


# --- scripts ------------------------------------------------------------------------------------------------------------

ALL = (
    *adding(""),
    "migrations.backfilled('orders', \"note is null or note like '%:x'\")",
    INDEX, UNIQUE, NOT_NULL, FOREIGN_KEY,
    "migrations.drop_concurrent_index('ix', 'orders')",
)  # fmt: skip


def ran(tiny: Tiny, script: str) -> None:
    """Send a script as psql does, statement by statement, on one session."""
    with tiny.look.connect() as conn:
        for statement in script.split(";\n"):
            bare = "\n".join(line for line in statement.splitlines() if not line.startswith("--")).strip()
            if bare:
                conn.execute(bare.encode())
        assert conn.execute(
            "select current_setting('lock_timeout'), current_setting('statement_timeout')"
        ).fetchone() == ("0", "0")


def test_a_script_does_the_same(
    tiny: Tiny, run: dict[str, object], new_database: Callable[..., str], orders_template: str
) -> None:
    tiny.revision(*ALL)
    ran(tiny, tiny.script(**run))
    other = Tiny(tiny.folder, new_database(orders_template))
    other.upgrade(**run)
    assert other.look.catalog() == tiny.look.catalog()
    other.upgrade()


@pytest.mark.parametrize(
    ("line", "before", "says"),
    [
        (INDEX, (BUILT, made_invalid("ix")), "DROP INDEX CONCURRENTLY"),
        (NOT_NULL, ("update orders set note = null where id = 1",), "are not filled yet"),
    ],
)
def test_a_script_that_meets_something_half_done_stops(
    tiny: Tiny, line: str, before: tuple[str, ...], says: str
) -> None:
    tiny.look.execute(*before)
    tiny.revision(line)
    with pytest.raises(psycopg.errors.RaiseException, match=says):
        ran(tiny, tiny.script())


# --- around it ----------------------------------------------------------------------------------------------------------


def test_autogenerate_finds_no_difference_afterwards(tiny: Tiny) -> None:
    tiny.revision(INDEX, UNIQUE, NOT_NULL, FOREIGN_KEY)
    tiny.upgrade()
    metadata = sqlalchemy.MetaData()
    sqlalchemy.Table(
        "customers", metadata, Column("id", Integer, primary_key=True, autoincrement=False), Column("email", Text)
    )
    orders = sqlalchemy.Table(
        "orders", metadata, Column("id", Integer, primary_key=True, autoincrement=False), Column("customer", Integer),
        Column("customer_id", Integer, ForeignKey("customers.id", name="fk", ondelete="CASCADE")), Column("note", Text, nullable=False),
        UniqueConstraint("note", "id", name="uq"),
    )  # fmt: skip
    sqlalchemy.Index("ix", orders.c.customer_id, postgresql_where=sqlalchemy.text("customer_id > 0"))
    command.check(tiny.config(metadata=metadata))


def test_a_copy_of_the_file_works_with_the_old_stack(tiny: Tiny) -> None:
    """Alembic 1.10, SQLAlchemy 1.4 and psycopg2, where mend is not installed."""
    assert OLD_PYTHON.exists(), f"{OLD_PYTHON} is missing: `make setup` builds it from requirements-old.lock"
    shutil.copy(migrations.__file__, tiny.folder / "own_migrations.py")
    tiny.revision(*adding(""), INDEX, UNIQUE, NOT_NULL, FOREIGN_KEY, INDEX, UNIQUE, NOT_NULL, FOREIGN_KEY)
    revision = tiny.folder / "migrations" / "versions" / "r1.py"
    revision.write_text(revision.read_text().replace("from mend import", "import own_migrations as"))
    url = tiny.url.replace("+psycopg:", "+psycopg2:").replace("%", "%%")
    (tiny.folder / "alembic.ini").write_text(f"{projects.INI}sqlalchemy.url = {url}\n")
    defaults = "{'configure': {}, 'engine': {}, 'first': '', 'metadata': None, **context.config.attributes}"
    env = tiny.folder / "migrations" / "env.py"
    env.write_text(ENV.replace("context.config.attributes", defaults))
    done = subprocess.run(
        [OLD_PYTHON, "-m", "alembic", "upgrade", "head"], cwd=tiny.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tiny.look.catalog()["constraint", "public.orders.uq"] == "UNIQUE (note, id)"
    assert "NOT VALID" not in tiny.look.catalog()["constraint", "public.orders.fk"]


def test_importing_it_imports_nothing_else_of_mend() -> None:
    program = "import sys, mend.migrations; print(sorted(n for n in sys.modules if n.split('.')[0] in ('mend', 'psycopg', 'pandas')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['mend', 'mend.migrations']"


LINES = (
    "from mend import migrations",
    "migrations.not_null('orders', 'note')",
    "migrations.concurrent_index('ix_carrier', 'shipments', ['carrier'])",
    "migrations.foreign_key('fk_reviews_orders', 'reviews', 'orders', ['id'], ['id'])",
)


def test_mend_reads_the_operations_of_a_revision_that_stopped_half_way(desk: Desk, healthy: Broken) -> None:
    body = "\n".join(LINES)
    healthy.project.add_revision("helped", projects.revision("helped", "b04e7c6f21d9", body))
    Look(healthy.url).execute(
        "update orders set note = '' where note is null", "delete from reviews where id not in (select id from orders)",
        "alter table orders alter note set not null", "create index ix_carrier on shipments (carrier)", made_invalid("ix_carrier"),
    )  # fmt: skip
    plan = desk.plan(healthy)
    assert [state for state in plan.states.values() if state != "DONE"] == ["DIFFERENT", "NOT_DONE", "NOT_DONE"]
    operations = [row["operation"] for row in plan.document["operations"]]
    assert operations[-3:-1] == [
        "create_index ix_carrier on shipments",
        "create_foreign_key fk_reviews_orders on reviews",
    ]
    assert "VALIDATE CONSTRAINT fk_reviews_orders" in operations[-1]
    assert plan.check("retry")["says"] == "Yes: mend.migrations goes on from what is in the database."
    assert plan.options["retry"] == plan.options["resume"] == ""
    applied = desk.apply(plan)
    assert applied.code == 0, applied.err
    assert Look(healthy.url).version() == ["helped"]
    assert healthy.alembic("upgrade", "head").exit_code == 0
