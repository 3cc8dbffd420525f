"""Where a live catalog is not what its history makes, and which operation each difference belongs to.  Pure.

Each facet of the expected catalog was set by an operation; so a difference is of that operation, or of nobody: out of band.  What
an operation set and nothing of which is there never ran, or was taken back; what was set and is otherwise now was changed since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mend.change.belonging import holders
from mend.database import names
from mend.database.catalog import ROLE_KINDS, Change
from mend.replays.compare import level
from mend.replays.expected import Expected, Facets, Key, Step

NEVER_RAN, CHANGED, OUT_OF_BAND, PENDING, BASE, OTHER = (
    "never ran",
    "changed since",
    "out of band",
    "pending",
    "base",
    "other",
)

#: What an attribution means, for who reads the report.
MEANINGS = {
    NEVER_RAN: "nothing that this operation set is there: it never ran, or somebody took it back",
    CHANGED: "this operation ran, and somebody has changed since what it set",
    OUT_OF_BAND: "no operation of the history makes it: it was made by hand",
    PENDING: "a revision that is not recorded yet has made it already",
    BASE: "it was there before the first revision that was replayed",
    OTHER: "the other database has it otherwise, and no operation of this history tells why",
}


@dataclass(frozen=True)
class Difference:
    """One facet that is not as expected; None: it is not there.  ``index``: the operation's number in its revision; 0: of none."""

    kind: str
    identity: str
    expected: str | None
    live: str | None
    revision: str
    index: int
    attribution: str
    says: str = ""

    @property
    def key(self) -> Key:
        """What it is about."""
        return (self.kind, self.identity)

    @property
    def name(self) -> str:
        """How an operator names it."""
        return f"{self.kind} {self.identity}"

    def reverting(self) -> Change:
        """From live to expected."""
        return Change(self.kind, self.identity, self.live, self.expected)

    @property
    def object(self) -> str:
        """The table, view, type or routine that it is a part of."""
        found = [one for one in holders(self.kind, self.identity, self.live or self.expected or "") if one]
        return min(found, key=lambda one: (len(names.split(one)), one)) if found else self.identity

    def as_record(self) -> dict[str, str | int | None]:
        """Plain JSON values, the keys that ``--json`` promises."""
        return {
            "kind": self.kind, "identity": self.identity, "expected": self.expected, "live": self.live,
            "revision": self.revision or None, "index": self.index or None, "attribution": self.attribution,
        }  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """How many differences there are to what the first so many revisions make; ``heads``: the version rows that would say so."""

    revisions: int
    steps: int
    differences: int


@dataclass(frozen=True)
class Ran:
    """What is there of one revision's operations, by what they set last: none of it, some of it, or it all."""

    revision: str
    operations: int
    never_ran: tuple[int, ...]
    changed: tuple[int, ...]
    traced: int

    @property
    def state(self) -> str:
        """In words."""
        if self.never_ran and len(self.never_ran) == self.traced:
            return NEVER_RAN
        if self.never_ran:
            return "partly there"
        return CHANGED if self.changed else "as recorded" if self.traced else "no trace of its own"


@dataclass(frozen=True)
class Drift:
    """The comparison of one live catalog with a history.

    ``at``: how many of the history's steps the expected catalog includes.  ``cross``: the two come from servers of different versions.
    ``apart``: schemas, unquoted, that are another project's business.
    """

    expected: Expected
    wanted: Facets
    live: Facets
    at: int
    cross: bool = False
    roles: bool = True
    ignored: frozenset[str] = frozenset()
    other: bool = False
    apart: frozenset[str] = frozenset()

    @cached_property
    def set_by(self) -> dict[Key, Step]:
        """The last step before ``at`` that touched a facet."""
        return {(c.kind, c.identity): step for step in self.expected.steps[: self.at] for c in step.changes}

    @cached_property
    def made(self) -> Facets:
        """What the history makes, whatever the live catalog is compared with."""
        return at(self.expected, self.at)

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Every facet that differs, attributed; sorted by object, then kind."""
        keys = [
            key
            for key in self.wanted.keys() | self.live.keys()
            if self._differs(key, self.wanted.get(key), self.live.get(key))
        ]
        found = [self._attributed(key) for key in keys]
        return tuple(sorted(found, key=lambda one: (one.object, one.kind, one.identity)))

    @cached_property
    def never_ran(self) -> frozenset[int]:
        """Steps that left no trace: of what they set last, nothing is as they set it, and all is as before."""
        return frozenset(
            n for n in self._own if self._of_step[n] and all(self._untouched(key, n) for key in self._of_step[n])
        )

    @property
    def _own(self) -> range:
        return range(self.at)

    @cached_property
    def _of_step(self) -> dict[int, list[Key]]:
        """What each step set last, roles left out: they say little about whether it ran."""
        found: dict[int, list[Key]] = {n: [] for n in self._own}
        for key, step in self.set_by.items():
            if key[0] not in ROLE_KINDS:
                found[step.place.at].append(key)
        return found

    def _untouched(self, key: Key, n: int) -> bool:
        live = self.live.get(key)
        before, after = next((c.before, c.after) for c in self.expected.steps[n].changes if (c.kind, c.identity) == key)
        if self._same(key, after, live):
            return False
        return self._same(key, before, live) or live is None  # what it was made from is gone too

    @cached_property
    def _ahead(self) -> dict[tuple[Key, str | None], Step]:
        """What pending steps set: of those up to the revision that fits best what each facet was set to last, of others those that are wholly there."""
        steps, best = self.expected.steps, self.best
        ran = max(best.steps, self.at) if best else self.at
        last = {(c.kind, c.identity): (c.after, step) for step in steps[self.at : ran] for c in step.changes}
        found = {(key, after): step for key, (after, step) in last.items()}
        for step in steps[ran:]:
            mine = [c for c in step.changes if c.kind not in ROLE_KINDS]
            if mine and all(
                self._same((c.kind, c.identity), c.after, self.live.get((c.kind, c.identity))) for c in mine
            ):
                for c in step.changes:
                    found.setdefault(((c.kind, c.identity), c.after), step)
        return found

    def _attributed(self, key: Key) -> Difference:
        expected, live = self.wanted.get(key), self.live.get(key)
        if ahead := self._ahead.get((key, live)):
            return Difference(*key, expected, live, ahead.place.revision, ahead.place.operation, PENDING, ahead.says)
        step = self.set_by.get(key)
        if step is not None and self.other and self._same(key, self.made.get(key), live):
            return Difference(*key, expected, live, step.place.revision, step.place.operation, OTHER, step.says)
        if step is not None:
            word = NEVER_RAN if step.place.at in self.never_ran else CHANGED
            return Difference(*key, expected, live, step.place.revision, step.place.operation, word, step.says)
        word = OTHER if self.other else BASE if key in self.expected.base else OUT_OF_BAND
        return Difference(*key, expected, live, "", 0, word)

    def _differs(self, key: Key, expected: str | None, live: str | None) -> bool:
        return self._counts(key, expected) and not self._same(key, expected, live)

    def _same(self, key: Key, expected: str | None, live: str | None) -> bool:
        return expected == live or (
            self.cross and level(key[0], expected, cross=True) == level(key[0], live, cross=True)
        )

    def _counts(self, key: Key, expected: str | None) -> bool:
        """What the server has beyond the schema is another question: settings, and which version of an extension."""
        kind, identity = key
        if self.apart and schemas(kind, identity, expected or self.live.get(key) or "") & self.apart:
            return False
        if kind in ROLE_KINDS:
            return self.roles and not holders(kind, identity, "") & self.ignored
        if kind == "extension":
            return expected is not None and self.live.get(key) is None
        if kind == "setting":
            return expected is not None and expected != self.expected.base.get(key)
        return not ({identity} | holders(kind, identity, expected or self.live.get(key) or "")) & self.ignored

    @cached_property
    def fits(self) -> tuple[Fit, ...]:
        """How well the live catalog fits after each revision that was replayed, from none on; only one where they are interleaved."""
        e = self.expected
        ends = {step.place.revision: n + 1 for n, step in enumerate(e.steps)}
        order = [e.ran.index(step.place.revision) for step in e.steps]
        if order != sorted(order) or self.other:
            return ()
        state: dict[Key, str | None] = dict(e.base)
        keys = state.keys() | self.live.keys()
        count = sum(self._unfit(key, state.get(key)) for key in keys)
        found, done = [Fit(0, 0, count)], 0
        for n, revision in enumerate(e.ran, 1):
            for step in e.steps[done : ends.get(revision, done)]:
                for c in step.changes:
                    key = (c.kind, c.identity)
                    count += self._unfit(key, c.after) - self._unfit(key, state.get(key))
                    state[key] = c.after
            done = max(done, ends.get(revision, done))
            found.append(Fit(n, done, count))
        return tuple(found)

    def _unfit(self, key: Key, expected: str | None) -> bool:
        """Roles say nothing about how far a history came."""
        return key[0] not in ROLE_KINDS and self._differs(key, expected, self.live.get(key))

    @property
    def best(self) -> Fit | None:
        """The revision after which it fits best; of equals, the one that is recorded, else the latest."""
        if not self.fits:
            return None
        fewest = min(fit.differences for fit in self.fits)
        good = [fit for fit in self.fits if fit.differences == fewest]
        return next((fit for fit in good if fit.revisions == self.expected.own), good[-1])

    @cached_property
    def revisions(self) -> tuple[Ran, ...]:
        """What is there of each revision."""
        found = []
        touched = {(d.revision, d.index) for d in self.differences if d.attribution == CHANGED}
        for revision in dict.fromkeys(step.place.revision for step in self.expected.steps[: self.at]):
            steps = [n for n in self._own if self.expected.steps[n].place.revision == revision]
            lost = [self.expected.steps[n].place.operation for n in steps if n in self.never_ran]
            altered = [
                self.expected.steps[n].place.operation
                for n in steps
                if (revision, self.expected.steps[n].place.operation) in touched
            ]
            found.append(
                Ran(revision, len(steps), tuple(lost), tuple(altered), sum(bool(self._of_step[n]) for n in steps))
            )
        return tuple(found)


def schemas(kind: str, identity: str, definition: str) -> set[str]:
    """The schemas, unquoted, that a facet lies in or is about."""
    found = {names.split(one) for one in {identity} | holders(kind, identity, definition)}
    whole = kind == "schema" or (kind in ("owner", "grant", "comment") and identity.startswith("schema "))
    within = re.search(r" in (\S+) on ", identity) if kind == "default_privilege" else None
    return {names.unquoted(parts[0]) for parts in found if whole or len(parts) > 1} | {
        names.unquoted(m[1]) for m in [within] if m
    }


def at(expected: Expected, steps: int) -> dict[Key, str]:
    """The catalog after so many steps."""
    if steps == len([step for step in expected.steps if step.own]):
        return dict(expected.facets)
    state: dict[Key, str | None] = dict(expected.base)
    state.update({(c.kind, c.identity): c.after for step in expected.steps[:steps] for c in step.changes})
    return {key: text for key, text in state.items() if text is not None}


def as_role(expected: Facets, *, scratch: str, migrator: str) -> dict[Key, str]:
    """Facets of the scratch server with its own role's name replaced by the one that runs the migrations here."""
    if scratch == migrator:
        return dict(expected)
    pattern = re.compile(rf"(?<= to ){re.escape(scratch)}$|(?<=^for ){re.escape(scratch)}(?= )")
    found: dict[Key, str] = {}
    for (kind, identity), text in expected.items():
        if kind in ROLE_KINDS:
            found[kind, pattern.sub(migrator, identity)] = migrator if kind == "owner" and text == scratch else text
        else:
            found[kind, identity] = text
    return found


def migrator(expected: Facets, live: Facets, *, scratch: str) -> str:
    """The role that owns here what scratch's own role owns there: that of most of the objects."""
    owners: dict[str, int] = {}
    for key, owner in expected.items():
        if key[0] == "owner" and owner == scratch and key in live:
            owners[live[key]] = owners.get(live[key], 0) + 1
    return max(owners, key=lambda one: (owners[one], one)) if owners else scratch


def heads(ran: Sequence[str], parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The version rows that say that exactly these revisions are applied."""
    below = {parent for one in ran for parent in parents.get(one, ())}
    return tuple(one for one in ran if one not in below)
