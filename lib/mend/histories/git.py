"""Revision files that git still has: deleted ones, and those of other branches.  git is only asked, never told.

Run without a shell, a pager, a prompt, hooks or a fetch, and with a time limit.  Where it cannot be asked, that is the answer.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mend.histories import revisions
from mend.histories.revisions import Revision

TIMEOUT_S = 20.0
_MOST = 2_000  # deleted files that are read
_LONGEST = 1_000_000  # bytes of a revision file
_COMMIT = "\x1e"
_FORMAT = "--format=%x1e%H%x1f%cs%x1f%s"


@dataclass(frozen=True)
class Kept:
    """One revision file as git has it, and no longer the project; ``how``: in words, since when.

    ``moved``: the commit that took it away put it elsewhere.
    """

    revision: Revision
    text: str
    commit: str
    date: str
    subject: str
    how: str
    moved: bool = False


@dataclass(frozen=True)
class Answer:
    """What git has; ``why``: why it could not be asked, else ''."""

    kept: tuple[Kept, ...]
    why: str = ""
    top: str = ""

    def of(self, revision: str) -> Kept | None:
        """The newest file of a revision id."""
        return next((one for one in self.kept if one.revision.id == revision), None)


def does_the_same(one: str, other: str) -> bool:
    """Whether two texts of a revision upgrade alike: formatting, comments, the graph and the way back do not count."""
    try:
        return _does(one) == _does(other)
    except (SyntaxError, ValueError, RecursionError):
        return one.split() == other.split()


def _does(text: str) -> dict[str, list[str]]:
    functions = [node for node in ast.parse(text.removeprefix("\ufeff")).body if isinstance(node, ast.FunctionDef)]
    return {one.name: [ast.dump(line) for line in one.body] for one in functions if one.name != "downgrade"}


class CannotAsk(Exception):
    """git is not there, or refused."""


def look(directories: Sequence[Path], wanted: Collection[str]) -> Answer:
    """Every revision file that was deleted below these directories, and any file of the ``wanted`` ids in any branch.

    Reads: the repository.  Writes: nothing.
    """
    try:
        top = _ask(directories[0], "rev-parse", "--show-toplevel").strip()
        found = list(_first_of_each(_deleted(top, directories)))
        lacking = [one for one in wanted if one not in {kept.revision.id for kept in found}]
        found += [one for revision in lacking[:10] for one in _elsewhere(top, directories, revision)]
    except CannotAsk as refusal:
        return Answer((), str(refusal))
    return Answer(tuple(found), top=top)


def _ask(directory: Path | str, *words: str, given: bytes | None = None) -> str:
    return raw(directory, *words, given=given).decode("utf-8", "replace")


def raw(directory: Path | str, *words: str, given: bytes | None = None) -> bytes:
    """What git answers, as it is.  Raises: CannotAsk with git's own words."""
    program = shutil.which("git")
    if program is None:
        raise CannotAsk("git is not installed here")
    safe = ("core.fsmonitor=false", "core.quotepath=false", "protocol.allow=never", "core.hooksPath=/dev/null", "log.showSignature=false")  # fmt: skip
    settings = [word for one in safe for word in ("-c", one)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    command = [program, "--no-pager", "-C", str(directory), *settings, *words]
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env=environ,
            **source,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotAsk(f"git did not answer within {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise CannotAsk(f"git could not be started: {error.strerror}") from error
    if answer.returncode:
        said = answer.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CannotAsk(f"git says: {said[0] if said else f'exit {answer.returncode}'}")
    out: bytes = answer.stdout
    return out


def _deleted(top: str, directories: Sequence[Path]) -> Iterator[Kept]:
    """Deleted in the working tree, in the index, in a commit of any branch; the newest first."""
    places = [str(one) for one in directories]
    gone = _lines(_ask(top, "ls-files", "--deleted", "--full-name", "--", *places))
    yield from _read(top, [(f":{path}", path, ("", "", ""), "deleted, and not committed yet") for path in gone])
    if _has_commits(top):
        staged = _lines(_ask(top, "diff", "--cached", "--no-ext-diff", "--diff-filter=D", "--name-only", "--", *places))
        yield from _read(
            top, [(f"HEAD:{path}", path, ("", "", ""), "deleted, and not committed yet") for path in staged]
        )
        log = _ask(
            top,
            "log",
            "--all",
            "-m",
            "--no-ext-diff",
            "--no-renames",
            "--diff-filter=AD",
            "--name-status",
            _FORMAT,
            "--",
            *places,
        )
        changed = [(c, line[0], line[2:]) for c, line in _commits(log)]
        named = [(f"{c[0]}^:{path}", path, c, f"deleted in {c[0][:10]}") for c, how, path in changed if how == "D"]
        deleting = {c for _, _, c, _ in named}
        come = [(f"{c[0]}:{path}", path, c, "") for c, how, path in changed if how == "A" and c in deleting]
        there = {str(Path(top, path)) for _, path, *_ in named if Path(top, path).is_file()}
        deleted = [*_read(top, [one for one in named if str(Path(top, one[1])) not in there][:_MOST]),
                *_read(top, [one for one in named if str(Path(top, one[1])) in there][:_MOST])]  # fmt: skip
        yield from _moved(deleted, _read(top, come[:_MOST]))


def _moved(gone: Sequence[Kept], come: Iterable[Kept]) -> Iterator[Kept]:
    """What was deleted, each with whether the same commit added a file that is the same migration."""
    added: dict[tuple[str, str], list[str]] = {}
    for one in come:
        added.setdefault((one.commit, one.revision.id), []).append(one.text)
    for one in gone:
        texts = added.get((one.commit, one.revision.id), ())
        yield replace(one, moved=any(does_the_same(one.text, text) for text in texts))


def _elsewhere(top: str, directories: Sequence[Path], revision: str) -> Iterator[Kept]:
    """A file of this id in any branch: where the number of times that its id stands in a file changed."""
    if not _has_commits(top):
        return
    log = _ask(
        top,
        "log",
        "--all",
        "-m",
        "--no-ext-diff",
        "--no-renames",
        "--name-only",
        _FORMAT,
        f"-S{revision}",
        "--",
        "*.py",
    )
    named = [(f"{c[0]}{up}:{path}", path, c, f"in commit {c[0][:10]}") for c, path in _commits(log) for up in ("", "^")]
    inside = [Path(one).resolve() for one in directories]
    found = [one for one in _read(top, named[:200]) if one.revision.id == revision]
    yield from sorted(found, key=lambda one: one.revision.path.parent not in inside)[:1]


def _has_commits(top: str) -> bool:
    return bool(_ask(top, "rev-list", "--all", "-n1").strip())


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.endswith(".py")]


def _commits(log: str) -> Iterator[tuple[tuple[str, str, str], str]]:
    """((commit, date, subject), line) for each line of a log that ends with a path."""
    for block in log.split(_COMMIT)[1:]:
        head, *paths = block.splitlines()
        commit, date, subject = head.split("\x1f", 2)
        for path in paths:
            if path.endswith(".py"):
                yield (commit, date, subject), path


def _read(top: str, named: Sequence[tuple[str, str, tuple[str, str, str], str]]) -> Iterator[Kept]:
    """The files behind object names, in order; what git does not have is passed over."""
    if not named:
        return
    answer = raw(top, "cat-file", "--batch", given="".join(f"{name}\n" for name, *_ in named).encode())
    at = 0
    for _, path, (commit, date, subject), how in named:
        end = answer.index(b"\n", at)
        words, at = answer[at:end].decode("utf-8", "replace").split(), end + 1
        if words[-1] in ("missing", "ambiguous"):
            continue
        size = int(words[2])
        content, at = answer[at : at + size], at + size + 1
        if words[1] == "blob" and size <= _LONGEST:
            revision = revisions.parse(Path(top, path), content)
            if revision.id:
                yield Kept(revision, content.decode("utf-8", "replace"), commit, date, subject, how)


def _first_of_each(found: Iterable[Kept]) -> Iterator[Kept]:
    """One file of each id and path: the newest."""
    seen: set[tuple[str, Path]] = set()
    for one in found:
        if (one.revision.id, one.revision.path) not in seen:
            seen.add((one.revision.id, one.revision.path))
            yield one
