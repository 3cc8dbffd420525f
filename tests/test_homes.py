"""One slug names every home of a failure mode; a notebook has the shape that its readers know; the scaffold fails closed."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mend import homes, parameters
from mend.errors import InvalidParameter
from mend.signatures import MODES

ROOT = homes.checkout()
NOTEBOOKS = sorted((ROOT / "runbooks").glob("*.ipynb"))


def _slugs(pattern: str, *, but: tuple[str, ...] = ()) -> set[str]:
    names = {re.sub(r"^test_", "", path.stem) for path in ROOT.glob(pattern)}
    return names - {"__init__", *but}


def test_every_mode_has_every_home_under_the_same_name() -> None:
    runbooks = _slugs("runbooks/*.ipynb", but=parameters.NOT_MODES)
    assert runbooks == set(parameters.slugs()), "the package reads other notebooks than the checkout's"
    assert runbooks <= set(MODES)
    assert _slugs("lib/mend/modes/*.py") == runbooks
    assert _slugs("lib/mend/lab/*.py", but=("bench",)) == runbooks
    assert _slugs("tests/modes/test_*.py") == runbooks
    assert {match["slug"] for match in homes.README_ROW.finditer((ROOT / "README.md").read_text())} == runbooks
    folders = {path.parent.name for path in ROOT.glob("lib/mend/sql/*/*.sql")}
    assert folders & set(MODES) == runbooks


def test_the_readme_tells_the_symptom_in_the_notebooks_words() -> None:
    rows = {match["slug"]: match[0] for match in homes.README_ROW.finditer((ROOT / "README.md").read_text())}
    for slug in parameters.slugs():
        assert parameters.symptom(slug).rstrip(".") in rows[slug]


# -- notebooks --------------------------------------------------------------------------------------------------------


def _cells(path: Path, kind: str = "") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if kind in ("", cell["cell_type"])]


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_has_the_sections_in_order(path: Path) -> None:
    heads = [
        line[3:] for cell in _cells(path, "markdown") for line in _source(cell).splitlines() if line.startswith("## ")
    ]
    if path.stem in parameters.NOT_MODES:
        assert heads == [section for section in homes.SECTIONS if section in heads]
    else:
        assert tuple(heads) == homes.SECTIONS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_begins_with_title_symptom_and_table(path: Path) -> None:
    lines = _source(_cells(path)[0]).splitlines()
    assert lines[0].startswith("# ")
    assert lines[2].startswith("> ")
    assert "Locks taken" in lines[4]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_holds_no_logic(path: Path) -> None:
    for cell in _cells(path, "code"):
        source = _source(cell)
        assert len(source.splitlines()) <= 12, source
        assert not re.search(r"^\s*[%!]", source, re.MULTILINE), source
        banned = (
            ast.FunctionDef,
            ast.ClassDef,
            ast.For,
            ast.While,
            ast.Try,
            ast.If,
            ast.With,
            ast.Lambda,
            ast.ListComp,
            ast.DictComp,
            ast.SetComp,
            ast.GeneratorExp,
        )
        nodes = list(ast.walk(ast.parse(source)))
        assert not [node for node in nodes if isinstance(node, banned)], source
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert not [
            text
            for text in texts
            if re.search(r"\b(select|insert into|update \w+ set|delete from|alter table)\b", text, re.IGNORECASE)
        ], source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_code_cell_follows_prose_and_every_question_says_what_healthy_is(path: Path) -> None:
    cells = _cells(path)
    for before, cell in itertools.pairwise(cells):
        assert "code" not in (before["cell_type"],) or cell["cell_type"] == "markdown", _source(cell)
    for cell in _cells(path, "markdown"):
        if "\n### " in "\n" + _source(cell):
            assert "*Healthy when*" in _source(cell), _source(cell)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_in_git_is_clean(path: Path) -> None:
    raw = json.loads(path.read_text())
    assert (raw["nbformat"], raw["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in raw["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in _cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        assert set(cell["metadata"]) <= {"tags"}


def test_each_runbook_hands_every_parameter_on() -> None:
    for slug in parameters.slugs():
        code = "\n".join(_source(cell) for cell in _cells(parameters.notebook(slug), "code"))
        for parameter in parameters.of(slug):
            assert f"{parameter.name}={parameter.name}" in code, f"{slug}: {parameter.name}"


# -- the scaffold -----------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the checkout's own files."""
    root = tmp_path / "checkout"
    for name in ("lib", "runbooks", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    return root


def _python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command,
        cwd=root,
        env={"PYTHONPATH": str(root / "lib"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_a_new_mode_gets_every_home_and_passes_lint(copy: Path) -> None:
    done = _python(copy, "-m", "mend.homes", "lock_queue")
    assert done.returncode == 0, done.stderr
    made = done.stdout.splitlines()[:-1]
    assert sorted(made) == [
        "README.md", "lib/mend/lab/lock_queue.py", "lib/mend/modes/lock_queue.py", "lib/mend/sql/lock_queue/objects.sql",
        "runbooks/lock_queue.ipynb", "tests/modes/test_lock_queue.py",
    ]  # fmt: skip
    python = [name for name in made if name.endswith(".py")]
    for check in (
        ["-m", "ruff", "check", *python],
        ["-m", "ruff", "format", "--check", *python],
        ["-m", "nbstripout", "--keep-id", "--verify", "runbooks/lock_queue.ipynb"],
    ):
        checked = _python(copy, *check)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    again = _python(copy, "-m", "mend.homes", "lock_queue")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)


def test_what_is_scaffolded_fails_until_it_is_built(copy: Path) -> None:
    homes.scaffold(copy, "lock_queue")
    raises = "from mend.modes import lock_queue as m\nfrom mend.errors import MendError\n"
    for call in ("m.diagnose(None)", "m.plan(None, option='')"):
        done = _python(copy, "-c", f"{raises}try:\n    {call}\nexcept MendError as e:\n    print(e)")
        assert "lock_queue is not built yet. Nothing was changed." in done.stdout, done.stderr
    assert _python(copy, "-c", f"{raises}assert m.unmet(None, None)").returncode == 0
    lab = _python(copy, "-m", "mend", "lab", "list")
    assert "lock_queue: first" in lab.stdout
    tests = _python(copy, "-m", "pytest", "-q", "-n", "0", "-p", "no:randomly", "tests/modes/test_lock_queue.py")
    assert "3 failed" in tests.stdout, tests.stdout


def test_the_question_of_the_scaffold_has_a_whole_header(copy: Path) -> None:
    from mend import queries

    homes.scaffold(copy, "lock_queue")
    text = (copy / "lib/mend/sql/lock_queue/objects.sql").read_text()
    assert queries.parse("lock_queue/objects", text).question == "Which objects show lock queue?"


def test_the_notebook_of_the_scaffold_keeps_the_rules(copy: Path) -> None:
    homes.scaffold(copy, "lock_queue")
    path = copy / "runbooks" / "lock_queue.ipynb"
    test_a_notebook_has_the_sections_in_order(path)
    test_a_notebook_begins_with_title_symptom_and_table(path)
    test_a_notebook_holds_no_logic(path)
    test_every_code_cell_follows_prose_and_every_question_says_what_healthy_is(path)
    test_a_notebook_in_git_is_clean(path)


@pytest.mark.parametrize("slug", ["", "Lock", "lock-queue", "../x", "lock queue", "_x", "x__y", "1x"])
def test_a_name_that_is_no_slug_makes_nothing(copy: Path, slug: str) -> None:
    before = sorted(copy.rglob("*"))
    with pytest.raises(InvalidParameter, match="is not a slug"):
        homes.scaffold(copy, slug)
    assert sorted(copy.rglob("*")) == before


def test_a_readme_without_a_catalogue_makes_nothing(copy: Path) -> None:
    (copy / "README.md").write_text("# mend\n")
    with pytest.raises(InvalidParameter, match="no catalogue row"):
        homes.scaffold(copy, "lock_queue")
    assert not (copy / "runbooks" / "lock_queue.ipynb").exists()
