"""Fixtures of the practice shop: a healthy clone per test, and broken ones.

shop        a clone of the healthy shop at its head, few rows, with a working copy of its Alembic project:
            .url .alembic_ini .directory .alembic(*arguments)
incident    incident("interrupted_index") gives a broken clone: .url .alembic_ini .error_file .parameters .alembic()
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mend import lab
from mend.lab import shop as shop_room
from mend.lab.shop import Attempt, Project
from mend.postgres.server import Server

ROWS = 200


@dataclass(frozen=True)
class Broken:
    """One broken shop; ``parameters`` are the runbook's and name it as an ``env:`` target."""

    project: Project
    error_file: Path
    parameters: dict[str, str]
    slug: str = "failed_migration"

    @property
    def url(self) -> str:
        return self.project.url

    @property
    def alembic_ini(self) -> Path:
        return self.project.alembic_ini

    def alembic(self, *arguments: str) -> Attempt:
        return self.project.alembic(*arguments)


@pytest.fixture(scope="session")
def keep_database(server: Server) -> Callable[..., str]:
    """``keep_database(name, template)`` makes a database that lasts for the session, and gives its URL."""

    def make(name: str, template: str = "template1") -> str:
        with lab.administrator(server) as connection:
            connection.execute(f'create database "{name}" template "{template}"'.encode())
        return server.url(name)

    return make


@pytest.fixture(scope="session")
def hubs() -> dict[str, str]:
    """Names of this worker's databases of jupyterhub by revision; whichever module asks first makes them."""
    return {}


@pytest.fixture(scope="session")
def shop_template(keep_database: Callable[..., str], session_directory: Path) -> str:
    """Name of the healthy shop that the tests clone."""
    project = shop_room.check_out(session_directory / "shop_template", keep_database("shop_template"))
    shop_room.build(project, rows=ROWS)
    return "shop_template"


@pytest.fixture
def shop(shop_template: str, new_database: Callable[..., str], tmp_path: Path) -> Project:
    """A healthy shop of this test's own."""
    return shop_room.check_out(tmp_path / "project", new_database(shop_template))


@pytest.fixture(scope="session")
def broken_templates(
    shop_template: str, keep_database: Callable[..., str], session_directory: Path
) -> Callable[[str, str], Broken]:
    """Breaks each scenario once for all tests of the session: real alembic takes its time."""
    made: dict[str, Broken] = {}

    def broken(slug: str, scenario: str) -> Broken:
        name = f"broken_{slug}_{scenario}"
        if name not in made:
            project = shop_room.check_out(session_directory / name / "project", keep_database(name, shop_template))
            error_file = session_directory / name / "error.txt"
            parameters = lab.stage(slug, scenario, project=project, error_file=error_file)
            made[name] = Broken(project, error_file, parameters, slug)
        return made[name]

    return broken


@pytest.fixture
def incident(
    broken_templates: Callable[[str, str], Broken],
    new_database: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Broken]:
    """``incident(scenario, slug="failed_migration")`` gives a broken shop of this test's own."""

    def make(scenario: str, *, slug: str = "failed_migration") -> Broken:
        template = broken_templates(slug, scenario)
        url = new_database(f"broken_{slug}_{scenario}")
        directory = tmp_path / scenario / "project"
        shutil.copytree(template.project.directory, directory)
        shop_room.point(directory / "alembic.ini", url)
        error_file = tmp_path / scenario / "error.txt"
        said = template.error_file.read_text()
        error_file.write_text(said.replace(str(template.project.directory), str(directory)))
        variable = f"INCIDENT_{scenario.upper()}_URL"
        monkeypatch.setenv(variable, url)
        own = {"target": f"env:{variable}", "alembic_ini": str(directory / "alembic.ini")}
        return Broken(Project(directory, url), error_file, {**template.parameters, **own}, slug)

    return make
