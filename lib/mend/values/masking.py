"""Samples without the personal data in them: the shape of a value stays, its content goes.  Pure.

A shape still tells something (how long, where the @ stands), which is what an operator needs to see why a value does not fit.
Whoever must see the values themselves asks for them (``mask=False``), and the record then holds them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    import pandas

LIMIT = 60  # characters of a value that are shown; what is longer ends with an ellipsis
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)


def mask(value: Any) -> str | None:
    """The shape of a value: letters as x or X, digits as 9, ASCII punctuation as it is; NULL stays None.

    true and false stay: a value that only two can have names nobody. Bytes and UUIDs show their length alone, because which
    of their digits are letters would tell them apart.

    >>> mask("Ann.Smith+1@example.com"), mask(-12.50), mask("Žofie\\n2001-05-17")
    ('Xxx.Xxxxx+9@xxxxxxx.xxx', '-99.9', 'Xxxxx\\n9999-99-99')
    >>> mask(b"PNG"), mask({"name": "Ann"}), mask(None), mask(True)
    ('\\\\xxxxxxx', '{"xxxx": "Xxx"}', None, 'true')
    """
    if _is_null(value):
        return None
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):  # numpy's own
        return "true" if value else "false"
    return _shape(_text(value))


def masked(
    frame: pandas.DataFrame, *, columns: Collection[str] | None = None, keys: Collection[str] = (), mask: bool = True
) -> pandas.DataFrame:
    """A copy of the frame whose ``columns`` (None: all) hold shapes.

    ``keys``: columns that tell rows apart; their whole numbers and UUIDs stay, because an operator must find the row and they say
    nothing by themselves. A key of another type is masked like everything else. ``mask=False``: a copy as it is.
    """
    import pandas

    if not mask or not len(frame.columns):
        return frame.copy()
    chosen = [columns is None or name in columns for name in frame.columns]
    shown = [  # by position: two columns may have one name
        _column(frame.iloc[:, n], key=name in keys) if chosen[n] else frame.iloc[:, n]
        for n, name in enumerate(frame.columns)
    ]
    made = pandas.concat(shown, axis=1)
    made.attrs.update(frame.attrs)
    return made


def masked_detail(text: str, *, sqlstate: str = "") -> str:
    """A message, DETAIL or CONTEXT of the server, without the values that it quotes; names of objects stay.

    It goes by the punctuation around a value, which is the same in every language of the server.  ``sqlstate`` says more: what is
    quoted by a data exception (22) is a value, and of what a function of the project raises (P0, 38, 39) nothing is shown.

    >>> masked_detail("Key (email)=(ann@b.co) already exists.")
    'Key (email)=(xxx@x.xx) already exists.'
    >>> masked_detail('invalid input syntax for type integer: "12 Elm St"')
    'invalid input syntax for type integer: "99 Xxx Xx"'
    >>> masked_detail("Failing row contains (1, null, Ann (Smith)).")
    'Failing row contains (9, xxxx, Xxx (Xxxxx)).'
    """
    if sqlstate[:2] in ("P0", "38", "39") and text:
        return "a function of the project says why, which may hold values"
    for pattern in (*_VALUES, *([_QUOTED] if sqlstate[:2] == "22" else [])):
        text = pattern.sub(lambda found: _shape(found[0], limit=len(found[0])), text)
    return text


#: Where the server's messages hold values: a key's, a whole row, what could not be read as a type, a piece of JSON, a parameter.
_VALUES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?<=\)=\().*(?=\))",
        r"(?<=\) = \().*(?=\))",
        r"(?<=\w \()(?![^()]*\) = \().*(?=\)[.。]?\s*\Z)",
        r"(?<=: [\"«»„“]).*(?=[\"«»“”]\s*(?:\Z|\n))",
        r"(?<=Token \").*?(?=\" is invalid)",
        r"(?<=JSON data, line ).*\Z",
        r"(?<= = ')(?:[^']|'')*(?=')",
    )
)
_QUOTED = re.compile(
    r"(?<=[\"«»„“]).*(?=[\"«»“”])", re.DOTALL
)  # from the first quote to the last: a value may hold quotes


def _is_null(value: Any) -> bool:
    """None, NaN, NaT and NA; an array or a list is none of them."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return True
    return isinstance(value, float) and value != value


def _text(value: Any) -> str:
    """How a value is written before its characters are hidden."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + "xx" * min(len(bytes(value)), LIMIT)
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _shape(text: str, *, limit: int = LIMIT) -> str:
    cut = _UUID.sub(lambda found: re.sub(r"\w", "x", found[0]), text)
    return "".join(map(_hidden, cut[:limit])) + ("…" if len(cut) > limit else "")


def _hidden(character: str) -> str:
    """One character's shape; whatever is neither letter, digit nor plain punctuation shows as a question mark."""
    if character in "\n\t" or (character.isascii() and character.isprintable() and not character.isalnum()):
        return character
    kind = unicodedata.category(character)
    if kind[0] == "N":
        return "9"
    if kind[0] in "LM":
        return "X" if kind in ("Lu", "Lt") else "x"
    return "?"


def _column(values: pandas.Series[Any], *, key: bool) -> pandas.Series[Any]:
    import pandas

    shown = [value if key and _tells_nothing(value) else mask(value) for value in values]
    return pandas.Series(shown, index=values.index, dtype="object", name=values.name)


def _tells_nothing(value: Any) -> bool:
    """Whole numbers (numpy's too) and UUIDs: surrogate keys."""
    return isinstance(value, UUID) or (hasattr(value, "__index__") and not isinstance(value, bool))
