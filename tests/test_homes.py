"""One slug names every home of a failure mode; every question can be asked; the scaffold fails closed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import test_notebooks
from mend.command import homes
from mend.database import parameters, queries, target
from mend.errors import InvalidParameter
from mend.symptoms.signatures import MODES

ROOT = homes.checkout()


def _slugs(pattern: str, *, but: tuple[str, ...] = ()) -> set[str]:
    names = {re.sub(r"^test_", "", path.stem) for path in ROOT.glob(pattern)}
    return names - {"__init__", *but}


def test_every_mode_has_every_home_under_the_same_name() -> None:
    runbooks = _slugs("runbooks/*.ipynb", but=parameters.NOT_MODES)
    assert runbooks == set(parameters.slugs()), "the package reads other notebooks than the checkout's"
    assert runbooks <= set(MODES)
    assert _slugs("lib/mend/modes/*.py") == runbooks
    assert _slugs("lib/mend/lab/*.py", but=("bench", "dropped_notes", "sessions")) == runbooks
    assert _slugs("tests/modes/test_*.py") == runbooks
    assert {match["slug"] for match in homes.README_ROW.finditer((ROOT / "README.md").read_text())} == runbooks
    folders = {path.parent.name for path in ROOT.glob("lib/mend/sql/*/*.sql")}
    assert folders & set(MODES) == runbooks


def test_the_readme_tells_the_symptom_in_the_notebooks_words() -> None:
    rows = {match["slug"]: match[0] for match in homes.README_ROW.finditer((ROOT / "README.md").read_text())}
    for slug in parameters.slugs():
        assert parameters.symptom(slug).rstrip(".") in rows[slug]


# -- questions --------------------------------------------------------------------------------------------------------

SAMPLES = {"xid": "3", "text": "pg_class", "name": "pg_class", "bool": True, "int4": 1, "int8": 1, "oid": 1, "float8": 0.5, "text[]": ["x"], "int4[]": [1], "int8[]": [1], "oid[]": [1]}  # fmt: skip
QUESTIONS = sorted(
    {
        re.sub(r"(\.pg\d+)?\.sql$", "", str(p.relative_to(ROOT / "lib/mend/sql")))
        for p in ROOT.glob("lib/mend/sql/*/*.sql")
    }
)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_can_be_asked_and_answers_the_columns_of_its_header(
    name: str, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the read-only session that every diagnosis has; `queries.frame` compares the columns."""
    monkeypatch.setenv("SHOP_URL_HERE", shop.url)
    with target.resolve("env:SHOP_URL_HERE").reading() as conn:
        asked = queries.question(name, version_num=queries.version_num(conn))
        binds = {bind.name: SAMPLES.get(bind.name, SAMPLES[bind.type]) for bind in asked.binds}
        queries.frame(conn, name, **binds)


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
    done = _python(copy, "-m", "mend.command.homes", "lock_queue")
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
    again = _python(copy, "-m", "mend.command.homes", "lock_queue")
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
    from mend.database import queries

    homes.scaffold(copy, "lock_queue")
    text = (copy / "lib/mend/sql/lock_queue/objects.sql").read_text()
    assert queries.parse("lock_queue/objects", text).question == "Which objects show lock queue?"


def test_the_notebook_of_the_scaffold_keeps_the_rules(copy: Path) -> None:
    homes.scaffold(copy, "lock_queue")
    path = copy / "runbooks" / "lock_queue.ipynb"
    rules = [
        rule for name, rule in vars(test_notebooks).items() if name.startswith("test_") and "parameter" not in name
    ]
    assert len(rules) >= 7
    for rule in rules:
        rule(path)


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


def test_the_wheel_carries_what_an_installed_mend_needs(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=120,
    )
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(installed)
    empty.mkdir()
    for name in ("lib/mend/sql", "lib/mend/scaffold", "lib/mend/lab/shop", "runbooks"):
        packed = installed / name.removeprefix("lib/") if name != "runbooks" else installed / "mend" / "runbooks"
        here = {
            str(p.relative_to(ROOT / name))
            for p in (ROOT / name).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        }
        there = {str(p.relative_to(packed)) for p in packed.rglob("*") if p.is_file()}
        assert here - there == set()
    where = subprocess.run(
        [sys.executable, "-c", "from mend.database import parameters; print(parameters.folder(), parameters.slugs())"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert where.stdout.startswith(str(installed / "mend" / "runbooks"))
    assert "failed_migration" in where.stdout
