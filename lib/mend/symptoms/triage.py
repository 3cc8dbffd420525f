"""From an error text, a target, a script directory, or all of them, to ranked findings with the next command filled in.

A text that no signature knows is answered with nothing: unknown, never a guess.  What could not be looked at is said.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mend.database import parameters
from mend.errors import InvalidParameter, MendError, ProjectBroken, TargetUnreachable
from mend.symptoms import errortext, history_signs, signs, textsigns
from mend.symptoms.errortext import ErrorText
from mend.symptoms.sign import Seen, Sign
from mend.symptoms.signatures import DEADLOCK, FAILED, MODES, SLOW

if TYPE_CHECKING:
    from mend.database.target import Target
    from mend.histories.history import History

ANY_TARGET = "env:DATABASE_URL"  # stands in the command when no target was named
_MOST = 0.99
PARAMETERS = (
    "revision",
    "table",
    "columns",
    "constraint",
    "parent",
    "pids",
    "pid",
    "blockers",
    "gid",
    "detail",
)  # what runbooks can be given


@dataclass(frozen=True)
class Finding:
    """One failure mode that the evidence speaks for; ``command`` is the next command line, ready for a shell."""

    slug: str
    confidence: float
    evidence: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    def as_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"confidence": round(self.confidence, 2), "evidence": list(self.evidence)}


@dataclass(frozen=True)
class Answer:
    """The findings, best first, and what could not be looked at; with nothing looked at, no findings means unknown."""

    findings: list[Finding]
    could_not_check: tuple[str, ...] = ()


def triage(text: str = "", target: Target | None = None, alembic_ini: Path | None = None) -> list[Finding]:
    """Name the failure modes that an error text, a database or a script directory shows.

    Parameters
    ----------
    text : anything with an error in it: psql, server log, traceback, CI log
    target : where to look for what nobody has reported yet; read-only
    alembic_ini : the project whose revision files are compared with the text and the database

    Returns
    -------
    list of Finding, best first; empty means unknown. What could not be checked is said in each finding's evidence.

    Reads: catalogs, pg_locks, pg_stat_activity, version tables.  Writes: nothing.
    Raises: TargetUnreachable without a text that says something; ProjectBroken if there is no such alembic.ini.
    """
    answer = examine(text, target, alembic_ini)
    return [replace(finding, evidence=finding.evidence + answer.could_not_check) for finding in answer.findings]


def examine(text: str = "", target: Target | None = None, alembic_ini: Path | None = None) -> Answer:
    """As ``triage``, with what could not be checked kept apart."""
    error = errortext.read(text)
    history = _history(alembic_ini)
    found = textsigns.of_text(error)
    if history is not None:
        found += history_signs.of_files(history)
    notes: tuple[str, ...] = ()
    if target is not None:
        try:
            seen = _of_target(target, history, error, failed=bool(found))
        except TargetUnreachable as unreachable:
            if not found:
                raise
            seen = Seen((), (f"could not look at {target.name}: {unreachable.message.split('. Nothing was')[0]}",))
        found += seen.signs
        notes = seen.could_not_check
    findings = [_finding(slug, [s for s in found if s.slug == slug], target, alembic_ini) for slug in MODES]
    return Answer(sorted((f for f in findings if f), key=lambda f: -f.confidence), notes)


def error_text(text: str, file: str) -> str:
    """The text itself, or that of a file (``-`` is stdin), whatever its encoding.

    Raises: InvalidParameter if both are given, or the file cannot be read.
    """
    if text and file:
        raise InvalidParameter("--error and --error-file were both given. Nothing was changed. Give one.")
    if not file:
        return text
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidParameter(
            f"{file} cannot be read: {error.strerror}. Nothing was changed. Give a file, or - for stdin."
        ) from error
    return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", errors="replace")


def _history(alembic_ini: Path | None) -> History | None:
    if alembic_ini is None:
        return None
    if not alembic_ini.is_file():
        raise ProjectBroken(
            f"There is no {alembic_ini}. Nothing was changed. Give the path of the project's alembic.ini with -a."
        )
    from mend.histories import history

    return history.read(alembic_ini)


def _of_target(target: Target, history: History | None, error: ErrorText, *, failed: bool) -> Seen:
    with target.reading() as conn:
        seen = signs.of_database(conn, history)
        if history is None or not error.running or "upgrade" not in error.context:
            return seen
        if any(sign.slug == SLOW and "pid" in sign.parameters for sign in seen.signs):
            return seen  # it is still at work: that its version row is not there yet says nothing
        try:
            rows = history_signs.known_rows(conn, history)
        except MendError:
            return seen  # of_database has said already that the version rows could not be read
    if any(sign.slug == DEADLOCK for sign in seen.signs):
        return seen  # it may be at work still: it waits, and has lost nothing yet
    reached = history.ancestors(rows)
    return replace(seen, signs=(*seen.signs, *_unstamped(error, reached, failed=failed)))


def _unstamped(error: ErrorText, reached: set[str], *, failed: bool) -> Iterable[Sign]:
    """A log that says "Running upgrade ... -> x" and no error, and a version table that never came to x: a lost stamp."""
    revision = error.running[-1].revision
    if revision in reached:
        return
    says = f"the log says that {revision} was run, but the version table did not come to it"
    yield Sign(
        FAILED,
        0.5 if failed else 0.8,
        says + ("" if failed else ", and no error is in the text"),
        {"revision": revision},
    )


def _finding(slug: str, found: list[Sign], target: Target | None, alembic_ini: Path | None) -> Finding | None:
    """All signs of one slug as one finding; sources that agree raise its confidence, signs of one source do not add up."""
    if not found:
        return None
    ranked = sorted(found, key=lambda s: -s.confidence)
    best = {sign.source: max(s.confidence for s in found if s.source == sign.source) for sign in ranked}
    doubt = 1.0
    for confidence in best.values():
        doubt *= 1 - confidence
    merged: dict[str, Any] = {}
    for sign in ranked:
        merged = {key: value for key, value in sign.parameters.items() if key in PARAMETERS} | merged
    evidence = tuple(dict.fromkeys(sign.says for sign in ranked))
    return Finding(slug, min(_MOST, 1 - doubt), evidence, merged, _command(slug, merged, target, alembic_ini))


def default_ini(target: Target) -> Path | None:
    """The alembic.ini that goes with a target by itself: of mend.toml, or of the lab's incident."""
    if target.name != "lab":
        return target.settings.alembic_ini
    from mend import lab

    incident = lab.current()
    return incident.alembic_ini if incident else None


def _command(slug: str, found: dict[str, Any], target: Target | None, alembic_ini: Path | None) -> str:
    declared = {parameter.name: parameter for parameter in parameters.of(slug)}
    words = ["mend", "plan", slug, "-t", target.name if target else ANY_TARGET]
    if target is None or (alembic_ini is not None and alembic_ini != default_ini(target)):
        words += ["-a", str(alembic_ini or "alembic.ini")]
    for name, value in found.items():
        if name in declared and type(value) is declared[name].type:
            words += ["-p", name, value if isinstance(value, str) else str(value)]
    return shlex.join(words)
