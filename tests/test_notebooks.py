"""The form of every runbook: the same sections in the same order, short cells without logic, nothing left over from a run."""

from __future__ import annotations

import ast
import itertools
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from mend.database import parameters

SECTIONS = ["Parameters", "Preconditions", "Diagnose", "Decide", "Act", "Verify", "Undo", "Prevent", "Record"]
COMMON = {"target": "lab", "alembic_ini": "", "incident": "", "dry_run": True, "approve": ""}
HEADER = ["Locks taken", "Blocks", "Reversible", "Typical time", "PostgreSQL"]
LOGIC = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.For,
    ast.While,
    ast.Try,
    ast.With,
    ast.If,
    ast.ListComp,
    ast.DictComp,
    ast.GeneratorExp,
)
SQL = re.compile(r"\b(select|insert|update|delete|alter|create|drop)\b.+\b(from|into|set|table|index|where)\b", re.I)

every_notebook = pytest.mark.parametrize(
    "path", sorted(parameters.folder().glob("*.ipynb")), ids=lambda path: path.stem
)
every_runbook = pytest.mark.parametrize(
    "path", [parameters.notebook(slug) for slug in parameters.slugs()], ids=lambda path: path.stem
)


def _cells(path: Path) -> list[dict[str, Any]]:
    return [
        cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]


def _code(path: Path) -> list[str]:
    return [cell["source"] for cell in _cells(path) if cell["cell_type"] == "code"]


def _headings(path: Path, level: int) -> list[str]:
    prose = "\n".join(cell["source"] for cell in _cells(path) if cell["cell_type"] == "markdown")
    return re.findall(rf"^#{{{level}}} (.+)$", prose, re.MULTILINE)


@every_notebook
def test_it_is_a_valid_notebook_of_format_4_5(path: Path) -> None:
    book = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert book.metadata.kernelspec.name == "python3"
    assert set(book.metadata) <= {"kernelspec", "language_info"}
    assert len({cell.id for cell in book.cells}) == len(book.cells)


@every_notebook
def test_nothing_is_left_over_from_a_run(path: Path) -> None:
    for cell in _cells(path):
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert set(cell["metadata"]) <= {"tags"}


@every_runbook
def test_its_sections_are_the_same_as_everywhere(path: Path) -> None:
    assert _headings(path, 2) == SECTIONS
    assert len(_headings(path, 1)) == 1


@every_runbook
def test_its_first_cell_tells_symptom_locks_and_the_way_back(path: Path) -> None:
    first = _cells(path)[0]["source"]
    assert re.search(r"^# .+\n\n> .+", first)
    header = re.search(r"^\|(.+)\|\n\|[-|: ]+\|\n\|(.+)\|$", first, re.MULTILINE)
    assert header
    assert [word.strip() for word in header[1].split("|")] == HEADER
    assert all(word.strip() for word in header[2].split("|"))


@every_runbook
def test_each_check_is_a_question_with_one_call_and_its_health(path: Path) -> None:
    cells = _cells(path)
    questions = [
        n for n, cell in enumerate(cells) if cell["cell_type"] == "markdown" and cell["source"].startswith("### ")
    ]
    assert questions
    for n in questions:
        assert cells[n]["source"].splitlines()[0].endswith("?")
        assert "Healthy when" in cells[n]["source"]
        assert re.fullmatch(r'run\.(?:answer\("[a-z_]+"\)|watch\(\))', cells[n + 1]["source"])


@every_notebook
def test_code_is_short_and_follows_prose(path: Path) -> None:
    cells = _cells(path)
    for before, cell in itertools.pairwise(cells):
        if cell["cell_type"] == "code":
            assert before["cell_type"] == "markdown", cell["source"]
            declares = "parameters" in cell["metadata"].get("tags", [])  # a list: one parameter a line
            assert len(cell["source"].splitlines()) <= (20 if declares else 12)
    lengths = sorted(len(source.splitlines()) for source in _code(path))
    assert lengths[len(lengths) // 2] <= 3


@every_notebook
def test_code_holds_no_logic_and_no_sql(path: Path) -> None:
    for source in _code(path):
        assert not source.lstrip().startswith(("%", "!"))
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, LOGIC), source
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not SQL.search(node.value), source


@every_notebook
def test_imports_stand_in_one_cell(path: Path) -> None:
    assert sum(bool(re.search(r"^(import|from) ", source, re.MULTILINE)) for source in _code(path)) == 1


@every_runbook
def test_papermill_reads_the_parameters_as_we_do(path: Path) -> None:
    seen = papermill.inspect_notebook(str(path))
    declared = {p.name: p for p in parameters.of(path.stem)}
    assert list(seen) == list(declared)
    for name, parameter in declared.items():
        assert ast.literal_eval(seen[name]["default"]) == parameter.default, name
        assert seen[name]["inferred_type_name"] == parameter.type.__name__
        assert seen[name]["help"] == parameter.help != ""
    assert {name: declared[name].default for name in COMMON} == COMMON
    assert list(declared)[: len(COMMON)] == list(COMMON)


@every_runbook
def test_every_parameter_reaches_the_run(path: Path) -> None:
    call = next(
        node
        for source in _code(path)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "runbook.form"
    )
    assert ast.literal_eval(call.args[0]) == path.stem
    assert {word.arg: ast.unparse(word.value) for word in call.keywords} == {
        p.name: p.name for p in parameters.of(path.stem)
    }
