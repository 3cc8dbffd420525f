"""What the triage notebook imports: look once, then show the findings and the next commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mend.database import target as targets
from mend.record import markup
from mend.record.markup import Shown
from mend.symptoms import triage
from mend.symptoms.triage import Answer

PRACTICE = "failed_migration"  # without any parameter the notebook looks at this incident of the lab


@dataclass(frozen=True)
class Look:
    """One look at an error text and a target."""

    target: str
    answer: Answer

    def findings(self) -> Shown:
        """Every finding with its evidence, best first; and what could not be checked."""
        rows = [
            {"failure mode": f.slug, "confidence": f"{f.confidence:.0%}", "evidence": line}
            for f in self.answer.findings
            for line in f.evidence
        ]
        columns = ("failure mode", "confidence", "evidence")
        none = [] if rows else [markup.paragraph("Unknown: nothing here is a failure mode that mend knows.")]
        notes = [markup.box("warn", [markup.paragraph(note)]) for note in self.answer.could_not_check]
        text = "\n".join([markup.plain_table(columns, rows) if rows else "unknown", *self.answer.could_not_check])
        return markup.shown([markup.table(columns, rows), *none, *notes], text)

    def commands(self) -> Shown:
        """The next command of each finding."""
        rows = [{"failure mode": f.slug, "next": f.command} for f in self.answer.findings]
        return markup.shown(
            [markup.table(("failure mode", "next"), rows)],
            markup.plain_table(("failure mode", "next"), rows),
        )


def look(
    *, target: str, alembic_ini: str, error: str, error_file: str, progress: Callable[[str], None] = print
) -> Look:
    """Look at a target and at an error text.

    Parameters
    ----------
    target : ``lab``, ``env:NAME``, ``service:NAME`` or a name from mend.toml; empty looks at the text alone
    alembic_ini : the project; empty: the one that belongs to the target
    error, error_file : the text, or the file that holds it

    Raises: TargetUnknown, TargetUnreachable, ProjectBroken, InvalidParameter.  Writes: nothing.
    """
    text = triage.error_text(error, error_file)
    if target == "lab":
        text = text or _practice(progress)
    named = targets.resolve(target) if target else None
    ini = Path(alembic_ini).absolute() if alembic_ini else triage.default_ini(named) if named else None
    return Look(target, triage.examine(text, named, ini))


def _practice(progress: Callable[[str], None]) -> str:
    """The saved error of the lab's incident, which is made if there is none."""
    from mend import lab

    incident = lab.current() or lab.start(PRACTICE, progress=progress)
    return incident.error_file.read_text(encoding="utf-8", errors="replace")
