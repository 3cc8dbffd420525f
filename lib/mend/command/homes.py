"""The homes of a failure mode, one slug naming them all, and the scaffold that makes them: ``make new NAME=<slug>``.

What is scaffolded fails until it is built: the diagnosis raises, the lab raises, the tests fail.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from mend.errors import InvalidParameter, MendError

SECTIONS = ("Parameters", "Preconditions", "Diagnose", "Decide", "Act", "Verify", "Undo", "Prevent", "Record")
README_ROW = re.compile(r"^\| \[`(?P<slug>[a-z_]+)`\]\(runbooks/(?P=slug)\.ipynb\) \|.*$", re.MULTILINE)
_SLUG = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TEMPLATES = {
    "lib/mend/modes/{slug}.py": "mode.py.txt",
    "lib/mend/sql/{slug}/objects.sql": "question.sql.txt",
    "lib/mend/lab/{slug}.py": "lab.py.txt",
    "tests/modes/test_{slug}.py": "test.py.txt",
}
_PARAMETERS = """\
target: str = "lab"  # lab, env:NAME, service:NAME, or a name from mend.toml
alembic_ini: str = ""  # path of the project's alembic.ini; empty: the lab's, or the one in mend.toml
incident: str = ""  # a name that ties several runs together, e.g. a ticket number
dry_run: bool = True  # make the plan, change nothing
approve: str = ""  # digest of the plan you reviewed; applies it when dry_run is False
option: str = ""  # which way out; empty: the first that is safe"""
_CALLS = {
    "Decide": "run.decide()",
    "Act": "run.act()",
    "Verify": "run.verify()",
    "Undo": "run.undo()",
    "Prevent": "run.prevent()",
    "Record": "run.close()",
}


def checkout() -> Path:
    """The checkout that this package lies in.  Raises: InvalidParameter where it was installed without one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "pyproject.toml").is_file():
        raise InvalidParameter(
            "There is no checkout here. Nothing was changed. Clone the project and run `make new NAME=<slug>` in it."
        )
    return root


def scaffold(root: Path, slug: str) -> tuple[Path, ...]:
    """Make every home of a new mode; nothing that is there is overwritten.

    Raises: InvalidParameter for a slug that is not one, or of which a home is there already.
    """
    if not _SLUG.fullmatch(slug):
        raise InvalidParameter(
            f"{slug!r} is not a slug. Nothing was changed. Use lower case words joined by _, e.g. lock_queue."
        )
    texts = {root / path.format(slug=slug): _filled(template, slug) for path, template in _TEMPLATES.items()}
    texts[root / "runbooks" / f"{slug}.ipynb"] = json.dumps(_notebook(slug), indent=1, ensure_ascii=False) + "\n"
    if there := [path for path in texts if path.exists()]:
        raise InvalidParameter(f"{there[0]} is there already. Nothing was changed. Choose another slug.")
    readme = root / "README.md"
    catalogue = _with_row(readme.read_text(encoding="utf-8"), slug)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    readme.write_text(catalogue, encoding="utf-8")
    return (*texts, readme)


def _with_row(readme: str, slug: str) -> str:
    """The README with one more row in its catalogue."""
    rows = list(README_ROW.finditer(readme))
    if not rows:
        raise InvalidParameter("README.md has no catalogue row to add to. Nothing was changed. Restore the catalogue.")
    row = f"\n| [`{slug}`](runbooks/{slug}.ipynb) | *to write: the symptom as the operator sees it* | |"
    return readme[: rows[-1].end()] + row + readme[rows[-1].end() :]


def _filled(template: str, slug: str) -> str:
    text = files("mend").joinpath("scaffold", template).read_text(encoding="utf-8")
    words = slug.replace("_", " ")
    return text.replace("{{slug}}", slug).replace("{{words}}", words).replace("{{title}}", words.capitalize())


def _notebook(slug: str) -> dict[str, Any]:
    title = slug.replace("_", " ").capitalize()
    head = f"# {title}\n\n> To write: the symptom in the operator's words.\n\n| Locks taken | Blocks | Reversible | Typical time | PostgreSQL |\n|-|-|-|-|-|\n| to write | to write | to write | to write | 13 to 18 |"
    cells = [_prose("title", head)]
    for section in SECTIONS:
        cells.append(_prose(f"{section.lower()}-heading", f"## {section}\n\nTo write."))
        cells += _section(section, slug)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _section(section: str, slug: str) -> list[dict[str, Any]]:
    """The code cells under one heading, each after its prose."""
    if section == "Parameters":
        return [_code("parameters", _PARAMETERS, "parameters")]
    if section == "Preconditions":
        names = [line.split(":")[0] for line in _PARAMETERS.splitlines()]
        form = (
            f'from mend import runbook\n\nform = runbook.form(\n    "{slug}",\n    '
            + ", ".join(f"{name}={name}" for name in names)
            + ",\n)"
        )
        return [
            _code("form", form),
            _prose("open-prose", "Look at the card: is this the database you mean?"),
            _code("open", "run = form.open()"),
        ]
    if section == "Diagnose":
        question = "### Which objects show it?\n\n*Healthy when* there are 0 rows."
        return [
            _code("diagnose", "run.diagnose()"),
            _prose("objects", question),
            _code("objects-answer", 'run.answer("objects")'),
        ]
    return [_code(section.lower(), _CALLS[section])]


def _prose(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(name: str, text: str, *tags: str) -> dict[str, Any]:
    metadata = {"tags": list(tags)} if tags else {}
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": metadata,
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }


def main() -> int:
    """``python -m mend.command.homes <slug>``."""
    if len(sys.argv) != 2:
        print("make new NAME=<slug>", file=sys.stderr)
        return 1
    try:
        root = checkout()
        made = scaffold(root, sys.argv[1])
    except MendError as error:
        print(f"mend: {error.message}", file=sys.stderr)
        return error.exit_code
    for path in made:
        print(path.relative_to(root))
    print("Each of them says what to fill in. Until then the diagnosis, the lab and the tests fail, on purpose.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
