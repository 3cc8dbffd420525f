"""What is asked of a revision that may have stopped halfway, one check each; every one reads only."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from mend.database import parameters, queries
from mend.diagnosis import Check, Site
from mend.errors import MendError
from mend.repairs import surroundings, violations, ways
from mend.repairs.halfway import Facts


def version_rows(site: Site, facts: Facts) -> Check:
    """Which revision does the database say it is at?"""
    frame = facts.version_rows
    strange = frame[
        frame["position"].isin(["unknown to the files", "an ancestor of another row", "not the configured table"])
    ]
    rows = ", ".join(facts.table.rows) or "none"
    says = f"The version table {facts.table.schema}.{facts.table.name} holds: {rows}." + (
        " It does not fit: "
        + "; ".join(
            f"{r['version_num']} in {r['schema']}.{r['table']} is {r['position']}" for r in strange.to_dict("records")
        )
        + "."
        if len(strange)
        else ""
    )
    return Check(
        "version_rows",
        "Which revision does the database say it is at?",
        "found" if len(strange) else "healthy",
        says,
        "There is one version table, and its rows are revisions that the project knows.",
        frame,
        facts.version_sql,
    )


def operations(site: Site, facts: Facts) -> Check:
    """Which operations of the failed revision are done?"""
    frame = facts.operations.drop(columns="revision")
    asks = partial(
        Check,
        name="operations",
        question="Which operations of the failed revision are done?",
        healthy_when="All are DONE and the revision is recorded, or none is and it is not.",
    )
    if facts.revision is None:
        return asks(verdict="healthy", says="No revision is pending.", frame=frame)
    counts = frame["state"].value_counts()
    told = (
        ", ".join(f"{counts[state]} {state}" for state in ("DONE", "NOT_DONE", "DIFFERENT", "DATA") if state in counts)
        or "it has no operations"
    )
    recorded = "recorded" if facts.stamped else "not recorded"
    consistent = facts.complete() if facts.stamped else facts.untouched() and not facts.lost_silently
    says = f"Revision {facts.revision.id} is {recorded}; of its {len(frame)} operations: {told}. {_how(facts)}"
    if facts.replayed.error:
        why = f"upgrade() fails in scratch too, so what comes after its last operation here is not known: {facts.replayed.error}"
        return asks(verdict="could_not_check", says=says, frame=frame, sql=facts.operation_sql(), why=why)
    return asks(verdict="healthy" if consistent else "found", says=says, frame=frame, sql=facts.operation_sql())


def _how(facts: Facts) -> str:
    """How the expected state was found, and how sure it is."""
    found = (
        "Found by replaying the history"
        if facts.replayed.method == "history"
        else "Found by trying its statements on a copy of the schema"
    )
    return f"{found} on PostgreSQL {facts.replayed.server_version}." + "".join(f" {w}" for w in facts.replayed.warnings)


def leftovers(site: Site, facts: Facts) -> Check:
    """What did the failure leave behind?"""
    with site.target.reading(site.run_id) as conn:
        frame = queries.frame(conn, "failed_migration/leftovers")
    frame["of this revision"] = [bool({row.identity, row.relation} & facts.touched()) for row in frame.itertuples()]
    mine = int(frame["of this revision"].sum())
    says = f"Left over: {len(frame)}, of this revision: {mine}." if len(frame) else "Nothing is left over."
    return Check(
        "leftovers",
        "What did the failure leave behind?",
        "found" if len(frame) else "healthy",
        says,
        "There are 0 invalid indexes, 0 constraints that are NOT VALID, and 0 prepared transactions.",
        frame,
        frame.attrs["sql"],
    )


def sessions(site: Site, facts: Facts) -> Check:
    return surroundings.sessions(site, facts.tables_touched())


def retry(site: Site, facts: Facts) -> Check:
    """Would a plain retry work?"""
    waits = facts.revision is not None and not facts.stamped
    frame = pd.DataFrame(ways.retry(facts) if waits else [], columns=["operation", "says", "would"])
    asks = partial(
        Check,
        name="retry",
        question="Would a plain retry work?",
        healthy_when="The answer is yes: no operation of the revision is in the way of itself.",
    )
    if not waits:
        return asks(verdict="healthy", says="There is nothing to retry.", frame=frame)
    if facts.lost_silently:
        return asks(
            verdict="found",
            says="No: it reports success, and everything is rolled back. env.py runs SQL before context.configure().",
            frame=frame,
        )
    if facts.untouched() and not facts.replayed.error:
        return asks(verdict="healthy", says="Yes: nothing of the revision is in the database.", frame=frame)
    if facts.finishes_itself():
        return asks(verdict="healthy", says="Yes: mend.migrations goes on from what is in the database.", frame=frame)
    if frame.empty:
        perhaps = ", ".join(str(one.statement.operation) for one in facts.seen if one.ran is not False)
        why = facts.replayed.error or f"operation {perhaps} may have changed rows, and a retry would change them again"
        return asks(verdict="could_not_check", says="Nobody can tell.", frame=frame, why=why)
    return asks(verdict="found", says=f"No: it stops at operation {frame['operation'].iloc[0]}.", frame=frame)


def cause(site: Site, facts: Facts) -> Check:
    """Which rows stand in the way of what is missing?"""
    columns = ["object", "says", "groups", "rows", "failure_mode"]
    asks = partial(
        Check,
        name="cause",
        question="Why did it fail?",
        healthy_when="Nothing that stops the missing operations is found.",
    )
    wanted = facts.obstacles()
    sql = ";\n".join(o.sql for o in wanted)
    try:
        with site.target.reading(site.run_id) as conn:
            found = [_count(conn, o) for o in wanted]
    except MendError as error:
        return asks(verdict="could_not_check", says="The rows could not be read.", why=error.message, sql=sql)
    frame = pd.DataFrame([row for row in found if row["groups"]], columns=columns)
    if frame.empty:
        return asks(
            verdict="healthy",
            says="No row stands in the way. A lock or a timeout leaves no trace; it may be gone.",
            frame=frame,
            sql=sql,
        )
    first = frame.iloc[0]
    return asks(
        verdict="found",
        says=f"{first['object']}: {first['says']}. Mend it first ({parameters.pointer(first['failure_mode'])}).",
        frame=frame,
        sql=sql,
    )


def _count(conn: Any, wanted: violations.Obstacle) -> dict[str, Any]:
    """How many groups stand in the way (at most LIMIT are looked for); values are not shown, they may be personal."""
    rows = conn.exec_driver_sql(wanted.sql.replace("%", "%%")).mappings().fetchall()
    total = sum(int(row["rows"]) for row in rows) if rows and "rows" in rows[0] else len(rows)
    return {
        "object": wanted.identity,
        "says": wanted.says,
        "groups": len(rows),
        "rows": total,
        "failure_mode": wanted.slug,
    }
