"""Walks through a history in scratch databases: from some version rows to others, by way of stops, with what each revision leaves.

One process of the project's interpreter for each walk; the catalog is read at every stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mend.database import names
from mend.database.catalog import SNAPSHOT_SQL, Change
from mend.database.target import redact
from mend.histories.history import History
from mend.histories.project import Event, Project, ask, broken
from mend.repairs.steps import Facets
from mend.replays.replay_cache import kept_path, read_kept, write_kept
from mend.replays.scratch import Scratch

TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Arrival:
    """A stop that was reached: the version rows and the catalog there, the version table left out."""

    stop: str
    versions: tuple[str, ...]
    catalog: Facets


@dataclass(frozen=True)
class Walked:
    """How far a walk came.  ``error``: why it stopped, in ``failed_at``; '' where it reached every stop."""

    arrivals: tuple[Arrival, ...]
    changes: Mapping[str, tuple[Change, ...]]
    error: str = ""
    failed_at: str = ""
    modules: tuple[tuple[str, str], ...] = ()

    @property
    def settled(self) -> bool:
        """Whether another walk would end alike: it arrived, or a revision of the project failed."""
        return not self.error or bool(self.failed_at)

    def at(self, stop: str) -> Arrival | None:
        """The arrival at a stop."""
        return next((one for one in self.arrivals if one.stop == stop), None)


@dataclass(frozen=True)
class Trip:
    """One walk to make: in a scratch database that is at ``start``, to each of ``stops``, with the changes of ``watched``."""

    scratch: Mapping[str, str]
    start: Sequence[str]
    stops: Sequence[str]
    watched: Sequence[str] = ()


@dataclass(frozen=True)
class Walker:
    """Walks one project, as its files are or, with ``overlay`` (path -> text), as they would be."""

    project: Project
    past: History
    overlay: Mapping[str, str | None] = field(default_factory=dict)

    def walk(
        self,
        trips: Sequence[Trip],
        *,
        ready: Callable[[int], None] = lambda number: None,
        arrived: Callable[[str], None] = lambda stop: None,
    ) -> list[Walked]:
        """Walk them one after the other; ``ready`` is called with the number of each before it begins, ``arrived`` at each stop.

        Where the first does not arrive, the others are not begun.
        Raises: ProjectBroken where the project's process does not end well; an error of a revision is in the answer.
        """
        request = {
            "action": "walk",
            "walks": [asdict(one) for one in trips],
            "snapshot_sql": SNAPSHOT_SQL,
            "overlay": dict(self.overlay),
        }

        def on_event(event: Event) -> None:
            if event["event"] == "walk":
                ready(event["number"])
            elif event["event"] == "arrived":
                arrived(event["stop"])

        events = ask(self.project, request, timeout_s=TIMEOUT_S, on_event=on_event)
        if events[-1]["event"] == "error":
            raise broken(events[-1])
        begun = [n for n, event in enumerate(events) if event["event"] == "walk"]
        return [_walked(events[n:end]) for n, end in zip(begun, [*begun[1:], len(events)], strict=True)]

    def kept(self, name: str, facts: Sequence[Any], scratch: Scratch) -> Path:
        """Where the answer of several walks is kept."""
        packages = sorted(
            [str(p), p.stat().st_mtime_ns] for p in self.project.python.parent.parent.glob("lib/python*/site-packages")
        )
        own = [self.past.digest, sorted(self.overlay.items()), str(self.project.python), packages, scratch.version]
        return kept_path(name, [*own, scratch.major, list(scratch.roles), scratch.path, list(scratch.schemas), *facts])


def load(path: Path) -> tuple[list[Walked], list[str]] | None:
    """Walks that were kept, and the warnings that went with them."""
    found = read_kept(path)
    if found is None or "walks" not in found:
        return None
    return [_from_record(one) for one in found["walks"]], list(found["warnings"])


def save(path: Path, walks: Sequence[Walked], warnings: Sequence[str]) -> None:
    """Keep walks for the next diagnosis of the same history, if they would end alike."""
    if all(one.settled for one in walks):
        modules = sorted({module for one in walks for module in one.modules})
        write_kept(path, {"modules": modules, "walks": [_as_record(one) for one in walks], "warnings": list(warnings)})


def _walked(events: Sequence[Event]) -> Walked:
    last = next((e for e in reversed(events) if e["event"] in ("ended", "failed")), None)
    arrivals = tuple(_arrival(e) for e in events if e["event"] == "arrived")
    changes = {e["revision"]: tuple(Change(*c) for c in e["changes"]) for e in events if e["event"] == "changed"}
    if last is None:
        return Walked(arrivals, changes, "the project's process ended in the middle of it")
    modules = tuple((str(path), str(digest)) for path, digest in last["modules"])
    if last["event"] == "ended":
        return Walked(arrivals, changes, modules=modules)
    said = redact(str(last["message"]).strip().splitlines()[0]) if str(last["message"]).strip() else ""
    state = f" (SQLSTATE {last['sqlstate']})" if last["sqlstate"] else ""
    return Walked(arrivals, changes, f"{last['kind']}: {said}{state}", str(last["revision"]), modules)


def _arrival(event: Event) -> Arrival:
    catalog = {
        (kind, identity): text
        for kind, identity, text in event["rows"]
        if not names.of_version_table(event["table"], identity)
    }
    return Arrival(event["stop"], tuple(event["versions"]), catalog)


def _as_record(one: Walked) -> dict[str, Any]:
    return {
        "arrivals": [
            {"stop": a.stop, "versions": a.versions, "catalog": [[*key, text] for key, text in a.catalog.items()]}
            for a in one.arrivals
        ],
        "changes": {revision: [asdict(c) for c in changes] for revision, changes in one.changes.items()},
        "error": one.error,
        "failed_at": one.failed_at,
    }


def _from_record(one: Mapping[str, Any]) -> Walked:
    arrivals = tuple(
        Arrival(a["stop"], tuple(a["versions"]), {(kind, name): text for kind, name, text in a["catalog"]})
        for a in one["arrivals"]
    )
    changes = {revision: tuple(Change(**c) for c in changes) for revision, changes in one["changes"].items()}
    return Walked(arrivals, changes, one["error"], one["failed_at"])
