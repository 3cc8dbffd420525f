"""The signs of failure modes in an error text, and what follows from several of them together.  Pure."""

from __future__ import annotations

from dataclasses import replace

from mend.queue import deadlock_detail
from mend.symptoms.errortext import ErrorText
from mend.symptoms.sign import Sign
from mend.symptoms.signatures import DEADLOCK, FAILED, ROLLBACK, SIGNATURES, Signature

_EXISTS = frozenset({"42701", "42P07", "42710", "42P06", "42723", "42P16"})
_CAUSES = frozenset(
    {
        "23505",
        "23502",
        "23503",
        "23514",
        "40P01",
        "55P03",
        "57014",
        "57P01",
        "25P03",
        "25P04",
        "53100",
        "08006",
        "55P04",
        "25001",
    }
)


def of_text(error: ErrorText) -> list[Sign]:
    """The signs in an error text: by SQLSTATE and exception class first, by message second."""
    by_message = [
        sign for signature in SIGNATURES if signature.when in error.context for sign in _matched(signature, error)
    ]
    explained = {sign.sqlstate for sign in by_message}
    by_code = [
        _coded(s, error.states[s.sqlstate])
        for s in SIGNATURES
        if s.alone and s.sqlstate in error.states and s.sqlstate not in explained and s.when in error.context
    ]
    return _chained([*by_message, *by_code], error)


def _matched(signature: Signature, error: ErrorText) -> list[Sign]:
    """The last place where a wording stands, as a sign."""
    matches = list(signature.regex.finditer(error.text))
    if not matches:
        return []
    last = matches[-1]
    confirmed = signature.sqlstate in error.states
    confidence = signature.confidence + (0.3 * (1 - signature.confidence) if confirmed else 0)
    says = signature.says + (f" (SQLSTATE {signature.sqlstate})" if signature.sqlstate else "")
    found = {key: value for key, value in last.groupdict().items() if value}
    around = error.around(last.start())
    if around.get("parent", "").partition("(")[0].strip().rpartition(".")[2] == found.get("parent"):
        del found["parent"]  # the statement names its columns too
    found = around | {{"branch": "revision", "column": "columns"}.get(key, key): value for key, value in found.items()}
    if signature.slug == DEADLOCK and error.pids:
        found["pids"] = ", ".join(map(str, error.pids))
    told = deadlock_detail.excerpt(error.text) if signature.slug == DEADLOCK else ""
    return [
        Sign(
            signature.slug,
            confidence,
            f"{says}: {_names(found)}" if _names(found) else says,
            found | ({"detail": told} if told else {}),
            "text",
            last.start(),
            signature.sqlstate,
        )
    ]


def _coded(signature: Signature, at: int) -> Sign:
    says = f"SQLSTATE {signature.sqlstate}: {signature.says}; the message itself was not recognised"
    return Sign(signature.slug, signature.alone, says, {}, "text", at, signature.sqlstate)


def _names(found: dict[str, str]) -> str:
    """Names only; the values of rows stay out of every output."""
    return ", ".join(f"{key} {value}" for key, value in found.items())


def _chained(found: list[Sign], error: ErrorText) -> list[Sign]:
    """Add what follows from several signs together, and the revision that was run.

    "already exists" after another error is the retry of a revision that this error left half-applied.  An error beside
    ``autocommit_block`` or CONCURRENTLY leaves one.  Both name the cause too, below the revision that must be mended first.
    """
    repeats = [s for s in found if s.slug == FAILED and s.sqlstate in _EXISTS]
    causes = [s for s in found if s.sqlstate in _CAUSES and s.slug != FAILED]
    earlier = [s for s in causes if repeats and s.at < max(r.at for r in repeats)]
    halfway: list[Sign] = []
    if earlier:
        first = min(earlier, key=lambda s: s.at)
        halfway = [
            Sign(
                FAILED,
                0.97,
                f"an earlier error in the text left the revision half-applied: {first.says}",
                {},
                "text",
                first.at,
            )
        ]
    elif causes and error.commits_midway and "runtime" not in error.context:
        halfway = [
            Sign(
                FAILED,
                0.95,
                "the statement that failed ran outside a transaction: what came before it is committed, and an index it was building is INVALID",
                {},
                "text",
            )
        ]
    elif causes and error.commits_midway:
        halfway = [Sign(FAILED, 0.6, "a concurrent index build failed, and leaves an INVALID index", {}, "text")]
    if again := error.run_again():
        halfway.append(
            Sign(
                FAILED,
                0.6,
                f"{again} is run again though its first run showed no error: the version table did not come to it",
                {"revision": again},
                "text",
            )
        )
    if (back := error.taken_back()) and repeats:
        says = f"{back} was taken back and is upgraded again: its downgrade() left behind what is there already"
        halfway.append(Sign(ROLLBACK, 0.97, says, {}, "text"))
    if found and "downgrade" in error.context:
        halfway.append(Sign(ROLLBACK, 0.9, "the error came up in a downgrade", {}, "text"))
    ceiling = max((s.confidence for s in halfway), default=1.0) - 0.05
    lowered = [
        replace(s, confidence=min(s.confidence, ceiling)) if s in causes and (earlier or error.commits_midway) else s
        for s in found
    ]
    return [_with_revision(sign, error.revision(), error.down_to()) for sign in [*lowered, *halfway]]


def _with_revision(sign: Sign, revision: str, down_to: str) -> Sign:
    """With the revision that was run; a way back is told where it was to go."""
    if sign.slug == ROLLBACK:
        return replace(sign, parameters=({"revision": down_to} if down_to else {}) | sign.parameters)
    return replace(sign, parameters={"revision": revision} | sign.parameters) if revision else sign
