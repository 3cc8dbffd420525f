"""What a revision file says that it creates, read without running it: a cheap signal for triage, where names are literals."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def creates(path: Path) -> list[tuple[str, str, str]]:
    """(kind, table, name) of what ``upgrade()`` in a revision file plainly creates and does not also drop.

    Read by AST and only where names are literals: a cheap signal.  The runbook replays the revision.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []  # a broken file is a sign of its own, see of_files
    upgrades = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    calls = [
        call
        for node in upgrades
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    ]
    dropped = {literal for call in calls if _method(call).startswith("drop_") for literal in map(_literal, call.args)}
    return [made for call in calls for made in _created(call) if made[2].split(".")[-1].strip('"') not in dropped]


def _created(call: ast.Call) -> Iterator[tuple[str, str, str]]:
    names = [_literal(argument) for argument in call.args]
    schema = next((_literal(k.value) for k in call.keywords if k.arg == "schema"), "")
    first, second = (*names, "", "")[:2]
    method = _method(call)
    if method in ("create_table", "create_index") and first:
        yield "relation", "", _quoted(schema, first)
    elif method == "add_column" and first and second:
        yield "column", _quoted(schema, first), second


def _method(call: ast.Call) -> str:
    """The operation of ``op.<operation>(...)``; '' for a call on anything else."""
    function = call.func
    return (
        function.attr
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "op"
        else ""
    )


def _literal(node: ast.expr) -> str:
    """A string, the string inside ``op.f("...")``, or the name of a ``Column("...")``; '' for anything computed."""
    if isinstance(node, ast.Call) and node.args:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return _literal(node.args[0]) if name in ("f", "Column") else ""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _quoted(schema: str, name: str) -> str:
    parts = [part.replace('"', '""') for part in (schema, name) if part]
    return ".".join(f'"{part}"' for part in parts)
