"""How far a repair is: its ranges and its state, kept in schema mend in the same transactions as the rows.

``range_<job>`` holds a line per range, and line 0 for the repair itself: ``pass`` is the sweep that it is at, ``rows`` unused there, and
``state`` is open, done, restoring or restored.  Everything here runs on a session that the caller gives.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from mend.batches import batch
from mend.batches.batch import Job, Position, Window
from mend.change.act import literal
from mend.database import queries
from mend.errors import Refused
from mend.journal import canonical, sha256

_LEAST_BLOCKS, _LEAST_LINES = 64, 2_000  # a smaller range is not worth a worker's way to it
_RANGES_PER_WORKER = 8


@dataclass(frozen=True)
class Relation:
    """A relation that holds rows: its pages, and about how many rows a page holds."""

    name: str
    blocks: int
    rows_per_block: float


@dataclass(frozen=True)
class Range:
    """A part of a relation that one worker walks; ``at`` is how far it came (None: not begun).  ``measured``: its positions are numbers."""

    n: int
    relation: str
    lo: Position | None
    hi: Position | None
    at: Position | None
    measured: bool = True

    @property
    def window(self) -> Window:
        """What is left of it."""
        return Window(self.relation, self.at or self.lo, self.hi)

    @property
    def length(self) -> int:
        """Pages or lines that are left of it; 0 where nothing tells, along a key."""
        start, end = self.window.at, self.window.upto
        return block(end[0]) - block(start[0]) if start and end and self.measured else 0

    def after(self, at: Position | None) -> Range | None:
        """What is left of it once it was walked up to there; None: nothing."""
        return None if at == self.hi else replace(self, at=at)


@dataclass(frozen=True)
class Standing:
    """How far a job is.  ``state`` is absent, open, done, restoring or restored."""

    state: str
    sweep: int = 0
    rows: int = 0
    ranges: int = 0
    open_ranges: int = 0


def ask(conn: Connection, text: str) -> list[Any]:
    """The rows of one of our texts; percent signs are the driver's, so they are doubled."""
    return list(conn.exec_driver_sql(text.replace("%", "%%")))


def send(conn: Connection, text: str) -> int:
    """Run one of our texts; the rows that it affected."""
    return max(conn.exec_driver_sql(text.replace("%", "%%")).rowcount, 0)


def standing(conn: Connection, job: Job) -> Standing:
    """Read how far the job is.  Raises: Refused where its tables are another repair's."""
    place = job.table("range")
    if not ask(conn, f"select 1 where to_regclass({literal(place)}) is not null"):
        return Standing("absent")
    (row,) = ask(
        conn,
        "select max(state) filter (where n = 0), max(pass) filter (where n = 0), coalesce(sum(rows), 0), count(*) - 1, "
        f"count(*) filter (where n > 0 and state = 'open'), max(lo[1]) filter (where n = 0) from {place}",
    )
    if row[5] != _mark(job):
        raise Refused(f"{place} belongs to another repair. Nothing was changed. Make a new plan.")
    return Standing(str(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4]))


def _mark(job: Job) -> str:
    """Tells this repair from another of the same name."""
    return sha256(canonical(job.repair.as_arguments(job.schema)))


def relations(conn: Connection, job: Job) -> tuple[Relation, ...]:
    """The table, or its partitions.  Raises: Refused where one of them is not an ordinary table."""
    frame = queries.frame(conn, "backfill/relations", table_name=job.repair.table)
    held = frame.to_dict("records")
    for row in held:
        if row["kind"] != "r":
            raise Refused(f"{row['relation']} is no ordinary table, so the rows of {job.repair.table} cannot be repaired in batches. Nothing was changed.")  # fmt: skip
    return tuple(Relation(f"only {row['relation']}", int(row["blocks"]), float(row["rows_per_block"])) for row in held)


def make(conn: Connection, job: Job) -> None:
    """Make the job's tables and the ranges of its first pass; the caller's transaction makes it all or nothing."""
    for text in (*batch.opening(job), *batch.noted(job)):
        send(conn, text)
    values = f"0, 0, {literal(job.repair.table)}, {array([_mark(job)])}"
    send(conn, f"insert into {job.table('range')} (n, pass, relation, lo) values ({values})")
    _add(conn, job, 0, _parts(conn, job))


def sweep_again(conn: Connection, job: Job, sweep: int, *, left: int) -> None:
    """Begin the next pass: over the pages where rows are left, where these are few, else over the whole table as it is now."""
    if job.repair.work and sweep == 1:
        send(conn, f"create index on {job.table('image')} (w)")
    send(conn, f"update {job.table('range')} set pass = {int(sweep)} where n = 0")
    few = job.walks == "ctid" and left <= batch.LEFT_COUNTED
    _add(conn, job, sweep, _around(conn, job) if few else _parts(conn, job))


Part = tuple[str, Position | None, Position | None]  # relation, from, up to


def _add(conn: Connection, job: Job, sweep: int, parts: Iterable[Part]) -> None:
    place = job.table("range")
    ((last,),) = ask(conn, f"select max(n) from {place}")
    lines = [
        f"({n}, {int(sweep)}, {literal(relation)}, {array(lo)}, {array(hi)})"
        for n, (relation, lo, hi) in enumerate(parts, int(last) + 1)
    ]
    if lines:
        send(conn, f"insert into {place} (n, pass, relation, lo, hi) values {', '.join(lines)}")


def _around(conn: Connection, job: Job) -> Iterator[Part]:
    """The pages where rows are left, near ones together."""
    runs: list[tuple[str, int, int]] = []
    for relation, page in ask(conn, batch.left_pages(job)):
        if runs and runs[-1][0] == relation and page < runs[-1][2] + _LEAST_BLOCKS:
            runs[-1] = (relation, runs[-1][1], page + 1)
        else:
            runs.append((relation, page, page + 1))
    yield from ((relation, (f"({start},0)",), (f"({end},0)",)) for relation, start, end in runs)


def _parts(conn: Connection, job: Job) -> Iterator[Part]:
    """The table in parts, or the worklist."""
    if job.repair.work:
        ((lines,),) = ask(conn, f"select coalesce(max(n), 0) from {job.table('work')}")
        for lo, hi in _cut(int(lines), job, least=_LEAST_LINES):
            yield job.whole, (str(lo + 1),), (str(hi + 1),)
        return
    for relation in relations(conn, job):
        if job.walks == "keyset":
            yield from _by_key(conn, job, relation)
        else:
            for lo, hi in _cut(relation.blocks, job, least=_LEAST_BLOCKS):
                yield relation.name, (f"({lo},0)",), (f"({hi},0)",)


def _cut(length: int, job: Job, *, least: int) -> Iterator[tuple[int, int]]:
    """0..length in about equal parts, enough for the workers to end at about the same time."""
    most = 1 if job.repair.workers == 1 else _RANGES_PER_WORKER * job.repair.workers
    parts = max(1, min(most, math.ceil(length / least)))
    ends = [length * n // parts for n in range(parts + 1)]
    yield from ((lo, hi) for lo, hi in itertools.pairwise(ends) if hi > lo)


def _by_key(conn: Connection, job: Job, relation: Relation) -> Iterator[Part]:
    """Parts of about equally many keys, by an index-only scan; the last one has no end."""
    rows = int(relation.blocks * (relation.rows_per_block or 1))
    at: Position | None = None
    for lo, hi in _cut(rows, job, least=_LEAST_LINES):
        found = ask(conn, batch.bound(job, Window(relation.name, at, None), keys=hi - lo)) if hi < rows else []
        upto = tuple(found[0][0]) if found else None
        yield relation.name, at, upto
        if upto is None:
            return
        at = upto


def open_ranges(conn: Connection, job: Job) -> tuple[Range, ...]:
    """The ranges of the current pass that are not walked to their end."""
    rows = ask(
        conn, f"select n, relation, lo, hi, at from {job.table('range')} where n > 0 and state = 'open' order by n"
    )
    measured = job.walks != "keyset"
    return tuple(
        Range(n, relation, _position(lo), _position(hi), _position(at), measured) for n, relation, lo, hi, at in rows
    )


def _position(texts: list[str] | None) -> Position | None:
    return tuple(texts) if texts else None


def move(conn: Connection, job: Job, part: Range, left: Range | None, *, rows: int) -> None:
    """``rows`` of a range were changed now, and so much of it is left; None: nothing."""
    reached = "state = 'done'" if left is None else f"at = {array(left.at)}"
    send(
        conn,
        f"update {job.table('range')} set {reached}, rows = rows + {int(rows)}, batches = batches + 1 where n = {int(part.n)}",
    )


def close(conn: Connection, job: Job, state: str) -> None:
    """The job is done, or is being given back: on disk, with all batches before, when the transaction is committed."""
    send(conn, "set local synchronous_commit to default")
    send(conn, f"update {job.table('range')} set state = {literal(state)} where n = 0")


def block(position: str) -> int:
    """The page of a tuple's position; the number of a line.

    >>> block("(12,3)"), block("17")
    (12, 17)
    """
    return int(position.lstrip("(").partition(",")[0])


def array(position: Sequence[str] | None) -> str:
    """A position as SQL."""
    return "null" if position is None else f"cast(array[{', '.join(literal(value) for value in position)}] as text[])"
