"""What every way out of a conflict needs: why it is not possible, the revisions that it is about, and files that are written or changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mend.conflict.conflicts import Facts
from mend.conflict.revision_files import NotEditable
from mend.plan import Step
from mend.repairs import patch


class NotPossible(Exception):
    """Why an option cannot be taken."""


def about(facts: Facts) -> list[str]:
    """The revisions that the operator named."""
    return [one for one in (piece.strip() for piece in facts.said.get("revision", "").split(",")) if one]


def new_file(facts: Facts, says: str, path: Path, text: str) -> Step:
    """Writes a file that is not there."""
    name = patch.relative(path, facts.past.alembic_ini.parent)
    return patch.file_step(f"{says}: {name}", path, None, text, diff=patch.unified(None, text, name))


def edit(facts: Facts, says: str, path: Path, change: Callable[[str], str]) -> Step:
    """Changes a file, provided that it is as it was read.  Raises: NotPossible."""
    name = patch.relative(path, facts.past.alembic_ini.parent)
    try:
        present = path.read_bytes().decode()
        text = change(present)
    except (NotEditable, UnicodeDecodeError, OSError) as reason:
        raise NotPossible(f"{name} cannot be changed: {reason}") from reason
    return patch.file_step(f"{says}: {name}", path, present, text, diff=patch.unified(present, text, name))
