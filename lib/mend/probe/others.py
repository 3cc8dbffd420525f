"""The questions of the probe that are not about one upgrade(): those of ``OTHERS``."""

from __future__ import annotations

import sys

from mend.probe.back import tell_back
from mend.probe.connects import Connects
from mend.probe.drafts import tell_draft, tell_sql
from mend.probe.environment import Project, modules, versions
from mend.probe.overlay import lay
from mend.probe.rehearse import tell_rehearsal
from mend.probe.sessions import sqlstate
from mend.probe.tables import tell_tables
from mend.probe.walk import tell_walks
from mend.probe.wire import Refused, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def answer(asked: dict[str, Any], wire: Wire) -> None:
    """Answer one request; what the project raises becomes an ``error`` event."""

    def tell_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        sys.__excepthook__(kind, error, trace)
        wire.tell("error", kind=kind.__name__, message=str(getattr(error, "orig", None) or error), sqlstate=sqlstate(error), refused=kind is Refused,
                  revision="", modules=modules())  # fmt: skip

    sys.excepthook = tell_error
    wire.tell("hello", **versions())
    if asked["action"] in ALONE:
        ALONE[asked["action"]](asked, wire)
        return
    Connects(asked)
    lay(asked.get("overlay") or {})
    LAID[asked["action"]](Project(asked, wire))


ALONE = {"walk": tell_walks, "back": tell_back}  # they lay the files themselves, several times
LAID = {"draft": tell_draft, "sql": tell_sql, "tables": tell_tables, "rehearse": tell_rehearsal}
OTHERS = frozenset([*ALONE, *LAID])
