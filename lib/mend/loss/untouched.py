"""That nothing is left of a reading in pg_attribute: what stood there before and after, and what became of the transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mend.change.writer import Writer
from mend.database import queries
from mend.errors import StepFailed
from mend.plan import Step


@dataclass(frozen=True)
class _Row:
    """One row of pg_attribute: which transaction wrote it, and its content."""

    xid: str
    content: str


def attributes(writer: Writer, relations: Sequence[str]) -> dict[tuple[str, int], _Row]:
    with writer.target.reading(writer.run_id) as conn:
        frame = queries.frame(conn, "data_loss/attributes", relations=list(relations))
    return {
        (str(row["relation"]), int(row["attnum"])): _Row(str(row["xid"]), str(row["content"]))
        for row in frame.to_dict("records")
    }


def require_gone(writer: Writer, n: int, step: Step, xid: str, before: Mapping[tuple[str, int], _Row]) -> None:
    """That the reading transaction is aborted, and the rows that it showed otherwise are the very rows that they were."""
    touched = [(str(part["relation"]), int(part["attnum"])) for part in step.arguments["parts"]]
    with writer.target.reading(writer.run_id) as conn:
        status = str(queries.frame(conn, "execute/transaction_status", xid=xid)["status"].iloc[0])
    now = attributes(writer, [relation for relation, _ in touched])
    differ = [
        f"{relation} column {attnum}"
        for relation, attnum in touched
        if now.get((relation, attnum)) != before.get((relation, attnum))
    ]
    others = sum(now.get(key) != row for key, row in before.items()) - len(differ)
    writer.journal.append(
        "catalog_compared",
        {
            "step": n, "xid": xid, "status": status, "rows": len(before), "same": not differ and status == "aborted", "changed_by_others": others,
            "before": {f"{r}:{a}": asdict(before[r, a]) for r, a in touched if (r, a) in before},
            "after": {f"{r}:{a}": asdict(now[r, a]) for r, a in touched if (r, a) in now},
        },
    )  # fmt: skip
    if differ or status != "aborted":
        raise StepFailed(
            f"Step {n + 1}: pg_attribute is not as it was before the values were read ({', '.join(differ) or f'transaction {xid} is {status}'}). Nothing was kept. Look at pg_attribute of that table at once, and report this.",
            step=n,
        )
    writer.progress(f"step {n + 1}: the catalog is as it was before (transaction {xid} is aborted)")
