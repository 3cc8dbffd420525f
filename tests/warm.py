"""Python programs started by a process that has made their heavy imports already: a fork each, instead of half a second.

A drop-in for the ``subprocess`` module: ``warm.Popen`` and ``warm.run`` take the arguments of the real ones and give the same
objects.  What is forked is a process like any other: own pid, session, directory, environment and pipes.  Only ``python FILE``
and ``python -m MODULE`` of our own interpreter, and of one that was prepared, are started so; everything else is started as ever.
"""

from __future__ import annotations

import inspect
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired
from typing import Any

__all__ = ["DEVNULL", "PIPE", "STDOUT", "CompletedProcess", "Popen", "TimeoutExpired", "run"]

IMPORTS = (
    "asyncio", "logging.config", "runpy", "alembic.command", "alembic.config", "alembic.context", "alembic.ddl.postgresql", "alembic.script",
    "alembic.runtime.environment", "psycopg", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.ext.asyncio",
)  # fmt: skip

# Reads one request after the other; each is run by a grandchild that tells its pid, and whose keeper tells its exit code.
SERVER = """
import gc, importlib, json, os, signal, socket, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
import atexit, runpy, threading

def program(asked, fds):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if asked["session"]:
        os.setsid()
    *standard, answer = fds
    os.write(answer, b"%d\\n" % os.getpid())
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    os.chdir(asked["cwd"])
    what, *rest = asked["argv"]
    try:
        if what == "-m":
            sys.argv = rest
            sys.path.insert(0, os.getcwd())
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [what, *rest]
            sys.path.insert(0, os.path.dirname(what))
            runpy.run_path(what, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0

def ended(asked, fds):
    code = program(asked, fds)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    os._exit(code)

def keeper(asked, fds):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, answer = fds
    pid = os.fork()
    if pid == 0:
        ended(asked, fds)
    for fd in standard:
        os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.write(answer, b"%d\\n" % code)
    except OSError:
        pass
    os._exit(0)

def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

line = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, reap)
signal.signal(signal.SIGINT, signal.SIG_DFL)
gc.freeze()
while True:
    data, fds, _, _ = socket.recv_fds(line, 1 << 20, 4)
    if not data:
        break
    if os.fork() == 0:
        keeper(json.loads(data), fds)
    for fd in fds:
        os.close(fd)
"""


class _Server:
    """The process that forks; it ends when nobody holds the line any more."""

    def __init__(self, python: str, imports: Sequence[str], line: socket.socket | None = None) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        if line:
            self.line = line
            return
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        command = [python, "-c", SERVER, str(theirs.fileno()), *imports]
        with theirs:
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=DEVNULL, cwd="/", env=_common(os.environ)
            )

    def close(self) -> None:
        self.line.close()
        if self.process:
            self.process.wait(60)

    def start(self, asked: dict[str, Any], fds: list[int]) -> None:
        socket.send_fds(self.line, [json.dumps(asked).encode()], fds)  # one packet: whoever shares the line


_imports: dict[str, Sequence[str]] = {sys.executable: IMPORTS}
_servers: dict[str, _Server] = {}
_LOCK = threading.Lock()


def prepare(python: Path, imports: Sequence[str]) -> None:
    """Fork the programs of another interpreter too, with these imports made."""
    _imports[str(python)] = imports


def _server(python: str) -> _Server:
    with _LOCK:
        if python not in _servers:
            _servers[python] = _Server(python, _imports[python])
        return _servers[python]


def line() -> socket.socket:
    """What another process needs to ask the same server, for our own interpreter."""
    return _server(sys.executable).line


def adopt(theirs: socket.socket) -> None:
    """Ask the server at the other end of this line, in a process that has none."""
    _servers[sys.executable] = _Server(sys.executable, (), theirs)


def close() -> None:
    """End the processes that fork."""
    while _servers:
        _servers.popitem()[1].close()


def _common(environ: Any) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS")}


def _pythons(environ: Any) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith("PYTHON") and name != "PYTHONDONTWRITEBYTECODE"}  # fmt: skip


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """As the real one; forked where that can be."""

    _answer = -1

    def _execute_child(self, *args: Any, **keywords: Any) -> None:
        real = super()._execute_child  # type: ignore[misc]
        given = inspect.signature(real).bind(*args, **keywords).arguments
        argv, environ = [str(one) for one in given["args"]], dict(given["env"] or os.environ)
        forked = argv[0] in _imports and (argv[1] == "-m" or not argv[1].startswith("-")) and sys.platform == "linux"
        if not forked or _pythons(environ) != _pythons(_common(os.environ)):
            real(*args, **keywords)
            return
        ours, theirs = os.pipe()
        quiet = os.open(os.devnull, os.O_RDWR)
        fds = [given[name] if given[name] != -1 else quiet for name in ("p2cread", "c2pwrite", "errwrite")]
        asked = {"argv": argv[1:], "environ": environ, "cwd": str(given["cwd"] or Path.cwd()), "session": given["start_new_session"]}  # fmt: skip
        try:
            _server(argv[0]).start(asked, [*fds, theirs])
        finally:
            os.close(theirs)
            os.close(quiet)
        self._answer, self._child_created = ours, True
        self.pid = int(self._line())
        self._close_pipe_fds(*(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))  # type: ignore[attr-defined]  # fmt: skip

    def _line(self) -> bytes:
        text = b""
        while not text.endswith(b"\n"):
            more = os.read(self._answer, 1)
            if not more:
                return b"-9"  # its keeper was killed
            text += more
        return text

    def _ended(self, timeout: float | None) -> bool:
        if self.returncode is None and select.select([self._answer], [], [], timeout)[0]:
            self.returncode = int(self._line())
            os.close(self._answer)
        return self.returncode is not None

    def _internal_poll(self, *args: Any, **keywords: Any) -> int | None:
        if self._answer == -1:
            return super()._internal_poll(*args, **keywords)  # type: ignore[misc,no-any-return]
        self._ended(0)
        return self.returncode  # type: ignore[no-any-return]

    def _wait(self, timeout: float | None) -> int:
        if self._answer == -1:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]
        if not self._ended(timeout):
            raise TimeoutExpired(self.args, timeout or 0.0)
        return int(self.returncode)


def run(command: Any, *, timeout: float, check: bool, **keywords: Any) -> CompletedProcess[Any]:
    """As subprocess.run."""
    with Popen(command, **keywords) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done
