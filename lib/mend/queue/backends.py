"""A session of the server, described so that it cannot be taken for another one; and which sessions are never ended.  Pure.

A pid alone names nobody: the system gives it to the next session once its own has gone.  Pid and start of the session name it;
the start of its transaction and the hash of its statement say that it still does what was seen when the plan was reviewed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mend.database import sqltext

OURS = "mend:"  # how the application_name of every session of ours begins
IDLE_IN_TRANSACTION = ("idle in transaction", "idle in transaction (aborted)")
HIDDEN = "<insufficient privilege>"  # what PostgreSQL shows of statements that the role may not read
_LONGEST = 300  # characters of a statement's shape


@dataclass(frozen=True)
class Identity:
    """What names one session in one transaction with one statement.

    ``backend_start``, ``xact_start``: UTC, microseconds, as text; ``xact_start`` is '' outside a transaction.  ``query_hash``: of the full
    text, computed by the server; the text itself holds values of others and is kept nowhere.
    """

    pid: int
    backend_start: str
    xact_start: str
    role: str
    application: str
    query_hash: str

    def words(self) -> str:
        """All of it in one line."""
        named = asdict(self).items()
        return ", ".join(f"{_WORDS[key]} {value or '(none)'}" for key, value in named if key != "pid")

    def differences(self, other: Identity) -> list[str]:
        """What tells the two apart, in words."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{_WORDS[key]} {mine[key] or '(none)'} -> {theirs[key] or '(none)'}"
            for key in mine
            if mine[key] != theirs[key]
        ]


_WORDS = {
    "pid": "pid", "backend_start": "the session began (backend_start)", "xact_start": "its transaction began (xact_start)", "role": "role",
    "application": "application_name", "query_hash": "hash of its statement",
}  # fmt: skip


@dataclass(frozen=True)
class Backend:
    """One session as it was seen.

    ``query``: the shape of its statement, without values.  ``superuser``: its role is one.  ``may_signal``: the role that looks may end it,
    by the rules of pg_signal_backend.  ``here``: in this database.  ``open_s``, ``state_s``: seconds that its transaction is open,
    and that it has been in its state; None where there is none, or it is hidden.
    """

    pid: int
    backend_start: str
    xact_start: str
    query_hash: str
    role: str
    superuser: bool
    may_signal: bool
    application: str
    client: str
    database: str
    here: bool
    backend_type: str
    state: str
    wait_event: str
    open_s: float | None
    state_s: float | None
    query: str

    @property
    def identity(self) -> Identity:
        """What a kill must find unchanged."""
        return Identity(self.pid, self.backend_start, self.xact_start, self.role, self.application, self.query_hash)

    @property
    def hidden(self) -> bool:
        """Whether the role that looks may not see what this session does."""
        return not self.backend_start or self.query == HIDDEN

    @property
    def idle(self) -> bool:
        """Whether it runs nothing, so that only its client can go on, and cancelling does nothing."""
        return self.state == "idle" or self.state in IDLE_IN_TRANSACTION

    @property
    def prevents_wraparound(self) -> bool:
        """Whether it is the autovacuum that never gives way."""
        return self.backend_type == "autovacuum worker" and "(to prevent wraparound)" in self.query

    def label(self) -> str:
        """In words that hold as long as its identity does: ``pid 4711 (role app, web-1)``."""
        return (
            f"pid {self.pid} ({', '.join(filter(None, (f'role {self.role}' if self.role else '', self.application)))})"
        )

    def named(self) -> str:
        """In words, for a sentence: ``pid 4711 (role app, web-1, idle in transaction for 312 s)``."""
        since = f" for {self.state_s:,.0f} s" if self.state_s is not None else ""
        kind = "" if self.backend_type in ("client backend", "") else self.backend_type
        about = [
            f"role {self.role}" if self.role else "",
            self.application,
            kind,
            f"{self.state}{since}" if self.state else "",
        ]
        return f"pid {self.pid} ({', '.join(filter(None, about))})"


def of_row(row: Mapping[str, Any]) -> Backend:
    """The session of one row of ``waits/sessions``."""
    raw = str(row["query"])

    def text(name: str) -> str:
        return str(row[name])

    return Backend(
        pid=int(row["pid"]),
        backend_start=text("backend_start"),
        xact_start=text("xact_start"),
        query_hash=text("query_hash"),
        role=text("role"),
        superuser=bool(row["superuser"]),
        may_signal=bool(row["may_signal"]),
        application=text("application"),
        client=text("client"),
        database=text("database"),
        here=bool(row["here"]),
        backend_type=text("backend_type"),
        state=text("state"),
        wait_event=text("wait_event"),
        open_s=_seconds(row["open_s"]),
        state_s=_seconds(row["state_s"]),
        query=raw if raw == HIDDEN else sqltext.shape(raw)[:_LONGEST],
    )


def _seconds(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def denied(who: Backend, *, superusers: bool = False) -> str:
    """Why this session is never ended by mend; '' where it may be.

    ``superusers``: the operator said that a superuser's session may be ended too.  Whether the role may do it is another question:
    see ``Backend.may_signal``.
    """
    if who.application.startswith(OURS):
        return "it is a session of mend's own"
    if who.backend_type == "walsender":
        return "it is a walsender: a replica or a subscriber depends on it"
    if who.prevents_wraparound:
        return (
            "it is the autovacuum that prevents wraparound: ended, it begins again at once, and the database needs it"
        )
    if who.backend_type == "autovacuum worker":
        return "it is an autovacuum, which gives way by itself after deadlock_timeout"
    if who.hidden:
        return "it is not visible to this role, so it could not be told from another one: grant pg_monitor"
    if who.backend_type != "client backend":
        return f"it is a {who.backend_type}, not a client's session"
    if not who.here:
        return f"it is connected to the database {who.database}, not to this one"
    if who.superuser and not superusers:
        return f"{who.role} is a superuser, and mend ends no superuser's session unless you say end_superusers=True"
    return ""
