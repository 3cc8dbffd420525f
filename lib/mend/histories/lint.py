"""What in a revision or an env.py loses version rows or half-applies a revision, found by reading the file (facts 1.1)."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

Finding = tuple[str, int, str, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef

SAYS = {
    "commit": "commits by itself: alembic's transaction is over, so the version row of this revision and everything after it can be lost",
    "commit_text": "sends COMMIT or ROLLBACK as text: what came before is committed, and the version row is lost",
    "autocommit_in_the_middle": "autocommit_block() among other operations: those before it are committed when it starts, so a failure leaves the "
    "revision half applied; give it a revision of its own",
    "autocommit_several": "several operations in one autocommit_block(): each is committed by itself, so a failure leaves the first ones",
    "swallowed_exception": "catches an error and goes on: after an error PostgreSQL refuses the rest of the transaction (25P02); use a SAVEPOINT "
    "(begin_nested)",
    "own_engine": "opens its own engine: that session cannot see this transaction, and can wait for its locks for ever",
    "sql_before_configure": "runs SQL on the connection before context.configure(): alembic then never commits, exit 0 and everything rolled back",
    "unreadable": "cannot be parsed, so it was not checked",
}


def lint_files(env_py: Path, revisions: Iterable[Path]) -> list[Finding]:
    """Every finding as (file, line, finding, says), in the order of files and lines."""
    found = [one for path in revisions for one in _in_file(path, _in_revision)]
    return sorted([*_in_file(env_py, _in_env), *found]) if env_py.is_file() else sorted(found)


def _in_file(path: Path, check: object) -> Iterator[Finding]:
    assert callable(check)
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        yield str(path), int(getattr(error, "lineno", 0) or 0), "unreadable", SAYS["unreadable"]
        return
    for line, finding in check(tree):
        yield str(path), line, finding, SAYS[finding]


def _in_revision(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """upgrade() and the functions that it calls in the same file."""
    functions = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    todo, seen = ["upgrade"], set()
    while todo:
        name = todo.pop()
        if name in functions and name not in seen:
            seen.add(name)
            yield from _in_function(functions[name])
            todo += [
                node.func.id
                for node in ast.walk(functions[name])
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            ]


def _in_function(function: Function) -> Iterator[tuple[int, str]]:
    sessions = _sessions(function)
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            yield from _in_call(node, sessions)
        elif isinstance(node, ast.Try) and _swallows(node):
            yield node.lineno, "swallowed_exception"
        elif isinstance(node, ast.With) and is_autocommit(node):
            yield from _in_autocommit(node, function)


def _in_call(call: ast.Call, sessions: set[str]) -> Iterator[tuple[int, str]]:
    name = _called(call)
    if name == "commit" and isinstance(call.func, ast.Attribute):
        # An ORM session that joined alembic's transaction commits nothing of it.
        if not (isinstance(call.func.value, ast.Name) and call.func.value.id in sessions):
            yield call.lineno, "commit"
    elif name in ("create_engine", "engine_from_config", "create_async_engine"):
        yield call.lineno, "own_engine"
    elif name in ("execute", "text", "exec_driver_sql"):
        for argument in call.args[:1]:
            if (
                isinstance(argument, ast.Constant)
                and isinstance(argument.value, str)
                and _ends_transaction(argument.value)
            ):
                yield call.lineno, "commit_text"


def _ends_transaction(sql: str) -> bool:
    outside = re.sub(r"\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", "''", sql, flags=re.DOTALL)
    outside = re.sub(r"\bbegin\s+atomic\b.*\bend\b", "", outside, flags=re.DOTALL | re.IGNORECASE)
    return any(
        re.match(r"\s*(commit|rollback(?!\s+to)|end)\s*(work|transaction)?\s*$", part, re.IGNORECASE)
        for part in outside.split(";")
    )


def _called(call: ast.Call) -> str:
    return (
        call.func.attr
        if isinstance(call.func, ast.Attribute)
        else call.func.id
        if isinstance(call.func, ast.Name)
        else ""
    )


def _sessions(function: Function) -> set[str]:
    """Names that hold an ORM session: assigned from, or opened by, something that is called ...session...(...), or given as one."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = {one.arg for one in given if one.annotation and "session" in ast.unparse(one.annotation).lower()}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and "session" in ast.unparse(node.value.func).lower()
        ):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif (
            isinstance(node, ast.withitem)
            and isinstance(node.optional_vars, ast.Name)
            and "session" in ast.unparse(node.context_expr).lower()
        ):
            names.add(node.optional_vars.id)
    return names


def _swallows(node: ast.Try) -> bool:
    """Does a handler let an error of an operation pass, with no SAVEPOINT around it?"""
    body = ast.unparse(ast.Module(node.body, []))
    touches = re.search(r"\b(op|conn|connection|bind|session|batch_op)\.", body)
    passes = any(
        not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
        for handler in node.handlers
        if not _is_of_python(handler)
    )
    return bool(touches) and passes and "begin_nested" not in body


def _is_of_python(handler: ast.ExceptHandler) -> bool:
    """Whether it catches only errors that no database raises: ImportError, KeyError."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    kinds = [getattr(builtins, one.id, None) if isinstance(one, ast.Name) else None for one in caught]
    return all(isinstance(kind, type) and kind not in (Exception, BaseException) for kind in kinds)


def is_autocommit(node: ast.With) -> bool:
    """Whether a block is op.get_context().autocommit_block()."""
    return any(
        isinstance(item.context_expr, ast.Call) and _called(item.context_expr) == "autocommit_block"
        for item in node.items
    )


def _operations(nodes: Iterable[ast.stmt]) -> list[ast.Call]:
    """Calls that send SQL, as far as a reader can see."""
    calls = [
        node
        for statement in nodes
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    owners = {"op", "batch_op", "conn", "connection", "bind", "session"}
    return [c for c in calls if isinstance(c.func, ast.Attribute) and isinstance(c.func.value, ast.Name) and c.func.value.id in owners
            and c.func.attr not in ("get_context", "get_bind", "f", "inline_literal", "close")]  # fmt: skip


def _in_autocommit(block: ast.With, function: Function) -> Iterator[tuple[int, str]]:
    inside = _operations(block.body)
    if len(_operations(function.body)) > len(inside):
        yield block.lineno, "autocommit_in_the_middle"
    if (
        sum(
            "if exists" not in ast.unparse(call).lower() and "if_exists=True" not in ast.unparse(call)
            for call in inside
        )
        > 1
    ):
        yield block.lineno, "autocommit_several"  # a drop of what may be left over can be repeated: it does not count


def _in_env(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """SQL on a connection in the same function, before context.configure() and with no commit or rollback between."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    in_functions = {id(node) for one in functions for node in ast.walk(one)}
    scopes: list[tuple[ast.AST, set[int]]] = [*((one, set[int]()) for one in functions), (tree, in_functions)]
    for scope, inner in scopes:
        calls = sorted(
            (n for n in ast.walk(scope) if isinstance(n, ast.Call) and id(n) not in inner),
            key=lambda c: (c.lineno, c.col_offset),
        )
        open_since = 0
        for call in calls:
            name = _called(call)
            if name in ("execute", "scalar", "scalars", "exec_driver_sql") and isinstance(call.func, ast.Attribute):
                open_since = open_since or call.lineno
            elif name in ("commit", "rollback"):
                open_since = 0
            elif name == "configure" and open_since:
                yield open_since, "sql_before_configure"
                open_since = 0
