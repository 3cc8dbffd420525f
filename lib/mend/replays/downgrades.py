"""What each downgrade() of a path really does: up, down and up again in a scratch database, and what differs from before.

One run, kept on disk, answers for the whole path: the catalog after every revision, the statements of every downgrade() with what each
changed, what a downgrade leaves behind or loses, whether the upgrade runs again, and where a run all the way down stops.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mend.database.catalog import SNAPSHOT_SQL, Change
from mend.database.target import redact
from mend.errors import MendError, ReplayFailed
from mend.histories import history
from mend.histories.history import History
from mend.histories.project import Event, Project, ask, broken
from mend.replays.expected import Facets, Key, Progress
from mend.replays.recording import Statement
from mend.replays.replay_cache import Kept
from mend.replays.scratch import Scratch, load, new_name


@dataclass(frozen=True)
class Failure:
    """Why a leg ended early: what was raised, with its SQLSTATE, and the statement that it was raised by, if any."""

    kind: str
    message: str
    sqlstate: str
    sql: str
    revision: str

    @property
    def says(self) -> str:
        """One line."""
        state = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        return f"{self.kind}: {self.message}{state}" if self.message else f"{self.kind}{state}"


@dataclass(frozen=True)
class Proof:
    """One revision, up, down and up again.

    ``made``: what its upgrade() changes.  ``undone``: what downgrade() changes of that; None where it ``failed``.  ``again``: what the
    second upgrade() leaves otherwise than the first; None where it ``failed_again``, or was not tried.  ``rows``: what upgrade() does to rows, which
    nobody can compare.
    """

    revision: str
    made: tuple[Change, ...]
    undone: tuple[Change, ...] | None
    again: tuple[Change, ...] | None
    statements: tuple[Statement, ...]
    reads: tuple[str, ...]
    failed: Failure | None
    failed_again: Failure | None
    warnings: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    @cached_property
    def left(self) -> tuple[Change, ...]:
        """From how it was before upgrade() to how it is after downgrade(): nothing, where that is the same."""
        if self.undone is None:
            return ()
        made = {(c.kind, c.identity): c for c in self.made}
        undone = {(c.kind, c.identity): c for c in self.undone}
        found = []
        for key in sorted(made.keys() | undone.keys()):
            before = made[key].before if key in made else undone[key].before
            after = undone[key].after if key in undone else made[key].after
            if before != after:
                found.append(Change(*key, before, after))
        return tuple(found)

    @property
    def exact(self) -> bool:
        """Whether downgrade() gives back what was, and upgrade() what will be."""
        return self.undone is not None and not self.left and self.again == ()

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.failed:
            return "cannot be taken back" if not self.failed.sqlstate else "fails"
        if self.failed_again:
            return "breaks the next upgrade"
        if any(c.after is not None and c.before is None for c in self.left):
            return "leaves something behind"
        return "loses something" if self.left else "comes back otherwise" if self.again else "exact"


@dataclass(frozen=True)
class Proven:
    """A path down, newest last in ``path``, with what is ``above`` the version rows; ``base``: the catalog below the path.

    ``stops``: where a run all the way down fails; None: it does not.  ``unreached``: why a revision could not even be upgraded.
    ``per_migration``: env.py commits each revision by itself.
    """

    path: tuple[str, ...]
    above: tuple[str, ...]
    base: Facets
    proofs: Mapping[str, Proof]
    stops: Failure | None
    unreached: Failure | None
    per_migration: bool
    version_table: str
    migrator: str
    warnings: tuple[str, ...]
    server_version: str
    seconds: float = 0.0
    cached: bool = False

    def at(self, revision: str) -> dict[Key, str]:
        """The catalog after a revision of the path; '' for the one below it."""
        state: dict[Key, str] = dict(self.base)
        for one in (*self.path, *self.above) if revision else ():
            for change in self.proofs[one].made:
                state.pop((change.kind, change.identity), None)
                if change.after is not None:
                    state[change.kind, change.identity] = change.after
            if one == revision:
                break
        return state


@dataclass(frozen=True)
class Way:
    """Which revisions: ``path`` to be taken back, oldest first; ``above``, not applied yet, to be proven too; ``below`` both."""

    path: tuple[str, ...]
    above: tuple[str, ...]
    below: tuple[str, ...]
    upto: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def way(past: History, applied: set[str], path: Sequence[str], above: Sequence[str]) -> Way:
    """The path with, after each of its revisions, the tips of what is applied by then."""
    below = applied - set(path)
    done, upto = set(below), {}
    for one in (*path, *above):
        done.add(one)
        upto[one] = tips(past, done)
    return Way(tuple(path), tuple(above), tips(past, below), upto)


def tips(past: History, revisions: set[str]) -> tuple[str, ...]:
    """Those that no other of them comes after, dependencies counted; in the history's order."""
    below = {parent for one in revisions for parent in past.parents(one)}
    return tuple(one for one in past.ordered() if one in revisions and one not in below)


def proven(
    project: Project,
    way: Way,
    *,
    scratch: Scratch,
    base: Path | None = None,
    base_revision: str = "",
    progress: Progress | None = None,
    timeout_s: float = 1800,
) -> Proven:
    """Prove every revision of a path.

    Parameters
    ----------
    project : the user's project
    way : from ``way()``
    scratch : where to run; started only when the answer is not in the cache
    base, base_revision : a plain SQL dump of a schema to start from, and the revision that it is at
    progress : called with (done, total, text)
    timeout_s : seconds for the whole run of the project's code

    Reads: the project's files.  Writes: scratch databases and the cache.
    Raises: RevisionNotFound, ProjectBroken, ScratchUnavailable; ReplayFailed where the history does not run up to the path.
    """
    started = time.monotonic()
    past = history.read(project.alembic_ini, python=project.python)
    start = past.get(base_revision).id if base_revision else ""
    if start and (hidden := [one for one in way.path if one in past.ancestors([start])]):
        raise ReplayFailed(
            f"The dump is at {start}, so what happens below it cannot be replayed, and {hidden[-1]} is to be taken back. The target was not "
            "touched. Give a dump of an older revision, or a revision to go down to that is not below it."
        )
    kept = Kept(project, past, f"back {list(way.path)} {list(way.above)} {list(way.below)} from {start}", scratch, base,
                own=(Path(__file__).read_text(encoding="utf-8"),))  # fmt: skip
    found = kept.read()
    if found and "proven" in found:
        return replace(_proven(found["proven"], way), seconds=time.monotonic() - started, cached=True)
    with scratch:
        record, modules_ = _Run(project, way, start, scratch, progress or (lambda done, total, text: None)).made(
            base, timeout_s
        )
    kept.write({"modules": modules_, "proven": record})
    return replace(_proven(record, way), seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Run:
    project: Project
    way: Way
    start: str
    scratch: Scratch
    progress: Progress

    def made(self, base: Path | None, timeout_s: float) -> tuple[dict[str, Any], list[Any]]:
        dump = base.read_text(encoding="utf-8") if base else ""
        total = len(self.way.path) + len(self.way.above)
        with ExitStack() as stack:
            place = stack.enter_context(self.scratch.database())
            seen: list[str] = []

            def on_event(event: Event) -> None:
                if event["event"] == "fresh":
                    there = stack.enter_context(self.scratch.database(name=event["name"]))
                    if dump:
                        load(dump, there)
                elif event["event"] == "up":
                    seen.append(event["revision"])
                    self.progress(len(seen), total, f"there and back: {event['revision']}")

            events = ask(
                self.project,
                self._request({**place, "dbname": new_name()}),
                timeout_s=timeout_s,
                on_event=on_event,
            )
        if events[-1]["event"] == "error":
            raise broken(events[-1])
        if not any(e["event"] == "base" for e in events):
            raise self._unbuilt(next((e for e in events if e["event"] == "failed"), None))
        modules = [m for e in events for m in e.get("modules", [])]
        migrator = place["user"]
        return self._record(events, migrator), [list(m) for m in {tuple(m) for m in modules}]

    def _request(self, place: Mapping[str, str]) -> dict[str, Any]:
        return {
            "action": "back",
            "snapshot_sql": SNAPSHOT_SQL,
            "scratch": dict(place),
            "path": list(self.way.path),
            "above": list(self.way.above),
            "below": list(self.way.below),
            "upto": {one: list(goals) for one, goals in self.way.upto.items()},
            "start": [self.start] if self.start else [],
        }

    def _unbuilt(self, failed: Event | None) -> MendError:
        where = f"revision {failed['revision']} fails: {_failure(failed).says}" if failed and failed["revision"] else ""
        if failed and failed["refused"]:
            where = redact(str(failed["message"]))
        return ReplayFailed(
            f"The history cannot be replayed from {self.start or 'an empty database'}: {where or _said(failed) or 'env.py ran no migrations'}. The "
            "target was not touched. Give a dump of the schema at a revision from which it does run: base (a file that pg_dump --schema-only "
            "made) and base_revision; or set them for the target in mend.toml.",
            revision=failed["revision"] if failed else "",
        )

    def _record(self, events: list[Event], migrator: str) -> dict[str, Any]:
        context = next(e for e in events if e["event"] == "context")
        base = next(e["rows"] for e in events if e["event"] == "base")
        whole = next((e for e in events if e["event"] == "failed" and e["leg"] == "whole"), None)
        ran = [e["revision"] for e in events if e["event"] == "up"]
        up = next((e for e in events if e["event"] == "failed" and e["leg"] == "up" and e["revision"] not in ran), None)
        return {
            "base": base, "proofs": [_proof_record(one, events) for one in ran],
            "stops": _failure_record(whole), "unreached": _failure_record(up), "per_migration": context["per_migration"],
            "version_table": context["version_table"], "migrator": migrator, "warnings": [self.scratch.warning],
            "server_version": self.scratch.version,
        }  # fmt: skip


def _said(failed: Event | None) -> str:
    return _failure(failed).says if failed else ""


def _proof_record(revision: str, events: Sequence[Event]) -> dict[str, Any]:
    of = [e for e in events if e.get("revision") == revision]
    kinds = {e["event"]: e for e in of}
    failed = {e["leg"]: e for e in of if e["event"] == "failed"}
    return {
        "revision": revision,
        "made": kinds["up"]["changes"],
        "undone": kinds["down"]["changes"] if "down" in kinds else None,
        "again": kinds["again"]["changes"] if "again" in kinds else None,
        "statements": [e for e in of if e["event"] == "statement"],
        "reads": kinds["recorded"]["reads"] if "recorded" in kinds else [],
        "warnings": kinds["recorded"]["warnings"] if "recorded" in kinds else [],
        "rows": kinds["rows"]["says"] if "rows" in kinds else [],
        "failed": _failure_record(failed.get("down")),
        "failed_again": _failure_record(failed.get("again")),
    }


def _failure_record(event: Event | None) -> dict[str, str] | None:
    if event is None:
        return None
    said = redact(str(event["message"]).strip().splitlines()[0]) if str(event["message"]).strip() else ""
    return {"kind": event["kind"], "message": said, "sqlstate": event["sqlstate"] or "", "sql": event["sql"], "revision": event["revision"]}  # fmt: skip


def _failure(event: Event) -> Failure:
    record = _failure_record(event)
    assert record is not None
    return Failure(**record)


def _proven(record: Mapping[str, Any], way: Way) -> Proven:
    proofs = {one["revision"]: _proof(one) for one in record["proofs"]}
    return Proven(
        path=way.path,
        above=tuple(one for one in way.above if one in proofs),
        base={(kind, identity): text for kind, identity, text in record["base"]},
        proofs=proofs,
        stops=Failure(**record["stops"]) if record["stops"] else None,
        unreached=Failure(**record["unreached"]) if record["unreached"] else None,
        per_migration=record["per_migration"],
        version_table=record["version_table"],
        migrator=record["migrator"],
        warnings=tuple(filter(None, record["warnings"])),
        server_version=record["server_version"],
    )


def _proof(one: Mapping[str, Any]) -> Proof:
    def changes(rows: Sequence[Sequence[Any]] | None) -> tuple[Change, ...] | None:
        return None if rows is None else tuple(Change(*row) for row in rows)

    return Proof(
        revision=one["revision"],
        made=changes(one["made"]) or (),
        undone=changes(one["undone"]),
        again=changes(one["again"]),
        statements=_statements(one["revision"], one["statements"]),
        reads=tuple(one["reads"]),
        failed=Failure(**one["failed"]) if one["failed"] else None,
        failed_again=Failure(**one["failed_again"]) if one["failed_again"] else None,
        warnings=tuple(one["warnings"]),
        rows=tuple(one["rows"]),
    )


def _statements(revision: str, events: Sequence[Event]) -> tuple[Statement, ...]:
    """Operations counted from 1 without gaps, as everywhere (``replay``)."""
    made: list[Statement] = []
    operation, previous = 0, None
    for e in events:
        operation += e["operation"] != previous
        previous = e["operation"]
        index = made[-1].index + 1 if made and made[-1].operation == operation else 1
        made.append(
            Statement(
                revision, operation, index, e["op"], e["says"], e["sql"], e["rendered"], e["autocommit"], e["segment"],
                tuple(Change(*change) for change in e["changes"]), e["data"], e["search_path"], tuple(e["settings"]), e["verdict"], e["detail"],
                e["finishes"],
            )
        )  # fmt: skip
    return tuple(made)
