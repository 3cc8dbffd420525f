"""One UPDATE, DELETE or INSERT taken apart: its table, what it sets, which rows; also where a loop runs it in batches.  Pure.

Read with `lexical`'s rules: what cannot be read with certainty is refused, with why.  The parts are texts of the statement itself, with
the table's alias renamed to ``t``; whether they are pure expressions of a row is for `expressions` to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mend.database import names, sqltext
from mend.slow.dml_text import Text, Unknown
from mend.values import lexical
from mend.values.lexical import Token, Unreadable

Kind = Literal["update", "delete", "insert"]
_ENDS = ("from", "using", "where", "returning")
_INNER = (
    "where",
    "group",
    "having",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "union",
    "intersect",
    "except",
    "window",
)
GIVEN = "mend_given"  # stands for a parameter whose value is not known
_PARAMETER = re.compile(r"\$\d+|%\(\w+\)s|(?<![:\w]):\w+")


@dataclass(frozen=True)
class Change:
    """What a statement does to the rows of one table.

    ``table``: as it is written.  ``values``: column -> expression, both as written.  ``where``: '' for all rows.  ``batch_key``: the
    column by which a loop picks the next rows ('' where it takes them all at once).  ``given``: values of it are parameters, so they
    are not known.  ``limited``: it picks so many rows of them alone (LIMIT), so only a loop around it changes all.  ``why_not``: why its rows
    cannot be named by ``where`` alone; then the other parts are only a guide.
    """

    kind: Kind
    table: str
    values: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    batch_key: str = ""
    given: bool = False
    limited: bool = False
    why_not: str = ""


def read(sql: str) -> Change | None:
    """The change of rows that a statement makes; None for any other statement, or one that cannot be read.

    >>> read("update only shop.orders as o set note = '' where o.note is null")
    Change(kind='update', table='shop.orders', values={'note': "''"}, where='t.note is null', batch_key='', given=False, limited=False, why_not='')
    """
    text = sqltext.without_comments(sql).strip().rstrip(";").strip()
    filled = _PARAMETER.sub(GIVEN, text)
    try:
        tokens = lexical.tokens(filled)
    except Unreadable:
        return None
    try:
        found = _statement(Text(filled, tokens))
    except Unknown as why:
        found = _guide(filled, str(why))
    parts = [*found.values.values(), found.where] if found else []
    return replace(found, given=any(GIVEN in part for part in parts)) if found else None


def shape(sql: str) -> str:
    """A statement in a normal form without any value, in which the same statement is the same however its values are given.

    >>> shape("UPDATE t SET a = 1 WHERE b = 'x'") == shape("update t set a = $1 where b = %(b)s -- ?")
    True
    """
    text = _PARAMETER.sub("0", sqltext.without_comments(sql))
    found = " ; ".join(sqltext.statements(text))
    found = re.sub(r"''|(?<![\w.\"])\d[\w.]*|\b(?:null|true|false)\b", "?", found)
    return re.sub(
        r" : : [\w.]+(?: \[ \])?", "", found
    )  # psycopg and asyncpg write casts behind a value, the other drivers do not


def equalities(where: str) -> tuple[list[str], list[str]]:
    """The columns that a condition compares for equality with a value, and those that it wants to be NULL; ANDs alone are read.

    >>> equalities("t.reference = mend_given::varchar and email is null and lower(x) = 'a'")
    (['reference'], ['email'])
    """
    try:
        tokens = lexical.tokens(where)
    except Unreadable:
        return [], []
    text = Text(where, tokens)
    equal, null = [], []
    if any(text.word(n) == "or" for n in text.top()):
        return [], []
    for part in text.parts([n for n in text.top() if text.word(n) == "and"]):
        column, rest = _leading_column(part)
        words = [token.value for token in rest]
        if column and words[:1] == ["="] and not any(_names_something(rest, n) for n in range(1, len(rest))):
            equal.append(column)
        elif column and words == ["is", "null"]:
            null.append(column)
    return equal, null


def _names_something(tokens: Sequence[Token], n: int) -> bool:
    """Whether a token may be another column or a function: not a parameter, NULL, or the type behind ``::``."""
    known = tokens[n].value in ("null", GIVEN) or tokens[n - 1].text == "::"
    return tokens[n].kind in ("word", "name") and not known


def _leading_column(part: Sequence[Token]) -> tuple[str, Sequence[Token]]:
    if len(part) > 2 and part[1].text == "." and part[0].value == "t":
        part = part[2:]
    return (part[0].text, part[1:]) if part and part[0].kind in ("word", "name") else ("", part)


def _statement(text: Text) -> Change | None:
    first = text.word(0)
    if first == "with":
        return _with(text)
    if first == "update":
        return _returning(_update(text, {}), text)
    if first == "delete":
        return _delete(text)
    if first == "insert" and text.word(1) == "into":
        return Change("insert", text.name(2)[0], why_not="it inserts rows")
    return None


def _guide(sql: str, why: str) -> Change | None:
    """The table alone, where the rest could not be read."""
    found = re.search(rf"\b(update|delete from|insert into)\s+(?:only\s+)?({sqltext.NAME})", sql, re.IGNORECASE)
    kinds: dict[str, Kind] = {"update": "update", "delete from": "delete", "insert into": "insert"}
    return Change(kinds[found[1].lower()], found[2], why_not=why) if found else None


def _with(text: Text) -> Change | None:
    """``with batch as (select ...) update ...``: one query beforehand, which says what the next rows are."""
    if text.word(1) == "recursive":
        raise Unknown("it has a recursive query before it")
    name, n = text.tokens[1].value, 2
    if text.word(n) != "as":
        raise Unknown("it cannot be read")
    n += 1
    n += text.word(n) == "not"
    n += text.word(n) == "materialized"
    close = _closing(text, n)
    inner = text.part(n + 1, close)
    if text.mark(close + 1) == ",":
        raise Unknown("it has several queries before it")
    rest = text.part(close + 1, len(text.tokens))
    if rest.word(0) == "update":
        return _returning(_update(rest, {name: inner}), rest)
    raise Unknown("it has a query before it")


def _closing(text: Text, n: int) -> int:
    if text.mark(n) != "(":
        raise Unknown("it cannot be read")
    depth = 0
    for at in range(n, len(text.tokens)):
        depth += (text.mark(at) == "(") - (text.mark(at) == ")")
        if depth == 0:
            return at
    raise Unknown("it cannot be read")


def _update(text: Text, before: Mapping[str, Text]) -> Change:
    n = 1 + (text.word(1) == "only")
    table, n = text.name(n)
    alias, n = text.alias(n, ("set",))
    if text.word(n) != "set":
        raise Unknown("it cannot be read")
    marks = {text.word(at): at for at in reversed(text.top(n + 1)) if text.word(at) in _ENDS}
    end = min(marks.values(), default=len(text.tokens))
    own = {alias or names.unquoted(names.last(table))}
    values = _values(text, n + 1, end, own)
    where = _where(text, marks)
    if "from" in marks:
        return _from_batch(text, marks, table, own, values, before)
    if (picked := _picked(where, table, own, before)) is not None:
        key, condition, limited = picked
        return Change("update", table, values, condition, batch_key=key, limited=limited)
    _require_one_table(where)
    return Change("update", table, values, _renamed(where, own))


def _returning(change: Change, text: Text) -> Change:
    """What it gives back is for the migration that sent it: sent again later, when nothing is left to change, it would give nothing."""
    if any(text.word(n) == "returning" for n in text.top()):
        return replace(
            change, why_not="it gives its rows back (RETURNING), and what the migration does with them is not known"
        )
    return change


def _values(text: Text, start: int, end: int, own: set[str]) -> dict[str, str]:
    part = text.part(start, end)
    found: dict[str, str] = {}
    for piece in part.parts([n for n in part.top() if part.mark(n) == ","]):
        if len(piece) < 3 or piece[0].kind not in ("word", "name") or piece[1].text != "=":
            raise Unknown("it sets several columns from one query")
        said = piece[-1]
        value = part.sql[piece[2].at : said.at + len(said.text)]
        inner = Text(value, lexical.tokens(value))
        if inner.word(0) == "default":
            raise Unknown("it sets a column to DEFAULT")
        _require_one_table(inner)
        found[piece[0].text] = _renamed(inner, own)
    return found


def _delete(text: Text) -> Change:
    n = 2 + (text.word(2) == "only")
    table, n = text.name(n)
    alias, n = text.alias(n, _ENDS)
    marks = {text.word(at): at for at in reversed(text.top(n)) if text.word(at) in _ENDS}
    if "using" in marks:
        raise Unknown("it reads other tables (USING)")
    where = _where(text, marks)
    _require_one_table(where)
    return Change("delete", table, {}, _renamed(where, {alias or names.unquoted(names.last(table))}))


def _where(text: Text, marks: Mapping[str, int]) -> Text:
    if "where" not in marks:
        return Text("", ())
    start = marks["where"] + 1
    if text.word(start) == "current":
        raise Unknown("it goes by a cursor")
    return text.part(start, marks.get("returning", len(text.tokens)))


def _require_one_table(text: Text) -> None:
    if any(token.kind == "word" and token.value == "select" for token in text.tokens):
        raise Unknown("it reads other rows (a subquery)")


def _renamed(text: Text, own: set[str]) -> str:
    """The text with ``alias.column`` as ``t.column``."""
    found, at = [], 0
    for n, token in enumerate(text.tokens):
        if (
            token.kind in ("word", "name")
            and token.value in own
            and text.mark(n + 1) == "."
            and text.mark(n - 1) != "."
        ):
            found += [text.sql[at : token.at], "t"]
            at = token.at + len(token.text)
    return "".join([*found, text.sql[at:]]).strip()


# -- batches ------------------------------------------------------------------------------------------------------------


def _picked(where: Text, table: str, own: set[str], before: Mapping[str, Text]) -> tuple[str, str, bool] | None:
    """``key in (select key from batch)`` or ``key in (select key from t where ... limit n)``: as ``_same_table``."""
    key, n = _own_column(where, 0, own)
    if not key or (where.word(n) not in ("in", "=") and where.mark(n) != "="):
        return None
    n += 1 + (where.word(n + 1) == "any")
    if where.mark(n) != "(" or _closing(where, n) != len(where.tokens) - 1:
        return None
    inner = where.part(n + 1, len(where.tokens) - 1)
    if inner.word(0) == "array" and inner.mark(1) == "(":
        inner = inner.part(2, len(inner.tokens) - 1)
    if inner.word(0) != "select":
        return None
    item, source, rest = _selected(inner)
    if source in before and not rest.tokens:
        inner_item, source, rest = _selected(before[source])
        item = inner_item if names.unquoted(item) == names.unquoted(inner_item) else ""
    return _same_table(table, key, item, source, rest)


def _from_batch(
    text: Text,
    marks: Mapping[str, int],
    table: str,
    own: set[str],
    values: Mapping[str, str],
    before: Mapping[str, Text],
) -> Change:
    """``update t set ... from batch where t.id = batch.id``."""
    source, n = text.name(marks["from"] + 1)
    alias, n = text.alias(n, _ENDS)
    where = _where(text, marks)
    key, at = _own_column(where, 0, own)
    other, end = _own_column(where, at + 1, {alias or source, source})
    joined = where.mark(at) == "=" and end == len(where.tokens)
    if source not in before or not joined or n < marks.get("where", n) or names.unquoted(key) != names.unquoted(other):
        raise Unknown("it reads other tables (FROM)")
    item, home, rest = _selected(before[source])
    found = _same_table(table, key, item, home, rest)
    if found is None:
        raise Unknown("it reads other tables (FROM)")
    return Change("update", table, values, found[1], batch_key=found[0], limited=found[2])


def _own_column(text: Text, n: int, own: set[str]) -> tuple[str, int]:
    """``column`` or ``alias.column``, and where the text goes on."""
    if n >= len(text.tokens) or text.tokens[n].kind not in ("word", "name"):
        return "", n
    if text.mark(n + 1) == "." and text.tokens[n].value in own and n + 2 < len(text.tokens):
        return text.tokens[n + 2].text, n + 3
    return text.tokens[n].text, n + 1


def _selected(text: Text) -> tuple[str, str, Text]:
    """``select item from source rest``; the item without its qualifier."""
    if text.word(0) != "select":
        raise Unknown("it reads other rows (a subquery)")
    item, n = text.name(1)
    if text.word(n) != "from":
        raise Unknown("it reads other rows (a subquery)")
    source, n = text.name(n + 1 + (text.word(n + 1) == "only"))
    return names.last(item), source, text.part(n, len(text.tokens))


def _same_table(table: str, key: str, item: str, source: str, rest: Text) -> tuple[str, str, bool] | None:
    """Of a query that picks keys of the same table: the key, the condition, and whether it takes only so many."""
    if names.unquoted(names.last(source)) != names.unquoted(names.last(table)) or names.unquoted(key) != names.unquoted(
        item
    ):
        return None
    alias, n = rest.alias(0, _INNER)
    marks = [at for at in rest.top(n) if rest.word(at) in _INNER]
    if (n < len(rest.tokens) and (not marks or marks[0] != n)) or any(
        rest.word(at) in ("group", "union", "intersect", "except", "having", "window") for at in marks
    ):
        return None
    limited = any(rest.word(at) in ("limit", "offset", "fetch") for at in marks)
    if not marks or rest.word(marks[0]) != "where":
        return key, "", limited
    condition = rest.part(marks[0] + 1, marks[1] if len(marks) > 1 else len(rest.tokens))
    _require_one_table(condition)
    return key, _renamed(condition, {alias or names.unquoted(names.last(table))}), limited
