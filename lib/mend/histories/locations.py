"""alembic.ini as alembic reads it, and the directories that it names; nothing is imported."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from mend.errors import ProjectBroken
from mend.histories.project import find_python


def options(alembic_ini: Path) -> dict[str, str]:
    """The [alembic] section, under it [tool.alembic] of a pyproject.toml beside it."""
    parser = configparser.ConfigParser({"here": str(alembic_ini.absolute().parent)})
    try:
        parser.read_string(alembic_ini.read_text(encoding="utf-8"), str(alembic_ini))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ProjectBroken(
            f"{alembic_ini} cannot be read: {error}. Nothing was changed. Name the project's alembic.ini with --alembic-ini."
        ) from error
    found = _pyproject_options(alembic_ini.absolute().parent)
    for name in parser["alembic"] if parser.has_section("alembic") else ():
        try:
            found[name] = parser.get("alembic", name)
        except configparser.InterpolationError:
            found[name] = parser.get(
                "alembic", name, raw=True
            )  # a bare % in an address; alembic minds only where it is used
    return found


def _pyproject_options(folder: Path) -> dict[str, str]:
    try:
        table: dict[str, Any] = (
            tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {}).get("alembic", {})
        )
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
    here = {"here": str(folder)}
    texts = {key: "\n".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in table.items()}
    return {key: re.sub(r"%\(here\)s", lambda _: here["here"], value) for key, value in texts.items()}


def true(options: dict[str, str], name: str) -> bool:
    return options.get(name, "").strip().lower() in ("true", "1", "yes", "on")


def version_locations(options: dict[str, str]) -> list[str]:
    """version_locations, parted as alembic parts it: path_separator, its old name, else commas and spaces."""
    text = options.get("version_locations", "")
    separator = options.get("path_separator") or options.get("version_path_separator") or ""
    if "\n" in text.strip():
        separator = separator or "newline"
    signs = {
        "space": r"\s+",
        "newline": r"\n+",
        "os": re.escape(":" if sys.platform != "win32" else ";"),
        ":": ":",
        ";": ";",
    }
    return [part.strip() for part in re.split(signs.get(separator, r",\s*|\s+"), text) if part.strip()]


class Finder:
    """From a configured location to a directory; relative ones start where alembic.ini is, as the command is run there."""

    def __init__(self, alembic_ini: Path, options: dict[str, str], python: Path | None) -> None:
        self.here = alembic_ini.absolute().parent
        self.prepended = [
            self.here / part for part in re.split(r"[:;,\s]+", options.get("prepend_sys_path", ".")) if part
        ]
        self.python = python or find_python(alembic_ini)

    def directory(self, location: str) -> Path:
        package, colon, rest = location.partition(":")
        if not colon or len(package) == 1 or "/" in package:  # C:\... is a path
            return self.here / location
        found = self._package(package)
        if found is None:
            raise ProjectBroken(
                f"No package {package} for {location!r} was found with {self.python}. Nothing was changed. "
                "Name the interpreter of the project's virtual environment with --python."
            )
        return found / rest

    def _package(self, name: str) -> Path | None:
        parts = Path(*name.split("."))
        venv = self.python.parent.parent
        sites = [*self.prepended, *venv.glob("lib/python*/site-packages"), venv / "Lib" / "site-packages"]
        return next((site / parts for site in sites if (site / parts / "__init__.py").is_file()), None) or self._asked(
            name
        )

    def _asked(self, name: str) -> Path | None:
        """Ask the project's interpreter: an editable install can lie anywhere."""
        code = "import importlib.util, sys; sys.path[:0] = sys.argv[2:]; s = importlib.util.find_spec(sys.argv[1]); print(list(s.submodule_search_locations)[0])"
        command = [str(self.python), "-c", code, name, *map(str, self.prepended)]
        try:
            answer = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
                stdin=subprocess.DEVNULL,
                cwd=self.here,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return (
            Path(answer.stdout.strip().splitlines()[-1]) if answer.returncode == 0 and answer.stdout.strip() else None
        )
