"""What branches do to each other: walked in both orders from where they parted, in scratch databases, and compared.

Each head is one walk: a database at that head, then on to the end.  So the same walks tell which objects both branches touch, whether
the order matters, and whether the upgrade from every head arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

from mend.conflict import walks
from mend.conflict.walks import Trip, Walked, Walker
from mend.database import names
from mend.database.catalog import ROLE_KINDS, Change
from mend.errors import ReplayFailed
from mend.histories import graph
from mend.histories.history import History
from mend.repairs import halfway
from mend.repairs.steps import Facets, net
from mend.replays import scratch
from mend.replays.scratch import Scratch


@dataclass(frozen=True)
class Branch:
    """What only one head comes after, and the walk that ran it first."""

    head: str
    revisions: tuple[str, ...]
    walked: Walked

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the branch changes by itself: first state to last of every object; owners and privileges left out."""
        found = (c for one in self.revisions for c in self.walked.changes.get(one, ()))
        return tuple(c for c in net(found) if c.kind not in ROLE_KINDS)

    def revision_of(self, identity: str) -> str:
        """The last of its revisions that changed an object."""
        touched = [
            one for one in self.revisions if any(c.identity == identity for c in self.walked.changes.get(one, ()))
        ]
        return touched[-1] if touched else ""


@dataclass(frozen=True)
class Meeting:
    """Branches that parted at ``base`` and end at ``end``; ``warnings``: how sure the answer is."""

    base: tuple[str, ...]
    end: str
    branches: tuple[Branch, ...]
    warnings: tuple[str, ...] = ()

    @cached_property
    def shared(self) -> tuple[tuple[str, str, Mapping[str, str]], ...]:
        """(kind, identity, {head: how}) of every object that several branches change, and every relation that several work on."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for branch in self.branches:
            for change in branch.changes:
                keys = [(change.kind, change.identity), ("relation", halfway.relation_of(change))]
                for key in dict.fromkeys(key for key in keys if key[1]):
                    said = f"{branch.revision_of(change.identity)}: {_told(change)}"
                    line = found.setdefault(key, {})
                    line[branch.head] = f"{line[branch.head]}; {said}" if branch.head in line else said
        both = {key: line for key, line in found.items() if len(line) > 1}
        exact = {key for key in both if key[0] != "relation"}
        return tuple((*key, line) for key, line in sorted(both.items()) if key[0] == "relation" or key in exact)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why an upgrade from a head does not arrive."""
        return tuple(
            f"from {one.head}: revision {one.walked.failed_at or '(env.py)'} fails: {one.walked.error}"
            for one in self.branches
            if one.walked.error
        )

    @cached_property
    def differences(self) -> tuple[tuple[str, str, Mapping[str, str | None]], ...]:
        """(kind, identity, {head it came from: definition}) of every object that is not the same at all ends."""
        ends = {one.head: end.catalog for one in self.branches if (end := one.walked.at(self.end))}
        keys = sorted({key for found in ends.values() for key in found})
        return tuple(
            (*key, {head: found.get(key) for head, found in ends.items()})
            for key in keys
            if key[0] not in ROLE_KINDS and len({found.get(key) for found in ends.values()}) > 1
        )

    @property
    def proven(self) -> bool:
        """Whether the upgrade from every head arrives, at the same version rows and the same catalog."""
        ends = [one.walked.at(self.end) for one in self.branches]
        rows = {end.versions for end in ends if end}
        return bool(ends) and all(ends) and len(rows) == 1 and not self.differences


def _told(change: Change) -> str:
    what = f"{change.kind} {change.identity}"
    if change.before is None:
        return f"adds {what}"
    return f"drops {what}" if change.after is None else f"changes {what} to {str(change.after)[:80]}"


@dataclass(frozen=True)
class Ground:
    """Where scratch databases come from: a server, and the live database's address where its schema may be copied."""

    server: Scratch
    live: Mapping[str, str] | None = None
    rows: tuple[str, ...] = ()


def meet(walker: Walker, past: History, heads: Sequence[str], *, end: str, ground: Ground) -> Meeting:
    """Walk from each head to ``end``, a revision that comes after all of them, or ``heads``.

    ``past`` is the history as the walker reads it.  Raises: ScratchUnavailable, ReplayFailed, ProjectBroken.
    """
    base = graph.tips(past, _shared_ground(past, heads))
    mine = {head: graph.own(past, head, heads) for head in heads}
    place = walker.kept("meet", [sorted(heads), end, list(base), list(ground.rows)], ground.server)
    kept = walks.load(place)
    if kept is None:
        made, warnings = _walk_all(walker, base, mine, end, ground)
        walks.save(place, list(made.values()), warnings)
        kept = list(made.values()), warnings
    branches = tuple(Branch(head, mine[head], one) for head, one in zip(mine, kept[0], strict=True))
    return Meeting(base, end, branches, tuple(kept[1]))


def _shared_ground(past: History, heads: Sequence[str]) -> set[str]:
    """What every head needs first: ancestors of all, dependencies counted."""
    sets = [past.ancestors([head]) for head in heads]
    return set.intersection(*sets) if sets else set()


def _walk_all(
    walker: Walker, base: tuple[str, ...], mine: Mapping[str, tuple[str, ...]], end: str, ground: Ground
) -> tuple[dict[str, Walked], list[str]]:
    """One walk to the base, then one for each head, each in a copy of the database at the base."""
    with ground.server as server, ExitStack() as stack:
        first = stack.enter_context(server.database())
        trips = [Trip(first, (), base), *_trips(first, base, mine, end)]

        def ready(number: int) -> None:
            if number:
                name = trips[number].scratch["dbname"]
                stack.enter_context(server.database(like=first["dbname"], name=name))

        begun, *found = walker.walk(trips, ready=ready)
        if begun.error:
            return _from_live(walker, base, mine, end, ground, begun)
    return dict(zip(mine, found, strict=True)), [server.warning] if server.warning else []


def _trips(
    place: Mapping[str, str], base: tuple[str, ...], mine: Mapping[str, tuple[str, ...]], end: str
) -> list[Trip]:
    """A database of its own for each head; with one head alone, nothing is compared."""
    alone = len(mine) == 1
    return [
        Trip({**place, "dbname": scratch.new_name()}, base, (head, end), () if alone else watched)
        for head, watched in mine.items()
    ]


def _from_live(
    walker: Walker,
    base: tuple[str, ...],
    mine: Mapping[str, tuple[str, ...]],
    end: str,
    ground: Ground,
    begun: Walked,
) -> tuple[dict[str, Walked], list[str]]:
    """The history does not run from nothing: from a copy of the live schema, where the live database stands at the base.

    Raises: ReplayFailed where it stands elsewhere: then no database is at the other heads.
    """
    why = f"the history does not run from an empty database: revision {begun.failed_at or '(env.py)'}: {begun.error}"
    if ground.live is None or set(ground.rows) != set(base):
        raise ReplayFailed(
            f"The branches cannot be compared: {why}, and the live database is not where they part. The target was not touched. "
            "Name a base with `base =` and `base_revision =` in mend.toml."
        )
    found: dict[str, Walked] = {}
    for head, watched in mine.items():
        with ground.server.database() as place:
            scratch.copy_schema(ground.live, place, major=ground.server.major)
            (found[head],) = walker.walk([Trip(place, base, (head, end), watched)])
    return found, [why, "the branches were walked on copies of the live schema"]


def expected(walker: Walker, revisions: Sequence[str], *, ground: Ground) -> Mapping[str, Facets]:
    """The catalog that a replay of the history expects at each of these revisions; those it cannot come to are left out.

    Raises: ScratchUnavailable, ProjectBroken.
    """
    place = walker.kept("expected", [list(revisions)], ground.server)
    kept = walks.load(place)
    if kept is None:
        with ground.server as server, server.database() as first:
            kept = walker.walk([Trip(first, (), revisions)]), []
        walks.save(place, kept[0], [])
    return {one.stop: one.catalog for one in kept[0][0].arrivals}


def lacking(expects: Facets, live: Facets, *, ignore: str) -> list[Change]:
    """What is not as a replay expects it, from expected to live; the version table and who may do what are left out."""
    keys = sorted(expects.keys() | live.keys())
    return [
        Change(*key, expects.get(key), live.get(key))
        for key in keys
        if expects.get(key) != live.get(key) and key[0] not in ROLE_KINDS and not names.of_version_table(ignore, key[1])
    ]
