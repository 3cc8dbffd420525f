"""What upgrade() calls, where each call stands, and which names it is about, as far as that can be read off the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from mend.histories.lint import is_autocommit

_SENDS = {"execute", "exec_driver_sql", "scalar", "scalars", "run_sync"}
_STORES = re.compile(r"(add|add_all|delete|flush|merge|bulk_\w+)$")
_NAME = re.compile(r"[^\W\d][\w$ -]{0,62}")  # what needs no escape in SQL text, in text(), or in a driver's format
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_MULTIPLE = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)


class Left(Exception):
    """This call is left as it is; the reason is the message."""


@dataclass(frozen=True)
class Spot:
    """Where a statement stands; ``tests``: the conditions that it is under, as text."""

    statement: ast.stmt
    autocommit: bool = False
    loop: bool = False
    tests: str = ""


@dataclass(frozen=True)
class Named:
    """What a call is about; '' for what it does not name, or computes."""

    name: str
    table: str = ""
    schema: str = ""

    def relation(self, *, quoted: bool = False) -> str:
        """The table as SQL.  Raises: Left where it is computed."""
        if not self.table:
            raise Left("a computed name")
        return dotted(self.schema, self.table, quoted=quoted)


class Upgrade:
    """One file's upgrade(): its statements and its calls of alembic's operations."""

    def __init__(self, tree: ast.Module, function: ast.FunctionDef) -> None:
        self.function = function
        self._aliases = _aliases(tree)
        self._constants = _constants(tree)
        self.composed = _composed(tree)
        self.calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and self.operation(node)]
        self.renamed = self._renamed()

    def spots(self) -> Iterator[Spot]:
        """Every simple statement, and each batch block as one."""
        return _spots(self.function.body, Spot(self.function))

    def operation(self, call: ast.Call) -> str:
        """The name of the operation that a call is, whatever alembic's op is called here; '' for anything else."""
        function = call.func
        return (
            function.attr
            if isinstance(function, ast.Attribute) and ast.unparse(function.value) in self._aliases
            else ""
        )

    def text(self, node: ast.expr | None) -> str:
        """A name that can be read: a literal, op.f() of one, or a constant of the module; '' for others."""
        if isinstance(node, ast.Call) and self.operation(node) == "f":
            node = argument(node, 0, "name")
        found = (
            self._constants.get(node.id)
            if isinstance(node, ast.Name)
            else node.value
            if isinstance(node, ast.Constant)
            else ""
        )
        return found if isinstance(found, str) and _NAME.fullmatch(found) else ""

    def about(self, call: ast.Call) -> Named:
        """Names by the operation's signature.  Raises: Left where the object has no name, or a computed one."""
        operation = self.operation(call)
        if operation in ("create_table", "drop_table"):
            table = name = argument(call, 0, "table_name")
        elif operation in ("add_column", "drop_column"):
            table, name = argument(call, 0, "table_name"), argument(call, 1, "column_name", "column")
        else:
            name, table = (
                argument(call, 0, "index_name", "constraint_name"),
                argument(call, 1, "table_name", "source_table"),
            )
        if isinstance(name, ast.Call) and self.operation(name) != "f":
            name = argument(name, 0, "name")  # sa.Column("email", ...)
        if is_constant(name, None):
            raise Left("it has no name: a retry may make a second one")
        schema = keyword(call, "schema", "source_schema")
        found = Named(self.text(name), self.text(table), self.text(schema))
        if not found.name or not (found.schema or schema is None or is_constant(schema, None)):
            raise Left("a computed name")
        return found

    def sends(self, call: ast.Call, statement: ast.stmt) -> bool:
        """Whether a call that is no operation may change something."""
        if isinstance(call.func, ast.Attribute):
            if call.func.attr in _SENDS:
                return not re.match(
                    r"(\w+\.)*(text\()?['\"]+\s*select\b", ast.unparse(call.args[0]) if call.args else "", re.IGNORECASE
                )
            return "session" in ast.unparse(call.func.value).lower() and bool(_STORES.match(call.func.attr))
        whole = isinstance(statement, ast.Expr) and statement.value is call
        return whole and isinstance(call.func, (ast.Name, ast.Subscript)) and ast.unparse(call.func) != "print"

    def dropped_before(self, call: ast.Call, name: str) -> bool:
        """Whether upgrade() drops that name itself beforehand."""
        earlier = [one for one in self.calls if (one.lineno, one.col_offset) < (call.lineno, call.col_offset)]
        drops = [one for one in earlier if self.operation(one) in ("drop_constraint", "drop_index")]
        texts = [ast.unparse(one) for one in earlier if self.operation(one) == "execute"]
        word = re.compile(rf"\bif exists\b.*\b{re.escape(name)}\b", re.IGNORECASE | re.DOTALL)
        return any(self.text(argument(one, 0, "constraint_name", "index_name")) == name for one in drops) or any(
            map(word.search, texts)
        )

    def needed_later(self, call: ast.Call, table: str) -> bool:
        """Whether a foreign key that upgrade() makes afterwards refers to the table: its key then cannot be dropped."""
        later = [node for node in ast.walk(self.function) if isinstance(node, ast.Call) and node.lineno > call.lineno]
        keys = [one for one in later if self.operation(one) == "create_foreign_key"]
        referents = [self.text(argument(one, 2, "referent_table")) for one in keys]
        inline = [one for one in later if ast.unparse(one.func).rpartition(".")[2].startswith("ForeignKey")]
        texts = [
            one.value
            for key in inline
            for one in ast.walk(key)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        ]
        return table in referents or any(table in text.split(".")[:-1] for text in texts)

    def _renamed(self) -> set[str]:
        """Names that stand for another object before than after: what is found under them proves nothing."""
        found: set[str] = set()
        for call in self.calls:
            if self.operation(call) == "rename_table":
                found |= {
                    self.text(argument(call, 0, "old_table_name")),
                    self.text(argument(call, 1, "new_table_name")),
                }
            elif self.operation(call) == "alter_column" and (new := keyword(call, "new_column_name")):
                found |= {self.text(argument(call, 1, "column_name")), self.text(new)}
        return found - {""}


def _spots(body: Sequence[ast.stmt], around: Spot) -> Iterator[Spot]:
    for one in body:
        if isinstance(one, (ast.For, ast.AsyncFor, ast.While)):
            yield from _spots([*one.body, *one.orelse], replace(around, loop=True))
        elif isinstance(one, ast.If):
            yield from _spots(
                [*one.body, *one.orelse], replace(around, tests=f"{around.tests} {ast.unparse(one.test)}")
            )
        elif isinstance(one, ast.With) and not _is_batch(one):
            yield from _spots(one.body, replace(around, autocommit=around.autocommit or is_autocommit(one)))
        elif isinstance(one, (ast.Try, ast.TryStar)):
            handlers = chain.from_iterable(handler.body for handler in one.handlers)
            yield from _spots([*one.body, *handlers, *one.orelse, *one.finalbody], around)
        elif isinstance(one, ast.Match):
            yield from _spots(
                list(chain.from_iterable(case.body for case in one.cases)),
                replace(around, tests=f"{around.tests} match"),
            )
        elif not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield replace(around, statement=one)


def _is_batch(block: ast.With) -> bool:
    return any("batch_alter_table(" in ast.unparse(item.context_expr) for item in block.items)


def argument(call: ast.Call, position: int, *names: str) -> ast.expr | None:
    """One argument, by position or name; None where it is not given."""
    starred = any(isinstance(one, ast.Starred) for one in call.args[: position + 1])
    return call.args[position] if position < len(call.args) and not starred else keyword(call, *names)


def keyword(call: ast.Call, *names: str) -> ast.expr | None:
    """One keyword argument; None where it is not given."""
    return next((one.value for one in call.keywords if one.arg in names), None)


def is_constant(node: ast.expr | None, wanted: object) -> bool:
    """Whether a node is this literal."""
    return isinstance(node, ast.Constant) and node.value is wanted


def dotted(*names: str, quoted: bool = False) -> str:
    """A qualified name as SQL, each part quoted where it must be, or always."""
    return ".".join(one if not quoted and _PLAIN.fullmatch(one) else f'"{one}"' for one in names if one)


def repeated(statement: ast.stmt) -> set[ast.AST]:
    """What runs more than once, or at another time, inside one statement."""
    return {node for one in ast.walk(statement) if isinstance(one, _MULTIPLE) for node in ast.walk(one)}


def _aliases(tree: ast.Module) -> set[str]:
    """What alembic.op is called in this file."""
    found = set()
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            whole = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            if whole == "alembic.op":
                found.add(alias.asname or (alias.name if isinstance(node, ast.Import) else "op"))
            elif whole == "alembic":
                found.add(f"{alias.asname or 'alembic'}.op")
    return found


def _assignments(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    for node in nodes:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value


def _constants(tree: ast.Module) -> dict[str, str]:
    """Names that the module binds once, to a text."""
    bound = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    bound += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    literals = [(name, node.value) for name, node in _assignments(tree.body) if isinstance(node, ast.Constant)]
    return {name: text for name, text in literals if isinstance(text, str) and bound.count(name) == 1}


def _composed(tree: ast.Module) -> set[str]:
    """Names that are bound to something else than a literal: a column's type may hide behind them."""
    return {name for name, node in _assignments(ast.walk(tree)) if not isinstance(node, ast.Constant)}
