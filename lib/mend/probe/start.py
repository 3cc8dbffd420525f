"""Where a run in a scratch database begins: version rows put in their place, and a living transaction for alembic."""

from __future__ import annotations

from alembic.runtime.migration import MigrationContext

from mend.probe.sessions import query
from mend.probe.sqltext import literal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def revive_transaction(context: Any) -> None:
    """Give alembic a living transaction where an earlier revision ended it, or where env.py kept it from beginning one."""
    if context._transaction is None or not context._transaction.is_active:
        context._transaction = context.connection.get_transaction() or context.connection.begin()


def start_at(revisions: list[str]) -> None:
    """Have alembic find these version rows, and put them there: what an earlier run left out of the table is made good."""
    _make_version_schema()
    found_heads = MigrationContext.get_current_heads
    done: list[bool] = []

    def heads(self: Any) -> tuple[str, ...]:
        found = found_heads(self)
        if done or not revisions or set(found) == set(revisions):
            done.append(True)  # from here on the rows are those that the run itself leaves
            return found
        self._ensure_version_table()
        table = ".".join(
            '"%s"' % name.replace('"', '""') for name in (self.version_table_schema, self.version_table) if name
        )
        query(self.connection, "delete from " + table)
        for revision in revisions:
            query(self.connection, "insert into %s values (%s)" % (table, literal(revision)))
        self.connection.connection.commit()
        done.append(True)
        return tuple(revisions)

    MigrationContext.get_current_heads = heads  # type: ignore[method-assign]


def _make_version_schema() -> None:
    """version_table_schema must exist before the first revision; whoever made it, no revision could have."""
    ensure = MigrationContext._ensure_version_table

    def with_schema(self: Any, purge: bool = False) -> None:
        if self.version_table_schema:
            query(self.connection, 'create schema if not exists "%s"' % self.version_table_schema.replace('"', '""'))
        ensure(self, purge)

    MigrationContext._ensure_version_table = with_schema  # type: ignore[method-assign]
