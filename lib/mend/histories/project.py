"""A user's Alembic project: its alembic.ini, its interpreter, and the probe that is run with that interpreter.

mend never imports a project into its own process: env.py and the revisions need the project's packages and versions, may
configure an application first, and may keep state.  One fresh process per question, with a time limit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mend.database.target import redact
from mend.errors import ProjectBroken, WrongDatabase

PROBE = Path(__file__).parents[1] / "probe" / "__main__.py"
READ_ONLY = {
    "default_transaction_read_only": "on",
    "lock_timeout": "500",
    "statement_timeout": "15000",
    "application_name": "mend:probe",
}
Event = dict[str, Any]


@dataclass(frozen=True)
class Project:
    """An Alembic project of a user.

    Parameters
    ----------
    alembic_ini : its configuration; the probe runs in this file's directory, as the alembic command would
    python : the interpreter that has its packages
    environ : its environment variables; None for ours
    """

    alembic_ini: Path
    python: Path
    environ: Mapping[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Environment:
    """What env.py really connects to, and how it configures Alembic.  ``may_control`` False: system_identifier is unknown."""

    system_identifier: str | None
    database: str
    database_oid: int
    role: str
    server_address: str | None
    server_port: int | None
    started_at: str
    search_path: str
    version_num: int
    version_table: str
    version_table_schema: str | None
    transaction_per_migration: bool
    in_external_transaction: bool
    dialect: str
    driver: str
    alembic: str
    sqlalchemy: str
    connections: int
    contexts: int
    unsent: tuple[str, ...]


def find_python(alembic_ini: Path, configured: str | Path = "") -> Path:
    """The project's interpreter: the configured one, the .venv beside alembic.ini, $VIRTUAL_ENV, else ours.

    Raises: ProjectBroken when the configured one cannot be run.
    """
    if configured:
        python = Path(os.path.abspath(alembic_ini.parent / Path(configured).expanduser()))  # noqa: PTH100 a venv's python is a link: keep it
        if not (python.is_file() and os.access(python, os.X_OK)):
            raise ProjectBroken(
                f"{python} is not a Python interpreter. Nothing was changed. Correct `python =` in mend.toml, or --python."
            )
        return python
    homes = [
        alembic_ini.absolute().parent / ".venv",
        alembic_ini.absolute().parent / "venv",
        Path(os.environ.get("VIRTUAL_ENV") or "/nowhere"),
    ]
    places = [home / part for home in homes for part in ("bin/python", "Scripts/python.exe")]
    return next((place for place in places if place.is_file()), Path(sys.executable))


def environment(project: Project, *, timeout_s: float = 60) -> Environment:
    """Run the project's env.py in read-only sessions and report which database it leads to.

    Returns
    -------
    Environment; ``.unsent`` lists writes that env.py would have made on the way (they were not sent)

    Reads: the database that env.py names.  Writes: nothing: every session is read-only and no revision is run.
    Raises: ProjectBroken with what it raised.
    """
    events = ask(project, {"action": "env", "settings": READ_ONLY}, timeout_s=timeout_s)
    told = one(events, "environment")
    first, *others = told["contexts"]
    strange = [
        c for c in others if (c["system_identifier"], c["database"]) != (first["system_identifier"], first["database"])
    ]
    if strange:
        raise ProjectBroken(
            f"env.py of {project.alembic_ini} migrates several databases: {first['database']} and {strange[0]['database']}. "
            "Nothing was changed. mend mends one database at a time: give it an alembic.ini that leads to one."
        )
    facts = {key: first[key] for key in first if key not in ("heads", "may_control")}
    facts["version_num"] = int(facts["version_num"])
    return Environment(
        **facts, alembic=told["alembic"], sqlalchemy=told["sqlalchemy"], connections=told["connections"],
        contexts=len(told["contexts"]), unsent=tuple(told["unsent"]),
    )  # fmt: skip


def ask(
    project: Project, request: Mapping[str, Any], *, timeout_s: float, on_event: Callable[[Event], None] | None = None
) -> list[Event]:
    """Run the probe once and return its events, the last one being ``done``, ``environment`` or ``error``.

    An event with ``wait`` is answered after ``on_event`` returned: what on_event wrote down is on disk before the child goes on.

    Raises: ProjectBroken when the child cannot start, dies, or exceeds ``timeout_s``; what on_event raises (the child is ended).
    """
    with tempfile.TemporaryFile() as printed:
        child = _start(project, printed)
        timer = threading.Timer(timeout_s, _end, [child])
        timer.start()
        try:
            events = _converse(child, {**request, "alembic_ini": str(project.alembic_ini.absolute())}, on_event)
            child.wait()
        finally:
            in_time = timer.is_alive()
            timer.cancel()
            _end(child)
            _close(child)
        if not events or events[-1]["event"] not in ("done", "environment", "error"):
            raise ProjectBroken(_died(project, child.returncode, in_time, timeout_s, _last_line(printed)))
        return events


def one(events: list[Event], kind: str) -> Event:
    """The event of that kind; an error of the project becomes ProjectBroken, a refusal of the probe WrongDatabase."""
    if events[-1]["event"] == "error":
        raise broken(events[-1])
    return next(e for e in events if e["event"] == kind)


def broken(error: Event) -> ProjectBroken | WrongDatabase:
    """Our error for what the project raised, with no more of it than the first line.

    What else it says or printed (SQL with its values, settings, a traceback) is not ours to keep in a record.
    """
    what = redact(f"{error['kind']}: {_first_line(str(error['message']))}")
    if error["refused"]:
        return WrongDatabase(
            f"{redact(str(error['message']))}. Nothing further was sent. Check the address that env.py uses."
        )
    return ProjectBroken(
        f"The project's own code failed: {what}. Nothing was changed. Make `alembic current` work with the same interpreter "
        "and environment variables, then run again: it shows all that the project prints, which is not kept here.",
        kind=error["kind"], sqlstate=error["sqlstate"],
    )  # fmt: skip


def _start(project: Project, printed: IO[bytes]) -> subprocess.Popen[str]:
    environ = dict(os.environ if project.environ is None else project.environ)
    try:
        return subprocess.Popen(
            [str(project.python), str(PROBE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed, text=True, encoding="utf-8",
            cwd=project.alembic_ini.absolute().parent, env=environ, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ProjectBroken(
            f"The interpreter {project.python} could not be started: {error}. Nothing was changed. Name another with --python."
        ) from error


def _converse(
    child: subprocess.Popen[str], request: Mapping[str, Any], on_event: Callable[[Event], None] | None
) -> list[Event]:
    assert child.stdin
    assert child.stdout
    events: list[Event] = []
    try:
        _say(child.stdin, json.dumps(request))
        for line in child.stdout:
            events.append(json.loads(line))
            if on_event:
                on_event(events[-1])
            if events[-1].get("wait"):
                _say(child.stdin, "go")
    except BrokenPipeError:
        pass  # it died before it read: what it printed says why
    return events


def _say(pipe: IO[str], line: str) -> None:
    pipe.write(line + "\n")
    pipe.flush()


def _end(child: subprocess.Popen[str]) -> None:
    """End the child with everything it started."""
    if (
        child.returncode is None
    ):  # not reaped: the group's number is still its own, also where only what it forked goes on
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _close(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout):
        with suppress(BrokenPipeError):
            pipe.close()  # type: ignore[union-attr]


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _last_line(printed: IO[bytes]) -> str:
    """The last thing that a child printed: of a traceback, what was raised."""
    printed.seek(0, os.SEEK_END)
    printed.seek(max(0, printed.tell() - 20_000))
    lines = printed.read().decode(errors="replace").strip().splitlines()
    return redact(lines[-1].strip())[:500] if lines else "(nothing)"


def _died(project: Project, code: int, in_time: bool, timeout_s: float, printed: str) -> str:
    missing = re.search(r"No module named '(alembic|sqlalchemy)'", printed)
    what = (
        f"did not finish within {timeout_s:.0f} s" if not in_time
        else f"has no {missing.group(1)}" if missing
        else f"ended with code {code}"
    )  # fmt: skip
    return (
        f"The project's interpreter {project.python} {what} while it ran {project.alembic_ini}. Nothing was changed. "
        f"Name the interpreter of the project's virtual environment with --python or `python =` in mend.toml. It printed last: {printed}"
    )
