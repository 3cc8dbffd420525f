"""Runs a runbook headless, and opens one in JupyterLab.

papermill knows ``MendEngine`` by the entry point ``mend``; it is imported whenever papermill is, so this module imports nothing
heavy.  What papermill gets wrong about a run that was cut off is put right in `cells`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mend import errors
from mend.database import parameters
from mend.errors import Interrupted, MendError, OutcomeUnknown
from mend.notebook.stop import Stop
from mend.record import account
from mend.record.archive import Record
from mend.record.integrity import NOTEBOOK
from mend.record.narrate import narrated

__all__ = ["MendEngine", "execute", "open_in_lab"]

Progress = Callable[[str], None]


class MendEngine:
    """papermill's engine protocol: ``papermill --engine mend in.ipynb out.ipynb`` gets truthful cell states too."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, **options: Any) -> Any:
        """Run the cells of a loaded notebook; called by papermill."""
        from mend.notebook import cells

        return cells.run(nb, **options)

    @classmethod
    def nb_kernel_name(cls, _nb: Any, name: str | None = None) -> str:
        """Always this interpreter's kernel, whatever the machine has installed."""
        return name or "python3"

    @classmethod
    def nb_language(cls, _nb: Any, language: str | None = None) -> str:
        """Runbooks are in Python."""
        return language or "python"


def execute(
    record: Record,
    slug: str,
    given: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Run a runbook from its template into ``record``, in a kernel of this interpreter.

    Parameters
    ----------
    given : validated parameters
    environ : added to the kernel's environment
    progress : is told in words what the run does

    When this returns, the run is closed; its outcome is the record's.

    Raises: the error that the run journaled; Interrupted after a signal of `stop`, or if the kernel died between two steps;
    OutcomeUnknown if it died within one; MendError if the notebook broke off for a reason of its own.
    """
    template = parameters.notebook(slug)
    _stub_slow_import()
    from mend.notebook import cells  # starts jupyter_client, which is enough to start the kernel

    trouble, stop = "The notebook was interrupted.", Stop()
    with (
        suppress(KeyboardInterrupt),
        narrated(record.journal.path, progress),
        stop,
        cells.kernel(_environment(record, environ)) as kernel,
    ):
        stop.kernel = kernel
        _import_ahead()
        trouble = cells.papermill(
            template, record.path / NOTEBOOK, dict(given), kernel=kernel, stop=stop, tell=progress
        )
    _close(record, trouble, stop)


def _stub_slow_import() -> None:
    """rfc3987_syntax builds 35 parsers when imported (1.1 s); jsonschema tolerates its absence."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def _import_ahead() -> None:
    """Load what the report needs while the kernel is busy."""
    from mend.record import report

    threading.Thread(target=report.warm_up, name="mend-warm-up", daemon=True).start()


def _environment(record: Record, extra: Mapping[str, str] | None) -> dict[str, str]:
    """The kernel's environment: ours, and which run it works for."""
    opened = record.opened
    run = {
        "MEND_RUN": str(record.path),
        "MEND_ACTION": str(opened.get("action", "")),
        "MEND_OF": str(opened.get("of", "")),
    }
    ours = {key: value for key, value in os.environ.items() if key != "MEND_INTERACTIVE"}
    return {**ours, **(extra or {}), **run, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def _close(record: Record, trouble: str, stop: Stop) -> None:
    """Make sure that the journal says how the run ended, and raise what it says."""
    events = record.journal.events()
    if not account.is_closed(events):
        error = _unclosed(record, events, trouble, stop)
        record.journal.append(
            "failed", {"error": type(error).__name__, "message": error.message, "exit_code": error.exit_code}
        )
        raise error
    if failed := account.error(events):
        kind = getattr(errors, str(failed.get("error")), MendError)
        raise kind(str(failed.get("message", "")), **{key: failed[key] for key in ("differences",) if key in failed})


def _unclosed(record: Record, events: Sequence[Any], trouble: str, stop: Stop) -> MendError:
    """The error of a run that ended without a word of its own."""
    applied = any(event.kind == "apply_started" for event in events)
    step = account.step_in_the_air(events)
    what = (
        f"The run was interrupted ({stop.signal_name})."
        if stop.requested
        else trouble or "The notebook ended without closing the run."
    )
    if step is not None:
        return OutcomeUnknown(
            f"{what} Step {step + 1} was under way; it is not known whether it took effect. `mend resume {record.run_id}` asks the database."
        )
    if applied:
        return Interrupted(
            f"{what} The steps before are done and journaled. `mend resume {record.run_id}` goes on from there."
        )
    if stop.requested or trouble.startswith(("The kernel died", "The notebook was interrupted")):
        return Interrupted(f"{what} Nothing was changed. Run it again.")
    return MendError(f"{what} Nothing was changed. Read {record.path / NOTEBOOK}.")


def open_in_lab(record: Record, slug: str, given: Mapping[str, Any], *, options: Sequence[str] = ()) -> int:
    """Open a working copy of a runbook in JupyterLab, in the foreground; returns JupyterLab's exit code."""
    _stub_slow_import()
    from mend.notebook import jupyterlab

    return jupyterlab.serve(
        record,
        parameters.notebook(slug),
        dict(given),
        environ=_environment(record, {"MEND_INTERACTIVE": "1"}),
        options=options,
    )
