"""What every step of a run needs, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mend.database.target import Identity, Target
from mend.histories.project import Project
from mend.journal import Journal

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Writer:
    """What every step needs: where to write, under which run, with which limits, and where to say so."""

    target: Target
    identity: Identity
    run_id: str
    journal: Journal
    progress: Progress
    lock_timeout_ms: int
    statement_timeout_ms: int
    project: Project | None = None

    @property
    def schema(self) -> str:
        """The ledger's schema on the target."""
        return self.target.settings.schema_name

    def application_name(self, n: int) -> str:
        """What the server shows for a step's session; a later run finds survivors by it."""
        return f"mend:{self.run_id}:{n}"
