"""Local files that must never be half written, and the one file of a user's project that a plan may replace."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mend.errors import PlanIsStale
from mend.journal import sha256


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write, fsync, rename: a reader sees the old file or the new one, also after a crash.

    Rights and owner stay; of a link, what it leads to is written.
    """
    content = content.encode() if isinstance(content, str) else content
    path = path.resolve()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _same_rights(Path(temporary), path)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _same_rights(new: Path, old: Path) -> None:
    """Mode and owner of the file that is replaced; root may be mending somebody else's project."""
    present = old.stat() if old.exists() else None
    if present and os.geteuid() == 0:
        os.chown(new, present.st_uid, present.st_gid)
    new.chmod(present.st_mode if present else 0o644)


def replace(arguments: Mapping[str, Any]) -> None:
    """Put ``text`` in place of the file ``path``, if its content is still ``sha256``; nothing where that is done already.

    Raises: PlanIsStale if the file was edited since the plan was made.
    """
    path, text = Path(arguments["path"]), str(arguments["text"])
    present = sha256(path.read_bytes()) if path.exists() else ""
    if present == sha256(text):
        return
    if present != arguments["sha256"]:
        raise PlanIsStale(f"{path} was edited since the plan was made. It was left as it is. Make a new plan.")
    write_atomic(path, text)
