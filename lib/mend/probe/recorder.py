"""What a revision does: its statements, each with its operation, its transaction and what it changed."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager

from alembic.operations import base as alembic_operations
from alembic.operations import batch as alembic_batch
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mend.probe.sessions import driver_connection, query, render
from mend.probe.sqltext import (
    HARMLESS,
    changes_rows_only,
    ends_transaction,
    kind_of,
    normal,
    reads_user_tables,
    skeleton,
)
from mend.probe.wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Optional

    Snapshot = dict[tuple[str, str], str]


class Recorder:
    """The statements of one revision's upgrade(), each with its operation, its transaction and what it changed."""

    def __init__(self, asked: dict[str, Any], wire: Wire) -> None:
        self.wire = wire
        self.revision: str = asked["revision"]
        self.snapshot_sql: str = asked.get("snapshot_sql", "")
        self.now = ""  # the revision that runs
        self.inside = False  # in upgrade() of the revision of interest
        self.completed = False
        self.seen: Snapshot = {}
        self.statements: list[dict[str, Any]] = []
        self.reads: list[str] = []
        self.looks = False  # upgrade() reads the catalog: what it does depends on what it finds
        self.warnings: list[str] = []
        self.draft: Optional[dict[str, Any]] = None
        self.failed_sql = ""
        self._label: Optional[list[str]] = None
        self._counted: Optional[list[str]] = None
        self._operation = 0
        self._segment, self._boundary = 1, False
        self._settings: list[str] = []
        self._primary: Any = None  # alembic's connection: all snapshots are taken on it
        self._stale = False  # `seen` is not what the primary session would see now
        self._foreign: Optional[dict[str, Any]] = None  # the last statement that another session sent
        self._savepoints: list[tuple[str, int]] = []
        self._volatile: dict[str, bool] = {}

    def listen(self) -> None:
        for name in ("before_cursor_execute", "after_cursor_execute", "commit", "rollback"):
            event.listen(Engine, name, getattr(self, "_" + name))
        base: Any = getattr(alembic_operations, "AbstractOperations", alembic_operations.Operations)
        invoke, flush = base.invoke, alembic_batch.BatchOperationsImpl.flush

        def labelled_invoke(operations: Any, operation: Any) -> Any:
            with self._during(*label_of(operation)):
                return invoke(operations, operation)

        def labelled_flush(impl: Any) -> Any:
            with self._during("batch_alter_table", "batch_alter_table " + dotted(impl.schema, impl.table_name)):
                return flush(impl)

        base.invoke = labelled_invoke
        alembic_batch.BatchOperationsImpl.flush = labelled_flush  # type: ignore[assignment,method-assign]

    def enter(self, conn: Any) -> None:
        self.inside, self._primary = True, conn
        if self.snapshot_sql:
            self.look()

    def follow(self, upgrade: Callable[..., Any], keywords: dict[str, Any]) -> None:
        """Run upgrade(); what happens while an error unwinds is no longer part of it."""
        try:
            upgrade(**keywords)
            self.completed = True
            self._settle()
        finally:
            self.inside = False

    def look(self) -> Snapshot:
        """Take a snapshot of the catalog as alembic's session sees it.

        Never on another session: reading definitions takes locks, and alembic's session holds stronger ones.
        """
        self.seen = {(kind, identity): text for kind, identity, text in query(self._primary, self.snapshot_sql)}
        self._stale = False
        return self.seen

    def _settle(self) -> None:
        """Give what another session has committed by now to the last statement that it sent."""
        if self._foreign is not None:
            before = self.seen
            self._foreign["changes"] = changed(before, self.look())
            self._foreign = None

    @contextmanager
    def _during(self, op: str, says: str) -> Iterator[None]:
        """The outermost operation owns the statements: a custom one is made of others."""
        outermost = self._label is None
        if outermost:
            self._label = [op, says]
        try:
            yield
        finally:
            if outermost:
                self._label = None

    def _before_cursor_execute(
        self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self.draft = None
        if not self.inside:
            return
        bare = skeleton(statement)
        kind = kind_of(bare)
        if kind == "read" and not self._has_side_effect(conn, bare):
            if reads_user_tables(bare):
                if not finishes_itself():
                    self.reads.append(normal(statement))
            elif re.search(r"\b(pg_|information_schema\.)", bare, re.IGNORECASE):
                self.looks = True
            return
        sql, rendered = self._rendered(conn, statement, parameters, context, many)
        if kind == "control":
            self._control(bare, sql)
            return
        if self.snapshot_sql:
            self._settle()
            if self._stale:
                self.look()
        self.failed_sql = sql
        self.draft = self._drafted(conn, sql, rendered, bare)

    def _drafted(self, conn: Any, sql: str, rendered: bool, bare: str) -> dict[str, Any]:
        label = self._label or ["statement", ""]
        if self._counted is not label:
            self._operation += 1
            self._counted = label
        autocommit = bool(getattr(getattr(conn.connection, "dbapi_connection", conn.connection), "autocommit", False))
        alone = autocommit or self._is_foreign(conn)
        if self.statements and (self._boundary or alone):
            self._segment += 1
        self._boundary = alone or ends_transaction(bare)
        says = label[1] or "%s %s" % (label[0], normal(sql)[:60])
        path = self._search_path(conn, sql) if self.snapshot_sql else ""
        return {
            "operation": self._operation, "op": label[0], "says": says, "sql": sql.strip().rstrip("; "), "rendered": rendered,
            "autocommit": autocommit, "segment": self._segment, "data": changes_rows_only(bare), "search_path": path,
            "settings": list(self._settings), "changes": [], "verdict": "", "detail": "", "finishes": finishes_itself(),
        }  # fmt: skip

    def _search_path(self, conn: Any, sql: str) -> str:
        return str(query(conn, "select pg_catalog.current_setting('search_path')")[0][0])

    def _after_cursor_execute(
        self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        draft, self.draft, self.failed_sql = self.draft, None, ""
        if draft is None:
            return
        self.statements.append(draft)
        if self._is_foreign(conn):
            self._foreign = draft if self.snapshot_sql else None
        elif self.snapshot_sql:
            before = self.seen
            draft["changes"] = changed(before, self.look())

    def _is_foreign(self, conn: Any) -> bool:
        return self._primary is not None and driver_connection(conn.connection) is not driver_connection(
            self._primary.connection
        )

    def _rendered(self, conn: Any, statement: str, parameters: Any, context: Any, many: bool) -> tuple[str, bool]:
        raw = driver_connection(conn.connection)
        dbapi_error = conn.dialect.dbapi.Error
        try:
            rows = parameters if many else [parameters]
            return ";\n".join(render(raw, statement, row, context).strip().rstrip(";") for row in rows), True
        except (TypeError, ValueError, KeyError, IndexError, dbapi_error):
            return statement, False

    def _has_side_effect(self, conn: Any, bare: str) -> bool:
        """Does a query call a volatile function that is not known to be harmless?"""
        names = set(re.findall(r"\b([a-z_]\w*)\s*\(", bare.lower())) - HARMLESS
        unknown = sorted(names - set(self._volatile))
        if unknown:
            listed = ", ".join("'%s'" % name for name in unknown)
            rows = query(
                conn,
                "select distinct proname::text from pg_catalog.pg_proc where provolatile = 'v' and proname in (%s)"
                % listed,
            )
            self._volatile.update(dict.fromkeys(unknown, False), **{row[0]: True for row in rows})
        return any(self._volatile.get(name) for name in names)

    def _control(self, bare: str, sql: str) -> None:
        words = normal(bare).lower().split() or [""]
        if ends_transaction(bare):
            self._boundary = True
        elif words[0] in ("savepoint", "release", "rollback"):
            self._mark_savepoint(words)
        elif words[0] in ("set", "reset"):
            self._settings.append(normal(sql))

    def _commit(self, conn: Any) -> None:
        if self.inside and not self._is_foreign(conn):
            self._boundary = True

    def _rollback(self, conn: Any) -> None:
        if self.inside and self.statements and not self._is_foreign(conn):
            kept = [s for s in self.statements if s["autocommit"] or s["segment"] != self._segment or self._boundary]
            self._forget(kept)

    def _mark_savepoint(self, words: list[str]) -> None:
        """Savepoints by their text, SQLAlchemy's own as well as the user's."""
        if words[0] == "savepoint":
            self._savepoints.append((words[-1], len(self.statements)))
            return
        known = [name for name, _ in self._savepoints]
        if words[-1] in known:
            place = len(known) - 1 - known[::-1].index(words[-1])
            count = self._savepoints[place][1]
            del self._savepoints[place + (words[0] == "rollback") :]
            if words[0] == "rollback":
                self._forget(self.statements[:count])

    def _forget(self, kept: list[dict[str, Any]]) -> None:
        if len(kept) != len(self.statements):
            self.warnings.append(
                "upgrade() itself rolls %d of its statements back" % (len(self.statements) - len(kept))
            )
        self.statements = kept
        self._stale = True


def finishes_itself() -> bool:
    """Is this sent by mend.migrations, or a project's copy of it, which looks first at what is there and does what is missing?"""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_globals.get("_FINISHES_ITSELF"):
        frame = frame.f_back
    return frame is not None


def changed(old: Snapshot, new: Snapshot) -> list[list[Any]]:
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [[kind, identity, old.get((kind, identity)), new.get((kind, identity))] for kind, identity in keys]


def dotted(*names: Any) -> str:
    return ".".join(str(name) for name in names if name is not None and str(name))


def label_of(operation: Any) -> tuple[str, str]:
    """An operation's name as in a revision file, and what it is about; ('execute', '') takes the SQL's own words."""
    op = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"(SQL)?Op$", "", type(operation).__name__)).lower()
    if op == "execute":
        return op, ""
    table = (
        getattr(operation, "table_name", None)
        or getattr(operation, "source_table", None)
        or getattr(operation, "table", None)
    )
    table = dotted(getattr(operation, "schema", None) or getattr(operation, "source_schema", None), table)
    column = getattr(operation, "column_name", None) or getattr(getattr(operation, "column", None), "name", None)
    name = getattr(operation, "index_name", None) or getattr(operation, "constraint_name", None)
    if column:
        return op, "%s %s" % (op, dotted(table, column))
    return op, " ".join(filter(None, [op, str(name) if name else "", "on" if name and table else "", table]))
