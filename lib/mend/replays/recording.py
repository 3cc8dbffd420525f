"""What a replay finds: values, with no way to make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend.database.catalog import Change

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Statement:
    """One statement that upgrade() sends.

    ``operation`` counts operations from 1, ``index`` statements within one from 1.  ``rendered`` False: ``sql`` has open
    parameters and cannot be run as it is.  ``segment``: statements with the same number are committed together.
    ``data``: it changes rows at most.  ``verdict`` and ``detail`` are the trial's, for what its changes cannot show.  ``finishes``:
    mend.migrations sent it, which finds it done when the revision is run again.
    """

    revision: str
    operation: int
    index: int
    op: str
    says: str
    sql: str
    rendered: bool
    autocommit: bool
    segment: int
    changes: tuple[Change, ...]
    data: bool
    search_path: str = ""
    settings: tuple[str, ...] = ()
    verdict: str = ""
    detail: str = ""
    finishes: bool = False


@dataclass(frozen=True)
class Replay:
    """A revision as it ran in scratch.

    ``reads``: queries of user tables inside upgrade(): its statements may depend on rows, which scratch has not.
    ``error``: why upgrade() itself failed there; then ``statements`` end where it failed.  ``stamped``, ``persisted``: was the
    version row advanced, were the changes there for a new session?  False is a bug of the project (facts 1.1); None: not tried.
    """

    method: str
    revision: str
    base: pandas.DataFrame | None
    statements: tuple[Statement, ...]
    reads: tuple[str, ...]
    error: str | None
    stamped: bool | None
    persisted: bool | None
    warnings: tuple[str, ...]
    server_version: str
    seconds: float
    cached: bool = False
