"""How far a foreign key is from holding: which rows break it, what it could lean on, what refers to them.  Reads only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
from sqlalchemy import Connection

from mend.batches import deletion
from mend.batches.repair import Repair
from mend.change import kept, weights
from mend.change.act import literal
from mend.constraints import orphans, proposals
from mend.constraints.orphaned import Facts, Referring
from mend.constraints.proposals import Objection, Proposal
from mend.database import catalog, names, parameters, queries
from mend.database.catalog import Change
from mend.diagnosis import Site
from mend.errors import InvalidParameter, MendError, Refused
from mend.repairs import foreign_keys, halfway, subject
from mend.repairs.foreign_keys import Key
from mend.repairs.subject import Subject
from mend.values import counting, expressions, masking
from mend.values.counting import Count
from mend.values.expressions import Expression

SAMPLE = 20  # missing keys shown, those with most rows first
_NONE = Count(0, 0, True)


def find(site: Site, revision: str, named: Mapping[str, str]) -> Subject | None:
    """The key in question; where no pending revision could make it, the one that stands or that the parameters name.

    ``named``: table, columns, constraint, parent, as the operator gave them.  Raises: InvalidParameter.
    """
    own = {name: named[name] for name in ("table", "columns", "constraint")}
    found = subject.find(site, "foreign_key", revision=revision, **own, otherwise=partial(_otherwise, site, named))
    if found is not None or site.project is None or any(named.values()):
        return found
    told = _refused_in_scratch(
        halfway.look(site, site.project, revision=revision, data_operations="").replayed.error or ""
    )
    return find(site, revision, told) if told else None


_MADE = re.compile(
    r"alter\s+table\s+(?:only\s+)?(?P<table>.+?)\s+add\s+constraint\s+(?P<constraint>.+?)\s+foreign\s+key\s*\((?P<columns>.+?)\)"
    r"\s*references\s+(?P<parent>.+?(?:\(.+?\)|$))",
    re.IGNORECASE,
)


def _refused_in_scratch(error: str) -> dict[str, str]:
    """The key that a revision wants and that PostgreSQL refuses whatever the rows: its replay names the statement."""
    made = _MADE.search(error)
    return {name: text.strip() for name, text in made.groupdict().items()} if made else {}


def _otherwise(site: Site, named: Mapping[str, str], table: str, columns: tuple[str, ...]) -> Change:
    with site.target.reading(site.run_id) as conn:
        live = catalog.facets(catalog.snapshot(conn))
        name = named["constraint"] or "_".join(["fk", *map(names.unquoted, (names.last(table), *columns))])[:63]
        quoted = queries.frame(conn, "foreign_key_violation/quoted", names=[names.unquoted(name)])["quoted"].iloc[0]
    for (kind, identity), text in sorted(live.items()):
        key = foreign_keys.read(identity, text) if kind == "constraint" and text.startswith("FOREIGN KEY") else None
        fits = key and key.table == table and set(key.columns) == set(columns)
        if key and fits and (not named["constraint"] or names.last(identity) == quoted):
            return Change("constraint", identity, None, key.definition)
    parts = names.spaced(named["parent"].strip())
    group = parts[-1] if parts and parts[-1].startswith("(") else ""
    owner = "".join(parts[:-1] if group else parts)
    if not owner.strip():
        raise InvalidParameter(
            f"{table} ({', '.join(columns)}) has no foreign key, and no pending revision makes one. Nothing was changed. Name what it should refer to, e.g. parent=customers or parent=customers(email)."
        )
    parent = subject.relation(site, owner)
    primary = foreign_keys.primary_key(parent, live)
    keys = subject.named_columns(group[1:-1], parent, live) if group else primary
    if len(keys) != len(columns):
        raise InvalidParameter(
            f"{len(columns)} columns ({', '.join(columns)}) cannot refer to {len(keys)} of {parent} ({', '.join(keys)}). Nothing was changed. Name as many, e.g. parent=customers(email)."
        )
    definition = f"FOREIGN KEY ({', '.join(columns)}) REFERENCES {parent}({', '.join(keys)})"
    return Change("constraint", f"{table}.{quoted}", None, definition)


def made_with(wanted: Subject, key: Key) -> str:
    """The table or column of the key that only the revision itself will make; ''."""
    for table, columns in ((key.table, key.columns), (key.parent, key.keys)):
        if ("table", table) not in wanted.live:
            return table
        there = kept.columns_of(table, wanted.live)
        if absent := [column for column in columns if column not in there]:
            return f"{table}.{absent[0]}"
    return ""


def fills(wanted: Subject) -> bool:
    """Whether the revision changes rows too."""
    return wanted.facts is not None and any(one.state == "DATA" for one in wanted.facts.seen)


def look(site: Site, wanted: Subject, key: Key, *, stub: str, mask: bool, given: Mapping[str, Any]) -> Facts:
    """Ask everything about one key.

    Reads: the catalogs, both tables, the tables that refer to the orphans.  Writes: nothing.
    Raises: InvalidParameter for a stub that is not pure or not of the parent's columns; PrivilegeMissing.
    """
    with site.target.reading(site.run_id) as conn:
        sizes = queries.frame(conn, "foreign_key_violation/tables", child=key.table, parent=key.parent)
        parent_keys = _parent_keys(conn, key)
        key = replace(key, equals=_operators(parent_keys))
        count, missing, in_part, sample, why = _orphans(conn, key, wanted, mask)
        facts = Facts(
            subject=wanted,
            key=key,
            count=count,
            missing=missing,
            in_part=in_part,
            sample=sample,
            parent_keys=parent_keys,
            indexes=_indexes(conn, key.table, key.columns),
            bypasses=queries.frame(conn, "foreign_key_violation/bypasses", relations=[key.table, key.parent]),
            sizes=sizes,
            referring=(),
            levels=(),
            obstacle="",
            stub=_stub(conn, key, stub),
            objections={},
            ahead="",
            others=wanted.others,
            at_most=0,
            major=site.identity.version_num // 10000,
            given=given,
        )
        facts = replace(facts, obstacle=_obstacle(facts, why))
        if not facts.obstacle and count.rows != 0:
            facts = replace(facts, levels=_levels(conn, facts), objections=_objections(conn, facts, mask=mask))
            facts = replace(facts, referring=_referring(conn, facts), ahead=_ahead(conn, facts))
    return replace(facts, at_most=int(given["at_most"]) or weights.ceiling(facts.rows_of(key.table)))


def _parent_keys(conn: Connection, key: Key) -> pd.DataFrame:
    return queries.frame(
        conn,
        "foreign_key_violation/parent_keys",
        parent=key.parent,
        keys=list(key.keys),
        child=key.table,
        columns=list(key.columns),
    )


def _indexes(conn: Connection, table: str, columns: Sequence[str]) -> pd.DataFrame:
    return queries.frame(conn, "foreign_key_violation/referring_indexes", relation=table, attributes=list(columns))


def _operators(parent_keys: pd.DataFrame) -> tuple[str, ...]:
    """The operators of the index that the key would lean on, which is the first that is usable."""
    return tuple(parent_keys["operators"].iloc[0] or ()) if len(parent_keys) else ()


def _orphans(conn: Connection, key: Key, wanted: Subject, mask: bool) -> tuple[Count, Count, int, pd.DataFrame, str]:
    """How many rows, how many keys, how many of them NULL in part, a sample, and why that could not be asked."""
    live, listed = wanted.live, ", ".join(f"t.{column}" for column in key.columns)
    source, where = f"{foreign_keys.rows_of(key.table, live)} as t", foreign_keys.orphan(key, live)
    shown = [names.unquoted(column) for column in key.columns]
    empty = pd.DataFrame(columns=[*shown, "rows"])
    try:
        count = counting.of_query(conn, f"select from {source} where {where}")
        if count.rows == 0:
            return count, _NONE, 0, empty, ""
        missing = counting.of_query(conn, f"select distinct {listed} from {source} where {where}")
        in_part = counting.of_query(conn, f"select from {source} where {foreign_keys.null_in_part(key)}")
        groups = ", ".join(str(n + 1) for n in range(len(key.columns)))
        found = counting.ask(
            conn, f"select {listed}, count(*) from {source} where {where} group by {groups} order by count(*) desc, {groups} limit {SAMPLE}"
        )  # fmt: skip
    except MendError as error:
        return Count(None, 0, False, error.message), _NONE, 0, empty, error.message
    sample = pd.DataFrame(list(found.rows), columns=[*shown, "rows"])
    return count, missing, in_part.best, masking.masked(sample, columns=shown, keys=shown, mask=mask), ""


def _stub(conn: Connection, key: Key, text: str) -> Mapping[str, Expression]:
    if not text.strip():
        return {}
    found = expressions.assignments(conn, text, table=key.parent)
    if twice := [column for column in found if column in key.keys]:
        raise InvalidParameter(
            f"stub names {', '.join(twice)}, which comes from the rows that refer to it. Nothing was changed. Leave it out."
        )
    if reads := [column for column, one in found.items() if one.columns]:
        raise InvalidParameter(
            f"stub reads columns ({reads[0]} = {found[reads[0]].text}), but a missing row has none. Nothing was changed. Write constants, or functions of none."
        )
    return found


def _obstacle(facts: Facts, why: str) -> str:
    """Why the key cannot be made, whatever becomes of the rows; ''."""
    key, standing = facts.key, facts.standing
    if standing is not None and standing not in (key.definition, f"{key.definition}{foreign_keys.NOT_VALID}"):
        return f"{key.identity} stands already, as another key: {standing}"
    if not facts.parent_keys["usable"].any():
        return _not_unique(facts)
    if lacks := [f"{row['lacks']} of {row['relation']}" for row in facts.sizes.to_dict("records") if row["lacks"]]:
        return f"this role lacks {'; '.join(lacks)}"
    return why


def _not_unique(facts: Facts) -> str:
    key = facts.key
    there = "; ".join(f"{row['index_name']}: {row['why_not']}" for row in facts.parent_keys.to_dict("records"))
    primary = facts.keeper.primary_keys.get(key.parent, ())
    or_else = f", or let the key refer to the primary key ({', '.join(primary)})" if primary else ""
    return (
        f"{key.parent} ({', '.join(key.keys)}) is not unique, so no key can refer to it (42830){f' ({there})' if there else ''}. "
        f"Make it unique first ({parameters.pointer('unique_violation')}, then a unique constraint){or_else}"
    )


def _referring(conn: Connection, facts: Facts) -> tuple[Referring, ...]:
    """The rows that refer to what a delete would take, and what refers to those that would go along, to any depth."""
    try:
        return tuple(_below(conn, facts, orphans.doomed(facts), (facts.key.table,)))
    except Refused:
        return ()  # a delete is not possible, and its option says why


def _below(conn: Connection, facts: Facts, going: Repair, path: tuple[str, ...]) -> Iterator[Referring]:
    for one in deletion.references(going.table, facts.live):
        if one.identity == facts.key.identity or (one.table in path and one.table != going.table):
            continue
        among = deletion.pointing_at(one, going)
        indexes = _indexes(conn, one.table, one.columns)
        found = Referring(one, counting.of_table(conn, one.table, among), bool(indexes["serves"].any()))
        yield found
        if one.on_delete == "CASCADE" and found.rows.rows != 0 and one.table not in path:
            along = Repair("along", one.table, "delete", where=among)
            yield from _below(conn, facts, along, (*path, one.table))


def _ahead(conn: Connection, facts: Facts) -> str:
    """The sequence of the parent's key that has not come to the missing keys yet: it would give them out a second time; ''."""
    key = facts.key
    definition = kept.columns_of(key.parent, facts.live)[key.keys[0]]
    if len(key.keys) > 1 or kept.type_of(definition) not in ("smallint", "integer", "bigint"):
        return ""
    sequence = f"pg_get_serial_sequence({literal(key.parent)}, {literal(names.unquoted(key.keys[0]))})"
    highest = f"select max(t.{key.columns[0]}) from {foreign_keys.rows_of(key.table, facts.live)} as t where {foreign_keys.orphan(key, facts.live)}"
    asked = f"select s.name from (select {sequence} as name) as s where ({highest}) > coalesce(pg_sequence_last_value(cast(s.name as regclass)), 0)"
    answer = counting.ask(conn, asked)
    return str(answer.rows[0][0]) if answer.rows else ""


def _levels(conn: Connection, facts: Facts) -> tuple[int, ...]:
    """Of a key that refers to its own table: rows by how many references they are below an orphan."""
    if not facts.key.refers_to_itself:
        return ()
    answer = counting.ask(
        conn,
        f"{orphans.below(facts.key, facts.live, ())} select depth, count(*) from down group by depth order by depth",
    )
    return tuple(int(rows) for _, rows in answer.rows)


def _objections(conn: Connection, facts: Facts, *, mask: bool) -> Mapping[str, tuple[Objection, ...]]:
    """What speaks against the values that each option would write."""
    asked = {}
    if columns := orphans.cleared(facts.key, facts.live):
        where = foreign_keys.orphan(facts.key, facts.live)
        asked["set_null"] = Proposal(facts.key.table, dict.fromkeys(columns, "null"), where=where)
    if not orphans.no_stub(facts):
        made = orphans.stubs(facts)
        asked["stub"] = Proposal(made.table, made.values, work=made.work, match=made.match, action="insert")
    return {option: proposals.objections(conn, proposal, mask=mask) for option, proposal in asked.items()}
