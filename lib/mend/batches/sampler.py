"""Looks at the server once a second while a backfill runs, and tells its pace what speaks for going slower.

Own thread, own read-only session.  Nothing that fails here stops the backfill: what could not be seen is said once, and the
pace then goes by the time its batches take alone.  Each look is a transaction of its own: one that lasted would hold a snapshot, and
no vacuum could remove what the backfill leaves behind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mend.batches import pausing
from mend.batches.pace import Pace, Reason
from mend.database import queries
from mend.errors import MendError, sqlstate

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mend.database.target import Target

_LOOK_S = 1.0
_LIMITS = "set local statement_timeout = 2000; set local lock_timeout = 200"
_REMEMBERED = 900  # positions of the WAL, one a second
_AUTOVACUUM_SHARE, _WRAPAROUND_SHARE = 0.5, 0.25
_LEAST_SHARE = 0.05
_KEPT_S = 10.0  # without any look for so long, what was seen before no longer counts


@dataclass(frozen=True)
class Limits:
    """What is too much: seconds that a replica is behind, bytes of WAL a second (0: no limit), seconds that others wait for us."""

    lag_s: float = 10.0
    wal_bytes_per_s: float = 0.0
    wait_s: float = 0.1


class Sampler:
    """``with Sampler(...):`` looks about once a second until the end of the block; never raises into it.

    Parameters
    ----------
    table : qualified and quoted
    pids : gives the backends that are ours now, the workers'
    folder : of the run, for the flag of ``mend pause``
    """

    def __init__(
        self,
        target: Target,
        *,
        run_id: str,
        table: str,
        pace: Pace,
        pids: Callable[[], Collection[int]] = tuple,
        folder: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._target, self._run_id, self._pace, self._folder = target, run_id, pace, folder
        self._watch = Watch(table, pids, limits or Limits())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mend-sampler", daemon=True)
        self._seen_at = time.monotonic()
        self._seen: list[Reason] = []

    def __enter__(self) -> Sampler:
        self._pace.told(self._paused())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._target.reading(f"{self._run_id}:sampler") as conn:
                    self._look_on(conn)
            except MendError as error:
                self._blind(error.message.partition(" Nothing was changed.")[0])
            except (SQLAlchemyError, OSError, ValueError) as error:
                self._blind(f"{type(error).__name__}: {self._target.redact(str(error).partition(chr(10))[0])}")
            self._ended.wait(_LOOK_S)

    def _look_on(self, conn: Connection) -> None:
        while not self._ended.is_set():
            self._seen = self._watch.reasons(conn)
            self._seen_at = time.monotonic()
            self._tell()
            conn.rollback()
            self._rest()

    def _rest(self) -> None:
        """A second, in which the flag of a pause is looked for more often: that costs nothing."""
        for _ in range(4):
            if self._ended.wait(_LOOK_S / 4):
                return
            self._tell()

    def _tell(self) -> None:
        self._pace.told([*self._paused(), *self._seen])

    def _blind(self, why: str) -> None:
        """What was seen last counts for a while: a server that restarts was perhaps overloaded."""
        note = Reason(
            "blind", f"the server could not be looked at ({why.rstrip('.')}): batches go by their own time alone", 1.0
        )
        if time.monotonic() - self._seen_at > _KEPT_S:
            self._seen = []
        self._seen = [*(r for r in self._seen if r.key != note.key), note]
        self._tell()

    def _paused(self) -> list[Reason]:
        flag = pausing.flag(self._folder) if self._folder else None
        return (
            [] if flag is None else [Reason("paused", pausing.words(flag), 0.0, stop=True, remedy=pausing.remedy(flag))]
        )


@dataclass
class Watch:
    """What was seen so far, as far as the next look needs it; one method a question."""

    table: str
    pids: Callable[[], Collection[int]]
    limits: Limits
    _wal: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _behind_before: dict[str, float] = field(default_factory=dict)
    _behind: set[str] = field(default_factory=set)
    _wal_share: float = 1.0

    def reasons(self, conn: Connection) -> list[Reason]:
        """Everything that speaks for going slower now, each question in a transaction of its own."""
        found: list[Reason] = []
        for name, ask in (
            ("the rate of WAL", self._wal_rate),
            ("the lag of replicas", self._replicas),
            ("sessions that wait for us", self._waiting),
            ("vacuums of the table", self._vacuums),
        ):
            try:
                conn.exec_driver_sql(_LIMITS)
                found += ask(conn)
            except DBAPIError as error:
                if error.connection_invalidated or not sqlstate(error):
                    raise
                said = str(error.orig).partition("\n")[0].rstrip(".")
                found.append(Reason(f"unseen {name}", f"{name} cannot be seen ({said})", 1.0))
            conn.rollback()
        return found

    def _wal_rate(self, conn: Connection) -> Iterator[Reason]:
        """Also keeps the positions, by which `_replicas` knows since when a replica is behind."""
        now, written = time.monotonic(), float(queries.frame(conn, "backfill/wal_position")["written_bytes"].iloc[0])
        limit, before = self.limits.wal_bytes_per_s, self._wal[-1] if self._wal else (now, written)
        self._wal.append((now, written))
        if not limit or now == before[0]:
            return
        rate = (written - before[1]) / (now - before[0])
        self._wal_share = min(1.0, max(_LEAST_SHARE, self._wal_share * limit / max(rate, limit / 2)))
        if self._wal_share < 1:
            yield Reason(
                "wal",
                f"the server writes {_megabytes(rate)} of WAL a second, the limit is {_megabytes(limit)}",
                self._wal_share,
            )

    def _replicas(self, conn: Connection) -> Iterator[Reason]:
        """A replica that was behind before we began (a delayed standby) counts only as far as it falls further behind."""
        for row in _rows(conn, "backfill/replicas"):
            if not row["visible"]:
                yield Reason(
                    "unseen lag", "there are replicas, but their lag cannot be seen (it needs pg_monitor)", 1.0
                )
                return
            own = self._own_lag(_number(row["replay_bytes"], float("inf")))
            lag = max(_number(row["lag_s"]), own) if own else 0.0  # replay_lag outlives what it measured
            before = self._behind_before.setdefault(row["replica"], lag if lag > self.limits.lag_s else 0.0)
            limit = self.limits.lag_s + before
            if before:
                yield Reason(f"delayed {row['replica']}", f"replica {row['replica']} was {before:.0f} s behind before the backfill: it counts from {limit:.0f} s", 1.0)  # fmt: skip
            behind = lag > (0.8 * limit if row["replica"] in self._behind else limit)
            (self._behind.add if behind else self._behind.discard)(row["replica"])
            if behind:
                yield Reason(
                    f"lag {row['replica']}",
                    f"replica {row['replica']} is {lag:.0f} s behind, the limit is {limit:.0f} s",
                )

    def _own_lag(self, replayed: float) -> float:
        """Seconds since the WAL was first seen beyond what the replica has replayed."""
        beyond = next((at for at, written in self._wal if written > replayed), None)
        return 0.0 if beyond is None else time.monotonic() - beyond

    def _waiting(self, conn: Connection) -> Iterator[Reason]:
        pids = [int(pid) for pid in self.pids()]
        waiting = _rows(conn, "backfill/waiting_behind", pids=pids, min_wait_s=self.limits.wait_s) if pids else []
        if waiting:
            first = waiting[0]
            who = f"pid {first['pid']}" + (f" ({first['application']})" if first["application"] else "")
            others = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
            waits = "wait" if others else "waits"
            yield Reason("waiting", f"{who}{others} {waits} for our batch for {1000 * first['wait_s']:.0f} ms")

    def _vacuums(self, conn: Connection) -> Iterator[Reason]:
        """A vacuum halves the pace, one against wraparound quarters it; never the floor.

        A backfill provokes an autovacuum of its table itself, once a fifth of the rows have changed, and that may take minutes: at the
        floor a repair of seconds would take hours.  At half the pace both get on, and the repair takes at most twice as long.  What the
        batches leave behind meanwhile is not removed by this vacuum anyway: it began before.
        """
        for row in _rows(conn, "backfill/vacuums", table_name=self.table):
            if not row["visible"]:
                yield Reason("unseen vacuum", "a vacuum is running in this database; of which table cannot be seen (it needs pg_monitor)", 1.0)  # fmt: skip
            elif row["wraparound"]:
                yield Reason("wraparound", f"autovacuum against wraparound of {self.table} is running: a quarter of the pace", _WRAPAROUND_SHARE)  # fmt: skip
            else:
                kind = "autovacuum" if row["automatic"] else "VACUUM"
                yield Reason("vacuum", f"{kind} of {self.table} is running: half the pace", _AUTOVACUUM_SHARE)


def _rows(conn: Connection, name: str, **binds: Any) -> list[dict[str, Any]]:
    return [
        {str(key): value for key, value in row.items()} for row in queries.frame(conn, name, **binds).to_dict("records")
    ]


def _number(value: Any, missing: float = 0.0) -> float:
    """NULL is NaN in a frame."""
    return missing if value is None or value != value else float(value)


def _megabytes(rate: float) -> str:
    return f"{rate / 1e6:,.1f} MB"
