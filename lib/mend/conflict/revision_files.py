"""Changes of a revision file's text: another parent, another id; and the file that alembic itself would write.  Pure but for `draft`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mend.errors import ProjectBroken
from mend.histories import revisions
from mend.histories.history import History
from mend.histories.project import Project, ask, broken
from mend.histories.revisions import Revision
from mend.replays.replay_cache import kept_path, read_kept, write_kept

_DATE = re.compile(r"^Create Date:\s*(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?)", re.MULTILINE)
_DRAFT_TIMEOUT_S = 60.0


class NotEditable(Exception):
    """The file cannot be changed without guessing; the message says why."""


@dataclass(frozen=True)
class Draft:
    """A file as alembic would write it."""

    path: Path
    text: str
    hooks: bool


def with_parents(text: str, parents: Sequence[str]) -> str:
    """The text with another down_revision, in the assignment and in the docstring.  Raises: NotEditable."""
    return _doc_line(_assigned(text, "down_revision", _value(parents)), "Revises", ", ".join(parents))


def with_dependencies(text: str, depends_on: Sequence[str]) -> str:
    """The text with another depends_on.  Raises: NotEditable."""
    return _assigned(text, "depends_on", _value(depends_on))


def _value(revisions: Sequence[str]) -> str:
    return repr(revisions[0]) if len(revisions) == 1 else repr(tuple(revisions)) if revisions else "None"


def with_id(text: str, new: str) -> str:
    """The text with another revision id.  Raises: NotEditable."""
    return _doc_line(_assigned(text, "revision", repr(new)), "Revision ID", new)


def _assigned(text: str, name: str, value: str) -> str:
    try:
        tree = ast.parse(text.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise NotEditable("Python cannot read it") from error
    nodes = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value
        and name in [t.id for t in _targets(node) if isinstance(t, ast.Name)]
    ]
    if len(nodes) != 1:
        raise NotEditable(f"{name} is assigned {len(nodes)} times in it")
    try:
        ast.literal_eval(nodes[0])
    except (ValueError, TypeError) as error:
        raise NotEditable(f"{name} is computed in it") from error
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    return mark + _replaced(text.removeprefix("\ufeff"), nodes[0], _quoted_alike(text, value))


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _quoted_alike(text: str, value: str) -> str:
    """Double quotes where the file uses them."""
    double = re.search(r"^revision\s*(?::[^=\n]+)?=\s*\"", text, re.MULTILINE)
    return value.replace("'", '"') if double else value


def _replaced(text: str, node: ast.expr, value: str) -> str:
    """Columns of the AST count UTF-8 bytes."""
    lines = text.encode().split(b"\n")
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    return b"\n".join([*lines[:first], before + value.encode() + after, *lines[last + 1 :]]).decode()


def _doc_line(text: str, label: str, value: str) -> str:
    """The docstring's line, which people read and alembic does not."""
    return re.sub(
        rf"^({label}:)[^\r\n]*", lambda found: f"{found[1]} {value}".rstrip(), text, count=1, flags=re.MULTILINE
    )


def created(revision: Revision, text: str) -> datetime | None:
    """When the file says that it was made; None where it does not."""
    found = _DATE.search(text)
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None


def draft(
    project: Project,
    past: History,
    *,
    revision: str,
    down: Sequence[str],
    message: str,
    overlay: Mapping[str, str | None] | None = None,
) -> Draft:
    """The file that alembic would write for a new revision after ``down``, by the project's own template and file names.

    It is dated one second after the newest of its parents, so that the plan of tomorrow is the plan of today.
    Raises: ProjectBroken where alembic cannot load the project.
    """
    request = {
        "action": "draft",
        "id": revision,
        "down": list(down),
        "message": message,
        "at": _after(past, down),
        "overlay": dict(overlay or {}),
    }
    template = past.script_location / "script.py.mako"
    kept = kept_path(
        "draft", [str(past.alembic_ini), past.digest, request, template.read_text() if template.is_file() else ""]
    )
    if found := read_kept(kept):
        return Draft(Path(found["path"]), found["text"], found["hooks"])
    events = ask(project, request, timeout_s=_DRAFT_TIMEOUT_S)
    if events[-1]["event"] == "error":
        raise broken(events[-1])
    made = next(e for e in events if e["event"] == "draft")
    if "text" not in made:
        raise ProjectBroken(
            "alembic made no revision file. Nothing was changed. Look at script.py.mako of the project."
        )
    if problem := revisions.parse(Path(made["path"]), made["text"].encode()).problem:
        raise ProjectBroken(
            f"alembic would make a revision file with a {problem}. Nothing was changed. Write the message without quotes, or look at "
            "script.py.mako of the project."
        )
    write_kept(kept, {"modules": [], "path": made["path"], "text": made["text"], "hooks": bool(made["hooks"])})
    return Draft(Path(made["path"]), made["text"], bool(made["hooks"]))


def _after(past: History, parents: Sequence[str]) -> float:
    """Seconds since 1970."""
    dates = [_date(past.revisions[one]) for one in parents if one in past.revisions]
    return max(dates, default=0.0) + 1.0


def _date(one: Revision) -> float:
    try:
        found = created(one, one.path.read_text(encoding="utf-8", errors="replace"))
        return found.timestamp() if found else one.path.stat().st_mtime
    except OSError:
        return 0.0
