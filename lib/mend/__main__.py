"""The ``mend`` command and ``python -m mend``: the border where every error becomes one paragraph and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mend import screen
from mend.errors import Interrupted, MendError

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; ``--debug`` anywhere, or $MEND_DEBUG, gives tracebacks."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("MEND_DEBUG"))
    try:
        return _run([word for word in given if word != "--debug"])
    except MendError as error:
        if debug:
            raise
        screen.complain(error.message)
        return error.exit_code
    except KeyboardInterrupt:
        screen.complain("Interrupted. `mend runs` shows whether a run had begun; `mend resume RUN` resolves it.")
        return Interrupted.exit_code
    except Exception as error:
        if debug:
            raise
        screen.complain(_unforeseen(error))
        return 1


def _run(arguments: list[str]) -> int:
    import typer

    from mend import cli

    usage_error: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, of click or of typer's own copy
    try:
        code = cli.app(cli.paired(arguments), standalone_mode=False, prog_name="mend")
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except usage_error as error:  # typer would exit with 2, which here means that a plan waits
        screen.complain(
            f"{str(getattr(error, 'format_message', error.__str__)()).rstrip('.')}. Nothing was changed. `mend --help` shows the commands."
        )
        return 1
    if code == _INTERRUPTED:  # typer's answer to Ctrl-C; no command of ours returns it
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _unforeseen(error: Exception) -> str:
    """An error that is none of ours is a defect of mend; its text may quote a connection string."""
    from mend.target import redact

    said = " ".join(redact(str(error)).split())[:500]
    return f"Unexpected {type(error).__name__}: {said}. `mend runs` shows whether a run had begun and how far it came. Run again with --debug and report this."


if __name__ == "__main__":
    sys.exit(main())
