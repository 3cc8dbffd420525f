"""A file is never half written, and a user's file is replaced only if it is the one that was reviewed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from mend.errors import PlanIsStale
from mend.files import replace, write_atomic
from mend.journal import sha256

OLD, NEW = "down_revision = 'a'\n", "down_revision = 'b'\n"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def revision(tmp_path: Path) -> Path:
    path = tmp_path / "0002_b.py"
    path.write_text(OLD)
    return path


def wanted(path: Path, **others: Any) -> dict[str, Any]:
    return {"path": str(path), "text": NEW, "sha256": sha256(OLD), **others}


@pytest.mark.parametrize("content", ["", "é\r\n\u2028", b"\x00\xff", "x" * 200_000], ids=lambda c: repr(c[:5]))
def test_what_is_written_is_what_is_there(tmp_path: Path, content: str | bytes) -> None:
    write_atomic(tmp_path / "f", content)
    assert (tmp_path / "f").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["f"]


def test_a_crash_before_the_rename_leaves_the_old_file_and_nothing_beside_it(
    revision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(revision, NEW)
    assert revision.read_text() == OLD
    assert names(revision.parent) == [revision.name]


def test_the_content_is_on_disk_before_the_name_points_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), sync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), rename(self, to)))
    write_atomic(tmp_path / "f", "x")
    assert done == ["fsync", "rename"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_keeps_its_rights(revision: Path, mode: int) -> None:
    revision.chmod(mode)
    write_atomic(revision, NEW)
    assert stat.S_IMODE(revision.stat().st_mode) == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_keeps_its_owner_when_root_writes_it(revision: Path) -> None:
    os.chown(revision, 4711, 4712)
    write_atomic(revision, NEW)
    assert (revision.stat().st_uid, revision.stat().st_gid) == (4711, 4712)


def test_a_link_stays_a_link_and_what_it_leads_to_is_written(revision: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "shared" / "0002_b.py"
    elsewhere.parent.mkdir()
    revision.rename(elsewhere)
    revision.symlink_to(Path("shared/0002_b.py"))
    replace(wanted(revision))
    assert revision.is_symlink()
    assert elsewhere.read_text() == NEW
    assert names(elsewhere.parent) == [elsewhere.name]


def test_the_file_that_was_reviewed_is_replaced_and_a_second_time_nothing_happens(revision: Path) -> None:
    replace(wanted(revision))
    assert revision.read_text() == NEW
    before = revision.stat()
    replace(wanted(revision))
    assert revision.stat() == before


@pytest.mark.parametrize("edit", [OLD + "\n", OLD.replace("\n", "\r\n"), "", NEW + " "])
def test_a_file_that_was_edited_since_is_left_as_it_is(revision: Path, edit: str) -> None:
    revision.write_bytes(edit.encode())
    with pytest.raises(PlanIsStale, match=r"was edited since the plan was made\. It was left as it is\."):
        replace(wanted(revision))
    assert revision.read_bytes() == edit.encode()


def test_a_file_that_is_gone_is_not_made_anew(revision: Path) -> None:
    revision.unlink()
    with pytest.raises(PlanIsStale):
        replace(wanted(revision))
    assert not revision.exists()


def test_a_new_file_is_made_where_none_was(tmp_path: Path) -> None:
    replace(wanted(tmp_path / "merge.py", sha256=""))
    assert (tmp_path / "merge.py").read_text() == NEW


def test_line_ends_are_kept_as_reviewed(revision: Path) -> None:
    replace(wanted(revision, text="a\r\nb\n"))
    assert revision.read_bytes() == b"a\r\nb\n"
