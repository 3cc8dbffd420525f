"""The ways out of a conflict of revisions: merge, re-parent, restore, stub, set or delete a version row, rename an id.

Reads the project's files, and has alembic draft a stub; writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mend.conflict import branches, conflicts, revision_files
from mend.conflict.conflicts import ANCESTOR, TWICE, UNKNOWN, Facts
from mend.conflict.revision_files import NotEditable
from mend.errors import MendError
from mend.histories import graph, history
from mend.histories.history import Revision
from mend.plan import Choice, Step
from mend.repairs import patch, versions

Way = tuple[Choice, tuple[Step, ...]]


class NotPossible(Exception):
    """Why an option cannot be taken."""


@dataclass(frozen=True)
class _Option:
    says: str
    costs: str
    make: Callable[[Facts], tuple[Step, ...]]


def ways(facts: Facts) -> tuple[Way, ...]:
    """Every option in the order in which one chooses itself, with its steps or why it is not possible."""
    return tuple(_way(name, option, facts) for name, option in _OPTIONS.items())


def _way(name: str, option: _Option, facts: Facts) -> Way:
    try:
        made = option.make(facts)
    except NotPossible as reason:
        return Choice(name, option.says, option.costs, False, str(reason)), ()
    return Choice(name, option.says, option.costs), made


def by_itself(facts: Facts, name: str) -> bool:
    """Whether an option may be chosen without being named: nothing is given up, and its outcome is proven."""
    if name == "merge":
        return facts.fork is not None and isinstance(facts.fork.meeting, branches.Meeting) and facts.fork.meeting.proven
    return name in ("restore", "set_row", "delete_row")


# --- restore ------------------------------------------------------------------------------------------------------------


def _restore(facts: Facts) -> tuple[Step, ...]:
    wanted = [one for one in _named(facts) if one in facts.missing] or list(facts.missing)
    if not wanted:
        raise NotPossible("no revision file is missing")
    if facts.kept.why:
        raise NotPossible(f"git could not be asked: {facts.kept.why}")
    texts: dict[Path, str] = {}
    steps = []
    while wanted:
        kept = facts.kept.of(wanted.pop(0))
        if kept is None:
            continue
        path = _place(facts, kept.revision)
        if "\ufffd" in kept.text:
            raise NotPossible(
                f"the file of {kept.revision.id} is not UTF-8, and would not come back byte by byte: take it from git by hand ({kept.how})"
            )
        texts[path] = kept.text
        since = f" ({kept.how}{f', {kept.date}: {kept.subject}' if kept.subject else ''})"
        steps.append(
            _new_file(facts, f"Restore the file of revision {kept.revision.id} from git{since}", path, kept.text)
        )
        then = history.with_files(facts.past, dict(texts))
        wanted += [p for p in then.missing_parents.get(kept.revision.id, ()) if p not in wanted and facts.kept.of(p)]
    if not steps:
        raise NotPossible(f"git has no file of {', '.join(facts.missing)} in any branch")
    then = history.with_files(facts.past, dict(texts))
    _joins(facts, then, [_id_at(then, one) for one in texts])
    left = sorted({p for one in texts for p in then.missing_parents.get(_id_at(then, one), ())})
    if left:
        raise NotPossible(f"the restored files need {', '.join(left)} in turn, which git does not have")
    if then.duplicates or then.cycles:
        raise NotPossible("with the restored files, ids would be there twice or in a circle")
    return tuple(steps)


def _joins(facts: Facts, then: history.History, restored: Sequence[str]) -> None:
    """What is restored must hang together with what is there.  Raises: NotPossible where the history was squashed meanwhile."""
    known = set(facts.past.revisions)
    near = then.ancestors(restored) | {one for one in known if set(restored) & then.ancestors([one])}
    if known and not near & known:
        raise NotPossible(
            f"git has {', '.join(restored)}, but no revision of now comes before or after: the history was begun anew. "
            "Set the row to the new revision instead (set_row), where the catalog is the same"
        )


def _id_at(past: history.History, path: Path) -> str:
    return next(one.id for one in past.files if one.path == path)


def _place(facts: Facts, revision: Revision) -> Path:
    """Where the file was; if that directory is none of the project's any more, or the name is taken, beside the others."""
    homes = [one.resolve() for one in facts.past.version_locations]
    path = revision.path.resolve()
    if not any(home in path.parents for home in homes) or not path.parent.is_dir():
        path = homes[0] / path.name
    return path.with_name(f"{path.stem}_{revision.id}_restored.py") if path.exists() else path


def _new_file(facts: Facts, says: str, path: Path, text: str) -> Step:
    name = patch.relative(path, facts.past.alembic_ini.parent)
    return patch.file_step(f"{says}: {name}", path, None, text, diff=patch.unified(None, text, name))


def _edit(facts: Facts, says: str, path: Path, change: Callable[[str], str]) -> Step:
    name = patch.relative(path, facts.past.alembic_ini.parent)
    try:
        present = path.read_bytes().decode()
        text = change(present)
    except (NotEditable, UnicodeDecodeError, OSError) as reason:
        raise NotPossible(f"{name} cannot be changed: {reason}") from reason
    return patch.file_step(f"{says}: {name}", path, present, text, diff=patch.unified(present, text, name))


# --- version rows -------------------------------------------------------------------------------------------------------


def _delete_row(facts: Facts) -> tuple[Step, ...]:
    older, twice = facts.rows_that_are(ANCESTOR), facts.rows_that_are(TWICE)
    wanted = [one for one in (*older, *twice) if one in _named(facts)] or [*older, *twice]
    if not wanted:
        raise NotPossible("no version row is the ancestor of another, or there twice")
    _may_change(facts)
    row = wanted[0]
    if row in twice:
        move = versions.remove_one_of(facts.table, row)
        says = f"Delete one of the {facts.table.rows.count(row)} version rows {row}"
    else:
        newer = [one for one in facts.table.rows if one != row and row in facts.past.ancestors([one])]
        _really_at(facts, newer, row)
        move, says = (
            versions.remove(facts.table, row),
            f"Delete the version row {row}: {', '.join(newer)} comes after it",
        )
    back = Step(says=f"Put the version row {row} back", statements=move.back)
    return (Step(says=says, statements=move.forward, undo=(back,)),)


def _really_at(facts: Facts, newer: Sequence[str], row: str) -> None:
    """The descendant's row must be the true one: what it makes must be there.  Raises: NotPossible."""
    if isinstance(facts.expected, MendError):
        raise NotPossible(f"it is not proven that {', '.join(newer)} was applied: {facts.expected.message}")
    for one in newer:
        if one not in facts.expected or row not in facts.expected:
            raise NotPossible(f"it is not proven that {one} was applied: the history cannot be replayed up to it")
        made = branches.lacking(facts.expected[row], facts.expected[one], ignore=facts.table.name)
        absent = [c for c in made if facts.live.get((c.kind, c.identity)) != c.after]
        if absent:
            told = "; ".join(f"{c.kind} {c.identity}" for c in absent[:5])
            raise NotPossible(
                f"the row {one} is not true either: {told} is not as it leaves it; look with environment_mismatch first"
            )


def _set_row(facts: Facts) -> tuple[Step, ...]:
    row = _unknown_row(facts)
    _may_change(facts)
    if isinstance(facts.expected, MendError):
        raise NotPossible(f"no revision's catalog is known: {facts.expected.message}")
    others = [one for one in facts.table.rows if one in facts.past.revisions]
    candidates = others or list(conflicts.near(facts.past, row, facts.kept, facts.said))
    equal = [one for one in candidates if conflicts.lacks(facts, one) == ()]
    if not equal:
        raise NotPossible(_nowhere(facts, candidates))
    if others:
        if len(others) > 1:
            raise NotPossible("several other version rows are there: whether they alone are true is not proven")
        move, says = (
            versions.remove(facts.table, row),
            f"Delete the unknown version row {row}: the catalog is that of {others[0]}",
        )
    else:
        latest = _one_of(facts, equal)
        move = versions.change(facts.table, row, latest)
        says = f"Set the version row {row} to {latest}: the catalog is exactly what a replay expects there"
    back = Step(says=f"Put the version row {row} back", statements=move.back)
    return (Step(says=says, statements=move.forward, undo=(back,)),)


def _one_of(facts: Facts, equal: Sequence[str]) -> str:
    """The one revision whose catalog fits.  Of several that follow each other with no difference nobody can tell."""
    if len(equal) > 1:
        raise NotPossible(
            f"{', '.join(equal)} all have this catalog (revisions between them change rows only, or nothing): name the right one as onto"
        )
    return equal[0]


def _nowhere(facts: Facts, candidates: Sequence[str]) -> str:
    found = {one: conflicts.lacks(facts, one) for one in candidates}
    known = {one: lines for one, lines in found.items() if lines}
    if not known:
        return "no known revision's catalog could be replayed"
    nearest = min(known, key=lambda one: len(known[one]))
    told = "; ".join(known[nearest][:3])
    return f"the catalog is that of no known revision; nearest is {nearest}, with {len(known[nearest])} differences: {told}"


def _unknown_row(facts: Facts) -> str:
    unknown = facts.rows_that_are(UNKNOWN)
    named = [one for one in unknown if one in _named(facts)] or list(unknown)
    if not named:
        raise NotPossible("every version row is known to the files")
    return named[0]


def _may_change(facts: Facts) -> None:
    found = facts.tables
    mine = found[(found["schema"] == facts.table.schema) & (found["table"] == facts.table.name)]
    if len(mine) and not bool(mine["may_change"].iloc[0]):
        raise NotPossible(
            f"this role may not change {facts.table.schema}.{facts.table.name}, which belongs to {mine['owner'].iloc[0]}"
        )


# --- merge, re-parent ---------------------------------------------------------------------------------------------------


def _merge(facts: Facts) -> tuple[Step, ...]:
    fork = facts.fork
    if fork is None or fork.draft is None:
        raise NotPossible(_why_no_fork(facts))
    if isinstance(fork.draft, MendError):
        raise NotPossible(f"alembic could not make the file: {fork.draft.message}")
    if isinstance(fork.meeting, branches.Meeting) and fork.meeting.failures:
        raise NotPossible("; ".join(fork.meeting.failures))
    says = f"Write merge revision {fork.end} of {' and '.join(fork.heads)}"
    return (_unless_applied(facts, _new_file(facts, says, fork.draft.path, fork.draft.text), [fork.end]),)


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


def _reparent(facts: Facts) -> tuple[Step, ...]:
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
    step = _edit(
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
    named = [one for one in _named(facts) if one in past.revisions]
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


def _named(facts: Facts) -> list[str]:
    return [one for one in (piece.strip() for piece in facts.said.get("revision", "").split(",")) if one]


# --- stub, rename -------------------------------------------------------------------------------------------------------


def _stub(facts: Facts) -> tuple[Step, ...]:
    wanted = [one for one in _named(facts) if one in facts.missing] or list(facts.missing)
    if not wanted:
        raise NotPossible("no revision file is missing")
    missing = wanted[0]
    down = _stub_parent(facts, missing)
    if missing in facts.rows_that_are(UNKNOWN) and down:
        _has_all_of(facts, down)
    placeholder = {
        str(facts.past.version_locations[0].resolve() / f"{missing}_placeholder.py"): _PLACEHOLDER.format(
            missing, down or None
        )
    }
    try:
        made = revision_files.draft(
            facts.project,
            facts.past,
            revision=missing,
            down=[down] if down else [],
            message=f"stands for lost revision {missing}",
            overlay=_placeholders(facts, missing) | placeholder,
        )
    except MendError as error:
        raise NotPossible(f"alembic could not make the file: {error.message}") from error
    return (
        _new_file(facts, f"Write an empty revision {missing} after {down or 'nothing (a root)'}", made.path, made.text),
    )


_PLACEHOLDER = "revision = {0!r}\ndown_revision = {1!r}\n\n\ndef upgrade():\n    pass\n"


def _placeholders(facts: Facts, but: str) -> dict[str, str | None]:
    """Empty revisions for what else is missing, so that alembic can load the history at all."""
    home = facts.past.version_locations[0].resolve()
    parents = {p for lacking in facts.past.missing_parents.values() for p in lacking} - {but}
    return {str(home / f"{one}_placeholder.py"): _PLACEHOLDER.format(one, None) for one in sorted(parents)}


def _stub_parent(facts: Facts, missing: str) -> str:
    """What the lost revision came after: as named, as git says, or the only loose end there is.  Raises: NotPossible."""
    past, onto = facts.past, facts.said.get("onto", "")
    if onto == "base":
        return ""
    if onto:
        if not past.named(onto):
            raise NotPossible(f"onto is {onto!r}, which no file has")
        return past.named(onto)
    kept = facts.kept.of(missing)
    if kept and len(kept.revision.down) == 1 and kept.revision.down[0] in past.revisions:
        return kept.revision.down[0]
    after = {one for one in past.revisions if missing in _above(past, one)}
    loose = [one for one in past.heads if one not in after]
    if len(loose) != 1:
        raise NotPossible(
            f"it is not known what {missing} came after (loose ends: {', '.join(loose) or 'none'}): name it as onto, or `base`"
        )
    return loose[0]


def _above(past: history.History, revision: str) -> set[str]:
    """Everything that a revision comes after, ids without a file included."""
    known = past.ancestors([revision])
    return known | {p for one in known for p in past.revisions[one].down}


def _has_all_of(facts: Facts, revision: str) -> None:
    """Whoever says that a lost revision came after this one says that this one was applied.  Raises: NotPossible."""
    if isinstance(facts.expected, MendError) or revision not in facts.expected:
        return
    found = branches.lacking(facts.expected[revision], facts.live, ignore=facts.table.name)
    absent = [c for c in found if c.before is not None]
    if absent:
        told = "; ".join(f"{c.kind} {c.identity}" for c in absent[:5])
        raise NotPossible(
            f"the database does not hold what {revision} leaves ({told}): the lost revision did not come after it, or changed that"
        )


def _rename(facts: Facts) -> tuple[Step, ...]:
    past = facts.past
    named = [one for one in _named(facts) if one in past.duplicates or one in facts.too_long]
    wanted = named or [*past.duplicates, *facts.too_long]
    if not wanted:
        raise NotPossible("no id is there twice, and none is too long")
    old = wanted[0]
    if old in past.duplicates:
        one = _second(facts, old)
        new = conflicts.new_id("rename", old, one.path.name)
        says = f"Give the second file of {old} an id of its own, {new}"
        return (
            _unless_applied(facts, _edit(facts, says, one.path, lambda text: revision_files.with_id(text, new)), [new]),
        )
    new = conflicts.new_id("rename", old)
    if holders := facts.holders_of([old]):
        raise NotPossible(f"{' and '.join(holders)} has {old}")
    first = _edit(
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

    return _edit(facts, f"Let {one.id} come after {new}", one.path, change)


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


_OPTIONS: Mapping[str, _Option] = {
    "restore": _Option("Bring the deleted revision file back from git", "nothing; it is the file that the databases have had", _restore),
    "delete_row": _Option("Delete the version row that another row stands for already", "nothing: the other row says the same", _delete_row),
    "set_row": _Option("Set the unknown version row to the revision whose catalog this database has, by compare-and-set",
                       "rows that the unknown revision changed stay as they are", _set_row),
    "rename": _Option("Give a revision file another id, where two have the same or it is too long", "only where no database has had it", _rename),
    "merge": _Option("Write a merge revision with both heads as its parents", "none; for branches that any database may have had", _merge),
    "reparent": _Option("Put the unreleased branch after the other", "it must be applied nowhere: name other databases in also", _reparent),
    "stub": _Option("Write an empty revision in place of the lost one", "what the lost revision did is missing in every database that is built anew", _stub),
}  # fmt: skip
OPTIONS = tuple(_OPTIONS)
