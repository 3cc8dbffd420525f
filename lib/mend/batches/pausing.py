"""The flag by which ``mend pause`` holds a run that another process applies: a file in the run's folder.  Imports nothing heavy.

A file: it needs no connection, no rights on the target, and no signal to a process that may run in a container,
only the folder that the run writes its record to.  Its name begins with a dot, so it is no part of what is sealed; what was
paused, by whom and when, is journaled by the run itself.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from mend.files import write_atomic

PAUSED = ".paused"


def flag(folder: Path) -> dict[str, str] | None:
    """Who paused the run of this folder, and when; None where nobody did.  A flag that cannot be read counts: somebody made it."""
    try:
        content = json.loads((folder / PAUSED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}


def words(flag: dict[str, str]) -> str:
    """``paused by ...``."""
    since = f" since {flag['since'][11:19]} UTC" if "since" in flag else ""
    return f"paused by {flag.get('by') or 'somebody'}{since}"


def remedy(flag: dict[str, str]) -> str:
    """The way out, to be said after the words."""
    return f"; `mend pause {flag.get('run') or 'RUN'} --off` goes on"


def set_flag(folder: Path, *, by: str, since: str) -> None:
    """Set the flag; the run whose folder this is sees it within a second."""
    write_atomic(folder / PAUSED, json.dumps({"by": by, "since": since, "run": folder.name}) + "\n")


def lift(folder: Path) -> bool:
    """Lift the flag; False where there was none."""
    with contextlib.suppress(FileNotFoundError):
        (folder / PAUSED).unlink()
        return True
    return False
