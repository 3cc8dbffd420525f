"""What hangs, here, on what a way down takes away or alters; and what an earlier one left behind.  Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mend.change import ddl
from mend.change.kept import Facets
from mend.database.catalog import Change
from mend.diagnosis import Site
from mend.replays.downgrades import Proven
from mend.rollback import dependents
from mend.rollback.dependents import Key, Mention, Walk
from mend.rollback.pieces import Piece, altered, facets_of, gone, held, says_cascade, settings_reset


@dataclass(frozen=True)
class Hanging:
    """A dependent in the way: of which revision's piece, and what it needs.  ``cascade``: plain alembic would drop it without a word."""

    kind: str
    identity: str
    revision: str
    start: Key
    on: tuple[Key, ...]
    cascade: bool = False

    @property
    def key(self) -> Key:
        """What it is."""
        return (self.kind, self.identity)


class Hung:
    """What hangs, here, on what the pieces take away or alter."""

    def __init__(self, site: Site, live: Facets, pieces: Sequence[Piece]) -> None:
        self.live, self.pieces, self.held = live, pieces, held(live)
        starts = [key for p in pieces for key in (*gone(p.changes), *altered(p.changes))]
        with site.target.reading(site.run_id) as conn:
            self.walk: Walk = dependents.walk(conn, starts)
        with site.target.reading(site.run_id) as conn:
            self.mentions = dependents.named_in_bodies(conn, [key for p in pieces for key in gone(p.changes)])

    def with_silent(self, piece: Piece) -> Piece:
        """The piece with what goes along here and did not in scratch: an index made by hand, a check, a column, a grant, a comment."""
        own = {(c.kind, c.identity) for c in piece.changes}
        dropped = self._gone_by(piece)
        more = {
            one: None
            for start in gone(piece.changes)
            for one in self.walk.below(start)
            if self.walk.goes_along(one, start) and one not in own | dropped and one in self.live
        }
        along = facets_of([*gone(piece.changes), *more], self.live, self.held)
        reset = [(key, self.live[key]) for key in settings_reset(piece.changes) if key in self.live]
        silent = tuple(Change(*key, text, None) for key, text in (*along, *reset) if key not in own | dropped)
        changes = (*piece.changes, *silent)
        return Piece(piece.revision, piece.says, piece.texts, changes, piece.statement, silent, piece.lacking)

    def _gone_by(self, piece: Piece) -> set[Key]:
        """What the pieces before this one took away."""
        before = self.pieces[: self.pieces.index(piece)]
        return {(c.kind, c.identity) for p in before for c in p.changes if c.after is None}

    def hanging(self) -> tuple[Hanging, ...]:
        """What is in the way, each after what it depends on; what downgrade() itself takes away before is not."""
        found: dict[Key, Hanging] = {}
        taken: set[Key] = set()
        for piece in self.pieces:
            taken |= {(c.kind, c.identity) for c in piece.changes if c.after is None}
            starts = [(key, False) for key in gone(piece.changes)] + [(key, True) for key in altered(piece.changes)]
            for start, is_altered in starts:
                for one in self.walk.below(start, altered=is_altered):
                    if one in taken or one in found or (not is_altered and self.walk.goes_along(one, start)):
                        continue
                    if self._along_with_found(one, found) or one not in self.live:
                        continue
                    cascade = piece.statement is not None and says_cascade(piece.statement.sql) and not is_altered
                    found[one] = Hanging(*one, piece.revision, start, self.walk.on.get(one, ()), cascade)
        return tuple(found.values())

    def _along_with_found(self, one: Key, found: Mapping[Key, Hanging]) -> bool:
        """Whether it is a part of something in the way: the index of a materialized view goes and comes with that."""
        mine = ddl.holders(*one, self.live.get(one, ""))
        return any(identity in mine for _, identity in found)


def leftovers(made: Proven, live: Facets) -> tuple[tuple[tuple[str, Change], ...], dict[str, str]]:
    """What is here of revisions that are not applied: what their downgrade() leaves behind; and which of them ran by half."""
    found: list[tuple[str, Change]] = []
    half: dict[str, str] = {}
    for revision in made.above:
        proof = made.proofs[revision]
        left = {(c.kind, c.identity) for c in proof.left if c.before is None and c.after is not None}
        there = [c for c in proof.made if c.before is None and (c.kind, c.identity) in live]
        others = [c for c in there if (c.kind, c.identity) not in left and ddl.is_object(c.kind)]
        if others:
            half[revision] = f"{others[0].kind} {others[0].identity}"
        for c in there:
            if (c.kind, c.identity) in left:
                found.append((revision, Change(c.kind, c.identity, None, live[c.kind, c.identity])))
    return tuple(found), half


def spoken_of(site: Site, leftovers: Sequence[tuple[str, Change]]) -> tuple[Mention, ...]:
    """Functions whose text names what was left behind: nothing but reading them tells whether they use it."""
    with site.target.reading(site.run_id) as conn:
        return dependents.named_in_bodies(conn, [(c.kind, c.identity) for _, c in leftovers])


def used(site: Site, leftovers: Sequence[tuple[str, Change]]) -> dict[Key, tuple[Key, ...]]:
    """What depends on what was left behind."""
    starts = [(c.kind, c.identity) for _, c in leftovers if c.kind in dependents.DROPPED]
    with site.target.reading(site.run_id) as conn:
        walked = dependents.walk(conn, starts)
    own = set(starts)
    found = {start: tuple(one for one in walked.below(start) if one not in own and not walked.goes_along(one, start)) for start in starts}  # fmt: skip
    return {start: users for start, users in found.items() if users}
