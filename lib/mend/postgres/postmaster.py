"""A running postmaster seen from outside: its pid file, whether it lives, how it ends, and who ends it after us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

# Runs with -S -E: no site, no environment; a byte means "stopped in good order", end of file means "the owner is gone".
WATCHDOG = """
import os, signal, sys
if not sys.stdin.buffer.read(1):
    pid, directory = int(sys.argv[1]), os.fsencode(sys.argv[2])
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            ours = directory in file.read()
    except OSError:
        ours = not os.path.exists("/proc/self")
    if ours:
        os.kill(pid, signal.SIGINT)
"""


def watch(pid: int, cluster: Path) -> subprocess.Popen[bytes]:
    """A process that ends the server when we are gone: it reads a pipe whose other end only we hold."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", WATCHDOG, str(pid), str(cluster)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def pid_of(cluster: Path) -> int | None:
    """The pid of this cluster's server, if it is alive and really that."""
    pid = _first_line_pid(cluster / "postmaster.pid")
    return pid if pid is not None and _is_server(pid, cluster) else None


def end(cluster: Path, *, patience_s: float) -> int | None:
    """End the server: SIGINT (fast), then SIGQUIT (immediate); the pid when it outlived both, else None."""
    pid = pid_of(cluster)
    for number in (signal.SIGINT, signal.SIGQUIT):
        if pid is None:
            return None
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        pid = _outlives(pid, cluster, patience_s)
    return pid


def _outlives(pid: int, cluster: Path, patience_s: float) -> int | None:
    deadline = time.monotonic() + patience_s
    while _is_server(pid, cluster):
        if time.monotonic() > deadline:
            return pid
        time.sleep(0.005)
        _reap(pid)
    _reap(pid)
    return None


def disarm(cluster: Path, sockets: Path) -> None:
    """Let a start pass a stale postmaster.pid whose number another process has by now.

    PostgreSQL takes its own parent's pid for stale, and then still looks for orphans in the shared memory segment
    that the file names. To delete the file would lose that guard. The socket's lock guards nothing: its directory is ours.
    """
    for lock in sockets.glob(".s.PGSQL.*.lock"):
        lock.unlink()
    pidfile = cluster / "postmaster.pid"
    if _first_line_pid(pidfile) is not None:
        lines = pidfile.read_text().splitlines(keepends=True)
        pidfile.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))


def _first_line_pid(pidfile: Path) -> int | None:
    try:
        return abs(int(pidfile.read_text().split("\n", 1)[0]))
    except (FileNotFoundError, ValueError):
        return None


def _is_server(pid: int, cluster: Path) -> bool:
    """Is this process alive and the server of this cluster? A zombie has no command line, so it is not."""
    if Path("/proc/self").exists():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return os.fsencode(cluster) in command.split(b"\0")
    listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return str(cluster) in listed.stdout


def _reap(pid: int) -> None:
    """Collect the exit status when the process was our child; otherwise somebody else does."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
