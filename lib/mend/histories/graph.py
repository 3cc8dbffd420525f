"""The revision graph as values: what each revision is in it, which heads belong together, and what of it is worth drawing.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from mend.histories.history import History

if TYPE_CHECKING:
    import pandas

COLUMNS = ["revision", "down_revision", "is", "depends_on", "labels", "problem", "file", "doc"]
MOST_DRAWN = 46  # vertices; of more no letter could be read


@dataclass(frozen=True)
class Vertex:
    """One thing to draw: a revision, a missing one, or ``count`` revisions in a row that need no words."""

    id: str
    kinds: frozenset[str]
    parents: tuple[str, ...]
    depends: tuple[str, ...] = ()
    doc: str = ""
    count: int = 1


@dataclass(frozen=True)
class Picture:
    """A graph to draw, parents first; ``left_out`` says in words what is not drawn."""

    vertices: tuple[Vertex, ...]
    left_out: str = ""


def below(past: History, revision: str) -> set[str]:
    """Every revision below one by down_revision alone."""
    found: set[str] = set()
    left = list(_down(past, revision))
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += _down(past, one)
    return found


def _down(past: History, revision: str) -> tuple[str, ...]:
    one = past.revisions.get(revision)
    return tuple(p for p in one.down if p in past.revisions) if one else ()


def children(past: History) -> dict[str, list[str]]:
    """Parent (also one that has no file) -> the revisions that name it as their parent."""
    found: dict[str, list[str]] = {}
    for one in past.files:
        for parent in one.down:
            found.setdefault(parent, []).append(one.id)
    return {parent: sorted(set(those)) for parent, those in found.items()}


def kinds(past: History) -> dict[str, frozenset[str]]:
    """What each revision is: head, branch point, merge point, root; and what is wrong with it."""
    after = children(past)
    heads = set(past.heads)
    found = {}
    for one in past.files:
        is_ = {
            "head": one.id in heads,
            "branch point": len(after.get(one.id, ())) > 1,
            "merge point": len(one.down) > 1,
            "root": not one.down,
            "duplicate id": one.id in past.duplicates,
            "in a cycle": one.id in past.cycles,
            "broken": bool(one.problem),
        }
        found[one.id] = frozenset(name for name, true in is_.items() if true)
    return found


def frame(past: History) -> pandas.DataFrame:
    """One row per file, newest first: revision, down_revision, is, depends_on, labels, problem, file, doc (all str)."""
    import pandas

    of, place = kinds(past), {one: n for n, one in enumerate(past.ordered())}
    files = sorted(past.files, key=lambda one: (-place.get(one.id, len(place)), str(one.path)))
    rows = [
        (
            one.id,
            ", ".join(one.down),
            ", ".join(sorted(of[one.id] - {"broken"})),
            ", ".join(one.depends_on),
            ", ".join(one.labels),
            one.problem,
            one.path.name,
            one.doc,
        )
        for one in files
    ]
    return pandas.DataFrame(rows, columns=COLUMNS, dtype="str")


def telling(found: pandas.DataFrame) -> pandas.DataFrame:
    """The graph's rows, those first that something is to be said of."""
    said = (found["is"] != "") | (found["problem"] != "")
    worst = (found["problem"] != "") | found["is"].str.contains("head")
    order = sorted(range(len(found)), key=lambda n: (not worst.iloc[n], not said.iloc[n], n))
    return found.iloc[order].reset_index(drop=True)


def common(past: History, heads: Collection[str]) -> set[str]:
    """Revisions that every one of these heads comes after, by down_revision."""
    sets = [below(past, head) | {head} for head in heads]
    return set.intersection(*sets) if sets else set()


def tips(past: History, revisions: Collection[str]) -> tuple[str, ...]:
    """Of a set closed downwards: those that are no parent and no dependency of another, i.e. its version rows."""
    inner = {parent for one in revisions for parent in past.parents(one)}
    return tuple(one for one in past.ordered() if one in revisions and one not in inner)


def own(past: History, head: str, others: Iterable[str]) -> tuple[str, ...]:
    """What only this head comes after (itself included), parents first."""
    elsewhere = set().union(*(below(past, other) | {other} for other in others if other != head))
    mine = (below(past, head) | {head}) - elsewhere
    return tuple(one for one in past.ordered() if one in mine)


def apart_by_accident(past: History) -> tuple[tuple[str, ...], ...]:
    """Heads that nobody meant to stand apart, in groups that grew from the same revision.

    Meant are: a branch with a label of its own, one with a root of its own, and one that another only depends on.
    """
    plain = [head for head in past.heads if not _labelled(past, head)]
    groups: list[set[str]] = []
    for one, other in combinations(plain, 2):
        if common(past, (one, other)) and past.depends_apart(one, other):
            touching = [group for group in groups if one in group or other in group]
            groups = [group for group in groups if group not in touching]
            groups.append({one, other}.union(*touching))
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def _labelled(past: History, head: str) -> bool:
    """Whether the part of the graph that only this head has carries a label."""
    return any(past.revisions[one].labels for one in own(past, head, past.heads))


def picture(past: History, rows: Collection[str], *, also: Collection[str] = ()) -> Picture:
    """What to draw: the part near heads, version rows and problems one by one, straight runs elsewhere as one vertex.

    ``rows``: the version rows; one that no file has stands by itself.  ``also``: revisions to draw by name.
    """
    of = kinds(past)
    missing = sorted(
        {p for lacking in past.missing_parents.values() for p in lacking} | {r for r in rows if r not in past.revisions}
    )
    apart = _apart(past)
    named = {one for one, is_ in of.items() if is_ & {"head", "duplicate id", "in a cycle", "broken"}}
    named |= {one for one in (*rows, *also) if one in past.revisions} | apart
    named |= {p for one in named for p in past.parents(one)} | {c for m in missing for c in children(past).get(m, ())}
    named = _at_most(past, named, of, rows)
    turning = named | ({one for one, is_ in of.items() if is_ & {"branch point", "merge point"}} & apart)
    runs = _runs(past, turning)
    vertices = [_vertex(past, run, runs, of, rows) for run in dict.fromkeys(runs.values())]
    gone = [Vertex(one, frozenset({"missing"} | ({"row"} if one in rows else set())), ()) for one in missing]
    hidden = sum(v.count for v in vertices if v.count > 1)
    said = f"{hidden:,} of {len(past.revisions):,} revisions are not drawn one by one." if hidden else ""
    return Picture((*gone, *vertices), said)


def _apart(past: History) -> set[str]:
    """What some heads come after and others do not, of heads that have anything in common."""
    found: set[str] = set()
    left = list(past.heads)
    while left:
        together = [one for one in left if common(past, (left[0], one))]
        left = [one for one in left if one not in together]
        if len(together) > 1:
            every = set().union(*(below(past, one) | {one} for one in together))
            found |= every - common(past, together)
    return found


def _at_most(past: History, named: set[str], of: dict[str, frozenset[str]], rows: Collection[str]) -> set[str]:
    """The most telling of them: problems, rows and heads first, then the newest."""
    place = {one: n for n, one in enumerate(past.ordered())}
    telling_ = {"duplicate id", "in a cycle", "broken", "head"}
    ranked = sorted(named, key=lambda one: (not (of[one] & telling_ or one in rows), -place[one]))
    return set(ranked[: MOST_DRAWN // 2])


def _runs(past: History, named: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Each revision -> what it is drawn with: itself alone, or others that hang together with nothing named between them."""
    piece: dict[str, str] = {}
    closed: set[str] = set()  # pieces that something named comes after: more must not be added above that
    for one in past.ordered():
        parents = [p for p in past.parents(one) if p in piece]
        near = {piece[p] for p in parents}
        if one in named or near & closed or any(p in named for p in parents) or not parents:
            piece[one] = one
            closed |= near if one in named else set()
            continue
        root = min(near)
        piece[one] = root
        piece.update({other: root for other, at in piece.items() if at in near})
    members: dict[str, list[str]] = {}
    for one, root in piece.items():
        members.setdefault(root, []).append(one)
    return {one: tuple(members[root]) for one, root in piece.items()}


def _vertex(
    past: History,
    run: tuple[str, ...],
    runs: dict[str, tuple[str, ...]],
    of: dict[str, frozenset[str]],
    rows: Collection[str],
) -> Vertex:
    def drawn(ids: Iterable[str]) -> tuple[str, ...]:
        there = (name_of(runs[one]) if one in runs else one for one in ids)
        return tuple(dict.fromkeys(one for one in there if one != name_of(run)))

    down = drawn(p for one in run for p in past.revisions[one].down)
    depends = drawn(past.named(p) or p for one in run for p in past.revisions[one].depends_on)
    if len(run) > 1:
        return Vertex(name_of(run), frozenset(), down, depends, count=len(run))
    (one,) = run
    marks = of[one] | ({"row"} if one in rows else frozenset())
    return Vertex(one, marks, down, depends, past.revisions[one].doc)


def name_of(run: Sequence[str]) -> str:
    """A vertex's name: the revision's id, or one that no revision has for several."""
    return run[0] if len(run) == 1 else f"{run[0]}…{run[-1]}"
