"""papermill's execution manager and client, corrected; apart from `cells`, because importing papermill takes half a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager

from mend.files import write_atomic

if TYPE_CHECKING:
    from mend.notebook.stop import Stop


class Story(NotebookExecutionManager):  # type: ignore[misc]
    """Cell states and saves."""

    def __init__(self, nb: Any, *, output_path: str | None, save_to: Path | None) -> None:
        super().__init__(nb, output_path=output_path, progress_bar=False)
        self.save_to = save_to

    def save(self, **_options: Any) -> None:
        """Atomic where the record is ours; papermill's own way for s3:// and the like."""
        if self.save_to is None:
            super().save()
            return
        facts = self.nb.metadata.get("papermill", {})
        facts["input_path"] = Path(str(facts.get("input_path", ""))).name  # an absolute path tells the operator's name
        facts["output_path"] = self.save_to.name
        write_atomic(self.save_to, nbformat.writes(self.nb) + "\n")
        self.last_save_time = self.now()

    def cell_stopped(self, cell: Any, cause: BaseException) -> None:
        """A cell that was cut off did not complete."""
        self.cell_exception(cell)
        cell.metadata.papermill["stopped_by"] = type(cause).__name__
        self.cell_complete(cell)


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """Runs the cells in order and stops at the first that does not complete."""

    def __init__(self, story: Story, stop: Stop | None, tell: Callable[[str], None] | None, **options: Any) -> None:
        super().__init__(story, **options)
        self.stop, self.tell = stop, tell

    def process_message(self, *message: Any, **options: Any) -> Any:
        """Pass on, as it comes, what the cells print to stderr: the progress of long work."""
        output = super().process_message(*message, **options)
        if self.tell and output and output.get("name") == "stderr":
            for line in output["text"].splitlines():
                self.tell(line)
        return output

    def papermill_execute_cells(self) -> None:
        """Overrides papermill's loop, which calls every cell completed in a ``finally``."""
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type != "code":
                cell.metadata.papermill["status"] = self.nb_man.COMPLETED
                continue
            if not self._ran(index, cell):
                return

    def _ran(self, index: int, cell: Any) -> bool:
        if self.stop:
            self.stop.check()
        self.nb_man.cell_start(cell, index)
        try:
            self.execute_cell(cell, index)
        except CellExecutionError as error:
            self.nb_man.cell_stopped(cell, error)
            return False
        except BaseException as error:
            self.km.cut_off = True
            self.nb_man.cell_stopped(cell, error)
            raise
        self.nb_man.cell_complete(cell, index)
        return True
