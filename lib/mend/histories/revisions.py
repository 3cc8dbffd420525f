"""One revision, as its file says it.  Read, never imported: what is wrong with a file becomes a finding, not a traceback."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MARKER = re.compile(r"^(<{7}|>{7}|\|{7})( |$)", re.MULTILINE)
_ASSIGNED = r"^{}\s*(?::[^=\n]+)?=\s*(.+?)\s*(?:#.*)?$"


@dataclass(frozen=True)
class Revision:
    """One revision file.  ``problem`` is '' or says what is wrong with it; ``id`` may be a guess when it is broken."""

    id: str
    down: tuple[str, ...]
    depends_on: tuple[str, ...]
    labels: tuple[str, ...]
    path: Path
    doc: str = ""
    problem: str = ""


def parse(path: Path, raw: bytes) -> Revision:
    """One revision from the bytes of its file, which need not be there; ``problem`` says what is wrong with it."""
    text = raw.decode("utf-8", "replace")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)  # a byte order mark, or what the file declares
        return _from_tree(path, ast.parse(raw.decode(encoding), str(path)))
    except UnicodeDecodeError as error:
        return _guessed(path, text, f"not {error.encoding.upper()} (byte {error.start})")
    except (SyntaxError, ValueError, RecursionError) as error:
        marker = _MARKER.search(text)
        line = text.count("\n", 0, marker.start()) + 1 if marker else getattr(error, "lineno", 0) or 0
        return _guessed(
            path,
            text,
            f"merge conflict marker in line {line}"
            if marker
            else f"syntax error in line {line}: {getattr(error, 'msg', error)}",
        )


def read(path: Path) -> Revision:
    try:
        return parse(path, path.read_bytes())
    except OSError as error:
        return Revision("", (), (), (), path, problem=f"cannot be read: {error.strerror}")


def _from_tree(path: Path, tree: ast.Module) -> Revision:
    values: dict[str, Any] = {}
    problems = []
    for name, node in _assignments(tree):
        if name in ("revision", "down_revision", "depends_on", "branch_labels"):
            try:
                values[name] = ast.literal_eval(node)
            except (ValueError, TypeError, SyntaxError):
                problems.append(f"{name} is computed: line {node.lineno} is not a literal")
    doc = (ast.get_docstring(tree) or "").strip().split("\n")[0]
    revision = values.get("revision")
    if not isinstance(revision, str):
        old_style = re.match(r"([a-f0-9]+)\.py$", path.name)
        revision = old_style.group(1) if old_style else ""
        problems += [] if revision or problems else ["no revision id"]
    if not any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ImportFrom)) and _defines_upgrade(node)
        for node in tree.body
    ):
        problems.append("no upgrade()")
    down, depends, labels = (_texts(values.get(name)) for name in ("down_revision", "depends_on", "branch_labels"))
    return Revision(revision, down, depends, labels, path, doc, "; ".join(problems))


def _defines_upgrade(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ImportFrom) -> bool:
    if isinstance(node, ast.ImportFrom):
        return any((alias.asname or alias.name) in ("upgrade", "*") for alias in node.names)
    return node.name == "upgrade"


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(str(one) for one in value) if isinstance(value, (tuple, list, set)) else ()


def _guessed(path: Path, text: str, problem: str) -> Revision:
    """What can still be told of a file that Python cannot read: its graph, line by line."""
    found = {}
    for name in ("revision", "down_revision", "depends_on", "branch_labels"):
        line = re.search(_ASSIGNED.format(name), text, re.MULTILINE)
        found[name] = tuple(re.findall(r"[\"']([^\"']+)[\"']", line.group(1))) if line else ()
    first = (re.match(r"\s*[\"']{3}(.*)", text) or [""] * 2)[1]
    return Revision(
        (found["revision"] or ("",))[0],
        found["down_revision"],
        found["depends_on"],
        found["branch_labels"],
        path,
        first.strip(),
        problem,
    )
