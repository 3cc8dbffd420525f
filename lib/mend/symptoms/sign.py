"""One thing that speaks for a failure mode, and how a database is asked about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame
    from sqlalchemy import Connection

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sign:
    """One thing that was seen and the failure mode that it speaks for; ``at`` is its place in a text."""

    slug: str
    confidence: float
    says: str
    parameters: dict[str, Any] = field(default_factory=dict)
    source: str = "database"
    at: int = 0
    sqlstate: str = ""


@dataclass(frozen=True)
class Seen:
    """The signs, and what could not be looked at."""

    signs: tuple[Sign, ...]
    could_not_check: tuple[str, ...] = ()


def ask(conn: Connection, name: str, **binds: Any) -> Rows:
    from mend.database import queries

    return _rows(queries.frame(conn, name, **binds))


def _rows(frame: DataFrame) -> Rows:
    """Rows with None for what is missing, whatever the column's dtype."""
    plain = frame.astype(object)
    return [
        {str(key): value for key, value in row.items()} for row in plain.where(plain.notna(), None).to_dict("records")
    ]
