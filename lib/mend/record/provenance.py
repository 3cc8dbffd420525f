"""Who runs what: the operator, the runbook's hash and commit, the versions.  For records; imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from mend.database import parameters
from mend.journal import sha256

_LIBRARIES = ("alembic", "sqlalchemy", "psycopg", "papermill")


def runbook(slug: str) -> dict[str, str]:
    """The template's name, hash and commit.  Raises: InvalidParameter if there is no such runbook."""
    path = parameters.notebook(slug)
    return {"path": path.name, "sha256": sha256(path.read_bytes()), "commit": _commit(path.parent)}


def _commit(folder: Path) -> str:
    """The commit that a checkout stands at, read without git; '' elsewhere."""
    git = folder.parent / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        loose, packed = git / head[5:], git / "packed-refs"
        if loose.exists():
            return loose.read_text(encoding="utf-8").strip()
        return next(
            (
                line.split()[0]
                for line in packed.read_text(encoding="utf-8").splitlines()
                if line.endswith(" " + head[5:])
            ),
            "",
        )
    except OSError:
        return ""


def versions() -> dict[str, str]:
    """What would have to be installed to run the same again."""
    from importlib.metadata import version
    from platform import python_version

    return {"mend": version("mend"), "python": python_version(), **{name: version(name) for name in _LIBRARIES}}


def who() -> dict[str, str]:
    """The operator and the machine."""
    return {"os_user": _os_user(), "host": os.uname().nodename}


def _os_user() -> str:
    """Who runs this, also where the user id has no name (containers)."""
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{user} (sudo by {behind})" if behind and behind != user else user
