"""What a text must consist of to be one expression over the columns of a table: by its tokens, and by sqlglot's tree.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mend.database import names
from mend.values import lexical

if TYPE_CHECKING:
    from sqlglot import exp

_MOST_NODES = 50_000  # sqlglot tries some nested brackets in two ways each: without a bound, 16 of them take minutes
#: Values without parentheses that look like a column.
_VALUES = frozenset(
    ["current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "localtime",
     "localtimestamp", "session_user", "user"]
)  # fmt: skip


class Refused(ValueError):
    """Why a text is refused, and perhaps what to write instead; one sentence without its full stop."""


@dataclass(frozen=True)
class Reading:
    """What a text was read as. ``columns``: as the catalog has them. ``calls``: (schema or '', function), unquoted, as looked up."""

    tokens: tuple[lexical.Token, ...]
    columns: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]

    def words(self) -> frozenset[str]:
        """Every name in it, quoted or not."""
        return frozenset(token.value for token in self.tokens if token.kind in ("word", "name"))


def read(text: str, columns: Sequence[str]) -> Reading:
    """Read a text over a table ``t`` with these columns (quoted as in the catalog).  Raises: Refused."""
    tokens = tokens_of(text)
    _check_tokens(tokens)
    return Reading(tokens, _check_tree(_parsed(text), columns), _calls(tokens))


def pieces(text: str) -> list[str]:
    """The text between the top-level commas.  Raises: Refused."""
    return [text[start:end].strip() for start, end in lexical.parts(tokens_of(text), text)]


def tokens_of(text: str) -> tuple[lexical.Token, ...]:
    """`lexical.tokens`.  Raises: Refused."""
    try:
        return lexical.tokens(text)
    except lexical.Unreadable as why:
        raise Refused(str(why)) from why


# -- by its tokens -----------------------------------------------------------------------------------------------------


def _check_tokens(tokens: Sequence[lexical.Token]) -> None:
    """What PostgreSQL's grammar would take between parentheses and we do not."""
    opened = True  # our own parenthesis
    for n, token in enumerate(tokens):
        before = tokens[n - 1] if n else None
        word = token.value if token.kind == "word" else ""
        if opened and word in ("select", "values", "table", "with"):
            raise Refused(
                f"a subquery stands in it ({word.upper()}): an expression over the columns of one row is needed"
            )
        if token.text == "*" and (before is None or before.text in ("(", ".", ",")):
            raise Refused("a star stands for all columns: name the columns")
        if token.text == "." and before is not None and before.text in (")", "]"):
            raise Refused("a field of a value, as in (a).b, is not accepted: it can call a function")
        if word == "operator" and _next(tokens, n) == "(":
            raise Refused("operator(...) is not accepted: write the operator itself")
        if word == "default" and len(tokens) == 1:
            raise Refused("DEFAULT is no expression: write the default value itself")
        opened = token.text == "(" and token.kind == "mark"


def _next(tokens: Sequence[lexical.Token], n: int) -> str:
    return tokens[n + 1].text if n + 1 < len(tokens) else ""


def _chains(tokens: Sequence[lexical.Token]) -> Iterator[tuple[list[str], bool, bool]]:
    """Every name, dotted or not: its parts, whether a parenthesis follows, and whether it is a type or a collation by its place."""
    n = 0
    while n < len(tokens):
        if tokens[n].kind not in ("word", "name"):
            n += 1
            continue
        start, chain = n, [tokens[n].value]
        while n + 2 < len(tokens) and tokens[n + 1].text == "." and tokens[n + 2].kind in ("word", "name"):
            n += 2
            chain.append(tokens[n].value)
        before = tokens[start - 1] if start else None
        placed = before is not None and (
            before.text == "::" or (before.value in ("as", "collate") and before.kind == "word")
        )
        yield chain, _next(tokens, n) == "(", placed
        n += 1


def _calls(tokens: Sequence[lexical.Token]) -> tuple[tuple[str, str], ...]:
    """Every name before a parenthesis, but types behind ``::`` and ``as``."""
    called: dict[tuple[str, str], None] = {}
    for chain, call, placed in _chains(tokens):
        if placed:
            continue
        if call and len(chain) <= 2:
            called[("", *chain)[-2], chain[-1]] = None
        elif len(chain) > 2 or (len(chain) == 2 and chain[0] != "t"):
            raise Refused(f"{'.'.join(chain)} is no column of t; a type goes behind ::, a text in single quotes")
    return tuple(called)


# -- by sqlglot --------------------------------------------------------------------------------------------------------


def _parsed(text: str) -> exp.Expr:
    """The tree of the text, which sqlglot must take for exactly one expression."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        found = sqlglot.parse(f"select (\n{text}\n)", dialect="postgres", max_nodes=_MOST_NODES)
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise Refused(f"it does not parse{_where(error)}") from error
    select = found[0] if len(found) == 1 else None
    if not isinstance(select, exp.Select) or len(select.expressions) != 1 or _other_parts(select):
        raise Refused("it is more than one expression")
    whole = select.expressions[0]
    if not isinstance(whole, exp.Paren) or _other_parts(whole, but="this"):
        raise Refused("it is not one expression, or it is a list of them")
    return whole


def _other_parts(node: exp.Expr, *, but: str = "expressions") -> list[str]:
    return [name for name, value in node.args.items() if value and name != but]


def _where(error: Exception) -> str:
    found = getattr(error, "errors", None)
    said = str(found[0].get("description", "")) if found else ""
    return f" ({said.rstrip('.')}, near {str(found[0].get('highlight'))[:30]!r})" if found and said else ""


def _check_tree(tree: exp.Expr, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that it uses.  Every node must be of a known harmless kind."""
    from sqlglot import exp

    harmless = (
        exp.Binary, exp.Unary, exp.Func, exp.Column, exp.Identifier, exp.Null, exp.Boolean, exp.Literal, exp.DataType, exp.DataTypeParam,
        exp.In, exp.Between, exp.Interval, exp.IntervalSpan, exp.Var, exp.AtTimeZone, exp.Bracket, exp.Tuple, exp.Condition, exp.JSONPath, exp.JSONPathPart,
    )  # fmt: skip
    harmful = (
        exp.Query, exp.Subquery, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter, exp.SessionParameter, exp.Star, exp.Alias, exp.UDTF,
        exp.Exists, exp.Filter, exp.WithinGroup, exp.Lambda, exp.Kwarg, exp.PropertyEQ, exp.Command, exp.DML, exp.Operator, exp.PseudoType,
    )  # fmt: skip
    used: dict[str, None] = {}
    for node in tree.walk():
        if isinstance(node, harmful) or not isinstance(node, harmless):
            raise Refused(f"{_word(node)} has no place in an expression over one row")
        if isinstance(node, exp.Column):
            used.update(dict.fromkeys(_column(node, columns)))
    return tuple(used)


def _word(node: exp.Expr) -> str:
    from sqlglot import exp

    kinds = {
        exp.AggFunc: "an aggregate", exp.Window: "a window function", exp.Query: "a subquery", exp.Subquery: "a subquery",
        exp.Exists: "a subquery", exp.Placeholder: "a parameter", exp.Parameter: "a parameter", exp.Star: "a star",
    }  # fmt: skip
    return next((says for kind, says in kinds.items() if isinstance(node, kind)), f"what it holds ({node.key})")


def _column(node: exp.Column, columns: Sequence[str]) -> tuple[str, ...]:
    """The catalog's name of one column; () for a word like CURRENT_USER."""
    parts = [_folded(part) for part in node.parts]
    by_name = {names.unquoted(name): name for name in columns}
    name = parts[-1]
    if parts[:-1] not in ([], ["t"]):
        raise Refused(f"{'.'.join(parts)} is no column of t: write the column alone, or t.{name}")
    if name in by_name:
        return (by_name[name],)
    if len(parts) == 1 and not node.this.args.get("quoted") and name in _VALUES:
        return ()
    raise Refused(f"the table has no column {name}{_meant(node, name, by_name)}")


def _folded(part: Any) -> str:
    token = lexical.Token("word", part.name, 0)
    return part.name if part.args.get("quoted") else token.value


def _meant(node: exp.Column, name: str, by_name: Mapping[str, str]) -> str:
    near = get_close_matches(name, by_name, n=1, cutoff=0.75)
    if near:
        return f"; did you mean {by_name[near[0]]}"
    text = node.name.replace("'", "''")
    quoted = "; double quotes are for names" if node.this.args.get("quoted") else ""
    return f"; did you mean the text '{text}'? Then put it in single quotes{quoted}"
