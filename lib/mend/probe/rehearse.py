"""The pending upgrade on a copy: how long each statement takes, how many rows it changes, which locks its transaction holds then."""

from __future__ import annotations

import time

from sqlalchemy import event
from sqlalchemy.engine import Engine

from mend.probe.environment import Project, versions
from mend.probe.sessions import query, sqlstate
from mend.probe.start import revive_transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


LOCKS = """select cast(cast(l.relation as regclass) as text), l.mode from pg_catalog.pg_locks as l
  join pg_catalog.pg_class as c on c.oid = l.relation and c.relkind in ('r', 'p', 'm', 'v', 'f')
 where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.granted and l.relation >= 16384
   and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
   and l.mode not in ('AccessShareLock', 'RowShareLock')"""
LONGEST = 500


class Rehearsal:
    """One run of what is pending, each revision committed by itself; its statements are told as they end."""

    def __init__(self, project: Project) -> None:
        self.project, self.wire = project, project.wire
        self.now = ""
        self._begun = 0.0
        event.listen(Engine, "before_cursor_execute", self._before)
        event.listen(Engine, "after_cursor_execute", self._after)

    def run(self) -> None:
        """Upgrade as far as it goes; where a revision fails, that is told, and it is the end."""
        try:
            self.project.run(self._work, "heads")
        except Exception as error:
            if not self.now:
                raise
            said = str(getattr(error, "orig", None) or error)
            self.wire.tell(
                "failed", revision=self.now, kind=type(error).__name__, message=said, sqlstate=sqlstate(error)
            )
        self.wire.tell("done", **versions())

    def _work(self, heads: Any, context: Any) -> list[Any]:
        steps = list(self.project.script._upgrade_revs("heads", heads))
        for step in steps:
            self._wrap(step, context)
        return steps

    def _wrap(self, step: Any, context: Any) -> None:
        upgrade, identity = step.migration_fn, step.revision.revision

        def run(**keywords: Any) -> None:
            self.now = identity
            self.wire.tell("revision", revision=identity)
            revive_transaction(context)
            upgrade(**keywords)
            begun = time.monotonic()
            context.connection.connection.commit()
            self.wire.tell("committed", revision=identity, seconds=time.monotonic() - begun)
            self.now = ""

        step.migration_fn = run

    def _before(self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        self._begun = time.monotonic()

    def _after(self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not self.now:
            return
        seconds = time.monotonic() - self._begun
        locks = sorted({(str(name), str(mode)) for name, mode in query(conn, LOCKS)})
        rows = max(int(getattr(cursor, "rowcount", -1) or 0), 0)
        self.wire.tell(
            "ran", revision=self.now, sql=" ".join(statement.split())[:LONGEST], seconds=seconds, rows=rows, locks=locks
        )


def tell_rehearsal(project: Project) -> None:
    """Action ``rehearse``."""
    Rehearsal(project).run()
