"""Files that a failed downgrade calls for: a revision that goes forward instead, and a patch of downgrade().  Pure; written by a step."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from mend.change import ddl
from mend.database import names
from mend.database.catalog import Change
from mend.diagnosis import Prevention
from mend.errors import NotInvertible, Refused
from mend.journal import sha256
from mend.mismatch import reconcile
from mend.plan import Step
from mend.repairs import halfway, patch, steps
from mend.replays.downgrades import Proof
from mend.rollback.dependents import Key
from mend.rollback.descent import Facts

_ID_LENGTH = 12


def steps_of(facts: Facts) -> tuple[Step, ...]:
    """The step that writes the revision.  Raises: Refused, NotInvertible."""
    head = facts.table.rows[0] if len(facts.table.rows) == 1 else ""
    if not head or facts.past.heads != (head,):
        raise Refused(
            f"A new revision comes after the one head of the history ({', '.join(facts.past.heads)}), and the database is at "
            f"{', '.join(facts.table.rows) or 'none'}. Nothing was changed. Upgrade first."
        )
    stays = needed(facts)
    changes = wanted(facts, stays)
    if not changes:
        raise Refused(f"Everything that would go is needed: {_named(facts)}. Nothing was changed.")
    up = ddl.filled(ddl.forward_of(changes, live=steps.frame(facts.live)))
    after = steps.moved(facts.live, changes)
    down = ddl.filled(ddl.inverse_of(changes, live=steps.frame(after)))
    revision = sha256(f"{head} {up}")[:_ID_LENGTH]
    kept = ", ".join(f"{kind} {identity}" for kind, identity in sorted(stays))
    doc = f"Take back {', '.join(facts.path)}, forward\n\n" + (f"Stays, because it is needed: {kept}\n" if kept else "")
    text = reconcile.revision_text(revision, head, doc, up, down)
    path = facts.past.revisions[head].path.parent / f"{revision}_take_back_forward.py"
    diff = patch.unified(None, text, patch.relative(path, facts.past.alembic_ini.parent))
    return (
        patch.file_step(
            f"Write revision {revision}, which takes back what nothing else needs", path, None, text, diff=diff
        ),
    )


def needed(facts: Facts) -> frozenset[Key]:
    """What the path would take away and something else needs: starts of what hangs, and what those in turn are made of."""
    gone = {(c.kind, c.identity) for p in facts.pieces for c in p.changes if c.after is None}
    stays = {one.start for one in facts.hanging}
    while True:
        texts = [
            facts.live.get(key, "")
            for key in gone
            if key in stays or ddl.holders(*key, facts.live.get(key, "")) & {i for _, i in stays}
        ]
        mentioned = frozenset().union(*(names.mentions(text) for text in texts)) if texts else frozenset()
        more = {key for key in gone - stays if key[1] in mentioned and ddl.is_object(key[0])}
        more |= {
            key
            for key in gone - stays
            if key[0] in ("table", "schema") and any(names.parent(i) == key[1] for _, i in stays)
        }
        if not more:
            return frozenset(stays)
        stays |= more


def wanted(facts: Facts, stays: frozenset[Key]) -> tuple[Change, ...]:
    """What the path changes without what stays; a column that stays takes NULLs, so that code without it can insert."""
    identities = {identity for _, identity in stays}
    found = []
    for c in steps.net(c for p in facts.pieces for c in p.changes):
        key = (c.kind, c.identity)
        if key in stays or ddl.holders(*key, c.before or c.after or "") & identities:
            plain = c.kind == "not_null" and c.after is None and ("default", c.identity) not in facts.live
            if plain and ("column", c.identity) in stays and " generated " not in facts.live["column", c.identity]:
                found.append(c)
            continue
        if c.after is None and c.before is not None and any(_about(c, identity) for identity in identities):
            continue
        found.append(c)
    return tuple(found)


def _about(change: Change, identity: str) -> bool:
    """Whether a key, an index or a check is about a column that stays."""
    if change.kind not in ("constraint", "index", "statistics"):
        return False
    about = halfway.relation_of(change) == names.parent(identity)
    return about and names.last(identity) in names.words(change.before or "")


def _named(facts: Facts) -> str:
    starts = dict.fromkeys(one.start for one in facts.hanging)
    users = {start: [f"{one.kind} {one.identity}" for one in facts.hanging if one.start == start] for start in starts}
    return "; ".join(f"{' '.join(start)} by {', '.join(named)}" for start, named in users.items())


# -- prevention ----------------------------------------------------------------------------------------------------------


def preventions(facts: Facts) -> tuple[Prevention, ...]:
    """Patches of the downgrades that do not give back what was, and what else would have helped."""
    found = [one for proof in facts.proofs if (one := _patched(facts, proof))]
    found += [one for name in facts.proven.above if (one := _patched(facts, facts.proven.proofs[name]))]
    raising = [p.revision for p in facts.proofs if p.failed and not p.failed.sqlstate]
    if raising:
        found.append(
            Prevention(
                f"{', '.join(raising)} cannot be taken back, and alembic says so only when it comes to it. Declare it before: this runbook names every "
                "such revision of a way down before anything starts; let a deployment ask it."
            )
        )
    out = [f"{one.kind} {one.identity}" for one in facts.hanging]
    if out:
        found.append(
            Prevention(
                f"Made outside of the history, and in the way of a downgrade: {', '.join(out[:6])}{' ...' if len(out) > 6 else ''}. Let a revision make it "
                "(`mend plan environment_mismatch`, option adopt): then its own downgrade() takes it away first."
            )
        )
    found.append(
        Prevention("In CI: `mend lint -a alembic.ini` names downgrades that destroy, do nothing, or are missing.")
    )
    return tuple(found)


def _patched(facts: Facts, proof: Proof) -> Prevention | None:
    """A diff of one revision's downgrade(); None where it needs none, or the file cannot be read so."""
    if not proof.failed and not proof.left:
        return None
    path = facts.past.revisions[proof.revision].path
    try:
        present = path.read_bytes().decode()
        texts = _texts(proof)
        new = _with_downgrade(present, texts, whole=proof.failed is not None)
    except (OSError, SyntaxError, ValueError, NotInvertible):
        return None
    name = patch.relative(path, facts.past.alembic_ini.parent)
    says = (
        f"{name}: downgrade() fails ({proof.failed.says}). This one takes back what upgrade() makes, in the right order; what upgrade() did to rows, it does not."
        if proof.failed
        else f"{name}: downgrade() leaves {', '.join(f'{c.kind} {c.identity}' for c in proof.left[:4])} otherwise than before; the added lines take that back."
    )
    return Prevention(says, patch.unified(present, new, name))


def _texts(proof: Proof) -> Sequence[str]:
    """SQL for downgrade(): all that upgrade() made, or what downgrade() leaves of it."""
    if proof.failed:
        return ddl.filled(ddl.inverse_of(proof.made))
    return ddl.filled(ddl.forward_of(c.reversed() for c in proof.left))


def _with_downgrade(present: str, texts: Sequence[str], *, whole: bool) -> str:
    """The file with another downgrade(), or with lines added to it."""
    tree = ast.parse(present)
    found = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "downgrade"), None)
    made = reconcile.function("downgrade", texts)
    lines = re.findall(r"[^\n]*\n|[^\n]+", present)
    if found is None:
        return "".join(lines).rstrip("\n") + "\n\n\n" + made
    first, last = found.body[0].lineno - 1, found.end_lineno or len(lines)
    body = made.split("\n", 1)[1]
    if not whole and not _empty(found):
        return "".join(lines[:last]) + body + "".join(lines[last:])
    return "".join(lines[:first]) + body + "".join(lines[last:])


def _empty(function: ast.FunctionDef) -> bool:
    return all(isinstance(n, ast.Pass) for n in function.body)
