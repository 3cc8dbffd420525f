"""Histories that forked or lost a file, and version rows that do not fit them, made by real alembic (and, for one, real git)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from mend.errors import LabFailed
from mend.lab.bench import Bench, Scenario
from mend.lab.shop import HEAD

PARENT = "f2a85d9c0b46"


def two_heads(bench: Bench) -> dict[str, str]:
    """Two branches add to customers; one is released, the other was merged into the trunk without anybody looking at the heads."""
    bench.project.add_revision("6b1d84f0a2c7_marketing_consent", CONSENT)
    released = bench.project.alembic("upgrade", "head")
    bench.expect("exit code of the first branch's upgrade", released.exit_code, 0)
    bench.project.add_revision("93e5c7d2f810_customer_locale", LOCALE)
    again = bench.alembic("upgrade", "head")
    bench.alembic("heads")
    bench.expect("exit code of the upgrade", again.exit_code, 255)
    bench.expect_words(again, "Multiple head revisions are present for given argument 'head'")
    bench.expect("version row", bench.version(), "6b1d84f0a2c7")
    return {}


def deleted_file(bench: Bench) -> dict[str, str]:
    """Somebody cleaned up: a revision's file is gone, every database has had it, and git still has it."""
    bench.project.add_revision("6b1d84f0a2c7_marketing_consent", CONSENT)
    bench.project.add_revision("93e5c7d2f810_customer_locale", LOCALE.replace(HEAD, "6b1d84f0a2c7"))
    applied = bench.project.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", applied.exit_code, 0)
    bench.progress("the project is committed to git, and a file is deleted")
    _git(bench.project.directory, "init", "--quiet", "--initial-branch=main")
    _commit(bench.project.directory, "Add consent and locale of customers")
    (bench.project.directory / "migrations" / "versions" / "6b1d84f0a2c7_marketing_consent.py").unlink()
    _commit(bench.project.directory, "Remove old migrations")
    first = bench.alembic("upgrade", "head")
    bench.expect("exit code of the upgrade", first.exit_code, 1)
    bench.expect_words(first, "KeyError: '6b1d84f0a2c7'", "Revision 6b1d84f0a2c7 referenced from")
    bench.expect("version row", bench.version(), "93e5c7d2f810")
    return {}


def unknown_row(bench: Bench) -> dict[str, str]:
    """A preview of a branch used this database; its migration changed rows only, and its file was never committed."""
    path = bench.project.add_revision("7f20d6a94e13_preview_notes", PREVIEW)
    applied = bench.project.alembic("upgrade", "head")
    bench.expect("exit code of the preview's upgrade", applied.exit_code, 0)
    path.unlink()
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    first = bench.alembic("upgrade", "head")
    bench.alembic("current")
    bench.expect("exit code of the upgrade", first.exit_code, 255)
    bench.expect_words(first, "Can't locate revision identified by '7f20d6a94e13'")
    bench.expect("version row", bench.version(), "7f20d6a94e13")
    return {}


def overlapping_rows(bench: Bench) -> dict[str, str]:
    """A script of a restored backup put an old version row beside the new one; `alembic current` hides it."""
    bench.progress("a restore script puts an old version row back")
    bench.change("insert into alembic_version (version_num) values ('f2a85d9c0b46')")
    bench.project.add_revision("6b1d84f0a2c7_marketing_consent", CONSENT)
    first = bench.alembic("upgrade", "head")
    bench.alembic("current")
    bench.expect("exit code of the upgrade", first.exit_code, 255)
    bench.expect_words(first, "overlaps with other requested revisions")
    bench.expect("version rows", bench.version(), f"{HEAD}, {PARENT}")
    return {}


def _commit(directory: Path, message: str) -> None:
    _git(directory, "add", "--all")
    _git(
        directory,
        "-c",
        "user.name=Lab",
        "-c",
        "user.email=lab@invalid",
        "commit",
        "--quiet",
        "--no-gpg-sign",
        "-m",
        message,
    )


def _git(directory: Path, *words: str) -> None:
    """git in the lab's own project, with nobody's settings; the lab has no remote."""
    program = shutil.which("git")
    if program is None:
        raise LabFailed(
            "This incident needs git, which is not installed here. Only the lab was touched. Start another scenario."
        )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    environ |= {"GIT_AUTHOR_DATE": "2026-05-20T10:00:00Z", "GIT_COMMITTER_DATE": "2026-05-20T10:00:00Z"}
    done = subprocess.run(
        [program, "-C", str(directory), *words], capture_output=True, text=True, env=environ, timeout=60, check=False
    )
    if done.returncode:
        raise LabFailed(
            f"The lab could not make its incident: git {words[0]} said {done.stderr.strip()[:300]}. Only the lab was touched. "
            "`mend lab reset` starts afresh."
        )


SCENARIOS: dict[str, Scenario] = {
    "two_heads": two_heads,
    "deleted_file": deleted_file,
    "unknown_row": unknown_row,
    "overlapping_rows": overlapping_rows,
}

CONSENT = f'''"""Customers may refuse advertising

Revision ID: 6b1d84f0a2c7
Revises: {HEAD}
Create Date: 2026-05-11 08:14:02.337190

"""

import sqlalchemy as sa
from alembic import op

revision = "6b1d84f0a2c7"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customers", sa.Column("consent_at", sa.DateTime(timezone=True)))
    op.create_index("ix_customers_consent_at", "customers", ["consent_at"])


def downgrade() -> None:
    op.drop_index("ix_customers_consent_at", table_name="customers")
    op.drop_column("customers", "consent_at")
'''

LOCALE = f'''"""Customers have a language

Revision ID: 93e5c7d2f810
Revises: {HEAD}
Create Date: 2026-05-13 15:40:51.902447

"""

import sqlalchemy as sa
from alembic import op

revision = "93e5c7d2f810"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customers", sa.Column("locale", sa.String(8), server_default="en", nullable=False))
    op.create_check_constraint("ck_customers_locale", "customers", "locale <> ''")


def downgrade() -> None:
    op.drop_constraint("ck_customers_locale", "customers", type_="check")
    op.drop_column("customers", "locale")
'''

PREVIEW = f'''"""Preview: friendlier notes

Revision ID: 7f20d6a94e13
Revises: {HEAD}
Create Date: 2026-05-18 11:27:30.610388

"""

from alembic import op

revision = "7f20d6a94e13"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE orders SET note = 'Thank you' WHERE note IS NULL AND id % 7 = 0")


def downgrade() -> None:
    op.execute("UPDATE orders SET note = NULL WHERE note = 'Thank you'")
'''
