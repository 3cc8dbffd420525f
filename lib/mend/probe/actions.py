"""What the probe can be asked: ``env``, ``replay``, ``trial``, ``upgrade``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from alembic.runtime.migration import MigrationContext

from mend.probe.connects import Connects
from mend.probe.environment import Project, modules, tell_environment, versions
from mend.probe.recorder import Recorder
from mend.probe.sessions import query, sqlstate
from mend.probe.sqltext import literal
from mend.probe.trial import Trial
from mend.probe.upgrade import run_upgrade
from mend.probe.wire import Enough, Refused, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def tell_replay(project: Project, recorder: Recorder) -> None:
    """Actions ``replay`` and ``trial``: come to the revision's parents, run the revision, tell what it does."""
    asked, wire = project.asked, project.wire
    parents, trial = asked["parents"], asked["action"] == "trial"
    recorder.listen()
    if trial:
        Trial(recorder)
        MigrationContext.get_current_heads = lambda self: tuple(parents)  # type: ignore[method-assign]
    else:
        start_at(parents)

    def work(heads: Any, context: Any) -> list[Any]:
        wire.tell("context", version_table=context.version_table, version_table_schema=context.version_table_schema)
        steps = list(project.script._upgrade_revs(recorder.revision, heads))
        if [step.revision.revision for step in steps] != [recorder.revision]:
            raise Refused("alembic would not run revision %s alone" % recorder.revision)
        steps[0].migration_fn = _watched(steps[0].migration_fn, context, recorder, trial)
        return steps

    with suppress(Enough):
        project.run(work, recorder.revision)
    tell_recorded(recorder)
    wire.tell("done", modules=modules(), **versions())


def _watched(upgrade: Callable[..., Any], context: Any, recorder: Recorder, trial: bool) -> Callable[..., Any]:
    def run(**keywords: Any) -> None:
        if recorder.now:
            recorder.warnings.append("env.py runs this revision several times: the first is shown")
            upgrade(**keywords)
            return
        recorder.now = recorder.revision
        recorder.enter(context.connection)
        recorder.wire.tell("base", rows=[[kind, name, text] for (kind, name), text in sorted(recorder.seen.items())])
        recorder.follow(upgrade, keywords)
        if trial:
            raise Enough

    return run


def build_parents(project: Project, recorder: Recorder) -> None:
    """Run the history up to the revision's parents.

    Each revision is committed on the driver, whatever env.py does about transactions: a commit that an earlier revision makes
    by itself, or one that env.py never makes, must not be taken for a fault of the revision of interest.
    """
    parents = project.asked["parents"]
    start_at(project.asked.get("start") or [])

    def committed(upgrade: Callable[..., Any], identity: str, context: Any) -> Callable[..., Any]:
        def run(**keywords: Any) -> None:
            recorder.now = identity
            revive_transaction(context)
            upgrade(**keywords)
            context.connection.connection.commit()

        return run

    def work(heads: Any, context: Any) -> Iterator[Any]:
        for parent in parents:
            steps = list(project.script._upgrade_revs(parent, heads))
            for number, step in enumerate(steps, 1):
                identity = step.revision.revision
                project.wire.tell("revision", revision=identity, number=number, of=len(steps) + 1)
                step.migration_fn = committed(step.migration_fn, identity, context)
                yield step
            heads = context.get_current_heads()

    project.run(work, parents[-1])


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


def tell_recorded(recorder: Recorder) -> None:
    for statement in recorder.statements:
        recorder.wire.tell("statement", **statement)
    recorder.wire.tell(
        "recorded",
        reads=list(dict.fromkeys(recorder.reads)),
        looks=recorder.looks,
        warnings=list(dict.fromkeys(recorder.warnings)),
    )


def main() -> None:
    wire = Wire()
    asked = wire.request()
    recorder = Recorder(asked, wire) if asked.get("revision") else None

    def tell_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if recorder and asked["action"] in ("replay", "trial"):
            tell_recorded(recorder)
        sys.__excepthook__(kind, error, trace)
        wire.tell("error", kind=kind.__name__, message=str(getattr(error, "orig", None) or error), sqlstate=sqlstate(error), refused=kind is Refused,
                  revision=recorder.now if recorder else "", inside=bool(recorder and recorder.now == recorder.revision and not recorder.completed), sql=recorder.failed_sql if recorder else "", modules=modules())  # fmt: skip

    sys.excepthook = tell_error
    wire.tell("hello", **versions())
    first = asked["action"] == "replay" and asked["parents"] and asked["parents"] != asked.get("start")
    # The parents are built in a process of their own, as in real life: revisions keep state in modules, and SQLAlchemy
    # remembers the enums that it made.  A fork spares the second import of alembic.
    child = os.fork() if first else 0
    if child and os.waitpid(child, 0)[1]:
        os._exit(1)  # it told why
    connects = Connects(asked)
    project = Project(asked, wire)
    if first and not child:
        assert recorder is not None
        build_parents(project, recorder)
        os._exit(0)
    if recorder is None:
        tell_environment(project, connects)
    elif asked["action"] == "upgrade":
        run_upgrade(project, recorder)
    else:
        tell_replay(project, recorder)
