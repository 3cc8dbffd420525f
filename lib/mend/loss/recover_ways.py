"""The ways out after the fact: read a dropped column's values while they are on disk.  Pure, but for ``ROOM``'s look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mend.change import kept
from mend.change.act import literal
from mend.diagnosis import Check, Prevention, Site
from mend.loss import recover, recover_checks, recoverable
from mend.loss.loss_room import Room, Way
from mend.loss.recoverable import Facts
from mend.plan import Choice, Expect, Lock, Plan, Statement, Step

OPTIONS = ("recover",)
_SWITCH = "autovacuum_enabled"
_OFF = ("off", "false", "no", "0")
_WITHOUT = "What can be done without one: restore a backup, or the moment before, on another server and take the column from there; never in place"


def asks(site: Site, facts: Facts) -> Sequence[Callable[[], Check]]:
    """The questions about what was dropped."""
    return tuple(
        partial(ask, facts)
        for ask in (recover_checks.dropped, recover_checks.readable, recover_checks.evidence_at_risk)
    )


def evidence(facts: Facts) -> dict[str, Any]:
    """What a plan's digest covers: the marks that the columns left, what each is taken for, and the key."""
    if facts.lost is None:
        return {}
    lost = facts.lost
    return {
        "dropped": {one.relation: one.evidence() for one in lost.places},
        "lost": {
            "column": lost.identity,
            "definition": lost.definition,
            "type": lost.type.oid if lost.type else "",
            "key": dict(facts.key or {}),
        },
    }


def ways(facts: Facts, given: Mapping[str, Any]) -> Sequence[Way]:
    """Every option, with its steps or with why it is not possible."""
    says = "Read the values that are on disk still into a table of schema mend, in a transaction that is rolled back"
    costs = "room for the copy; the table's own DDL and VACUUM wait meanwhile; nobody else does"
    why_not = _why_not(facts)
    return ((Choice("recover", says, costs, not why_not, why_not), () if why_not else _steps(facts)),)


def _why_not(facts: Facts) -> str:
    if facts.lost is None:
        return (
            "no dropped column was named" if not facts.asked else "say which dropped column is meant: column, or attnum"
        )
    if not facts.superuser:
        return f"it needs a superuser, which {facts.role} is not: PostgreSQL lets nobody else write to pg_attribute. {_WITHOUT}"
    if facts.lost.against:
        return facts.lost.against
    if facts.lost.column in (facts.key or {}):
        return f"{facts.lost.column} is a column of the primary key now: the copy could not tell the two apart"
    if facts.readable == 0:
        return f"no row is as old as the column, so no value is left. {_WITHOUT}"
    return ""


def copy_of(facts: Facts) -> kept.Copy:
    """Where the values go; new for every plan."""
    assert facts.keeper is not None
    assert facts.lost is not None
    return kept.Copy(facts.keeper, facts.lost.identity, facts.lost.table)


def _steps(facts: Facts) -> tuple[Step, ...]:
    assert facts.lost is not None
    lost = facts.lost
    assert lost.type is not None
    assert lost.type.layout is not None
    wanted = recover.Wanted(
        lost.table, lost.column, lost.definition, lost.type.layout, facts.key or {}, lost.places, copy_of(facts)
    )
    quiet, loud = _switched(facts)
    return (*quiet, recover.step(wanted, rows_expected=facts.readable), *loud)


# -- autovacuum ---------------------------------------------------------------------------------------------------------


def _switched(facts: Facts) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Autovacuum of these tables off, and on again as it was; nothing where it is off already."""
    off, on, back, before, after, touched = [], [], [], [], [], []
    for row in facts.vacuums.to_dict("records"):
        relation = str(row["relation"])
        prefixes = ["", "toast."] if row["has_toast"] else [""]
        kept = {"": list(row["options"]), "toast.": list(row["toast_options"])}
        loud = [prefix for prefix in prefixes if _value(kept[prefix]) not in _OFF]
        if not loud:
            continue
        touched.append(relation)
        off.append(f"alter table {relation} set ({', '.join(f'{prefix}{_SWITCH} = off' for prefix in loud)})")
        text = f"alter table {relation} {', '.join(_as_before(prefix, kept[prefix]) for prefix in loud)}"
        on.append(text)
        back.append(_if_off(relation, text))
        for prefix in loud:
            identity = f"{relation}.{prefix}{_SWITCH}"
            before.append(Expect("option", identity, _value(kept[prefix])))
            after.append(Expect("option", identity, "off"))
    if not touched:
        return (), ()
    locks = tuple(Lock(relation, "SHARE UPDATE EXCLUSIVE", "readers and writers go on") for relation in touched)
    named = ", ".join(touched)
    undo = Step(
        says=f"Switch autovacuum of {named} on again, if it is off still",
        statements=tuple(map(Statement, back)),
        locks=locks,
    )
    quiet = Step(
        says=f"Switch autovacuum of {named} off, so that it clears nothing away; one that is at work gives way to this",
        statements=tuple(map(Statement, off)), locks=locks, before=tuple(before), after=tuple(after), undo=(undo,),
    )  # fmt: skip
    loud_step = Step(
        says=f"Switch autovacuum of {named} on again, as it was", statements=tuple(map(Statement, on)), locks=locks,
        before=tuple(after), after=tuple(before),
    )  # fmt: skip
    return (quiet,), (loud_step,)


def _value(options: Sequence[str]) -> str | None:
    return next((one.partition("=")[2] for one in options if one.partition("=")[0] == _SWITCH), None)


def _as_before(prefix: str, options: Sequence[str]) -> str:
    """All of the options, in the order in which they stood; a name that is set goes to the end."""
    if _value(options) is None:
        return f"reset ({prefix}{_SWITCH})"
    return f"set ({', '.join(f'{prefix}{name} = {literal(value)}' for name, _, value in (one.partition('=') for one in options))})"


def _if_off(relation: str, text: str) -> str:
    """For undo, which runs also after the plan itself has switched it on."""
    return (
        f"do $mend$ begin\n  if exists (select from pg_catalog.pg_class where oid = cast({literal(relation)} as regclass) and '{_SWITCH}=off' = any(reloptions)) then\n"
        f"    {text};\n  end if;\nend $mend$"
    )


# -- the room -----------------------------------------------------------------------------------------------------------


def by_itself(facts: Facts) -> str:
    """Reading takes nothing away, so it may be taken where a column was named."""
    return "recover" if facts.lost is not None and not _why_not(facts) else ""


def unmet(made: Plan, facts: Facts) -> Sequence[str]:
    """The marks that the columns left are those that were reviewed."""
    if made.chosen != "recover":
        return ()
    now = evidence(facts).get("dropped", {})
    wanted = made.evidence.get("dropped", {}).items()
    return [f"pg_attribute of {name} is not as it was" for name, mark in wanted if dict(mark) != now.get(name)]


def further(facts: Facts, chosen: str) -> str:
    """What to do next."""
    if facts.lost is None or chosen != "recover":
        return ""
    if not facts.key:
        return f"{facts.lost.table} has no primary key: the copy says where each row lay (column {recover.PLACE}), and nothing puts it back by itself."
    return f"Then: mend plan data_loss -p copy {copy_of(facts).name} puts them back, where nothing else stands by then."


def preventions(facts: Facts) -> Sequence[Prevention]:
    """What would have kept the values."""
    if facts.lost is None:
        return ()
    return (
        Prevention(
            "Before a revision that drops a column runs: `mend plan data_loss` runs it with a verified copy in the same transaction."
        ),
    )


def warnings(facts: Facts, chosen: str) -> Sequence[str]:
    """What the bytes cannot tell; and whoever switched autovacuum off must switch it on again, as the undo of a failed run of ours does."""
    if chosen != "recover" or facts.vacuums is None or facts.lost is None or facts.lost.type is None:
        return ()
    kind = facts.lost.type
    alike = (
        [
            f"Any {kind.length} bytes can be read as {kind.printed}: if somebody changed the type by hand before the drop, the values mean "
            "something else. Look at some of them in the copy before they are put back."
        ]
        if kind.length > 0
        else []
    )
    off = [str(row["relation"]) for row in facts.vacuums.to_dict("records") if _value(list(row["options"])) in _OFF]
    return [
        *alike,
        *(
            f"Autovacuum of {one} is off already, and stays so. If a run of mend switched it off and failed, `mend undo` that run."
            for one in off
        ),
    ]


ROOM = Room(
    "dropped", OPTIONS, recoverable.look, asks, evidence, ways, by_itself, unmet, further, preventions, warnings
)
