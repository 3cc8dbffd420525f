"""Names as a catalog prints them."""

from __future__ import annotations

import pytest
from mend.database import names


@pytest.mark.parametrize(
    ("identity", "own"),
    [
        ("public.version", True),
        ("public.version.version_num", True),
        ("public.version.version_pkc", True),
        ("table public.version", True),
        ("table public.version to app", True),
        ('"we.ird".version', True),
        ("public.users.version", False),
        ('public."us.version"', False),
        ("version.users", False),
        ("public.users.users_version_pkc", False),
    ],
)
def test_a_column_of_that_name_is_not_the_version_table(identity: str, own: bool) -> None:
    assert names.of_version_table("version", identity) is own
