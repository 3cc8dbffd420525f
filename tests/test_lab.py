from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from fix_shop import ROWS, Broken
from mend import lab
from mend.errors import InvalidParameter, LabFailed
from mend.lab.bench import Bench
from mend.lab.shop import HEAD, Project, digest, plain, seed
from mend.postgres.server import Server, find_binaries

TESTS = Path(__file__).parent


def rows(url: str, sql: LiteralString, *binds: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        return connection.execute(sql, binds).fetchall()


def version(url: str) -> list[str]:
    return [row[0] for row in rows(url, "select version_num from alembic_version")]


def index(url: str, name: str) -> list[tuple[Any, ...]]:
    return rows(url, "select indisvalid, indisready from pg_index where indexrelid = to_regclass(%s)", name)


def has_column(url: str, table: str, column: str) -> bool:
    return bool(
        rows(
            url, "select from pg_attribute where attrelid = %s::regclass and attname = %s and attnum > 0", table, column
        )
    )


@pytest.fixture
def own_lab(session_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lab that no other test shares."""
    monkeypatch.setenv("MEND_HOME", str(tmp_path / "a home"))
    yield tmp_path / "a home" / "lab"
    lab.reset()


# -- the scenarios -------------------------------------------------------------------------------------------------------


def test_interrupted_index_leaves_an_invalid_index_between_done_and_missing_operations(
    incident: Callable[..., Broken],
) -> None:
    broken = incident("interrupted_index")
    assert version(broken.url) == [HEAD]
    assert has_column(broken.url, "shipments", "delivery_slot")
    check = rows(broken.url, "select convalidated from pg_constraint where conname = 'ck_shipments_delivery_slot'")
    assert check == [(True,)]
    assert rows(broken.url, "select count(*) > 0 from shipments where delivery_slot = 'morning'") == [(True,)]
    assert index(broken.url, "ix_orders_status_placed_at") == [(False, False)]
    assert index(broken.url, "ix_shipments_delivery_slot") == []
    comment: LiteralString = "select from pg_description where description = 'Chosen by the customer at checkout'"
    assert rows(broken.url, comment) == []
    said = broken.error_file.read_text()
    assert said.count("\n$ ") + said.startswith("$ ") == 2
    assert "canceling statement due to lock timeout" in said
    assert said.index("LockNotAvailable") < said.index("DuplicateColumn")
    assert "$ PGOPTIONS='-c lock_timeout=1s' alembic -c " in said
    assert broken.parameters["revision"] == "4d7f20c91be6"


def test_duplicate_keys_leaves_an_invalid_unique_index_over_real_duplicates(incident: Callable[..., Broken]) -> None:
    broken = incident("duplicate_keys")
    assert version(broken.url) == [HEAD]
    assert index(broken.url, "uq_customers_email") == [(False, False)]
    assert rows(broken.url, "select email from customers group by email having count(*) > 1") != []
    assert has_column(broken.url, "customers", "email_verified_at")
    assert rows(broken.url, "select to_regclass('email_changes')") == [(None,)]
    said = broken.error_file.read_text()
    assert said.index('could not create unique index "uq_customers_email"') < said.index("DuplicateColumn")
    assert broken.parameters["revision"] == "82a5c3e60d17"


def test_lost_stamp_exits_0_and_leaves_the_version_row_behind(incident: Callable[..., Broken]) -> None:
    broken = incident("lost_stamp")
    assert version(broken.url) == [HEAD]
    assert rows(broken.url, "select count(*) from order_items where weight_g is null") == [(0,)]
    assert index(broken.url, "ix_order_items_heavy") == []
    said = broken.error_file.read_text()
    assert said.index("[exit 0]") < said.index("DuplicateColumn") < said.index("[exit 1]")
    assert broken.parameters["revision"] == "c90b6e2f1d43"


def test_env_order_exits_0_and_leaves_nothing(incident: Callable[..., Broken]) -> None:
    broken = incident("env_order")
    assert version(broken.url) == [HEAD]
    assert not has_column(broken.url, "customers", "points")
    assert rows(broken.url, "select to_regclass('point_bookings')") == [(None,)]
    said = broken.error_file.read_text()
    assert said.count(f"Running upgrade {HEAD} -> 17e8d4b5a60c") == 2
    assert said.count("[exit 0]") == 3
    assert "[exit 1]" not in said


@pytest.mark.parametrize("scenario", ["interrupted_index", "duplicate_keys", "lost_stamp"])
def test_a_plain_retry_of_a_half_applied_revision_fails_again(incident: Callable[..., Broken], scenario: str) -> None:
    attempt = incident(scenario).alembic("upgrade", "head")
    assert attempt.exit_code == 1
    assert "already exists" in attempt.output


@pytest.mark.parametrize("scenario", lab.scenarios()["failed_migration"])
def test_a_broken_project_names_its_own_database_only(incident: Callable[..., Broken], scenario: str) -> None:
    broken = incident(scenario)
    assert f"sqlalchemy.url = {broken.url.replace('%', '%%')}\n" in broken.alembic_ini.read_text()
    assert f"-c {broken.alembic_ini}" in broken.error_file.read_text()
    assert os.environ[broken.parameters["target"].removeprefix("env:")] == broken.url


def test_an_incident_that_did_not_happen_is_an_error(shop: Project, tmp_path: Path) -> None:
    bench = Bench(shop, tmp_path / "error.txt", lambda line: None)
    with pytest.raises(LabFailed, match=r"exit code should be 1 and is 0.*mend lab reset"):
        bench.expect("exit code", bench.alembic("upgrade", "head").exit_code, 1)
    assert "[exit 0]" in (tmp_path / "error.txt").read_text()


# -- the shop ------------------------------------------------------------------------------------------------------------


def test_the_shop_has_the_shapes_that_real_schemas_have(shop: Project) -> None:
    sql: LiteralString = "select relkind::text, count(*) from pg_class where relnamespace = 'public'::regnamespace"
    kinds = dict(rows(shop.url, sql + " group by relkind"))
    assert kinds["r"] == 15
    assert kinds["v"] == 2
    assert kinds["m"] == 1
    assert version(shop.url) == [HEAD]
    for question in (
        "select from pg_enum",
        "select from pg_constraint where contypid = 'quantity'::regtype and contype = 'c'",
        "select from pg_constraint where contype = 'f' and conrelid = confrelid",
        "select from pg_constraint where contype = 'f' and cardinality(conkey) > 1",
        "select from pg_index where indpred is not null",
        "select from pg_index where indexprs is not null",
        "select from pg_index where indnatts > 1 and indrelid::regclass::text = 'orders'",
        "select from pg_trigger where not tgisinternal",
        "select from pg_description where objoid = 'customers'::regclass",
        "select from pg_attribute where attidentity <> ''",
        "select from pg_attribute where attgenerated <> '' and attrelid = 'products'::regclass",
        "select from pg_statistic_ext",
        "select from pg_attrdef where pg_get_expr(adbin, adrelid) like 'nextval%%'",
    ):
        assert rows(shop.url, question), question
    assert rows(shop.url, "select from pg_index where not indisvalid") == []


def test_the_seed_is_in_proportion_and_every_reference_is_met(shop: Project) -> None:
    assert rows(shop.url, "select count(*) from orders") == [(ROWS,)]
    assert rows(shop.url, "select count(*) from order_items") == [(ROWS * 3 // 2,)]
    assert rows(shop.url, "select count(*) from customers") == [(ROWS // 5,)]
    assert rows(shop.url, "select count(*) from payments")[0][0] > ROWS / 2
    assert rows(shop.url, "select count(*) from shipments")[0][0] > ROWS / 4
    assert rows(shop.url, "select count(*) > 0 from daily_sales") == [(True,)]
    with psycopg.connect(plain(shop.url)) as connection:
        # The seed runs with the checks of foreign keys off: forget that they are valid, and have them checked.
        keys = connection.execute(
            "update pg_constraint set convalidated = false where contype = 'f' "
            "returning conrelid::regclass::text, quote_ident(conname)"
        ).fetchall()
        assert len(keys) > 12
        for table, name in keys:
            connection.execute(f"alter table {table} validate constraint {name}".encode())
        connection.rollback()


def test_a_sequence_stands_behind_no_row(shop: Project) -> None:
    with psycopg.connect(plain(shop.url)) as connection:
        connection.execute("insert into orders (customer_id) values (1)")
        connection.execute("insert into customers (email, full_name) values ('new@example.com', 'New')")
        connection.execute("update orders set status = 'paid' where id = 1")
        logged = connection.execute(
            "select count(*) from audit_log where row_id = 1 and table_name = 'orders'"
        ).fetchone()
        assert logged == (1,)


def test_the_shop_goes_down_to_base_and_up_again(shop: Project) -> None:
    down = shop.alembic("downgrade", "base")
    assert down.exit_code == 0, down.output
    assert rows(
        shop.url, "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    ) == [("alembic_version",)]
    up = shop.alembic("upgrade", "head")
    assert up.exit_code == 0, up.output
    seed(shop.url, 300)
    assert rows(shop.url, "select count(*) from orders") == [(300,)]


def test_env_py_takes_another_address_from_the_environment(shop: Project, database: str) -> None:
    attempt = shop.alembic("upgrade", "3f1c7a9be204", environ={"SHOP_DATABASE_URL": database})
    assert attempt.exit_code == 0, attempt.output
    assert version(database) == ["3f1c7a9be204"]
    assert version(shop.url) == [HEAD]


# -- the lab -------------------------------------------------------------------------------------------------------------


def test_start_breaks_a_shop_and_says_what_to_do_next(own_lab: Path) -> None:
    said: list[str] = []
    incident = lab.start("failed_migration", scenario="lost_stamp", rows=ROWS, progress=said.append)
    assert incident == lab.current()
    assert incident.next == f"mend triage -t lab --error-file '{own_lab / 'error.txt'}'"
    assert incident.parameters == {
        "target": "lab",
        "alembic_ini": str(own_lab / "project" / "alembic.ini"),
        "revision": "c90b6e2f1d43",
    }
    assert any("building a shop" in line for line in said)
    assert rows(lab.url(), "select count(*) from orders") == [(ROWS,)]

    said.clear()
    again = lab.start("failed_migration", rows=ROWS, progress=said.append)
    assert again.scenario == "interrupted_index"
    assert not any("building a shop" in line for line in said), "a healthy shop of this size is kept"
    assert not has_column(lab.url(), "order_items", "weight_g"), "the incident before it is gone"

    by_hand = [sys.executable, "-m", "alembic", "-c", str(again.alembic_ini), "current"]
    done = subprocess.run(by_hand, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == HEAD

    lab.stop()
    assert lab.status()["running"] is False
    assert version(lab.url()) == [HEAD]
    status = lab.status()
    assert status["running"] is True
    assert status["incident"]["scenario"] == "interrupted_index"

    with psycopg.connect(plain(lab.url()), autocommit=True) as connection:
        connection.execute("begin")
        connection.execute("update orders set note = 'x' where id = 2")
        connection.execute("prepare transaction 'left behind'")
    assert lab.start("failed_migration", scenario="env_order", rows=ROWS).scenario == "env_order"

    lab.reset()
    assert not own_lab.exists()
    assert lab.current() is None


def test_a_lab_without_an_incident_says_how_to_make_one(own_lab: Path) -> None:
    with pytest.raises(LabFailed, match="mend lab start failed_migration"):
        lab.url()
    assert lab.status()["incident"] is None
    lab.stop()


def test_a_damaged_record_of_the_lab_says_so(own_lab: Path) -> None:
    own_lab.mkdir(parents=True)
    (own_lab / "lab.json").write_text('{"slug": "failed_migration"}')
    with pytest.raises(LabFailed, match=r"lab\.json is damaged.*mend lab reset"):
        lab.current()
    lab.reset()
    assert lab.current() is None


def test_unknown_names_and_sizes_are_refused_before_anything_is_made(own_lab: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"'nonsense'.*failed_migration"):
        lab.start("nonsense")
    with pytest.raises(InvalidParameter, match=r"'nonsense'.*interrupted_index, duplicate_keys, lost_stamp, env_order"):
        lab.start("failed_migration", scenario="nonsense")
    with pytest.raises(InvalidParameter, match="not 5"):
        lab.start("failed_migration", rows=5)
    with pytest.raises(InvalidParameter):
        lab.start("bench")
    assert not own_lab.exists()


def test_the_default_scenario_comes_first() -> None:
    assert lab.scenarios()["failed_migration"] == ["interrupted_index", "duplicate_keys", "lost_stamp", "env_order"]


def test_the_digest_of_the_shop_does_not_move() -> None:
    assert digest() == digest()
    assert len(digest()) == 8


BLOCKING = """
import sys, time, pathlib
from mend import lab
from mend.postgres.server import Server, find_binaries

def test_block(server, session_home):
    detached = Server(session_home / "lab" / "server", find_binaries(), detached=True)
    detached.start()
    pathlib.Path(sys.path[0], "ready").write_text(f"{server.home}\\n{detached.home}")
    time.sleep(120)
"""


def test_a_killed_pytest_leaves_no_server(tmp_path: Path) -> None:
    (tmp_path / "test_blocking.py").write_text(BLOCKING.replace("sys.path[0]", repr(str(tmp_path))))
    command = [
        sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-n0", "--rootdir", str(tmp_path),
        "--basetemp", str(tmp_path / "base"), "-c", os.devnull, str(tmp_path / "test_blocking.py"),
    ]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pytest_run:
        ready = tmp_path / "ready"
        deadline = time.monotonic() + 60
        while not (ready.exists() and ready.read_text()):
            assert pytest_run.poll() is None, pytest_run.stdout and pytest_run.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        homes = [Path(line) for line in ready.read_text().splitlines()]
        servers = [Server(home, find_binaries(), detached=True) for home in homes]
        assert all(server.running() for server in servers)
        pytest_run.kill()
    deadline = time.monotonic() + 30
    while any(server.running() for server in servers):
        assert time.monotonic() < deadline, "a server outlived pytest"
        time.sleep(0.05)
