"""The questions of environment_mismatch about what was compared, each with its answer.  Pure: everything was read before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pandas as pd

from mend.diagnosis import Check
from mend.mismatch import drift
from mend.mismatch.drift import Difference
from mend.mismatch.drifted import Facts

_COLUMNS = ["kind", "identity", "expected", "live", "revision", "index", "attribution"]
_STRANGE = ("unknown to the files", "an ancestor of another row")


def version_rows(facts: Facts) -> Check:
    """Which revision does the database say it is at?"""
    frame = facts.version_rows
    rows = ", ".join(facts.table.rows) or "none"
    strange = [row for row in frame.to_dict("records") if row["position"] in _STRANGE]
    says = f"The version table {facts.table.schema}.{facts.table.name} holds: {rows}."
    says += "".join(f" {row['version_num']} is {row['position']}." for row in strange)
    never = not facts.table.rows and any(kind == "table" for kind, _ in facts.live)
    says += " There are tables, but no revision was ever recorded." if never else ""
    return Check(
        "version_rows", "Which revision does the database say it is at?", "found" if strange or never else "healthy", says,
        "There is a version row for every branch, and the files know it.", frame, facts.version_sql,
    )  # fmt: skip


def revisions(facts: Facts) -> Check:
    """Did the revisions that are recorded run?"""
    compared = facts.drift
    asks = partial(
        Check, name="revisions", question="Did the recorded revisions really run?",
        healthy_when="Every operation of every recorded revision left what it sets, and no other revision fits better.",
    )  # fmt: skip
    if facts.unreplayed:
        return asks(verdict="could_not_check", says="The history could not be replayed.", why=facts.unreplayed)
    odd = [one for one in compared.revisions if one.state not in ("as recorded", "no trace of its own")]
    rows = [
        (
            one.revision,
            one.state,
            one.operations,
            ", ".join(map(str, one.never_ran)),
            ", ".join(map(str, one.changed)),
            _edited(facts, one.revision),
        )
        for one in odd
    ]
    frame = pd.DataFrame(rows, columns=["revision", "state", "operations", "never ran", "changed since", "its file"])
    misuse = _misuse(facts)
    lost = [one.revision for one in odd if one.never_ran]
    says = misuse or (
        f"Of {len(lost)} revisions something never ran, or was taken back: {', '.join(lost[:5])}." if lost
        else f"What {len(odd)} revisions set was changed since." if odd else "Every recorded revision left what it sets."
    )  # fmt: skip
    return asks(verdict="found" if odd or misuse else "healthy", says=says, frame=frame)


def _edited(facts: Facts, revision: str) -> str:
    return next((edit.says for edit in facts.edits if edit.revision == revision), "")


def _misuse(facts: Facts) -> str:
    """What the version rows say, and what the schema says, where those are not the same."""
    best, e = facts.drift.best, facts.expected
    own = next((fit for fit in facts.drift.fits if fit.revisions == e.own), None)
    if best is None or own is None or best.revisions == own.revisions or best.differences >= own.differences:
        return ""
    fitting = ", ".join(facts.fitting_rows()) or "no revision"
    between = e.ran[min(best.revisions, own.revisions) : max(best.revisions, own.revisions)]
    how = "is recorded and never ran" if best.revisions < own.revisions else "ran and is not recorded"
    return (
        f"The version row says {', '.join(facts.table.rows) or 'nothing'}, but the schema fits {fitting}: {best.differences} differences instead of "
        f"{own.differences}. What {how}: {', '.join(between[:8])}."
    )


def differences(facts: Facts) -> Check:
    """Where does the schema differ?"""
    found = facts.drift.differences
    frame = listed(found)
    counts = frame["attribution"].value_counts()
    told = ", ".join(f"{counts[word]} {word}" for word in drift.MEANINGS if word in counts)
    meanings = " ".join(f"({word}: {drift.MEANINGS[word]}.)" for word in drift.MEANINGS if word in counts)
    says = (
        f"{len(found)} differences to {facts.against}: {told}. {meanings}"
        if found
        else f"Nothing differs from {facts.against}."
    )
    return Check(
        "differences", "Where does the schema differ from what its revisions make?", "found" if found else "healthy", says,
        "There are 0 differences.", frame,
    )  # fmt: skip


def groups(facts: Facts) -> Check:
    """Where are most of the differences?"""
    frame = grouped(facts.drift.differences)
    objects = frame["object"].nunique()
    says = (
        f"They are on {objects} objects; the most, {frame['differences'].iloc[0]}, on {frame['object'].iloc[0]}."
        if len(frame)
        else "Nowhere."
    )
    return Check(
        "groups",
        "Where are most of the differences?",
        "found" if len(frame) else "healthy",
        says,
        "The table is empty.",
        frame,
    )


def files(facts: Facts) -> Check:
    """Were applied revision files edited?"""
    frame = pd.DataFrame(
        [(one.revision, one.path, one.says) for one in facts.edits], columns=["revision", "file", "git says"]
    )
    says = (
        f"{len(frame)} files of revisions whose operations differ were changed after they came: what ran here may have been the older text."
        if len(frame) else "No file of a revision that differs was changed, as far as git knows."
    )  # fmt: skip
    return Check(
        "files",
        "Were applied revision files edited?",
        "found" if len(frame) else "healthy",
        says,
        "The table is empty.",
        frame,
    )


def server(facts: Facts) -> Check:
    """What of the server differs?"""
    frame = facts.server
    asks = partial(Check, name="server", question="What of the server differs?", sql=str(frame.attrs.get("sql", "")))
    if facts.server_there is not None:
        keys = ["fact", "name"]
        both = frame.merge(facts.server_there, on=keys, how="outer", suffixes=(" here", " there"))[
            [*keys, "value here", "value there"]
        ]
        odd = both[both["value here"].fillna("") != both["value there"].fillna("")].sort_values(keys)
        says = f"{len(odd)} facts differ from the other server." if len(odd) else "The servers agree."
        return asks(
            verdict="found" if len(odd) else "healthy", says=says, healthy_when="Both servers say the same.", frame=odd
        )
    stale = (frame["fact"] == "collation version") & frame["should_be"].notna() & (frame["value"] != frame["should_be"])
    lacking = _extensions(facts)
    says = " ".join(
        [*(f"{row['name']}: collation version {row['value']}, the library now has {row['should_be']}: rebuild indexes on text, then REFRESH VERSION."
           for row in frame[stale].to_dict("records")), *lacking]
    )  # fmt: skip
    return asks(
        verdict="found" if says else "healthy", says=says or "Nothing that mend knows to be wrong; the table lists the rest.",
        healthy_when="Collations have the version of the library, and every extension of the history is of the version that it makes.", frame=frame,
    )  # fmt: skip


def _extensions(facts: Facts) -> list[str]:
    """Extensions that the history makes, of another version here: of the same server version they would be the same."""
    if facts.drift.cross:
        return []
    made = {identity: text for (kind, identity), text in facts.drift.wanted.items() if kind == "extension"}
    here = {identity: text for (kind, identity), text in facts.live.items() if kind == "extension"}
    return [
        f"extension {name} is {here[name]}, and would be {made[name]}."
        for name in sorted(made.keys() & here.keys())
        if made[name] != here[name]
    ]


def grouped(differences: Iterable[Difference]) -> pd.DataFrame:
    """One row per object and attribution, the largest first.

    Returns
    -------
    DataFrame: object str · attribution str · revision str · index Int64 · differences int64 · operation str · kinds str
    """
    found: dict[tuple[str, str, str, int, str], list[Difference]] = {}
    for one in differences:
        found.setdefault((one.object, one.attribution, one.revision, one.index, one.says), []).append(one)
    rows = [
        (
            place[0],
            place[1],
            place[2],
            place[3] or None,
            len(several),
            place[4],
            ", ".join(dict.fromkeys(d.kind for d in several)),
        )
        for place, several in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    frame = pd.DataFrame(
        rows, columns=["object", "attribution", "revision", "index", "differences", "operation", "kinds"]
    )
    return frame.astype(
        {
            "object": "str",
            "attribution": "str",
            "revision": "str",
            "index": "Int64",
            "differences": "int64",
            "operation": "str",
            "kinds": "str",
        }
    )


def listed(differences: Sequence[Difference]) -> pd.DataFrame:
    """Every difference: kind str · identity str · expected str · live str (missing where there is none) · revision str · index Int64 · attribution str."""
    rows = [
        [one.kind, one.identity, one.expected, one.live, one.revision or None, one.index or None, one.attribution]
        for one in differences
    ]
    return pd.DataFrame(rows, columns=_COLUMNS).astype(
        {name: "Int64" if name == "index" else "str" for name in _COLUMNS}
    )


QUESTIONS: tuple[Callable[[Facts], Check], ...] = (version_rows, revisions, differences, groups, files, server)
