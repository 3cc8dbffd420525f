"""What a scenario works with: a healthy shop of its own, real alembic, and the file that keeps what alembic said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from mend.errors import LabFailed
from mend.lab.shop import Attempt, Project, plain

Scenario = Callable[["Bench"], Mapping[str, str]]
"""Breaks the bench's shop for real; returns the runbook's parameters beyond ``target`` and ``alembic_ini``."""


@dataclass(frozen=True)
class Bench:
    """One healthy shop to be broken."""

    project: Project
    error_file: Path
    progress: Callable[[str], None]

    def alembic(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Attempt:
        """Run real alembic and keep its command line and its words in the error file."""
        attempt = self.project.alembic(*arguments, environ=environ)
        self.progress(f"alembic {' '.join(arguments)}: exit {attempt.exit_code}")
        before = self.error_file.read_text() + "\n" if self.error_file.exists() else ""
        self.error_file.write_text(before + str(attempt))
        return attempt

    def python(self, *arguments: str) -> Attempt:
        """Run a program of the project, and keep its command line and its words in the error file where it fails."""
        attempt = self.project.python(*arguments)
        self.progress(f"python {' '.join(arguments)}: exit {attempt.exit_code}")
        if attempt.exit_code:
            before = self.error_file.read_text() + "\n" if self.error_file.exists() else ""
            self.error_file.write_text(before + str(attempt))
        return attempt

    def start_alembic(self, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        """Start real alembic, and leave it at work; its words come into the error file as it says them."""
        self.project.start_alembic(*arguments, output=self.error_file, environ=environ)
        self.progress(f"alembic {' '.join(arguments)}: at work")

    def query(self, sql: LiteralString, *binds: object) -> list[tuple[Any, ...]]:
        """Rows of one question, asked on a connection of its own."""
        with psycopg.connect(plain(self.project.url), autocommit=True) as connection:
            return connection.execute(sql, binds).fetchall()

    def change(self, sql: LiteralString) -> None:
        """Change the shop as its application would."""
        with psycopg.connect(plain(self.project.url), autocommit=True) as connection:
            connection.execute(sql)

    @contextmanager
    def session(self, sql: LiteralString, *, name: str) -> Iterator[psycopg.Connection]:
        """An application's session that ran one statement and sits idle in its transaction meanwhile."""
        with psycopg.connect(plain(self.project.url), application_name=name) as connection:
            connection.execute(sql)
            yield connection
            connection.rollback()

    def version(self) -> str:
        """What the version table says."""
        return ", ".join(row[0] for row in self.query("select version_num from alembic_version order by 1"))

    def expect(self, promised: str, was: object, wanted: object) -> None:
        """Stop when the incident is not the one that the scenario promises."""
        if was != wanted:
            raise LabFailed(
                f"The lab could not make its incident: {promised} should be {wanted!r} and is {was!r}. Only the lab was "
                f"touched. `mend lab reset` starts afresh; what alembic said is in {self.error_file}."
            )

    def expect_words(self, attempt: Attempt, *words: str) -> None:
        """Stop when alembic's output lacks one of these words."""
        for word in words:
            self.expect(f"{word!r} in the output of `{attempt.command}`", word in attempt.output, True)
