"""`mend lint`: what a whole Alembic project shows before it meets a database: graph, version rows that get lost, downgrades that destroy.

Files are read, never run.  A line that ends with ``# mend: ignore`` is passed over.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mend.histories import graph
from mend.histories.history import ID_LENGTH, History
from mend.histories.lint import Finding, Function, lint_files
from mend.histories.revisions import Revision

SAYS = {
    "missing_parent": "needs revision {0}, which no file has: every alembic command dies of a KeyError; restore the file from git",
    "duplicate_id": "has the id {0}, which {1} has too: alembic keeps one of them, and an ancestor becomes a head",
    "id_too_long": f"has an id of {{0}} characters; the version table holds {ID_LENGTH} (22001 at the end of its upgrade)",
    "cycle": "is its own ancestor",
    "several_heads": "is one of {0} heads that nobody meant to stand apart ({1}): `alembic upgrade head` fails; merge them, or put the unreleased branch "
    "after the other",
    "broken_file": "{0}: every alembic command dies of it",
    "downgrade_destroys": "downgrade() drops {0}, which this upgrade() did not make: what was there before is lost",
    "downgrade_deletes_rows": "downgrade() deletes every row of {0}, which this upgrade() did not make",
    "downgrade_does_nothing": "downgrade() does nothing although upgrade() changes something: a downgrade reports success and leaves it, and the next upgrade meets what is there",
    "downgrade_missing": "has no downgrade(): a downgrade of several revisions stops here, midway",
}  # fmt: skip
_EMPTIES = re.compile(
    r"^\s*(?:delete\s+from|truncate(?:\s+table)?)\s+(?:only\s+)?([\w.\"]+)\s*(?:(?:restart|continue)\s+identity\s*)?(?:cascade\s*)?;?\s*$",
    re.IGNORECASE,
)
_DROPS = re.compile(
    r"^\s*(?:drop\s+table\s+(?:if\s+exists\s+)?|alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<of>[\w.\"]+)\s+drop\s+column\s+(?:if\s+exists\s+)?)"
    r"(?P<name>[\w.\"]+)",
    re.IGNORECASE,
)
#: What alembic calls the arguments that name something; a batch gives the first by itself.
_NAMED = {
    "create_table": ("table_name",), "drop_table": ("table_name",), "rename_table": ("old_table_name", "new_table_name"),
    "add_column": ("table_name", "column"), "drop_column": ("table_name", "column_name"), "alter_column": ("table_name", "column_name"),
    "execute": ("sqltext",),
}  # fmt: skip
_IGNORE = "# mend: ignore"


def findings(past: History) -> list[Finding]:
    """Every finding as (file, line, finding, says), in the order of files and lines."""
    found = [
        *_of_graph(past),
        *(f for f in lint_files(past.env_py, [one.path for one in past.files]) if f[2] != "unreadable"),
    ]
    for one in past.files:
        found += _of_downgrade(one)
    return sorted({one for one in found if not _ignored(one)})


def _of_graph(past: History) -> Iterator[Finding]:
    told = ("missing: ", "files have this id", "it is its own ancestor", "the id has")
    for one in past.files:
        for problem in filter(None, one.problem.split("; ")):
            if not any(words in problem for words in told):
                yield _at(one, "broken_file", problem)
        for parent in past.missing_parents.get(one.id, ()):
            yield _at(one, "missing_parent", parent)
        if one.id in past.duplicates:
            others = ", ".join(path.name for path in past.duplicates[one.id] if path != one.path)
            yield _at(one, "duplicate_id", one.id, others)
        if len(one.id) > ID_LENGTH:
            yield _at(one, "id_too_long", str(len(one.id)))
        if one.id in past.cycles:
            yield _at(one, "cycle")
    if not (past.missing_parents or past.duplicates or past.cycles):
        for group in graph.apart_by_accident(past):
            for head in group:
                yield _at(past.revisions[head], "several_heads", str(len(group)), ", ".join(group))


def _at(one: Revision, finding: str, *words: str) -> Finding:
    """A finding at the line that gives the id or the parent."""
    name = "down_revision" if finding == "missing_parent" else "revision"
    try:
        lines = one.path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    line = next((n for n, text in enumerate(lines, 1) if re.match(rf"{name}\b\s*[:=]", text)), 0)
    if number := re.search(r"in line (\d+)", words[0] if words else ""):
        line = int(number[1])
    return str(one.path), line, finding, SAYS[finding].format(*words)


def _ignored(found: Finding) -> bool:
    file, line, *_ = found
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return 0 < line <= len(lines) and lines[line - 1].rstrip().endswith(_IGNORE)


# --- downgrades ---------------------------------------------------------------------------------------------------------


def _of_downgrade(one: Revision) -> Iterator[Finding]:
    """What downgrade() takes along that upgrade() did not bring; read where names are literals, else nothing is said."""
    try:
        tree = ast.parse(one.path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    up, down = functions.get("upgrade"), functions.get("downgrade")
    if up is None:
        return
    if down is None:
        names = {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        if not names & {"downgrade", "*"}:
            yield _downgrade(one, up.lineno, "downgrade_missing")
        return
    if _is_empty(down) and _changes_schema(up):
        yield _downgrade(one, down.lineno, "downgrade_does_nothing")
    made, known = _made(up, functions)
    if known:
        yield from _destroyed(one, down, made)


def _downgrade(one: Revision, line: int, finding: str, *words: str) -> Finding:
    return str(one.path), line, finding, SAYS[finding].format(*words)


def _is_empty(function: Function) -> bool:
    """Only a docstring, ``pass``, ``return`` or ``...``."""
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Return | ast.Expr) and (node.value is None or isinstance(node.value, ast.Constant)))
        for node in function.body
    )


def _calls(function: Function) -> Iterator[tuple[str, str | None, ast.Call]]:
    """(operation, table of the batch or None, call) of every call on ``op`` or on a batch."""
    batches: dict[int, str] = {}  # call -> table of the innermost block whose batch it is made on
    for node in ast.walk(function):
        for item in node.items if isinstance(node, ast.With) else ():
            made, name = item.context_expr, item.optional_vars
            if (
                isinstance(made, ast.Call)
                and isinstance(name, ast.Name)
                and "batch_alter_table" in ast.unparse(made.func)
            ):
                table = next(iter(_words("create_table", None, made)))
                batches |= {id(call): table for call in ast.walk(node) if _owner(call) == name.id}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (_owner(node) == "op" or id(node) in batches)
        ):
            yield node.func.attr, batches.get(id(node)), node


def _owner(node: ast.AST) -> str:
    """``op`` of ``op.execute(...)``."""
    function = node.func if isinstance(node, ast.Call) else None
    owner = function.value if isinstance(function, ast.Attribute) else None
    return owner.id if isinstance(owner, ast.Name) else ""


def _changes_schema(function: Function) -> bool:
    """Whether it makes, changes or drops something, as far as a reader can see; rows do not count."""
    silent = {"get_bind", "get_context", "f", "inline_literal", "bulk_insert", "batch_alter_table"}
    for operation, _, call in _calls(function):
        if operation == "execute":
            if re.search(r"^\s*(create|alter|drop|comment)\b", _words(operation, None, call)[0], re.IGNORECASE):
                return True
        elif operation not in silent:
            return True
    return False


def _made(upgrade: Function, functions: dict[str, Function]) -> tuple[set[str], bool]:
    """Names of tables, and ``table.column``, that upgrade() makes or renames; and whether every name could be read."""
    made: set[str] = set()
    known = True
    helpers = {n.func.id for n in ast.walk(upgrade) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    for operation, batch, call in _calls(upgrade):
        args = _words(operation, batch, call)
        if operation in ("create_table", "rename_table", "add_column", "alter_column"):
            known &= all(args) if "table" in operation else bool(args[-1])
            new = next((_literal(k.value) for k in call.keywords if k.arg == "new_column_name"), "")
            made |= set(args) if operation in ("create_table", "rename_table") else set()
            made |= {_column(*args)} if operation == "add_column" else {_column(args[0], new)} if new else set()
        elif operation in ("execute", "create_table_comment", "bulk_insert"):
            known &= operation != "execute" or not _may_make(call)
    return made, known and not (helpers & functions.keys()) and "get_bind" not in ast.unparse(upgrade)


def _column(table: str, name: str) -> str:
    """A column's name here; of a table that nobody can read, it may be in any."""
    return f"{table or '*'}.{name}"


def _may_make(call: ast.Call) -> bool:
    """Whether raw SQL may make or rename a table or a column."""
    text = _words("execute", None, call)[0]
    return not text or bool(re.search(r"\b(create|add|rename)\b", text, re.IGNORECASE))


def _destroyed(one: Revision, down: Function, made: set[str]) -> Iterator[Finding]:
    for operation, batch, call in _calls(down):
        args = _words(operation, batch, call)
        if operation == "execute" and (drops := _DROPS.match(args[0])):
            args = [name.strip('"') for name in drops.group("of", "name") if name]
            operation = "drop_column" if drops["of"] else "drop_table"
        if operation == "drop_table" and args[0] and args[0] not in made:
            yield _downgrade(one, call.lineno, "downgrade_destroys", f"table {args[0]}")
        elif operation == "drop_column" and all(args) and not {args[0], _column(*args), _column("", args[1])} & made:
            yield _downgrade(one, call.lineno, "downgrade_destroys", f"column {args[0]}.{args[1]}")
        elif operation == "execute" and (match := _EMPTIES.match(args[0])) and match[1].strip('"') not in made:
            yield _downgrade(one, call.lineno, "downgrade_deletes_rows", match[1])


def _words(operation: str, batch: str | None, call: ast.Call) -> list[str]:
    """What names something in a call, given by place or by name; '' for what is computed, or not given."""
    named = _NAMED.get(operation, ())[0 if batch is None else 1 :]
    given = {k.arg: k.value for k in call.keywords} | dict(zip(named, call.args, strict=False))
    return ([] if batch is None else [batch]) + [_literal(given[name]) if name in given else "" for name in named]


def _literal(node: ast.expr) -> str:
    """A string, the string in ``op.f()`` or ``text()``, or the name of a ``Column()``; '' for anything computed."""
    if isinstance(node, ast.Call) and node.args:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return _literal(node.args[0]) if name in ("f", "text", "Column") else ""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def summary(found: Iterable[Finding]) -> str:
    """How many of each."""
    kinds: dict[str, int] = {}
    for _, _, finding, _ in found:
        kinds[finding] = kinds.get(finding, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
