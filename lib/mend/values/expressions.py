"""Is a text that the operator gave ONE pure expression over the columns of one table?  Checked by parsing, not by trust.

Three readers must agree, and what one of them cannot read is refused:

1. `lexical`: PostgreSQL's own lexical rules.  Quotes and brackets are closed, there is no comment and no semicolon, so that the text
   stays inside the parentheses that we put around it, and what is between parentheses is an expression, never a statement.
2. sqlglot (`grammar`): its tree holds nothing but what an expression over one row is made of: no subquery, aggregate, window, parameter.
3. The server: every function and operator of those names is known to the catalog and not volatile, and the server itself parses
   ``select (text) from t`` and ``update t set column = (text)``.  The latter is only explained, in a savepoint that is rolled back.

A function of the project that is labelled stable or immutable is believed; PostgreSQL believes it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mend.database import names, queries
from mend.errors import InvalidParameter, PrivilegeMissing, QueryFailed, from_driver, sqlstate
from mend.values import counting, grammar, lexical
from mend.values.grammar import Reading, Refused

if TYPE_CHECKING:
    import pandas
    from sqlalchemy import Connection

TIMEOUT_MS = 2000  # to parse and plan; the server computes constants meanwhile
_LONGEST_WORDS = 300  # the server repeats a value that it cannot read, however long it is
_NOTHING = "Nothing was changed."

#: Volatile, and yet safe to fill a column with: they change nothing. Only as PostgreSQL or an extension provides them.
NOT_REPEATABLE = frozenset(
    ["clock_timestamp", "gen_random_bytes", "gen_random_uuid", "gen_salt", "random", "random_normal", "timeofday", "uuid_generate_v1",
     "uuid_generate_v1mc", "uuid_generate_v4", "uuidv4", "uuidv7"]
)  # fmt: skip
#: Functions of PostgreSQL and of extensions that speak of the server, or run a query that is given as a text.
_NOT_ABOUT_ROWS = re.compile(
    r"(?!pg_(?:column_size|input_is_valid|size_bytes|size_pretty|typeof)$)"
    r"(?:pg_|txid_|lo_|dblink|\w*_to_xml|cursor_|current_setting$|set_config$|has_\w+_privilege$|inet_(?:client|server)_|ts_stat$)"
)
#: What PostgreSQL's grammar lets stand before a parenthesis though there is no function of that name.
_NO_FUNCTIONS = frozenset(
    ["all", "and", "any", "array", "between", "bit", "case", "cast", "char", "character", "coalesce", "collation", "current_time",
     "current_timestamp", "dec", "decimal", "else", "escape", "extract", "float", "for", "from", "greatest", "ilike", "in", "interval", "is",
     "least", "like", "localtime", "localtimestamp", "not", "nullif", "numeric", "or", "overlay", "placing", "position", "precision", "row",
     "some", "substring", "then", "time", "timestamp", "to", "trim", "varchar", "varying", "when", "zone"]
)  # fmt: skip
#: Operators that the grammar calls without their being written: in, between, like, case, nullif.
_UNWRITTEN = ("=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~")
_MOVING = frozenset(["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "now"])


@dataclass(frozen=True)
class Expression:
    """A checked expression over the row ``t`` of one table; ``text`` is exactly what was given.

    Put it into SQL as ``(text)``, and double its percent signs for ``exec_driver_sql``.

    ``type``: what the server calls its type. ``volatile``: it gives another value each time (random, a new uuid), so a second
    run does not repeat it. ``columns``: quoted as the catalog has them. ``notes``: what the operator should know, in sentences.
    """

    text: str
    type: str
    volatile: bool
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def checked(conn: Connection, text: str, *, table: str, column: str = "") -> Expression:
    """Check one expression, in the read-only session of a diagnosis.

    Parameters
    ----------
    text : SQL, e.g. ``'unknown'``, ``0``, ``now()``, ``lower(t.username) || '@example.invalid'``; columns bare or as ``t.column``
    table : qualified and quoted as catalog identities are: ``public.orders``, ``app."We Ird"``
    column : quoted; the server must be able to assign the value to it. '' asks about the expression alone.

    Reads: pg_proc, pg_operator, pg_cast, pg_attribute.  Writes: nothing.  Locks: ROW EXCLUSIVE on the table for a moment,
    because the server parses an UPDATE; given back at once.
    Raises: InvalidParameter with what is wrong, the server's own words, and what to write instead; PrivilegeMissing; QueryFailed
    if the server could not be asked.
    """
    columns = columns_of(conn, table)
    _check_column(column, columns, table)
    try:
        return _checked(conn, text.strip(), table=table, column=column, columns=columns)
    except Refused as why:
        raise _invalid(text, why) from why


def ordering(conn: Connection, text: str, *, table: str) -> tuple[Expression, ...]:
    """Check what may stand after ORDER BY: expressions with ``asc``, ``desc``, ``nulls first``, ``nulls last``, and commas between.

    Each ``.text`` includes its direction: join them with commas.  Raises: InvalidParameter as for ``checked``.
    """
    columns = columns_of(conn, table)
    try:
        return tuple(_ordered(conn, piece, table=table, columns=columns) for piece in grammar.pieces(text))
    except Refused as why:
        raise _invalid(text, why) from why


def assignments(conn: Connection, text: str, *, table: str) -> Mapping[str, Expression]:
    """Check ``name = 'unknown', created_at = now()``: quoted column -> expression, in the order given.

    Raises: InvalidParameter as for ``checked``, also for a column that is unknown or stands there twice.
    """
    columns = columns_of(conn, table)
    found: dict[str, Expression] = {}
    try:
        for piece in grammar.pieces(text):
            column, rest = _target(piece, columns, table)
            if column in found:
                raise Refused(f"the column {column} is set twice")
            found[column] = _checked(conn, rest, table=table, column=column, columns=columns)
    except Refused as why:
        raise _invalid(text, why) from why
    return found


def columns_of(conn: Connection, table: str) -> pandas.DataFrame:
    """The table's columns, as ``values/columns.sql`` answers.  Raises: InvalidParameter if there is no such table."""
    from sqlalchemy.exc import DBAPIError

    try:
        with conn.begin_nested():
            columns = queries.frame(conn, "values/columns", table_name=table)
    except DBAPIError as error:
        raise InvalidParameter(f"{table!r} is not the name of a table. {_NOTHING}", parameter="table") from error
    if columns.empty:
        raise InvalidParameter(
            f"There is no table {table}, or it has no columns. {_NOTHING} Write it with its schema, and quoted as PostgreSQL quotes names.",
            parameter="table",
        )
    return columns


def _invalid(text: str, why: Refused) -> InvalidParameter:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return InvalidParameter(
        f"Not an expression that can be used: {shown!r}: {why}. {_NOTHING} Correct it and run again."
    )


def _check_column(column: str, columns: pandas.DataFrame, table: str) -> None:
    if column and column not in set(columns["name"]):
        near = get_close_matches(column, list(columns["name"]), n=1)
        hint = f" Did you mean {near[0]}?" if near else f" It has: {', '.join(columns['name'])}."
        raise InvalidParameter(f"{table} has no column {column}. {_NOTHING}{hint}", parameter="column")


def _checked(conn: Connection, text: str, *, table: str, column: str, columns: pandas.DataFrame) -> Expression:
    read = grammar.read(text, list(columns["name"]))
    _check_escapes(conn, read)
    calls = _check_functions(conn, read)
    _check_operators(conn, read)
    _check_conversions(conn, read, columns, column, calls)
    type_ = _ask_server(conn, text, table=table, column=column)
    volatile = sorted(calls.loc[calls["volatility"] == "v", "name"].unique())
    return Expression(text, type_, bool(volatile), read.columns, _notes(read, calls, volatile))


# -- what the catalog knows of its names -------------------------------------------------------------------------------


def _check_escapes(conn: Connection, read: Reading) -> None:
    """A backslash in a plain string is a character, unless the session is set to the old rules."""
    if not any(token.kind == "string" and "\\" in token.text and token.text[0] not in "eE" for token in read.tokens):
        return
    answer = counting.ask(conn, "show standard_conforming_strings", timeout_ms=TIMEOUT_MS)
    if not answer.rows or answer.rows[0][0] != "on":
        raise Refused(
            r"a backslash stands in a text, and standard_conforming_strings is off in this session: write E'...\\...'"
        )


def _check_functions(conn: Connection, read: Reading) -> pandas.DataFrame:
    """What its names call, as ``values/functions.sql`` answers; every overload must be harmless, because the server chooses."""
    found = queries.frame(
        conn,
        "values/functions",
        schema_names=[schema for schema, _ in read.calls],
        function_names=[name for _, name in read.calls],
    )
    for call in read.calls:
        asked = ".".join(filter(None, call))
        if asked not in set(found["asked"]) and asked not in _NO_FUNCTIONS:
            raise Refused(f"there is no function {asked}() on the search path")
    for record in found.to_dict("records"):
        _check_function(record["name"], record["identity"], record)
    return found


def _check_function(name: str, identity: str, call: Mapping[Any, Any]) -> None:
    if call["kind"] != "f":
        what = {"a": "an aggregate", "w": "a window function", "p": "a procedure"}[call["kind"]]
        raise Refused(f"{identity} is {what}: it is not about one row")
    if call["returns_set"]:
        raise Refused(f"{identity} returns a set of rows: one value is needed")
    if call["provided"] and _NOT_ABOUT_ROWS.match(name):
        raise Refused(f"{identity} is about the server and not about the row")
    if call["volatility"] == "v" and not (call["provided"] and name in NOT_REPEATABLE):
        accepted = ", ".join(sorted(NOT_REPEATABLE))
        raise Refused(f"{identity} is volatile, so it may change something (accepted: {accepted})")


def _check_operators(conn: Connection, read: Reading) -> None:
    written = {token.text for token in read.tokens if token.kind == "operator"}
    found = queries.frame(conn, "values/operators", operator_names=sorted(written | set(_UNWRITTEN)))
    if not found.empty:
        raise Refused(f"the operator {found['identity'][0]} calls a volatile function, so it may change something")


def _check_conversions(
    conn: Connection, read: Reading, columns: pandas.DataFrame, column: str, calls: pandas.DataFrame
) -> None:
    """No type that may take part is read, written or converted by a volatile function, a domain's checks included."""
    found = queries.frame(conn, "values/conversions")
    words = read.words()
    near = [name == column or names.unquoted(name) in words for name in columns["name"]]
    oids = {*columns.loc[near, "type_oid"], *calls["result_oid"]}
    for type_ in found.to_dict("records"):
        if type_["type_oid"] in oids or type_["name"] in words:
            raise Refused(f"{type_['says']}, which is volatile, so it may change something")


def _notes(read: Reading, calls: pandas.DataFrame, volatile: Sequence[str]) -> tuple[str, ...]:
    notes = [
        f"{name}() gives another value each time it runs: what was reviewed is the rule, not the values."
        for name in volatile
    ]
    notes += [f"{word} is the time of the batch that writes the row." for word in sorted(read.words() & _MOVING)]
    own = sorted(set(calls.loc[~calls["provided"].astype(bool), "identity"]))
    notes += [f"{name} is the project's own function; that it changes nothing is its label's word." for name in own]
    return tuple(notes)


# -- what the server's parser says -------------------------------------------------------------------------------------


def _ask_server(conn: Connection, text: str, *, table: str, column: str) -> str:
    """The type, by the server's own parser, which then also tries the assignment; nothing is computed for any row."""
    typed = f"select (\n{text}\n) as value from {table} as t limit 0"
    answer = _asked(
        conn,
        f"select cast(pg_typeof(v.value) as text) from (select 1) as one left join lateral ({typed}) as v on true",
    )
    if column:
        _asked(conn, f"explain (costs off) update {table} as t set {column} = (\n{text}\n) where false")
    type_ = str(answer.rows[0][0])
    if type_ == "record":
        raise Refused("it is a row of several values")
    return type_


def _asked(conn: Connection, sql: str) -> counting.Answer:
    from sqlalchemy.exc import DBAPIError

    try:
        answer = counting.ask(conn, sql, timeout_ms=TIMEOUT_MS)
    except DBAPIError as error:
        found = from_driver(error, "The server does not take the expression", _NOTHING)
        if isinstance(found, PrivilegeMissing):
            raise found from error
        raise Refused(f"the server says: {_words(error)} (SQLSTATE {sqlstate(error)})") from error
    except UnicodeEncodeError as error:
        raise Refused("a character in it does not exist in the database's encoding") from error
    if answer.why and "lock" in answer.why:
        raise QueryFailed(f"The server could not parse the expression: it {answer.why}. {_NOTHING} Try again.")
    if answer.why:
        raise Refused(f"planning it {answer.why}: a constant in it takes that long to compute")
    return answer


def _words(error: BaseException) -> str:
    """The server's message and hint."""
    said = getattr(getattr(error, "orig", error), "diag", None)
    texts = [getattr(said, "message_primary", None), getattr(said, "message_hint", None)]
    said_in_full = (
        "; ".join(str(text).rstrip(".") for text in texts if text) or str(getattr(error, "orig", error)).strip()
    )
    return said_in_full[:_LONGEST_WORDS]


# -- lists of expressions ----------------------------------------------------------------------------------------------

_DIRECTION = re.compile(r"(?:\s+(?:asc|desc))?(?:\s+nulls\s+(?:first|last))?\s*\Z", re.IGNORECASE)


def _ordered(conn: Connection, piece: str, *, table: str, columns: pandas.DataFrame) -> Expression:
    match = _DIRECTION.search(piece)
    body = piece[: match.start()] if match else piece
    found = _checked(conn, body, table=table, column="", columns=columns)
    if not found.columns:
        raise Refused(f"{body} names no column, so it puts nothing in order")  # and a bare number would mean a position
    return replace(found, text=piece)


def _target(piece: str, columns: pandas.DataFrame, table: str) -> tuple[str, str]:
    """``column = expression``: the catalog's name of the column, and the rest."""
    tokens = grammar.tokens_of(piece)
    if (
        len(tokens) < 3
        or tokens[0].kind not in ("word", "name")
        or tokens[1] != lexical.Token("operator", "=", tokens[1].at)
    ):
        raise Refused(f"{piece!r} is not column = expression")
    by_name = {names.unquoted(name): name for name in columns["name"]}
    if tokens[0].value not in by_name:
        raise Refused(f"{table} has no column {tokens[0].text}; it has: {', '.join(by_name.values())}")
    return by_name[tokens[0].value], piece[tokens[1].at + 1 :].strip()
