"""What hangs on objects that are to go: in the way of a RESTRICT, going along without a word, or named in a function's text.

`walk` asks PostgreSQL's own dependencies, at any remove; `named_in_bodies` reads what it does not track, and so only guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from mend.database import names, queries, sqltext

if TYPE_CHECKING:
    from sqlalchemy import Connection

Key = tuple[str, str]

#: Kinds that can be a start, and those that keep a column from changing its type (0A000).
DROPPED = frozenset(
    (
        "table",
        "foreign_table",
        "column",
        "view",
        "matview",
        "sequence",
        "index",
        "constraint",
        "function",
        "aggregate",
        "enum",
        "domain",
        "composite",
        "range",
        "schema",
        "extension",
    )
)
KEEPS_TYPE = frozenset(("view", "matview", "rule", "policy", "trigger", "column", "function"))


@dataclass(frozen=True)
class Walk:
    """The objects that were reached: ``on`` has what each depends on directly; ``free``: what goes along when the starts go."""

    on: Mapping[Key, tuple[Key, ...]] = field(default_factory=dict)
    free: frozenset[Key] = frozenset()

    def below(self, start: Key, *, altered: bool = False) -> tuple[Key, ...]:
        """What depends on one object, at any remove, each after what it depends on; of an altered column only what minds its type."""
        found: dict[Key, None] = {}
        todo = [one for one in self.direct(start) if not altered or one[0] in KEEPS_TYPE]
        while todo:
            one = todo.pop(0)
            if one not in found and one != start:
                found[one] = None
                todo += self.direct(one)
        return self._ordered(set(found))

    def _ordered(self, found: set[Key]) -> tuple[Key, ...]:
        """Each after what it depends on, of those that were found."""
        done: dict[Key, None] = {}
        waiting = sorted(found)
        while waiting:
            ready = [one for one in waiting if all(on in done or on not in found or on == one for on in self.on[one])]
            done.update(dict.fromkeys(ready or waiting))
            waiting = [one for one in waiting if one not in done]
        return tuple(done)

    def direct(self, key: Key) -> Sequence[Key]:
        """What depends on an object itself."""
        return self._users.get(key, [])

    @cached_property
    def _users(self) -> Mapping[Key, list[Key]]:
        found: dict[Key, list[Key]] = {}
        for one, on in self.on.items():
            for key in on:
                found.setdefault(key, []).append(one)
        return found

    def goes_along(self, key: Key, start: Key) -> bool:
        """Whether an object depends on the start by automatic dependencies alone."""
        seen, todo = set(), [key]
        while todo:
            one = todo.pop()
            if one == start:
                return True
            if one in self.free and one not in seen:
                seen.add(one)
                todo += self.on.get(one, ())
        return False


def walk(conn: Connection, starts: Iterable[Key]) -> Walk:
    """Everything that depends on these objects; those that are not there count for nothing.

    Reads: the catalogs.  Writes: nothing.  Locks: none beyond ACCESS SHARE on catalogs.
    """
    asked = [(kind, *_parts(kind, identity)) for kind, identity in sorted(set(starts)) if kind in DROPPED]
    if not asked:
        return Walk()
    kinds, schemas, relations, parts = (list(column) for column in zip(*asked, strict=True))
    frame = queries.frame(
        conn, "rollback_failure/dependents", kinds=kinds, schemas=schemas, names=relations, parts=parts
    )
    rows = list(frame.itertuples())
    known = {(row[4], row[5], row[6]): (str(row.kind), str(row.identity)) for row in rows}
    on: dict[Key, dict[Key, None]] = {}
    for row in rows:
        key = (str(row.kind), str(row.identity))
        for part in {0, row.on_part}:
            needed = known.get((row.on_class, row.on_object, part))
            if needed is not None and needed != key:
                on.setdefault(key, {})[needed] = None
    free = {(str(row.kind), str(row.identity)) for row in rows if row.free}
    return Walk({key: tuple(sorted(needs)) for key, needs in sorted(on.items())}, frozenset(free & on.keys()))


def _parts(kind: str, identity: str) -> tuple[str, str, str]:
    """Schema, name and the rest, unquoted, of an identity; a function's arguments are the rest."""
    pieces = names.split(identity)
    if kind in ("schema", "extension"):
        return "", names.unquoted(identity), ""
    if kind in ("function", "aggregate"):
        head = names.bare(identity)
        name = names.last(head)
        arguments = names.last(identity)[len(name) :]
        return names.unquoted(pieces[0]), names.unquoted(name), arguments[1:-1]
    rest = names.unquoted(pieces[2]) if len(pieces) > 2 else ""
    return names.unquoted(pieces[0]), names.unquoted(pieces[1]), rest


@dataclass(frozen=True)
class Mention:
    """A function whose text names what is to go.  Nobody can be sure: the name may stand for something else, or be made at run time."""

    function: str
    language: str
    object: str
    says: str


_SPOKEN_OF = frozenset(
    ("table", "column", "view", "matview", "function", "sequence", "enum", "domain", "composite", "range")
)


def named_in_bodies(conn: Connection, starts: Sequence[Key]) -> tuple[Mention, ...]:
    """Functions that PostgreSQL keeps as text and that name one of these tables, views, functions, types or columns.

    Of a column, its name and that of its table must both stand there.  Reads: the catalogs.
    """
    wanted = [key for key in starts if key[0] in _SPOKEN_OF]
    if not wanted:
        return ()
    words = sorted({names.unquoted(names.last(names.bare(identity))) for _, identity in wanted})
    found = []
    for row in queries.frame(conn, "rollback_failure/bodies", words=words).itertuples():
        spoken, quoted = _words(str(row.body))
        for kind, identity in wanted:
            if (kind, identity) == ("function", row.identity):
                continue
            needed = {names.unquoted(names.last(names.bare(identity)))}
            if kind == "column":
                needed.add(names.unquoted(names.last(names.parent(identity))))
            if needed <= spoken:
                says = "its text names it"
            elif needed <= spoken | quoted:
                says = "a string in its text holds the name"
            else:
                continue
            found.append(Mention(str(row.identity), str(row.language), f"{kind} {identity}", says))
    return tuple(found)


def _words(body: str) -> tuple[set[str], set[str]]:
    """The names in a text as PostgreSQL folds them: outside of strings and comments, and inside of strings.

    >>> sorted(_words("select Email from t -- c")[0]), sorted(_words("execute 'drop x'")[1])
    (['email', 'from', 'select', 't'], ['drop', 'x'])
    """
    bare = sqltext.without_comments(body)
    spoken: set[str] = set()
    quoted: set[str] = set()
    for token in names.TOKEN.finditer(bare):
        if token.lastgroup == "name":
            text = token[0]
            spoken.add(names.unquoted(text) if text.startswith('"') else text.lower())
        elif token.lastgroup == "string":
            inner = token[0][token[0].index("'") + 1 : -1]
            quoted |= {
                t[0].strip('"') if t[0].startswith('"') else t[0].lower()
                for t in names.TOKEN.finditer(inner)
                if t.lastgroup == "name"
            }
    return spoken, quoted
