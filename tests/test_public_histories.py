"""Two public projects' real histories, really half applied: every statement's state must be what was really executed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy
import warm
from mend.database import catalog
from mend.histories.history import Project, read
from mend.postgres.server import Server
from mend.replays import replay
from mend.replays.replay import Replay, Scratch
from sqlalchemy import make_url

REPOSITORY = Path(__file__).parents[1]
HUB_IMPORTS = ("alembic.command", "alembic.config", "alembic.context", "psycopg2", "jupyterhub.orm", "jupyterhub.app")
OLD_PYTHON = Path(os.environ.get("MEND_OLD_PYTHON", REPOSITORY / ".venv-old" / "bin" / "python"))

# Runs the project's real upgrade in its own interpreter.  After `stop` statements of `revision` it commits and dies, as a
# process that committed each statement would: what it prints is the truth that mend's verdicts are held against.
DRIVER = """
import json, os, sys
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Engine

ini, revision, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
config = Config(ini)
script = ScriptDirectory.from_config(config)
sent, inside = [], []

@event.listens_for(Engine, "after_cursor_execute")
def count(conn, cursor, statement, parameters, context, many):
    word = statement.split(None, 1)[0].lower()
    if not inside or word in ("select", "show", "with", "savepoint", "release", "begin", "commit"):
        return
    sent.append(" ".join(statement.split()))
    if len(sent) == stop:
        conn.connection.commit()
        print(json.dumps(sent))
        sys.stdout.flush()
        os._exit(0)

def watched(step):
    upgrade = step.migration_fn
    def run(**kw):
        inside.append(1)
        upgrade(**kw)
        inside.pop()
    if step.revision.revision == revision:
        step.migration_fn = run
    return step

def work(heads, context):
    return [watched(step) for step in script._upgrade_revs(revision, heads)]

with EnvironmentContext(config, script, fn=work, as_sql=False, destination_rev=revision):
    script.run_env()
print(json.dumps(sent))
"""


def half_apply(project: Project, revision: str, stop: int) -> list[str]:
    """Really run the upgrade and stop after so many statements of ``revision``; gives what was sent."""
    driver = project.alembic_ini.with_name("driver.py")
    driver.write_text(DRIVER)
    command = [str(project.python), str(driver), str(project.alembic_ini), revision, str(stop)]
    answer = warm.run(
        command, stdout=warm.PIPE, stderr=warm.PIPE, text=True, check=False, timeout=120, cwd=project.alembic_ini.parent
    )
    assert answer.returncode == 0, answer.stderr
    return [str(sql) for sql in json.loads(answer.stdout.strip().splitlines()[-1])]


def alembic(project: Project, *arguments: str) -> None:
    """The project's own alembic command."""
    command = [str(project.python), "-m", "alembic", "-c", str(project.alembic_ini), *arguments]
    answer = warm.run(
        command, stdout=warm.PIPE, stderr=warm.PIPE, text=True, check=False, timeout=120, cwd=project.alembic_ini.parent
    )
    assert answer.returncode == 0, answer.stderr


def judge(replayed: Replay, url: str) -> list[str]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as conn:
        frame = replay.compare(replayed, catalog.snapshot(conn))
    return list(frame["state"])


def shape(sql: str) -> str:
    """A statement without its values: the driver logs placeholders, mend the values."""
    return re.sub(r"\s+|%\(\w+\)s(::\w+)?|%s|'[^']*'", "", sql)[:60]


def hold_to_truth(replayed: Replay, states: list[str], sent: list[str]) -> None:
    """Statements that were sent are DONE, the others NOT_DONE; one without a trace is DATA and nothing else is."""
    assert [shape(one.sql) for one in replayed.statements[: len(sent)]] == [shape(sql) for sql in sent]
    truth = ["DONE" if number <= len(sent) else "NOT_DONE" for number in range(1, len(states) + 1)]
    expected = [
        "DATA" if not one.changes and not one.verdict else right
        for one, right in zip(replayed.statements, truth, strict=True)
    ]
    assert states == expected


# --- optuna: replayed from an empty database ----------------------------------------------------------------------------

OPTUNA = {
    "v0.9.0.a": 12,
    "v1.2.0.a": 1,
    "v1.3.0.a": 2,
    "v2.6.0.a": 5,
    "v3.0.0.b": 6,
    "v3.0.0.c": 3,
    "v3.0.0.d": 4,
    "v3.2.0.a": 1,
}


def optuna(folder: Path, url: str) -> Project:
    spec = find_spec("optuna")
    assert spec, "optuna is a development dependency"
    assert spec.submodule_search_locations
    text = (Path(spec.submodule_search_locations[0]) / "storages/_rdb/alembic.ini").read_text()
    text = re.sub(r"^script_location = .*", "script_location = optuna.storages._rdb:alembic", text, flags=re.MULTILINE)
    ini = folder / "alembic.ini"
    ini.write_text(
        re.sub(r"^sqlalchemy.url = .*", f"sqlalchemy.url = {url.replace('%', '%%')}", text, flags=re.MULTILINE)
    )
    return Project(ini, Path(sys.executable))


def own_server(server: Server) -> Scratch:
    return Scratch(server.binaries.major, {"conninfo": server.url().replace("+psycopg", "", 1)})


@pytest.mark.parametrize("revision", OPTUNA)
def test_every_statement_of_optuna_is_judged_as_it_was_executed(
    revision: str, server: Server, new_database: Callable[..., str], tmp_path: Path
) -> None:
    before = new_database()
    project = optuna(tmp_path, before)
    replayed = replay.replay(project, revision, scratch=own_server(server))
    assert (replayed.method, replayed.error, replayed.stamped, replayed.persisted) == ("history", None, True, True)
    count = len(replayed.statements)
    assert count == OPTUNA[revision]
    alembic(project, "upgrade", *(read(project.alembic_ini).get(revision).down or ["base"]))
    hold_to_truth(replayed, judge(replayed, before), [])
    for stop in sorted({1, count // 2, count - 1, count} - {0}):
        url = new_database(make_url(before).database)
        sent = half_apply(optuna(tmp_path, url), revision, stop)
        assert len(sent) == stop
        hold_to_truth(replayed, judge(replayed, url), sent)


def test_an_optuna_revision_that_fails_everywhere_says_so(
    server: Server, new_database: Callable[..., str], tmp_path: Path
) -> None:
    """Its second CREATE TYPE of one enum only passes where SQLAlchemy remembers the first: in the same process."""
    project = optuna(tmp_path, new_database())
    replayed = replay.replay(project, "v2.4.0.a", scratch=own_server(server))
    assert "42710" in str(replayed.error)
    assert "CREATE TYPE studydirection" in str(replayed.error)
    assert (replayed.statements, replayed.stamped, replayed.persisted) == ((), None, None)
    alembic(project, "upgrade", "v1.3.0.a")
    with pytest.raises(AssertionError, match='type "studydirection" already exists'):
        alembic(project, "upgrade", "v2.4.0.a")


def test_an_optuna_revision_that_computes_from_rows_says_what_it_reads(
    server: Server, database: str, tmp_path: Path
) -> None:
    replayed = replay.replay(optuna(tmp_path, database), "v3.0.0.a", scratch=own_server(server))
    assert replayed.statements == ()
    assert any("FROM trial_params" in read_sql for read_sql in replayed.reads)


# --- jupyterhub: its own interpreter, an old stack, and a history that cannot start from nothing -------------------------

# What revisions before the oldest downgrade() that works had or lacked: their downgrades die of an AttributeError.
BEFORE = {
    "0eee8c825d24": """
        alter table services drop column from_config, drop column url, drop column oauth_client_allowed_scopes, drop column info,
            drop column display, drop column oauth_no_confirm, drop column command, drop column cwd, drop column environment,
            drop column "user" """,
    "833da8570507": """
        alter table groups drop column properties;
        alter table oauth_codes drop column scopes;
        alter table api_tokens drop column scopes;
        alter table oauth_clients drop column allowed_scopes;
        create table oauth_code_role_map (oauth_code_id integer references oauth_codes, role_id integer references roles);
        create table api_token_role_map (api_token_id integer references api_tokens, role_id integer references roles);
        create table oauth_client_role_map (oauth_client_id integer references oauth_clients, role_id integer references roles)""",
    "4dc2d5a8c53c": """
        alter table services drop column oauth_client_id;
        alter table spawners drop column oauth_client_id;
        create table oauth_access_tokens (id serial primary key, client_id varchar(255), hashed varchar(255));
        drop table api_token_role_map, oauth_client_role_map, oauth_code_role_map, user_role_map, group_role_map, service_role_map, roles""",
    "56cc5a70207e": "alter table users drop column created; alter table spawners drop column started",
}  # fmt: skip
CREATE_ALL = "import sys, sqlalchemy; from jupyterhub import orm; orm.Base.metadata.create_all(sqlalchemy.create_engine(sys.argv[1]))"
HUB = [
    ("3c2384c5aae1", "0eee8c825d24", 11, [2, 5]),
    ("651f5419b74d", "833da8570507", 6, [3, 6]),
    ("833da8570507", "4dc2d5a8c53c", 6, [3, 6]),
    ("4621fec11365", "3c2384c5aae1", 4, [2]),
    ("afd65840b69e", "be8ecf03ddac", 2, [1]),
]


def hub(folder: Path, url: str) -> Project:
    assert OLD_PYTHON.exists(), f"{OLD_PYTHON} is missing: `make setup` builds it from requirements-old.lock"
    warm.prepare(OLD_PYTHON, HUB_IMPORTS)
    package = next(OLD_PYTHON.parent.parent.glob("lib/python3*/site-packages/jupyterhub"))
    text = (package / "alembic.ini").read_text().replace("{alembic_dir}", "jupyterhub:alembic")
    folder.mkdir(exist_ok=True)
    (folder / "alembic.ini").write_text(
        text.replace("{db_url}", url.replace("+psycopg:", "+psycopg2:").replace("%", "%%"))
    )
    return Project(folder / "alembic.ini", OLD_PYTHON)


@pytest.fixture(scope="module")
def hub_at(
    hubs: dict[str, str], keep_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """``hub_at(revision)``: name of a database as a hub of that age has it; made by create_all and stamped, then walked back."""

    def walk_back(revision: str, from_name: str) -> None:
        hubs[revision] = f"hub_{revision}"
        url = keep_database(hubs[revision], from_name)
        if revision in BEFORE:
            with sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool).begin() as conn:
                conn.exec_driver_sql(BEFORE[revision])
                conn.exec_driver_sql(f"update alembic_version set version_num = '{revision}'")
        else:
            alembic(hub(tmp_path_factory.mktemp("hub"), url), "downgrade", revision)

    def made(revision: str) -> str:
        if not hubs:
            project = hub(tmp_path_factory.mktemp("hub"), keep_database("hub_head"))
            url = re.search(r"^sqlalchemy.url = (.*)$", project.alembic_ini.read_text(), re.MULTILINE)
            assert url
            command = [OLD_PYTHON, "-c", CREATE_ALL, url.group(1).replace("%%", "%")]
            subprocess.run(command, check=True, timeout=120)
            alembic(project, "stamp", "head")
            hubs["head"] = "hub_head"
        if revision not in hubs:
            order = ["head", "be8ecf03ddac", "3c2384c5aae1", *BEFORE]
            walk_back(revision, made(order[order.index(revision) - 1]))
        return hubs[revision]

    return made


def keywords(url: str) -> dict[str, str]:
    address = make_url(url)
    return {
        "host": str(address.query["host"]),
        "port": str(address.query["port"]),
        "user": str(address.username),
        "dbname": str(address.database),
    }


@pytest.mark.parametrize(("revision", "parent", "count", "stops"), HUB, ids=[case[0] for case in HUB])
def test_every_statement_of_jupyterhub_is_judged_as_it_was_executed(
    revision: str,
    parent: str,
    count: int,
    stops: list[int],
    server: Server,
    hub_at: Callable[[str], str],
    new_database: Callable[..., str],
    tmp_path: Path,
) -> None:
    for stop in stops:
        url = new_database(hub_at(parent))
        project = hub(tmp_path, url)
        sent = half_apply(project, revision, stop) if stop else []
        assert len(sent) == stop
        replayed = replay.replay(project, revision, scratch=own_server(server), live=keywords(url))
        assert (replayed.method, replayed.error) == ("trial", None)
        assert "eeb276e51423" in replayed.warnings[0]
        recorded = [shape(one.sql) for one in replayed.statements]
        ran = [shape(sql) for sql in sent]
        skipped = [sql for sql in ran if sql not in recorded]
        assert len(recorded) + len(skipped) == count
        assert not skipped or (
            replay.LOOKS in replayed.warnings and all(sql.startswith("DROPTABLE") for sql in skipped)
        )
        states = judge(replayed, url)
        assert states == [
            "DATA" if one.data else "DONE" if shape(one.sql) in ran else "NOT_DONE" for one in replayed.statements
        ]


def test_a_jupyterhub_revision_whose_own_code_fails_is_judged_up_to_there(
    server: Server, hub_at: Callable[[str], str], new_database: Callable[..., str], tmp_path: Path
) -> None:
    """99a28a4418e1 calls ``datetime._replace``, which never existed: no hub of that age can be upgraded."""
    for stop, state in ((0, "NOT_DONE"), (1, "DONE")):
        url = new_database(hub_at("56cc5a70207e"))
        project = hub(tmp_path, url)
        if stop:
            half_apply(project, "99a28a4418e1", stop)
        replayed = replay.replay(project, "99a28a4418e1", scratch=own_server(server), live=keywords(url))
        assert str(replayed.error).startswith("AttributeError")
        assert [one.says for one in replayed.statements] == ["add_column users.created"]
        assert judge(replayed, url) == [state]
