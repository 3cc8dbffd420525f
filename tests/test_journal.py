"""The journal: whatever anybody does to one of its bytes is noticed, and whatever an event says can be written."""

from __future__ import annotations

import errno
import functools
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mend import journal
from mend.errors import RecordDamaged
from mend.journal import GENESIS, Journal, canonical, sha256

fixtures_are_shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def book(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def filled(path: Path) -> bytes:
    """A journal of four events, with what is easily misread: floats, line separators, quotes, an escape."""
    book = Journal(path)
    book.append("run_opened", {"slug": "small", "parameters": {"rows": 0.30000000000000004, "n": 10}})
    book.append(
        "step_started", {"step": 0, "sql": 'select \'\u2028"\\\' as "x\x85"'}, server_time="2025-01-01 00:00:00+00"
    )
    book.append("step_xid", {"step": 0, "xid": "731"})
    book.append("run_closed", {"outcome": "completed", "notices": [None, True, "é"]})
    return path.read_bytes()


@pytest.fixture(scope="module")
def one_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "journal.jsonl"


@functools.cache
def once_filled(path: Path) -> bytes:
    return filled(path)


def head(path: Path) -> tuple[int, str]:
    """Length and hash of the last event: what record.json and the target remember."""
    events = list(journal.read(path))
    return len(events), events[-1].hash if events else GENESIS


def test_events_are_read_as_they_were_written(book: Journal) -> None:
    first = book.append("run_opened", {"slug": "small"})
    second = book.append("step_done", {"step": 0, "rows": 3}, server_time="2025-01-01 10:00:00+00")
    assert book.events() == [first, second]
    assert (first.seq, first.prev) == (0, GENESIS)
    assert (second.seq, second.prev, second.server_time) == (1, first.hash, "2025-01-01 10:00:00+00")
    assert [event.payload for event in book.of("step_done")] == [{"step": 0, "rows": 3}]


@given(st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), min_size=1, max_size=4))
@settings(fixtures_are_shared, max_examples=40)
def test_whatever_an_event_says_can_be_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[dict[str, Any]]
) -> None:
    book = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    for payload in payloads:
        book.append("check", payload)
    assert [event.payload for event in book.events()] == payloads


@pytest.mark.parametrize(
    "separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r", "\r\n", "\n"]
)
def test_a_line_separator_inside_a_text_parts_no_line(book: Journal, separator: str) -> None:
    book.append("check", {"says": f"a{separator}b"})
    book.append("run_closed", {})
    assert book.events()[0].payload == {"says": f"a{separator}b"}


def test_half_a_surrogate_as_of_a_file_name_that_is_not_utf8_is_written(book: Journal) -> None:
    name = b"caf\xe9.py".decode("utf-8", "surrogateescape")
    book.append("check", {"file": name})
    book.append("run_closed", {})
    assert book.events()[0].payload == {"file": name}
    assert book.path.read_bytes().decode("utf-8")


def test_what_json_does_not_know_is_kept_as_text_and_a_set_in_one_order(book: Journal) -> None:
    book.append("check", {"path": Path("a/b"), "names": {"c", "a", "b"}})
    assert book.events()[0].payload == {"path": "a/b", "names": ["a", "b", "c"]}


def test_equal_values_have_one_spelling() -> None:
    assert canonical({"b": [1, "é"], "a": None}) == canonical({"a": None, "b": (1, "é")}) == '{"a":null,"b":[1,"é"]}'


@given(st.data())
@settings(fixtures_are_shared, max_examples=300)
def test_any_other_byte_anywhere_is_noticed(one_path: Path, data: st.DataObject) -> None:
    path = one_path
    content = bytearray(once_filled(path))
    path.write_bytes(content)
    whole = head(path)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    path.write_bytes(bytes(content))
    assert noticed(path, whole)


@given(st.data())
@settings(fixtures_are_shared, max_examples=200)
def test_any_piece_put_in_or_cut_out_is_noticed(one_path: Path, data: st.DataObject) -> None:
    path = one_path
    content = once_filled(path)
    path.write_bytes(content)
    whole = head(path)
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    piece = data.draw(st.binary(max_size=5))
    edited = content[:start] + piece + content[end:]
    path.write_bytes(edited)
    unfinished = (
        edited.startswith(content) and b"\n" not in edited[len(content) :]
    )  # no event; record.json has the file's hash
    assert unfinished or noticed(path, whole)


def noticed(path: Path, whole: tuple[int, str]) -> bool:
    """Damage is reported, or the events are no longer those that record.json and the target remember."""
    try:
        return head(path) != whole
    except RecordDamaged:
        return True


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"n":10', b'"n": 10'),  # the same values in another spelling
        (b"0.30000000000000004", b"0.30000000000000005"),  # the same double
        (b'"n":10', b'"n":10,"n":10'),
        (b'"seq":0', b'"seq":false'),
        (b"}\n{", b"}\r{"),
        (b"}\n{", b"}\r\n{"),
        (b"}\n{", b"}\n\n{"),
        ("é".encode(), b"\\u00e9"),
        (b'"n":10', b'"n":' + b"1" * 5000),
        (b'"n":10', b'"n":' + b"[" * 100_000),
        (b"{", b"\xef\xbb\xbf{"),
        (b"completed", b"\xff\xfe"),
    ],
)  # fmt: skip
def test_an_edit_that_a_parser_would_forgive_is_noticed(tmp_path: Path, old: bytes, new: bytes) -> None:
    content = filled(tmp_path / "journal.jsonl")
    assert old in content
    (tmp_path / "journal.jsonl").write_bytes(content.replace(old, new, 1))
    with pytest.raises(RecordDamaged, match=r"line \d") as caught:
        list(journal.read(tmp_path / "journal.jsonl"))
    assert caught.value.verdict == "edited"


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_line_that_is_gone_or_moved_is_noticed(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "journal.jsonl"
    lines = filled(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
    with pytest.raises(RecordDamaged, match=f"line {lost + 1} was edited, or a line before it is gone"):
        list(journal.read(path))
    lines[lost], lines[lost + 1] = lines[lost + 1], lines[lost]
    path.write_bytes(b"".join(lines))
    with pytest.raises(RecordDamaged):
        list(journal.read(path))


def test_a_line_rewritten_with_a_fitting_hash_breaks_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = filled(path).decode().split("\n")
    event = json.loads(lines[1])
    event["payload"]["sql"] = "select 1"
    event["hash"] = sha256(canonical({key: value for key, value in event.items() if key != "hash"}))
    lines[1] = canonical(event)
    path.write_text("\n".join(lines))
    with pytest.raises(RecordDamaged, match="line 3"):
        list(journal.read(path))


def test_nothing_is_added_to_a_journal_that_does_not_hold_together(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(filled(path).replace(b"731", b"732"))
    before = path.read_bytes()
    with pytest.raises(RecordDamaged):
        Journal(path).append("step_done", {"step": 0})
    assert path.read_bytes() == before


def test_a_last_line_that_was_not_finished_is_no_event_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    content = filled(path)
    for torn in (content[:-1], content[:-30], content + b"{"):
        path.write_bytes(torn)
        whole = [event.kind for event in journal.read(path)]
        assert whole == ["run_opened", "step_started", "step_xid", "run_closed"][: torn.count(b"\n")]
        Journal(path).append("failed", {})
        assert [event.kind for event in journal.read(path)] == [*whole, "failed"]


def test_a_full_disk_leaves_no_half_line(book: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    book.append("run_opened", {})
    before = book.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            book.append("step_started", {"step": 0})
    assert book.path.read_bytes() == before
    assert book.append("step_started", {"step": 0}).seq == 1


def test_an_event_is_on_disk_before_append_returns(book: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (real(fd), synced.append(book.path.read_bytes())))
    book.append("run_opened", {})
    assert synced == [book.path.read_bytes()]


def test_a_journal_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordDamaged, match="cannot be read") as caught:
        list(journal.read(tmp_path / "journal.jsonl"))
    assert caught.value.verdict == "missing"


def test_an_edit_between_two_events_of_one_writer_is_noticed(book: Journal) -> None:
    book.append("step_xid", {"xid": "731"})
    book.path.write_bytes(book.path.read_bytes().replace(b"731", b"732"))
    os.utime(book.path, ns=(1, 1))  # file times are coarse: a later moment, for certain another one
    with pytest.raises(RecordDamaged):
        book.append("step_done", {"step": 0})


def test_a_long_journal_is_not_read_again_for_every_event(book: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    book.append("check", {})
    read = journal.read
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read again"))
    book.append("check", {})
    monkeypatch.undo()
    assert [event.seq for event in read(book.path)] == [0, 1]


def _write_ten(path: Path) -> None:
    for n in range(10):
        Journal(path).append("check", {"n": n})


def test_processes_that_write_at_once_take_turns(book: Journal) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_ten, args=(book.path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert [event.seq for event in book.events()] == list(range(30))
    assert sorted(event.payload["n"] for event in book.events()) == sorted([*range(10)] * 3)
