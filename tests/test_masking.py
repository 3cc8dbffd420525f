"""A sample shows what values look like and not what they are."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mend.values import masking
from mend.values.masking import mask, masked, masked_detail


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("Ann.Smith+1@example.com", "Xxx.Xxxxx+9@xxxxxxx.xxx"),
        ("Ærøskøbing 12", "Xxxxxxxxxx 99"),
        ("東京", "xx"),
        ("e\u0301", "xx"),
        ("٣", "9"),
        ("a😀b\u202ec", "x?x?x"),
        ("a\tb\nc\x07", "x\tx\nx?"),
        ("", ""),
        (0, "9"),
        (-12.5, "-99.9"),
        (decimal.Decimal("1E+5"), "9X+9"),
        (datetime.datetime(2001, 5, 17, 3, 4, tzinfo=datetime.UTC), "9999-99-99 99:99:99+99:99"),
        (uuid.UUID(int=5), "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"),
        ("id 0b9fc1de-1111-2222-3333-444455556666!", "xx xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx!"),
        ({"a": [1, None, "Bo"]}, '{"x": [9, xxxx, "Xx"]}'),
        (["Ann", 3], '["Xxx", 9]'),
        (b"\x00\xff", r"\xxxxx"),
        (memoryview(b"ab"), r"\xxxxx"),
        (True, "true"),
        (numpy.bool_(False), "false"),
        (numpy.int64(47), "99"),
        (None, None),
        (float("nan"), None),
        (pandas.NaT, None),
        (pandas.NA, None),
    ],
)
def test_the_shape_stays_and_the_content_goes(value: Any, shape: str | None) -> None:
    assert mask(value) == shape


def test_a_long_value_is_cut() -> None:
    assert mask("a" * 61) == "x" * 60 + "…"
    assert mask(b"a" * 1_000_000) == r"\x" + "x" * 58 + "…"


@given(st.text())
def test_no_letter_and_no_digit_of_a_text_survives(text: str) -> None:
    shape = mask(text)
    assert shape is not None
    assert len(shape) == min(len(text), masking.LIMIT + 1)
    assert not {c for c in shape if c.isalnum()} - set("xX9")
    assert mask(shape) == shape


@given(st.text(st.sampled_from("aB1@.é '\"()\n"), max_size=30))
def test_a_value_in_a_detail_of_the_server_does_not_survive(value: str) -> None:
    shown = masked_detail(f"Key (email)=({value}) already exists.")
    assert shown.startswith("Key (email)=(")
    assert shown.endswith(") already exists.")
    assert not set("aBé1") & set(shown[len("Key (email)=(") : -len(") already exists.")])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Key (a, lower(b))=(1, ann) already exists.", "Key (a, lower(b))=(9, xxx) already exists."),
        ("Schlüssel »(email)=(ann@b.co)« existiert bereits.", "Schlüssel »(email)=(xxx@x.xx)« existiert bereits."),
        ('Key (pid)=(12) is not present in table "people".', 'Key (pid)=(99) is not present in table "people".'),
        ("Failing row contains (1, null, Ann (x), 2).", "Failing row contains (9, xxxx, Xxx (x), 9)."),
        ("Fehlgeschlagene Zeile enthält (1, Ann).", "Fehlgeschlagene Zeile enthält (9, Xxx)."),
        ("Partition key of the failing row contains (at) = (2020-01-01).", "Partition key of the failing row contains (at) = (9999-99-99)."),
        ('invalid input syntax for type integer: "12 Elm"', 'invalid input syntax for type integer: "99 Xxx"'),
        ('ungültige Eingabesyntax für Typ integer: »12 Elm«', 'ungültige Eingabesyntax für Typ integer: »99 Xxx«'),
        ('invalid input value for enum mood: "Ann"', 'invalid input value for enum mood: "Xxx"'),
        ('date/time field value out of range: "2020-13-01"', 'date/time field value out of range: "9999-99-99"'),
        ('value "99999999999" is out of range for type integer', 'value "99999999999" is out of range for type integer'),
        ('Token "Ann" is invalid.', 'Token "Xxx" is invalid.'),
        ('JSON data, line 1: {"name": Ann', 'JSON data, line 9: {"xxxx": Xxx'),
        ("value too long for type character varying(20)", "value too long for type character varying(20)"),
        ('null value in column "email" of relation "people" violates not-null constraint', 'null value in column "email" of relation "people" violates not-null constraint'),
        ("unnamed portal parameter $1 = 'Ann'", "unnamed portal parameter $1 = 'Xxx'"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_the_server_quotes_is_masked_and_the_names_stay(text: str, shown: str) -> None:
    assert masked_detail(text) == shown


@pytest.mark.parametrize(
    ("sqlstate", "text", "shown"),
    [
        ("22003", 'value "12 ""Elm"" 7" is out of range for type integer', 'value "99 ""Xxx"" 9" is out of range for type integer'),
        ("22003", "Wert »99« ist außerhalb", "Wert »99« ist außerhalb"),
        ("22P02", "Wert »47 Elm« ist ungültig", "Wert »99 Xxx« ist ungültig"),
        ("23505", 'duplicate key value violates unique constraint "people_email"', 'duplicate key value violates unique constraint "people_email"'),
        ("P0001", "ann@b.co is not welcome", "a function of the project says why, which may hold values"),
    ],
)  # fmt: skip
def test_the_sqlstate_tells_values_from_names(sqlstate: str, text: str, shown: str) -> None:
    assert masked_detail(text, sqlstate=sqlstate) == shown


def test_a_frame_keeps_what_an_operator_finds_rows_by() -> None:
    key = uuid.UUID(int=7)
    frame = pandas.DataFrame(
        {"id": [1, 2], "ref": [key, None], "code": ["Ab", "C1"], "email": ["a@b.c", None], "n": [5, 6]}
    )
    shown = masked(frame, keys=["id", "ref", "code"])
    assert shown["id"].tolist() == [1, 2]
    assert shown["ref"].tolist() == [key, None]
    assert shown["code"].tolist() == ["Xx", "X9"]
    assert shown["email"].tolist() == ["x@x.x", None]
    assert shown["n"].tolist() == ["9", "9"]
    assert frame["email"][0] == "a@b.c", "the frame itself is as it was"


def test_a_frame_is_masked_in_the_named_columns_or_not_at_all() -> None:
    frame = pandas.DataFrame({"a": ["Ann"], "b": ["Bo"]})
    assert masked(frame, columns=["b"]).to_dict("records") == [{"a": "Ann", "b": "Xx"}]
    assert masked(frame, mask=False).equals(frame)
    twins = pandas.DataFrame([["Ann", "Bo"]], columns=["a", "a"])
    assert masked(twins).to_numpy().tolist() == [["Xxx", "Xx"]]
    empty = masked(frame.head(0))
    assert (list(empty.columns), len(empty)) == (["a", "b"], 0)
