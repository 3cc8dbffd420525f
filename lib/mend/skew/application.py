"""What an application expects of its database: the tables of its SQLAlchemy MetaData, the statements that it runs.

The metadata is loaded by the probe, in a process of the project's interpreter; the statements come from a file, and are never run.
"""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from psycopg import sql as pgsql

from mend.database.target import redact
from mend.errors import InvalidParameter, MendError, ProjectBroken
from mend.histories import git
from mend.histories.project import READ_ONLY, Project, ask
from mend.skew import placeholders
from mend.skew.placeholders import Said

TIMEOUT_S = 60.0
OF_ENV = "target_metadata of env.py"
_SPEC = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_REF = re.compile(r"[\w./@^~{}+-]+")

Name = Literal["old", "new"]


@dataclass(frozen=True)
class Column:
    """One column as the application declares it.

    ``type``: in PostgreSQL's words, '' where SQLAlchemy cannot tell.  ``fills``: who gives a value where the code gives none:
    ``application``, ``server``, ``automatic`` (a serial or identity), ``computed``, or '' for nobody.
    """

    name: str
    type: str
    nullable: bool
    fills: str


@dataclass(frozen=True)
class Table:
    """One table as the application declares it."""

    schema: str
    name: str
    columns: tuple[Column, ...]

    @property
    def quoted(self) -> str:
        """As the application writes it: without a schema where it declares none."""
        return pgsql.Identifier(*filter(None, [self.schema, self.name])).as_string(None)

    @property
    def shown(self) -> str:
        """As people write it."""
        return ".".join(filter(None, [self.schema, self.name]))

    def select(self, columns: tuple[str, ...]) -> Said:
        """What the ORM sends to read these columns."""
        listed = pgsql.SQL(", ").join(map(pgsql.Identifier, columns)).as_string(None)
        return Said(f"{self.shown}, read", f"select {listed} from {self.quoted}")

    def compare(self, columns: tuple[str, ...]) -> Said:
        """What the ORM sends to find a row by these columns, as values of the type that the application declares."""
        types = {one.name: one.type for one in self.columns}
        terms = (f"{pgsql.Identifier(c).as_string(None)} = cast(${n} as {types[c]})" for n, c in enumerate(columns, 1))
        return Said(f"{self.shown}, compare", f"select from {self.quoted} where {' and '.join(terms)}")

    def insert(self, columns: tuple[str, ...]) -> Said:
        """What the ORM sends to write these columns; each value has the type that the application declares."""
        types = {one.name: one.type for one in self.columns}
        listed = pgsql.SQL(", ").join(map(pgsql.Identifier, columns)).as_string(None)
        values = ", ".join(f"cast(${n} as {types[c]})" if types[c] else f"${n}" for n, c in enumerate(columns, 1))
        return Said(f"{self.shown}, write", f"insert into {self.quoted} ({listed}) values ({values})")


@dataclass(frozen=True)
class Application:
    """One version of the application.

    ``source``: where its expectations were read, in words.  ``why_not``: why they could not be; then the rest is what could.
    """

    name: Name
    source: str
    tables: tuple[Table, ...] = ()
    said: tuple[Said, ...] = ()
    why_not: str = ""

    @property
    def given(self) -> bool:
        """Whether anything was named for it."""
        return bool(self.source)


def load(name: Name, project: Project, *, metadata: str, statements: str, by_env: bool = False) -> Application:
    """One version of the application, from what was named for it; ``by_env``: else from env.py's target_metadata.

    Reads: the statements file; runs the application's module under the project's interpreter, its sessions read-only.
    Raises: InvalidParameter for a name that is none, or a file that is not there; what the module does wrong is in the answer.
    """
    if metadata and not _SPEC.fullmatch(metadata):
        raise InvalidParameter(
            f"{'old_' * (name == 'old')}metadata is {metadata!r}. Nothing was changed. Write module:attribute, e.g. shop.models:Base."
        )
    said = _read(name, project, statements) if statements else ()
    found = Application(name, ", ".join(filter(None, [metadata, statements])), said=said)
    if not metadata and (statements or not by_env):
        return found
    try:
        tables = _tables(project, metadata)
    except MendError as error:
        why_not = f"{metadata or 'target_metadata of env.py'} could not be loaded: {_paragraph(error, metadata)}"
        return replace(found, why_not=why_not) if metadata else found
    return replace(found, tables=tables, source=found.source or (OF_ENV if tables else ""))


def _paragraph(error: MendError, metadata: str) -> str:
    """What the module did, in one paragraph, without what is said of alembic there."""
    text = " ".join(error.message.split())
    text = re.sub(r"^The project's own code failed: |^The project's interpreter (?P<python>\S+) ", "", text)
    text = re.sub(r" while it ran \S+?\. Nothing was changed\..*?(?= It printed last|$)", ".", text)
    return (
        re.sub(r" ?Nothing was changed\. Make `alembic current` work.*$", "", text).strip()
        + f" Correct it, or name another module than {metadata.partition(':')[0]}."
    )


def _tables(project: Project, metadata: str) -> tuple[Table, ...]:
    events = ask(project, {"action": "tables", "metadata": metadata, "settings": READ_ONLY}, timeout_s=TIMEOUT_S)
    if events[-1]["event"] == "error":
        kind, said = events[-1]["kind"], str(events[-1]["message"])
        raise ProjectBroken(redact(f"{kind}: {said}")[:500].rstrip(".") + ".")
    told = next(event["tables"] for event in events if event["event"] == "tables")
    return tuple(_table(one) for one in told)


def _table(told: Mapping[str, Any]) -> Table:
    columns = tuple(Column(**column) for column in told["columns"])
    return Table(told["schema"], told["name"], columns)


def _read(name: Name, project: Project, statements: str) -> tuple[Said, ...]:
    """The statements of a file; its path is the operator's, or from where alembic.ini lies."""
    word = f"{'old_' * (name == 'old')}statements"
    path = next(
        (one for one in (Path(statements), project.alembic_ini.parent / statements) if one.is_file()), Path(statements)
    )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidParameter(
            f"{word} is {statements!r}, which cannot be read: {said}. Nothing was changed. Name a file of SQL."
        ) from error
    if len(text) > placeholders.LONGEST:
        raise InvalidParameter(
            f"{word}: {path.name} has {len(text):,} characters; {placeholders.LONGEST:,} are read. Nothing was changed."
        )
    found = placeholders.split(text, name=path.name)
    if not found or len(found) > placeholders.MOST:
        raise InvalidParameter(
            f"{word}: {path.name} holds {len(found)} statements. Nothing was changed. 1 to {placeholders.MOST} are read."
        )
    return found


@contextmanager
def checked_out(project: Project, ref: str) -> Iterator[Project]:
    """The project as git has it at ``ref``, in a temporary directory; the interpreter is the same.

    Raises: InvalidParameter where git has no such ref, or does not have the project.
    """
    if not _REF.fullmatch(ref) or ref.startswith("-"):
        raise InvalidParameter(f"old_ref is {ref!r}. Nothing was changed. Write a branch, tag or commit.")
    home = project.alembic_ini.resolve().parent
    try:
        top = Path(git.raw(home, "rev-parse", "--show-toplevel").decode().strip())
        packed = git.raw(top, "archive", "--format=tar", ref)
    except git.CannotAsk as refusal:
        raise InvalidParameter(
            f"The project at old_ref {ref} cannot be had: {refusal}. Nothing was changed. Name a commit that has it, or give old_metadata."
        ) from refusal
    with tempfile.TemporaryDirectory(prefix="mend-") as made:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(made, filter=_inside)
        ini = Path(made) / project.alembic_ini.resolve().relative_to(top.resolve())
        if not ini.is_file():
            raise InvalidParameter(
                f"git has no {ini.name} at {ref}. Nothing was changed. Name a commit that has it, or give old_metadata."
            )
        yield replace(project, alembic_ini=ini)


def _inside(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """What leads out of the directory is left out."""
    try:
        return tarfile.data_filter(member, path)
    except tarfile.FilterError:
        return None
