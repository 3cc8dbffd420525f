"""What a whole history does: the statements of every revision, each with what it changed, without a snapshot around each.

Event triggers in the scratch database note what a statement touched (``mend.replays.spying``), and only that is read again: at once
where the statement could have touched anything, else together with the next ones, for as long as each is about an object of its own.
Without event triggers there is a snapshot after each statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mend.probe.recorder import Recorder, changed
from mend.probe.sessions import query
from mend.probe.sqltext import QUALIFIED, parts, skeleton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from mend.probe.wire import Wire


MOST_PENDING = 50  # statements that are looked at together
_IF_NOT = r"(?:if\s+not\s+exists\s+)?"
_PLAIN = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"create\s+(?:unlogged\s+)?table\s+" + _IF_NOT + "(?P<made>" + QUALIFIED + r")\s*\(",
        r"create\s+(?:unique\s+)?index\s+(?!concurrently\b)" + _IF_NOT + "(?!on\\b)(?P<made>" + QUALIFIED
        + r")\s+on\s+(?P<on>" + QUALIFIED + r")\s*(?:\(|using\b)",
        r"alter\s+table\s+(?P<made>" + QUALIFIED + r")\s+(?:add|alter|drop)\b(?!.*\bcascade\b)",
        r"comment\s+on\s+table\s+(?P<made>" + QUALIFIED + r")\s+is\b",
    )
]  # fmt: skip


class Subject:
    """What a plain statement is about: the one object that it touches, and the table that this lies on."""

    def __init__(self, made: str, on: str) -> None:
        self.made, self.on = made, on

    def crosses(self, earlier: Subject) -> bool:
        """Whether it could touch what an earlier one touched: names are compared bare, so that too much counts as the same."""
        return self.made in (earlier.made, earlier.on)


def subject(sql: str) -> Optional[Subject]:
    """The subject of a statement that touches one object of its own; None where its text does not tell that."""
    bare = skeleton(sql)
    if len(parts(bare)) != 1 or re.search(
        r"\b(rename|inherit|inherits|partition|attach|detach)\b", bare, re.IGNORECASE
    ):
        return None
    found = next((match for match in (pattern.match(bare.strip()) for pattern in _PLAIN) if match), None)
    if found is None:
        return None
    names = found.groupdict()
    return Subject(_last(names["made"]), _last(names["on"]) if names.get("on") else "")


def _last(name: str) -> str:
    return re.split(r"\s*\.\s*", name)[-1].strip('"').lower()


class Chronicle(Recorder):
    """The statements of all revisions, one revision after the other."""

    def __init__(self, asked: dict[str, Any], wire: Wire) -> None:
        super().__init__({"revision": "", **asked}, wire)
        self.look_sql: str = asked.get("look_sql", "")
        self.units: dict[int, dict[tuple[str, str], str]] = {}
        self.told: list[dict[str, Any]] = []
        self._pending: list[tuple[dict[str, Any], Subject]] = []
        self._subject: Optional[Subject] = None
        self._path = ""
        self._steady = True  # nobody has said SET so far
        self.reached = False  # what comes now is beyond the goals

    def begin(self, revision: str, conn: Any) -> None:
        """Before a revision's upgrade()."""
        if self.now != revision:
            self.now, self._operation = revision, 0
        self.statements, self._savepoints, self._settings = [], [], []
        self._label = self._counted = None
        self._boundary, self._path = True, self._path if self._steady else ""
        first = self._primary is None
        moved = not first and self._primary is not conn
        self._primary, self.inside, self.completed = conn, True, False
        if first or moved:
            self.look()
        if first:
            self.wire.tell("base", rows=[[kind, name, text] for (kind, name), text in sorted(self.seen.items())])

    def end(self, *, last: bool) -> None:
        """After it; ``last``: alembic's connection may be another one next time."""
        self.completed = True
        self._settle()
        if self._stale:
            self.look()
        elif last:
            self.catch_up()
        self.inside = False
        self.told.append({
            "revision": self.now, "statements": self.statements, "reads": list(dict.fromkeys(self.reads)), "looks": self.looks,
            "warnings": list(dict.fromkeys(self.warnings)),
        })  # fmt: skip
        self.reads, self.looks, self.warnings = [], False, []

    def reach(self, conn: Any) -> None:
        """The goals are reached; where there was nothing to run, what is there is the base."""
        self.reached = True
        if self._primary is None:
            self._primary = conn
            self.look()
            self.wire.tell("base", rows=[[kind, name, text] for (kind, name), text in sorted(self.seen.items())])

    def tell(self) -> None:
        """Everything that was recorded, one event for each run of a revision."""
        for one in self.told:
            self.wire.tell("ran", **one)
        self.told = []

    def look(self) -> dict[tuple[str, str], str]:
        """The whole catalog."""
        units: dict[int, dict[tuple[str, str], str]] = {}
        for unit, kind, identity, text in query(self._primary, self.snapshot_sql):
            units.setdefault(int(unit), {})[kind, identity] = text
        if self.look_sql:
            query(self._primary, "select pg_catalog.set_config('mend.touched', '', false)")
        self.units, self._pending, self._stale = units, [], False
        self.seen = {key: text for facets in units.values() for key, text in facets.items()}
        return self.seen

    def catch_up(self) -> None:
        """Read again what the pending statements touched, and give each of them what changed."""
        if not self._pending:
            return
        rows = query(self._primary, self.look_sql)
        if any(kind == "w" for _, kind, _, _ in rows):
            self._whole(self._pending[-1][0])
            return
        by_unit: dict[int, int] = {}
        found: dict[int, dict[tuple[str, str], str]] = {}
        for unit, kind, identity, text in rows:
            if kind == "":
                by_unit[int(unit)] = max(int(identity), by_unit.get(int(unit), 0))
            else:
                found.setdefault(int(unit), {})[kind, identity] = text
        drafts = [draft for draft, _ in self._pending]
        self._pending = []
        for unit, group in sorted(by_unit.items()):
            draft = drafts[min(group, len(drafts)) - 1]
            draft["changes"] = [*draft["changes"], *self._replaced(unit, found.get(unit, {}))]

    def _replaced(self, unit: int, facets: dict[tuple[str, str], str]) -> list[list[Any]]:
        before = self.units.pop(unit, {})
        if facets:
            self.units[unit] = facets
        return changed(before, facets)

    def _whole(self, draft: dict[str, Any]) -> None:
        before = {key: text for facets in self.units.values() for key, text in facets.items()}
        draft["changes"] = [*draft["changes"], *changed(before, self.look())]

    def _settle(self) -> None:
        """What another session has committed by now belongs to the last statement that it sent."""
        if self._foreign is not None:
            self.catch_up()
            draft, self._foreign = self._foreign, None
            self._whole(draft)

    def _before_cursor_execute(
        self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        super()._before_cursor_execute(conn, cursor, statement, parameters, context, many)
        if self.draft is None:
            return
        self._subject = subject(statement) if self.look_sql and not self._is_foreign(conn) else None
        crossing = self._subject is None or any(self._subject.crosses(earlier) for _, earlier in self._pending)
        if self._pending and (crossing or len(self._pending) >= MOST_PENDING):
            self.catch_up()

    def _after_cursor_execute(
        self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        draft, self.draft, self.failed_sql = self.draft, None, ""
        if draft is None:
            return
        self.statements.append(draft)
        if self._is_foreign(conn):
            self._foreign = draft
        elif not self.look_sql:
            self._whole(draft)
        else:
            self._pending.append((draft, self._subject or Subject("", "")))
            if self._subject is None:
                self.catch_up()

    def _search_path(self, conn: Any, sql: str) -> str:
        """Asked once, until somebody sets something; then once for each revision and after each SET."""
        if self._is_foreign(conn):
            return super()._search_path(conn, sql)
        known = self._path = self._path or super()._search_path(conn, sql)
        if "search_path" in sql:
            self._path, self._steady = "", False
        return known

    def _control(self, bare: str, sql: str) -> None:
        words = bare.strip().lower()
        if not words.startswith(("savepoint", "release")):
            self._path, self._steady = "", False
        if words.startswith("savepoint"):
            self.catch_up()
        super()._control(bare, sql)

    def _commit(self, conn: Any) -> None:
        self._path = self._path if self._steady else ""
        super()._commit(conn)

    def _rollback(self, conn: Any) -> None:
        self._path = self._path if self._steady else ""
        super()._rollback(conn)

    def _forget(self, kept: list[dict[str, Any]]) -> None:
        super()._forget(kept)
        self._pending = []


def goals(script: Any, context: Any, heads: Any, wanted: list[str]) -> Iterator[tuple[Any, bool]]:
    """alembic's own steps to each of these revisions, and whether a step is the last of its goal."""
    for goal in wanted:
        steps = list(script._upgrade_revs(goal, heads))
        for number, step in enumerate(steps, 1):
            yield step, number == len(steps)
        heads = context.get_current_heads()
