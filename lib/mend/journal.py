"""Append-only, hash-chained, fsynced events of a run: one JSON object a line.

``hash`` = SHA-256 over the event without it, ``prev`` = the hash before.  An edit breaks the chain; a cut-off tail is found
because the head and length are also kept in record.json and, once a plan is applied, in the target itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mend.errors import RecordDamaged

GENESIS = "0" * 64


@dataclass(frozen=True)
class Event:
    """One line.  ``time`` is this machine's clock, ``server_time`` the target's where it was asked; both UTC."""

    seq: int
    time: str
    kind: str
    payload: dict[str, Any]
    server_time: str
    prev: str
    hash: str


def canonical(value: Any) -> str:
    """JSON with one spelling per value, so that hashes can be compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def sha256(text: str | bytes) -> str:
    """Hex SHA-256 of a text (as UTF-8) or of bytes."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def now() -> str:
    """This moment, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """The journal of one run; several processes may append in turn (the kernel and the command that started it)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, payload: dict[str, Any] | None = None, *, server_time: str = "") -> Event:
        """Add one event; it is on disk when this returns.

        Raises: RecordDamaged if the journal so far does not hold together: then nothing may be done on its strength.
        """
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            last = _last(file.name)
            body = {
                "seq": last.seq + 1 if last else 0,
                "time": now(),
                "kind": kind,
                "payload": json.loads(canonical(payload or {})),
                "server_time": server_time,
                "prev": last.hash if last else GENESIS,
            }
            event = Event(**body, hash=sha256(canonical(body)))
            file.write((canonical(event.__dict__) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        return event

    def events(self) -> list[Event]:
        """Every event, the chain checked."""
        return list(read(self.path))

    def of(self, kind: str) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events() if event.kind == kind]


def read(path: Path) -> Iterator[Event]:
    """The events of a journal file in order.

    Raises: RecordDamaged at the first line that was edited, is out of order, or cannot be read.
    """
    prev = GENESIS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordDamaged(f"{path} cannot be read: {error}. The database was not touched.", verdict="missing") from error
    for seq, line in enumerate(lines):
        event = _parse(line, path, seq)
        body = {key: value for key, value in event.__dict__.items() if key != "hash"}
        if event.seq != seq or event.prev != prev or event.hash != sha256(canonical(body)):
            raise RecordDamaged(f"{path}: line {seq + 1} was edited, or a line before it is gone.", verdict="edited", line=seq + 1)
        prev = event.hash
        yield event


def _parse(line: str, path: Path, seq: int) -> Event:
    try:
        return Event(**json.loads(line))
    except (json.JSONDecodeError, TypeError) as error:
        raise RecordDamaged(f"{path}: line {seq + 1} is not an event.", verdict="edited", line=seq + 1) from error


def _last(path: str) -> Event | None:
    """The last event of a journal that holds together."""
    events = list(read(Path(path)))
    return events[-1] if events else None
