"""Fixtures for what asks about values: a database to prepare, and the read-only session that a diagnosis has.

prepared    prepared("create table ...") runs SQL in this test's own database
reading     a connection as diagnoses have it, opened when it is first asked for; call it after ``prepared``
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import sqlalchemy
from mend.database import target
from sqlalchemy import Connection


@pytest.fixture
def prepared(database: str) -> Callable[[str], None]:
    """Run statements in this test's database, and commit."""

    def run(sql: str) -> None:
        engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.pool.NullPool)
        with engine.begin() as conn:
            conn.exec_driver_sql(sql.replace("%", "%%"))

    return run


@pytest.fixture
def reading(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Connection]]:
    """``reading()`` is the test's read-only session; always the same one."""
    monkeypatch.setenv("VALUES_URL", database)
    with ExitStack() as stack:
        opened: list[Connection] = []

        def conn() -> Connection:
            if not opened:
                opened.append(stack.enter_context(target.resolve("env:VALUES_URL").reading()))
            return opened[0]

        yield conn
