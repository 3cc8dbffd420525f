"""From catalog changes to the SQL that makes them, or takes them back. Pure: it knows definitions, never a database.

``inverse_of(changes)`` executed on the database of the later snapshot gives back the earlier one: the same objects with the same
definitions. It brings back no rows, no sequence positions and no order of columns; ``loses_rows`` says what it costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mend import facets, names
from mend.catalog import Change
from mend.facets import Act, Phase

if TYPE_CHECKING:
    import pandas

#: The order in which things come into being; they go in the opposite one.
_ORDER = (
    "schema", "extension", "language", "access_method", "foreign-data_wrapper", "foreign_server", "enum", "collation", "domain",
    "composite", "range", "sequence", "function", "aggregate", "operator", "cast", "domain_constraint", "table", "foreign_table",
    "column", "column_setting", "default", "not_null", "identity", "inherits", "partition", "sequence_owner",
    "key", "constraint", "view", "matview", "option", "index", "replica_identity", "foreign_key", "row_security", "rule", "trigger",
    "trigger_state", "policy", "statistics", "publication", "event_trigger", "comment", "owner", "grant",
)  # fmt: skip
_RANK = {kind: rank for rank, kind in enumerate(_ORDER)}

_OF_A_RELATION = frozenset(
    ["column", "default", "not_null", "constraint", "trigger", "trigger_state", "policy", "rule", "option", "column_setting"]
)
_IS_A_RELATION = frozenset(["table", "foreign_table", "view", "matview", "row_security", "replica_identity", "partition", "inherits"])
_RENAMED = {
    "table": "table", "foreign_table": "table", "view": "table", "matview": "table", "sequence": "sequence", "index": "index",
    "enum": "type", "domain": "domain", "composite": "type", "range": "type", "function": "routine", "schema": "schema",
    "column": "column", "constraint": "constraint", "trigger": "trigger", "policy": "policy", "rule": "rule",
}  # fmt: skip
_DEPARSED = frozenset(["view", "matview", "rule", "function", "policy", "trigger", "constraint", "index", "statistics", "table", "column", "default"])
_WIDENS = (("smallint", "integer", "bigint", "numeric"), ("real", "double precision"), ("date", "timestamp without time zone"))


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
    if renamed := _as_rename(wanted):
        return renamed
    wanted = _without_covered(wanted)
    partitioned = _tables_with_columns(wanted)
    acts = [act for change in wanted if change not in partitioned for act in facets.acts(change, concurrently=concurrently)]
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
    if _as_rename([change.reversed() for change in all_changes]):
        return ()
    found = {lost for change in all_changes if (lost := loses_rows(change))}
    return tuple(sorted(lost for lost in found if names.parent(lost) not in found))


def holders(kind: str, identity: str, definition: str) -> frozenset[str]:
    """The objects that a facet belongs to: when one of them is dropped, the facet goes with it.

    >>> sorted(holders("default", "public.t.c", "0"))
    ['public.t', 'public.t.c']
    >>> sorted(holders("comment", "constraint ck on public.t", "why"))
    ['public.t', 'public.t.ck']
    """
    if kind in ("comment", "owner", "grant"):
        return _holders_of_label(identity.rpartition(" to ")[0] if kind == "grant" else identity)
    parts = names.split(identity)
    if kind in _OF_A_RELATION or kind == "domain_constraint":
        found = {".".join(parts[:2])} | ({".".join(parts[:3])} if kind not in ("option", "constraint") else set())
        return frozenset(found - ({identity} if _is_object(kind) else set()))
    if kind in _IS_A_RELATION and kind not in ("table", "foreign_table", "view", "matview"):
        return frozenset({identity})
    if kind == "index" and (table := index_table(definition)):
        return frozenset({table})
    if kind == "sequence_owner":
        return frozenset({identity, definition, names.parent(definition)})
    return frozenset()


def index_table(definition: str) -> str:
    """The table, or materialized view, that an index definition is about.

    >>> index_table('CREATE UNIQUE INDEX ix ON public."T" USING btree (a)')
    'public."T"'
    """
    match = re.search(rf" ON (?:ONLY )?({_CHAIN}) USING ", definition)
    return match[1] if match else ""


_CHAIN = r'(?:"(?:[^"]|"")*"|[^\s."]+)(?:\.(?:"(?:[^"]|"")*"|[^\s."]+))*'


def _holders_of_label(label: str) -> frozenset[str]:
    """``column public.t.c`` belongs to the column and its table; ``trigger tr on public.t`` to the trigger and its table."""
    word, _, rest = label.partition(" ")
    if " on " in rest and (match := re.fullmatch(rf"({_CHAIN}) on (?:domain )?({_CHAIN})", rest)):
        return frozenset({match[2], f"{match[2]}.{match[1]}"})
    rest = rest.removeprefix("view ") if word in ("materialized",) else rest.removeprefix("table ") if word == "foreign" else rest
    if word in ("function", "procedure", "aggregate"):
        rest = re.sub(r",(?! )", ", ", rest)
    return frozenset({rest, names.parent(rest)} if word == "column" else {rest})


def _without_covered(changes: Sequence[Change]) -> list[Change]:
    """Leave out what goes along with something bigger that is dropped."""
    gone, come = (
        {c.identity for c in changes if getattr(c, side) is None and _is_object(c.kind)} for side in ("after", "before")
    )
    owned = {c.identity for c in changes if c.kind == "sequence_owner" and c.before and holders(c.kind, "", c.before) & gone}
    detached = {c.identity for c in changes if c.kind in ("partition", "inherits") and not (c.before and c.after)} - gone - come

    def covered(change: Change) -> bool:
        if change.after is None and change.before is not None:
            if change.kind in ("sequence", "sequence_owner") and change.identity in owned:
                return True
            if change.kind == "sequence_owner" and change.identity in gone:
                return True
            if change.kind != "sequence_owner" and holders(change.kind, change.identity, change.before) & gone:
                return True
        return _comes_with_parent(change, detached)

    return [change for change in changes if not covered(change)]


def _is_object(kind: str) -> bool:
    """Whether a kind is a thing of its own, on which others can hang, and not a property."""
    return kind not in {"default", "not_null", "option", "row_security", "replica_identity", "partition", "inherits"} | {
        "column_setting", "trigger_state", "sequence_owner", "comment", "owner", "grant"
    }  # fmt: skip


def _comes_with_parent(change: Change, moved: set[str]) -> bool:
    """ATTACH and INHERIT hide a table's columns, constraints and indexes behind its parent's, DETACH shows them again: no work."""
    if not moved or (change.before is None) == (change.after is None):
        return False
    inner = change.kind in ("column", "default", "not_null", "constraint", "index")
    return inner and bool(holders(change.kind, change.identity, change.before or change.after or "") & moved)


def _tables_with_columns(changes: Sequence[Change]) -> dict[Change, Act | None]:
    """New tables that need more than ``create table t ()``: partitioned ones, partitions and children."""
    made: dict[Change, Act | None] = {}
    for table in changes:
        if table.kind != "table" or table.before is not None or table.after is None:
            continue
        columns = [c for c in changes if c.kind == "column" and c.before is None and names.parent(c.identity) == table.identity]
        parents = [c for c in changes if c.kind in ("partition", "inherits") and c.identity == table.identity and c.after]
        listed = ", ".join(f"{names.last(c.identity)} {c.after}" for c in columns)
        persistence, _, key = table.after.partition(" partition by ")
        sql = f"create {'unlogged ' if persistence == 'unlogged' else ''}table {table.identity}"
        if parents and parents[0].kind == "partition":
            parent, bound = facets.parent_of_partition(str(parents[0].after))
            sql += f" partition of {parent} {bound}"
            columns = []
        else:
            sql += f" ({listed})" + (f" inherits ({parents[0].after})" if parents else "")
        sql += f" partition by {key}" if key else ""
        made[table] = Act(Phase.CREATE, "table", table.identity, sql, sql)
        made.update(dict.fromkeys((*columns, *parents)))
    return made


def _restored(acts: list[Act], changes: Sequence[Change], live: pandas.DataFrame | None, concurrently: bool) -> list[Act]:
    """Views on, and facets of, the objects that are dropped and made anew; what is among the changes comes by itself."""
    dropped = {act.identity for act in acts if act.phase is Phase.DROP and _is_object(act.kind)}
    anew = dropped & {act.identity for act in acts if act.phase is Phase.CREATE and _is_object(act.kind)}
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
    made = {names.bare(act.identity): act for act in acts if act.kind in ("view", "matview", "function", "table", "aggregate")}
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
    """The SQL, with tables dropped by one statement: they may refer to each other, and RESTRICT minds that only one by one."""
    tables = [act for act in acts if act.kind == "table" and act.phase is Phase.DROP]
    if len(tables) > 1:
        sql = "drop table " + ", ".join(act.identity for act in tables)
        at = acts.index(tables[-1])
        acts = [a for a in acts[:at] if a not in tables] + [Act(Phase.DROP, "table", "", sql)] + acts[at + 1 :]
    return tuple(act.sql for act in acts)


def _as_rename(changes: Sequence[Change]) -> tuple[str, ...]:
    """The one RENAME that explains every change of the list, if there is exactly one."""
    found: list[tuple[str, ...]] = []
    gone = [c for c in changes if c.after is None and c.kind in _RENAMED]
    come = [c for c in changes if c.before is None and c.kind in _RENAMED]
    for old in gone:
        for new in come:
            same_holder = names.parent(old.identity) == names.parent(new.identity)
            if old.kind == new.kind and same_holder and _explains(old, new, changes):
                found.append((_rename(old, new),))
    return found[0] if len(found) == 1 else ()


def _explains(old: Change, new: Change, changes: Sequence[Change]) -> bool:
    """Whether renaming ``old`` to ``new`` turns every 'before' of the list into its 'after'."""
    a, b = names.bare(old.identity), names.bare(new.identity)
    now = {(c.kind, c.identity): c.after for c in changes if c.after is not None}
    for change in changes:
        if change.before is None:
            continue
        identity = names.substitute(change.identity, a, b)
        after = now.pop((change.kind, identity), None)
        follows = change.kind in _DEPARSED and names.last(a) in names.words(change.before) and names.last(b) in names.words(after or "")
        if after is None or (after != names.substitute(change.before, a, b) and after != change.before and not follows):
            return False
    return not now


def _rename(old: Change, new: Change) -> str:
    word, name = _RENAMED[old.kind], names.last(names.bare(new.identity))
    holder, own = names.parent(old.identity), names.last(old.identity)
    if word in ("column", "constraint"):
        return f"alter table {holder} rename {word} {own} to {name}"
    if word in ("trigger", "policy", "rule"):
        return f"alter {word} {own} on {holder} rename to {name}"
    return f"alter {word} {old.identity} rename to {name}"


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
