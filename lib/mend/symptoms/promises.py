"""What a revision file says that it creates, read without running it: a cheap signal for triage, where names are literals."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
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


def types(path: Path) -> list[tuple[str, str, str]]:
    """(``type``, '', name) of the enums that upgrade() in a revision file plainly brings along with a table or a column."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    upgrades = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    calls = [call for node in upgrades for call in ast.walk(node) if isinstance(call, ast.Call)]
    enums = [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", "")).upper() == "ENUM"]
    words = [{k.arg: k.value for k in call.keywords if k.arg} for call in enums]
    own = [w for w in words if ast.unparse(w.get("create_type", ast.Constant(True))) == "True"]
    named = [(_literal(w["schema"]) if "schema" in w else "", _literal(w["name"])) for w in own if "name" in w]
    return [("type", "", _quoted(schema, name)) for schema, name in dict.fromkeys(named) if name]


def standing(paths: Mapping[str, Path]) -> dict[str, list[tuple[str, str, str]]]:
    """By revision, what plainly must be there when all of these have run, given in their order.

    Only what ``upgrade()`` creates in any case, not in an ``if`` or a loop, and whose name no later file mentions at all: a later
    revision that says it may have dropped or renamed it.  So little is promised, and that is sure.
    """
    texts = {
        name: path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for name, path in paths.items()
    }
    found: dict[str, list[tuple[str, str, str]]] = {}
    later: set[str] = set()
    for name in reversed(list(paths)):
        sure = [one for one in _plainly(texts[name]) if not {one[1], one[2]} & later]
        if sure:
            found[name] = sure
        later |= set(re.findall(r"\w+", texts[name]))
    return dict(reversed(found.items()))


def _plainly(text: str) -> list[tuple[str, str, str]]:
    """What the statements of upgrade() that always run create, and whose names the file mentions for nothing else."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    upgrades = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    calls = [
        one.value
        for node in upgrades
        for one in node.body
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Call)
    ]
    inside = "".join(ast.get_source_segment(text, node) or "" for node in upgrades)
    made = [one for call in calls for one in _created(call)]
    sure = all(isinstance(one, ast.Expr) for node in upgrades for one in node.body)
    dropped = "drop" in inside.lower() or "rename" in inside.lower()
    return [(kind, _bare(table), _bare(name)) for kind, table, name in made] if sure and not dropped else []


_SCRIPT = re.compile(
    r"\bdrop\s+table\s+(?:if\s+exists\s+)?(?P<dropped>[\w.\"]+)|\balter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<table>[\w.\"]+)\s+drop\s+column\s+"
    r"(?:if\s+exists\s+)?(?P<column>[\w\"]+)|\btruncate\s+(?:table\s+)?(?:only\s+)?(?P<emptied>[\w.\"]+)|\bdelete\s+from\s+(?:only\s+)?(?P<thinned>[\w.\"]+)",
    re.IGNORECASE,
)


def destroys(path: Path) -> list[tuple[str, str, str]]:
    """(kind, table, name) of what ``upgrade()`` plainly drops, empties or deletes from; read like ``creates``."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    upgrades = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    calls = [call for node in upgrades for call in ast.walk(node) if isinstance(call, ast.Call)]
    return list(dict.fromkeys(one for call in calls for one in _destroyed(call)))


def _destroyed(call: ast.Call) -> Iterator[tuple[str, str, str]]:
    method = _method(call)
    names = [_literal(argument) for argument in call.args] + ["", ""]
    schema = next((_literal(k.value) for k in call.keywords if k.arg == "schema"), "")
    if method == "drop_table" and names[0]:
        yield "relation", "", _quoted(schema, names[0])
    elif method == "drop_column" and names[0] and names[1]:
        yield "column", _quoted(schema, names[0]), names[1]
    elif method == "execute":
        for match in _SCRIPT.finditer(names[0]):
            if match["column"]:
                yield "column", match["table"], match["column"].strip('"')
            else:
                yield "relation", "", match["dropped"] or match["emptied"] or match["thinned"]


def _bare(name: str) -> str:
    return name.split(".")[-1].strip('"')


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
