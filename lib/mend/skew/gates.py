"""The gates between the phases of a change: questions that must find no row before the next phase may be planned, and again before it begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql as pgsql
from sqlalchemy.exc import DBAPIError

from mend.database import names
from mend.diagnosis import Site
from mend.errors import InvalidParameter, MendError, from_driver
from mend.repairs import subject
from mend.skew import placeholders, twins
from mend.skew.phase_parts import Part
from mend.slow import dml, takeover
from mend.slow.takeover import Takeover
from mend.values import expressions

if TYPE_CHECKING:
    from mend.skew.sides import Facts


_TIMEOUT_MS = 300_000  # a gate may read a whole table


@dataclass(frozen=True)
class Gate:
    """One question.  ``holds``: True where it found no row, None where it could not be asked (``why``).  ``rows``: it is about rows of tables."""

    says: str
    sql: str
    rows: bool = False
    holds: bool | None = None
    why: str = ""


def asked(site: Site, questions: Iterable[Gate]) -> tuple[Gate, ...]:
    """Ask each of them."""
    return tuple(_answer(site, one) for one in questions)


def _answer(site: Site, gate: Gate) -> Gate:
    try:
        with site.target.reading(site.run_id) as conn:
            conn.exec_driver_sql(f"set local statement_timeout = {_TIMEOUT_MS}")
            found = conn.exec_driver_sql(gate.sql.replace("%", "%%")).fetchone()
    except MendError as error:
        return replace(gate, why=error.message.split(". ")[0])
    except DBAPIError as error:
        return replace(gate, why=from_driver(error, "It could not be asked", "Nothing was changed.").message)
    return replace(gate, holds=found is None, why="" if found is None else f"there is one: {found[0]}")


def stands(part: Part) -> Gate:
    """What the expansion makes is there: the column, and its trigger where it is a second name."""
    table, name = _text(part.table), _text(names.unquoted(names.last(part.column)))
    lacks = f"not exists (select from pg_catalog.pg_attribute where attrelid = to_regclass({table}) and attname = {name} and not attisdropped)"
    if part.kind == "twin":
        triggers = ", ".join(_text(names.unquoted(one)) for one in twins.trigger_names(part.source, part.column))
        lacks += f" or (select count(*) from pg_catalog.pg_trigger where tgrelid = to_regclass({table}) and tgname in ({triggers}) and tgenabled in ('O', 'A')) < 2"
    return Gate(
        f"{part.column} is there{', and is kept in step' if part.kind == 'twin' else ''}",
        f"select {_text(f'{part.column} lacks')} as lacking where {lacks}",
    )


def in_step(part: Part) -> Gate:
    """Both names hold the same, and the trigger that keeps them so is there."""
    there = stands(part)
    rows = f"select {_text(f'a row of {part.table}')} as lacking from {part.table} where {twins.behind(part.source, part.column)}"
    return Gate(
        f"every row of {part.table} holds the same as {names.last(part.source)} and as {names.last(part.column)}",
        f"({there.sql}) union all ({rows} limit 1)",
        rows=True,
    )


def no_null(part: Part) -> Gate:
    """No row without a value is left."""
    text = f"select {_text(f'a row of {part.table}')} as lacking from {part.table} where {names.last(part.column)} is null limit 1"
    return Gate(f"no row of {part.table} is without {names.last(part.column)}", text, rows=True)


def changed(take: Takeover) -> Gate:
    """No row is left that the history's own change would still change."""
    text = f"select {_text(f'a row of {take.table}')} as lacking from {take.table} as t where {take.where} limit 1"
    return Gate(f"no row of {take.table} is left that the revision would change", text, rows=True)


def gone(application: str) -> Gate:
    """No session of the old application is left, nor one that may be of it and is hidden from us (grant pg_monitor)."""
    text = (
        "select 'pid ' || pid || case when query = '<insufficient privilege>' then ', of which nothing is visible: grant pg_monitor' else '' end as lacking from pg_catalog.pg_stat_activity where datname = current_database() "
        f"and (application_name = {_text(application)} or query = '<insufficient privilege>') and pid <> pg_backend_pid() order by pid limit 1"
    )
    return Gate(f"no session of {application} is left", text)


def _text(value: str) -> str:
    return pgsql.Literal(value).as_string(None)


def fills(site: Site, facts: Facts, text: str) -> dict[str, str]:
    """What to write, from ``schema.table.column=expression``, several parted by ``;``: each is checked by the server.

    Raises: InvalidParameter.
    """
    found: dict[str, str] = {}
    for item in (one.text for one in placeholders.split(text, name="fill")):
        at = next((token.start() for token in names.TOKEN.finditer(item) if token[0] == "="), len(item))
        column, sign, expression = item[:at].strip(), item[at : at + 1], item[at + 1 :].strip()
        parts = names.split(column)
        if not sign or not expression or len(parts) not in (2, 3):
            raise InvalidParameter(
                f"fill has {item!r}. Nothing was changed. Write schema.table.column=expression, parted by ;."
            )
        table = subject.relation(site, ".".join(parts[:-1]))
        quoted = next(
            (
                names.last(i)
                for k, i in facts.live
                if k == "column"
                and names.parent(i) == table
                and names.unquoted(names.last(i)) == names.unquoted(parts[-1])
            ),
            "",
        )
        with site.target.reading(site.run_id) as conn:
            checked = expressions.checked(conn, expression, table=table, column=quoted)
        found[f"{table}.{quoted or parts[-1]}"] = checked.text
    return found


def takeovers(site: Site, facts: Facts, found: Sequence[Part]) -> Mapping[str, Takeover]:
    """How the history's own row changes are made in batches, by their SQL; with why not where they cannot be."""
    made = {}
    for part in found:
        if part.kind != "rows":
            continue
        change = dml.read(part.statement.sql)
        table = _relation(site, change.table) if change else ""
        with site.target.reading(site.run_id) as conn:
            made[part.statement.sql] = takeover.examine(conn, change if table else None, table, facts.live)
    return made


def _relation(site: Site, written: str) -> str:
    try:
        return subject.relation(site, written)
    except InvalidParameter:
        return ""
