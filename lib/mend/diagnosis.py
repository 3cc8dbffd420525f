"""What a diagnosis says: checks with a verdict each, and the facts that a plan is made from.  Values only, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

if TYPE_CHECKING:
    from mend.database.target import Identity, Target
    from mend.histories.project import Project

Verdict = Literal["healthy", "found", "could_not_check", "not_asked"]


@dataclass(frozen=True)
class Check:
    """One question put to the database, and its answer.

    ``verdict``: ``healthy``, ``found``, ``could_not_check`` (then ``why`` says why), or ``not_asked``, where the parameters leave it out or it is an
    extra that this server does not have; a check that failed, or was never made, never says healthy.
    ``frame``: the evidence, one row per finding unless the question says otherwise.  ``says``: the answer in one sentence.
    """

    name: str
    question: str
    verdict: Verdict
    says: str
    healthy_when: str
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    sql: str = ""
    why: str = ""
    seconds: float = 0.0

    def as_record(self, *, sample: int = 20) -> dict[str, Any]:
        """Plain JSON values with at most ``sample`` rows."""
        rows = self.frame.head(sample).astype(object).where(self.frame.head(sample).notna(), None).to_dict("records")
        return {
            "name": self.name,
            "question": self.question,
            "verdict": self.verdict,
            "says": self.says,
            "why": self.why,
            "healthy_when": self.healthy_when,
            "rows": len(self.frame),
            "columns": [str(c) for c in self.frame.columns],
            "sample": rows,
            "sql": self.sql,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Diagnosis:
    """All the checks of one failure mode.

    ``evidence`` is what a plan's digest covers (plain JSON values); ``facts`` is what the mode's own ``plan()`` reads.
    """

    checks: tuple[Check, ...]
    evidence: Mapping[str, Any]
    facts: Any = None
    prevent: tuple[Prevention, ...] = ()

    def check(self, name: str) -> Check:
        """The check of that name.  Raises KeyError."""
        return next(c for c in self.checks if c.name == name)

    def verdict(self) -> Verdict:
        """The worst verdict: ``could_not_check`` over ``found`` over ``healthy``; what was not asked counts for nothing."""
        verdicts = {c.verdict for c in self.checks}
        return "could_not_check" if "could_not_check" in verdicts else "found" if "found" in verdicts else "healthy"


@dataclass(frozen=True)
class Prevention:
    """One thing that would have stopped the incident; ``diff`` is a unified diff of a file where there is one to propose.

    Where a plan may write the file: ``path``, the ``sha256`` of its ``present`` text, and the ``text`` to put in its place.
    """

    says: str
    diff: str = ""
    path: str = ""
    sha256: str = ""
    present: str = ""
    text: str = ""


@dataclass(frozen=True)
class Site:
    """Where a mode looks: the target, who it is, the Alembic project if one was named, where progress is said, and the run applied last."""

    target: Target
    identity: Identity
    project: Project | None
    progress: Callable[[str], None]
    run_id: str = "-"
    last_run: str = ""
