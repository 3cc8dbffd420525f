"""The practice database: a private PostgreSQL with a realistic shop, broken on purpose by real alembic.

Everything lives under ``MEND_HOME/lab``: the server (it survives the process that started it), a working copy of the
shop's Alembic project, what alembic said while the incident was made, and ``lab.json`` with the current incident.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import pkgutil
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mend import settings
from mend.errors import InvalidParameter, LabFailed

if TYPE_CHECKING:
    import psycopg

    from mend.lab.bench import Scenario
    from mend.lab.shop import Project
    from mend.postgres.server import Server

DATABASE = "shop"
_HOME = "lab"  # below settings.home()
NOT_SCENARIOS = {"bench", "dropped_notes", "sessions", "shop"}
FEWEST_ROWS, MOST_ROWS = 100, 20_000_000


@dataclass(frozen=True)
class Incident:
    """A broken migration in the lab, and what a runbook needs to mend it."""

    slug: str
    scenario: str
    target: str
    database: str
    rows: int
    alembic_ini: Path
    error_file: Path
    parameters: dict[str, str]
    next: str


def scenarios() -> dict[str, list[str]]:
    """The incidents the lab can make: slug -> names of its scenarios, the default first."""
    modules = (module.name for module in pkgutil.iter_modules(__path__) if module.name not in NOT_SCENARIOS)
    return {slug: list(_scenarios(slug)) for slug in sorted(modules)}


def start(
    slug: str, *, scenario: str = "", rows: int = 100_000, progress: Callable[[str], None] | None = None
) -> Incident:
    """Make a fresh shop and break it; the incident before it is thrown away.

    Parameters
    ----------
    slug : failure mode, e.g. ``"failed_migration"``
    scenario : one of ``scenarios()[slug]``; empty takes the default
    rows : orders in the shop; the other tables grow in proportion
    progress : called with one line per stage

    Returns
    -------
    Incident; ``.parameters`` are the runbook's, ``.next`` is the next command to type.

    Raises: InvalidParameter for an unknown name or a row count out of range; LabFailed when the incident did not happen.
    """
    say = progress or (lambda line: None)
    chosen = _known(slug, scenario)
    if not FEWEST_ROWS <= rows <= MOST_ROWS:
        raise InvalidParameter(
            f"The lab makes {FEWEST_ROWS:,} to {MOST_ROWS:,} orders, not {rows:,}. Nothing was changed. "
            "Give another number of rows."
        )
    home = settings.made_home(_HOME)
    with _locked(home):
        (home / "lab.json").unlink(missing_ok=True)
        server = _server()
        say("starting the lab's PostgreSQL")
        server.start()
        project = _fresh_shop(server, rows=rows, progress=say)
        error_file = home / "error.txt"
        parameters = stage(slug, chosen, project=project, error_file=error_file, progress=say)
        incident = Incident(
            slug=slug, scenario=chosen, target="lab", database=DATABASE, rows=rows,
            alembic_ini=project.alembic_ini, error_file=error_file, parameters=parameters,
            next=f"mend triage -t lab --error-file {shlex.quote(str(error_file))}",
        )  # fmt: skip
        _keep(incident)
    return incident


def stage(
    slug: str,
    scenario: str,
    *,
    project: Project,
    error_file: Path,
    progress: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Break one healthy shop, wherever it is, and return the runbook's parameters; ``start`` does it in the lab."""
    from mend.lab.bench import Bench

    error_file.unlink(missing_ok=True)
    say = progress or (lambda line: None)
    found = _scenarios(slug)[_known(slug, scenario)](Bench(project, error_file, say))
    return {"target": "lab", "alembic_ini": str(project.alembic_ini), **found}


def current() -> Incident | None:
    """The incident that the lab holds, if any."""
    path = _home() / "lab.json"
    try:
        kept = json.loads(path.read_text())
        return Incident(**{**kept, "alembic_ini": Path(kept["alembic_ini"]), "error_file": Path(kept["error_file"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise LabFailed(
            f"{path} is damaged, or another version of mend wrote it ({exc}). Nothing was changed. "
            "`mend lab reset` starts afresh."
        ) from exc


def url() -> str:
    """Address of the current incident's database; the server is started when it is down."""
    incident = current()
    if incident is None:
        raise LabFailed(
            "The lab holds no incident. Nothing was changed. Make one: `mend lab start failed_migration`; "
            "`mend lab list` shows what else there is."
        )
    server = _server()
    server.start()
    with administrator(server) as connection:
        if not _exists(connection, incident.database):
            raise LabFailed(
                f"The lab's database {incident.database} is gone, though the incident {incident.slug} is on record. Nothing "
                f"was changed. Make it again: `mend lab start {incident.slug}`."
            )
    address = server.url(incident.database)
    if incident.alembic_ini.exists():
        from mend.lab.shop import point

        point(incident.alembic_ini, address)  # the socket may have moved with a restart
    return address


def status() -> dict[str, Any]:
    """What there is: ``running``, ``home``, ``server_version``, ``log`` and ``incident`` (None or its fields)."""
    server, incident = _server(), current()
    return {
        "running": server.running(),
        "home": str(_home()),
        "server_version": server.binaries.version,
        "log": str(server.log),
        "incident": None if incident is None else _fields(incident),
    }


def stop() -> None:
    """Stop the lab's server; the incident stays."""
    _server().stop()


def reset() -> None:
    """Stop the lab's server and remove everything that belongs to the lab."""
    _server().destroy()
    shutil.rmtree(_home(), ignore_errors=True)


def _home() -> Path:
    return settings.home() / _HOME


def _server() -> Server:
    from mend.postgres.server import Server, find_binaries

    return Server(_home() / "server", find_binaries(), detached=True)


def _known(slug: str, scenario: str) -> str:
    """The scenario's name, the default filled in; InvalidParameter says what there is."""
    known = scenarios()
    if slug not in known:
        raise InvalidParameter(
            f"The lab has no incident {slug!r}. Nothing was changed. It has: {', '.join(known) or 'none'}."
        )
    if scenario and scenario not in known[slug]:
        raise InvalidParameter(
            f"{slug} has no scenario {scenario!r}. Nothing was changed. It has: {', '.join(known[slug])}."
        )
    return scenario or known[slug][0]


def _scenarios(slug: str) -> Mapping[str, Scenario]:
    return cast("Mapping[str, Scenario]", importlib.import_module(f"{__name__}.{slug}").SCENARIOS)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One process at a time rebuilds the lab."""
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fields(incident: Incident) -> dict[str, Any]:
    fields = asdict(incident)
    return {**fields, "alembic_ini": str(incident.alembic_ini), "error_file": str(incident.error_file)}


def _keep(incident: Incident) -> None:
    """Write lab.json so that a reader sees the old one, none, or all of the new one."""
    fresh = _home() / "lab.json.new"
    with fresh.open("w") as file:
        json.dump(_fields(incident), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(_home() / "lab.json")


def administrator(server: Server) -> psycopg.Connection[tuple[Any, ...]]:
    """An autocommit session in a private server's maintenance database."""
    import psycopg

    from mend.lab.shop import plain

    return psycopg.connect(plain(server.url()), autocommit=True)


def _exists(connection: psycopg.Connection[tuple[Any, ...]], database: str) -> bool:
    return connection.execute("select 1 from pg_database where datname = %s", [database]).fetchone() is not None


def _fresh_shop(server: Server, *, rows: int, progress: Callable[[str], None]) -> Project:
    """A new database ``shop`` and a new working copy; a healthy shop of each size is built once and then copied."""
    from mend.lab import shop

    template = f"shop_{rows}_{shop.digest()}"
    directory = _home() / "project"
    with administrator(server) as connection:
        if not _exists(connection, template):
            progress(f"building a shop with {rows:,} orders (kept for the next time)")
            making = f"{template}_new"
            drop(server, making)
            connection.execute(f'create database "{making}"'.encode())
            shop.build(shop.check_out(directory, server.url(making)), rows=rows)
            connection.execute(f'alter database "{making}" rename to "{template}"'.encode())
        progress(f"copying the shop with {rows:,} orders")
        drop(server, DATABASE)
        # A copy of the files is quicker than one through the WAL; older servers know no other way.
        strategy = " strategy file_copy" if server.binaries.major >= 15 else ""
        connection.execute(f'create database "{DATABASE}" template "{template}"{strategy}'.encode())
    return shop.check_out(directory, server.url(DATABASE))


def drop(server: Server, database: str) -> None:
    """Drop a database of a private server with everything that would bar it: sessions, prepared transactions."""
    import psycopg
    from psycopg import sql

    from mend.lab.shop import plain

    with administrator(server) as connection:
        prepared = connection.execute("select gid from pg_prepared_xacts where database = %s", [database]).fetchall()
        for (gid,) in prepared:
            with psycopg.connect(plain(server.url(database)), autocommit=True) as inside:
                inside.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))
