"""Trying a revision on a copy of the target's schema, for histories that cannot start from an empty database."""

from __future__ import annotations

import re

from sqlalchemy import event
from sqlalchemy.engine import Engine

from mend.probe.recorder import Recorder, changed
from mend.probe.sessions import query, sqlstate
from mend.probe.sqltext import NAME, QUALIFIED, skeleton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

    from mend.probe.recorder import Snapshot


DUPLICATE = {"42701", "42P07", "42710", "42P06", "42723", "42P16", "42P04", "55000"}
UNDEFINED = {"42703", "42P01", "42704", "3F000", "42883"}
_IF_NOT = r"(?:if\s+not\s+exists\s+)?"
_ALTER = r"alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<t>" + QUALIFIED + r")\s+add\s+"
OBSTACLES = [
    (r"create\s+(?:unlogged\s+)?table\s+" + _IF_NOT + "(?P<t>" + QUALIFIED + ")", "drop table {t} cascade"),
    (r"create\s+(?:unique\s+)?index\s+(?:concurrently\s+)?" + _IF_NOT + "(?!on\b)(?P<n>" + NAME + r")\s+on\s+(?:only\s+)?(?P<t>" + QUALIFIED + ")",
     "drop index {schema}{n} cascade"),
    (r"create\s+type\s+(?P<t>" + QUALIFIED + ")", "drop type {t} cascade"),
    (r"create\s+domain\s+(?P<t>" + QUALIFIED + ")", "drop domain {t} cascade"),
    (r"create\s+sequence\s+" + _IF_NOT + "(?P<t>" + QUALIFIED + ")", "drop sequence {t} cascade"),
    (r"create\s+(?:or\s+replace\s+)?view\s+(?P<t>" + QUALIFIED + ")", "drop view {t} cascade"),
    (r"create\s+materialized\s+view\s+" + _IF_NOT + "(?P<t>" + QUALIFIED + ")", "drop materialized view {t} cascade"),
    (r"create\s+schema\s+" + _IF_NOT + "(?P<t>" + NAME + ")", "drop schema {t} cascade"),
    (r"create\s+extension\s+" + _IF_NOT + "(?P<t>" + NAME + ")", "drop extension {t} cascade"),
    (r"create\s+(?:or\s+replace\s+)?function\s+(?P<t>" + QUALIFIED + ")", "drop function {t} cascade"),
    (r"create\s+(?:or\s+replace\s+)?(?:constraint\s+)?trigger\s+(?P<n>" + NAME + r")\s.*?\son\s+(?P<t>" + QUALIFIED + ")", "drop trigger {n} on {t} cascade"),
    (r"create\s+policy\s+(?P<n>" + NAME + r")\s+on\s+(?P<t>" + QUALIFIED + ")", "drop policy {n} on {t}"),
    (_ALTER + r"constraint\s+(?P<n>" + NAME + ")", "alter table {t} drop constraint {n} cascade"),
    (_ALTER + r"(?:column\s+)?" + _IF_NOT + r"(?!foreign\b|unique\b|primary\b|check\b|exclude\b)(?P<n>" + NAME + ")", "alter table {t} drop column {n} cascade"),
]  # fmt: skip


def obstacle(sql: str) -> str:
    """The statement that removes what stands in the way of this one; '' where none is known."""
    bare = skeleton(sql).strip()
    for pattern, removal in OBSTACLES:
        found = re.match(pattern, bare, re.IGNORECASE | re.DOTALL)
        if found:
            names = found.groupdict()
            schema = re.match("(" + NAME + r")\s*\.", names["t"])
            return removal.format(t=names["t"], n=names.get("n"), schema=schema.group(1) + "." if schema else "")
    return ""


def _adds_value(bare: str) -> bool:
    return re.search(r"\badd\s+value\b", bare, re.IGNORECASE) is not None


def _drops(bare: str) -> bool:
    return re.match(r"\s*(drop\b|alter\s+table\b.*\sdrop\s)", bare, re.IGNORECASE | re.DOTALL) is not None


class Trial:
    """Tries each statement of the revision on a schema-only copy of the target.

    What changes the catalog had not run.  What meets its own object ("already exists") is made afresh: the object is
    dropped and the statement run, so that the copy follows the revision and mend can compare definitions.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        event.listen(Engine, "do_execute", self._do_execute)
        event.listen(Engine, "do_executemany", self._do_execute)
        event.listen(
            Engine,
            "do_execute_no_params",
            lambda cursor, statement, context: self._do_execute(cursor, statement, None, context),
        )

    def _do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> Optional[bool]:
        draft, conn = self.recorder.draft, context.root_connection
        if draft is None or self.recorder._is_foreign(conn):
            return None
        many = (
            isinstance(parameters, (list, tuple))
            and bool(parameters)
            and isinstance(parameters[0], (list, tuple, dict))
        )
        plain = re.sub(r"(index\s+)concurrently\s", r"\1", statement, flags=re.IGNORECASE)

        def run(sql: str) -> None:
            if many:
                cursor.executemany(sql, parameters)
            elif parameters is None:
                cursor.execute(sql)
            else:
                cursor.execute(sql, parameters)

        if draft["autocommit"]:
            query(conn, "begin")
        try:
            self._attempt(conn, draft, run, plain)
        finally:
            if draft["autocommit"]:
                query(conn, "commit")
        return True

    def _attempt(self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str) -> None:
        if not re.match(
            r"(vacuum|reindex|cluster|alter\s+system|create\s+database|drop\s+database)\b",
            skeleton(sql).strip(),
            re.IGNORECASE,
        ):
            before = dict(self.recorder.seen)
            error = self._in_savepoint(conn, lambda: run(sql))
            if error is None:
                self._succeeded(conn, draft, run, sql, before)
            else:
                self._failed(conn, draft, run, sql, error)
        else:
            draft.update(
                verdict="DATA", detail="cannot be tried in a scratch database; it leaves no trace in the catalog"
            )

    def _succeeded(
        self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str, before: Snapshot
    ) -> None:
        differences = changed(before, self.recorder.look())
        twin = self._twin(differences, before, sql)
        if twin:
            self._afresh(conn, draft, run, sql, twin)
        elif not differences and obstacle(sql) and re.search(r"\bif\s+not\s+exists\b", skeleton(sql), re.IGNORECASE):
            self._afresh(
                conn,
                draft,
                lambda text: run(re.sub(r"if\s+not\s+exists\s", "", text, flags=re.IGNORECASE)),
                sql,
                obstacle(sql),
            )
        elif not differences and not draft["data"]:
            draft.update(
                verdict="DONE", detail="run on a copy of the target it changes nothing: what it sets is set already"
            )
        self._keep_changes(before, draft)

    def _keep_changes(self, before: Snapshot, draft: dict[str, Any]) -> None:
        """After a plain success `seen` must be the state before, for the difference is taken when the statement returns."""
        if not draft.get("afresh"):
            self.recorder.seen = before

    def _twin(self, differences: list[list[Any]], before: Snapshot, sql: str) -> str:
        """An unnamed constraint is made a second time under another name: find the first."""
        if not re.search(r"\badd\s+(foreign|unique|primary|check|exclude)\b", skeleton(sql), re.IGNORECASE):
            return ""
        for kind, identity, old, new in differences:
            table = re.sub(r"\." + NAME + "$", "", identity)
            for (other_kind, other), text in before.items():
                if (
                    kind == "constraint" == other_kind
                    and old is None
                    and text == new
                    and re.sub(r"\." + NAME + "$", "", other) == table
                ):
                    return "alter table %s drop constraint %s cascade, drop constraint %s cascade" % (
                        table, other[len(table) + 1:], identity[len(table) + 1:])  # fmt: skip
        return ""

    def _failed(
        self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str, error: BaseException
    ) -> None:
        code, bare = sqlstate(error), skeleton(sql)
        why = "SQLSTATE %s: %s" % (code, (str(error).strip().splitlines() or [""])[0])
        if code in DUPLICATE and _adds_value(bare):
            draft.update(verdict="DONE", detail="the enum has this value")
        elif code in DUPLICATE and obstacle(sql):
            self._afresh(conn, draft, run, sql, obstacle(sql))
        elif code in UNDEFINED and _drops(bare):
            draft.update(verdict="DONE", detail="what it drops is gone")
        elif code in UNDEFINED and self._new_name_exists(bare):
            draft.update(verdict="DONE", detail="the old name is gone, the new one is there")
        else:
            draft.update(verdict="UNTRIED", detail="it could not be tried on a copy of the target: %s" % why)

    def _new_name_exists(self, bare: str) -> bool:
        found = re.search(r"\brename\s(?:.*\s)?to\s+(" + NAME + r")\s*;?\s*$", bare, re.IGNORECASE | re.DOTALL)
        return found is not None and any(
            identity.split(".")[-1] == found.group(1) for _, identity in self.recorder.seen
        )

    def _afresh(self, conn: Any, draft: dict[str, Any], run: Callable[[str], None], sql: str, removal: str) -> None:
        """Remove what is in the way and run the statement again."""

        def both() -> None:
            query(conn, removal)
            self.recorder.look()
            run(sql)

        kept = dict(self.recorder.seen)
        error = self._in_savepoint(conn, both) if removal else None
        if removal and error is None:
            draft["afresh"] = True
            return
        self.recorder.seen = kept
        why = (
            "it could not be made afresh: %s" % str(error).strip().splitlines()[0]
            if error
            else "mend does not know how to compare it"
        )
        draft.update(afresh=True, verdict="DIFFERENT", detail="something of that name is there, and " + why)

    @staticmethod
    def _in_savepoint(conn: Any, act: Callable[[], None]) -> Optional[BaseException]:
        query(conn, "savepoint mend_try")
        try:
            act()
        except conn.dialect.dbapi.Error as error:
            query(conn, "rollback to savepoint mend_try")
            return error if isinstance(error, BaseException) else None
        finally:
            query(conn, "release savepoint mend_try")
        return None
