"""squawk, where it is installed (PyPI package squawk-cli), on the SQL that alembic would print: locks, rewrites, unsafe constraints.

Optional: where it cannot run, that is said, and nothing is concluded from it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mend.errors import MendError
from mend.histories.history import History
from mend.histories.lint import Finding
from mend.histories.project import Project, ask, broken

TIMEOUT_S = 60.0
#: Matters of taste, and of settings that a session or env.py makes: asked for only by the project's own .squawk.toml.
TASTE = ("prefer-bigint-over-int", "prefer-bigint-over-smallint", "prefer-identity", "prefer-text-field", "prefer-timestamptz",
         "prefer-robust-stmts", "prefer-repack", "require-lock-timeout", "require-statement-timeout", "require-timeout-settings",
         "adding-serial-primary-key-field")  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What squawk found; ``why``: why it was not run, else ''."""

    findings: tuple[Finding, ...]
    revisions: tuple[str, ...] = ()
    why: str = ""


def program() -> Path | None:
    """squawk of this environment, else of $PATH."""
    own = Path(sys.executable).with_name("squawk")
    found = str(own) if own.is_file() else shutil.which("squawk")
    return Path(found) if found else None


def look(project: Project, past: History, revisions: Sequence[str]) -> Answer:
    """Render each revision as SQL, under the project's interpreter and without a connection, and let squawk read it."""
    squawk = program()
    if squawk is None:
        return Answer((), why="squawk is not installed (pip install squawk-cli)")
    if not revisions:
        return Answer(())
    request = {"action": "sql", "revisions": list(revisions), "offline": True}
    try:
        events = ask(project, request, timeout_s=TIMEOUT_S)
        if events[-1]["event"] == "error":
            raise broken(events[-1])
        texts = {e["revision"]: str(e["sql"]) for e in events if e["event"] == "sql"}
        return Answer(tuple(_read(squawk, project, past, texts)), tuple(revisions))
    except MendError as error:
        return Answer(
            (), why=f"no SQL could be rendered (alembic upgrade --sql): {error.message.split('. Nothing')[0]}"
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Answer((), why=f"squawk failed: {error}")


def _read(squawk: Path, project: Project, past: History, texts: dict[str, str]) -> list[Finding]:
    home = project.alembic_ini.absolute().parent
    own = (home / ".squawk.toml").is_file()
    with tempfile.TemporaryDirectory() as folder:
        files = {revision: Path(folder, f"{n}.sql") for n, revision in enumerate(texts)}
        for revision, file in files.items():
            file.write_text(texts[revision], encoding="utf-8")
        taste = [] if own else [f"--exclude={','.join(TASTE)}"]
        command = [str(squawk), "--reporter", "json", *taste, *map(str, files.values())]
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=home, stdin=subprocess.DEVNULL
        )
        if answer.returncode not in (0, 1):
            raise ValueError((answer.stderr.strip().splitlines() or [f"exit {answer.returncode}"])[-1])
        of = {str(file): revision for revision, file in files.items()}
        return [
            _finding(one, past, of[one["file"]], texts[of[one["file"]]]) for one in json.loads(answer.stdout or "[]")
        ]


def _finding(one: dict[str, object], past: History, revision: str, text: str) -> Finding:
    """At the revision's file; the line is that of the SQL, so its text is shown instead."""
    line = int(str(one["line"]))
    lines = text.splitlines()
    sql = lines[line].strip() if line < len(lines) else ""
    says = " ".join(str(part) for part in (one["message"], one.get("help") or "") if part)
    return str(past.revisions[revision].path), 0, f"squawk:{one['rule_name']}", f"{says} In: {sql[:160]}"
