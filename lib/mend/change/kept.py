"""Content that a step would lose, kept in schema ``mend`` in the same transaction, and put back by its undo.  Pure SQL texts.

Dropping a column or table takes its values along, and a narrower type cuts them.  Before such a step the values are copied beside
their primary key, under a lock that lets nobody write meanwhile.  Values of the user's own types are kept as text: a copy must not
stand in the way of dropping the type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from psycopg import sql as pgsql

from mend.change import ddl, manifest
from mend.database import names
from mend.database.catalog import Change
from mend.errors import NotInvertible
from mend.journal import sha256
from mend.plan import Statement

EXPIRY_DAYS = 30

Facets = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Keeper:
    """Where the content is kept that a way back would lose, and the primary keys that tell its rows apart.

    ``revision`` and ``days`` are noted with each copy: what it was made for, and how long it is to stay.  ``locked``: by table, the lock
    that is taken before the copy where that is not SHARE ROW EXCLUSIVE.
    """

    schema: str
    key: str
    primary_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    revision: str = ""
    days: int = EXPIRY_DAYS
    locked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Keeping:
    """The statements around a loss and around its way back, in the order in which they run.

    ``keep`` before the content goes; ``note``, when it is gone, what became of it.  On the way back ``compare`` first, which marks
    what somebody has changed since; ``restore`` once the object exists again; ``finish`` once everything does.
    """

    keep: tuple[Statement, ...] = ()
    note: tuple[Statement, ...] = ()
    compare: tuple[Statement, ...] = ()
    restore: tuple[Statement, ...] = ()
    finish: tuple[Statement, ...] = ()


def primary_keys(live: Facets) -> dict[str, tuple[str, ...]]:
    """Quoted primary key columns by table, from a snapshot; a partition has those of its parent."""
    found = {}
    for (kind, identity), definition in live.items():
        if kind == "constraint" and definition.startswith("PRIMARY KEY"):
            group = next(piece for piece in names.pieces(definition) if piece.startswith("("))
            found[names.parent(identity)] = names.items(group)
    for (kind, identity), definition in live.items():
        parent = re.split(r" (?=FOR VALUES|DEFAULT)", definition)[0]
        if kind == "partition" and parent in found:
            found.setdefault(identity, found[parent])
    return found


def keepings(changes: Sequence[Change], *, keeper: Keeper, purpose: str, content: Facets) -> list[Keeping]:
    """How the content is kept that the inverse of these changes loses.

    ``content``: the catalog at that time, as the changes leave it.  Raises: NotInvertible where rows cannot be told apart.
    """
    tables = {change.identity for change in changes if change.kind == "table"}
    moved = {
        c.identity for c in changes if c.kind in ("partition", "inherits") and None in (c.before, c.after)
    } - tables
    by_identity = {change.identity: change for change in changes if change.kind in ("table", "column", "foreign_table")}
    keys = {**keeper.primary_keys, **primary_keys(content)}
    found = []
    for lost in ddl.losses(changes):
        change, own = by_identity[lost], replace(keeper, key=f"{keeper.key}{purpose}")
        if change.kind == "foreign_table" or (change.kind == "table" and " partition by " in str(change.after)):
            continue  # the rows are elsewhere: on another server, in the partitions
        if names.parent(lost) in moved:
            continue  # ATTACH and DETACH hide columns behind the parent's, and show them again
        if change.kind == "table":
            found.append(table(own, lost, content=content))
        elif not _fits_or_fails(change, keys):
            found.append(column(own, change, primary_key=_told_apart(change, keys), content=content))
    return found


def _fits_or_fails(change: Change, keys: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the way back either loses nothing or fails: integers into a smaller type; a key's texts too, though their spaces go."""
    old, new = type_of(change.before or ""), type_of(change.after or "")
    integers = {"smallint", "integer", "bigint"}
    texts = all(re.fullmatch(r"text|character varying(\(\d+\))?", one) for one in (old, new))
    return {old, new} <= integers or (
        texts and names.last(change.identity) in keys.get(names.parent(change.identity), ())
    )


def _told_apart(change: Change, keys: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    owner, name = names.parent(change.identity), names.last(change.identity)
    if owner not in keys:
        raise NotInvertible(f"{owner} has no primary key, so the values of {change.identity} could not be kept")
    if name in keys[owner]:
        raise NotInvertible(
            f"{change.identity} is part of the primary key, so without it the rows could not be told apart"
        )
    return keys[owner]


def column(keeper: Keeper, change: Change, *, primary_key: tuple[str, ...], content: Facets) -> Keeping:
    """Keep the values of a column (``public.t.c``) beside the primary key (quoted column names).

    ``change``: how the column came to be as it is; where it has a ``before``, the loss is one of type and not of the column.
    """
    owner, name = names.parent(change.identity), names.last(change.identity)
    copy, definition = Copy(keeper, change.identity, owner), change.after or ""
    place = copy.place
    types = {one: content.get(("column", f"{owner}.{one}"), "") for one in primary_key}
    keys = ", ".join(f"{as_kept(one, types[one])} as {one}" for one in primary_key)
    same = " and ".join(f"{as_kept(f't.{one}', types[one])} = k.{one}" for one in primary_key)
    # Where the column comes back with a default, a null must be kept too: it would come back as the default.
    filled = ("default", change.identity) in content and change.before is None
    some = "" if filled else f" where {as_kept(name, definition)} is not null"
    keep = (
        *alone_with(owner, content, keeper),
        *copy.made(f"select {keys}, {as_kept(name, definition)} as {name} from {owner}{some}"),
    )
    value = as_restored(f"k.{name}", definition)
    if change.before is not None:
        made = f"cast(t.{name} as text)"
        note = (
            Statement(f"alter table {place} add column made text, add column changed boolean not null default false"),
            Statement(f"update {place} as k set made = {made} from {owner} as t where {same}"),
            copy.noted(),
        )
        compare = (
            *copy.compared(),
            *alone_with(owner, content, keeper),
            Statement(
                f"update {place} as k set changed = true from {owner} as t where {same} and {made} is distinct from k.made"
            ),
        )
        back = Statement(f"update {owner} as t set {name} = {value} from {place} as k where {same} and not k.changed")
        return Keeping(keep, note, compare, quietly(owner, content, (back,)), (copy.given_back(),))
    back = Statement(f"update {owner} as t set {name} = {value} from {place} as k where {same}")
    restore = quietly(owner, content, _as_given(owner, name, definition, (back,)))
    positions, finish = _positions(keeper, owner, [name], content)
    keep += (copy.noted(), *positions)
    return Keeping(keep, compare=copy.compared(), restore=restore, finish=(*finish, copy.given_back()))


def table(keeper: Keeper, identity: str, *, content: Facets) -> Keeping:
    """Keep every row of a table (``public.t``), and how far its sequences are.

    Raises: NotInvertible where its columns are not known.
    """
    columns = columns_of(identity, content)
    if not columns:
        raise NotInvertible(f"the columns of {identity} are not known, so its rows could not be kept")
    stored = [name for name, definition in columns.items() if " generated always as (" not in definition]
    copy, own = Copy(keeper, identity, identity), ", ".join(stored)
    copies = ", ".join(f"{as_kept(name, columns[name])} as {name}" for name in stored)
    values = ", ".join(as_restored(name, columns[name]) for name in stored)
    positions, finish = _positions(keeper, identity, columns, content)
    return Keeping(
        keep=(
            *alone_with(identity, content, keeper),
            *copy.made(f"select {copies} from only {identity}"),
            copy.noted(),
            *positions,
        ),
        compare=copy.compared(),
        restore=(
            Statement(f"insert into {identity} ({own}) overriding system value select {values} from {copy.place}"),
        ),
        finish=(*finish, copy.given_back()),
    )


def script(keeper: Keeper, what: str, texts: Sequence[str]) -> tuple[Statement, ...]:
    """Keep SQL that makes something again, one statement a row in the order in which they run."""
    lines = ", ".join(f"({n}, {_literal(text)})" for n, text in enumerate(texts, 1))
    copy = Copy(keeper, f"script that makes {what} again", "", holds="")
    return (*copy.made(f"select * from (values {lines}) as script (line, statement)"), copy.noted())


def columns_of(identity: str, content: Facets) -> dict[str, str]:
    """A table's columns, its parents' included: a snapshot lists those with the parent."""
    found = {}
    for kind in ("partition", "inherits"):
        for parent in filter(
            None, re.split(r" (?=FOR VALUES|DEFAULT)", content.get((kind, identity), ""))[0].split(", ")
        ):
            found.update(columns_of(parent, content))
    own = {
        names.last(one): text
        for (kind, one), text in content.items()
        if kind == "column" and names.parent(one) == identity
    }
    return found | own


@dataclass(frozen=True)
class Copy:
    """One copy in schema ``mend``: of which object, in which table; its name is new for every plan, for the same column may be kept many times."""

    keeper: Keeper
    source: str
    table: str
    holds: str = "values of "

    @property
    def name(self) -> str:
        return f"kept_{sha256(f'{self.keeper.key} {self.source}')[:16]}"

    @property
    def place(self) -> str:
        return pgsql.Identifier(self.keeper.schema, self.name).as_string(None)

    def made(self, select: str) -> tuple[Statement, ...]:
        """Made, marked, and closed to others whatever default privileges there are."""
        says = f"mend: {self.holds}{self.source}; expires {self.keeper.days} days after the run"
        return (
            Statement(f"create table {self.place} as {select}"),
            Statement(f"comment on table {self.place} is {_literal(says)}"),
            Statement(manifest.closed(self.place)),
        )

    def noted(self) -> Statement:
        keeper = self.keeper
        return manifest.note(
            keeper.schema, self.name, source=self.source, table=self.table, revision=keeper.revision, days=keeper.days
        )

    def compared(self) -> tuple[Statement, ...]:
        return manifest.compared(self.keeper.schema, self.name)

    def given_back(self) -> Statement:
        return manifest.given_back(self.keeper.schema, self.name)


def alone_with(owner: str, content: Facets, keeper: Keeper) -> tuple[Statement, ...]:
    """Nobody writes between the copy and the loss; and a policy hides no row: the statement fails rather."""
    forced = "forced" in content.get(("row_security", owner), "")
    texts = ("set local row_security = off",) if forced else ()
    mode = keeper.locked.get(owner, "share row exclusive")
    return tuple(Statement(text) for text in (*texts, f"lock table {owner} in {mode} mode"))


def quietly(owner: str, content: Facets, statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The table's own triggers stay out of what is only put back."""
    triggers = [one for kind, one in content if kind == "trigger" and names.parent(one) == owner]
    fires = {one: content.get(("trigger_state", one), "enabled") for one in triggers}
    words = {"enabled": "enable", "replica": "enable replica", "always": "enable always"}
    off = tuple(
        Statement(f"alter table {owner} disable trigger {names.last(one)}") for one in triggers if fires[one] in words
    )
    on = tuple(
        Statement(f"alter table {owner} {words[fires[one]]} trigger {names.last(one)}")
        for one in triggers
        if fires[one] in words
    )
    return off + statements + on


def _as_given(owner: str, name: str, definition: str, statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """An identity that is generated always takes no value from an UPDATE; so it is by default meanwhile."""
    if " generated always as identity" not in definition:
        return statements
    head = f"alter table {owner} alter column {name} set generated"
    return (Statement(f"{head} by default"), *statements, Statement(f"{head} always"))


def _positions(
    keeper: Keeper, owner: str, columns: Iterable[str], content: Facets
) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
    """How far the sequences are that go with these columns: to keep, and to set again once they exist."""
    owned = {definition for (kind, _), definition in content.items() if kind == "sequence_owner"}
    counted = [
        c for c in columns if " as identity" in content.get(("column", f"{owner}.{c}"), "") or f"{owner}.{c}" in owned
    ]
    if not counted:
        return (), ()
    copy = Copy(keeper, f"{owner} {' '.join(counted)} position", owner)
    sequences = {
        c: f"cast(pg_get_serial_sequence({_literal(owner)}, {_literal(names.unquoted(c))}) as regclass)"
        for c in counted
    }
    lines = " union all ".join(
        f"select {_literal(c)} as name, pg_sequence_last_value({sequence}) as position"
        for c, sequence in sequences.items()
    )
    finish = (
        Statement(
            f"select setval({sequence}, position) from {copy.place} where name = {_literal(c)} and position is not null"
        )
        for c, sequence in sequences.items()
    )
    return (*copy.made(lines), copy.noted()), (*finish, copy.given_back())


def type_of(definition: str) -> str:
    """The type of a column, without collation, identity or expression."""
    return re.split(r" collate | generated ", definition)[0]


def is_own(definition: str) -> bool:
    """Whether the type is the user's or an extension's: those are qualified, PostgreSQL's are not."""
    return len(names.split(type_of(definition))) > 1


def as_kept(value: str, definition: str) -> str:
    return f"cast({value} as text)" if is_own(definition) else value


def as_restored(value: str, definition: str) -> str:
    return f"cast({value} as {type_of(definition)})" if is_own(definition) else value


def _literal(text: str) -> str:
    return pgsql.Literal(text).as_string(None)
