"""What an application expects of its database: the tables of a SQLAlchemy MetaData, told as plain values.

The application's module is imported here, in the project's interpreter, with every session read-only.  What it prints goes to standard
error; that it exits, or raises anything, becomes an ``error`` event.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from pathlib import Path

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql

from mend.probe.environment import Project, modules, versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mend.probe.wire import Wire


def tell_tables(project: Project) -> None:
    """Action ``tables``: import ``module:attribute``, or run env.py, and tell the tables; the process ends here, whatever threads the module started."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = [_described(table) for metadata in _metadatas(project) for table in metadata.sorted_tables]
    except BaseException as error:  # noqa: BLE001 SystemExit and KeyboardInterrupt of a module are its errors
        _failed(project.wire, error)
    project.wire.tell("tables", tables=found)
    project.wire.tell("done", modules=modules(), **versions())
    os._exit(0)


def _failed(wire: Wire, error: BaseException) -> None:
    traceback.print_exc()
    sys.stderr.flush()
    wire.tell(
        "error",
        kind=type(error).__name__,
        message=_said(error),
        sqlstate="",
        refused=False,
        revision="",
        modules=modules(),
    )
    os._exit(1)


def _said(error: BaseException) -> str:
    """What was raised, and where in the project: of a module that exits, its code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path.cwd() in Path(frame.filename).resolve().parents]
    place = " (%s, line %s)" % (Path(own[-1].filename).resolve().relative_to(Path.cwd()), own[-1].lineno) if own else ""
    said = (
        "it exits with %r" % error.code if isinstance(error, SystemExit) else str(getattr(error, "orig", None) or error)
    )
    return said.split("\n")[0] + place


def _metadatas(project: Project) -> list[Any]:
    """What is named; without a name the target_metadata of env.py, which may be none."""
    spec = project.asked["metadata"]
    found: Any = _named(spec) if spec else _of_env(project)
    several = list(found) if isinstance(found, (list, tuple, set)) else [found]
    metadatas = [one if isinstance(one, MetaData) else getattr(one, "metadata", None) for one in several]
    if not metadatas and not spec:
        return []
    if not metadatas or not all(isinstance(one, MetaData) for one in metadatas):
        raise TypeError(
            "%s is a %s: neither a MetaData nor something with one as its .metadata"
            % (spec or "target_metadata", type(found).__name__)
        )
    return metadatas


def _named(spec: str) -> Any:
    name, _, attribute = spec.partition(":")
    found: Any = importlib.import_module(name)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _of_env(project: Project) -> list[Any]:
    seen: list[Any] = []

    def work(heads: Any, context: Any) -> list[Any]:
        told = context.opts.get("target_metadata")
        seen.extend(told if isinstance(told, (list, tuple, set)) else [] if told is None else [told])
        return []

    project.run(work, "heads")
    return seen


def _described(table: Any) -> dict[str, Any]:
    own = table.autoincrement_column if hasattr(table, "autoincrement_column") else table._autoincrement_column
    return {
        "schema": str(table.schema) if table.schema else "",
        "name": str(table.name),
        "columns": [_column(column, column is own) for column in table.columns],
    }


def _column(column: Any, automatic: bool) -> dict[str, Any]:
    if getattr(column, "computed", None) is not None:
        fills = "computed"
    elif getattr(column, "identity", None) is not None or (automatic and column.default is None):
        fills = "automatic"
    elif column.default is not None:
        fills = "application"
    else:
        fills = "server" if column.server_default is not None else ""
    return {"name": str(column.name), "type": _type(column), "nullable": bool(column.nullable), "fills": fills}


def _type(column: Any) -> str:
    """As PostgreSQL knows it, without a collation, which no cast takes; '' where SQLAlchemy cannot tell."""
    try:
        dialect: Any = postgresql.dialect
        return re.sub(r' COLLATE "(?:[^"]|"")*"', "", str(column.type.compile(dialect=dialect())))
    except Exception:  # noqa: BLE001 a type of the application's own may raise anything
        return ""
