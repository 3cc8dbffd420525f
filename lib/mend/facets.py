"""The SQL that makes, alters or drops one facet of a catalog snapshot. Pure; ``mend.ddl`` puts many in order.

One function per kind of facet, in the table at the end. Each takes the ``Change`` to make (before -> after) and gives ``Act``\\ s.
RESTRICT always: what depends on an object is a reason to stop, never something to drop along.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from mend import errors, names
from mend.catalog import Change, index_state


class Phase(IntEnum):
    """First everything that goes, then what changes in place, then everything that comes."""

    DROP = 0
    ALTER = 1
    CREATE = 2


@dataclass(frozen=True)
class Act:
    """One statement, and what it acts on; ``kind`` and what ``text`` mentions decide its place in its phase."""

    phase: Phase
    kind: str
    identity: str
    sql: str
    text: str = ""


Sql = str | tuple[str, ...]
_LOSSY = "the definition is not kept in full"


def acts(change: Change, *, concurrently: bool = False) -> tuple[Act, ...]:
    """The statements that make one change; NotInvertible if its definitions are not enough for that."""
    if change.kind == "index":
        return _index(change, concurrently)
    maker = _KINDS.get(change.kind, _rare)
    return maker(change)


def literal(text: str) -> str:
    """A string constant that means the same whatever ``standard_conforming_strings`` says."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else "E'" + quoted.replace("\\", "\\\\") + "'"


def refuse(change: Change, why: str) -> errors.NotInvertible:
    """The error for a change that cannot be made from what is known."""
    return errors.NotInvertible(
        f"No SQL is known that brings {change.kind} {change.identity} to {change.after or 'nothing'!r}: {why}. "
        "Nothing was changed. Decide by hand, or go forward instead.",
        kind=change.kind, identity=change.identity,
    )  # fmt: skip


def _made(change: Change, *, create: Sql, drop: Sql, alter: Sql | None = None) -> tuple[Act, ...]:
    """The usual pattern: create it, drop it, or alter it (dropping and creating it when there is no other way)."""
    if change.before is None:
        return _acts(change, Phase.CREATE, create)
    if change.after is None:
        return _acts(change, Phase.DROP, drop)
    if alter is not None:
        return _acts(change, Phase.ALTER, alter)
    return _acts(change, Phase.DROP, drop) + _acts(change, Phase.CREATE, create)


def _acts(change: Change, phase: Phase, sql: Sql, kind: str = "") -> tuple[Act, ...]:
    statements = (sql,) if isinstance(sql, str) else sql
    text = change.before if phase is Phase.DROP else change.after
    return tuple(Act(phase, kind or change.kind, change.identity, statement, text or "") for statement in statements)


def _held(identity: str) -> tuple[str, str, str]:
    """``public.t.c`` -> ("public.t", "c", ""); ``public.t.c.statistics`` -> ("public.t", "c", "statistics")."""
    schema, relation, name, *rest = names.split(identity)
    return f"{schema}.{relation}", name, ".".join(rest)


# -- relations and what hangs on them ----------------------------------------------------------------------------------


def _table(change: Change) -> tuple[Act, ...]:
    after, (persistence, _, key) = change.after or "", (change.after or "").partition(" partition by ")
    if change.before is None and key:
        raise refuse(change, "a partitioned table cannot be made without its columns, which are other changes")
    if change.before and change.after and (change.before.partition(" ")[2], after.partition(" ")[2]) != ("", ""):
        raise refuse(change, "how a table is partitioned cannot be altered")
    unlogged = "unlogged " if persistence == "unlogged" else ""
    return _made(
        change,
        create=f"create {unlogged}table {change.identity} ()",
        drop=f"drop table {change.identity}",
        alter=f"alter table {change.identity} set {'unlogged' if unlogged else 'logged'}",
    )


def parent_of_partition(definition: str) -> tuple[str, str]:
    """``public.p FOR VALUES ...`` -> ("public.p", "FOR VALUES ...")."""
    parent, bound = re.split(r" (?=FOR VALUES|DEFAULT)", definition, maxsplit=1)
    return parent, bound


def _partition(change: Change) -> tuple[Act, ...]:
    def attach(definition: str) -> str:
        parent, bound = parent_of_partition(definition)
        if bound.endswith(" DETACH PENDING"):
            raise refuse(change, "a pending DETACH cannot be made on purpose")
        return f"alter table {parent} attach partition {change.identity} {bound}"

    drop = f"alter table {parent_of_partition(change.before)[0]} detach partition {change.identity}" if change.before else ""
    return _made(change, create=attach(change.after) if change.after else "", drop=drop)


def _inherits(change: Change) -> tuple[Act, ...]:
    before, after = ((text or "").split(", ") if text else [] for text in (change.before, change.after))
    gone = tuple(f"alter table {change.identity} no inherit {parent}" for parent in before if parent not in after)
    come = tuple(f"alter table {change.identity} inherit {parent}" for parent in after if parent not in before)
    return _acts(change, Phase.DROP, gone) + _acts(change, Phase.CREATE, come)


def _option(change: Change) -> tuple[Act, ...]:
    relation, name, rest = _held(change.identity)
    option = f"{name}.{rest}" if rest else name
    value = f"alter table {relation} set ({option} = {literal(change.after or '')})"
    return _made(change, create=value, drop=f"alter table {relation} reset ({option})", alter=value)


def _row_security(change: Change) -> tuple[Act, ...]:
    statements = []
    for word, on, off in (("enabled", "enable", "disable"), ("forced", "force", "no force")):
        was, will = (word in (text or "") for text in (change.before, change.after))
        if was != will:
            statements.append(f"alter table {change.identity} {on if will else off} row level security")
    return _acts(change, Phase.ALTER, tuple(statements))


def _replica_identity(change: Change) -> tuple[Act, ...]:
    return _acts(change, Phase.CREATE, f"alter table {change.identity} replica identity {change.after or 'default'}")


def _column_setting(change: Change) -> tuple[Act, ...]:
    table, column, name = _held(change.identity)
    head = f"alter table {table} alter column {column}"
    if name in ("statistics", "storage", "compression"):
        own = (change.before or "").partition(" instead of ")[2]
        value = (change.after or "").partition(" instead of ")[0] or {"statistics": "-1", "storage": own}.get(name, "default")
        return _acts(change, Phase.ALTER if change.before else Phase.CREATE, f"{head} set {name} {value}")
    value = f"{head} set ({name} = {change.after})"
    return _made(change, create=value, drop=f"{head} reset ({name})", alter=value)


def _default(change: Change) -> tuple[Act, ...]:
    table, column, _ = _held(change.identity)
    value = f"alter table {table} alter column {column} set default {change.after}"
    return _made(change, create=value, drop=f"alter table {table} alter column {column} drop default")


def _not_null(change: Change) -> tuple[Act, ...]:
    table, column, _ = _held(change.identity)
    head = f"alter table {table} alter column {column}"
    late = f"alter table {table} add not null {column} not valid"
    if change.before == "not null not valid" and change.after == "not null":
        return _acts(change, Phase.ALTER, f"{head} set not null")
    return _made(change, create=late if change.after == "not null not valid" else f"{head} set not null", drop=f"{head} drop not null")


def _constraint(change: Change) -> tuple[Act, ...]:
    table, name, _ = _held(change.identity)
    return _constrained(change, f"alter table {table}", name)


def _domain_constraint(change: Change) -> tuple[Act, ...]:
    domain, name, _ = _held(change.identity)
    return _constrained(change, f"alter domain {domain}", name)


def _constrained(change: Change, head: str, name: str) -> tuple[Act, ...]:
    validated = change.before == f"{change.after} NOT VALID"
    return _made(
        change,
        create=f"{head} add constraint {name} {change.after}",
        drop=f"{head} drop constraint {name}",
        alter=f"{head} validate constraint {name}" if validated else None,
    )


def _index(change: Change, concurrently: bool) -> tuple[Act, ...]:
    drop = f"drop index {'concurrently ' if concurrently else ''}{change.identity}"
    if change.after is None:
        return _acts(change, Phase.DROP, drop)
    definition, state = index_state(change.after)
    if state.startswith(" INVALID, not attached"):
        create = definition
    elif state:
        raise refuse(change, "an index cannot be made INVALID on purpose")
    else:
        # pg_get_indexdef prints ON ONLY for every index of a partitioned table; with ONLY it would stay INVALID
        create = re.sub(r"^(CREATE (?:UNIQUE )?INDEX (?:\"(?:[^\"]|\"\")*\"|\S+) ON) ONLY ", r"\1 ", definition)
    if concurrently:
        create = re.sub(r"^CREATE (UNIQUE )?INDEX ", r"CREATE \1INDEX CONCURRENTLY ", create)
    return _made(change, create=create, drop=drop)


def _trigger(change: Change) -> tuple[Act, ...]:
    relation, name, _ = _held(change.identity)
    return _made(change, create=change.after or "", drop=f"drop trigger {name} on {relation}")


def _trigger_state(change: Change) -> tuple[Act, ...]:
    relation, name, _ = _held(change.identity)
    words = {"disabled": "disable", "replica": "enable replica", "always": "enable always", None: "enable"}
    return _acts(change, Phase.CREATE, f"alter table {relation} {words[change.after]} trigger {name}")


def _rule(change: Change) -> tuple[Act, ...]:
    relation, name, _ = _held(change.identity)
    return _made(change, create=change.after or "", drop=f"drop rule {name} on {relation}")


def _policy(change: Change) -> tuple[Act, ...]:
    relation, name, _ = _held(change.identity)
    return _made(change, create=f"create policy {name} on {relation} {change.after}", drop=f"drop policy {name} on {relation}")


# -- columns -----------------------------------------------------------------------------------------------------------

_COLUMN = re.compile(
    r"(?P<type>.*?)(?P<collate> collate .*?)?"
    r"(?: generated (?P<identity>always|by default) as identity(?: \((?P<options>[^)]*)\))?| generated always as (?P<expression>\(.*\) \w+))?",
    re.DOTALL,
)


def _column(change: Change) -> tuple[Act, ...]:
    table, column, _ = _held(change.identity)
    if change.before is None or change.after is None:
        return _made(
            change,
            create=f"alter table {table} add column {column} {change.after}",
            drop=f"alter table {table} drop column {column}",
        )
    old, new = _COLUMN.fullmatch(change.before), _COLUMN.fullmatch(change.after)
    if old is None or new is None or (new["expression"] and old["expression"] != new["expression"]):
        raise refuse(change, "a column's generation expression cannot be altered")
    return _column_altered(change, f"alter table {table} alter column {column}", column, old, new)


def _column_altered(change: Change, head: str, column: str, old: re.Match[str], new: re.Match[str]) -> tuple[Act, ...]:
    """Type in place; identity goes before NOT NULL goes, and comes after NOT NULL came, as PostgreSQL demands."""
    found: list[Act] = []
    if old["expression"] and not new["expression"]:
        found += _acts(change, Phase.DROP, f"{head} drop expression")
    if old["identity"] and (old["identity"], old["options"]) != (new["identity"], new["options"]):
        found += _acts(change, Phase.DROP, f"{head} drop identity", "identity")
    if (old["type"], old["collate"]) != (new["type"], new["collate"]):
        found += _acts(change, Phase.ALTER, f"{head} type {new['type']}{new['collate'] or ''}{_using(column, new['type'])}")
    if new["identity"] and (old["identity"], old["options"]) != (new["identity"], new["options"]):
        options = f" ({new['options']})" if new["options"] else ""
        found += _acts(change, Phase.CREATE, f"{head} add generated {new['identity']} as identity{options}", "identity")
    return tuple(found)


def _using(column: str, new_type: str) -> str:
    """An explicit cast, but not to text types: there every type goes by itself, and a cast would cut values off in silence."""
    return "" if re.match(r"(text|character|bpchar)\b", new_type) else f" using cast({column} as {new_type})"


# -- everything else ---------------------------------------------------------------------------------------------------


def _plain(word: str, *, before_definition: str = " ") -> Callable[[Change], tuple[Act, ...]]:
    """Kinds whose definition completes ``create <word> <identity>``, and that cannot be altered from it."""

    def make(change: Change) -> tuple[Act, ...]:
        create = f"create {word} {change.identity}{before_definition}{change.after}"
        return _made(change, create=create, drop=f"drop {word} {change.identity}")

    return make


def _schema(change: Change) -> tuple[Act, ...]:
    return _made(change, create=f"create schema {change.identity}", drop=f"drop schema {change.identity}")


def _extension(change: Change) -> tuple[Act, ...]:
    schema, _, version = (change.after or "").removeprefix("schema ").rpartition(" version ")
    alter: list[str] = []
    if change.before and not change.before.endswith(f" version {version}"):
        alter.append(f"alter extension {change.identity} update to {version}")
    if change.before and not change.before.startswith(f"schema {schema} version "):
        alter.append(f"alter extension {change.identity} set schema {schema}")
    create = f"create extension {change.identity} with {change.after}"
    return _made(change, create=create, drop=f"drop extension {change.identity}", alter=tuple(alter))


def _sequence(change: Change) -> tuple[Act, ...]:
    return _made(
        change,
        create=f"create sequence {change.identity} {change.after}",
        drop=f"drop sequence {change.identity}",
        alter=f"alter sequence {change.identity} {change.after}",
    )


def _sequence_owner(change: Change) -> tuple[Act, ...]:
    phase = Phase.CREATE if change.after else Phase.DROP
    return _acts(change, phase, f"alter sequence {change.identity} owned by {change.after or 'none'}")


def _view(change: Change) -> tuple[Act, ...]:
    """Replaced in place when it only gains columns at its end; so its grants, comments and dependents stay."""
    (old, _), (new, query) = (_columns_and_query(text) for text in (change.before, change.after))
    grows = change.before is not None and (new + ",").startswith(old + ",")
    return _made(
        change,
        create=f"create view {change.identity} as\n{query}",
        drop=f"drop view {change.identity}",
        alter=f"create or replace view {change.identity} as\n{query}" if grows else None,
    )


def _matview(change: Change) -> tuple[Act, ...]:
    query = _columns_and_query(change.after)[1]
    return _made(change, create=f"create materialized view {change.identity} as\n{query}", drop=f"drop materialized view {change.identity}")


def _columns_and_query(definition: str | None) -> tuple[str, str]:
    """The comment that names the columns, and the query below it."""
    head, _, query = (definition or "").partition("\n")
    return head.removeprefix("-- (").removesuffix(")"), query


def _function(change: Change) -> tuple[Act, ...]:
    """Replaced in place while its arguments and its result stay the same."""
    heads = [(text or "").partition("\n LANGUAGE ")[0] for text in (change.before, change.after)]
    create = (change.after or "").rstrip()
    alter = create if heads[0] == heads[1] else None
    return _made(change, create=create, drop=f"drop routine {change.identity}", alter=alter)


def _statistics(change: Change) -> tuple[Act, ...]:
    return _made(change, create=change.after or "", drop=f"drop statistics {change.identity}")


def _enum(change: Change) -> tuple[Act, ...]:
    create = f"create type {change.identity} as enum {change.after}"
    if change.before is None or change.after is None:
        return _made(change, create=create, drop=f"drop type {change.identity}")
    old, new = (re.findall(r"'(?:[^']|'')*'", text) for text in (change.before, change.after))
    renamed = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
    if len(old) == len(new) and not {a for a, _ in renamed} & set(new):
        return _acts(change, Phase.ALTER, tuple(f"alter type {change.identity} rename value {a} to {b}" for a, b in renamed))
    if [label for label in new if label in old] != old:
        raise refuse(change, "PostgreSQL cannot take a value out of an enum; that takes a new type and a rewrite of its columns")
    added = []
    for position, label in enumerate(new):
        if label not in old:
            where = f"after {new[position - 1]}" if position else f"before {old[0]}" if old else ""
            added.append(f"alter type {change.identity} add value {label} {where}".rstrip())
    return _acts(change, Phase.ALTER, tuple(added))


_DOMAIN = re.compile(r"(?P<base>.*?)(?: default (?P<default>.*?))?(?P<not_null> not null)?", re.DOTALL)


def _domain(change: Change) -> tuple[Act, ...]:
    head = f"alter domain {change.identity}"
    alter: list[str] = []
    if change.before and change.after:
        old, new = _DOMAIN.fullmatch(change.before), _DOMAIN.fullmatch(change.after)
        if old is None or new is None or old["base"] != new["base"]:
            raise refuse(change, "the type under a domain cannot be altered")
        if old["default"] != new["default"]:
            alter.append(f"{head} set default {new['default']}" if new["default"] else f"{head} drop default")
        if old["not_null"] != new["not_null"]:
            alter.append(f"{head} {'set' if new['not_null'] else 'drop'} not null")
    return _made(change, create=f"create domain {change.identity} as {change.after}", drop=f"drop domain {change.identity}", alter=tuple(alter))


def _composite(change: Change) -> tuple[Act, ...]:
    if change.before and change.after:
        raise refuse(change, "the attributes of a composite type are altered one by one, by hand")
    return _made(change, create=f"create type {change.identity} as {change.after}", drop=f"drop type {change.identity}")


def _range(change: Change) -> tuple[Act, ...]:
    return _made(change, create=f"create type {change.identity} as range {change.after}", drop=f"drop type {change.identity}")


# -- comments, roles, rare kinds ---------------------------------------------------------------------------------------


def _comment(change: Change) -> tuple[Act, ...]:
    text = "null" if change.after is None else literal(change.after)
    return _acts(change, Phase.CREATE, f"comment on {change.identity} is {text}")


def parts_of_grant(identity: str) -> tuple[str, str, str]:
    """``table public.t to alice`` -> ("table", "public.t", "alice")."""
    label, _, role = identity.rpartition(" to ")
    word, _, name = label.partition(" ")
    return word, name, role


def _grant(change: Change) -> tuple[Act, ...]:
    word, name, role = parts_of_grant(change.identity)
    columns = f" ({names.last(name)})" if word == "column" else ""
    place = f"table {names.parent(name)}" if word == "column" else f"{word} {name}"
    statements = [] if change.before in (None, "none") and change.after != "none" else [f"revoke all{columns} on {place} from {role}"]
    wanted = change.after
    if change.after is None and change.before == "none":
        wanted = {"routine": "EXECUTE", "type": "USAGE"}.get(word)
        if wanted is None or role != "public":
            raise refuse(change, "which privileges it had by default is not part of the definition")
    privileges = wanted.split(", ") if wanted and wanted != "none" else []
    for suffix in ("", " with grant option"):
        some = [p.removesuffix(" with grant option") + columns for p in privileges if p.endswith(" with grant option") == bool(suffix)]
        if some:
            statements.append(f"grant {', '.join(some)} on {place} to {role}{suffix}")
    return _acts(change, Phase.CREATE, tuple(statements))


def _owner(change: Change) -> tuple[Act, ...]:
    return _acts(change, Phase.CREATE, f"alter {change.identity} owner to {change.after}") if change.after else ()


def _publication(change: Change) -> tuple[Act, ...]:
    if change.after and re.search(r" columns | where \.\.\.|publish_via_partition_root|for nothing", change.after):
        raise refuse(change, _LOSSY)
    return _plain("publication")(change)


def _rare(change: Change) -> tuple[Act, ...]:
    """Kinds of which only the existence is known, or that hold secrets: they can be dropped, not made."""
    if change.after is not None:
        raise refuse(change, _LOSSY)
    word = {"foreign-data_wrapper": "foreign data wrapper", "foreign_server": "server"}.get(change.kind)
    return _acts(change, Phase.DROP, f"drop {word or change.kind.replace('_', ' ')} {change.identity}")


_KINDS: dict[str, Callable[[Change], tuple[Act, ...]]] = {
    "schema": _schema, "extension": _extension, "table": _table, "partition": _partition, "inherits": _inherits,
    "option": _option, "row_security": _row_security, "replica_identity": _replica_identity, "column": _column,
    "column_setting": _column_setting, "default": _default, "not_null": _not_null, "constraint": _constraint,
    "sequence": _sequence, "sequence_owner": _sequence_owner, "view": _view, "matview": _matview, "function": _function,
    "aggregate": _plain("aggregate"), "trigger": _trigger, "trigger_state": _trigger_state, "rule": _rule, "policy": _policy,
    "enum": _enum, "domain": _domain, "domain_constraint": _domain_constraint, "composite": _composite, "range": _range,
    "statistics": _statistics, "comment": _comment, "grant": _grant, "owner": _owner, "publication": _publication,
    "event_trigger": _plain("event trigger"),
}  # fmt: skip
