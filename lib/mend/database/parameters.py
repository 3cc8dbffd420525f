"""A runbook's parameters, read from its notebook without importing anything heavy, and checked before anything runs.

papermill only warns about an unknown name and injects it all the same, so a mistyped ``dry_run`` would run with the default.
Here an unknown name is an error, and a value has the type that the parameters cell declares.
"""

from __future__ import annotations

import ast
import functools
import io
import json
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mend.errors import InvalidParameter

COMMON = ("target", "alembic_ini", "incident", "dry_run", "approve")  # every runbook has these
NOT_MODES = ("triage", "postmortem")  # notebooks that are no failure mode
_SLUG = re.compile(r"[a-z][a-z0-9_]*")
_TYPES: dict[str, type] = {"str": str, "bool": bool, "int": int, "float": float}
_BOOLS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: ``name: type = default  # help``."""

    name: str
    type: type
    default: Any
    help: str


def folder() -> Path:
    """Where the notebooks are: ``runbooks/`` of the checkout that this package lies in, else the package's own copy."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    beside = checkout / "runbooks"
    return beside if (checkout / "pyproject.toml").is_file() and beside.is_dir() else package / "runbooks"


def slugs() -> tuple[str, ...]:
    """The failure modes that have a runbook, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.ipynb") if path.stem not in NOT_MODES))


def pointer(slug: str) -> str:
    """How a message sends the reader to a failure mode."""
    return f"`mend plan {slug}`"


def notebook(slug: str) -> Path:
    """The template of a runbook (or of triage).

    Raises: InvalidParameter with near matches if there is none.
    """
    path = folder() / f"{slug}.ipynb"
    if _SLUG.fullmatch(slug) and path.is_file():
        return path
    near = _near(slug, slugs()) or f" There are: {', '.join(slugs())}."
    raise InvalidParameter(
        f"No runbook is called {slug!r}. Nothing was changed.{near} `mend list` shows the catalogue."
    )


def of(slug: str) -> tuple[Parameter, ...]:
    """The parameters that a runbook declares, in order.

    Raises: InvalidParameter if there is no such runbook, or its parameters cell is not one declaration a line.
    """
    path = notebook(slug)
    return _declared(path, path.stat().st_mtime_ns)


def validated(slug: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a runbook: the given values, each of the declared type already, and the defaults of the others.

    Raises: InvalidParameter naming the parameter, what is wrong, and near matches.
    """
    known = {parameter.name: parameter for parameter in of(slug)}
    checked = {name: _typed(slug, _known(slug, name, known), value) for name, value in given.items()}
    return {name: checked.get(name, parameter.default) for name, parameter in known.items()}


def changed(slug: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not the defaults."""
    return {p.name: values[p.name] for p in of(slug) if p.name in values and values[p.name] != p.default}


def from_text(slug: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The given values from a command line, converted by the declared type; a revision id never becomes a number.

    Raises: InvalidParameter as for ``validated``.
    """
    known = {parameter.name: parameter for parameter in of(slug)}
    return {name: _converted(slug, _known(slug, name, known), text) for name, text in given.items()}


def symptom(slug: str) -> str:
    """The symptom in the operator's words: the ``> ...`` line of the notebook's first cell; '' if it has none."""
    cells = _cells(notebook(slug))
    lines = "".join(cells[0]["source"]).splitlines() if cells else []
    return " ".join(line[1:].strip() for line in lines if line.startswith(">"))


def _cells(path: Path) -> list[dict[str, Any]]:
    try:
        cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidParameter(
            f"{path} is not a notebook: {error}. Nothing was changed. Restore it and run again."
        ) from error
    return cells


@functools.cache
def _declared(path: Path, _mtime: int) -> tuple[Parameter, ...]:
    for cell in _cells(path):
        if cell.get("cell_type") == "code" and "parameters" in cell.get("metadata", {}).get("tags", []):
            return _parse("".join(cell["source"]), path)
    return ()


def _parse(source: str, path: Path) -> tuple[Parameter, ...]:
    """Declarations of one cell; anything else in it would be invisible to papermill, so it is refused."""
    try:
        nodes, helps = ast.parse(source).body, _comments(source)
        return tuple(_parameter(node, helps.get(node.lineno, "")) for node in nodes)
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise InvalidParameter(
            f"{path.name}: its parameters cell is not one `name: type = value` a line: {error}. Nothing was changed."
        ) from error


def _parameter(node: ast.stmt, help_: str) -> Parameter:
    if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
        raise ValueError(f"line {node.lineno}")
    annotation = ast.unparse(node.annotation)
    default = ast.literal_eval(node.value)
    if annotation not in _TYPES or type(default) is not _TYPES[annotation]:
        raise ValueError(f"line {node.lineno}: {annotation} is not the type of {default!r}")
    return Parameter(node.target.id, _TYPES[annotation], default, help_)


def _comments(source: str) -> dict[int, str]:
    """Line number to comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT}


def _known(slug: str, name: str, known: Mapping[str, Parameter]) -> Parameter:
    if name in known:
        return known[name]
    near = _near(name, tuple(known)) or f" It has: {', '.join(known)}."
    raise InvalidParameter(f"{slug} has no parameter {name!r}. Nothing was changed.{near}", parameter=name)


def _near(word: str, words: tuple[str, ...]) -> str:
    close = get_close_matches(word, words, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _typed(slug: str, parameter: Parameter, value: Any) -> Any:
    if type(value) is parameter.type:
        return _without_secret(slug, parameter, value)
    if parameter.type is float and type(value) is int:
        return float(value)
    raise _wrong(slug, parameter, value)


def _converted(slug: str, parameter: Parameter, text: str) -> Any:
    if parameter.type is bool:
        if text.lower() not in _BOOLS:
            raise _wrong(slug, parameter, text)
        return _BOOLS[text.lower()]
    try:
        return _without_secret(slug, parameter, parameter.type(text))
    except ValueError as error:
        raise _wrong(slug, parameter, text) from error


def _without_secret(slug: str, parameter: Parameter, value: Any) -> Any:
    """Parameters are archived in clear, so an address with a password in it is not one."""
    if isinstance(value, str) and ("://" in value or "password" in value.lower()):
        from mend.database.target import redact

        if redact(value) != value:
            raise InvalidParameter(
                f"{slug}: {parameter.name} holds a password, and parameters are archived in clear. Nothing was changed. "
                "Put the address in an environment variable and pass env:NAME.",
                parameter=parameter.name,
            )
    return value


def _wrong(slug: str, parameter: Parameter, value: Any) -> InvalidParameter:
    wants = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}[parameter.type]
    got = f"{value!r} ({type(value).__name__})"
    return InvalidParameter(
        f"{slug}: {parameter.name} must be {wants}, not {got}. Nothing was changed. Correct it and run again.",
        parameter=parameter.name,
    )
