"""A kernel of this interpreter, and the cells of a notebook run in it, with states that are true.

papermill writes ``completed`` for a cell whose kernel died, timed out or was interrupted, and for every cell after it.  Here such a
cell is ``failed`` and says by what it was stopped; the cells after it stay ``pending``.  Saves are atomic.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

if TYPE_CHECKING:
    from mend.notebook.stop import Stop

_ARGV = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--HistoryManager.hist_file=:memory:"]
_PREFIX = "mend-kernel-"
_STALE_S = 7 * 24 * 3600  # no kernel lives that long


class Kernel(AsyncKernelManager):
    """The kernel of ``sys.executable``; no kernelspec is looked up, and nothing is written to HOME."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """What to start."""
        return KernelSpec(argv=_ARGV, display_name="Python 3", language="python")

    cut_off = False  # a cell was left before it had ended, so it may still run

    async def _async_interrupt_kernel(self) -> None:
        """jupyter_client interrupts every kernel that it shuts down; an idle one only complains of that on our stderr."""
        if self.cut_off or not self.shutting_down:
            await super()._async_interrupt_kernel()


@contextmanager
def kernel(environ: Mapping[str, str]) -> Iterator[Kernel]:
    """A kernel that is starting; it is shut down at the end, and its files with it."""
    _sweep()
    folder = tempfile.mkdtemp(prefix=_PREFIX)  # mode 0700: nobody else on this host reads code and results in passing
    manager = Kernel(connection_file=f"{folder}/kernel.json", transport="ipc")
    manager.ip = f"{folder}/socket"
    try:
        run_sync(manager.start_kernel)(env={**environ, "IPYTHONDIR": folder})
        yield manager
    finally:
        if manager.has_kernel:  # not shut down by its client, because that was never made
            run_sync(manager.shutdown_kernel)(now=True)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove what kernels left whose parent was killed; nobody else can."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or just removed by another run
            if time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path, ignore_errors=True)


def papermill(
    template: Path,
    output: Path,
    given: dict[str, Any],
    *,
    kernel: Kernel,
    stop: Stop,
    tell: Callable[[str], None] | None,
) -> str:
    """Run a template with parameters; '' if all its cells ran, else what stopped it, in words."""
    import logging

    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it logs the errors that we report
    try:
        execute_notebook(
            str(template),
            None,
            given,
            engine_name="mend",
            progress_bar=False,
            km=kernel,
            stop=stop,
            tell=tell,
            save_to=output,
            store_widget_state=True,
        )
    except PapermillExecutionError as error:
        return f"The notebook failed in a cell: {error.ename}: {str(error.evalue)[:500]}".rstrip(".") + "."
    except CellTimeoutError as error:
        return f"A cell took too long: {str(error).splitlines()[0]}."
    except (DeadKernelError, RuntimeError) as error:
        return f"The kernel died ({error})."
    except KeyboardInterrupt:
        return "The notebook was interrupted."
    return ""


def run(
    nb: Any,
    *,
    output_path: str | None = None,
    save_to: Path | None = None,
    stop: Stop | None = None,
    tell: Callable[[str], None] | None = None,
    km: Kernel | None = None,
    **options: Any,
) -> Any:
    """What papermill asks of an engine: run the cells of ``nb``, save it as it goes, return it."""
    from mend.notebook.story import Client, Story

    story = Story(nb, output_path=output_path, save_to=save_to)
    options = {
        key: value
        for key, value in options.items()
        if key in ("log_output", "stdout_file", "stderr_file", "store_widget_state")
    } | {
        "timeout": options.get("execution_timeout"),
        "startup_timeout": options.get("start_timeout", 60),
    }
    story.notebook_start()
    try:
        if km is not None:
            Client(story, stop, tell, km=km, **options).execute(cleanup_kc=True)
        else:
            with kernel(_inherited()) as own:
                Client(story, stop, tell, km=own, **options).execute(cleanup_kc=True)
    finally:
        story.notebook_complete()
    return story.nb


def _inherited() -> Mapping[str, str]:
    import os

    return os.environ
