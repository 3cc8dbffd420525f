"""How a revision's file should be, so that its long statement does not hold everybody up: proposals, and the change that lets it pass.

Reads the revision's file; a change is written only by the step of an approved plan.  Text is replaced where the file says the statement
as one string; anything else is left to its author.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mend.database import names
from mend.diagnosis import Prevention
from mend.journal import sha256
from mend.plan import Step
from mend.repairs import patch
from mend.repairs.halfway import Facts, Seen
from mend.slow import dml
from mend.slow.takeover import Takeover
from mend.values import lexical

_ALIAS = "t."


def preventions(facts: Facts | None, seen: Seen | None, take: Takeover, table: str) -> tuple[Prevention, ...]:
    """What would have stopped it: the revision split in three, and how its statements are logged the next time."""
    split = _split(facts, seen, take, table) if facts and seen and facts.revision else ()
    return (*split, *_ADVICE)


_ADVICE = (
    Prevention(
        "Measure before it runs: this runbook, on the pending revision, says beforehand what it rewrites, what it locks and how its statements "
        "are planned. On a copy of production, with its number of rows."
    ),
    Prevention(
        "To have slow statements logged, set it for the migration's session alone, after context.configure() in env.py: "
        "connection.execute(text(\"SET LOCAL log_min_duration_statement = '1s'\")) (a superuser, or GRANT SET ON PARAMETER from PostgreSQL 15 on). "
        "Not ALTER SYSTEM: it stays after the incident, for everybody, and cannot run in a transaction."
    ),
)


def _split(facts: Facts, seen: Seen, take: Takeover, table: str) -> tuple[Prevention, ...]:
    """Expand, backfill, contract: a sketch of the file whose long statement became a question."""
    assert facts.revision is not None
    if dml.read(seen.statement.sql) is None or not table:
        return ()
    says = (
        f"Split {facts.revision.id} in three: expand (what adds and loosens), with the release before; the backfill of {table} in short batches outside of "
        "alembic (`mend plan slow_migration -p option backfill`); contract (rules, indexes built concurrently) in a revision that only asks whether the "
        "backfill is complete. Only where no database has had this revision yet."
    )
    try:
        present = facts.revision.path.read_bytes().decode()
        made = (
            asked_instead(present, seen.statement.sql, take.where, table) if take.where and not take.why_not else None
        )
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        return (Prevention(f"{says} (The file could not be read: {error}.)"),)
    name = facts.revision.path.name
    return (Prevention(says, patch.unified(present, made, name) if made else ""),)


def asked_instead(present: str, sql: str, where: str, table: str) -> str | None:
    """The file with the statement of upgrade() that sends ``sql`` replaced by a question; None where that cannot be said for sure."""
    tree = ast.parse(present.removeprefix("\ufeff"))
    found = [(outer, node) for outer, node in _strings(tree) if dml.shape(str(node.value)) == dml.shape(sql)]
    if len(found) != 1:
        return None
    outer, _ = found[0]
    lines = present.splitlines(keepends=True)
    pad = " " * outer.col_offset
    question = f"SELECT EXISTS (SELECT FROM {table} AS t WHERE {where})"
    guard = [
        f"{pad}# {table} is backfilled outside of the migration, in short batches; here it is only asked whether that is complete.\n",
        f"{pad}if op.get_bind().exec_driver_sql({question.replace('%', '%%')!r}).scalar():\n",
        f"{pad}    raise RuntimeError({f'{table}: the backfill is not complete'!r})\n",
    ]
    return "".join([*lines[: outer.lineno - 1], *guard, *lines[outer.end_lineno or outer.lineno :]])


def _strings(tree: ast.Module) -> Iterator[tuple[ast.stmt, ast.Constant]]:
    """Every text in upgrade() that could be a statement, with the statement of its body that it stands in."""
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name == "upgrade":
            for outer in function.body:
                yield from (
                    (outer, node)
                    for node in ast.walk(outer)
                    if isinstance(node, ast.Constant) and isinstance(node.value, str) and dml.read(node.value)
                )


def passing_over(facts: Facts, seen: Seen, take: Takeover) -> tuple[Prevention, ...]:
    """The change of the file that lets its statement find nothing to do after a takeover; () where it needs none, or none is known."""
    if facts.revision is None or take.closes or not take.told:
        return ()
    try:
        present = facts.revision.path.read_bytes().decode()
        made = narrowed(present, seen.statement.sql, told=take.told)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ()
    if made is None:
        return ()
    name = facts.revision.path.name
    says = f"{name}: its statement goes over those rows only that do not hold their new values yet."
    return (
        Prevention(says, patch.unified(present, made, name), str(facts.revision.path), sha256(present), present, made),
    )


def narrowed(present: str, sql: str, *, told: Collection[str]) -> str | None:
    """The file with a condition more in the statement's own text: rows that hold their new values are passed over.  None as above.

    ``told``: the columns (quoted) that tell it; one whose value is another each time would find every row again.
    """
    if present.startswith("\ufeff"):
        return None
    tree = ast.parse(present)
    found = [node for _, node in _strings(tree) if dml.shape(str(node.value)) == dml.shape(sql)]
    source = ast.get_source_segment(present, found[0]) if len(found) == 1 else None
    if source is None or present.count(source) != 1:
        return None
    text = str(found[0].value)
    change = dml.read(text)
    if change is None or change.batch_key or any(_ALIAS in part for part in (*change.values.values(), change.where)):
        return None
    told_by = {names.unquoted(column) for column in told}
    differs = " OR ".join(
        f"{column} IS DISTINCT FROM ({value})"
        for column, value in change.values.items()
        if lexical.tokens(column)[0].value in told_by
    )
    if change.where and text.count(change.where) != 1:
        return None
    made = (
        text.replace(change.where, f"({change.where}) AND ({differs})")
        if change.where
        else f"{text.rstrip().rstrip(';')} WHERE {differs}"
    )
    if dml.read(made) is None or ((quotes := source[:3] if source[:3] in ('"""', "'''") else "") and quotes in made):
        return None
    return present.replace(source, f"{quotes}{made}{quotes}" if quotes and "\\" not in made else repr(made))


def loops(present: str, sql: str) -> bool:
    """Whether the file sends this statement from within a ``while``, as its text or by a name that stands for its text."""
    tree = ast.parse(present.removeprefix("\ufeff"))

    def says(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and dml.shape(node.value) == dml.shape(sql)
        )

    named = {
        target.id
        for one in ast.walk(tree)
        if isinstance(one, ast.Assign) and any(says(node) for node in ast.walk(one.value))
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    return any(
        says(node) or (isinstance(node, ast.Name) and node.id in named)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.While)
        for node in ast.walk(loop)
    )


def steps(found: Iterable[Prevention]) -> tuple[Step, ...]:
    """The steps that write the changed files, each with its way back."""
    return tuple(
        replace(
            step, says=f"Let the statement of {Path(str(step.arguments['path'])).name} pass over rows that are done"
        )
        for step in patch.steps(found)
    )
