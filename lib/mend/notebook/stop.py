"""SIGINT, SIGTERM and SIGHUP while a notebook runs: the cell is interrupted, so that its statement is cancelled and the notebook saved.

papermill alone dies of SIGTERM without a save, and PostgreSQL runs the statement to its end.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

GRACE_S = 10.0  # then the kernel is killed; Kubernetes gives 30 s before it kills us
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the ssh session was dropped


class Stop:
    """Catches the signals between ``__enter__`` and ``__exit__``; elsewhere than in the main thread it does nothing."""

    def __init__(self) -> None:
        self.requested = 0
        self.signal_name = ""
        self.kernel: Any = None
        self._before: dict[signal.Signals, Any] = {}
        self._timer = threading.Timer(GRACE_S, self._kill)
        self._timer.daemon = True

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]  # nohup
            self._before = {number: signal.signal(number, self._on_signal) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if somebody asked to stop; between cells there is nothing to interrupt."""
        if self.requested:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.requested += 1
        self.signal_name = signal.Signals(number).name
        group = self._group()
        if group is None:
            raise KeyboardInterrupt
        if self.requested > 1:
            self._kill()
            return
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGINT)
        self._timer.start()

    def _kill(self) -> None:
        group = self._group()
        if group is not None:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def _group(self) -> int | None:
        """The kernel's process group; it is its own session, so Ctrl-C in the terminal does not reach it by itself."""
        process = getattr(getattr(self.kernel, "provisioner", None), "process", None)
        return None if process is None else int(process.pid)
