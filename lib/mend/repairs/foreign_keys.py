"""Foreign keys: what a definition says, which rows break one, and how one is made beside a busy application.  Pure.

Definitions are those of pg_get_constraintdef; names are quoted as the catalog prints them.  Keys with a period are not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mend.batches import repair
from mend.change import kept
from mend.database import names
from mend.plan import Expect, Lock, Statement, Step

Facets = Mapping[tuple[str, str], str]
NOT_VALID = " NOT VALID"


@dataclass(frozen=True)
class Key:
    """One foreign key: ``columns`` of ``table`` refer to ``keys`` of ``parent``.

    ``on_delete``: NO ACTION, RESTRICT, CASCADE, SET NULL or SET DEFAULT; ``sets``: the columns that it names (PostgreSQL 15).
    ``equals``: the operator by which each pair is compared.  ``definition`` is without NOT VALID.
    """

    identity: str
    table: str
    columns: tuple[str, ...]
    parent: str
    keys: tuple[str, ...]
    full: bool
    on_delete: str
    definition: str
    sets: tuple[str, ...] = ()
    equals: tuple[str, ...] = ()

    @property
    def refers_to_itself(self) -> bool:
        """Whether the rows refer to rows of the same table."""
        return self.table == self.parent

    def says(self) -> str:
        """In words: ``public.orders (customer_id) -> public.customers (id)``."""
        return f"{self.table} ({', '.join(self.columns)}) -> {self.parent} ({', '.join(self.keys)})"


_ON_DELETE = re.compile(r"\bON DELETE (NO ACTION|RESTRICT|CASCADE|SET NULL|SET DEFAULT)\b")


def read(identity: str, definition: str) -> Key | None:
    """The key that a definition makes; None for one with a period.

    >>> read("public.o.fk", "FOREIGN KEY (a) REFERENCES public.p(x) MATCH FULL ON DELETE CASCADE NOT VALID").says()
    'public.o (a) -> public.p (x)'
    """
    parts = names.pieces(definition)
    groups = [n for n, part in enumerate(parts) if part.startswith("(")]
    columns, keys = (names.items(parts[n]) for n in groups[:2])
    if any(len(names.pieces(one)) > 1 for one in columns):
        return None
    at = parts.index("REFERENCES") + 1
    rest = " ".join(part for part in parts[groups[1] + 1 :] if not part.startswith("("))
    action = _ON_DELETE.search(rest)
    return Key(
        identity=identity,
        table=names.parent(identity),
        columns=columns,
        parent="".join(parts[at : groups[1]]),
        keys=keys,
        full="MATCH FULL" in rest,
        on_delete=action[1] if action else "NO ACTION",
        definition=definition.removesuffix(NOT_VALID),
        sets=names.items(parts[groups[2]]) if len(groups) > 2 else (),
    )


def referring(table: str, live: Facets) -> tuple[Key, ...]:
    """The keys by which rows of any table refer to this one, its own included."""
    found = (
        read(identity, text)
        for (kind, identity), text in live.items()
        if kind == "constraint" and text.startswith("FOREIGN KEY")
    )
    return tuple(sorted((key for key in found if key and key.parent == table), key=lambda key: key.identity))


def alike(key: Key, live: Facets) -> tuple[Key, ...]:
    """Other keys over the same columns of the same table."""
    same = (
        one for one in referring(key.parent, live) if one.table == key.table and set(one.columns) == set(key.columns)
    )
    return tuple(one for one in same if one.identity != key.identity)


def primary_key(table: str, live: Facets) -> tuple[str, ...]:
    """The quoted primary key columns of a table; () where it has none."""
    return kept.primary_keys(live).get(table, ())


def rows_of(table: str, live: Facets | None) -> str:
    """What a key of this table is about: a partitioned table's partitions too, but no table that inherits from it."""
    whole = live is None or " partition by " in live.get(("table", table), " partition by ")
    return table if whole else f"only {table}"


def parents_row(key: Key, live: Facets | None, *, child: str, parent: str = "p") -> str:
    """The condition under which a row of the parent is the one that a row of the child refers to."""
    operators = key.equals or ("=",) * len(key.keys)
    pairs = zip(key.keys, operators, key.columns, strict=True)
    return " and ".join(
        f"{parent}.{own} {equals} {child}.{column}{collated(key, own, column, live)}" for own, equals, column in pairs
    )


def collated(key: Key, own: str, column: str, live: Facets | None) -> str:
    """The parent's collation decides; without a word from us PostgreSQL cannot choose between two."""
    if live is None:
        return ""
    said = [
        _named(kept.columns_of(table, live).get(name, "")) for table, name in ((key.parent, own), (key.table, column))
    ]
    return "" if said[0] == said[1] else " collate " + (said[0] or 'pg_catalog."default"')


def _named(definition: str) -> str:
    """The collation that a column's definition names; '' where it is the type's own."""
    found = re.search(r" collate (\S+|\"(?:[^\"]|\"\")*\"\.\S+)", definition)
    return found[1] if found else ""


def orphan(key: Key, live: Facets | None, *, alias: str = "t") -> str:
    """The condition under which a row breaks the key: its parent is missing or, with MATCH FULL, it is NULL in part only."""
    present = " and ".join(f"{alias}.{column} is not null" for column in key.columns)
    found = f"exists (select from {rows_of(key.parent, live)} as p where {parents_row(key, live, child=alias)})"
    if not key.full or len(key.columns) == 1:
        return f"{present} and not {found}"
    some = " or ".join(f"{alias}.{column} is not null" for column in key.columns)
    return f"({some}) and not ({present} and {found})"


def null_in_part(key: Key, *, alias: str = "t") -> str:
    """The condition under which MATCH FULL refuses a row whatever the parent holds; ``false`` where that cannot be."""
    if not key.full or len(key.columns) == 1:
        return "false"
    some, missing = (" or ".join(f"{alias}.{c} is {word}null" for c in key.columns) for word in ("not ", ""))
    return f"({some}) and ({missing})"


# -- how it is made ----------------------------------------------------------------------------------------------------

_PARTITIONED_NOT_VALID = 18  # the first major version that takes a NOT VALID key of a partitioned table


@dataclass(frozen=True)
class Making:
    """``stops``: from then on no new orphan comes in; ``proof``: the scan, and the key is valid.  Either may be empty: it is there.

    ``frees``: drops the key, whatever of it stands, for no orphan can come back under it; ``again``: puts back what stood before.
    """

    stops: tuple[Step, ...]
    proof: tuple[Step, ...]
    frees: Step
    again: tuple[Step, ...]


def making(key: Key, live: Facets, *, major: int) -> Making:
    """The steps that make a key beside a busy application, without those that are done already.

    Before PostgreSQL 18 a partitioned table takes no key that is NOT VALID: there each partition gets it and validates it, and the
    table's own key then takes theirs over without a scan.
    """
    split = " partition by " in live.get(("table", key.table), "") and major < _PARTITIONED_NOT_VALID
    places = tuple(repair.leaves(key.table, live)) if split else (key.table,)
    stood = {place: live.get(("constraint", _of(key, place))) for place in places}
    valid = live.get(("constraint", key.identity)) == key.definition
    absent = tuple(place for place, text in stood.items() if text is None and not valid)
    waiting = tuple(place for place, text in stood.items() if text != key.definition and not valid)
    frees = _frees(key, (key.table, *places) if split else places)
    found = tuple(place for place, text in stood.items() if text is not None and not valid)
    return Making(
        stops=(_stops(key, absent, frees),) if absent else (),
        proof=(
            *(_validates(key, place, split) for place in waiting),
            *([_takes_over(key, places)] if split and not valid else []),
        ),
        frees=frees,
        again=(_again(key, found, {place: str(stood[place]) for place in found}),) if found else (),
    )


def _of(key: Key, place: str) -> str:
    return f"{place}.{names.last(key.identity)}"


def _locks(mode: str, *tables: str) -> tuple[Lock, ...]:
    return tuple(Lock(table, mode) for table in dict.fromkeys(tables))


def _adds(key: Key, place: str, suffix: str) -> Statement:
    return Statement(f"alter table {place} add constraint {names.last(key.identity)} {key.definition}{suffix}")


def _stops(key: Key, places: Sequence[str], frees: Step) -> Step:
    waits = f"{key.definition}{NOT_VALID}"
    return Step(
        says=f"Make {names.last(key.identity)} NOT VALID, so that no new orphan comes in",
        statements=tuple(_adds(key, place, NOT_VALID) for place in places),
        locks=_locks("SHARE ROW EXCLUSIVE", *places, key.parent),
        before=tuple(Expect("constraint", _of(key, place), None) for place in places),
        after=tuple(Expect("constraint", _of(key, place), waits) for place in places),
        undo=(frees,),
    )


def _validates(key: Key, place: str, split: bool) -> Step:
    """Read all rows once, beside reads and writes."""
    before, after = (Expect("constraint", _of(key, place), f"{key.definition}{suffix}") for suffix in (NOT_VALID, ""))
    parents = () if key.refers_to_itself else (Lock(key.parent, "ROW SHARE"),)
    return Step(
        says=f"Validate {_of(key, place) if split else names.last(key.identity)}",
        statements=(Statement(f"alter table {place} validate constraint {names.last(key.identity)}"),),
        locks=(Lock(place, "SHARE UPDATE EXCLUSIVE"), *parents),
        before=(before,),
        after=(after,),
        undo=() if split else (_drops(key, after),),
    )


def _takes_over(key: Key, places: Sequence[str]) -> Step:
    """The partitioned table's own key: the partitions' keys, all valid, become parts of it."""
    there = Expect("constraint", key.identity, key.definition)
    own = tuple(Expect("constraint", _of(key, place), key.definition) for place in places)
    return Step(
        says=f"Make {names.last(key.identity)} of {key.table} out of those of its partitions",
        statements=(_adds(key, key.table, ""),),
        locks=_locks("SHARE ROW EXCLUSIVE", key.table, *places, key.parent),
        before=(Expect("constraint", key.identity, None), *own),
        after=(there, *(Expect("constraint", one.identity, None) for one in own)),
        undo=(_drops(key, there),),
    )


def _drops(key: Key, stands: Expect) -> Step:
    return Step(
        says=f"Drop {names.last(key.identity)}",
        statements=(Statement(f"alter table {key.table} drop constraint {names.last(key.identity)}"),),
        locks=_locks("ACCESS EXCLUSIVE", key.table, key.parent),
        before=(stands,),
        after=(Expect("constraint", key.identity, None),),
    )


def _frees(key: Key, places: Sequence[str]) -> Step:
    """It expects nothing: of the steps that take a run back, whichever comes first finds the key, NOT VALID or valid."""
    name = names.last(key.identity)
    return Step(
        says=f"Drop {name} if it stands: no orphan can come back under it",
        statements=tuple(Statement(f"alter table {place} drop constraint if exists {name}") for place in places),
        locks=_locks("ACCESS EXCLUSIVE", *places, key.parent),
    )


def _again(key: Key, places: Sequence[str], definitions: Mapping[str, str]) -> Step:
    suffixes = {place: NOT_VALID if definitions[place].endswith(NOT_VALID) else "" for place in places}
    return Step(
        says=f"Make {names.last(key.identity)} NOT VALID, as it was found",
        statements=tuple(_adds(key, place, suffixes[place]) for place in places),
        locks=_locks("SHARE ROW EXCLUSIVE", *places, key.parent),
    )


def index(key: Key, name: str) -> Step:
    """Build an index that leads with the key's columns, without blocking."""
    identity, columns = f"{names.parent(key.table)}.{name}", ", ".join(key.columns)
    drop = (Statement(f"drop index concurrently if exists {identity}"),)
    there = Expect("index", identity, f"CREATE INDEX {name} ON {key.table} USING btree ({columns})")
    alone = Step(
        says=f"Drop index {identity}",
        statements=drop,
        transactional=False,
        retryable=False,
        locks=_locks("SHARE UPDATE EXCLUSIVE", key.table),
        before=(there,),
        after=(replace(there, definition=None),),
        restart=drop,
    )
    return replace(
        alone,
        says=f"Build index {identity} on the referring columns",
        statements=(Statement(f"create index concurrently {name} on {key.table} ({columns})"),),
        before=alone.after,
        after=alone.before,
        undo=(alone,),
    )
