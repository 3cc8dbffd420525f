"""What modes make of a repair of rows: the step that runs it in batches, with its way back.  Pure.

`repair` holds the value and its rules, `batch` the SQL, `backfill` runs it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from mend.batches import batch, images, repair
from mend.batches.batch import Job, Window
from mend.batches.repair import Repair
from mend.change.kept import Facets, Keeper
from mend.plan import Lock, Statement, Step

__all__ = ["Repair", "step"]


def step(wanted: Repair, *, says: str, live: Facets, keeper: Keeper, rows_expected: int | None = None) -> Step:
    """The step that runs a repair in batches, each a short transaction of its own.

    ``live``: the catalog as the steps before it leave it.  The user's triggers fire on every row, as they do on any update;
    what they change in other columns is not taken back.  Raises: InvalidParameter, Refused.
    """
    whole = repair.completed(wanted, live, keeper)
    job = Job(whole, keeper.schema)
    arguments = whole.as_arguments(keeper.schema)
    locks = (
        Lock(whole.table, "ROW EXCLUSIVE", "and locks on the rows of one batch"),
        *(Lock(table, "SHARE ROW EXCLUSIVE", "for one batch at a time") for table in whole.alone),
    )
    if not whole.key:
        why = f"{whole.table} has no key that stays the same, so its rows could not be told apart afterwards"
        undo: tuple[Step, ...] = ()
    else:
        why = ""
        undo = (
            Step(
                says=f"Give the rows of {whole.table} back as they were, where they still are as this plan left them",
                statements=(Statement(_given_back(job)),),
                kind="restore",
                transactional=False,
                retryable=False,
                locks=locks,
                arguments=arguments,
            ),
        )
    return Step(
        says=says,
        statements=_reviewable(job),
        kind="backfill",
        transactional=False,
        retryable=False,
        locks=locks,
        rows_expected=rows_expected,
        arguments=arguments,
        undo=undo,
        irreversible=why,
    )


def _reviewable(job: Job) -> tuple[Statement, ...]:
    """A batch as it is reviewed: its window is a placeholder."""
    width = len(job.repair.key) if job.walks == "keyset" else 1
    ends = [tuple(f":{name}{n}" for n in range(1, width + 1)) for name in ("from", "upto")]
    window = Window(job.whole, *ends)
    texts = [batch.change(job, window, rows=0)]
    if replace(job, returns_old=True).at_once:
        texts.append(f"{_AT_ONCE}\n{batch.change_at_once(job, window)}")
    return tuple(Statement(_placed(text)) for text in texts)


_AT_ONCE = "-- PostgreSQL 18 and newer: while nobody else holds a row of the batch, the same in one go"


def _placed(text: str) -> str:
    return re.sub(r"cast\('(:(?:from|upto)\d+)' as [^)]*\)", r"\1", text).replace("limit 0", "limit :rows")


def _given_back(job: Job) -> str:
    return images.back(job, above=":above", upto=":upto")
