"""Who holds what a diagnosis waits for.  It waits for half a second only, so the error must say whom to wait for instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mend.database import queries, sqltext
from mend.database.target import Target
from mend.errors import LockNotAcquired


@contextmanager
def named(target: Target, run_id: str) -> Iterator[None]:
    """Add to a LockNotAcquired within: which sessions hold which relations, and what they run."""
    try:
        yield
    except LockNotAcquired as error:
        with target.reading(run_id) as conn:
            rows = queries.frame(conn, "target/holders").to_dict("records")
        held = "; ".join(
            f"pid {row['pid']} ({row['role']}, {row['application'] or 'unnamed'}, {row['state']}, open {row['open_s'] or 0:.0f} s) holds {row['relation']}: {sqltext.shape(str(row['query']))}"
            for row in rows[:3]
        )
        raise LockNotAcquired(
            f"{error.message} {held or 'Nobody holds it any more'}. It may be the migration, still at work: wait for it or end it, then run again.",
            sqlstate="55P03",
        ) from error
