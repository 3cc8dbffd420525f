"""Where a way down is to end: the revisions between the version rows and what the operator wrote.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mend.errors import InvalidParameter
from mend.histories.history import History
from mend.replays import downgrades


def chosen(past: History, rows: Sequence[str], revision: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The revisions to be taken back, newest first, and the rows to choose from where it was not said which.

    ``revision``: where to go down to: an id, a label, ``base``, ``-2``, or ``head@-1`` of one of several heads; '' is ``-1``,
    and ``here`` takes nothing back, and looks at nothing but the version rows' own catalog.
    Raises: InvalidParameter, RevisionNotFound.
    """
    applied = past.ancestors(rows)
    start, _, words = revision.rpartition("@") if "@-" in revision else ("", "", revision)
    if words == "base":
        return _newest_first(past, applied), ()
    if words == "here":
        return (), ()
    if words == "" or words.startswith("-"):
        return _relative(past, rows, start, words or "-1")
    goal = past.get(words).id
    if goal not in applied:
        raise InvalidParameter(
            f"Revision {goal} is not applied here: the database is at {', '.join(rows) or 'no revision'}. Nothing was changed. Name a revision "
            "below that one, or base."
        )
    return _newest_first(past, {one for one in applied if one != goal and goal in past.ancestors([one])}), ()


def _relative(past: History, rows: Sequence[str], start: str, words: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not words[1:].isdigit() or not int(words[1:]):
        raise InvalidParameter(
            f"revision is {words!r}. Nothing was changed. Write where to go down to: an id, base, -1 for one step, or HEAD@-1."
        )
    if not rows:
        return (), ()
    if start:
        begin = past.get(start).id
        if begin not in rows:
            raise InvalidParameter(
                f"{begin} is not one of the database's heads ({', '.join(rows)}). Nothing was changed. Name one of them."
            )
    elif len(rows) > 1:
        return (), tuple(rows)
    else:
        begin = rows[0]
    taken: list[str] = []
    left = past.ancestors(rows)
    for _ in range(int(words[1:])):
        nexts = [one for one in downgrades.tips(past, left) if one in past.ancestors([begin])]
        if not nexts:
            raise InvalidParameter(
                f"There are only {len(taken)} revisions below {begin}. Nothing was changed. Write base to take all of them back."
            )
        if len(nexts) > 1:
            raise InvalidParameter(
                f"Below {taken[-1]} the history parts: {', '.join(nexts)}. Nothing was changed. Name the revision to go down to."
            )
        taken.append(nexts[0])
        left.discard(nexts[0])
    return tuple(taken), ()


def _newest_first(past: History, revisions: set[str]) -> tuple[str, ...]:
    return tuple(one for one in reversed(past.ordered()) if one in revisions)
