"""A project's revisions as its files say them, and the version rows as the database holds them.

Files are read, never imported: a syntax error, a merge marker or a missing parent becomes a finding, not a traceback.
What alembic itself would say needs the project's interpreter: see ``project`` and ``probe``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mend.database import parameters, queries
from mend.errors import PrivilegeMissing, ProjectBroken, RevisionNotFound
from mend.histories import locations, revisions
from mend.histories.lint import lint_files
from mend.histories.project import Environment, Project, environment, find_python
from mend.histories.revisions import Revision

if TYPE_CHECKING:
    import pandas
    from sqlalchemy import ColumnClause, Connection

__all__ = [
    "Environment",
    "History",
    "Project",
    "environment",
    "find_python",
    "lint",
    "pending",
    "read",
    "version_rows",
    "version_tables",
    "with_files",
]

ID_LENGTH = 32  # alembic_version.version_num is varchar(32)


@dataclass(frozen=True)
class History:
    """Every revision that the project's files hold, the broken ones included."""

    alembic_ini: Path
    script_location: Path
    version_locations: tuple[Path, ...]
    files: tuple[Revision, ...]
    digest: str
    env_py: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "env_py", self.script_location / "env.py")

    @cached_property
    def revisions(self) -> dict[str, Revision]:
        """By id; of two files with the same id the first."""
        found: dict[str, Revision] = {}
        for one in self.files:
            if one.id:
                found.setdefault(one.id, one)
        return found

    @cached_property
    def broken(self) -> tuple[Revision, ...]:
        """The files with a problem."""
        return tuple(one for one in self.files if one.problem)

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Revisions that no other names as its parent."""
        parents = {down for one in self.files for down in one.down}
        return tuple(sorted(set(self.revisions) - parents))

    @property
    def upgrade(self) -> str:
        """The command that goes to the newest revision, or to all of them."""
        return f"alembic -c {self.alembic_ini} upgrade {'heads' if len(self.heads) > 1 else 'head'}"

    @cached_property
    def missing_parents(self) -> dict[str, tuple[str, ...]]:
        """Revision id to the parents and dependencies that no file has: alembic dies of them with a KeyError."""
        labels = {label for one in self.files for label in one.labels}
        lacking = {
            one.id: tuple(p for p in one.down + one.depends_on if p not in labels and not self.named(p))
            for one in self.files
        }
        return {revision: parents for revision, parents in lacking.items() if parents}

    @cached_property
    def duplicates(self) -> dict[str, tuple[Path, ...]]:
        """Ids that several files claim."""
        paths: dict[str, list[Path]] = {}
        for one in self.files:
            paths.setdefault(one.id, []).append(one.path)
        return {revision: tuple(several) for revision, several in paths.items() if revision and len(several) > 1}

    @cached_property
    def cycles(self) -> tuple[str, ...]:
        """Revisions that are their own ancestor."""
        return tuple(sorted(one for one in self.revisions if one in self.ancestors(self.parents(one))))

    def depends_apart(self, one: str, other: str) -> bool:
        """Whether neither of two revisions comes after the other, dependencies counted."""
        return one not in self.ancestors([other]) and other not in self.ancestors([one])

    def named(self, name: str) -> str:
        """The id that a full id, a label or an unambiguous beginning of an id stands for; '' when there is none."""
        if name in self.revisions:
            return name
        labelled = [one.id for one in self.files if name in one.labels]
        begun = [revision for revision in self.revisions if len(name) >= 4 and revision.startswith(name)]
        return (labelled or (begun if len(begun) == 1 else [""]))[0]

    def get(self, name: str) -> Revision:
        """One revision.  Raises: RevisionNotFound."""
        found = self.named(name)
        if not found:
            raise RevisionNotFound(
                f"Revision {name!r} is not among the {len(self.revisions)} files of {self.alembic_ini}. Nothing was changed. "
                f"Check the id, or restore the file from git ({parameters.pointer('migration_conflict')})."
            )
        return self.revisions[found]

    def parents(self, revision: str) -> tuple[str, ...]:
        """Parents and dependencies that exist."""
        one = self.revisions.get(revision)
        return tuple(filter(None, map(self.named, one.down + one.depends_on))) if one else ()

    def ancestors(self, revisions: Iterable[str]) -> set[str]:
        """These revisions and everything before them; unknown ids are left out."""
        seen: set[str] = set()
        todo = [self.named(one) for one in revisions]
        while todo:
            one = todo.pop()
            if one and one not in seen:
                seen.add(one)
                todo.extend(self.parents(one))
        return seen

    def ordered(self) -> tuple[str, ...]:
        """All ids, parents first; members of a cycle come last."""
        return self._order

    @cached_property
    def _order(self) -> tuple[str, ...]:
        waiting = dict.fromkeys(sorted(self.revisions))
        done: dict[str, None] = {}
        while ready := [one for one in waiting if all(p in done or p not in waiting for p in self.parents(one))]:
            for one in ready:
                del waiting[one]
                done[one] = None
        return (*done, *waiting)

    def frame(self) -> pandas.DataFrame:
        """One row per file, parents first: revision str · down_revision str · path str · doc str · problem str."""
        import pandas

        place = {revision: number for number, revision in enumerate(self.ordered())}
        files = sorted(self.files, key=lambda one: (place.get(one.id, len(place)), str(one.path)))
        rows = [(one.id, ", ".join(one.down), str(one.path), one.doc, one.problem) for one in files]
        return pandas.DataFrame(rows, columns=["revision", "down_revision", "path", "doc", "problem"], dtype="str")


def read(alembic_ini: Path, *, python: Path | None = None) -> History:
    """Read a project's revision graph from its files.

    Parameters
    ----------
    alembic_ini : the project's configuration
    python : its interpreter, asked where a package lies when script_location is ``package:path`` and no file tells

    Returns
    -------
    History; a broken revision file is in it, with its ``problem``

    Raises: ProjectBroken when alembic.ini or the directory that it names cannot be read.
    """
    options = locations.options(alembic_ini)
    location = options.get("script_location")
    if not location:
        raise ProjectBroken(
            f"{alembic_ini} has no script_location. Nothing was changed. Name alembic's own configuration file with --alembic-ini."
        )
    find = locations.Finder(alembic_ini, options, python)
    scripts = find.directory(location)
    if not scripts.is_dir():
        raise ProjectBroken(
            f"{alembic_ini} names the directory {scripts}, which does not exist. Nothing was changed. Correct script_location."
        )
    named = locations.version_locations(options)
    places = tuple(find.directory(one) for one in named) if named else (scripts / "versions",)
    paths = sorted(
        {
            path.resolve()
            for place in places
            for path in _revision_files(place, recursive=locations.true(options, "recursive_version_locations"))
        }
    )
    history = History(
        alembic_ini.absolute(),
        scripts,
        places,
        tuple(revisions.read(path) for path in paths),
        _digest([alembic_ini, scripts / "env.py", *paths]),
    )
    return replace(history, files=tuple(_judged(one, history) for one in history.files))


def pending(history: History, rows: Collection[str]) -> tuple[str, ...]:
    """Revisions that a database with these version rows has not had, parents first; rows that no file has are passed over."""
    applied = history.ancestors(rows)
    return tuple(one for one in history.ordered() if one not in applied)


def version_tables(conn: Connection, *, configured: str = "alembic_version") -> pandas.DataFrame:
    """Every table that is, or looks like, an Alembic version table: schema str · table str · readable bool.

    Reads: the catalogs.  Writes: nothing.
    """
    return queries.frame(conn, "history/version_tables", configured=configured)


def version_rows(conn: Connection, *, configured: str = "alembic_version") -> pandas.DataFrame:
    """Every row of every version table of every schema: schema str · table str · version_num str.

    Reads: the version tables.  Writes: nothing.  Locks: ACCESS SHARE on them.
    Raises: PrivilegeMissing when one may not be read: without it nobody can say where the database is.
    """
    import pandas
    from sqlalchemy import column, select, table

    rows: list[tuple[str, str, str]] = []
    version_num: ColumnClause[str] = column("version_num")
    for schema, name, readable in version_tables(conn, configured=configured).to_numpy().tolist():
        if not readable:
            raise PrivilegeMissing(
                f"This role may not read {schema}.{name}, so it is unknown which revision the database is at. "
                "Nothing was changed. Grant SELECT on it, or use another role."
            )
        found = conn.execute(select(version_num).select_from(table(name, schema=schema)).order_by(version_num))
        rows += [(schema, name, row[0]) for row in found]
    return pandas.DataFrame(rows, columns=["schema", "table", "version_num"], dtype="str")


def lint(history: History) -> pandas.DataFrame:
    """What in env.py and the revisions can lose a version row or half-apply a revision: file str · line int · finding str · says str."""
    import pandas

    found = lint_files(history.env_py, [one.path for one in history.files])
    frame = pandas.DataFrame(found, columns=["file", "line", "finding", "says"])
    return frame.astype({"file": "str", "line": "int64", "finding": "str", "says": "str"})


def _revision_files(place: Path, *, recursive: bool) -> Iterator[Path]:
    for path in place.glob("**/*.py" if recursive else "*.py"):
        if not path.name.startswith((".#", "__init__")) and "__pycache__" not in path.parts and path.is_file():
            yield path


def _digest(paths: Iterable[Path]) -> str:
    """One digest over names and contents, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        content = path.read_bytes() if path.is_file() else b""
        total.update(path.name.encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


def with_files(history: History, texts: Mapping[Path, str | None]) -> History:
    """The history as it would be with these files; None takes one away.  Nothing is written."""
    kept = [one for one in history.files if one.path not in texts]
    new = [revisions.parse(path, text.encode()) for path, text in texts.items() if text is not None]
    files = tuple(_unjudged(one) for one in (*kept, *new))
    digest = hashlib.sha256(f"{history.digest} {sorted((str(p), t) for p, t in texts.items())}".encode()).hexdigest()
    made = replace(history, files=tuple(sorted(files, key=lambda one: one.path)), digest=digest)
    return replace(made, files=tuple(_judged(one, made) for one in made.files))


def _unjudged(one: Revision) -> Revision:
    return revisions.parse(one.path, one.path.read_bytes()) if one.problem and one.path.is_file() else one


def _judged(one: Revision, history: History) -> Revision:
    """The revision with the problems that only the whole graph shows."""
    problems = [one.problem] if one.problem else []
    if len(one.id) > ID_LENGTH:
        problems.append(f"the id has {len(one.id)} characters; the version table holds {ID_LENGTH}")
    if one.id in history.duplicates:
        problems.append(f"{len(history.duplicates[one.id])} files have this id")
    if one.id in history.missing_parents:
        problems.append("missing: " + ", ".join(history.missing_parents[one.id]))
    if one.id in history.cycles:
        problems.append("it is its own ancestor")
    return replace(one, problem="; ".join(problems))
