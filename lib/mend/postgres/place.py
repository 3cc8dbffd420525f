"""Where a private server keeps its files: in its home, or elsewhere where the home does not serve."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mend.postgres import unprivileged
from mend.postgres.binaries import Binaries

PORT = 5432  # only part of a file name: every server has a socket directory of its own
SOCKET_BYTES = 103  # sockaddr_un.sun_path: macOS has room for 103, Linux for 107


@dataclass(frozen=True)
class Place:
    """A server's directories, and how its programs are started there."""

    binaries: Binaries
    directory: Path
    sockets: Path
    prefix: tuple[str, ...] = ()
    user: str | None = None

    @property
    def cluster(self) -> Path:
        """The data directory; one per major version, for they cannot read each other's."""
        return self.directory / f"data-{self.binaries.major}"

    def program(self, name: str) -> str:
        """Path of a program that the server's user can reach."""
        if self.user and self.binaries.origin == "wheel":
            return str(unprivileged.copied(self.binaries, self.directory / "programs") / name)
        return str(self.binaries.program(name))


def recorded(home: Path, binaries: Binaries) -> Place | None:
    """The place an earlier start chose; None when there was none, or when a cleaner of /tmp took it away."""
    try:
        kept = json.loads(_record(home, binaries).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    place = Place(binaries, home / kept["directory"], home / kept["sockets"], user=kept["user"])
    return place if place.directory.is_dir() else None


def settle(home: Path, binaries: Binaries) -> Place:
    """Choose a place, or the one chosen before where that still serves, and write it down."""
    prefix, user = unprivileged.shed_root()
    old = recorded(home, binaries)
    serves = old is not None and old.user == user
    directory = old.directory if old and serves else unprivileged.short_directory(user) if user else home
    sockets = old.sockets if old and serves and old.sockets.is_dir() else _sockets(directory, binaries, user)
    if user and binaries.origin == "wheel":
        unprivileged.copy_binaries(binaries, directory / "programs")
    fresh = home / "server.json.new"
    fresh.write_text(json.dumps({"directory": _kept(home, directory), "sockets": _kept(home, sockets), "user": user}))
    fresh.replace(_record(home, binaries))
    return Place(binaries, directory, sockets, prefix, user)


def _record(home: Path, binaries: Binaries) -> Path:
    return home / f"server-{binaries.major}.json"


def _kept(home: Path, path: Path) -> str:
    """Relative where it is in the home, so that a home may be moved or copied."""
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


def _sockets(directory: Path, binaries: Binaries, user: str | None) -> Path:
    """A directory for the socket: in the server's own if the path fits into an address, else a short one."""
    sockets = directory / f"s{binaries.major}"
    # libpq takes a comma in a host for a list of hosts.
    if len(os.fsencode(sockets / f".s.PGSQL.{PORT}")) > SOCKET_BYTES or "," in str(sockets):
        return unprivileged.short_directory(user)
    sockets.mkdir(mode=0o700, exist_ok=True)
    if user:
        shutil.chown(sockets, user)
    return sockets
