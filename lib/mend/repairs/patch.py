"""What would have stopped the incident: findings in the project's files, a patch of the revision, and how to split it.

Reads the project's files; a patch is written only by the step of an approved plan.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mend.diagnosis import Prevention
from mend.histories.history import History
from mend.histories.lint import is_autocommit, lint_files
from mend.histories.retryable import Rewritten, rewrite
from mend.histories.revisions import Revision
from mend.journal import sha256
from mend.plan import Step

if TYPE_CHECKING:
    from mend.repairs.halfway import Seen

_OWN_REVISION = "Give such work a revision of its own, or a script outside of alembic; in between, op.get_context().autocommit_block() commits the right way."
REMEDIES = {
    "commit": f"Remove the commit. {_OWN_REVISION}",
    "commit_text": f"Remove it. {_OWN_REVISION}",
    "autocommit_several": "Give each a block, and best a revision, of its own.",
    "swallowed_exception": "Write `with op.get_bind().begin_nested():` around the operation, inside the try.",
    "own_engine": "Use op.get_bind().",
    "sql_before_configure": "Settings and locks for the migration go inside, after configure: `with context.begin_transaction(): "
    "connection.execute(text(\"SET LOCAL lock_timeout = '4s'\")); context.run_migrations()`. What must be done before it, or last "
    "beyond one transaction, is followed by `connection.commit()`, before context.configure().",
    "unreadable": "Make Python read it first.",
}


def preventions(
    past: History, revision: Revision | None, seen: Sequence[Seen], *, alembic: str = ""
) -> tuple[Prevention, ...]:
    """Everything that the project could change so that this does not happen again.

    Parameters
    ----------
    past : the project's revisions
    revision : the one in question
    seen : its statements and their states in the live database
    alembic : the version that the project runs; '' where it is not known

    Returns
    -------
    Findings with file and line first, then the patch of the revision file, then the split

    Reads: env.py and the revision's file.  Writes: nothing.
    """
    home = past.alembic_ini.parent
    lint = lint_files(past.env_py, [revision.path] if revision else [])
    found = tuple(_finding(one, home) for one in lint)
    if revision is None:
        return found
    commits = bool({"commit", "commit_text"} & {finding for _, _, finding, _ in lint})
    try:
        present = revision.path.read_bytes().decode()
        made = _rewritten(present, past, alembic)
        # Where nothing commits before the end, PostgreSQL itself makes a retry safe, and guards would only hide drift.
        half = commits or "autocommit_block" in present or any(one.ran for one in seen)
        patch = _patch(present, made, revision, home, seen, alembic, commits=commits) if half else ()
        return (*found, *patch, *_split(present, revision))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        return (
            *found,
            Prevention(f"{relative(revision.path, home)} could not be read, so no patch of it is proposed: {error}."),
        )


def steps(preventions: Iterable[Prevention]) -> tuple[Step, ...]:
    """The steps that write the proposed files, each with the step that puts the old text back."""
    return tuple(_step(one) for one in preventions if one.path)


def _finding(found: tuple[str, int, str, str], home: Path) -> Prevention:
    file, line, finding, says = found
    return Prevention(f"{relative(Path(file), home)}:{line} {says}. {REMEDIES.get(finding, '')}".strip())


def _rewritten(present: str, past: History, alembic: str) -> Rewritten:
    mark = "\ufeff" if present.startswith("\ufeff") else ""
    translated = past.env_py.is_file() and b"schema_translate_map" in past.env_py.read_bytes()
    made = rewrite(present.removeprefix(mark), alembic=alembic, translated=translated)
    return Rewritten(mark + made.text, made.left)


def _patch(
    present: str, made: Rewritten, revision: Revision, home: Path, seen: Sequence[Seen], alembic: str, *, commits: bool
) -> tuple[Prevention, ...]:
    name, left = relative(revision.path, home), _left(made)
    if made.text == present:
        return (
            (Prevention(f"{name}: nothing is left in it that a patch could make repeatable. {left}"),) if left else ()
        )
    says = f"{name}: with this patch a retry of {revision.id} passes over what is there, and drops first what must not be kept. It is for PostgreSQL only"
    says += (
        f", and was made for Alembic {alembic}."
        if alembic
        else "; the version of Alembic is not known, so only what every version has is used."
    )
    commit = "It does not cure the commit: as long as that is there, the version row is lost again." if commits else ""
    says = " ".join(filter(None, [says, commit, _different(seen), left]))
    return (
        Prevention(says, unified(present, made.text, name), str(revision.path), sha256(present), present, made.text),
    )


def _left(made: Rewritten) -> str:
    """What a retry runs once more: whoever approves the patch must know that it may."""
    return (
        f"Left as it is, so a retry runs it again; look whether that does no harm: {'; '.join(made.left)}."
        if made.left
        else ""
    )


def _different(seen: Sequence[Seen]) -> str:
    """What is there already but not as wanted: IF NOT EXISTS would keep it so."""
    changes = [change for one in seen if one.state == "DIFFERENT" for change in one.statement.changes]
    names = dict.fromkeys(
        f"{c.kind} {c.identity}"
        for c in changes
        if c.kind in ("table", "column") or (c.kind == "index" and "concurrently" not in _sql(c, seen))
    )
    return (
        f"It looks at names alone, and keeps what is here but not as wanted; mend it first: {', '.join(names)}."
        if names
        else ""
    )


def _sql(change: object, seen: Sequence[Seen]) -> str:
    return " ".join(one.statement.sql.lower() for one in seen if change in one.statement.changes)


def unified(old: str | None, new: str, name: str) -> str:
    """A unified diff that ``git apply`` and ``patch -p1`` take, from the directory of alembic.ini; ``old`` None: a new file."""
    before = "/dev/null" if old is None else f"a/{name}"
    lines = difflib.unified_diff(_lines(old or ""), _lines(new), before, f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    """Lines with their ends; not str.splitlines, which also parts at a form feed."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def relative(path: Path, home: Path) -> str:
    """A file's path from the directory of alembic.ini, with slashes."""
    try:
        return path.relative_to(home.resolve()).as_posix()
    except ValueError:
        return (
            Path(os.path.relpath(path, home)).as_posix()
            if not path.is_absolute() or path.drive == home.drive
            else path.name
        )


def _step(one: Prevention) -> Step:
    says = f"Patch {Path(one.path).name}, so that a retry is safe"
    return file_step(says, Path(one.path), one.present, one.text, diff=one.diff)


def file_step(says: str, path: Path, present: str | None, text: str, *, diff: str) -> Step:
    """The step that writes one file of the project, and its way back; ``present`` None: the file is made."""
    old = "" if present is None else sha256(present)
    back = Step(
        f"Remove {path.name} again" if present is None else f"Put the former text of {path.name} back",
        (),
        kind="file",
        transactional=False,
        retryable=False,
        arguments={"path": str(path), "sha256": sha256(text), "text": present},
    )
    return Step(
        says,
        (),
        kind="file",
        transactional=False,
        retryable=False,
        undo=(back,),
        arguments={"path": str(path), "sha256": old, "text": text, "diff": diff},
    )


def _split(present: str, revision: Revision) -> tuple[Prevention, ...]:
    """A sketch of one revision per transaction, where autocommit work stands among other operations."""
    tree = ast.parse(present.removeprefix("\ufeff"))
    upgrade = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"), None)
    parts = _parts(upgrade.body) if upgrade else []
    if len(parts) < 2 or not any(is_autocommit(one) for part in parts for one in part if isinstance(one, ast.With)):
        return ()
    lines = _lines(present)
    sketch = ["# A sketch of the split, one revision per transaction. Not a patch.\n"]
    for n, part in enumerate(parts):
        new = "+" if n else " "
        after = f"a new revision after {n}" if n else f"{revision.id}, this file, keeps"
        sketch += [f"@@ {n + 1}: {after} @@\n", f"{new}def upgrade() -> None:\n"]
        sketch += [new + line.rstrip() + "\n" for one in part for line in lines[one.lineno - 1 : one.end_lineno]]
    says = (
        "Everything before an autocommit_block() is committed when it starts, so a failure from there on leaves the revision half applied. "
        f"Give the block a revision of its own ({len(parts)} instead of one). Only where no database has had this revision yet; "
        "where one has, do so from the next revision on. downgrade() splits the same way, in the opposite order."
    )
    return (Prevention(says, "".join(sketch)),)


def _parts(body: Sequence[ast.stmt]) -> list[list[ast.stmt]]:
    """Statements that belong together: each autocommit block by itself, and what stands between them."""
    parts: list[list[ast.stmt]] = []
    was_block = True
    for one in body:
        block = isinstance(one, ast.With) and is_autocommit(one)
        if block or was_block:
            parts.append([])
        parts[-1].append(one)
        was_block = block
    return [part for part in parts if not _is_silent(part)]


def _is_silent(part: Sequence[ast.stmt]) -> bool:
    """Whether a part sends nothing: a docstring, or a name for op.get_bind()."""
    calls = [node for one in part for node in ast.walk(one) if isinstance(node, ast.Call)]
    return all(ast.unparse(one.func).rpartition(".")[2] in ("get_bind", "get_context", "inspect", "f") for one in calls)
