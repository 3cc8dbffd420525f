"""From catalog changes to the SQL that makes them, or takes them back. Pure: it knows definitions, never a database.

``inverse_of(changes)`` executed on the database of the later snapshot gives back the earlier one: the same objects with the same
definitions. It brings back no rows, no sequence positions and no order of columns; ``loses_rows`` says what it costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mend.change import facets, facets_of_tables
from mend.change.act import Act, Phase
from mend.change.belonging import holders, index_table, is_object, without_covered
from mend.change.renames import as_rename
from mend.database import names, sqltext
from mend.database.catalog import Change

if TYPE_CHECKING:
    import pandas

__all__ = [
    "filled",
    "forward",
    "forward_of",
    "holders",
    "index_table",
    "inverse",
    "inverse_of",
    "is_object",
    "loses_rows",
    "losses",
    "lost_already",
]

#: The order in which things come into being; they go in the opposite one.
_ORDER = (
    "schema", "extension", "language", "access_method", "foreign-data_wrapper", "foreign_server", "enum", "collation", "domain",
    "composite", "range", "sequence", "function", "aggregate", "operator", "cast", "domain_constraint", "table", "foreign_table",
    "column", "column_setting", "default", "not_null", "identity", "inherits", "partition", "sequence_owner",
    "key", "constraint", "view", "matview", "option", "foreign_option", "tablespace", "index", "replica_identity", "foreign_key", "row_security", "rule", "trigger",
    "trigger_state", "policy", "statistics", "publication", "event_trigger", "comment", "owner", "grant",
    "default_privilege", "setting", "user_mapping",
)  # fmt: skip
_RANK = {kind: rank for rank, kind in enumerate(_ORDER)}

_WIDENS = (
    ("smallint", "integer", "bigint", "numeric"),
    ("real", "double precision"),
    ("date", "timestamp without time zone"),
)


def forward(change: Change, *, concurrently: bool = False) -> tuple[str, ...]:
    """The SQL that makes one change; ``concurrently``: indexes without a lock that blocks writes, outside transactions."""
    return tuple(act.sql for act in sorted(facets.acts(change, concurrently=concurrently), key=lambda act: act.phase))


def inverse(change: Change, *, concurrently: bool = False) -> tuple[str, ...]:
    """The SQL that takes one change back. Raises NotInvertible where its definitions are not enough for that."""
    return forward(change.reversed(), concurrently=concurrently)


def inverse_of(
    changes: Iterable[Change], *, concurrently: bool = False, live: pandas.DataFrame | None = None
) -> tuple[str, ...]:
    """The SQL that takes a whole list of changes back, in an order that works.

    Parameters
    ----------
    changes : a diff; one statement's or one operation's at a time is best, for then a rename is seen as one
    concurrently : DROP and CREATE INDEX CONCURRENTLY; such statements run outside transactions
    live : the snapshot that the SQL will run on. Where a view or another object must be dropped and made anew, what hangs
        on it and did not change (comment, grants, triggers, indexes) is taken from here; without it that is lost.

    Raises: NotInvertible, before anything is run, if one of the changes cannot be taken back.
    """
    return forward_of((change.reversed() for change in changes), concurrently=concurrently, live=live)


def forward_of(
    changes: Iterable[Change], *, concurrently: bool = False, live: pandas.DataFrame | None = None
) -> tuple[str, ...]:
    """The SQL that makes a whole list of changes, in an order that works; parameters as for ``inverse_of``."""
    wanted = sorted(changes)
    if renamed := as_rename(wanted):
        return renamed
    wanted = without_covered(wanted)
    partitioned = _tables_with_columns(wanted)
    acts = [
        act for change in wanted if change not in partitioned for act in facets.acts(change, concurrently=concurrently)
    ]
    acts += _restored(acts, wanted, live, concurrently)
    acts += [act for made, act in partitioned.items() if act is not None]
    return _statements(_ordered(_rank_constraints(acts)))


def loses_rows(change: Change) -> str | None:
    """The table or column whose content the inverse of this change would lose or could cut; None if it loses nothing."""
    if change.before is None and change.kind in ("table", "foreign_table"):
        return change.identity
    if change.kind == "column":
        if change.before is None:
            return None if " generated always as (" in str(change.after) else change.identity
        if change.after is not None and not _holds(change.before, change.after):
            return change.identity
    return None


def lost_already(change: Change) -> str | None:
    """The table or column that this change dropped: the inverse makes it anew, and empty."""
    return change.identity if change.after is None and change.kind in ("table", "column") else None


def losses(changes: Iterable[Change]) -> tuple[str, ...]:
    """``loses_rows`` for a whole list: a rename loses nothing, and a table's columns go with their table."""
    all_changes = sorted(changes)
    if as_rename([change.reversed() for change in all_changes]):
        return ()
    found = {lost for change in all_changes if (lost := loses_rows(change))}
    return tuple(sorted(lost for lost in found if names.parent(lost) not in found))


_ADDED = re.compile(rf"alter table (?P<table>{sqltext.NAME}) add column (?P<column>{sqltext.PART}) ")


def filled(texts: Sequence[str]) -> tuple[str, ...]:
    """The SQL with a column's default and NOT NULL in the statement that adds it, so that every row has a value at once.

    >>> filled(["alter table t add column a int", "alter table t alter column a set default 1", "drop view v"])
    ('alter table t add column a int default 1', 'drop view v')
    """
    found: list[str] = []
    told: set[str] = set()
    for n, text in enumerate(texts):
        if added := _ADDED.match(text):
            head = f"alter table {added['table']} alter column {added['column']} set "
            later = sorted(one for one in texts[n + 1 :] if one.startswith((f"{head}default ", f"{head}not null")))
            if later and later[0].startswith(f"{head}default "):
                told.update(later)
                text += "".join(f" {one.removeprefix(head)}" for one in later)
        if text not in told:
            found.append(text)
    return tuple(found)


def _tables_with_columns(changes: Sequence[Change]) -> dict[Change, Act | None]:
    """New tables that need more than ``create table t ()``: partitioned ones, partitions and children."""
    made: dict[Change, Act | None] = {}
    for table in changes:
        if table.kind != "table" or table.before is not None or table.after is None:
            continue
        columns = [
            c for c in changes if c.kind == "column" and c.before is None and names.parent(c.identity) == table.identity
        ]
        parents = [
            c for c in changes if c.kind in ("partition", "inherits") and c.identity == table.identity and c.after
        ]
        listed = ", ".join(f"{names.last(c.identity)} {c.after}" for c in columns)
        persistence, _, key = table.after.partition(" partition by ")
        sql = f"create {'unlogged ' if persistence == 'unlogged' else ''}table {table.identity}"
        if parents and parents[0].kind == "partition":
            parent, bound = facets_of_tables.parent_of_partition(str(parents[0].after))
            sql += f" partition of {parent} {bound}"
            columns = []
        else:
            sql += f" ({listed})" + (f" inherits ({parents[0].after})" if parents else "")
        sql += f" partition by {key}" if key else ""
        made[table] = Act(Phase.CREATE, "table", table.identity, sql, sql)
        made.update(dict.fromkeys((*columns, *parents)))
    return made


def _restored(
    acts: list[Act], changes: Sequence[Change], live: pandas.DataFrame | None, concurrently: bool
) -> list[Act]:
    """Views on, and facets of, the objects that are dropped and made anew; what is among the changes comes by itself."""
    dropped = {act.identity for act in acts if act.phase is Phase.DROP and is_object(act.kind)}
    anew = dropped & {act.identity for act in acts if act.phase is Phase.CREATE and is_object(act.kind)}
    if live is None or not anew:
        return []
    known = {(change.kind, change.identity) for change in changes}
    rows = list(zip(live["kind"].tolist(), live["identity"].tolist(), live["definition"].tolist(), strict=True))
    rows = [row for row in rows if row[:2] not in known]
    views = _dependents({i: Change(k, i, d, d) for k, i, d in rows if k in ("view", "matview")}, anew)
    gone = [replace(view, after=None) for view in views]
    come = [replace(view, before=None) for view in views]
    come += [Change(k, i, None, d) for k, i, d in rows if holders(k, i, d) & (anew | {view.identity for view in views})]
    return [act for change in gone + come for act in facets.acts(change, concurrently=concurrently)]


def _dependents(views: dict[str, Change], anew: set[str]) -> list[Change]:
    """The views that read one of these objects, and the views on those."""
    found: dict[str, Change] = {}
    while True:
        reach = anew | found.keys()
        more = {i: view for i, view in views.items() if i not in found and names.mentions(str(view.before)) & reach}
        if not more:
            return list(found.values())
        found |= more


def _rank_constraints(acts: list[Act]) -> list[Act]:
    """Keys before other constraints, foreign keys after the indexes that they lean on."""

    def kind(act: Act) -> str:
        if act.kind != "constraint":
            return act.kind
        if re.search(r" add constraint .* (PRIMARY KEY|UNIQUE) ?", act.sql):
            return "key"
        return "foreign_key" if " FOREIGN KEY " in act.sql or act.phase is Phase.DROP else "constraint"

    return [replace(act, kind=kind(act)) for act in acts]


def _ordered(acts: list[Act]) -> list[Act]:
    """Phase by phase; within one by rank, and an object after those that its definition mentions."""
    drops, alters, creates = ([act for act in acts if act.phase is phase] for phase in Phase)
    drops = _by_mention(sorted(drops, key=_rank))[::-1]
    return drops + sorted(alters, key=_rank) + _by_mention(sorted(creates, key=_rank))


def _rank(act: Act) -> tuple[int, str]:
    return _RANK.get(act.kind, _RANK["cast"]), act.identity


def _by_mention(acts: list[Act]) -> list[Act]:
    """Stable: an act waits only for objects that its SQL mentions and that are made later in the list."""
    made = {
        names.bare(act.identity): act
        for act in acts
        if act.kind in ("view", "matview", "function", "table", "aggregate")
    }
    done: list[Act] = []
    visiting: set[int] = set()

    def visit(act: Act) -> None:
        if id(act) in visiting:
            return
        visiting.add(id(act))
        for name in sorted(names.mentions(act.text) & made.keys()):
            visit(made[name])
        done.append(act)

    for act in acts:
        visit(act)
    return done


def _statements(acts: list[Act]) -> tuple[str, ...]:
    """The SQL, with tables dropped by one statement: they may refer to each other, and RESTRICT minds that only one by one.

    Where functions are made, their bodies are not looked at.
    """
    tables = [act for act in acts if act.kind == "table" and act.phase is Phase.DROP]
    if len(tables) > 1:
        sql = "drop table " + ", ".join(act.identity for act in tables)
        at = acts.index(tables[-1])
        acts = [a for a in acts[:at] if a not in tables] + [Act(Phase.DROP, "table", "", sql)] + acts[at + 1 :]
    # a body may lean on the search_path of whoever wrote it; pg_dump restores functions in the same way
    unread = any(act.kind == "function" and act.phase is not Phase.DROP for act in acts)
    return (*(("set local check_function_bodies = off",) if unread else ()), *(act.sql for act in acts))


def _holds(target: str, source: str) -> bool:
    """Whether every value of the type ``source`` surely fits ``target``, unchanged."""
    old, new = target.partition(" collate ")[0], source.partition(" collate ")[0]
    for family in _WIDENS:
        if old in family and new in family:
            return family.index(new) <= family.index(old)
    texts = [re.fullmatch(r"character varying(?:\((\d+)\))?|text", text) for text in (old, new)]
    if texts[0] and texts[1]:
        limit, longest = (int(match[1]) if match and match[1] else None for match in texts)
        return limit is None or (longest is not None and longest <= limit)
    return old.partition(" generated ")[0] == new.partition(" generated ")[0]
