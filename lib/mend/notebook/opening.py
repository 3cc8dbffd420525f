"""How a run starts: what it is to do, where its record is, where it says how it goes, and how its errors look in a notebook."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from mend.batches.progress import Heartbeat, Live
from mend.errors import InvalidParameter, MendError, RunNotFound
from mend.record import archive


def interactive() -> bool:
    """Whether somebody sits in front of this kernel."""
    return os.environ.get("MEND_INTERACTIVE") == "1"


def action() -> archive.Action:
    """What the command that started this kernel asked for; a notebook run by hand plans."""
    wanted = os.environ.get("MEND_ACTION", "plan")
    for known in get_args(archive.Action):
        if known == wanted:
            return cast("archive.Action", known)
    raise InvalidParameter(
        f"MEND_ACTION is {wanted!r}. Nothing was changed. It is one of {', '.join(get_args(archive.Action))}."
    )


def _say(text: str) -> None:
    """One line for who watches, and a heartbeat for papermill."""
    print(text, file=sys.stderr, flush=True)


def progress() -> Callable[[str], None]:
    """Where a run says how it goes.

    The command that started this kernel reads each batch in the journal; under plain papermill and in JupyterLab a line now and then
    does, because each stays in the notebook.
    """
    if os.environ.get("MEND_RUN") and not interactive():
        return lambda text: None if isinstance(text, Live) else _say(text)
    return Heartbeat(_say)


def record(slug: str, values: Mapping[str, Any], doing: archive.Action) -> tuple[archive.Record, bool]:
    """The record of this run, and whether the command that started this kernel will seal it.

    In JupyterLab the cells may be run again after the plan was applied: that is a run of its own.
    """
    if given := os.environ.get("MEND_RUN"):
        given_record = archive.Record(Path(given))
        if not given_record.journal.path.exists():
            raise RunNotFound(f"MEND_RUN names {given}, which holds no journal. Nothing was changed.")
        if not given_record.journal.of("apply_started"):
            return given_record, not interactive()
    return archive.create(slug, action=doing, parameters=dict(values), incident=str(values.get("incident", ""))), False


def quiet_errors() -> None:
    """In a notebook, show a MendError as its message, without a traceback; it still stops the run."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc(
            (MendError,), lambda _shell, _kind, error, _tb, tb_offset=None: [f"{type(error).__name__}: {error}"]
        )
