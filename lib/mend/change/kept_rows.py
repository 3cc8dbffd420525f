"""Rows that a project's own UPDATE, DELETE or TRUNCATE changes, kept beside their keys and given back by its undo.  Pure SQL texts.

The statement itself is sent as it is; what it did is found by comparing afterwards, so that what a trigger kept out, or a condition that
is not the same twice, makes no difference: where the condition calls anything, all rows are copied, and those that stayed are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mend.change import kept
from mend.change.kept import Copy, Facets, Keeper, Keeping
from mend.database import names
from mend.errors import NotInvertible
from mend.plan import Statement


def emptied(keeper: Keeper, table: str, *, content: Facets) -> Keeping:
    """Keep what TRUNCATE takes.  Raises: NotInvertible."""
    _require_plain(table, content)
    if " partition by " in content.get(("table", table), ""):
        raise NotInvertible(f"{table} is partitioned: truncate its partitions")
    return kept.table(keeper, table, content=content)


def deleted(keeper: Keeper, table: str, where: str, *, key: Sequence[str], content: Facets) -> Keeping:
    """Keep the rows that DELETE takes.

    Raises: NotInvertible where rows cannot be told apart, or go along in other tables.
    """
    _require_plain(table, content)
    if going := _referring(table, content):
        raise NotInvertible(f"rows of {', '.join(going)} change with those of {table}, and would not be kept")
    columns = kept.columns_of(table, content)
    stored = [name for name, definition in columns.items() if " generated always as (" not in definition]
    copies = ", ".join(f"{kept.as_kept(f't.{name}', columns[name])} as {name}" for name in stored)
    values = ", ".join(kept.as_restored(name, columns[name]) for name in stored)
    copy = Copy(keeper, f"{table} (rows)", table)
    same = _same(key, columns)
    return Keeping(
        keep=(
            *kept.alone_with(table, content, keeper),
            *copy.made(f"select {copies} from {table} as t{_where(where)}"),
        ),
        note=(Statement(f"delete from {copy.place} as k using {table} as t where {same}"), copy.noted()),
        compare=copy.compared(),
        restore=kept.quietly(
            table,
            content,
            (
                Statement(
                    f"insert into {table} ({', '.join(stored)}) overriding system value select {values} from {copy.place}"
                ),
            ),
        ),
        finish=(copy.given_back(),),
    )


def updated(
    keeper: Keeper, table: str, columns: Sequence[str], where: str, *, key: Sequence[str], content: Facets
) -> Keeping:
    """Keep the values that UPDATE overwrites; a row that somebody changed since is left as it is.

    Raises: NotInvertible where rows cannot be told apart afterwards.
    """
    _require_plain(table, content)
    if changed := sorted({*columns} & {*key}):
        raise NotInvertible(f"{', '.join(changed)} of {table} is part of the key, and changes")
    types = kept.columns_of(table, content)
    keys = ", ".join(f"{kept.as_kept(f't.{one}', types[one])} as {one}" for one in key)
    olds = ", ".join(f"{kept.as_kept(f't.{one}', types[one])} as {one}" for one in columns)
    made = [f"mend_made_{n}" for n, _ in enumerate(columns, 1)]
    copy = Copy(keeper, f"{table} ({', '.join(columns)})", table)
    place, same = copy.place, _same(key, types)
    now = [f"cast(t.{one} as text)" for one in columns]
    sets = ", ".join(f"{name} = {text}" for name, text in zip(made, now, strict=True))
    unchanged = " and ".join(
        f'cast({kept.as_kept(f"k.{one}", types[one])} as text) collate "C" is not distinct from {name} collate "C"'
        for one, name in zip(columns, made, strict=True)
    )
    theirs = " or ".join(
        f'{text} collate "C" is distinct from k.{name} collate "C"' for text, name in zip(now, made, strict=True)
    )
    back = ", ".join(f"{one} = {kept.as_restored(f'k.{one}', types[one])}" for one in columns)
    added = ", ".join(
        [*(f"add column {name} text" for name in made), "add column mend_theirs boolean not null default false"]
    )
    return Keeping(
        keep=(
            *kept.alone_with(table, content, keeper),
            *copy.made(f"select {keys}, {olds} from {table} as t{_where(where)}"),
        ),
        note=(
            Statement(f"alter table {place} {added}"),
            Statement(f"update {place} as k set {sets} from {table} as t where {same}"),
            Statement(f"delete from {place} as k where {unchanged}"),
            copy.noted(),
        ),
        compare=(
            *copy.compared(),
            *kept.alone_with(table, content, keeper),
            Statement(f"update {place} as k set mend_theirs = true from {table} as t where {same} and ({theirs})"),
        ),
        restore=kept.quietly(
            table,
            content,
            (Statement(f"update {table} as t set {back} from {place} as k where {same} and not k.mend_theirs"),),
        ),
        finish=(copy.given_back(),),
    )


def _where(condition: str) -> str:
    """The rows that a condition names; all, where it calls something and might name others the next time."""
    return "" if not condition or "(" in condition else f" where ({condition})"


def _same(key: Sequence[str], types: Mapping[str, str]) -> str:
    return " and ".join(f"{kept.as_kept(f't.{one}', types[one])} = k.{one}" for one in key)


def _require_plain(table: str, content: Facets) -> None:
    """Raises: NotInvertible where rows of other tables are meant too."""
    parents = {p for (kind, _), text in content.items() if kind == "inherits" for p in text.split(", ")}
    if table in parents:
        raise NotInvertible(f"{table} has children that inherit from it, and their rows may have the same keys")


def _referring(table: str, content: Facets) -> list[str]:
    """Tables whose rows a DELETE changes too, by what their foreign keys do."""
    acts = re.compile(r" ON DELETE (?:CASCADE|SET NULL|SET DEFAULT)")
    return sorted(
        names.parent(identity)
        for (kind, identity), text in content.items()
        if kind == "constraint" and f" REFERENCES {table}(" in text and acts.search(text)
    )
