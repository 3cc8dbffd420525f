"""The SQL that makes, alters or drops one facet of a table: columns, constraints, indexes, triggers, settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from mend.change.act import Act, Phase, acted, held, literal, made, refuse
from mend.database import names
from mend.database.catalog import Change, index_state


def _table(change: Change) -> tuple[Act, ...]:
    after, (persistence, _, key) = change.after or "", (change.after or "").partition(" partition by ")
    if change.before is None and key:
        raise refuse(change, "a partitioned table cannot be made without its columns, which are other changes")
    if change.before and change.after and (change.before.partition(" ")[2], after.partition(" ")[2]) != ("", ""):
        raise refuse(change, "how a table is partitioned cannot be altered")
    unlogged = "unlogged " if persistence == "unlogged" else ""
    return made(
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

    drop = (
        f"alter table {parent_of_partition(change.before)[0]} detach partition {change.identity}"
        if change.before
        else ""
    )
    return made(change, create=attach(change.after) if change.after else "", drop=drop)


def _inherits(change: Change) -> tuple[Act, ...]:
    before, after = ((text or "").split(", ") if text else [] for text in (change.before, change.after))
    gone = tuple(f"alter table {change.identity} no inherit {parent}" for parent in before if parent not in after)
    come = tuple(f"alter table {change.identity} inherit {parent}" for parent in after if parent not in before)
    return acted(change, Phase.DROP, gone) + acted(change, Phase.CREATE, come)


def _option(change: Change) -> tuple[Act, ...]:
    relation, name, rest = held(change.identity)
    option = f"{name}.{rest}" if rest else name
    value = f"alter table {relation} set ({option} = {literal(change.after or '')})"
    return made(change, create=value, drop=f"alter table {relation} reset ({option})", alter=value)


def _tablespace(change: Change) -> tuple[Act, ...]:
    """It moves the files, under the strongest lock: what it takes is as long as the table is large."""
    return acted(change, Phase.ALTER, f"alter table {change.identity} set tablespace {change.after or 'pg_default'}")


def _foreign_option(change: Change) -> tuple[Act, ...]:
    parts = names.split(change.identity)
    table = ".".join(parts[:2])
    if change.after == "...":
        raise refuse(change, "its value is a secret, and not kept")
    verb = "add" if change.before is None else "set" if change.after is not None else "drop"
    value = f" {literal(change.after)}" if change.after is not None else ""
    column = f"alter column {parts[2]} " if len(parts) > 3 else ""
    return acted(change, Phase.ALTER, f"alter foreign table {table} {column}options ({verb} {parts[-1]}{value})")


def _row_security(change: Change) -> tuple[Act, ...]:
    statements = []
    for word, on, off in (("enabled", "enable", "disable"), ("forced", "force", "no force")):
        was, will = (word in (text or "") for text in (change.before, change.after))
        if was != will:
            statements.append(f"alter table {change.identity} {on if will else off} row level security")
    return acted(change, Phase.CREATE if change.after else Phase.ALTER, tuple(statements))


def _replica_identity(change: Change) -> tuple[Act, ...]:
    return acted(change, Phase.CREATE, f"alter table {change.identity} replica identity {change.after or 'default'}")


def _column_setting(change: Change) -> tuple[Act, ...]:
    table, column, name = held(change.identity)
    head = f"alter table {table} alter column {column}"
    if name in ("statistics", "storage", "compression"):
        own = (change.before or "").partition(" instead of ")[2]
        value = (change.after or "").partition(" instead of ")[0] or {"statistics": "-1", "storage": own}.get(
            name, "default"
        )
        return acted(change, Phase.ALTER if change.before else Phase.CREATE, f"{head} set {name} {value}")
    value = f"{head} set ({name} = {change.after})"
    return made(change, create=value, drop=f"{head} reset ({name})", alter=value)


def _default(change: Change) -> tuple[Act, ...]:
    table, column, _ = held(change.identity)
    value = f"alter table {table} alter column {column} set default {change.after}"
    return made(change, create=value, drop=f"alter table {table} alter column {column} drop default")


def _not_null(change: Change) -> tuple[Act, ...]:
    table, column, _ = held(change.identity)
    head = f"alter table {table} alter column {column}"
    late = f"alter table {table} add not null {column} not valid"
    if change.before == "not null not valid" and change.after == "not null":
        return acted(change, Phase.ALTER, f"{head} set not null")
    return made(
        change,
        create=late if change.after == "not null not valid" else f"{head} set not null",
        drop=f"{head} drop not null",
    )


def _constraint(change: Change) -> tuple[Act, ...]:
    table, name, _ = held(change.identity)
    return constrained(change, f"alter table {table}", name)


def constrained(change: Change, head: str, name: str) -> tuple[Act, ...]:
    validated = change.before == f"{change.after} NOT VALID"
    return made(
        change,
        create=f"{head} add constraint {name} {change.after}",
        drop=f"{head} drop constraint {name}",
        alter=f"{head} validate constraint {name}" if validated else None,
    )


_ON_ONLY = re.compile(r"^(CREATE (?:UNIQUE )?INDEX (?:\"(?:[^\"]|\"\")*\"|\S+) ON) ONLY ")


def over_partitions(definition: str) -> bool:
    """Whether an index is that of a partitioned table, which is neither built nor dropped concurrently: pg_get_indexdef prints ON ONLY."""
    return bool(_ON_ONLY.match(definition))


def index(change: Change, concurrently: bool) -> tuple[Act, ...]:
    concurrently &= not over_partitions(change.after or change.before or "")
    drop = f"drop index {'concurrently ' if concurrently else ''}{change.identity}"
    if change.after is None:
        return acted(change, Phase.DROP, drop)
    definition, state = index_state(change.after)
    if state.startswith(" INVALID, not attached"):
        create = definition
    elif state:
        raise refuse(change, "an index cannot be made INVALID on purpose")
    else:
        create = _ON_ONLY.sub(r"\1 ", definition)  # with ONLY it would stay INVALID
    if concurrently:
        create = re.sub(r"^CREATE (UNIQUE )?INDEX ", r"CREATE \1INDEX CONCURRENTLY ", create)
    return made(change, create=create, drop=drop)


def _trigger(change: Change) -> tuple[Act, ...]:
    relation, name, _ = held(change.identity)
    return made(change, create=change.after or "", drop=f"drop trigger {name} on {relation}")


def _trigger_state(change: Change) -> tuple[Act, ...]:
    relation, name, _ = held(change.identity)
    words = {"disabled": "disable", "replica": "enable replica", "always": "enable always", None: "enable"}
    return acted(change, Phase.CREATE, f"alter table {relation} {words[change.after]} trigger {name}")


def _rule(change: Change) -> tuple[Act, ...]:
    relation, name, _ = held(change.identity)
    return made(change, create=change.after or "", drop=f"drop rule {name} on {relation}")


def _policy(change: Change) -> tuple[Act, ...]:
    relation, name, _ = held(change.identity)
    return made(
        change, create=f"create policy {name} on {relation} {change.after}", drop=f"drop policy {name} on {relation}"
    )


# -- columns -----------------------------------------------------------------------------------------------------------

_COLUMN = re.compile(
    r"(?P<type>.*?)(?P<collate> collate .*?)?"
    r"(?: generated (?P<identity>always|by default) as identity(?: \((?P<options>[^)]*)\))?| generated always as (?P<expression>\(.*\) \w+))?",
    re.DOTALL,
)


def _column(change: Change) -> tuple[Act, ...]:
    table, column, _ = held(change.identity)
    if change.before is None or change.after is None:
        return made(
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
        found += acted(change, Phase.DROP, f"{head} drop expression")
    if old["identity"] and (old["identity"], old["options"]) != (new["identity"], new["options"]):
        found += acted(change, Phase.DROP, f"{head} drop identity", "identity")
    if (old["type"], old["collate"]) != (new["type"], new["collate"]):
        found += acted(
            change, Phase.ALTER, f"{head} type {new['type']}{new['collate'] or ''}{_using(column, new['type'])}"
        )
    if new["identity"] and (old["identity"], old["options"]) != (new["identity"], new["options"]):
        options = f" ({new['options']})" if new["options"] else ""
        found += acted(change, Phase.CREATE, f"{head} add generated {new['identity']} as identity{options}", "identity")
    return tuple(found)


def _using(column: str, new_type: str) -> str:
    """An explicit cast, but not to text types: there every type goes by itself, and a cast would cut values off in silence."""
    return "" if re.match(r"(text|character|bpchar)\b", new_type) else f" using cast({column} as {new_type})"


KINDS: dict[str, Callable[[Change], tuple[Act, ...]]] = {
    "table": _table,
    "partition": _partition,
    "inherits": _inherits,
    "option": _option,
    "row_security": _row_security,
    "tablespace": _tablespace,
    "foreign_option": _foreign_option,
    "replica_identity": _replica_identity,
    "column": _column,
    "column_setting": _column_setting,
    "default": _default,
    "not_null": _not_null,
    "constraint": _constraint,
    "trigger": _trigger,
    "trigger_state": _trigger_state,
    "rule": _rule,
    "policy": _policy,
}
