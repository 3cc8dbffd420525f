"""Local files that must never be half written, and the one file of a user's project that a plan may replace."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mend.errors import PlanIsStale, StepFailed
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

    ``sha256`` '' means that there must be no such file yet; ``text`` None removes it.
    Raises: PlanIsStale if the file was edited since the plan was made; StepFailed where it cannot be written.
    """
    path, text = Path(arguments["path"]), arguments["text"]
    present = content_hash(path)
    if present == ("" if text is None else sha256(str(text))):
        return
    if present != arguments["sha256"]:
        raise PlanIsStale(f"{path} was edited since the plan was made. It was left as it is. Make a new plan.")
    try:
        path.unlink() if text is None else write_atomic(path, str(text))
    except OSError as error:
        raise StepFailed(
            f"{path} could not be written: {error.strerror}. It was left as it is. Correct its rights, then make a new plan."
        ) from error


def content_hash(path: Path) -> str:
    """SHA-256 of a file's content; '' where there is no such file."""
    return sha256(path.read_bytes()) if path.is_file() else ""
