"""Small Alembic projects for tests: a folder, an alembic.ini, an env.py of some kind, and revisions given as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mend.histories.project import Project
from sqlalchemy import make_url

INI = "[alembic]\nscript_location = %(here)s/migrations\nprepend_sys_path = .\n"
PLAIN = """
import os
from alembic import context
from sqlalchemy import create_engine
print("hello from env.py")
with create_engine(os.environ["SHOP_URL"]).connect() as connection:
    context.configure(connection=connection{options})
    with context.begin_transaction():
        context.run_migrations()
"""
ASYNC = """
import asyncio, os
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
def run(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
async def main():
    engine = create_async_engine(os.environ["SHOP_URL"].replace("+psycopg:", "+psycopg_async:"))
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()
asyncio.run(main())
"""
SQL_FIRST = PLAIN.replace("    context.configure", "    connection.exec_driver_sql('select 1')\n    context.configure")
NOWHERE = "postgresql+psycopg://nobody@192.0.2.1:9/nowhere"  # TEST-NET-1: nothing answers there

ORDERS = """
op.create_table("customers", sa.Column("id", sa.Integer, primary_key=True))
op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True), sa.Column("note", sa.String(20)))
"""


def revision(name: str, down: str | tuple[str, ...] | None, upgrade: str = "pass", head: str = "") -> str:
    body = "\n".join("    " + line for line in upgrade.strip().splitlines())
    return f'"""{name}"""\nimport sqlalchemy as sa\nfrom alembic import op\nrevision = {name!r}\ndown_revision = {down!r}\n{head}\ndef upgrade():\n{body}\n'


def project(
    folder: Path,
    revisions: Mapping[str, str],
    *,
    url: str = NOWHERE,
    env: str = PLAIN,
    options: str = "",
    environ: Mapping[str, str] | None = None,
) -> Project:
    """``revisions`` maps file names to texts; ``options`` goes into context.configure()."""
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    (folder / "alembic.ini").write_text(INI)
    (folder / "migrations" / "env.py").write_text(env.replace("{options}", options))
    for name, text in revisions.items():
        (versions / f"{name}.py").write_text(text)
    own = {**os.environ, "SHOP_URL": url, "PYTHONDONTWRITEBYTECODE": "1", **(environ or {})}
    return Project(folder / "alembic.ini", Path(sys.executable), own)


def chain(**upgrades: str) -> dict[str, str]:
    """Revisions one after the other, by name and body of upgrade()."""
    names = list(upgrades)
    return {name: revision(name, names[n - 1] if n else None, upgrades[name]) for n, name in enumerate(names)}


def keywords(url: str) -> dict[str, str]:
    """A SQLAlchemy URL as libpq keywords."""
    address = make_url(url)
    return {
        "host": str(address.query["host"]),
        "port": str(address.query["port"]),
        "user": str(address.username),
        "dbname": str(address.database),
    }
