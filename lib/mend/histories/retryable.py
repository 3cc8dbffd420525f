"""What makes an upgrade() safe to run again after it stopped half way: additions to its source, one rule per operation.

What a retry finds is passed over (``if_not_exists``, or a look into the catalog where Alembic has not got it), or dropped first
where passing over would keep something worse: an INVALID index (facts 1.5), another constraint of the same name.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace

from mend.histories.callsites import Left, Named, Spot, Upgrade, argument, dotted, is_constant, keyword, repeated
from mend.histories.source import Insertion, Source

# The Alembic version that brought the argument to each operation.
IF_NOT_EXISTS = {"create_table": (1, 13, 3), "create_index": (1, 12), "add_column": (1, 16)}
IF_EXISTS = {"drop_table": (1, 13, 3), "drop_index": (1, 12), "drop_column": (1, 16), "drop_constraint": (1, 16)}
CONSTRAINTS = {
    "create_check_constraint": "check",
    "create_unique_constraint": "unique",
    "create_primary_key": "primary",
    "create_foreign_key": "foreignkey",
    "create_exclude_constraint": "",
}
_REPEATABLE = {
    "get_bind",
    "get_context",
    "f",
    "inline_literal",
    "alter_column",
    "create_table_comment",
    "drop_table_comment",
    "batch_alter_table",
}
_REPEATABLE_SQL = re.compile(
    r"\s*(drop\s[^;]*\bif\s+exists\b|alter\s+table\s[^;]*\bdrop\s+constraint\s+if\s+exists\b|comment\s+on\b|create\s+or\s+replace\b|set\b)[^;]*;?\s*",
    re.IGNORECASE,
)
_WIDTH = 88  # lines of such files, as formatters leave them


@dataclass(frozen=True)
class Rewritten:
    """The new text, and what was left alone, one line each."""

    text: str
    left: tuple[str, ...]


def rewrite(text: str, *, alembic: str = "", translated: bool = False) -> Rewritten:
    """Add to upgrade() what a retry needs.

    Parameters
    ----------
    text : the revision file
    alembic : the version that runs it; where it is not known, only what every version has is used
    translated : schemas are translated on the way (schema_translate_map), so no SQL that names tables can be added

    Returns
    -------
    Rewritten; its text is the same where there is nothing to add, and rewriting it again adds nothing

    Raises: SyntaxError where Python cannot read the text.
    """
    source = Source(text)
    functions = [node for node in source.tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    if not functions:
        return Rewritten(text, ("upgrade() is not defined in this file",))
    rules = _Rules(source, Upgrade(source.tree, functions[-1]), alembic, translated=translated)
    insertions = [one for spot in rules.upgrade.spots() for one in rules.additions(spot)]
    changed = source.with_insertions(insertions)
    compile(changed, "revision", "exec", dont_inherit=True)
    return Rewritten(changed, tuple(rules.left))


class _Rules:
    """The rules, for one file; ``left`` grows with what they do not cover."""

    def __init__(self, source: Source, upgrade: Upgrade, alembic: str, *, translated: bool) -> None:
        self.source, self.upgrade, self.translated = source, upgrade, translated
        self.left: list[str] = []
        self.version = tuple(int(part) for part in re.findall(r"\d+", alembic)[:3])
        body = upgrade.function.body[0]
        self.unit = (source.indent(body.lineno) if body.lineno > upgrade.function.lineno else "") or "    "

    def additions(self, spot: Spot) -> list[Insertion]:
        """What one statement needs before or in it; notes what it leaves alone."""
        if isinstance(spot.statement, ast.With):
            self._leave(spot.statement, "a batch operation")
            return []
        found: list[Insertion] = []
        inner = repeated(spot.statement)
        for call in [node for node in ast.walk(spot.statement) if isinstance(node, ast.Call)]:
            try:
                found += self._rule(call, replace(spot, loop=spot.loop or call in inner))
            except Left as reason:
                self._leave(call, str(reason))
        return found

    def _leave(self, node: ast.With | ast.Call, why: str) -> None:
        text = " ".join(self.source.written(node.items[0].context_expr if isinstance(node, ast.With) else node).split())
        shown = text if len(text) <= 72 else f"{text[:69]}..."
        self.left.append(f"line {node.lineno}, {shown}" + (f" ({why})" if why else ""))

    def _rule(self, call: ast.Call, spot: Spot) -> list[Insertion]:
        operation = self.upgrade.operation(call)
        if not operation and not self.upgrade.sends(call, spot.statement):
            return []
        if operation in _REPEATABLE and not keyword(call, "new_column_name", "postgresql_using"):
            return []
        if operation == "execute" and _is_repeatable_sql(argument(call, 0, "sqltext")):
            return []
        if operation not in IF_NOT_EXISTS and operation not in IF_EXISTS and operation not in CONSTRAINTS:
            raise Left("")
        if spot.loop:
            raise Left("in a loop")
        if any(one.arg is None for one in call.keywords):
            raise Left("computed arguments")
        about = self.upgrade.about(call)
        if self.upgrade.renamed & {about.table, about.name}:
            raise Left("renamed in this revision")
        if operation in CONSTRAINTS:
            return self._constraint(call, about, spot)
        concurrent = keyword(call, "postgresql_concurrently")
        if operation == "create_index" and concurrent is not None and not is_constant(concurrent, False):
            return self._concurrent_index(call, about, spot)
        return self._passed_over(call, about, spot)

    def _has(self, operation: str) -> bool:
        return self.version >= (IF_NOT_EXISTS | IF_EXISTS)[operation]

    def _passed_over(self, call: ast.Call, about: Named, spot: Spot) -> list[Insertion]:
        """if_exists or if_not_exists; a guard where Alembic has not got it, or where the operation makes more than one object."""
        operation = self.upgrade.operation(call)
        wanted = "if_not_exists" if operation in IF_NOT_EXISTS else "if_exists"
        if keyword(call, wanted) is not None:
            return []
        several = operation in ("create_table", "add_column") and self._makes_more(call, operation)
        if not several and self._has(operation):
            return [self.source.keyword(call, f"{wanted}=True")]
        if several and spot.autocommit:
            raise Left("what belongs to it is committed apart from it")
        place = "there" if operation in IF_NOT_EXISTS else "gone"
        why = "with all that is made with it" if several else f"and not every Alembic has {wanted} here"
        return self._guarded(call, _question(operation, about), spot, f"A retry may find it {place}, {why}.")

    def _makes_more(self, call: ast.Call, operation: str) -> bool:
        """Whether a table or column brings types, indexes or constraints that ``if_not_exists`` says nothing about."""
        words = r"enum\b|\bindex=(?!False)" + (r"|\bunique=(?!False)|ForeignKey\(" if operation == "add_column" else "")
        names = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
        return bool(re.search(words, ast.unparse(call), re.IGNORECASE)) or bool(names & self.upgrade.composed)

    def _constraint(self, call: ast.Call, about: Named, spot: Spot) -> list[Insertion]:
        """Dropped first: what is found may be another one of that name, or NOT VALID."""
        operation = self.upgrade.operation(call)
        if self.upgrade.dropped_before(call, about.name):
            return []
        if operation in ("create_unique_constraint", "create_primary_key") and self.upgrade.needed_later(
            call, about.table
        ):
            question = f"{_question('drop_constraint', about)} and convalidated"
            return self._guarded(
                call, question, spot, "A retry may find it there, with a foreign key that needs it.", exists=False
            )
        why = "# A retry may find it there: there is no ADD CONSTRAINT IF NOT EXISTS."
        if not self._has("drop_constraint"):
            self._needs_sql()
            sql = (
                f"ALTER TABLE {about.relation(quoted=True)} DROP CONSTRAINT IF EXISTS {dotted(about.name, quoted=True)}"
            )
            return self._first([why, *self._call(call, "execute", [_string(sql)])], spot)
        # type_ lets a naming convention make the same name of it as of the constraint.
        kind = [f'type_="{CONSTRAINTS[operation]}"'] if CONSTRAINTS[operation] else []
        names = [
            *self._written(argument(call, 0, "constraint_name")),
            *self._written(argument(call, 1, "table_name", "source_table")),
        ]
        return self._first(
            [why, *self._call(call, "drop_constraint", [*names, *kind, *self._schema(call), "if_exists=True"])], spot
        )

    def _concurrent_index(self, call: ast.Call, about: Named, spot: Spot) -> list[Insertion]:
        if self.upgrade.dropped_before(call, about.name):
            return []
        if spot.tests:
            raise Left("its condition may take an INVALID index for a whole one")
        why = "# An interrupted build leaves an INVALID index of this name, which IF NOT EXISTS would keep."
        if not self._has("drop_index"):
            self._needs_sql()
            sql = f"DROP INDEX CONCURRENTLY IF EXISTS {dotted(about.schema, about.name, quoted=True)}"
            return self._first([why, *self._call(call, "execute", [_string(sql)])], spot)
        table = [f"table_name={one}" for one in self._written(argument(call, 1, "table_name")) if about.table]
        name = self._written(argument(call, 0, "index_name"))
        arguments = [*name, *table, *self._schema(call), "if_exists=True", "postgresql_concurrently=True"]
        return self._first([why, *self._call(call, "drop_index", arguments)], spot)

    def _written(self, node: ast.expr | None) -> list[str]:
        return [self.source.segment(node)] if node is not None else []

    def _schema(self, call: ast.Call) -> list[str]:
        return [f"schema={one}" for one in self._written(keyword(call, "schema", "source_schema")) if one != "None"]

    def _call(self, like: ast.Call, operation: str, arguments: list[str]) -> list[str]:
        """Another call of op, as lines."""
        name = f"{_op(like)}.{operation}"
        line = f"{name}({', '.join(arguments)})"
        return (
            [line] if len(line) + like.col_offset <= _WIDTH else [f"{name}(", f"{self.unit}{', '.join(arguments)}", ")"]
        )

    def _first(self, lines: list[str], spot: Spot) -> list[Insertion]:
        if not self.source.alone(spot.statement):
            raise Left("it shares its line")
        return [self.source.before(spot.statement, lines)]

    def _needs_sql(self) -> None:
        if self.translated:
            raise Left("its schema is translated")

    def _guarded(
        self, call: ast.Call, question: str, spot: Spot, why: str, *, exists: bool | None = None
    ) -> list[Insertion]:
        """Put a statement under an ``if`` that asks the catalog, and that ``alembic --sql`` passes."""
        if "pg_catalog." in spot.tests:
            return []
        if spot.tests:
            raise Left("it has a condition of its own")
        if not (
            isinstance(spot.statement, ast.Expr) and spot.statement.value is call and self.source.alone(spot.statement)
        ):
            raise Left("it is part of a larger statement")
        self._needs_sql()
        wanted = self.upgrade.operation(call) in IF_EXISTS if exists is None else exists
        where, _, conditions = question.partition(" where ")
        ask = (
            f"if {_op(call)}.get_context().as_sql or {'' if wanted else 'not '}{_op(call)}.get_bind().exec_driver_sql("
        )
        lines = [
            f"# {why}",
            ask,
            f"{self.unit}{_string(f'select 1 {where}')}",
            f"{self.unit}{_string(f' where {conditions}')}",
            ").first():",
        ]
        return [self.source.before(spot.statement, lines), *self.source.deeper(spot.statement, self.unit)]


def _question(operation: str, about: Named) -> str:
    """FROM and WHERE of the question whether an object is there, asked where the statement itself would look."""
    named = f"relname = '{about.name}'"
    if operation in ("add_column", "drop_column"):
        return f"from pg_catalog.pg_attribute where attrelid = to_regclass('{about.relation()}') and attname = '{about.name}' and attnum > 0 and not attisdropped"
    if operation == "create_table":
        schema = f"'{about.schema}'" if about.schema else "current_schema()"
        return f"from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace where nspname = {schema} and {named} and relkind in ('r', 'p')"
    if operation == "create_index":
        return f"from pg_catalog.pg_index join pg_catalog.pg_class c on c.oid = indexrelid where indrelid = to_regclass('{about.relation()}') and {named} and indisvalid"
    if operation == "drop_constraint":
        return f"from pg_catalog.pg_constraint where conrelid = to_regclass('{about.relation()}') and conname = '{about.name}'"
    return f"from pg_catalog.pg_class where oid = to_regclass('{dotted(about.schema, about.name)}')"


def _op(call: ast.Call) -> str:
    """What the file calls alembic's op, as this call does."""
    assert isinstance(call.func, ast.Attribute)
    return ast.unparse(call.func.value)


def _is_repeatable_sql(node: ast.expr | None) -> bool:
    return (
        isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_REPEATABLE_SQL.fullmatch(node.value))
    )


def _string(text: str) -> str:
    """A Python literal, in double quotes where that needs no escape."""
    return f"'{text}'" if '"' in text and "'" not in text else '"' + text.replace('"', '\\"') + '"'
