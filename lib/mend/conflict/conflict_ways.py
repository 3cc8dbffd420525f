"""The ways out of a conflict of revisions: merge, re-parent, restore, stub, set or delete a version row, rename an id.

Reads the project's files, and has alembic draft a stub; writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mend.conflict import branches, fork_ways, lost_ways, row_ways
from mend.conflict.conflict_edits import NotPossible
from mend.conflict.conflicts import Facts
from mend.plan import Choice, Step

Way = tuple[Choice, tuple[Step, ...]]


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


# --- stub, rename -------------------------------------------------------------------------------------------------------


_OPTIONS: Mapping[str, _Option] = {
    "restore": _Option("Bring the deleted revision file back from git", "nothing; it is the file that the databases have had", lost_ways.restore),
    "delete_row": _Option("Delete the version row that another row stands for already", "nothing: the other row says the same", row_ways.delete_row),
    "set_row": _Option("Set the unknown version row to the revision whose catalog this database has, by compare-and-set",
                       "rows that the unknown revision changed stay as they are", row_ways.set_row),
    "rename": _Option("Give a revision file another id, where two have the same or it is too long", "only where no database has had it", fork_ways.rename),
    "merge": _Option("Write a merge revision with both heads as its parents", "none; for branches that any database may have had", fork_ways.merge),
    "reparent": _Option("Put the unreleased branch after the other", "it must be applied nowhere: name other databases in also", fork_ways.reparent),
    "stub": _Option("Write an empty revision in place of the lost one", "what the lost revision did is missing in every database that is built anew", lost_ways.stub),
}  # fmt: skip
OPTIONS = tuple(_OPTIONS)
