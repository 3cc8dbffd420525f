"""The wait forest: who waits behind whom, what stands at the root of each tree, and who is freed if some of them end.  Pure.

A node is a session, or a prepared transaction; its key is the pid, or minus the number of the prepared transaction (which has no pid).
A waiter may have several blockers: it stands in the tree below the one that itself waits longest in the chain, and is free only when
all of them have let go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mend.batches.progress import duration
from mend.queue.backends import IDLE_IN_TRANSACTION, OURS, Backend
from mend.queue.ending import Prepared

_DUMPS = ("pg_dump", "pg_dumpall", "pg_basebackup")
_MAINTENANCE = re.compile(r"\s*(?:(?:create|drop)\s+(?:unique\s+)?index\s+concurrently|reindex\b.*\bconcurrently|alter\s+table\b.*\bvalidate\s+constraint|vacuum|analyze|cluster)\b", re.IGNORECASE | re.DOTALL)  # fmt: skip
_DDL = re.compile(r"\s*(?:alter|create|drop|truncate|reindex|refresh|comment|lock\s+table|lock)\b", re.IGNORECASE)
_SAME_START_S = 60.0  # two sessions of one process begin about together

# What a node is, and what that means for whoever waits behind it.
MEANINGS: Mapping[str, str] = {
    "idle in transaction": "it runs nothing and keeps its locks until its client goes on, or is ended",
    "the migration's second session": "it seems to be of the same process as the migration that waits for it: neither will ever go on",
    "idle, with an advisory lock": "it runs nothing; the lock of its session lasts until it disconnects",
    "long statement": "it is at work; its client may be gone, which the server does not notice by itself",
    "dump": "pg_dump reads every table in one transaction, and lets go of all of them at its end",
    "autovacuum": "it gives way by itself after deadlock_timeout",
    "autovacuum to prevent wraparound": "it does not give way; let it finish",
    "concurrent index build or validation": "it is at work, and does not block reads or writes, only other changes of the table",
    "another migrator": "it is at work on a migration of its own",
    "another migrator, idle": "it runs nothing in the middle of a migration: its process may be gone or stuck",
    "logical or physical walsender": "a replica or a subscriber reads from here",
    "prepared transaction": "no session holds it; it waits for COMMIT PREPARED or ROLLBACK PREPARED, for ever",
    "session of mend": "it is a run of mend",
    "not visible": "this role may not see what it does: grant pg_monitor",
    "server process": "it belongs to the server itself",
    "deadlock": "it waits for one that waits for it; PostgreSQL cancels one of them after deadlock_timeout",
    "waiting": "it waits itself",
}


@dataclass(frozen=True)
class Wait:
    """One waiter behind one blocker: ``hard``: the blocker holds what conflicts; else it asked earlier, and is ahead in the queue."""

    pid: int
    blocker: int
    mode: str
    object: str
    locktype: str
    wait_s: float
    hard: bool
    held: str = ""


@dataclass(frozen=True)
class Marks:
    """What a session holds that tells a migrator."""

    version_table: str = ""
    advisory: str = ""


@dataclass(frozen=True)
class Forest:
    """One look: sessions and prepared transactions by key, and every wait among them.

    ``ages_s``: seconds since each prepared transaction was prepared.  ``may_finish``: keys of those that this role may roll back.
    """

    sessions: Mapping[int, Backend] = field(default_factory=dict)
    prepared: Mapping[int, Prepared] = field(default_factory=dict)
    waits: tuple[Wait, ...] = ()
    marks: Mapping[int, Marks] = field(default_factory=dict)
    ages_s: Mapping[int, float] = field(default_factory=dict)
    may_finish: frozenset[int] = frozenset()

    @cached_property
    def blockers(self) -> dict[int, tuple[int, ...]]:
        """waiter -> those it waits for."""
        found: dict[int, dict[int, None]] = {}
        for wait in self.waits:
            found.setdefault(wait.pid, {})[wait.blocker] = None
        return {pid: tuple(keys) for pid, keys in found.items()}

    @cached_property
    def waiters(self) -> dict[int, tuple[int, ...]]:
        """blocker -> those that wait for it, longest first."""
        found: dict[int, dict[int, None]] = {}
        for wait in sorted(self.waits, key=lambda w: -w.wait_s):
            found.setdefault(wait.blocker, {})[wait.pid] = None
        return {key: tuple(pids) for key, pids in found.items()}

    @cached_property
    def wait_of(self) -> dict[int, Wait]:
        """waiter -> what it waits for, and how long."""
        return {wait.pid: wait for wait in reversed(self.waits)}

    @cached_property
    def soft(self) -> frozenset[int]:
        """Waiters whose every blocker only asked before them: nobody holds what they want against them."""
        return frozenset(self.blockers) - {wait.pid for wait in self.waits if wait.hard}

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Everybody, each after all that it waits for; a circle is cut at its lowest pid."""
        left = {key: set(self.blockers.get(key, ())) for key in sorted({*self.blockers, *self.waiters}, key=abs)}
        ready = [key for key, behind in left.items() if not behind]
        found: dict[int, None] = {}
        while left:
            if not ready:  # what is left are circles, and who waits behind them
                ready = [min((key for key in left if key in self._above(self.blockers[key])), key=abs)]
            key = ready.pop()
            if key not in left:
                continue
            del left[key]
            found[key] = None
            for pid in self.waiters.get(key, ()):
                if pid in left:
                    left[pid].discard(key)
                    if not left[pid]:
                        ready.append(pid)
        return tuple(found)

    @cached_property
    def depth(self) -> dict[int, int]:
        """How far each stands from the furthest root above it, 0 for roots: a queue, each behind all before it, is a chain."""
        found: dict[int, int] = {}
        for key in self.order:
            found[key] = max((found[b] + 1 for b in self.blockers.get(key, ()) if b in found), default=0)
        return found

    @cached_property
    def in_circles(self) -> frozenset[int]:
        """Those that wait for themselves through others: a deadlock that PostgreSQL has not ended yet."""
        cut = [key for key in self.order if self.depth[key] == 0 and key in self.blockers]
        return frozenset(pid for one in cut for pid in self._above([one]) & {*self.below(one), one})

    def _above(self, keys: Iterable[int]) -> set[int]:
        """These and everybody they wait for, directly or through others."""
        return _reached(keys, self.blockers)

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """Who is in the way and waits for nobody; of a circle, its lowest pid.  Those with most behind them come first."""
        found = [key for key in self.order if self.depth[key] == 0]
        return tuple(sorted(found, key=lambda key: (-len(self.below(key)), abs(key))))

    def roots_above(self, pid: int) -> frozenset[int]:
        """The roots that must all let go before this waiter is free."""
        return frozenset(self._above([pid]) & set(self.roots))

    def below(self, key: int) -> frozenset[int]:
        """Everybody who waits for this one, directly or through others."""
        return frozenset(_reached(self.waiters.get(key, ()), self.waiters) - {key})

    def freed_if_ended(self, keys: Collection[int]) -> frozenset[int]:
        """Who gets its lock if all of these end: each whose every blocker has ended, or is freed itself and then finishes."""
        gone, freed = set(keys), set[int]()
        for pid in self.order:
            if pid in self.blockers and pid not in gone and all(b in gone or b in freed for b in self.blockers[pid]):
                freed.add(pid)
        return frozenset(freed)

    @cached_property
    def parent(self) -> dict[int, int]:
        """waiter -> the blocker below which it stands in the tree: the one furthest down."""
        found = {}
        for pid, keys in self.blockers.items():
            if above := [key for key in keys if self.depth[key] < self.depth[pid]]:
                found[pid] = max(above, key=lambda key: (self.depth[key], -abs(key)))
        return found

    @cached_property
    def children(self) -> dict[int, tuple[int, ...]]:
        """The tree: blocker -> those that stand below it, longest wait first."""
        found: dict[int, list[int]] = {}
        for pid in sorted(self.parent, key=lambda p: -self.wait_of[p].wait_s):
            found.setdefault(self.parent[pid], []).append(pid)
        return {key: tuple(pids) for key, pids in found.items()}

    def also_behind(self, pid: int) -> tuple[int, ...]:
        """Blockers of a waiter that the tree does not show above it."""
        return tuple(key for key in self.blockers.get(pid, ()) if key not in self._line(pid))

    def _line(self, pid: int) -> set[int]:
        found: set[int] = set()
        key: int | None = self.parent.get(pid)
        while key is not None and key not in found:
            found.add(key)
            key = self.parent.get(key)
        return found

    def longest_s(self, key: int) -> float:
        """Seconds that the longest waiter behind this one has waited."""
        return max((self.wait_of[pid].wait_s for pid in self.below(key)), default=0.0)

    def named(self, key: int) -> str:
        """In words."""
        if key in self.prepared:
            one = self.prepared[key]
            return (
                f"prepared transaction {one.gid!r} (owner {one.owner}, prepared {self.ages_s.get(key, 0):,.0f} s ago)"
            )
        return self.sessions[key].named() if key in self.sessions else f"pid {key} (gone meanwhile)"

    def told(self, key: int) -> str:
        """What it is, since when, and who: ``idle in transaction for 5 min: pid 4711 (role app, web-1)``."""
        who, kind = self.sessions.get(key), self.kind(key)
        if who is None:
            return self.named(key)
        since = f" for {duration(who.state_s)}" if who.state_s is not None else ""
        state = f"{kind}{since}" if kind.startswith(who.state) else f"{kind}, {who.state}{since}" if who.state else kind
        return f"{state}: {who.label()}"

    def kind(self, key: int) -> str:
        """What it is: one of ``MEANINGS``."""
        if key in self.prepared:
            return "prepared transaction"
        if key in self.in_circles:
            return "deadlock"
        who = self.sessions.get(key)
        return "not visible" if who is None else self._kind(key, who)

    def _kind(self, key: int, who: Backend) -> str:
        if who.application.startswith(OURS):
            return "session of mend"
        if who.backend_type == "walsender":
            return "logical or physical walsender"
        if who.backend_type == "autovacuum worker":
            return "autovacuum to prevent wraparound" if who.prevents_wraparound else "autovacuum"
        if who.hidden:
            return "not visible"
        if who.backend_type != "client backend":
            return "server process"
        return self._client(key, who)

    def _client(self, key: int, who: Backend) -> str:
        if who.idle and self.is_second_session(key):
            return "the migration's second session"
        marks = self.marks.get(key, Marks())
        if marks.version_table or self._holds_awaited_advisory(key):
            return (
                "another migrator, idle"
                if who.idle and (marks.version_table or who.state == "idle")
                else "another migrator"
            )
        if who.state in IDLE_IN_TRANSACTION:
            return "idle in transaction"
        if who.state == "idle":
            return "idle, with an advisory lock"
        if who.application in _DUMPS:
            return "dump"
        if _MAINTENANCE.match(who.query):
            return "concurrent index build or validation"
        return (
            "another migrator"
            if _DDL.match(who.query) and key not in self.blockers
            else "waiting"
            if key in self.blockers
            else "long statement"
        )

    def _holds_awaited_advisory(self, key: int) -> bool:
        return any(wait.blocker == key and wait.locktype == "advisory" for wait in self.waits)

    def by_advisory(self, key: int) -> bool:
        """Whether it is in the way by an advisory lock, which outlives statements and transactions."""
        return self._holds_awaited_advisory(key)

    def is_second_session(self, key: int) -> bool:
        """Whether it seems to belong to the process of the DDL that waits for it: role, client, name, and begun within a minute.

        The server does not know processes of clients, so this is a guess, and is called one.
        """
        mine = self.sessions[key]
        return any(
            _DDL.match(other.query)
            and mine.application
            and (mine.role, mine.client, mine.application) == (other.role, other.client, other.application)
            and (self.marks.get(pid, Marks()).version_table != "")
            and _apart_s(mine, other) <= _SAME_START_S
            for pid in self.waiters.get(key, ())
            if (other := self.sessions.get(pid)) is not None
        )


def counted(count: int, noun: str) -> str:
    """
    >>> counted(1, "session"), counted(6, "root")
    ('1 session', '6 roots')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _reached(keys: Iterable[int], along: Mapping[int, Iterable[int]]) -> set[int]:
    """These keys and all that can be reached from them."""
    found: set[int] = set()
    left = list(keys)
    while left:
        key = left.pop()
        if key not in found:
            found.add(key)
            left += along.get(key, ())
    return found


def _apart_s(one: Backend, other: Backend) -> float:
    """Seconds between the beginnings of two sessions."""
    from datetime import datetime

    began = [datetime.fromisoformat(who.backend_start) for who in (one, other)]
    return abs((began[0] - began[1]).total_seconds())
