"""Sessions and commands that go on when the command that started them has ended: who is in somebody's way, and who waits.

One detached process holds them all.  It ends with its database (dropped, or its server stopped: it watches on a session of its own),
and after ``lives_s`` in any case.  Started by a scenario, with ``start``; ``python -m mend.lab.sessions`` is that process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from mend.lab.shop import plain

LIVES_S = 4 * 3600.0
WATCHER = "lab-watch"  # application_name of the process's own session


@dataclass(frozen=True)
class Session:
    """One session: it runs its statements in order, then keeps what it has until the end.

    ``dies``: its client goes away while the last statement runs, as a killed process would.
    """

    name: str
    statements: tuple[str, ...]
    role: str = "shop_app"
    dies: bool = False


@dataclass(frozen=True)
class Command:
    """One command; what it says is appended to ``output``."""

    argv: tuple[str, ...]
    directory: str
    output: str
    environ: Mapping[str, str] = field(default_factory=dict)


def start(
    url: str, *, sessions: Sequence[Session] = (), commands: Sequence[Command] = (), lives_s: float = LIVES_S
) -> None:
    """Start them all in a process of their own; returns when that process is on its way."""
    told = {
        "url": url, "lives_s": lives_s,
        "sessions": [asdict(one) for one in sessions], "commands": [asdict(one) for one in commands],
    }  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "SHOP_", "PYTHONW"))}
    subprocess.run(
        [sys.executable, "-m", "mend.lab.sessions"], input=json.dumps(told), text=True, check=True, timeout=60,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=kept,
    )  # fmt: skip


def as_role(url: str, role: str) -> str:
    """The address, with another role in it."""
    return url.replace("postgres@", f"{role}@", 1)


def main() -> None:
    """Read what to do, go into the background, do it."""
    told = json.load(sys.stdin)
    if os.fork():
        return
    os.setsid()
    for stream in (0, 1, 2):
        with Path(os.devnull).open("r+b") as nothing:
            os.dup2(nothing.fileno(), stream)
    children: list[subprocess.Popen[bytes]] = []
    try:
        _live(told, children)
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        os._exit(0)


def _live(told: Mapping[str, Any], children: list[subprocess.Popen[bytes]]) -> None:
    ends = time.monotonic() + float(told["lives_s"])
    with psycopg.connect(plain(told["url"]), autocommit=True, application_name=WATCHER) as watch:
        for one in told["sessions"]:
            threading.Thread(target=_session, args=(told["url"], one), daemon=True).start()
        for one in told["commands"]:
            children.append(_command(one))
        while time.monotonic() < ends and not _lost(watch, 1.0):
            pass


def _lost(conn: psycopg.Connection[Any], wait_s: float) -> bool:
    """Whether the server has closed a session that says nothing."""
    if select.select([conn.fileno()], [], [], wait_s)[0]:
        with suppress(psycopg.Error):
            conn.pgconn.consume_input()
        return conn.pgconn.status != psycopg.pq.ConnStatus.OK
    return False


def _session(url: str, told: Mapping[str, Any]) -> None:
    with suppress(psycopg.Error):
        conn = psycopg.connect(plain(as_role(url, told["role"])), autocommit=True, application_name=told["name"])
        *first, last = told["statements"]
        for text in first:
            conn.execute(text.encode())
        if told["dies"]:
            conn.pgconn.send_query(last.encode())
            conn.pgconn.flush()
            os.dup2(
                os.open(os.devnull, os.O_RDWR), conn.fileno()
            )  # the socket is closed; the server is told nothing more
        else:
            conn.execute(last.encode())
            while not _lost(conn, 1.0):
                pass
        threading.Event().wait()  # keep the object: closing it would say goodbye


def _command(told: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    with Path(told["output"]).open("ab") as output:
        return subprocess.Popen(
            told["argv"], cwd=told["directory"], env={**os.environ, **told["environ"]}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
