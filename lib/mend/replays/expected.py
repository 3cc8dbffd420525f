"""The catalog that a history makes: after every operation of every revision, and who set each facet last.

The project's whole history runs once in a scratch database, up to the revisions that the version table names and then on as far as
it goes.  What each statement changed is recorded on the way (``probe.chronicle``), so that one run, kept on disk, answers for every
revision of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from mend.database import catalog, names
from mend.database.catalog import Change
from mend.errors import MendError, ReplayFailed, ScratchUnavailable
from mend.histories import history
from mend.histories.history import History
from mend.histories.project import Event, Project, ask, broken
from mend.replays import spying
from mend.replays.recording import Statement
from mend.replays.replay_cache import Kept
from mend.replays.scratch import Scratch, load

Key = tuple[str, str]
Facets = Mapping[Key, str]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, order=True)
class Place:
    """An operation: where it stands in the run, its revision, and its number in that, from 1."""

    at: int
    revision: str
    operation: int


@dataclass(frozen=True)
class Step:
    """One operation of the history with all it changed; ``own``: of a revision that the version rows include."""

    place: Place
    says: str
    statements: tuple[Statement, ...]
    own: bool

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """First state to last of every facet."""
        first: dict[Key, Change] = {}
        for change in (c for one in self.statements for c in one.changes):
            key = (change.kind, change.identity)
            first[key] = Change(*key, first[key].before if key in first else change.before, change.after)
        return tuple(c for c in first.values() if c.before != c.after)


@dataclass(frozen=True)
class Expected:
    """What a history makes.

    ``base``: the catalog before the first revision.  ``facets``: that after the last own one, as a new session sees it.
    ``ran``: revisions in the order in which they ran, those beyond the version rows last.  ``migrator``: the role that ran them in scratch.
    ``reads``: revisions whose statements depend on rows or on what the catalog holds.  ``stopped``: why the run beyond ended early.
    """

    rows: tuple[str, ...]
    base: Facets
    facets: Facets
    steps: tuple[Step, ...]
    ran: tuple[str, ...]
    own: int
    reads: tuple[str, ...]
    version_table: str
    migrator: str
    warnings: tuple[str, ...]
    stopped: str
    server_version: str
    seconds: float = 0.0
    cached: bool = False

    @cached_property
    def set_by(self) -> dict[Key, Step]:
        """The own operation that set, or removed, a facet last."""
        return {(c.kind, c.identity): step for step in self.steps if step.own for c in step.changes}

    @cached_property
    def pending_by(self) -> dict[tuple[Key, str | None], Step]:
        """The operation beyond the version rows that brings a facet to a state; the first that does."""
        found: dict[tuple[Key, str | None], Step] = {}
        for step in self.steps:
            for c in step.changes if not step.own else ():
                found.setdefault(((c.kind, c.identity), c.after), step)
        return found


def expected(
    project: Project,
    rows: Sequence[str],
    *,
    scratch: Scratch,
    base: Path | None = None,
    base_revision: str = "",
    progress: Progress | None = None,
    timeout_s: float = 1800,
) -> Expected:
    """The catalog that the history makes, up to these version rows and beyond.

    Parameters
    ----------
    project : the user's project
    rows : the database's own revisions; none: nothing is recorded there
    scratch : where to run; started only when the answer is not in the cache
    base, base_revision : a plain SQL dump of a schema to start from, and the revision that it is at
    progress : called with (done, total, text)
    timeout_s : seconds for the whole run of the project's code

    Reads: the project's files.  Writes: a scratch database and the cache.
    Raises: RevisionNotFound, ProjectBroken, ScratchUnavailable; ReplayFailed with the revision and operation that fail.
    """
    started = time.monotonic()
    past = history.read(project.alembic_ini, python=project.python)
    wanted = tuple(sorted(past.get(row).id for row in rows))
    start = past.get(base_revision).id if base_revision else ""
    kept = Kept(
        project,
        past,
        f"{wanted} from {start}",
        scratch,
        base,
        own=(*spying.setup(), Path(__file__).read_text(encoding="utf-8")),
    )
    found = kept.read()
    if found and "expected" in found:
        return replace(_from_record(found["expected"]), seconds=time.monotonic() - started, cached=True)
    with scratch:
        run = _Run(project, past, wanted, start, scratch, progress or (lambda done, total, text: None))
        record, modules = run.made(base, timeout_s)
    kept.write({"modules": modules, "expected": record})
    return replace(_from_record(record), seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Run:
    project: Project
    past: History
    rows: tuple[str, ...]
    start: str
    scratch: Scratch
    progress: Progress

    def made(self, base: Path | None, timeout_s: float) -> tuple[dict[str, Any], list[Any]]:
        """One run in a fresh process, as a record, with the project's modules that it hangs on."""
        seen: list[list[Any]] = []
        with self.scratch.database() as place:
            if base:
                load(base.read_text(encoding="utf-8"), place)
            spied = self.scratch.superuser(place)
            if spied:
                _prepare(place)

            def on_event(event: Event) -> None:
                if event["event"] == "revision":
                    self.progress(event["number"], event["of"], f"replaying {event['revision']}")
                elif event["event"] == "reached":
                    with psycopg.connect(**place, autocommit=True) as conn:  # type: ignore[arg-type]
                        seen.extend([list(row) for row in conn.execute(catalog.SNAPSHOT_SQL.encode()).fetchall()])

            events = ask(self.project, self._request(place, spied), timeout_s=timeout_s, on_event=on_event)
            reached = any(e["event"] == "reached" for e in events)
            if not reached:
                raise self._failed(events[-1])
            return self._record(events, seen, place["user"]), events[-1].get("modules", [])

    def _request(self, place: Mapping[str, str], spied: bool) -> dict[str, Any]:
        applied = self.past.ancestors(self.rows)
        begun = self.past.ancestors([self.start]) if self.start else set()
        return {
            "action": "chronicle",
            "snapshot_sql": spying.snapshot_sql(),
            "look_sql": spying.LOOK if spied else "",
            "scratch": dict(place),
            "goals": list(self.rows),
            "beyond": [head for head in self.past.heads if head not in applied],
            "start": [self.start] if self.start else [],
            "count": len(applied - begun),
        }

    def _failed(self, error: Event) -> MendError:
        """Which revision, which operation, why, and what to give instead."""
        if error["event"] != "error":
            return ReplayFailed(
                "alembic ran, but env.py ran no migrations in an empty database. The target was not touched. If env.py migrates several "
                "schemas, give a dump of the schema as `base`, and the revision that it is at as `base_revision`."
            )
        if not error["revision"]:
            return broken(error)
        where = f", operation {error['operation'][0]} ({error['operation'][1]})" if error.get("operation") else ""
        said = (str(error["message"]).strip().splitlines() or [""])[0]
        state = f" (SQLSTATE {error['sqlstate']})" if error["sqlstate"] else ""
        if error["sqlstate"] in ("0A000", "58P01") and "extension" in where.lower():
            raise ScratchUnavailable(
                f"The scratch server lacks an extension of the history: revision {error['revision']}{where} fails: {said}{state}. The target was "
                "not touched. Name a server that has it, by a role with CREATEDB, with `scratch =` in mend.toml."
            )
        return ReplayFailed(
            f"The history cannot be replayed from {self.start or 'an empty database'}: revision {error['revision']}{where} fails: "
            f"{error['kind']}: {said}{state}. The target was not touched. Give a dump of the schema at a revision from which it does run: base "
            "(a file that pg_dump --schema-only made) and base_revision; or set them for the target in mend.toml.",
            revision=error["revision"],
        )

    def _record(self, events: list[Event], seen: list[list[Any]], user: str) -> dict[str, Any]:
        at = next(n for n, e in enumerate(events) if e["event"] == "reached")
        base = next(e["rows"] for e in events if e["event"] == "base")
        ran = [(n < at, e) for n, e in enumerate(events) if e["event"] == "ran"]
        last = events[-1]
        final = {(kind, identity): text for kind, identity, text in base}
        for own, event in ran:
            for kind, identity, _, after in (c for one in event["statements"] if own for c in one["changes"]):
                final[kind, identity] = after
        there = {(kind, identity): text for kind, identity, text in seen}
        context = next(e for e in events if e["event"] == "context")
        strange = sorted(
            key
            for key in final.keys() | there.keys()
            if final.get(key) != there.get(key) and not names.of_version_table(context["version_table"], key[1])
        )
        stopped = (
            f"{last['revision'] or 'env.py'}: {last['kind']}: {str(last['message']).strip().splitlines()[0]}"
            if last["event"] == "error"
            else ""
        )
        warnings = [warning for _, e in ran for warning in e["warnings"]]
        if strange:
            warnings.append(
                f"made by SQL of which mend cannot tell the operation: {', '.join(f'{k} {i}' for k, i in strange[:5])}"
            )
        if self.start:
            warnings.append(
                f"the history was replayed from a dump at {self.start}: what that holds is attributed to no revision"
            )
        return {
            "rows": list(self.rows), "base": base, "facets": seen, "migrator": user, "warnings": list(dict.fromkeys([*warnings, self.scratch.warning])),
            "ran": [{"revision": e["revision"], "own": own, "reads": bool(e["reads"]) or e["looks"], "statements": e["statements"]} for own, e in ran],
            "version_table": context["version_table"], "stopped": stopped, "server_version": self.scratch.version,
        }  # fmt: skip


def _prepare(place: Mapping[str, str]) -> None:
    with psycopg.connect(**place, autocommit=True) as conn:  # type: ignore[arg-type]
        for statement in spying.setup():
            conn.execute(statement.encode())


def _from_record(record: Mapping[str, Any]) -> Expected:
    steps: list[Step] = []
    for one in record["ran"]:
        for statements in _operations(one["revision"], one["statements"]):
            first = statements[0]
            place = Place(len(steps), one["revision"], first.operation)
            steps.append(Step(place, first.says, statements, one["own"]))
    return Expected(
        rows=tuple(record["rows"]),
        base=_facets(record["base"]),
        facets=_facets(record["facets"]),
        steps=tuple(steps),
        ran=tuple(dict.fromkeys(one["revision"] for one in record["ran"])),
        own=len(dict.fromkeys(one["revision"] for one in record["ran"] if one["own"])),
        reads=tuple(one["revision"] for one in record["ran"] if one["reads"]),
        version_table=record["version_table"],
        migrator=record["migrator"],
        warnings=tuple(filter(None, record["warnings"])),
        stopped=record["stopped"],
        server_version=record["server_version"],
    )


def _facets(rows: Sequence[Sequence[str]]) -> dict[Key, str]:
    return {(kind, identity): text for kind, identity, text in rows}


def _operations(revision: str, events: Sequence[Event]) -> list[tuple[Statement, ...]]:
    """A revision's statements by operation; those are counted from 1 without gaps, as everywhere (``replay``)."""
    found: list[list[Statement]] = []
    previous = None
    for e in events:
        if e["operation"] != previous:
            found.append([])
        previous = e["operation"]
        changes = tuple(Change(*change) for change in e["changes"])
        found[-1].append(
            Statement(
                revision, len(found), len(found[-1]) + 1, e["op"], e["says"], e["sql"], e["rendered"], e["autocommit"], e["segment"], changes,
                e["data"], e["search_path"], tuple(e["settings"]), e["verdict"], e["detail"],
            )
        )  # fmt: skip
    return [tuple(several) for several in found]
