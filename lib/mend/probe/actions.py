"""What the probe can be asked: ``env``, ``replay``, ``trial``, ``chronicle``, ``upgrade``; the rest by ``others``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from alembic.runtime.migration import MigrationContext

from mend.probe.chronicle import Chronicle, goals
from mend.probe.connects import Connects
from mend.probe.environment import Project, modules, tell_environment, versions
from mend.probe.others import OTHERS, answer
from mend.probe.recorder import Recorder
from mend.probe.sessions import sqlstate
from mend.probe.start import revive_transaction, start_at
from mend.probe.trial import Trial
from mend.probe.upgrade import run_upgrade
from mend.probe.wire import Enough, Refused, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Optional


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


def tell_chronicle(project: Project, recorder: Chronicle) -> None:
    """Action ``chronicle``: run the history up to ``goals``, then as far beyond as it goes, and tell what each revision does.

    Committed revision by revision, as for ``build_parents``.
    """
    asked, wire = project.asked, project.wire
    recorder.listen()
    start_at(asked.get("start") or [])
    wanted, beyond = asked["goals"], asked["beyond"]

    def committed(upgrade: Callable[..., Any], identity: str, context: Any, last: bool) -> Callable[..., Any]:
        def run(**keywords: Any) -> None:
            revive_transaction(context)
            recorder.begin(identity, context.connection)
            upgrade(**keywords)
            recorder.end(last=last)
            context.connection.connection.commit()

        return run

    def work(heads: Any, context: Any) -> Iterator[Any]:
        wire.tell("context", version_table=context.version_table, version_table_schema=context.version_table_schema)
        for number, (step, last) in enumerate(goals(project.script, context, heads, wanted), 1):
            wire.tell("revision", revision=step.revision.revision, number=number, of=asked["count"])
            step.migration_fn = committed(step.migration_fn, step.revision.revision, context, last)
            yield step
        recorder.tell()
        if not recorder.reached:
            recorder.reach(context.connection)
            wire.ask("reached")
        for step, last in goals(project.script, context, context.get_current_heads(), beyond):
            step.migration_fn = committed(step.migration_fn, step.revision.revision, context, last)
            yield step

    project.run(work, wanted[-1] if wanted else "heads")
    recorder.tell()
    wire.tell("done", modules=modules(), **versions())


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
    if asked["action"] in OTHERS:
        answer(asked, wire)
        return
    recorder = (
        Chronicle(asked, wire)
        if asked["action"] == "chronicle"
        else Recorder(asked, wire)
        if asked.get("revision")
        else None
    )

    def tell_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if recorder and asked["action"] in ("replay", "trial"):
            tell_recorded(recorder)
        if isinstance(recorder, Chronicle):
            recorder.tell()
        sys.__excepthook__(kind, error, trace)
        wire.tell("error", kind=kind.__name__, message=str(getattr(error, "orig", None) or error), sqlstate=sqlstate(error), refused=kind is Refused,
                  revision=recorder.now if recorder else "", inside=bool(recorder and recorder.now == recorder.revision and not recorder.completed), sql=recorder.failed_sql if recorder else "", modules=modules(), operation=_operation(recorder))  # fmt: skip

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
    elif isinstance(recorder, Chronicle):
        tell_chronicle(project, recorder)
    elif asked["action"] == "upgrade":
        run_upgrade(project, recorder)
    else:
        tell_replay(project, recorder)


def _operation(recorder: Optional[Recorder]) -> list[Any]:
    """Number and words of the operation that failed; of one that sent nothing, of the last before it."""
    if recorder is None or not recorder.failed_sql:
        return []
    draft = recorder.draft
    return [draft["operation"], draft["says"]] if draft else []
