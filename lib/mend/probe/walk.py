"""Walking a history revision by revision in a scratch database: what each of them leaves in the catalog, and where the walk ends."""

from __future__ import annotations

import os
import sys
import traceback

from mend.probe.connects import Connects
from mend.probe.environment import Project, modules, versions
from mend.probe.overlay import lay
from mend.probe.recorder import changed
from mend.probe.sessions import query, sqlstate
from mend.probe.start import revive_transaction, start_at
from mend.probe.wire import Refused, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Snapshot = dict[tuple[str, str], str]


def tell_walks(asked: dict[str, Any], wire: Wire) -> None:
    """Action ``walk``: one walk after the other, each in a process of its own, as in real life: revisions keep state in modules.

    A fork spares the imports.  Before each, mend is asked to make its database ready.  Where the first one fails, the others would
    start from nothing, so they are left out.
    """
    for number, trip in enumerate(asked["walks"]):
        wire.ask("walk", number=number)
        child = os.fork()
        if not child:
            _walk_and_exit({**asked, **trip}, wire)
        if os.waitpid(child, 0)[1] and number == 0:
            break
    wire.tell("done", **versions())


def _walk_and_exit(asked: dict[str, Any], wire: Wire) -> None:
    walk = None
    try:
        Connects(asked)
        lay(asked.get("overlay") or {})
        walk = Walk(Project(asked, wire))
        walk.run()
    except BaseException as error:  # noqa: BLE001 it is told to mend, and this process is over
        traceback.print_exc()
        sys.stderr.flush()
        wire.tell("failed", kind=type(error).__name__, message=str(getattr(error, "orig", None) or error), sqlstate=sqlstate(error),
                  refused=isinstance(error, Refused), revision=walk.now if walk else "", modules=modules())  # fmt: skip
        os._exit(1)
    os._exit(0)


class Walk:
    """One walk: from the version rows ``start`` to each of ``stops`` in turn.

    Each revision is committed by itself, whatever env.py does about transactions: the walk is about what revisions do to each
    other.  ``watched``: revisions whose changes are told; of the others none is taken apart, which is quicker.
    """

    def __init__(self, project: Project) -> None:
        self.project, self.wire, self.asked = project, project.wire, project.asked
        self.watched = set(self.asked.get("watched") or [])
        self.now = ""
        self.seen: Snapshot = {}
        self.fresh = False  # whether `seen` is what the catalog holds now

    def run(self) -> None:
        """Walk, then tell the version rows and the catalog that it came to."""
        start_at(list(self.asked.get("start") or []))
        stops = list(self.asked["stops"])
        self.project.run(self._work, stops[-1] if stops else "heads")
        self.wire.tell("ended", modules=modules())

    def _work(self, heads: Any, context: Any) -> Iterator[Any]:
        for stop in self.asked["stops"]:
            steps = list(self.project.script._upgrade_revs(stop, heads))
            for step in steps:
                self._wrap(step, context, len(steps))
                yield step
            heads = context.get_current_heads()
            self._arrive(stop, heads, context)

    def _wrap(self, step: Any, context: Any, of: int) -> None:
        upgrade, identity = step.migration_fn, step.revision.revision

        def run(**keywords: Any) -> None:
            self.now = identity
            self.wire.tell("revision", revision=identity, of=of)
            revive_transaction(context)
            before = self._look(context) if identity in self.watched else {}
            upgrade(**keywords)
            context.connection.connection.commit()
            self.fresh = False
            if identity in self.watched:
                self.wire.tell("changed", revision=identity, changes=changed(before, self._look(context)))

        step.migration_fn = run

    def _look(self, context: Any) -> Snapshot:
        if not self.fresh:
            rows = query(context.connection, self.asked["snapshot_sql"])
            self.seen = {(kind, identity): text for kind, identity, text in rows}
            self.fresh = True
        return self.seen

    def _arrive(self, stop: str, heads: Any, context: Any) -> None:
        self.now = ""
        there = self._look(context)
        rows = [[kind, identity, text] for (kind, identity), text in sorted(there.items())]
        self.wire.ask(  # mend may look at the database as it is here
            "arrived",
            stop=stop,
            versions=sorted(heads),
            rows=rows,
            table=context.version_table,
            table_schema=context.version_table_schema,
        )
