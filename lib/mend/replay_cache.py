"""Replays that were made before: one file each under the cache directory."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mend import settings
from mend.catalog import SNAPSHOT_SQL, Change
from mend.history import History
from mend.project import PROBE, Event, Project
from mend.recording import Replay, Statement
from mend.scratch import Scratch

CACHED = 200


class Kept:
    """The cache: one file per revision, valid while the history, its imports, the interpreter and the server's version are the same."""

    def __init__(self, project: Project, history: History, revision: str, scratch: Scratch, base: Path | None) -> None:
        self.history = history
        packages = [
            [str(p), p.stat().st_mtime_ns]
            for p in sorted(project.python.parent.parent.glob("lib/python*/site-packages"))
        ]
        dump = hashlib.sha256(base.read_bytes()).hexdigest() if base else ""
        facts = [
            history.digest,
            revision,
            str(project.python),
            packages,
            scratch.version,
            scratch.major,
            dump,
            list(scratch.roles),
        ]
        own = [
            SNAPSHOT_SQL,
            *(
                path.read_text(encoding="utf-8")
                for path in [Path(__file__).with_name("replay.py"), *sorted(PROBE.parent.glob("*.py"))]
            ),
        ]
        key = hashlib.sha256(json.dumps([*facts, *own]).encode()).hexdigest()
        self.path = settings.home() / "cache" / "replay" / f"{key[:32]}.json"

    def load(self) -> Replay | None:
        import pandas

        kept = self._read()
        if not kept or "replay" not in kept:
            return None
        made = kept["replay"]
        statements = tuple(
            Statement(
                **{**one, "changes": tuple(Change(**c) for c in one["changes"]), "settings": tuple(one["settings"])}
            )
            for one in made["statements"]
        )
        base = pandas.DataFrame(made["base"], columns=["kind", "identity", "definition"], dtype="str")
        return Replay(
            **{
                **made,
                "statements": statements,
                "base": base,
                "reads": tuple(made["reads"]),
                "warnings": tuple(made["warnings"]),
            }
        )

    def load_failure(self) -> Event | None:
        """How the history failed to start from an empty database, so that it is not tried again each time."""
        kept = self._read()
        failure: Event | None = kept.get("failure") if kept else None
        return failure

    def save(self, made: Replay, modules: list[Any]) -> None:
        assert made.base is not None
        self._write(
            {"modules": modules, "replay": {**asdict(replace(made, base=None)), "base": made.base.to_numpy().tolist()}}
        )

    def save_failure(self, error: Event) -> None:
        self._write({"modules": error.get("modules", []), "failure": error})

    def _read(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            return None if any(_file_digest(path) != digest for path, digest in kept["modules"]) else kept
        except (OSError, ValueError, KeyError, TypeError):
            return None  # absent, cut off, or of another version of mend: it is made again

    def _write(self, content: dict[str, Any]) -> None:
        temporary = self.path.with_suffix(f".{time.monotonic_ns()}.new")
        with suppress(OSError):  # no room or no right: it is made again next time
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self.path)
            for old in sorted(self.path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-CACHED]:
                old.unlink(missing_ok=True)


def _file_digest(path: str) -> str:
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
