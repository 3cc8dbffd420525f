"""The questions of rollback_failure, each with its answer.  Pure: everything was read before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from mend.change import ddl
from mend.database import names, queries
from mend.database.catalog import ROLE_KINDS
from mend.diagnosis import Check
from mend.replays.downgrades import Proof
from mend.rollback.descent import Facts


def version_rows(facts: Facts) -> Check:
    """Where is the database, and which revisions would go?"""
    rows = ", ".join(facts.table.rows) or "none"
    says = f"The version table {facts.table.schema}.{facts.table.name} holds: {rows}."
    frame = pd.DataFrame(
        [(one, facts.past.revisions[one].doc, "to be taken back") for one in facts.path]
        + [(one, facts.past.revisions[one].doc, "stays") for one in facts.rows_then],
        columns=["revision", "doc", "what becomes of it"],
    )
    if facts.choices:
        says += (
            f" With several heads `alembic downgrade -1` only warns that this is ambiguous, and takes one of them back. Nobody said which: pass "
            f"revision={' or '.join(f'{one}@-1' for one in facts.choices)}."
        )
        frame = pd.DataFrame(
            [(one, facts.past.revisions[one].doc, "could be taken back") for one in facts.choices],
            columns=frame.columns,
        )
    elif facts.path:
        says += f" Taken back would be: {', '.join(facts.path)}; then it is at {', '.join(facts.rows_then) or 'no revision'}."
    else:
        says += " There is nothing to take back."
    return Check(
        "version_rows", "Which revisions would be taken back?", "found" if facts.choices else "healthy", says,
        "It is clear which revisions go, and every version row is one that the files know.", frame, facts.version_sql,
    )  # fmt: skip


def proof(facts: Facts) -> Check:
    """Does downgrade() give back what was?"""
    made = facts.proven
    frame = pd.DataFrame(
        [(one.revision, one.verdict, len(one.statements), _detail(one)) for one in _all_proofs(facts)],
        columns=["revision", "verdict", "statements", "detail"],
    )
    bad = [one for one in facts.proofs if not one.exact]
    how = f"Up, down and up again in scratch, on PostgreSQL {made.server_version}" + (
        " (kept from before)." if made.cached else f", in {made.seconds:.1f} s."
    )
    says = f"{how} Of {len(facts.proofs)} revisions {len(facts.proofs) - len(bad)} come back exactly."
    says += "".join(f" {one.revision} {one.verdict}." for one in bad[:5])
    rows = [one.revision for one in facts.proofs if one.rows]
    says += f" Of {', '.join(rows)} only the schema: what upgrade() did to rows, no catalog tells." if rows else ""
    return Check(
        "proof", "Does each downgrade() give back what was?", "found" if bad else "healthy", says,
        "Every revision is exact: after downgrade() the catalog is what it was before upgrade(), and upgrade() runs again to the same end.",
        frame,
    )  # fmt: skip


def _all_proofs(facts: Facts) -> list[Proof]:
    return [*(facts.proven.proofs[one] for one in facts.proven.above), *facts.proofs]


def _detail(one: Proof) -> str:
    if one.failed:
        return one.failed.says + (f", in: {one.failed.sql[:200]}" if one.failed.sql else "")
    if one.failed_again:
        return one.failed_again.says
    if not one.left and one.rows:
        return f"but upgrade() changed rows, which nobody can compare: {'; '.join(one.rows[:3])}"
    left = [f"{c.kind} {c.identity}" for c in one.left if ddl.is_object(c.kind)] or [f"{c.kind} {c.identity}" for c in one.left]  # fmt: skip
    return ", ".join(left[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")


def left(facts: Facts) -> Check:
    """What does it leave behind, or lose?"""
    rows = [
        (p.revision, c.kind, c.identity, c.before, c.after, _word(c.before, c.after))
        for p in _all_proofs(facts)
        for c in p.left
    ]
    frame = pd.DataFrame(rows, columns=["revision", "kind", "identity", "before upgrade", "after downgrade", "so it"])
    mine = [row for row in rows if row[0] in facts.path]
    words = [f"{len([r for r in mine if r[5] == word])} {word}" for word in dict.fromkeys(r[5] for r in mine)]
    says = f"After downgrade() {len(mine)} facets are not as before upgrade(): {', '.join(words)}." if mine else "Nothing is left behind, and nothing is missing."  # fmt: skip
    return Check(
        "left",
        "What does it leave behind or take along?",
        "found" if mine else "healthy",
        says,
        "The table is empty.",
        frame,
    )


def _word(before: str | None, after: str | None) -> str:
    return "is left behind" if before is None else "is lost" if after is None else "is another"


def dependents(facts: Facts) -> Check:
    """What stands in the way?"""
    rows = []
    for one in facts.hanging:
        why = facts.why_gone(one)
        needs = ", ".join(" ".join(need) for need in one.on)
        rows.append((one.kind, one.identity, "no" if why else "yes", needs, "tracked", one.revision))
    rows += [
        (f"function ({m.language})", m.function, "it stays as it is", m.object, f"heuristic: {m.says}", "")
        for m in facts.mentions
    ]
    frame = pd.DataFrame(rows, columns=["kind", "identity", "can be made again", "depends on", "known by", "revision"])
    count, lost = len(facts.hanging), sum(bool(facts.why_gone(one)) for one in facts.hanging)
    says = f"{count} objects depend on what goes (2BP01); {count - lost} of them can be made again afterwards, {lost} cannot." if count else "No object that PostgreSQL tracks is in the way."  # fmt: skip
    if facts.mentions:
        says += f" {len(facts.mentions)} functions name what goes in their text, which PostgreSQL does not track: read them."
    return Check(
        "dependents", "What depends on what it drops?", "found" if len(frame) else "healthy", says,
        "The table is empty.", frame, _sql("dependents"),
    )  # fmt: skip


def _sql(name: str) -> str:
    return queries.question(f"rollback_failure/{name}").sql


def silent(facts: Facts) -> Check:
    """What goes along without a word?"""
    rows = []
    for piece in facts.pieces:
        extra = set(piece.silent)
        named = {c for c in piece.changes if c.after is None and c.before is not None and c.kind in _SILENT}
        for c in sorted(named | extra):
            if ddl.is_object(c.kind) and (c in extra or c.kind not in ("column", "table", "view", "matview")):
                own = names_it(piece.texts, c.identity)
                if not own:
                    rows.append(
                        (
                            c.kind,
                            c.identity,
                            "made by hand" if c in extra else "of the history",
                            c.before,
                            piece.revision,
                        )
                    )
    rows += [
        (one.kind, one.identity, "made by hand", facts.live[one.key], one.revision)
        for one in facts.hanging
        if one.cascade
    ]
    frame = pd.DataFrame(rows, columns=["kind", "identity", "whose", "definition", "revision"])
    hand = sum(row[2] == "made by hand" for row in rows)
    says = (
        f"{len(rows)} objects go without an error, {hand} of them not of this history."
        if rows
        else "Nothing goes without being named."
    )
    return Check(
        "silent", "What does PostgreSQL drop without a word?", "found" if hand else "healthy", says,
        "Nothing of the table was made by hand: undo brings all of it back, and the history only its own.", frame,
    )  # fmt: skip


_SILENT = frozenset(("index", "constraint", "statistics", "sequence", "trigger", "policy", "rule"))


def names_it(texts: tuple[str, ...], identity: str) -> bool:
    """Whether the SQL names an object."""
    return any(names.last(identity) in names.words(text) for text in texts)


def losses(facts: Facts) -> Check:
    """Which content goes?"""
    rows = [
        (
            one.revision,
            one.identity,
            one.says,
            one.rows.says if one.rows else "not known",
            "schema mend" if one.kept else "nowhere",
        )
        for one in facts.losses
    ]
    frame = pd.DataFrame(rows, columns=["revision", "of", "what", "rows", "kept in"])
    some = [one for one in facts.losses if one.rows is None or one.rows.best or not one.rows.exact]
    empty = [
        (p.revision, c.identity)
        for p in facts.proofs
        for c in p.made
        if c.kind in ("column", "table") and c.after is None and p.undone is not None
    ]
    says = f"Content of {len(some)} tables, columns or statements is lost." if some else "No content is lost."
    if empty:
        says += (
            f" What comes back is empty, for upgrade() dropped it: {', '.join(identity for _, identity in empty[:5])}."
        )
    frame = pd.concat([frame, pd.DataFrame([(r, i, "comes back empty", "", "see data_loss") for r, i in empty], columns=frame.columns)])  # fmt: skip
    return Check(
        "losses", "Which content is lost?", "found" if some or empty else "healthy", says,
        "No table or column that goes holds anything, and no statement changes rows.", frame.reset_index(drop=True),
    )  # fmt: skip


def midway(facts: Facts) -> Check:
    """Where would plain alembic stop?"""
    where, why = facts.first_stop()
    rows, reached = [], True
    for one in facts.path:
        rows.append(
            (one, "stops" if one == where else "runs" if reached else "is not reached", why if one == where else "")
        )
        reached = reached and one != where
    frame = pd.DataFrame(rows, columns=["revision", "alembic downgrade", "because"])
    asks = partial(
        Check,
        name="midway",
        question="Where would a plain alembic downgrade stop?",
        healthy_when="Every revision runs.",
        frame=frame,
    )
    if not where:
        return asks(
            verdict="healthy",
            says="Nowhere: every revision of the way runs." if facts.path else "There is no way to go.",
        )
    before = [row[0] for row in rows if row[1] == "runs"]
    commits = [
        p.revision for p in facts.proofs if any(s.autocommit for s in p.statements) and p.revision in [*before, where]
    ]
    if not before:
        stays = "Nothing before it is taken back."
    elif facts.proven.per_migration:
        stays = f"env.py commits each revision, so {', '.join(before)} would be taken back and the database left in between."
    elif commits:
        stays = f"{', '.join(commits)} commits in the middle, so what comes before would be taken back and the database left in between."
    else:
        stays = f"One transaction holds them all, so {', '.join(before)} would be rolled back too."
    return asks(verdict="found", says=f"At {where}: {why}. {stays}")


def leftovers(facts: Facts) -> Check:
    """Is something of a revision that is not applied here?"""
    rows = [(revision, c.kind, c.identity, c.after, "yes" if facts.used.get((c.kind, c.identity)) else "no") for revision, c in facts.leftovers]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["revision", "kind", "identity", "definition", "is used"])
    asks = partial(
        Check, name="leftovers", question="Has an earlier downgrade left something behind?", frame=frame,
        healthy_when="Of the next revision nothing is here yet.",
    )  # fmt: skip
    if facts.half_done:
        revision, what = next(iter(facts.half_done.items()))
        return asks(
            verdict="found",
            says=f"{what} of {revision} is here, and no downgrade leaves that: the revision ran by half (failed_migration).",
        )
    named = [f"{c.kind} {c.identity}" for _, c in facts.leftovers if c.kind not in ROLE_KINDS]
    functions = ", ".join(dict.fromkeys(one.function for one in facts.spoken_of))
    spoken = f" The text of {functions} names it, which PostgreSQL does not track: read that before you name drop_leftover as option." if functions else ""  # fmt: skip
    if named:
        return asks(
            verdict="found",
            says=f"Yes: {', '.join(named)} of {facts.leftovers[0][0]}, which is not applied. The upgrade fails on it (42710, 42P07).{spoken}",
        )
    return asks(verdict="healthy", says="No.")


QUESTIONS: tuple[Callable[[Facts], Check], ...] = (
    version_rows,
    midway,
    dependents,
    silent,
    proof,
    left,
    losses,
    leftovers,
)
