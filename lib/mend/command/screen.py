"""What the command line prints: answers on stdout, progress on stderr; colour only where a terminal is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mend.batches.progress import Heartbeat, Live

_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")
_GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe, the terminal of a session that was dropped
_ERASE = "\r\x1b[2K"
_BAR = 20  # columns
documents = 0  # printed by this process: with --json it is exactly one a command


def command(line: str) -> str:
    """``mend ...`` as it works when typed here: by its path where mend is not on $PATH."""
    if not line.startswith("mend ") or shutil.which("mend"):
        return line
    by = Path(sys.argv[0])
    return (shlex.quote(str(by)) if by.name == "mend" else f"{shlex.quote(sys.executable)} -m mend") + line[4:]


def say(line: str) -> None:
    """One line of progress; a live one stays at the bottom of a terminal until the next line, and is rare in a log."""
    _standing.say(line) if isinstance(line, Live) and _coloured() else _in_a_log(line)


def heading(line: str) -> None:
    """The beginning of a part."""
    _progress(line, "bold")


def complain(message: str) -> None:
    """Why a command did not do what was asked."""
    _progress(f"mend: {message}", "red")


def out(text: str) -> None:
    """A line of the answer.  A reader that has gone away (``mend runs | head -1``) changes nothing about the outcome."""
    _standing.erase()
    try:
        print(_harmless(text), flush=True)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def document(content: dict[str, Any]) -> None:
    """The one JSON document of ``--json``, with its version."""
    global documents
    documents += 1
    out(json.dumps({"mend": 1} | content, indent=1, ensure_ascii=False, default=str))


def watched() -> bool:
    """Whether progress and answer go to the same screen."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns padded to their widest value."""
    texts = [list(names), *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        out("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())


def _progress(line: str, style: str) -> None:
    """A terminal gets colour; a log gets the plain line.  rich is loaded only for a terminal."""
    line = _harmless(line)
    with contextlib.suppress(OSError):  # the terminal may be gone; the run goes on, or ends in order
        if _coloured():
            from rich.console import Console

            _standing.erase()
            Console(stderr=True, highlight=False).print(line, style=style, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


class _Standing:
    """The live line at the bottom of a terminal.

    Drawn when there is something new, and by nobody else's thread: a process that is killed leaves no hidden cursor behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the journal's narrator and the kernel's stderr speak from threads of their own
        self._there = False

    def say(self, line: Live) -> None:
        """Put the line in place of the one that stands there."""
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        with self._lock, contextlib.suppress(OSError):
            sys.stderr.write(_ERASE)
            console.print(_bar(line, console.width - 1), end="", soft_wrap=True)
            sys.stderr.flush()
            self._there = True

    def erase(self) -> None:
        """Take it away, before something that stays is printed."""
        with self._lock, contextlib.suppress(OSError):
            if self._there:
                sys.stderr.write(_ERASE)
                sys.stderr.flush()
                self._there = False


def _bar(line: Live, columns: int) -> Any:
    """The line as rich text, cut to the width; before it how much is done."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    if line.share is not None:
        room = _BAR if columns > 5 * _BAR else _BAR // 2
        done, left = "\u2501\u2501" if "utf" in (sys.stderr.encoding or "").lower() else "=-"
        full = round(line.share * room)
        text.append(done * full, "cyan").append(left * (room - full), "dim").append(" ")
        text.append(f"{line.share:4.0%} ", "bold")
    text.append(_harmless(line))
    text.truncate(columns, overflow="ellipsis")
    return text


_standing = _Standing()
_in_a_log = Heartbeat(lambda line: _progress(line, "dim"))


def _harmless(text: str) -> str:
    """Without control characters: names and messages come from databases and logs, and could steer a terminal."""
    return text.translate(_CONTROLS)
