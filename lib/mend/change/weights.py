"""How much a statement has to read or change, from the sizes of its tables: an estimate to decide by, not a promise.  Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mend.database import names

SCAN_BYTES_PER_S = 100_000_000  # a cold disk of the cheaper kind; index builds on fast ones are several times quicker
_SHORT_S = 0.05
_SCANS = re.compile(
    r"\bcreate\s+(unique\s+)?index\b|\bvalidate\s+constraint\b|\bset\s+not\s+null\b|\badd\s+(constraint\s+\S+\s+)?(check|unique|primary|foreign|exclude)\b"
    r"|^\s*(update|delete|insert)\b|\bas\s+select\b|\breindex\b",
    re.IGNORECASE,
)
_NOT_VALID = re.compile(r"\bnot\s+valid\s*$", re.IGNORECASE)
_CHANGED = re.compile(
    r"^\s*(?:update|delete\s+from|insert\s+into)\s+(?:only\s+)?(?P<table>(?:\"[^\"]+\"|[\w$]+)(?:\.(?:\"[^\"]+\"|[\w$]+))?)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Size:
    """What the statistics say of one table."""

    rows: int
    bytes: int


def table_changed(sql: str) -> str:
    """The table whose rows a statement changes, as it is written; '' where that cannot be read off.

    >>> table_changed('UPDATE shipments SET a = 1')
    'shipments'
    """
    found = _CHANGED.match(sql)
    return found["table"] if found else ""


def rows_ceiling(size: Size) -> int:
    """The most rows that a change of a table may touch: twice the table, as a power of ten, so that a growing table does not
    make a plan stale every minute."""
    return ceiling(size.rows)


def ceiling(rows: int) -> int:
    """Twice that many rows, as a power of ten: for a count that moves while the plan is reviewed.

    >>> ceiling(89_000), ceiling(0)
    (1000000, 1000)
    """
    return int(10 ** math.ceil(math.log10(max(2 * rows, 1000))))


def seconds(sql: str, sizes: Mapping[str, Size], *, rewrites: bool | None) -> float:
    """About how long a statement works, waiting for locks not counted."""
    if not (rewrites or _SCANS.search(sql)) or _NOT_VALID.search(sql):
        return _SHORT_S
    mentioned = names.mentions(sql)
    scanned = sum(size.bytes for table, size in sizes.items() if table in mentioned or names.last(table) in mentioned)
    return round(_SHORT_S + scanned / SCAN_BYTES_PER_S * (3 if rewrites else 1), 2)
