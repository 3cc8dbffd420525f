"""The SQL that makes, alters or drops one facet of a catalog snapshot. Pure; ``mend.change.ddl`` puts many in order.

One function per kind of facet, in the table at the end; those of tables are in ``facets_of_tables``. Each takes the ``Change``
to make (before -> after) and gives ``Act``\\ s.  RESTRICT always: what depends on an object is a reason to stop, never
something to drop along.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mend.change import facets_of_tables
from mend.change.act import Act, Phase, acted, held, literal, made, refuse
from mend.change.facets_of_tables import constrained
from mend.database import names
from mend.database.catalog import Change

_LOSSY = "the definition is not kept in full"


def acts(change: Change, *, concurrently: bool = False) -> tuple[Act, ...]:
    """The statements that make one change; NotInvertible if its definitions are not enough for that."""
    if change.kind == "index":
        return facets_of_tables.index(change, concurrently)
    maker = _KINDS.get(change.kind, _rare)
    return maker(change)


def _plain(word: str, *, before_definition: str = " ") -> Callable[[Change], tuple[Act, ...]]:
    """Kinds whose definition completes ``create <word> <identity>``, and that cannot be altered from it."""

    def make(change: Change) -> tuple[Act, ...]:
        create = f"create {word} {change.identity}{before_definition}{change.after}"
        return made(change, create=create, drop=f"drop {word} {change.identity}")

    return make


def _schema(change: Change) -> tuple[Act, ...]:
    return made(change, create=f"create schema {change.identity}", drop=f"drop schema {change.identity}")


def _extension(change: Change) -> tuple[Act, ...]:
    schema, _, version = (change.after or "").removeprefix("schema ").rpartition(" version ")
    alter: list[str] = []
    if change.before and not change.before.endswith(f" version {version}"):
        alter.append(f"alter extension {change.identity} update to {version}")
    if change.before and not change.before.startswith(f"schema {schema} version "):
        alter.append(f"alter extension {change.identity} set schema {schema}")
    create = f"create extension {change.identity} with {change.after}"
    return made(change, create=create, drop=f"drop extension {change.identity}", alter=tuple(alter))


def _sequence(change: Change) -> tuple[Act, ...]:
    return made(
        change,
        create=f"create sequence {change.identity} {change.after}",
        drop=f"drop sequence {change.identity}",
        alter=f"alter sequence {change.identity} {change.after}",
    )


def _sequence_owner(change: Change) -> tuple[Act, ...]:
    phase = Phase.CREATE if change.after else Phase.DROP
    return acted(change, phase, f"alter sequence {change.identity} owned by {change.after or 'none'}")


def _view(change: Change) -> tuple[Act, ...]:
    """Replaced in place when it only gains columns at its end; so its grants, comments and dependents stay."""
    (old, _), (new, query) = (_columns_and_query(text) for text in (change.before, change.after))
    grows = change.before is not None and (new + ",").startswith(old + ",")
    return made(
        change,
        create=f"create view {change.identity} as\n{query}",
        drop=f"drop view {change.identity}",
        alter=f"create or replace view {change.identity} as\n{query}" if grows else None,
    )


def _matview(change: Change) -> tuple[Act, ...]:
    query = _columns_and_query(change.after)[1]
    return made(
        change,
        create=f"create materialized view {change.identity} as\n{query}",
        drop=f"drop materialized view {change.identity}",
    )


def _columns_and_query(definition: str | None) -> tuple[str, str]:
    """The comment that names the columns, and the query below it."""
    head, _, query = (definition or "").partition("\n")
    return head.removeprefix("-- (").removesuffix(")"), query


def _function(change: Change) -> tuple[Act, ...]:
    """Replaced in place while its arguments and its result stay the same."""
    heads = [(text or "").partition("\n LANGUAGE ")[0] for text in (change.before, change.after)]
    create = (change.after or "").rstrip()
    alter = create if heads[0] == heads[1] else None
    return made(change, create=create, drop=f"drop routine {change.identity}", alter=alter)


def _statistics(change: Change) -> tuple[Act, ...]:
    return made(change, create=change.after or "", drop=f"drop statistics {change.identity}")


def _enum(change: Change) -> tuple[Act, ...]:
    create = f"create type {change.identity} as enum {change.after}"
    if change.before is None or change.after is None:
        return made(change, create=create, drop=f"drop type {change.identity}")
    old, new = (re.findall(r"'(?:[^']|'')*'", text) for text in (change.before, change.after))
    renamed = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
    if len(old) == len(new) and not {a for a, _ in renamed} & set(new):
        return acted(
            change, Phase.ALTER, tuple(f"alter type {change.identity} rename value {a} to {b}" for a, b in renamed)
        )
    if [label for label in new if label in old] != old:
        raise refuse(
            change, "PostgreSQL cannot take a value out of an enum; that takes a new type and a rewrite of its columns"
        )
    added = []
    for position, label in enumerate(new):
        if label not in old:
            where = f"after {new[position - 1]}" if position else f"before {old[0]}" if old else ""
            added.append(f"alter type {change.identity} add value {label} {where}".rstrip())
    return acted(change, Phase.ALTER, tuple(added))


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
    return made(
        change,
        create=f"create domain {change.identity} as {change.after}",
        drop=f"drop domain {change.identity}",
        alter=tuple(alter),
    )


def _domain_constraint(change: Change) -> tuple[Act, ...]:
    domain, name, _ = held(change.identity)
    return constrained(change, f"alter domain {domain}", name)


def _composite(change: Change) -> tuple[Act, ...]:
    if change.before and change.after:
        raise refuse(change, "the attributes of a composite type are altered one by one, by hand")
    return made(change, create=f"create type {change.identity} as {change.after}", drop=f"drop type {change.identity}")


def _range(change: Change) -> tuple[Act, ...]:
    return made(
        change, create=f"create type {change.identity} as range {change.after}", drop=f"drop type {change.identity}"
    )


# -- comments, roles, rare kinds ---------------------------------------------------------------------------------------


def _comment(change: Change) -> tuple[Act, ...]:
    text = "null" if change.after is None else literal(change.after)
    return acted(change, Phase.CREATE, f"comment on {change.identity} is {text}")


def parts_of_grant(identity: str) -> tuple[str, str, str]:
    """``table public.t to alice`` -> ("table", "public.t", "alice")."""
    label, _, role = identity.rpartition(" to ")
    word, _, name = label.partition(" ")
    return word, name, role


def _grant(change: Change) -> tuple[Act, ...]:
    word, name, role = parts_of_grant(change.identity)
    columns = f" ({names.last(name)})" if word == "column" else ""
    place = f"table {names.parent(name)}" if word == "column" else f"{word} {name}"
    statements = (
        []
        if change.before in (None, "none") and change.after != "none"
        else [f"revoke all{columns} on {place} from {role}"]
    )
    wanted = change.after
    if change.after is None and change.before == "none":
        wanted = {"routine": "EXECUTE", "type": "USAGE"}.get(word)
        if wanted is None or role != "public":
            raise refuse(change, "which privileges it had by default is not part of the definition")
    privileges = wanted.split(", ") if wanted and wanted != "none" else []
    for suffix in ("", " with grant option"):
        some = [
            p.removesuffix(" with grant option") + columns
            for p in privileges
            if p.endswith(" with grant option") == bool(suffix)
        ]
        if some:
            statements.append(f"grant {', '.join(some)} on {place} to {role}{suffix}")
    return acted(change, Phase.CREATE, tuple(statements))


def _owner(change: Change) -> tuple[Act, ...]:
    return acted(change, Phase.CREATE, f"alter {change.identity} owner to {change.after}") if change.after else ()


def _default_privilege(change: Change) -> tuple[Act, ...]:
    """``for bob in app on tables to alice``."""
    head, _, grantee = change.identity.rpartition(" to ")
    head, _, word = head.rpartition(" on ")
    role, _, schema = head.removeprefix("for ").partition(" in ")
    if change.after is None and change.before == "none":
        raise refuse(change, "which privileges there are by default is not part of the definition")
    place = f"alter default privileges for role {role}" + (f" in schema {schema}" if schema else "")
    statements = (
        []
        if change.before in (None, "none") and change.after != "none"
        else [f"{place} revoke all on {word} from {grantee}"]
    )
    privileges = change.after.split(", ") if change.after and change.after != "none" else []
    for suffix in ("", " with grant option"):
        some = [
            p.removesuffix(" with grant option") for p in privileges if p.endswith(" with grant option") == bool(suffix)
        ]
        if some:
            statements.append(f"{place} grant {', '.join(some)} on {word} to {grantee}{suffix}")
    return acted(change, Phase.CREATE, tuple(statements))


def _setting(change: Change) -> tuple[Act, ...]:
    raise refuse(change, "it belongs to the database as a whole; use ALTER DATABASE or ALTER ROLE ... IN DATABASE")


def _user_mapping(change: Change) -> tuple[Act, ...]:
    if change.after is not None:
        raise refuse(change, "its options are secrets, and not kept")
    server, user = names.split(change.identity)
    return acted(change, Phase.DROP, f"drop user mapping for {user} server {server}")


def _publication(change: Change) -> tuple[Act, ...]:
    if change.after and re.search(r" columns | where \.\.\.|publish_via_partition_root|for nothing", change.after):
        raise refuse(change, _LOSSY)
    return _plain("publication")(change)


def _rare(change: Change) -> tuple[Act, ...]:
    """Kinds of which only the existence is known, or that hold secrets: they can be dropped, not made."""
    if change.after is not None:
        raise refuse(change, _LOSSY)
    word = {"foreign-data_wrapper": "foreign data wrapper", "foreign_server": "server"}.get(change.kind)
    return acted(change, Phase.DROP, f"drop {word or change.kind.replace('_', ' ')} {change.identity}")


_KINDS: dict[str, Callable[[Change], tuple[Act, ...]]] = {
    **facets_of_tables.KINDS,
    "schema": _schema,
    "extension": _extension,
    "sequence": _sequence,
    "sequence_owner": _sequence_owner,
    "view": _view,
    "matview": _matview,
    "function": _function,
    "aggregate": _plain("aggregate"),
    "enum": _enum,
    "domain": _domain,
    "domain_constraint": _domain_constraint,
    "composite": _composite,
    "range": _range,
    "statistics": _statistics,
    "comment": _comment,
    "grant": _grant,
    "owner": _owner,
    "publication": _publication,
    "default_privilege": _default_privilege,
    "setting": _setting,
    "user_mapping": _user_mapping,
    "event_trigger": _plain("event trigger"),
}
