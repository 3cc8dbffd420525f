"""A private PostgreSQL on this machine: for the lab, for scratch replays and for the tests.

The server listens on a unix socket in a 0700 directory only, so `trust` is safe: whoever may enter the directory is the
owner. `postgres` is started directly, without pg_ctl, and believed when it answers a query, not when a file appears.
PostgreSQL refuses to run as root; then it runs in a user namespace, or as `nobody` where namespaces are refused.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from mend.errors import ServerFailed
from mend.postgres import postmaster, unprivileged
from mend.postgres.binaries import Binaries, find_binaries
from mend.postgres.place import PORT, Place, recorded, settle

__all__ = ["Binaries", "Server", "find_binaries"]

START_S = 60.0
STOP_S = 15.0
LOG_BYTES = 8_000_000

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "300",  # a practice incident may be a crowd
    "max_prepared_transactions": "10",
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
    "fsync": "off",  # a power cut may take it all; kill -9 takes nothing, for the kernel has the WAL
    "full_page_writes": "off",
    "jit": "off",
    "log_lock_waits": "on",
    "deadlock_timeout": "200ms",  # also the time after which autovacuum gives way to who waits for it
    "log_line_prefix": "%m [%p] %q%a %u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
}


class Server:
    """One PostgreSQL cluster under ``home``.

    Parameters
    ----------
    home : directory, made when missing; holds the cluster, the log and the lock
    binaries : what ``find_binaries`` found
    settings : server settings on top of ours, e.g. ``{"wal_level": "logical"}``
    detached : True survives the process that started it (the lab); False dies with it, also on SIGKILL (tests, scratch)
    """

    def __init__(
        self, home: Path, binaries: Binaries, *, settings: Mapping[str, str] | None = None, detached: bool
    ) -> None:
        self.home = home.absolute()
        self.binaries = binaries
        self.settings = dict(settings or {})
        self.detached = detached
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The server's log; kept across restarts."""
        return self.home / "server.log"

    def start(self) -> None:
        """Start the server, making the cluster when there is none; does nothing when it runs already."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                if not self.running():
                    self._start()
        except OSError as exc:
            raise ServerFailed(
                f"The private PostgreSQL in {self.home} could not be started: {exc}. No other database was touched. "
                "Check the room and the rights there, or move it with MEND_HOME."
            ) from exc

    def _start(self) -> None:
        where = settle(self.home, self.binaries)
        self._stop(where)  # alive and yet not reachable: its socket is gone
        if not (where.cluster / "PG_VERSION").exists():
            self._initdb(where)
        self._launch(where)

    def stop(self) -> None:
        """Stop the server (fast shutdown: sessions are ended, nothing committed is lost); does nothing when it is down."""
        if not self.home.is_dir():
            return
        with self._locked():
            where = self._recorded()
            if where is not None:
                self._stop(where)

    def destroy(self) -> None:
        """Stop the server and remove its home and whatever it keeps elsewhere."""
        where = self._recorded()
        self.stop()
        for directory in {where.directory, where.sockets} if where else ():
            shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def running(self) -> bool:
        """Does the server answer a query now?"""
        where = self._recorded()
        return where is not None and self._answers(where)

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of one database; the server must have been started once."""
        where = self._recorded()
        if where is None:
            raise ServerFailed(
                f"The private PostgreSQL in {self.home} was never started. No database was touched. Start it first."
            )
        return f"postgresql+psycopg://postgres@/{quote(database, safe='')}?host={quote(str(where.sockets))}&port={PORT}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time starts or stops this server; the kernel frees the lock of a dead one."""
        with (self.home / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _recorded(self) -> Place | None:
        return recorded(self.home, self.binaries)

    def _initdb(self, where: Place) -> None:
        """Make the cluster beside its place and rename it, so that a killed initdb leaves nothing half made."""
        cluster = where.cluster
        fresh = cluster.with_name(cluster.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        options = ["-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        if self.binaries.major >= 17:  # sorts alike on every operating system
            options += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            options += ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]
        made = subprocess.run(
            [*where.prefix, where.program("initdb"), *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=where.directory, env=_environment(), text=True, timeout=300, check=False,
            **unprivileged.identity(where.user),
        )  # fmt: skip
        if made.returncode != 0:
            raise ServerFailed(
                f"initdb could not make a PostgreSQL cluster in {fresh} (exit {made.returncode}). No other database was "
                f"touched. Its last lines:\n{_last_lines(made.stdout)}"
            )
        fresh.rename(cluster)

    def _launch(self, where: Place) -> None:
        deadline = time.monotonic() + START_S
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        while True:
            postmaster.disarm(where.cluster, where.sockets)
            started = self.log.stat().st_size if self.log.exists() else 0
            process = self._spawn(where)
            while process.poll() is None and time.monotonic() < deadline:
                if self._answers(where):
                    self._tie(where, process)
                    return
                time.sleep(0.01)
            said = self._log_since(started)
            # After kill -9 of the postmaster its backends may live on for a moment, and hold the shared memory.
            if process.poll() is None or "shared memory block" not in said or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        code = process.poll()
        process.kill()
        process.wait()
        how = f"did not answer within {START_S:.0f} s" if code is None else f"ended with status {code}"
        raise ServerFailed(
            f"The private PostgreSQL {self.binaries.version} in {self.home} did not start: it {how}. "
            f"No other database was touched. The log {self.log} ends with:\n{_last_lines(said)}"
        )

    def _spawn(self, where: Place) -> subprocess.Popen[bytes]:
        sockets = _quoted(where.sockets)
        settings = {**SETTINGS, "unix_socket_directories": sockets, "port": str(PORT), **self.settings}
        if self.binaries.has_library("pg_stat_statements"):
            settings.setdefault("shared_preload_libraries", "pg_stat_statements")
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        tied = ("setpriv", "--pdeathsig", "INT") if self._dies_by_kernel() else ()
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the operator's terminal is not for the server.
            return subprocess.Popen(
                [*where.prefix, *tied, where.program("postgres"), "-D", str(where.cluster), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=where.directory, env=_environment(), start_new_session=True, **unprivileged.identity(where.user),
            )  # fmt: skip

    def _dies_by_kernel(self) -> bool:
        """Can the kernel end the server with us? Its signal follows the *thread* that started it: the main one lasts."""
        lasting = threading.current_thread() is threading.main_thread()
        return not self.detached and lasting and unprivileged.which("setpriv") is not None

    def _tie(self, where: Place, process: subprocess.Popen[bytes]) -> None:
        if not self.detached and not self._dies_by_kernel():
            self._watchdog = postmaster.watch(process.pid, where.cluster)
        # From here on the pid file is the truth, for us and for other processes; Popen would warn about a live child.
        process.returncode = 0

    def _stop(self, where: Place) -> None:
        pid = postmaster.end(where.cluster, patience_s=STOP_S)
        if pid is not None:
            raise ServerFailed(
                f"The private PostgreSQL in {self.home} (pid {pid}) ignored SIGINT and SIGQUIT. No other database was "
                f"touched. Look into {self.log}, then end that process."
            )
        if self._watchdog is not None:
            self._watchdog.communicate(b".")
            self._watchdog = None

    def _answers(self, where: Place) -> bool:
        try:
            with psycopg.connect(
                host=str(where.sockets),
                port=PORT,
                user="postgres",
                dbname="postgres",
                connect_timeout=5,
            ) as connection:
                return connection.execute("select 1").fetchone() is not None
        except psycopg.OperationalError:
            return False

    def _log_since(self, offset: int) -> str:
        with self.log.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")


def _environment() -> dict[str, str]:
    """Our environment without libpq's and the server's variables: PGDATA, PGPORT and the like would steer the server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _quoted(directory: Path) -> str:
    """One entry of a list setting: a comma would split it."""
    return '"' + str(directory).replace('"', '""') + '"'


def _last_lines(text: str, count: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-count:]) or "(nothing)"
