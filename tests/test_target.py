"""A target is a name; what stands behind it is read in every spelling, and never told. A diagnosis cannot write."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mend import address
from mend.database import target
from mend.database.target import Target
from mend.errors import (
    InvalidParameter,
    LoginRefused,
    MendError,
    PrivilegeMissing,
    QueryFailed,
    TargetUnknown,
    TargetUnreachable,
    sqlstate,
)
from mend.postgres.server import Server
from mend.redaction import passwords, redact
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import URL

quick = settings(deadline=None, max_examples=150)

#: what a hostile password is made of: everything that means something to an address, a shell, JSON, a regex or a format
HOSTILE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=6, max_size=20) | st.text(
    "@:/?#[]%&=+'\"\\ ${}*.^|;-", min_size=6, max_size=12
)

Named = Callable[..., Target]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Named:
    """``named(address)`` puts an address into an environment variable, and gives the target of that name."""

    def make(address: str, variable: str = "SHOP_URL") -> Target:
        monkeypatch.setenv(variable, address)
        return target.resolve(f"env:{variable}")

    return make


@pytest.fixture
def here(named: Named, database: str) -> Target:
    return named(database)


@pytest.fixture
def administrator(server: Server) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as conn:
        yield conn


@pytest.fixture
def role(administrator: psycopg.Connection) -> Iterator[Callable[..., str]]:
    """``role("name", "login password 'x'")`` makes a role that is gone after the test."""
    made: list[str] = []

    def make(name: str, options: str = "login") -> str:
        administrator.execute(sql.SQL("create role {} " + options).format(sql.Identifier(name)))  # type: ignore[arg-type]
        made.append(name)
        return name

    yield make
    for name in made:
        administrator.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        administrator.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def as_user(url: str, user: str, password: str = "") -> str:
    """The same database as somebody else."""
    parts = {**conninfo_to_dict(url.replace("+psycopg", "")), "user": user, "password": password}
    return make_conninfo(**{key: value for key, value in parts.items() if value})


# -- addresses ---------------------------------------------------------------------------------------------------------

FULL = {"user": "ann", "password": "s3cret", "host": "db", "port": "5433", "dbname": "shop"}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("postgresql://ann:s3cret@db:5433/shop", FULL),
        ("postgres://ann:s3cret@db:5433/shop", FULL),
        ("postgresql+psycopg://ann:s3cret@db:5433/shop", FULL),
        ("postgresql+psycopg2://ann:s3cret@db:5433/shop", FULL),
        ("postgresql+asyncpg://ann:s3cret@db:5433/shop", FULL),
        ("host=db port=5433 user=ann password=s3cret dbname=shop", FULL),
        ("  postgresql://ann:s3cret@db:5433/shop\n", FULL),
        ("postgresql+asyncpg://ann:s3cret@db:5433/shop?ssl=require", {**FULL, "sslmode": "require"}),
        ("postgresql://ann:s3cret@db:5433/shop?ssl=true", {**FULL, "sslmode": "require"}),
        ("postgresql+asyncpg://ann:s3cret@db:5433/shop?ssl=verify-full&sslrootcert=/ca", {**FULL, "sslmode": "verify-full", "sslrootcert": "/ca"}),
        ("postgresql+asyncpg://ann:s3cret@db:5433/shop?prepared_statement_cache_size=0&ssl=prefer", {**FULL, "sslmode": "prefer"}),
        ("postgresql://ann:s3cret@db:5433/shop?pgbouncer=true", FULL),
        ("postgresql://ann:s3cret@db:5433/shop?schema=public&sslmode=require", {**FULL, "sslmode": "require"}),
        ("postgresql+psycopg://ann@/shop?host=/run/pg&port=5433", {"user": "ann", "dbname": "shop", "host": "/run/pg", "port": "5433"}),
        ("postgresql://ann@%2Frun%2Fpg/shop", {"user": "ann", "host": "/run/pg", "dbname": "shop"}),
        ("postgresql+psycopg://ann@[::1]:5433/shop", {"user": "ann", "host": "::1", "port": "5433", "dbname": "shop"}),
        ("postgresql://ann@one:5433,two:5434/shop", {"user": "ann", "host": "one,two", "port": "5433,5434", "dbname": "shop"}),
        ("postgresql+psycopg2://ann@db/shop?options=-csearch_path%3Dapp", {"user": "ann", "host": "db", "dbname": "shop", "options": "-csearch_path=app"}),
        ("postgresql+psycopg2://ann:100%@db/shop", {"user": "ann", "password": "100%", "host": "db", "dbname": "shop"}),
        ("postgresql+psycopg2://ann:a/b@db/shop", {"user": "ann", "password": "a/b", "host": "db", "dbname": "shop"}),
        ("postgresql://ann:a/b@db/shop", {"user": "ann", "password": "a/b", "host": "db", "dbname": "shop"}),
        ("postgresql://ann:100%@db/shop", {"user": "ann", "password": "100%", "host": "db", "dbname": "shop"}),
        ("service=shop", {"service": "shop"}),
        ("host='a b' dbname='it\\'s'", {"host": "a b", "dbname": "it's"}),
    ],
)  # fmt: skip
def test_an_address_is_read_in_every_spelling(named: Named, given_: str, expected: dict[str, str]) -> None:
    assert dict(named(given_).conninfo) == expected


@given(HOSTILE, HOSTILE, HOSTILE)
@quick
def test_any_password_role_and_database_come_through_every_spelling(password: str, user: str, dbname: str) -> None:
    parts = {"user": user, "password": password, "host": "db", "dbname": dbname}
    assert address.keywords(make_conninfo(**parts), "env:X") == parts
    url = URL.create("postgresql+psycopg", username=user, password=password, host="db", database=dbname)
    assert address.keywords(url.render_as_string(hide_password=False), "env:X") == parts


@pytest.mark.parametrize(
    "given_",
    [
        "nonsense", "mysql://ann:hunter2@db/shop", "sqlite:///shop.db", "postgresql://ann:hunter2@db:port/shop",
        "postgresql+asyncpg://ann:hunter2@db:port/shop", "postgresql://ann:hunter2@db/shop?sslmod=require", "postgresql+psycopg://ann:hunter2@db/shop?sslmod=require",
        "host=db password='hunter2",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_a_word_of_it(named: Named, given_: str) -> None:
    with pytest.raises(
        InvalidParameter, match=r"env:SHOP_URL does not hold a PostgreSQL address\. Nothing was changed\."
    ) as caught:
        named(given_)
    told = [str(caught.value), str(caught.value.__cause__), str(caught.value.__suppress_context__)]
    assert told[1:] == ["None", "True"], "a traceback would quote the parser, and the parser the password"
    assert "hun" not in told[0]
    assert "ter2" not in told[0]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "shop", "Prod", "env", "lab2", "schön"])
def test_an_unknown_name_is_told_with_those_that_exist(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mend.toml").write_text('[targets.staging]\nurl = "env:STAGING_URL"\n')
    monkeypatch.setenv("MEND_CONFIG", str(tmp_path / "mend.toml"))
    with pytest.raises(TargetUnknown) as caught:
        target.resolve(name)
    if name:
        assert (
            f"No target is called {name!r}. Nothing was changed. Known: lab, staging, env:NAME, service:NAME."
            in caught.value.message
        )


@pytest.mark.parametrize("prefix", ["", "env:", "service:"])
@pytest.mark.parametrize(
    "given_",
    [
        "postgresql://ann:hunter2@db/shop", "postgresql://ann:hun@ter2@db/shop", "postgresql://ann:hun'ter2@db/shop", "ann:hunter2@db/shop", "//ann:hunter2@db",
        "host=db password=hunter2", "password = 'it\\'s hunter2'", "postgresql://db/shop?user=ann&password=hunter2", "jdbc:postgresql://db/shop?password=hunter2",
    ],
)  # fmt: skip
def test_an_address_given_as_a_name_is_refused_without_a_word_of_it(prefix: str, given_: str) -> None:
    with pytest.raises(InvalidParameter, match=r"Nothing was changed\..*env:NAME") as caught:
        target.resolve(prefix + given_)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["env:", "service:"])
def test_a_form_without_a_name_does_not_lead_to_whatever_database_is_near(name: str) -> None:
    with pytest.raises(InvalidParameter, match="Nothing was changed"):
        target.resolve(name)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_not_set_says_its_name(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("SHOP_URL", value)
    with pytest.raises(InvalidParameter, match="The environment variable SHOP_URL is not set"):
        target.resolve("env:SHOP_URL")


def test_a_name_of_mend_toml_brings_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    (tmp_path / "mend.toml").write_text(
        '[targets."my shop"]\nurl = "env:SHOP_URL"\nschema = "repairs"\nlock_timeout_ms = 50\n'
    )
    monkeypatch.setenv("MEND_CONFIG", str(tmp_path / "mend.toml"))
    monkeypatch.setenv("SHOP_URL", database)
    found = target.resolve("my shop")
    assert (found.settings.schema_name, found.settings.lock_timeout_ms) == ("repairs", 50)
    assert found.identity().database == found.conninfo["dbname"]


@pytest.mark.parametrize("url", ["lab", "target", ""])
def test_a_target_of_mend_toml_that_names_no_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    (tmp_path / "mend.toml").write_text(f'[targets.shop]\nurl = "{url}"\n')
    monkeypatch.setenv("MEND_CONFIG", str(tmp_path / "mend.toml"))
    with pytest.raises(InvalidParameter, match="env:NAME or service:NAME"):
        target.resolve("shop")


def test_a_service_is_looked_up_by_libpq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    place = conninfo_to_dict(database.replace("+psycopg", ""))
    lines = [f"{key}={value}" for key, value in place.items()]
    (tmp_path / "services").write_text(
        "\n".join(["# ours", "[other]", "host=nowhere", "[shop]", *lines, "password=hunter2", "[third]", "password=no"])
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    found = target.resolve("service:shop")
    assert found.identity().database == place["dbname"]
    assert "hunter2" in found.secrets()
    assert found.redact("it said hunter2") == "it said ***"
    with pytest.raises(TargetUnreachable, match="no_such_service"):
        target.resolve("service:no_such_service").identity()


def test_a_scratch_server_is_named_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH_URL", "postgresql+psycopg://ann:it%27s@db/postgres")
    assert conninfo_to_dict(target.named_address("env:SCRATCH_URL")) == {
        "user": "ann",
        "password": "it's",
        "host": "db",
        "dbname": "postgres",
    }


# -- secrets -----------------------------------------------------------------------------------------------------------


def _shown(held: Target) -> list[str]:
    return [repr(held), str(held), f"{held}", repr(held.engine()), repr(held.engine().url)]


@given(HOSTILE)
@example("scratc")
@quick
def test_a_password_is_in_no_repr_and_is_redacted_in_every_spelling(password: str) -> None:
    held, other = (
        Target("env:X", {"user": "ann", "password": one, "host": "db", "dbname": "shop"})
        for one in (password, "Another0ne!")
    )
    url = URL.create("postgresql", username="ann", password=password, host="db", database="shop").render_as_string(
        hide_password=False
    )
    # A password may be a word that stands there anyway: so nothing of it may depend on the password.
    assert _shown(held) == _shown(other)
    for text in (
        f"<{password}>",
        url,
        make_conninfo(**held.conninfo),
        json.dumps({"x": password}),
        url.lower() if password.isascii() and password.islower() else url,
    ):
        assert (
            password not in held.redact(text).replace("***", "").replace("ann", "")
            or password in "postgresql://ann:***@db/shop host=db user=ann password="
        )
    assert held.redact(url) == "postgresql://ann:***@db/shop"


def test_every_spelling_of_a_password_is_a_secret() -> None:
    found = passwords({"password": "a/b+c d%\"\\'é", "sslpassword": "key phrase"}, also="from PGPASSWORD")
    assert {
        "a/b+c d%\"\\'é",
        "a%2Fb%2Bc%20d%25%22%5C%27%C3%A9",
        "a%2fb%2bc%20d%25%22%5c%27%c3%a9",
        "a/b+c d%\\\"\\\\'é",
        "key phrase",
        "from PGPASSWORD",
    } <= set(found)
    assert list(found) == sorted(found, key=lambda s: (-len(s), s))
    assert passwords({}) == ()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:s3cret@db/shop", "postgresql://ann:***@db/shop"),
        ("postgresql://ann:p@ss@db/shop", "postgresql://ann:***@db/shop"),
        ("postgresql://ann:p/ss@db/shop", "postgresql://ann:***@db/shop"),
        ("postgresql://:s3cret@db/shop", "postgresql://:***@db/shop"),
        ("a redis://:s3cret@r:1/0 and postgresql://b:c@d/e", "a redis://:***@r:1/0 and postgresql://b:***@d/e"),
        ("password=s3cret host=db", "password=*** host=db"),
        ("password = 'a b' host=db", "password = *** host=db"),
        (r"password='it\'s here' host=db", "password=*** host=db"),
        (r"password=it\'s\ here host=db", "password=*** host=db"),
        ("?user=ann&password=s3cret&sslmode=require", "?user=ann&password=***&sslmode=require"),
        ("PGPASSWORD=s3cret psql; sslpassword=abc", "PGPASSWORD=*** psql; sslpassword=***"),
        ('{"url":"postgresql://ann:s3cret@db","mail":"x@y"}', '{"url":"postgresql://ann:***@db","mail":"x@y"}'),
        ("http://db:8080/x, mail a@b", "http://db:8080/x, mail a@b"),
        ("postgresql://ann@db/shop, ann@example.org", "postgresql://ann@db/shop, ann@example.org"),
    ],
)
def test_a_password_in_a_text_is_redacted_and_the_rest_stays(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_password_that_the_server_says_is_not_told(named: Named, database: str) -> None:
    held = named(as_user(database, "postgres", "hunter2 & co"))
    with pytest.raises(QueryFailed) as caught, held.reading() as conn:
        conn.exec_driver_sql(
            "do $$ begin raise 'could not connect with hunter2 & co, nor postgresql://ann:other@db/x'; end $$"
        )
    assert "could not connect with ***, nor postgresql://ann:***@db/x" in caught.value.message
    assert caught.value.sqlstate == "P0001"


# -- sessions ----------------------------------------------------------------------------------------------------------

WRITES = [
    "create table t ()", "create temporary table t (a int) on commit drop; insert into pg_temp.t values (1); create schema x", "delete from pg_class",
    "select nextval('seq')", "insert into kept values (1)", "update kept set a = 2", "truncate kept", "comment on table kept is 'x'", "select setval('seq', 5)",
    "do $$ begin insert into kept values (1); end $$", "with x as (delete from kept returning *) select * from x", "select * from kept for update",
    "create index concurrently i on kept (a)", "vacuum kept", "drop table kept", "notify x; create table t ()",
]  # fmt: skip


def test_a_reading_session_writes_nothing(here: Target, database: str) -> None:
    with psycopg.connect(database.replace("+psycopg", "")) as conn:
        conn.execute("create table kept (a int); create sequence seq; insert into kept values (1)")
    for write in WRITES:
        with pytest.raises(MendError) as caught, here.reading("run") as reading:
            reading.exec_driver_sql(write)
        assert sqlstate(caught.value) in ("25006", "25001"), write
        assert "Nothing was changed." in caught.value.message


def test_a_reading_session_has_limits_a_name_and_one_snapshot(here: Target) -> None:
    with here.reading("20250101T000000Z-deadlock-abcdef") as conn:
        names = (
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "application_name",
            "transaction_isolation",
            "transaction_read_only",
        )
        found = {name: conn.exec_driver_sql("select current_setting(%s)", (name,)).scalar() for name in names}
    assert found == {
        "statement_timeout": "15s", "lock_timeout": "500ms", "idle_in_transaction_session_timeout": "1min",
        "application_name": "mend:20250101T000000Z-deadlock-abcdef", "transaction_isolation": "repeatable read", "transaction_read_only": "on",
    }  # fmt: skip


def test_the_limits_hold_although_the_role_and_the_address_ask_for_others(
    named: Named, database: str, role: Callable[..., str]
) -> None:
    loose = role("loose role")
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as conn:
        conn.execute(
            'alter role "loose role" set statement_timeout = 0; alter role "loose role" set default_transaction_read_only = off'
        )
    held = named(as_user(database, loose) + " options='-c lock_timeout=0 -c search_path=app' application_name=alembic")
    with held.reading("run") as conn:
        shown = conn.exec_driver_sql(
            "select current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('search_path'), current_setting('application_name')"
        )
        assert shown.one() == ("15s", "500ms", "app", "mend:run")


def test_a_question_does_not_join_the_queue_it_inspects(here: Target, database: str) -> None:
    with psycopg.connect(database.replace("+psycopg", "")) as holder:
        holder.execute("create table kept (a int)")
        holder.commit()
        holder.execute("lock table kept in access exclusive mode")
        started = time.monotonic()
        with pytest.raises(MendError) as caught, here.reading() as conn:
            conn.exec_driver_sql("select * from kept")
        assert sqlstate(caught.value) == "55P03"
        assert time.monotonic() - started < 5


def test_a_session_that_the_server_ends_is_told_and_nothing_hangs(
    here: Target, administrator: psycopg.Connection
) -> None:
    def ask() -> None:
        with here.reading("ended") as conn:
            administrator.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mend:ended'"
            )
            conn.exec_driver_sql("select 1")

    with pytest.raises(MendError, match="Nothing was changed"):
        ask()


def test_no_session_is_left_behind_whatever_happens(here: Target, administrator: psycopg.Connection) -> None:
    with here.reading("left-behind") as conn:
        conn.exec_driver_sql("select 1")
    with pytest.raises(ZeroDivisionError), here.reading("left-behind"):
        raise ZeroDivisionError
    with pytest.raises(QueryFailed), here.reading("left-behind") as conn:
        conn.exec_driver_sql("select 1/0")
    deadline = time.monotonic() + 10
    while administrator.execute(
        "select 1 from pg_stat_activity where application_name = 'mend:left-behind'"
    ).fetchone():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_writing_session_notices_that_its_client_died_and_commits_each_statement(here: Target) -> None:
    version = here.identity().version_num
    with here.writing("mend:run:1", version_num=version) as conn:
        conn.exec_driver_sql("create table t ()")
        shown = conn.exec_driver_sql(
            "select current_setting('client_connection_check_interval', true), current_setting('application_name')"
        ).one()
        with here.reading() as other:
            assert other.exec_driver_sql("select to_regclass('t') is not null").scalar()
    assert shown == ("1s" if version >= 140000 else None, "mend:run:1")


# -- who it is ---------------------------------------------------------------------------------------------------------


def test_the_identity_is_what_the_server_says(here: Target, administrator: psycopg.Connection) -> None:
    found = here.identity()
    row = administrator.execute(
        "select cast(system_identifier as text), cast((select oid from pg_database where datname = %s) as int8), current_setting('server_version') from pg_control_system()",
        [found.database],
    ).fetchone()
    assert (found.system_identifier, found.database_oid, found.server_version) == row
    assert (found.role, found.session_role, found.superuser, found.in_recovery, found.may_create_schema) == (
        "postgres",
        "postgres",
        True,
        False,
        True,
    )
    assert found.key() == {
        "system_identifier": found.system_identifier,
        "database": found.database,
        "database_oid": found.database_oid,
    }
    assert json.loads(json.dumps(target.card(found)))["version_num"] == found.version_num


HOSTILE_NAMES = [
    'x"; drop table t; --',
    "it's 100% %s :name",
    "Ünïcode 🐘",
    "a/b?c=d&e#f@g",
    "$1 {0} \\",
    "n" * 63,
    " lead",
    "template 'x",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_of_database_and_role_work(
    server: Server, administrator: psycopg.Connection, role: Callable[..., str], named: Named, name: str
) -> None:
    role(name)
    identifier = sql.Identifier(name)
    administrator.execute(sql.SQL("create database {} owner {}").format(identifier, identifier))
    try:
        place = {**conninfo_to_dict(server.url().replace("+psycopg", "")), "dbname": name, "user": name}
        for spelled in (
            make_conninfo(**place),
            URL.create(
                "postgresql+psycopg",
                username=name,
                database=name,
                query={"host": str(place["host"]), "port": str(place["port"])},
            ).render_as_string(),
        ):
            found = named(spelled).identity()
            assert (found.database, found.role, found.superuser, found.may_create_schema) == (name, name, False, True)
    finally:
        administrator.execute(sql.SQL("drop database {} with (force)").format(identifier))


def test_a_role_without_rights_is_told_what_it_may_not_do(
    named: Named, database: str, role: Callable[..., str]
) -> None:
    with psycopg.connect(database.replace("+psycopg", "")) as conn:
        conn.execute("create table kept (a int)")
    held = named(as_user(database, role("poor")))
    assert (held.identity().may_create_schema, held.identity().superuser) == (False, False)
    with pytest.raises(PrivilegeMissing, match="permission denied for table kept"), held.reading() as conn_:
        conn_.exec_driver_sql("select * from kept")


def test_a_role_that_was_set_is_told_from_the_one_that_logged_in(
    named: Named, database: str, role: Callable[..., str]
) -> None:
    role("owner of it all", "nologin")
    login = role("login of it all", 'login in role "owner of it all"')
    found = named(as_user(database, login) + " options='-c role=owner\\\\ of\\\\ it\\\\ all'").identity()
    assert (found.role, found.session_role) == ("owner of it all", "login of it all")


# -- no connection -----------------------------------------------------------------------------------------------------


def test_rows_that_a_policy_hides_fail_a_question_instead_of_being_left_out(
    named: Named, database: str, role: Callable[..., str]
) -> None:
    owner = role("half_blind")
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as conn:
        conn.execute(
            "create table kept (a int); insert into kept values (1), (2); alter table kept enable row level security; "
            "alter table kept force row level security; create policy p on kept using (a = 1); alter table kept owner to half_blind"
        )
    filtered = named(database.replace("postgres@", f"{owner}@", 1))
    with pytest.raises(PrivilegeMissing, match="row-level security policy for table"), filtered.reading() as reads:
        reads.exec_driver_sql("select count(*) from kept")
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as conn:
        conn.execute("drop table kept")


@pytest.fixture
def asks_for_password(administrator: psycopg.Connection, role: Callable[..., str]) -> Iterator[str]:
    """A role that must give its password, ``hunter2 & co``; everybody else is trusted as before."""
    row = administrator.execute("show hba_file").fetchone()
    assert row
    path = Path(row[0])
    before = path.read_text()
    name = role("asked", "login password 'hunter2 & co'")
    path.write_text(f'local all "{name}" scram-sha-256\nlocal all "barred" reject\n{before}')
    administrator.execute("select pg_reload_conf()")
    yield name
    path.write_text(before)
    administrator.execute("select pg_reload_conf()")


def reloaded(database: str, user: str) -> None:
    """Wait until the server asks that role for its password."""
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(as_user(database, user)).close()
        except psycopg.OperationalError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_login_that_is_refused_is_told_from_a_server_that_is_down(
    named: Named, database: str, asks_for_password: str, role: Callable[..., str], administrator: psycopg.Connection
) -> None:
    reloaded(database, asks_for_password)
    assert named(as_user(database, asks_for_password, "hunter2 & co")).identity().role == asks_for_password
    role("barred")
    role("no login", "nologin")
    cases = {
        (asks_for_password, "wrong pass w0rd"): "password authentication failed",
        (asks_for_password, ""): "no password supplied",
        ("nobody at all", ""): 'role "nobody at all" does not exist',
        ("barred", ""): "pg_hba.conf",
        ("no login", ""): "is not permitted to log in",
    }
    for (user, password), said in cases.items():
        with pytest.raises(LoginRefused) as caught:
            named(as_user(database, user, password)).identity()
        assert said in caught.value.message
        assert caught.value.message.endswith("Nothing was changed. Check the role, its password and pg_hba.conf.")
        assert "wrong pass w0rd" not in caught.value.message


def test_a_role_that_may_not_connect_to_the_database_is_refused(
    named: Named, database: str, role: Callable[..., str], administrator: psycopg.Connection
) -> None:
    dbname = str(conninfo_to_dict(database.replace("+psycopg", ""))["dbname"])
    administrator.execute(sql.SQL("revoke connect on database {} from public").format(sql.Identifier(dbname)))
    with pytest.raises(LoginRefused, match="permission denied for database"):
        named(as_user(database, role("outside"))).identity()


def test_a_database_that_does_not_exist_is_unreachable(named: Named, server: Server) -> None:
    with pytest.raises(TargetUnreachable, match='database "no such" does not exist') as caught:
        named(server.url("no such")).identity()
    assert not isinstance(caught.value, LoginRefused)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_a_server_that_is_down_is_unreachable_at_once(named: Named, free_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(
        TargetUnreachable, match=r"Target env:SHOP_URL: .*refused.* Nothing was changed\. Check that the server runs"
    ) as caught:
        named(f"postgresql://ann:hunter2@127.0.0.1:{free_port}/shop").identity()
    assert time.monotonic() - started < 5
    assert not isinstance(caught.value, LoginRefused)
    assert "hunter2" not in caught.value.message


def test_a_server_that_never_answers_is_given_up(named: Named) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        started = time.monotonic()
        with pytest.raises(TargetUnreachable, match="timeout"):
            named(f"postgresql://ann@127.0.0.1:{mute.getsockname()[1]}/shop?connect_timeout=2").identity()
        assert time.monotonic() - started < 10


def test_every_connection_has_a_time_limit_unless_the_address_names_one() -> None:
    def limit(conninfo: dict[str, str]) -> str:
        seen: dict[str, str] = {}
        engine = Target("env:X", conninfo).engine()

        @sqlalchemy.event.listens_for(engine, "do_connect")
        def stop(_dialect: object, _record: object, _args: object, arguments: dict[str, str]) -> None:
            seen.update(arguments)
            raise psycopg.OperationalError("stopped")

        with pytest.raises(sqlalchemy.exc.OperationalError):
            engine.connect()
        return seen["connect_timeout"]

    assert limit({"host": "db"}) == "10"
    assert limit({"host": "db", "connect_timeout": "3"}) == "3"


def test_a_server_that_does_not_speak_postgresql_is_unreachable(named: Named) -> None:
    with socket.socket() as web:
        web.bind(("127.0.0.1", 0))
        web.listen()

        def answer() -> None:
            peer, _ = web.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TargetUnreachable):
            named(
                f"postgresql://ann@127.0.0.1:{web.getsockname()[1]}/shop?sslmode=disable&connect_timeout=5"
            ).identity()
        thread.join(5)
