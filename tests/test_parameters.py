"""Parameters: read from the cell, converted by their declared type, and never silently wrong."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mend.database import parameters
from mend.database.target import redact
from mend.errors import InvalidParameter

SLUG = "failed_migration"


@pytest.fixture
def runbooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``runbooks(slug, cell)`` writes a notebook with that parameters cell into a folder of its own."""
    monkeypatch.setattr(parameters, "folder", lambda: tmp_path)

    def write(slug: str, cell: str, *, title: str = "# T\n\n> it hurts\n> here\n") -> None:
        cells = [
            {"cell_type": "markdown", "source": title},
            {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": cell.splitlines(keepends=True)},
        ]
        (tmp_path / f"{slug}.ipynb").write_text(json.dumps({"cells": cells}))

    return write


def test_every_runbook_declares_the_common_parameters_first() -> None:
    assert SLUG in parameters.slugs()
    for slug in parameters.slugs():
        assert tuple(p.name for p in parameters.of(slug))[:5] == parameters.COMMON, slug
        assert {p.name: p.default for p in parameters.of(slug)}["dry_run"] is True
        assert all(p.help for p in parameters.of(slug)), slug


def test_triage_is_a_notebook_but_no_failure_mode() -> None:
    assert parameters.notebook("triage").is_file()
    assert "triage" not in parameters.slugs()


def test_a_declaration_gives_name_type_default_and_help(runbooks: Any) -> None:
    runbooks("one", 'a: str = "x # y"  # the first\nb: int = 3  # seconds\nc: float = 0.5\nd: bool = False  # no\n')
    assert parameters.of("one") == (
        parameters.Parameter("a", str, "x # y", "the first"),
        parameters.Parameter("b", int, 3, "seconds"),
        parameters.Parameter("c", float, 0.5, ""),
        parameters.Parameter("d", bool, False, "no"),
    )


def test_the_symptom_is_the_quoted_line_of_the_first_cell(runbooks: Any) -> None:
    runbooks("one", "")
    assert parameters.symptom("one") == "it hurts here"


@pytest.mark.parametrize(
    "cell",
    [
        "a = 1",
        "a: int = 'x'",
        "a: list = []",
        "a: str | None = None",
        "a: int = f()",
        "import os",
        "a: int = (",
        "a: int",
    ],
)
def test_a_cell_that_papermill_would_misread_is_refused(runbooks: Any, cell: str) -> None:
    runbooks("one", cell)
    with pytest.raises(InvalidParameter, match=r"one\.ipynb: its parameters cell"):
        parameters.of("one")


def test_a_file_that_is_no_notebook_is_refused(runbooks: Any, tmp_path: Path) -> None:
    (tmp_path / "one.ipynb").write_text("<html>")
    with pytest.raises(InvalidParameter, match="is not a notebook"):
        parameters.of("one")


@pytest.mark.parametrize("slug", ["failed_migratoin", "", "../failed_migration", "FAILED", "a/b", "triage.ipynb"])
def test_an_unknown_slug_says_what_there_is(slug: str) -> None:
    with pytest.raises(InvalidParameter, match="failed_migration"):
        parameters.notebook(slug)


def test_an_unknown_name_is_an_error_with_the_near_match() -> None:
    with pytest.raises(InvalidParameter, match=r"no parameter 'dry_rn'.*Did you mean dry_run\?"):
        parameters.validated(SLUG, {"dry_rn": True})
    with pytest.raises(InvalidParameter, match="Did you mean revision"):
        parameters.from_text(SLUG, {"revison": "x"})


def test_validated_fills_in_the_defaults_and_changed_leaves_them_out() -> None:
    values = parameters.validated(SLUG, {"revision": "abc", "target": "lab"})
    assert (values["revision"], values["dry_run"], values["lock_timeout_ms"]) == ("abc", True, 2000)
    assert parameters.changed(SLUG, values) == {"revision": "abc"}


@pytest.mark.parametrize("value", ["false", 0, 1, None, "True"])
def test_a_switch_is_a_bool_and_nothing_like_one(value: object) -> None:
    with pytest.raises(InvalidParameter, match="dry_run must be true or false"):
        parameters.validated(SLUG, {"dry_run": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lock_timeout_ms", True),
        ("lock_timeout_ms", 2.0),
        ("lock_timeout_ms", "2"),
        ("revision", 12),
        ("revision", None),
    ],
)
def test_a_value_has_its_type_already(name: str, value: object) -> None:
    with pytest.raises(InvalidParameter, match=name):
        parameters.validated(SLUG, {name: value})


def test_an_int_serves_as_a_float(runbooks: Any) -> None:
    runbooks("one", "a: float = 0.5")
    assert parameters.validated("one", {"a": 2}) == {"a": 2.0}


@pytest.mark.parametrize("revision", ["1e5", "0012", "123456789012", "true", "None", "  ", "12e7"])
def test_a_revision_id_never_becomes_a_number(revision: str) -> None:
    assert parameters.from_text(SLUG, {"revision": revision}) == {"revision": revision}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("YES", True), ("False", False), ("no", False)])
def test_a_switch_is_read_from_four_words(text: str, value: bool) -> None:
    assert parameters.from_text(SLUG, {"dry_run": text}) == {"dry_run": value}


@pytest.mark.parametrize("text", ["", "1", "0", "on", "off", "flase", "none"])
def test_any_other_word_for_a_switch_is_an_error(text: str) -> None:
    with pytest.raises(InvalidParameter, match="true or false"):
        parameters.from_text(SLUG, {"dry_run": text})


@pytest.mark.parametrize("text", ["", "2.0", "two", "1e3"])
def test_a_number_is_a_number(text: str) -> None:
    with pytest.raises(InvalidParameter, match="whole number"):
        parameters.from_text(SLUG, {"lock_timeout_ms": text})


@pytest.mark.parametrize("value", ["postgresql://ann:s3cret@db/shop", "host=db password=s3cret"])
def test_a_password_is_never_a_parameter_and_never_echoed(value: str) -> None:
    for check in (parameters.validated, parameters.from_text):
        with pytest.raises(InvalidParameter, match="holds a password") as raised:
            check(SLUG, {"target": value})
        assert "s3cret" not in raised.value.message


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_text_parameters_keep_every_character(text: str) -> None:
    kept = redact(text) == text
    with contextlib.nullcontext() if kept else pytest.raises(InvalidParameter, match="holds a password"):
        assert parameters.from_text(SLUG, {"incident": text}) == {"incident": text}
