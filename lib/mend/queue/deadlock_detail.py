"""A pasted ``deadlock detected`` with its DETAIL, taken apart: who held what, who asked for what, in which order.  Pure.

PostgreSQL tells the client of pids, lock modes and numbers of relations; only the server's log has the statements, and where they are
in the text they are kept by their shape, without values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mend.database import sqltext

_WAITS = re.compile(
    r"Process (?P<pid>\d+) waits for (?P<mode>\w+?)(?:Lock)? on (?P<object>[^;\n]{1,200}?); blocked by process (?P<blocker>\d+)"
)
_RUNS = re.compile(r"^[ \t]*(?:DETAIL:[ \t]*)?Process (?P<pid>\d+): (?P<sql>\S[^\n]{0,4000})$", re.MULTILINE)
_RELATION = re.compile(r"relation (?P<oid>\d+) of database (?P<database>\d+)")
_TUPLE = re.compile(
    r"while (?P<doing>updating|deleting|locking|inserting index) tuple \([\d,]+\) in relation (?P<name>\"[^\"]+\"|\S+)"
)


@dataclass(frozen=True)
class Process:
    """One party: ``asked`` in words; ``relation``, ``database``: oids, 0 where it is not about a relation; ``statement``: its shape, or ''."""

    pid: int
    mode: str
    asked: str
    blocked_by: int
    relation: int = 0
    database: int = 0
    statement: str = ""


@dataclass(frozen=True)
class Deadlock:
    """The circle, in the order of the text; ``row_of``: the relation whose row was being changed, where the text says so."""

    processes: tuple[Process, ...]
    row_of: str = ""

    def relations(self) -> list[int]:
        """Their oids."""
        return sorted({p.relation for p in self.processes if p.relation})

    def told(self, names: Mapping[int, str]) -> list[str]:
        """Who waited for whom, one sentence each; ``names``: oid -> name of those relations that are known."""
        found = []
        for process in self.processes:
            what = names.get(process.relation, process.asked)
            held = next((p for p in self.processes if p.pid == process.blocked_by), None)
            runs = f" for: {process.statement}" if process.statement else ""
            found.append(
                f"process {process.pid} asked for {process.mode} on {what}{runs}, and process {process.blocked_by} held it"
                + ("" if held else " (not in the text)")
            )
        return found

    def lesson(self, names: Mapping[int, str]) -> str:
        """What the order of the locks says."""
        tables = list(dict.fromkeys(names[p.relation] for p in self.processes if p.relation in names))
        if len(tables) > 1:
            return f"They took {' and '.join(tables)} in opposite order. Take them in one order everywhere, or one at a time, each in a transaction of its own."
        if tables and len({p.mode for p in self.processes}) == 1:
            return f"Both held a weaker lock on {tables[0]}, and both asked for {self.processes[0].mode}. Take the strongest lock first."
        if any(p.asked.startswith(("transaction", "tuple")) for p in self.processes):
            return "They changed the same rows in opposite order. Change rows in the order of their keys, in short transactions."
        return "They took the same locks in opposite order. Take them in one order everywhere."


def parse(text: str) -> Deadlock | None:
    """The last deadlock that the text tells of; None where there is none.

    >>> found = parse("Process 7 waits for ShareLock on transaction 12; blocked by process 9.")
    >>> found.processes[0].asked, found.processes[0].blocked_by
    ('transaction 12', 9)
    """
    matches = list(_WAITS.finditer(text))
    if not matches:
        return None
    circle: dict[int, re.Match[str]] = {}
    for match in reversed(matches):  # a log may hold several: the last one counts, back to where its circle closes
        if (
            circle
            and int(match["blocker"]) not in circle
            and not any(m["blocker"] == match["pid"] for m in circle.values())
        ):
            break
        if int(match["pid"]) in circle:
            break
        circle[int(match["pid"])] = match
    runs = {int(m["pid"]): sqltext.shape(m["sql"])[:300] for m in _RUNS.finditer(text) if " waits for " not in m[0]}
    row = _TUPLE.search(text)
    return Deadlock(
        tuple(_process(circle[pid], runs.get(pid, "")) for pid in reversed(circle)),
        row["name"].strip('"') if row else "",
    )


def _process(match: re.Match[str], statement: str) -> Process:
    about = _RELATION.search(match["object"])
    return Process(
        pid=int(match["pid"]),
        mode=re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match["mode"]).upper(),
        asked=match["object"],
        blocked_by=int(match["blocker"]),
        relation=int(about["oid"]) if about else 0,
        database=int(about["database"]) if about else 0,
        statement=statement,
    )


def excerpt(text: str) -> str:
    """The lines of a text that tell of its last deadlock, without anybody's values: what a parameter may hold.

    >>> excerpt("x@example.org\\nDETAIL:  Process 7 waits for ShareLock on transaction 12; blocked by process 9.\\n")
    'Process 7 waits for ShareLock on transaction 12; blocked by process 9.'
    """
    found = parse(text)
    if found is None:
        return ""
    lines = [
        f"Process {p.pid} waits for {_lock(p.mode)} on {p.asked}; blocked by process {p.blocked_by}."
        for p in found.processes
    ]
    lines += [f"Process {p.pid}: {p.statement}" for p in found.processes if p.statement]
    return "\n".join(lines)


def _lock(mode: str) -> str:
    return "".join(word.capitalize() for word in mode.split(" ")) + "Lock"
