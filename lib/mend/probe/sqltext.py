"""What can be told of a statement from its text alone, and values as SQL."""

from __future__ import annotations

import datetime
import decimal
import re
import uuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_LEXEMES = re.compile(
    r"""(?P<quoted>"(?:[^"]|"")*")|(?P<comment>--[^\n]*|/\*.*?\*/)"""
    r"""|(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$)""",
    re.DOTALL,
)
NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
QUALIFIED = NAME + r"(?:\s*\.\s*" + NAME + ")*"
READS = {"select", "with", "values", "table", "show", "explain", "fetch", "move", "declare", "close"}
CONTROLS = {"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "set", "reset", "lock",
            "discard", "listen", "unlisten", "deallocate", "checkpoint"}  # fmt: skip
ROW_CHANGES = {"insert", "update", "delete", "merge", "copy", "truncate", "select", "with", "values", "call", "analyze"}
HARMLESS = {
    "random", "clock_timestamp", "timeofday", "gen_random_uuid", "uuid_generate_v4", "uuidv4", "uuidv7", "set_config",
    "current_setting", "currval", "lastval", "txid_current", "pg_current_xact_id", "pg_sleep", "pg_sleep_for",
    "pg_advisory_lock", "pg_advisory_xact_lock", "pg_try_advisory_lock", "pg_try_advisory_xact_lock",
    "pg_advisory_unlock", "pg_advisory_unlock_all", "pg_advisory_lock_shared", "pg_relation_size", "pg_table_size",
    "pg_total_relation_size", "pg_database_size", "pg_control_system", "pg_backend_pid", "pg_locks",
}  # fmt: skip


def skeleton(sql: str) -> str:
    """The statement without comments and with empty strings, so that words in it are really words."""
    return _LEXEMES.sub(lambda m: m.group("quoted") or (" " if m.group("comment") else "''"), sql)


def parts(bare: str) -> list[str]:
    """The single statements of a skeleton; a body in BEGIN ATOMIC is left whole."""
    if re.search(r"\bbegin\s+atomic\b", bare, re.IGNORECASE):
        return [bare.strip()]
    return [part.strip() for part in bare.split(";") if part.strip()]


def first_word(part: str) -> str:
    found = re.match(r"[\s(]*([A-Za-z]+)", part)
    return found.group(1).lower() if found else ""


def kind_of(bare: str) -> str:
    """``read``, ``control`` or ``statement``; a mixture takes the strongest."""
    kinds = {_kind_of_part(part) for part in parts(bare)}
    return "statement" if "statement" in kinds else "read" if kinds == {"read"} else "control"


def _kind_of_part(part: str) -> str:
    word = first_word(part)
    if word in CONTROLS:
        return "control"
    if word not in READS:
        return "statement"
    low = part.lower()
    writes = re.search(r"\b(insert\s+into|delete\s+from|merge\s+into|update\s+\S+(\s+as)?(\s+\w+)?\s+set)\b", low)
    into = word in ("select", "with") and re.search(r"\binto\b", low)
    return "statement" if into or (word in ("with", "explain") and writes) else "read"


def ends_transaction(bare: str) -> bool:
    words = [part.lower().split() for part in parts(bare)]
    return any(w[0] in ("commit", "end", "rollback", "abort") and "to" not in w[1:4] for w in words if w)


def changes_rows_only(bare: str) -> bool:
    return all(first_word(part) in ROW_CHANGES | CONTROLS for part in parts(bare))


def normal(sql: str) -> str:
    """A statement for comparing: white space and the last semicolon do not count."""
    return " ".join(sql.split()).rstrip("; ")


def reads_user_tables(bare: str) -> bool:
    named = re.findall(r"\b(?:from|join)\s+(?:only\s+)?(" + QUALIFIED + r")(?!\s*[\w.$\"]*\()", bare, re.IGNORECASE)
    return any(not re.match(r'"?(pg_|information_schema)', name, re.IGNORECASE) for name in named)


def with_literals(statement: str, parameters: Any) -> str:
    values = list(parameters or ())
    if re.search(r"\$\d", statement):
        return re.sub(
            r"('(?:[^']|'')*')|\$(\d+)", lambda m: m.group(1) or literal(values[int(m.group(2)) - 1]), statement
        )
    given = iter(values)
    return (
        re.sub(r"%s|%%", lambda m: "%" if m.group() == "%%" else literal(next(given)), statement)
        if values
        else statement
    )


def literal(value: Any) -> str:
    """One value as SQL; raises TypeError for a type that is not known, so that nothing is guessed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, decimal.Decimal)):
        return str(value)
    if isinstance(value, float):
        return "'%r'::float8" % value
    if isinstance(value, (bytes, bytearray)):
        return "'\\x%s'::bytea" % bytes(value).hex()
    if isinstance(value, datetime.timedelta):
        return "'%d days %d.%06d seconds'::interval" % (value.days, value.seconds, value.microseconds)
    if isinstance(value, (list, tuple)):
        return "array[%s]" % ", ".join(map(literal, value))
    if isinstance(value, (str, datetime.date, datetime.time, uuid.UUID)):
        text = value if isinstance(value, str) else str(value)
        return (
            ("E'%s'" % text.replace("\\", "\\\\").replace("'", "''"))
            if "\\" in text
            else "'%s'" % text.replace("'", "''")
        )
    raise TypeError("no literal for %s" % type(value).__name__)
