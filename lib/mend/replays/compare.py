"""From what a revision does and what the database is now: which of its statements ran.

Every object that the revision touches goes through a sequence of states, one before the first statement and one after each.
The live state says after how many statements it could be so; what all objects allow together is how far the revision came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from mend.database.catalog import INDEX_STATES, ROLE_KINDS, Change, index_state
from mend.database.sqltext import guarded

if TYPE_CHECKING:
    import pandas

    from mend.replays.recording import Replay, Statement

COLUMNS = ["revision", "operation", "op", "statement", "says", "objects", "state", "ran", "detail", "sql"]
Key = tuple[str, str]
Places = frozenset[int]


@dataclass(frozen=True)
class _Object:
    """One object: its state before and after each statement, what it is now, and after how many statements it could be so."""

    key: Key
    states: tuple[str | None, ...]
    live: str | None
    places: Places
    lost: str = ""


@dataclass(frozen=True)
class _Verdict:
    state: str
    detail: str = ""
    ran: bool | None = None


def compare(replay: Replay, live: pandas.DataFrame, *, live_major: int = 0) -> pandas.DataFrame:
    """Judge every statement of a replayed revision against the live catalog.

    Parameters
    ----------
    replay : what the revision does
    live : ``catalog.snapshot`` of the target
    live_major : the target's major version, to level what servers of different versions print differently; 0 for the same

    Returns
    -------
    DataFrame, one row per statement: revision str · operation int64 · op str · statement int64 · says str · objects str ·
    state str (DONE, NOT_DONE, DIFFERENT; DATA: no trace in the catalog) · ran boolean (missing: nobody can tell) · detail str · sql str
    """
    import pandas

    cross = bool(live_major) and not replay.server_version.startswith(f"{live_major}.")
    now = {
        (kind, identity): definition
        for kind, identity, definition in live[["kind", "identity", "definition"]].itertuples(index=False)
    }
    verdicts = _Judge(replay.statements, now, _expected_homes(replay), cross=cross).verdicts()
    rows = [
        (
            one.revision,
            one.operation,
            one.op,
            one.index,
            one.says,
            objects_of(one.changes),
            verdict.state,
            _ran(verdict),
            verdict.detail,
            one.sql,
        )
        for one, verdict in zip(replay.statements, verdicts, strict=True)
    ]
    frame = pandas.DataFrame(rows, columns=COLUMNS)
    dtypes = {"operation": "int64", "statement": "int64", "ran": "boolean"}
    return frame.astype({name: dtypes.get(name, "str") for name in COLUMNS})


def operations(statements: pandas.DataFrame) -> pandas.DataFrame:
    """Sum the rows of ``compare`` up, one row per operation.

    Returns
    -------
    DataFrame: revision str · index int64 · operation str · objects str · state str · detail str
    """
    import pandas

    rows = []
    for (revision, index), group in statements.groupby(["revision", "operation"], sort=False):
        verdict = _sum_up(group["state"].tolist(), group["detail"].tolist())
        objects = "; ".join(dict.fromkeys(filter(None, group["objects"])))
        rows.append((revision, index, group["says"].iloc[0], objects, verdict.state, verdict.detail))
    frame = pandas.DataFrame(rows, columns=["revision", "index", "operation", "objects", "state", "detail"])
    return frame.astype({name: "int64" if name == "index" else "str" for name in frame.columns})


def objects_of(changes: Iterable[Change]) -> str:
    """The objects of some changes, the facets of a table that comes or goes as a whole left out."""
    several = list(changes)
    whole = {
        c.identity for c in several if c.kind in ("table", "view", "matview", "schema") and None in (c.before, c.after)
    }
    named = [c for c in several if not any(c.identity.startswith(f"{name}.") for name in whole)]
    kinds = {c.identity: c.kind for c in reversed(named) if c.kind not in ROLE_KINDS}
    return ", ".join(
        f"{kinds[identity]} {identity}" for identity in dict.fromkeys(c.identity for c in named) if identity in kinds
    )


class _Judge:
    def __init__(
        self, statements: Sequence[Statement], now: Mapping[Key, str], homes: frozenset[Key], *, cross: bool
    ) -> None:
        self.statements = statements
        self.count = len(statements)
        self.objects = _objects(statements, now, homes, cross=cross)
        known = [one.places for one in self.objects.values() if one.places]
        known += [
            frozenset(range(n, self.count + 1))
            for n, one in enumerate(statements, 1)
            if one.verdict == "DONE" and not one.changes
        ]
        self.joint = reduce(frozenset.intersection, known, frozenset(range(self.count + 1)))
        loose = {(c.kind, c.identity) for one in statements if guarded(one.sql) for c in one.changes}
        proofs = [one.places for key, one in self.objects.items() if one.places and key not in loose]
        #: What a guarded statement makes may have been there before, so it proves nothing about the statements around it.
        self.proven = reduce(frozenset.intersection, proofs, frozenset(range(self.count + 1)))

    def verdicts(self) -> list[_Verdict]:
        traced = [
            self._traced(number, one) if _compared(one) or one.verdict in ("DONE", "DIFFERENT") else None
            for number, one in enumerate(self.statements, 1)
        ]
        return [verdict or self._untraced(number, traced) for number, verdict in enumerate(traced, 1)]

    def _traced(self, number: int, one: Statement) -> _Verdict:
        """A statement that changes the catalog."""
        if not _compared(one):
            return _Verdict(one.verdict, one.detail)
        mine = [self.objects[c.kind, c.identity] for c in _compared(one)]
        strange = [_how(thing, number) for thing in mine if not thing.places]
        if strange:
            return _Verdict("DIFFERENT", "; ".join(dict.fromkeys(strange[:5])))
        places = self.joint or reduce(frozenset.intersection, [thing.places for thing in mine])
        if not places:
            there = [_name(thing.key) for thing in mine if min(thing.places) >= number]
            return _Verdict(
                "DIFFERENT", f"only a part is there: {', '.join(there[:5]) or 'in no order that the revision makes'}"
            )
        if min(places) >= number:
            return _Verdict("DONE", one.detail)
        if max(places) < number:
            return _Verdict("NOT_DONE")
        implied, ran = self._implied(number)
        return _Verdict("DATA", f"the revision takes it back itself; {implied}", ran)

    def _untraced(self, number: int, traced: Sequence[_Verdict | None]) -> _Verdict:
        """A statement that leaves no trace: what the others say about it."""
        one = self.statements[number - 1]
        implied, ran = self._implied(number, traced)
        if one.verdict == "UNTRIED" and self.joint and min(self.joint) >= number:
            return _Verdict("DONE", implied)
        if one.verdict == "UNTRIED" and not one.data:
            return _Verdict("DIFFERENT", one.detail)
        about = (
            "owners and privileges are not compared"
            if one.changes
            else "data"
            if one.data
            else "no change in the catalog"
        )
        return _Verdict(
            "DATA", "; ".join(filter(None, [f"not visible in the catalog: {about}", one.detail, implied])), ran
        )

    def _implied(self, number: int, traced: Sequence[_Verdict | None] = ()) -> tuple[str, bool | None]:
        """Did a statement without trace run, in words and as a value?  Statements of one transaction share their fate, and order tells the rest."""
        if not self.joint:
            return "cannot be told from the catalog: the others did not run in order", None
        segment = self.statements[number - 1].segment
        pairs = zip(self.statements, traced, strict=False)
        fates = {
            verdict.state: one.operation
            for one, verdict in pairs
            if one.segment == segment and verdict and not guarded(one.sql)
        }
        if set(fates) == {"DONE"}:
            return f"it ran: its transaction committed (operation {fates['DONE']} is there)", True
        if set(fates) == {"NOT_DONE"}:
            return (
                f"it did not run, or was rolled back with its transaction (operation {fates['NOT_DONE']} is missing)",
                False,
            )
        if number <= min(self.proven):
            return "it ran: a later operation is there", True
        if number > max(self.proven):
            return "it did not run: an earlier operation is missing", False
        return "whether it ran cannot be told from the catalog", None


def _ran(verdict: _Verdict) -> bool | None:
    """DONE ran and NOT_DONE did not; of a statement without trace, what the others say."""
    return {"DONE": True, "NOT_DONE": False}.get(verdict.state, verdict.ran)


def _compared(one: Statement) -> list[Change]:
    return [change for change in one.changes if change.kind not in ROLE_KINDS]


def _expected_homes(replay: Replay) -> frozenset[Key]:
    """Tables and columns that must be there before, during and after the revision."""
    base = () if replay.base is None else zip(replay.base["kind"], replay.base["identity"], strict=True)
    touched = {(change.kind, change.identity) for one in replay.statements for change in one.changes}
    return frozenset(
        (kind, identity) for kind, identity in base if kind in ("table", "column") and (kind, identity) not in touched
    )


def _home(key: Key) -> tuple[Key, ...]:
    """What an object lies in: a default in a column, a column in a table."""
    kind, identity = key
    owner = (
        ("column", identity)
        if kind in ("default", "not_null")
        else ("table", re.sub(r'\.(?:"(?:[^"]|"")+"|[^."]+)$', "", identity))
    )
    return (owner, *_home(owner)) if owner[0] == "column" else (owner,)


def _objects(
    statements: Sequence[Statement], now: Mapping[Key, str], homes: frozenset[Key], *, cross: bool
) -> dict[Key, _Object]:
    """Follow every object through the statements.  One whose table is missing is in no state: its absence means nothing."""
    states: dict[Key, list[str | None]] = {}
    for number, one in enumerate(statements, 1):
        for change in _compared(one):
            line = states.setdefault((change.kind, change.identity), [change.before] * (len(statements) + 1))
            line[number:] = [change.after] * (len(line) - number)
    found = {}
    for key, line in states.items():
        live = now.get(key)
        fits = frozenset(
            n for n, state in enumerate(line) if level(key[0], state, cross=cross) == level(key[0], live, cross=cross)
        )
        lost = next((home for home in _home(key) if home in homes and home not in now), None)
        found[key] = _Object(key, tuple(line), live, frozenset() if lost else fits, _name(lost) if lost else "")
    return found


def level(kind: str, definition: str | None, *, cross: bool) -> str | None:
    """A definition without what only the server's version decides, where two servers are compared (``cross``).

    Since 16 the columns of a view's only table stand bare.
    """
    if definition is None or not cross:
        return definition
    plain = re.sub(r"\s+", " ", definition)
    return re.sub(r"\b\w+\.(?=\w)", "", plain) if kind in ("view", "matview", "rule", "policy") else plain


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}"


def _how(thing: _Object, number: int) -> str:
    """In what an object is neither as before nor as after this statement."""
    kind, identity = thing.key
    expected, live = thing.states[number], thing.live
    if thing.lost:
        return f"{thing.lost} is missing"
    if kind == "index" and live and expected:
        definition, state = index_state(live)
        if state and definition == expected:
            return f"index {identity} is{state.split(',')[0]} ({INDEX_STATES[state]})"
    if live and expected and live.removesuffix(" NOT VALID") == expected:
        return f"{kind} {identity} is NOT VALID"
    if live and expected and live.removesuffix(" not valid") == expected:
        return f"{kind} {identity} is not valid"
    return f"{kind} {identity}: expected {_short(expected)}, found {_short(live)}"


def _short(definition: str | None) -> str:
    return "none" if definition is None else definition if len(definition) <= 200 else definition[:200] + "..."


def _sum_up(states: list[str], details: list[str]) -> _Verdict:
    """One operation's verdict from its statements'."""
    told = "; ".join(dict.fromkeys(filter(None, details)))
    shown = [state for state in states if state != "DATA"] or states
    if len(set(shown)) == 1:
        return _Verdict(shown[0], told)
    if "DIFFERENT" not in shown:
        told = "; ".join(filter(None, [f"{shown.count('DONE')} of {len(shown)} statements ran", told]))
    return _Verdict("DIFFERENT", told)
