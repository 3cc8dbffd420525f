"""Changes of a revision file's text keep every other byte."""

from __future__ import annotations

import pytest
from mend.conflict import revision_files

TEXT = '"""Email\n\nRevision ID: b1\nRevises: a1\n"""\nrevision: str = "b1"\ndown_revision = "a1"\ndepends_on = ("x1", "y1")\n'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_change_of_parents_changes_two_lines(end: str) -> None:
    text = TEXT.replace("\n", end)
    changed = revision_files.with_parents(text, ["c1", "d1"])
    wanted = text.replace('"a1"', '("c1", "d1")').replace("Revises: a1", "Revises: c1, d1")
    assert changed == wanted


def test_a_dependency_changes_alone() -> None:
    assert revision_files.with_dependencies(TEXT, ["x1"]) == TEXT.replace('("x1", "y1")', '"x1"')
