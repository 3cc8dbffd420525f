"""The ways out where a history forked, or two files have one id: merge, re-parent, rename."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mend.conflict import branches, conflicts, revision_files
from mend.conflict.conflict_edits import NotPossible, about, edit, new_file
from mend.conflict.conflicts import Facts
from mend.errors import MendError
from mend.histories import graph, history
from mend.histories.revisions import Revision
from mend.plan import Step
from mend.repairs import versions


def merge(facts: Facts) -> tuple[Step, ...]:
    fork = facts.fork
    if fork is None or fork.draft is None:
        raise NotPossible(_why_no_fork(facts))
    if isinstance(fork.draft, MendError):
        raise NotPossible(f"alembic could not make the file: {fork.draft.message}")
    if isinstance(fork.meeting, branches.Meeting) and fork.meeting.failures:
        raise NotPossible("; ".join(fork.meeting.failures))
    says = f"Write merge revision {fork.end} of {' and '.join(fork.heads)}"
    return (_unless_applied(facts, new_file(facts, says, fork.draft.path, fork.draft.text), [fork.end]),)


def _unless_applied(facts: Facts, step: Step, revisions: Sequence[str]) -> Step:
    """The step, taken back only while this database has none of these revisions: its version row would be left without a file."""
    asked = versions.none_of(facts.table, revisions)
    says = (
        f"Make sure that this database is at none of {', '.join(revisions)}; if it is, `alembic downgrade` comes first"
    )
    return replace(step, undo=(Step(says=says, statements=asked), *step.undo)) if asked else step


def _why_no_fork(facts: Facts) -> str:
    if facts.past.missing_parents or facts.past.cycles or facts.past.duplicates:
        return "alembic cannot read the history as it is: mend that first"
    return f"no heads stand apart by accident; heads: {', '.join(facts.past.heads) or 'none'}"


def reparent(facts: Facts) -> tuple[Step, ...]:
    first, onto, moved = _moved(facts)
    if holders := facts.holders_of(moved):
        raise NotPossible(
            f"{' and '.join(holders)} has {moved[0]}{' or a later one of its branch' if len(moved) > 1 else ''}: "
            f"what is put before it would never run there. Merge instead"
        )
    one = facts.past.revisions[first]
    inside = set(moved)
    kept = [p for p in one.down if p in inside]
    down = [*kept, *([onto] if onto else [])]
    step = edit(
        facts,
        f"Put revision {first} after {onto or 'nothing (a root)'} instead of {', '.join(one.down) or 'nothing'}",
        one.path,
        lambda text: revision_files.with_parents(text, down),
    )
    then = history.with_files(facts.past, {one.path: str(step.arguments["text"])})
    if then.cycles or then.missing_parents:
        raise NotPossible("the graph would still be broken: " + (", ".join(then.cycles) or "a parent would be missing"))
    if (fork := facts.fork) and isinstance(fork.meeting, branches.Meeting) and onto in fork.heads:
        walked = next(b.walked for b in fork.meeting.branches if b.head == onto)
        if walked.error:
            raise NotPossible(f"after {onto}, revision {walked.failed_at} fails: {walked.error}")
    return (_unless_applied(facts, step, moved),)


def _moved(facts: Facts) -> tuple[str, str, tuple[str, ...]]:
    """(the revision whose parent changes, its new parent, all that moves with it).  Raises: NotPossible."""
    past, onto = facts.past, facts.said.get("onto", "")
    named = [one for one in about(facts) if one in past.revisions]
    if onto and onto != "base" and not past.named(onto):
        raise NotPossible(f"onto is {onto!r}, which no file has")
    if past.cycles or (named and onto):
        if not (named and onto):
            raise NotPossible("name the revision and its parent: revision and onto")
        after = {named[0]} | {one for one in past.revisions if named[0] in past.ancestors([one])}
        moved = tuple(one for one in past.ordered() if one in after and (not past.cycles or one == named[0]))
        return named[0], "" if onto == "base" else past.named(onto), (named[0], *[m for m in moved if m != named[0]])
    if facts.fork is None or facts.fork.draft is None:
        raise NotPossible(_why_no_fork(facts))
    heads = facts.fork.heads
    own = {head: graph.own(past, head, heads) for head in heads}
    if len(heads) != 2 and not named:
        raise NotPossible(f"{len(heads)} heads stand apart: name the revision to move, and onto")
    if named:
        moving = next((head for head in heads if set(own[head]) & set(named)), "")
    else:
        free = [head for head in heads if not facts.holders_of(own[head])]
        if not free:
            raise NotPossible(
                "each branch is applied somewhere: "
                + "; ".join(f"{h}: {', '.join(facts.holders_of(own[h]))}" for h in heads)
            )
        moving = max(free, key=lambda head: _made(past, own[head][0]))
    if not moving:
        raise NotPossible(f"{', '.join(named)} is in no branch that stands apart")
    firsts = [one for one in own[moving] if set(past.revisions[one].down) - set(own[moving])]
    if len(firsts) != 1:
        raise NotPossible(f"the branch of {moving} leaves the others at {len(firsts)} places: {', '.join(firsts)}")
    other = past.named(onto) if onto else next(head for head in heads if head != moving)
    return firsts[0], other, own[moving]


def _made(past: history.History, revision: str) -> str:
    """Something that sorts by when the file was made."""
    one = past.revisions[revision]
    try:
        found = revision_files.created(one, one.path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    return f"{found.isoformat() if found else ''} {past.ordered().index(revision):06d}"


def rename(facts: Facts) -> tuple[Step, ...]:
    past = facts.past
    named = [one for one in about(facts) if one in past.duplicates or one in facts.too_long]
    wanted = named or [*past.duplicates, *facts.too_long]
    if not wanted:
        raise NotPossible("no id is there twice, and none is too long")
    old = wanted[0]
    if old in past.duplicates:
        one = _second(facts, old)
        new = conflicts.new_id("rename", old, one.path.name)
        says = f"Give the second file of {old} an id of its own, {new}"
        return (
            _unless_applied(facts, edit(facts, says, one.path, lambda text: revision_files.with_id(text, new)), [new]),
        )
    new = conflicts.new_id("rename", old)
    if holders := facts.holders_of([old]):
        raise NotPossible(f"{' and '.join(holders)} has {old}")
    first = edit(
        facts,
        f"Give {old} a shorter id, {new}",
        past.revisions[old].path,
        lambda text: revision_files.with_id(text, new),
    )
    after = [one for one in past.files if old in (*one.down, *map(past.named, one.depends_on))]
    return (_unless_applied(facts, first, [new]), *(_follow(facts, one, old, new) for one in after))


def _follow(facts: Facts, one: Revision, old: str, new: str) -> Step:
    down = [new if p == old else p for p in one.down]
    depends_on = [new if facts.past.named(p) == old else p for p in one.depends_on]

    def change(text: str) -> str:
        text = revision_files.with_parents(text, down) if old in one.down else text
        return revision_files.with_dependencies(text, depends_on) if new in depends_on else text

    return edit(facts, f"Let {one.id} come after {new}", one.path, change)


def _second(facts: Facts, revision: str) -> Revision:
    """Of two files with one id, the one that no database has had.  Raises: NotPossible."""
    files = [one for one in facts.past.files if one.id == revision]
    texts = {one.path: one.path.read_text(encoding="utf-8", errors="replace") for one in files}
    names = ", ".join(one.path.name for one in files)
    if len(files) != 2:
        raise NotPossible(f"{len(files)} files have the id {revision}: {names}; leave two")
    if len({"".join(text.split()) for text in texts.values()}) == 1:
        raise NotPossible(f"{names} are the same: remove one of them")
    chosen = facts.said.get("file", "")
    if chosen:
        found = [one for one in files if one.path.name == chosen]
        if not found:
            raise NotPossible(f"file is {chosen!r}; the files of {revision} are {names}")
        return found[0]
    if facts.holders_of([revision]):
        raise NotPossible(
            f"{' and '.join(facts.holders_of([revision]))} has {revision}, and which of the files ran there is not known: name the one to rename as file ({names})"
        )
    made = {one.path: revision_files.created(one, texts[one.path]) for one in files}
    if None in made.values() or len(set(made.values())) == 1:
        raise NotPossible(f"name the one to rename as file: {names}")
    return max(files, key=lambda one: str(made[one.path]))
