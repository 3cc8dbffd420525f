"""The ``mend`` command and ``python -m mend``: the border where every error becomes one paragraph and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from mend.command import screen
from mend.errors import Interrupted, MendError

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; ``--debug`` anywhere, or $MEND_DEBUG, gives tracebacks."""
    _printable()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("MEND_DEBUG"))
    failed = _Failed(json="--json" in given, documents=screen.documents)
    try:
        return _run([word for word in given if word != "--debug"], failed)
    except MendError as error:
        if debug:
            raise
        return failed(type(error).__name__, error.message, error.exit_code)
    except KeyboardInterrupt:
        said = "Interrupted. `mend runs` shows whether a run had begun; `mend resume RUN` resolves it."
        return failed(Interrupted.__name__, said, Interrupted.exit_code)
    except Exception as error:
        if debug:
            raise
        return failed(type(error).__name__, _unforeseen(error), 1)


def _printable() -> None:
    """A locale that has no "…" shows it escaped; no run ends because of one."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@dataclass(frozen=True)
class _Failed:
    """A paragraph on stderr; with ``--json`` also a document, unless the command has printed its one already."""

    json: bool
    documents: int  # that this process had printed before the command

    def __call__(self, kind: str, message: str, code: int) -> int:
        if self.json and screen.documents == self.documents:
            screen.document({"error": {"kind": kind, "message": message}})
        screen.complain(message)
        return code


def _run(arguments: list[str], failed: _Failed) -> int:
    import typer

    from mend.command import cli

    usage_error: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, of click or of typer's own copy
    try:
        code = cli.app(cli.paired(arguments), standalone_mode=False, prog_name="mend")
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except usage_error as error:  # typer would exit with 2, which here means that a plan waits
        said = str(getattr(error, "format_message", error.__str__)())
        if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 raises the help that 8.1 printed
            screen.out(said)
            return 0
        message = f"{said.rstrip('.')}. Nothing was changed. `mend --help` shows the commands."
        return failed("Usage", message, 1)
    if code == _INTERRUPTED:  # typer's answer to Ctrl-C; no command of ours returns it
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _unforeseen(error: Exception) -> str:
    """An error that is none of ours is a defect of mend; its text may quote a connection string."""
    from mend.database.target import redact

    said = " ".join(redact(str(error)).split())[:500]
    return f"Unexpected {type(error).__name__}: {said}. `mend runs` shows whether a run had begun and how far it came. Run again with --debug and report this."


if __name__ == "__main__":
    sys.exit(main())
