"""The questions of the probe that record no statement: ``walk``, ``draft``, ``sql``."""

from __future__ import annotations

import sys

from mend.probe.connects import Connects
from mend.probe.drafts import tell_draft, tell_sql
from mend.probe.environment import Project, modules, versions
from mend.probe.overlay import lay
from mend.probe.sessions import sqlstate
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
    if asked["action"] == "walk":
        tell_walks(asked, wire)
        return
    Connects(asked)
    lay(asked.get("overlay") or {})
    {"draft": tell_draft, "sql": tell_sql}[asked["action"]](Project(asked, wire))
