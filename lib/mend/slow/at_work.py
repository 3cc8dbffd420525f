"""What runs in this database now, and which of it is a migration: statements, waits, locks, progress views.  Reads only.

Nothing here asks for a lock that anybody could wait for; the sessions' statements are kept for comparison and shown as shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from sqlalchemy import Connection

from mend.change.locks import MODES
from mend.database import queries, sqltext
from mend.queue.backends import HIDDEN, OURS
from mend.slow import dml

SHOWN = (
    "pid",
    "migration",
    "role",
    "application",
    "state",
    "statement_s",
    "open_s",
    "waits_for",
    "blocked_by",
    "holds",
    "query",
)
_LEAST_S = 1.0  # a statement of less is everyday
_NAMED = re.compile(r"alembic|migrat", re.IGNORECASE)
_WORK = re.compile(
    r"\s*(with|update|delete|insert|merge|alter|create|drop|reindex|refresh|vacuum|cluster|copy|truncate|do|call)\b",
    re.IGNORECASE,
)
_MODES = {mode.title().replace(" ", "") + "Lock": mode for mode in MODES}


@dataclass(frozen=True)
class Session:
    """One session with work under way.

    ``began``, ``xact``: when it and its transaction did.  ``xid``: of its transaction, '' where it changed nothing yet.  ``versions``: it holds a lock on an Alembic version table.  ``held``:
    (relation, mode) pairs, the mode in PostgreSQL's words.  ``signs``: why it is taken for a migration; none: it is not.
    """

    pid: int
    began: str
    role: str
    application: str
    client: str
    state: str
    waits_for: str
    statement_s: float | None
    open_s: float | None
    xact: str
    xid: str
    versions: bool
    held: tuple[tuple[str, str], ...]
    blocked_by: tuple[int, ...]
    query: str = field(repr=False)
    signs: tuple[str, ...] = ()
    cut: bool = False  # its text may go on: pg_stat_activity keeps track_activity_query_size bytes of it

    @property
    def hidden(self) -> bool:
        """Whether the role that looks may not see what it does."""
        return self.query == HIDDEN

    @property
    def says(self) -> str:
        """Its statement without values, on one line, shortened."""
        text = self.query if self.hidden else " ".join(sqltext.shape(self.query).split())
        return text if len(text) <= 200 else f"{text[:199]}…"

    def writes(self) -> list[str]:
        """The tables that it changes or rebuilds, the strongest lock first."""
        strong = [(rel, mode) for rel, mode in self.held if MODES.index(mode) >= MODES.index("ROW EXCLUSIVE")]
        return list(dict.fromkeys(rel for rel, _ in sorted(strong, key=lambda one: -MODES.index(one[1]))))

    def row(self) -> dict[str, Any]:
        """For a table."""
        held = ", ".join(
            f"{rel} {mode}" for rel, mode in self.held if MODES.index(mode) >= MODES.index("ROW EXCLUSIVE")
        )
        values = (
            self.pid, ", ".join(self.signs), self.role, self.application, self.state, self.statement_s, self.open_s, self.waits_for,
            list(self.blocked_by), held, self.says,
        )  # fmt: skip
        return dict(zip(SHOWN, values, strict=True))


@dataclass(frozen=True)
class Work:
    """What was seen at one moment.  ``hidden``: sessions whose work this role may not see."""

    sessions: tuple[Session, ...]
    progress: pd.DataFrame
    hidden: int
    sees_all: bool
    in_recovery: bool
    sql: str

    def frame(self) -> pd.DataFrame:
        """One row per session, the migration first."""
        ranked = sorted(self.sessions, key=lambda one: (not one.signs, -(one.open_s or 0)))
        return pd.DataFrame([one.row() for one in ranked], columns=list(SHOWN))

    def waiting_for(self, pid: int) -> tuple[Session, ...]:
        """Who waits for that session, directly or behind somebody else who does."""
        found, pids = [], {pid}
        for _ in self.sessions:
            new = [one for one in self.sessions if pids & set(one.blocked_by) and one.pid not in pids]
            found += new
            pids |= {one.pid for one in new}
        return tuple(found)

    def views(self, pid: int) -> pd.DataFrame:
        """What the progress views say of that session."""
        return self.progress[self.progress["pid"] == pid]


def look(conn: Connection, *, statements: Collection[str] = (), pid: int = 0) -> Work:
    """Look once.

    Parameters
    ----------
    statements : the statements of the pending revision, by which its session is known
    pid : the session that the operator named; 0: none
    """
    frame = queries.frame(conn, "at_work/sessions", own=OURS)
    progress = queries.frame(conn, "at_work/progress")
    standing = queries.frame(conn, "at_work/standing").iloc[0]
    shapes = {dml.shape(sql) for sql in statements}
    found = tuple(
        _signed(_session(row), shapes, pid)
        for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
    )
    return Work(
        found,
        progress,
        int(standing["hidden"]),
        bool(standing["sees_all"]),
        bool(standing["in_recovery"]),
        frame.attrs["sql"],
    )


def migration(work: Work) -> Session | None:
    """The session that most likely is the migration: named, else by its statement, its lock on the version table, its name."""
    ranked = sorted((one for one in work.sessions if one.signs), key=_rank)
    return ranked[0] if ranked else None


def _rank(one: Session) -> tuple[int, float]:
    best = min(_SIGNS.index(sign) for sign in one.signs)
    return best, -(one.open_s or 0.0)


_NAMED_BY_YOU, _RUNS_IT, _HOLDS, _CALLED = (
    "you named its pid", "runs a statement of the revision", "holds the version table and works", "its name says so"
)  # fmt: skip
_SIGNS = (_NAMED_BY_YOU, _RUNS_IT, _HOLDS, _CALLED)


def _signed(one: Session, shapes: Collection[str], pid: int) -> Session:
    """With why it is taken for a migration."""
    lasting = (one.open_s or 0.0) >= _LEAST_S or one.hidden
    works = one.state in ("active", "(not visible)") or one.state.startswith("idle in transaction")
    found = [
        (_NAMED_BY_YOU, one.pid == pid),
        (_RUNS_IT, not one.hidden and works and dml.shape(one.query) in shapes),
        (_HOLDS, one.versions and works and lasting and bool(one.xid or one.writes())),
        (_CALLED, bool(_NAMED.search(one.application)) and lasting and bool(_WORK.match(one.query))),
    ]
    return replace(one, signs=tuple(sign for sign, holds in found if holds))


def _session(row: dict[Any, Any]) -> Session:
    held = [tuple(text.rsplit(" ", 1)) for text in row["relations"] or ()]
    return Session(
        pid=int(row["pid"]),
        began=str(row["backend_start"]),
        role=str(row["role"]),
        application=str(row["application"]),
        client=str(row["client"]),
        state=str(row["state"]),
        waits_for=str(row["waits_for"]),
        statement_s=row["statement_s"],
        open_s=row["open_s"],
        xact=str(row["xact_start"]),
        xid=str(row["xid"]),
        versions=bool(row["versions"]),
        held=tuple((relation, _MODES[mode]) for relation, mode in held if mode in _MODES),
        blocked_by=tuple(int(pid) for pid in row["blocked_by"] or ()),
        query=str(row["query"]),
        cut=bool(row["cut"]),
    )


def same_session(before: Session, now: Sequence[Session]) -> Session | None:
    """The same session in a later look; a pid alone names nobody, so its beginning counts too."""
    return next((one for one in now if (one.pid, one.began) == (before.pid, before.began)), None)
