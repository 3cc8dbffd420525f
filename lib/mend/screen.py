"""What the command line prints: answers on stdout, progress on stderr; colour only where a terminal is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")
_GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe, the terminal of a session that was dropped
documents = 0  # printed by this process: with --json it is exactly one a command


def command(line: str) -> str:
    """``mend ...`` as it works when typed here: by its path where mend is not on $PATH."""
    if not line.startswith("mend ") or shutil.which("mend"):
        return line
    by = Path(sys.argv[0])
    return (shlex.quote(str(by)) if by.name == "mend" else f"{shlex.quote(sys.executable)} -m mend") + line[4:]


def say(line: str) -> None:
    """One line of progress."""
    _progress(line, "dim")


def heading(line: str) -> None:
    """The beginning of a part."""
    _progress(line, "bold")


def complain(message: str) -> None:
    """Why a command did not do what was asked."""
    _progress(f"mend: {message}", "red")


def out(text: str) -> None:
    """A line of the answer.  A reader that has gone away (``mend runs | head -1``) changes nothing about the outcome."""
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
        if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
            from rich.console import Console

            Console(stderr=True, highlight=False).print(line, style=style, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _harmless(text: str) -> str:
    """Without control characters: names and messages come from databases and logs, and could steer a terminal."""
    return text.translate(_CONTROLS)
