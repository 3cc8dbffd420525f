"""Append-only, hash-chained, fsynced events of a run: one JSON object a line.

``hash`` = SHA-256 over the event without it, ``prev`` = the hash before.  An edit breaks the chain; a cut-off tail is found
because the head and length are also kept in record.json and, once a plan is applied, in the target itself.

A last line without its end (the machine stopped while it was written) is no event: nothing was done on its strength yet.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
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
    """JSON with one spelling per value, so that hashes can be compared; what UTF-8 cannot spell (half a surrogate) is escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    """A set in one order, whatever the process; anything else that JSON does not know as its text."""
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)


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
        self._known: tuple[tuple[int, int, int], tuple[Event | None, int]] | None = None

    def append(self, kind: str, payload: dict[str, Any] | None = None, *, server_time: str = "") -> Event:
        """Add one event; it is on disk when this returns.

        Raises: RecordDamaged if the journal so far does not hold together: then nothing may be done on its strength.
        """
        with self.path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            last, end = self._last(file)
            body = {
                "seq": last.seq + 1 if last else 0,
                "time": now(),
                "kind": kind,
                "payload": json.loads(canonical(payload or {})),
                "server_time": server_time,
                "prev": last.hash if last else GENESIS,
            }
            event = Event(**body, hash=sha256(canonical(body)))
            _write(file, end, line := canonical(event.__dict__).encode() + b"\n")
            self._known = _state(file), (event, end + len(line))
        return event

    def _last(self, file: FileIO) -> tuple[Event | None, int]:
        """The last event and where its line ends; read again, from the start, unless nobody wrote since we did."""
        if self._known is None or self._known[0] != _state(file):
            return _last(self.path)
        return self._known[1]

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
    yield from _checked(_lines(path), path)


def _checked(lines: list[bytes], path: Path) -> Iterator[Event]:
    prev = GENESIS
    for seq, line in enumerate(lines):
        event = _parse(line, path, seq)
        body = {key: value for key, value in event.__dict__.items() if key != "hash"}
        whole = line == canonical(event.__dict__).encode()  # not only the same values: the same bytes
        if not whole or event.seq != seq or event.prev != prev or event.hash != sha256(canonical(body)):
            raise RecordDamaged(
                f"{path}: line {seq + 1} was edited, or a line before it is gone.", verdict="edited", line=seq + 1
            )
        prev = event.hash
        yield event


def _lines(path: Path) -> list[bytes]:
    """The whole lines.  Only a newline parts them: a text may hold any other character that str.splitlines() parts at."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise RecordDamaged(
            f"{path} cannot be read: {error}. The database was not touched.", verdict="missing"
        ) from error


def _parse(line: bytes, path: Path, seq: int) -> Event:
    try:
        return Event(**json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordDamaged(f"{path}: line {seq + 1} is not an event.", verdict="edited", line=seq + 1) from error


def _last(path: Path) -> tuple[Event | None, int]:
    """The last event of a journal that holds together, and where its line ends."""
    lines = _lines(path)
    events = list(_checked(lines, path))
    return (events[-1] if events else None), sum(len(line) + 1 for line in lines)


def _state(file: FileIO) -> tuple[int, int, int]:
    """What a write by anybody changes."""
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


def _write(file: FileIO, end: int, line: bytes) -> None:
    """Put a line after the last whole one; it is on disk when this returns, and not there at all when this fails."""
    file.truncate(end)
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise
