"""What git still has: it is asked safely, and what it cannot answer is said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from mend.histories import git
from projects import revision


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    versions = tmp_path / "répo name" / "versions"
    versions.mkdir(parents=True)
    run(versions, "init", "-q")
    return versions


def run(folder: Path, *words: str) -> None:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    settings = ("-c", "user.name=Test", "-c", "user.email=test@invalid", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True, env=environ)


def commit(folder: Path, message: str) -> None:
    run(folder, "add", "--all")
    run(folder, "commit", "-qm", message)


def test_deleted_files_are_found_wherever_they_were_deleted(repository: Path) -> None:
    for name in ("in_commit", "in_index", "in_worktree", "kept"):
        (repository / f"{name}.py").write_text(revision(name, None))
    commit(repository, "all")
    (repository / "in_commit.py").unlink()
    commit(repository, "Tidy; with $(odd) `signs`")
    run(repository, "rm", "-q", "in_index.py")
    (repository / "in_worktree.py").unlink()
    found = git.look([repository], ["in_commit"])
    assert found.why == ""
    assert {one.revision.id: one.how.split(" in ")[0] for one in found.kept} == {
        "in_commit": "deleted",
        "in_index": "deleted, and not committed yet",
        "in_worktree": "deleted, and not committed yet",
    }
    kept = found.of("in_commit")
    assert kept
    assert kept.subject == "Tidy; with $(odd) `signs`"
    assert kept.text == revision("in_commit", None)


def test_a_file_deleted_in_a_merge_is_found(repository: Path) -> None:
    (repository / "a.py").write_text(revision("a1", None))
    (repository / "b.py").write_text(revision("b1", "a1"))
    commit(repository, "trunk")
    run(repository, "checkout", "-qb", "side")
    (repository / "c.py").write_text("x = 1\n")
    commit(repository, "side")
    run(repository, "checkout", "-q", "-")
    run(repository, "merge", "-q", "--no-ff", "--no-commit", "side")
    run(repository, "rm", "-q", "b.py")
    commit(repository, "an evil merge")
    assert git.look([repository], []).of("b1")


def test_a_file_of_a_branch_that_was_never_merged_is_found_by_its_id(repository: Path) -> None:
    (repository / "a.py").write_text(revision("a1", None))
    commit(repository, "trunk")
    run(repository, "checkout", "-qb", "feature")
    (repository / "b.py").write_text(revision("feature1", "a1"))
    commit(repository, "feature")
    run(repository, "checkout", "-q", "-")
    assert git.look([repository], []).of("feature1") is None
    assert git.look([repository], ["feature1"]).of("feature1")


def test_where_git_cannot_be_asked_that_is_the_answer(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not a git repository" in git.look([tmp_path], ["x"]).why
    assert git.look([repository], ["x"]) == git.Answer((), "", str(repository.resolve()))
    monkeypatch.setattr(git, "TIMEOUT_S", 0.0)
    assert "did not answer" in git.look([repository], []).why
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in git.look([repository], []).why


def test_what_the_repository_configures_is_not_run(repository: Path, tmp_path: Path) -> None:
    (repository / "a.py").write_text(revision("a1", None))
    commit(repository, "a")
    (repository / "a.py").unlink()
    commit(repository, "b")
    touched = tmp_path / "touched"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch '{touched}'\n")
    program.chmod(0o755)
    for name in ("core.pager", "core.fsmonitor", "pager.log", "diff.external", "core.sshCommand", "gpg.program"):
        run(repository, "config", name, str(program))
    run(repository, "config", "log.showSignature", "true")
    assert git.look([repository], ["zz"]).of("a1")
    assert not touched.exists()


def test_the_same_migration_is_known_by_what_upgrade_does() -> None:
    body = "def upgrade():\n    op.add_column('t', c)\n"
    assert git.does_the_same(
        revision("b1", "a1").split("def upgrade")[0] + body,
        body.replace("'", '"') + "# tidied\n\ndef downgrade(): pass\n",
    )
    assert not git.does_the_same(body, body.replace("'t'", "'u'"))
    assert not git.does_the_same(body, "<<<<<<<")
