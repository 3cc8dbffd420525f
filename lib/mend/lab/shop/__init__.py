"""The practice project: a shop's schema with its own Alembic history, and rows to fill it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from mend.errors import LabFailed

HERE = Path(__file__).parent
HEAD = "b04e7c6f21d9"
PATIENCE_S = 600.0


def plain(url: str) -> str:
    """An address without SQLAlchemy's driver name, as psycopg and libpq take it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


@dataclass(frozen=True)
class Attempt:
    """One command that was really run, and all it said, in order."""

    command: str
    output: str
    exit_code: int

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.output}[exit {self.exit_code}]\n"


@dataclass(frozen=True)
class Project:
    """A working copy of the shop's Alembic project."""

    directory: Path
    url: str
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def alembic_ini(self) -> Path:
        """Its configuration, with the address of its database."""
        return self.directory / "alembic.ini"

    @property
    def env_py(self) -> Path:
        """Its environment script."""
        return self.directory / "migrations" / "env.py"

    def add_revision(self, name: str, text: str) -> Path:
        """Write one more revision file."""
        path = self.directory / "migrations" / "versions" / f"{name}.py"
        path.write_text(text)
        return path

    def alembic(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Attempt:
        """Run the real ``alembic`` on this project, with the interpreter that runs us."""
        shown, kept = self._command(arguments, environ)
        return self._ran(shown, [*self._alembic, *arguments], kept)

    def python(self, *arguments: str) -> Attempt:
        """Run a program of the project's own directory, with the interpreter that runs us."""
        _, kept = self._command((), None)
        return self._ran(" ".join(["python", *map(shlex.quote, arguments)]), [sys.executable, *arguments], kept)

    def _ran(self, shown: str, argv: list[str], environ: Mapping[str, str]) -> Attempt:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                cwd=self.directory, env=environ, timeout=PATIENCE_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise LabFailed(
                f"`{shown}` did not end within {PATIENCE_S:.0f} s. Only the lab was touched. "
                "`mend lab reset` starts afresh."
            ) from exc
        return Attempt(shown, done.stdout, done.returncode)

    def start_alembic(self, *arguments: str, output: Path, environ: Mapping[str, str] | None = None) -> None:
        """Start the real ``alembic`` in a session of its own, where it goes on when we end; its words are added to a file.

        It belongs to nobody: it ends by itself, or when its database or its server does.
        """
        shown, kept = self._command(arguments, environ)
        with output.open("a") as file:
            file.write(f"$ {shown}\n")
        apart = '"$@" >>"$0" 2>&1 </dev/null &'
        subprocess.run(
            ["sh", "-c", apart, str(output), *self._alembic, *arguments],
            cwd=self.directory, env=kept, start_new_session=True, timeout=PATIENCE_S, check=True,
        )  # fmt: skip

    @property
    def _alembic(self) -> tuple[str, ...]:
        return sys.executable, "-m", "alembic", "-c", str(self.alembic_ini)

    def _command(self, arguments: Iterable[str], environ: Mapping[str, str] | None) -> tuple[str, dict[str, str]]:
        """The command line as it is shown, and its environment variables."""
        extra = {**self.environ, **(environ or {})}
        shown = [f"{name}={shlex.quote(value)}" for name, value in extra.items()]
        shown += ["alembic", "-c", shlex.quote(str(self.alembic_ini)), *map(shlex.quote, arguments)]
        # libpq's variables and PYTHONWARNINGS of the caller would make another incident than the one promised.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "SHOP_", "PYTHONW"))}
        return " ".join(shown), {**kept, **extra}


def check_out(directory: Path, url: str) -> Project:
    """Make a fresh working copy of the project whose alembic.ini names this database."""
    shutil.rmtree(directory, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "__init__.py", "*.sql", "*.pyc")
    shutil.copytree(HERE, directory, ignore=ignored)
    point(directory / "alembic.ini", url)
    return Project(directory, url)


def point(alembic_ini: Path, url: str) -> None:
    """Write the database's address into an alembic.ini."""
    text = alembic_ini.read_text()
    line = "sqlalchemy.url = " + url.replace("%", "%%")  # a lone % is an interpolation there
    changed = re.sub(r"(?m)^sqlalchemy\.url = .*$", lambda _: line, text)
    if changed != text:
        alembic_ini.write_text(changed)


def build(project: Project, *, rows: int) -> None:
    """Bring an empty database to the healthy shop: every revision by real alembic, then the rows."""
    attempt = project.alembic("upgrade", "head")
    if attempt.exit_code != 0:
        raise LabFailed(
            "The shop's own migrations did not run. Only the lab was touched. `mend lab reset` starts afresh; "
            f"alembic said:\n{attempt}"
        )
    seed(project.url, rows)


def seed(url: str, rows: int) -> None:
    """Fill an empty shop: ``rows`` orders, the other tables in proportion."""
    with psycopg.connect(plain(url)) as connection:
        connection.execute("select set_config('shop.orders', %s, false)", [str(rows)])
        connection.execute((HERE / "seed.sql").read_bytes())


def digest() -> str:
    """Changes with the project's files: what was built from older ones is not used again."""
    hashed = hashlib.sha256()
    for path in sorted([*HERE.rglob("*.py"), *HERE.rglob("*.sql"), *HERE.rglob("*.ini")]):
        hashed.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:8]
