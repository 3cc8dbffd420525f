"""What ``mend lint`` does: read the project, let squawk read its SQL where there is one, and tell."""

from __future__ import annotations

from pathlib import Path

from mend.command import screen
from mend.errors import ProjectBroken
from mend.histories import history, lint_project, squawk
from mend.histories.history import History
from mend.histories.lint import Finding
from mend.histories.project import Project, find_python
from mend.repairs.patch import relative


def lint(alembic_ini: Path | None, *, since: str, python: str, json: bool) -> int:
    """0: nothing found; 2: something is.

    Raises: ProjectBroken where there is no such project; RevisionNotFound for an unknown ``since``.
    """
    ini = (alembic_ini or Path("alembic.ini")).absolute()
    if not ini.is_file():
        raise ProjectBroken(
            f"There is no {ini}. Nothing was changed. Give the path of the project's alembic.ini with -a."
        )
    interpreter = find_python(ini, python)
    past = history.read(ini, python=interpreter)
    found = lint_project.findings(past)
    readable = not (past.missing_parents or past.duplicates or past.cycles or past.broken)
    answer = (
        squawk.look(Project(ini, interpreter), past, _newest(past, since))
        if readable
        else squawk.Answer((), why="alembic cannot read the history as it is")
    )
    everything = [*found, *answer.findings]
    _tell(past, everything, answer, json=json)
    return 2 if everything else 0


def _newest(past: History, since: str) -> tuple[str, ...]:
    """The heads; with ``since``, whatever does not come before it."""
    if not since:
        return past.heads
    before = past.ancestors([past.get(since).id])
    return tuple(one for one in past.ordered() if one not in before)


def _tell(past: History, found: list[Finding], answer: squawk.Answer, *, json: bool) -> None:
    home = past.alembic_ini.parent
    if json:
        keys = ("file", "line", "finding", "says")
        rows = [dict(zip(keys, (relative(Path(one[0]), home), *one[1:]), strict=True)) for one in found]
        ran = {"ran": not answer.why, "why": answer.why, "revisions": list(answer.revisions)}
        screen.document(
            {"alembic_ini": str(past.alembic_ini), "files": len(past.files), "findings": rows, "squawk": ran}
        )
        return
    for file, line, finding, says in found:
        screen.out(f"{relative(Path(file), home)}:{line}: {finding}: {says}")
    screen.out(f"{len(past.files)} revisions read; {lint_project.summary(found) or 'nothing found'}.")
    screen.say(
        f"squawk was not run: {answer.why}"
        if answer.why
        else f"squawk read the SQL of {len(answer.revisions)} revisions."
    )
