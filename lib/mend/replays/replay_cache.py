"""Replays that were made before: one file each under the cache directory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mend import settings
from mend.database.catalog import SNAPSHOT_SQL, Change
from mend.errors import ReplayFailed
from mend.histories.history import History
from mend.histories.project import PROBE, Event, Project
from mend.replays.recording import Replay, Statement
from mend.replays.scratch import Scratch

CACHED = 200


class Kept:
    """The cache: one file per revision, valid while the history, its imports, the interpreter and the server's version are the same."""

    def __init__(
        self,
        project: Project,
        history: History,
        revision: str,
        scratch: Scratch,
        base: Path | None,
        *,
        own: tuple[str, ...] = (),
    ) -> None:
        self.history = history
        packages = [
            [str(p), p.stat().st_mtime_ns]
            for p in sorted(project.python.parent.parent.glob("lib/python*/site-packages"))
        ]
        dump = hashlib.sha256(_plain(base)).hexdigest() if base else ""
        facts = [
            history.digest,
            revision,
            str(project.python),
            packages,
            scratch.version,
            scratch.major,
            dump,
            list(scratch.roles),
            scratch.path,
            list(scratch.schemas),
        ]
        texts = [
            *own,
            SNAPSHOT_SQL,
            *(
                path.read_text(encoding="utf-8")
                for path in [Path(__file__).with_name("replay.py"), *sorted(PROBE.parent.glob("*.py"))]
            ),
        ]
        key = hashlib.sha256(json.dumps([*facts, *texts]).encode()).hexdigest()
        self.path = settings.home() / "cache" / "replay" / f"{key[:32]}.json"

    def load(self) -> Replay | None:
        import pandas

        kept = self.read()
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
        kept = self.read()
        failure: Event | None = kept.get("failure") if kept else None
        return failure

    def save(self, made: Replay, modules: list[Any]) -> None:
        assert made.base is not None
        self.write(
            {"modules": modules, "replay": {**asdict(replace(made, base=None)), "base": made.base.to_numpy().tolist()}}
        )

    def save_failure(self, error: Event) -> None:
        self.write({"modules": error.get("modules", []), "failure": error})

    def read(self) -> dict[str, Any] | None:
        """What was kept, if the project's own modules are still the same."""
        return read_kept(self.path)

    def write(self, content: dict[str, Any]) -> None:
        """Keep it; ``modules`` in it names the files that it hangs on, with their digests."""
        write_kept(self.path, content)


def kept_path(name: str, facts: Sequence[Any]) -> Path:
    """Where an answer is kept that depends on these facts, and on the probe as it is."""
    own = [SNAPSHOT_SQL, *(path.read_text(encoding="utf-8") for path in sorted(PROBE.parent.glob("*.py")))]
    key = hashlib.sha256(json.dumps([*facts, *own]).encode()).hexdigest()
    return settings.home() / "cache" / name / f"{key[:32]}.json"


def read_kept(path: Path) -> dict[str, Any] | None:
    """What was kept, unless one of the project's ``modules`` has changed since."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return None if any(_file_digest(path) != digest for path, digest in kept["modules"]) else kept
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, cut off, or of another version of mend: it is made again


def write_kept(path: Path, content: dict[str, Any]) -> None:
    """Keep an answer; of many the newest."""
    temporary = path.with_suffix(f".{time.monotonic_ns()}.new")
    with suppress(OSError):  # no room or no right: it is made again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)
        for old in sorted(path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-CACHED]:
            old.unlink(missing_ok=True)


def _file_digest(path: str) -> str:
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _plain(base: Path) -> bytes:
    """A dump's text.  Raises: ReplayFailed where it cannot be read, or is not SQL."""
    try:
        content = base.read_bytes()
        if content.startswith(b"PGDMP"):
            raise ValueError("it is not plain SQL: make it with pg_dump --schema-only, without -Fc")
        content.decode()
    except (OSError, ValueError) as error:
        raise ReplayFailed(
            f"The base {base} cannot be used: {getattr(error, 'strerror', None) or error}. The target was not touched. Name a dump that "
            "pg_dump --schema-only made."
        ) from error
    return content
