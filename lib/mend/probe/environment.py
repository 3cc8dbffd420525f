"""The project's alembic: its configuration, its scripts, and env.py run with a function of ours."""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from argparse import Namespace
from pathlib import Path

import alembic
import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mend.probe.connects import Connects
from mend.probe.sessions import describe
from mend.probe.sqltext import kind_of, normal, skeleton
from mend.probe.wire import Refused, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional


class Project:
    """alembic's view of the project: its configuration, its scripts, and env.py run with a function of ours."""

    def __init__(self, asked: dict[str, Any], wire: Wire) -> None:
        self.wire, self.asked = wire, asked
        ini = asked["alembic_ini"]
        options = Namespace(
            config=ini,
            name="alembic",
            x=asked.get("x") or [],
            raiseerr=False,
            cmd=None,
            sql=False,
            tag=None,
            quiet=False,
        )
        pyproject = Path(ini).parent / "pyproject.toml"
        more = (
            {"toml_file": str(pyproject)}
            if pyproject.exists() and "toml_file" in inspect.signature(Config).parameters
            else {}
        )
        self.config = Config(ini, cmd_opts=options, **more)  # type: ignore[arg-type]
        self.script = ScriptDirectory.from_config(self.config)

    def run(self, work: Callable[[Any, Any], Any], destination: str, **options: Any) -> None:
        with EnvironmentContext(
            self.config, self.script, fn=work, as_sql=False, destination_rev=destination, tag=None, **options
        ):
            self.script.run_env()


def modules() -> list[list[str]]:
    """The project's own files that were imported, with their digests: a change of one makes a cached replay stale."""
    foreign = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    found = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        inner = (
            file.startswith(foreign)
            or "site-packages" in file
            or "dist-packages" in file
            or file.startswith(str(Path(__file__).parent))
        )
        if file.endswith(".py") and not inner and Path(file).is_file():
            found.append([str(Path(file).absolute()), hashlib.sha256(Path(file).read_bytes()).hexdigest()])
    return sorted(found)


def versions() -> dict[str, str]:
    return {"alembic": alembic.__version__, "sqlalchemy": sqlalchemy.__version__, "python": sys.version.split()[0]}


def tell_environment(project: Project, connects: Connects) -> None:
    """Action ``env``: where does env.py lead?  Writes that it would make on the way are noted and not sent."""
    unsent: list[str] = []
    contexts: list[dict[str, Any]] = []

    def withhold(cursor: Any, statement: str, parameters: Any, context: Any) -> Optional[bool]:
        locks = "pg_advisory" in statement or "pg_try_advisory" in statement
        if locks:
            cursor.execute(
                "select true"
            )  # another migrator may hold it, and a diagnosis must neither wait for it nor take it
        elif kind_of(skeleton(statement)) != "statement":
            return None
        unsent.append(normal(statement))
        return True

    def work(heads: Any, context: Any) -> list[Any]:
        contexts.append({**describe(context), "heads": list(heads)})
        return []

    event.listen(Engine, "do_execute", withhold)
    event.listen(
        Engine, "do_execute_no_params", lambda cursor, statement, context: withhold(cursor, statement, None, context)
    )
    project.run(work, "heads", dont_mutate=True)
    if not contexts:
        raise Refused("env.py ran, but it never called context.run_migrations()")
    project.wire.tell("environment", contexts=contexts, unsent=unsent, connections=connects.opened, **versions())
