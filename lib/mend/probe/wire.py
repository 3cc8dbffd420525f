"""The line to mend: events out, answers in; and the two ways in which the probe ends itself."""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Refused(RuntimeError):
    """The probe would not go on: it cannot be sure where a connection leads, or what would run."""


class Enough(BaseException):
    """The trial has seen its revision; everything is thrown away."""


class Wire:
    """Events to mend on the real standard output; the project's own prints go to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._in = os.fdopen(os.dup(0), encoding="utf-8")
        os.dup2(2, 1)
        quiet = os.open(os.devnull, os.O_RDONLY)
        os.dup2(quiet, 0)  # a project that asks a question gets end of file, not a hang

    def request(self) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads(self._in.readline())
        return asked

    def tell(self, what: str, /, **facts: Any) -> None:
        self._out.write(json.dumps({"event": what, **facts}, default=str) + "\n")
        self._out.flush()

    def ask(self, what: str, /, **facts: Any) -> None:
        """Tell, and wait until mend has it on disk; end of file means that mend is gone."""
        self.tell(what, wait=True, **facts)
        if self._in.readline().strip() != "go":
            raise Refused("mend ended or said stop; nothing further was sent")
