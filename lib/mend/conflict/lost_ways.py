"""The ways out where a revision's file is lost: bring it back from git, or put an empty one in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mend.conflict import branches, revision_files
from mend.conflict.conflict_edits import NotPossible, about, new_file
from mend.conflict.conflicts import UNKNOWN, Facts
from mend.errors import MendError
from mend.histories import history
from mend.histories.revisions import Revision
from mend.plan import Step

_PLACEHOLDER = "revision = {0!r}\ndown_revision = {1!r}\n\n\ndef upgrade():\n    pass\n"


def restore(facts: Facts) -> tuple[Step, ...]:
    wanted = [one for one in about(facts) if one in facts.missing] or list(facts.missing)
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
            new_file(facts, f"Restore the file of revision {kept.revision.id} from git{since}", path, kept.text)
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


def stub(facts: Facts) -> tuple[Step, ...]:
    wanted = [one for one in about(facts) if one in facts.missing] or list(facts.missing)
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
        new_file(facts, f"Write an empty revision {missing} after {down or 'nothing (a root)'}", made.path, made.text),
    )


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
