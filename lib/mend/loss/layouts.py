"""How the values of a type lie on disk, and whether given bytes are such a value.  Pure, but for ``of``.

The server takes the bytes of a column for what the catalog says: of a wrong type it follows lengths that are none, and may die.  A dropped
column's type is known from the history alone, and somebody may have changed it by hand; so its bytes are judged here first.  Little-endian,
as all servers but a few are: elsewhere nothing is taken for a value, which is safe.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection

from mend.database import queries

_HEADER = 4  # bytes of a value's own length, which are not among those given here
_DEEPEST = 200


@dataclass(frozen=True)
class Layout:
    """``form``: ``fixed``, ``name``, ``text``, ``bytes``, ``numeric``, ``jsonb``, ``inet``, ``bits``, ``array`` or ``range``.

    ``length``, ``align`` : bytes; length -1 where it varies.  ``part`` : of an array's elements, of a range's bounds
    """

    form: str
    oid: int
    length: int
    align: int
    part: Layout | None = None

    @property
    def judged(self) -> bool:
        """Whether its values must be judged before the server reads them as what they are taken for."""
        return self.length < 0 and self.form not in ("text", "bytes")

    @property
    def read_as(self) -> str:
        """The type that is given to the server first: one that is safe whatever the bytes are; '' for its own."""
        return "bytea" if self.length < 0 else ""

    def words(self) -> dict[str, Any]:
        """As plain data, for a step's arguments; ``spoken`` reads it."""
        return asdict(self)


def spoken(words: Mapping[str, Any]) -> Layout:
    """The layout of ``Layout.words``."""
    part = words["part"]
    return Layout(**{**words, "part": spoken(part) if part else None})


def of(conn: Connection, oid: str) -> Layout | None:
    """The layout of a type; None for one that is not known here."""
    rows = {int(row["type"]): row for row in queries.frame(conn, "data_loss/layout", type=int(oid)).to_dict("records")}
    return _of(rows, int(oid))


def _of(rows: Mapping[int, Any], oid: int) -> Layout | None:
    row = rows[oid]
    form, part = str(row["form"]), _of(rows, int(row["part"])) if int(row["part"]) else None
    if form == "domain":
        return part and replace(part, oid=oid)
    if not form or (form in ("array", "range") and (part is None or part.form in ("array", "range"))):
        return None
    return Layout(form, oid, int(row["length"]), int(row["align"]), part)


def fault(layout: Layout, data: bytes) -> str:
    """What shows that these bytes are no value of that layout; '' where nothing does, and the server may read them as one."""
    try:
        _FORMS[layout.form](layout, memoryview(data))
    except _Fault as error:
        return str(error)
    except struct.error:
        return f"it ends after {len(data)} bytes"
    return ""


class _Fault(Exception):
    """What is wrong with some bytes."""


def _require(holds: bool, says: str) -> None:
    if not holds:
        raise _Fault(says)


def _aligned(position: int, align: int) -> int:
    return -(-position // align) * align


def _any(layout: Layout, data: memoryview) -> None:
    """Whatever the bytes are, the server reads as many as there are."""


def _text(layout: Layout, data: memoryview) -> None:
    _require(0 not in data, "a text with a zero byte")


def _name(layout: Layout, data: memoryview) -> None:
    _require(0 in data, "a name without an end")


def _numeric(layout: Layout, data: memoryview) -> None:
    _require(len(data) >= 2 and len(data) % 2 == 0, f"a number of {len(data)} bytes")
    (head,) = struct.unpack_from("<H", data)
    if head & 0xC000 == 0xC000:
        _require(len(data) == 2 and head in (0xC000, 0xD000, 0xF000), "not a number's header")
        return
    start = 2 if head & 0x8000 else 4
    _require(len(data) >= start, "a number's header that is cut off")
    digits = struct.unpack_from(f"<{(len(data) - start) // 2}H", data, start)
    _require(all(one < 10_000 for one in digits), "not a number's digits")
    if digits:
        _require(digits[0] > 0 and digits[-1] > 0, "a number with digits that PostgreSQL does not keep")
    else:
        _require(head & (0x207F if start == 2 else 0xC000) == 0, "not a zero's header")


def _inet(layout: Layout, data: memoryview) -> None:
    sizes = {2: (6, 32), 3: (18, 128)}
    size, most = sizes.get(data[0] if data else 0, (0, 0))
    _require(len(data) == size and size > 0 and data[1] <= most, "not an address")


def _bits(layout: Layout, data: memoryview) -> None:
    (count,) = struct.unpack_from("<i", data)
    _require(count >= 0 and len(data) == 4 + (count + 7) // 8, "not a string of bits")


# -- what is made of parts ----------------------------------------------------------------------------------------------


def _array(layout: Layout, data: memoryview) -> None:
    assert layout.part is not None
    dimensions, offset, kind = struct.unpack_from("<iiI", data)
    _require(0 <= dimensions <= 6 and kind == layout.part.oid, "not an array of that type")
    lengths = struct.unpack_from(f"<{dimensions}i", data, 12)
    struct.unpack_from(f"<{dimensions}i", data, 12 + 4 * dimensions)
    count = 1 if dimensions else 0
    for one in lengths:
        count *= one
        _require(one > 0 and count <= 8 * len(data), "an array of more elements than it has room for")
    head = 16 + 8 * dimensions
    nulls = bytes(data[head - _HEADER : head - _HEADER + (count + 7) // 8]) if offset else b""
    start = _aligned(head + ((count + 7) // 8 if offset else 0), 8)
    _require(offset in (0, start) and len(nulls) == ((count + 7) // 8 if offset else 0), "not an array's header")
    end = _elements(layout.part, data, start - _HEADER, [n for n in range(count) if _there(nulls, n)])
    _require(0 <= len(data) - end < 8 or not count, "an array that ends elsewhere")


def _there(nulls: bytes, n: int) -> bool:
    return not nulls or bool(nulls[n // 8] & 1 << n % 8)


def _elements(part: Layout, data: memoryview, position: int, numbers: list[int]) -> int:
    for _ in numbers:
        position = _aligned(position + _HEADER, part.align) - _HEADER
        position = _value(part, data, position, short=False)
    return position


def _value(part: Layout, data: memoryview, position: int, *, short: bool) -> int:
    """Judge one value that begins there; where it ends.  ``short``: it may have a header of one byte."""
    size = part.length
    if size < 0:
        if short and position < len(data) and data[position] & 1:
            size, position = (data[position] >> 1) - 1, position + 1
        else:
            (head,) = struct.unpack_from("<I", data, position)
            _require(head & 3 == 0, "a part that is compressed or lies elsewhere")
            size, position = (head >> 2) - _HEADER, position + _HEADER
    _require(0 <= size <= len(data) - position, "a part that ends behind the whole")
    _FORMS[part.form](part, data[position : position + size])
    return position + size


def _range(layout: Layout, data: memoryview) -> None:
    assert layout.part is not None
    (kind,) = struct.unpack_from("<I", data)
    _require(kind == layout.oid and len(data) >= 5, "not a range of that type")
    flags, inner, position = data[-1], data[:-1], 4
    _require(flags & 0x60 == 0 and not (flags & 0x01 and flags != 0x01), "not a range's mark")
    for infinite in (0x08, 0x10):
        if flags & (0x01 | infinite):
            continue
        if not (layout.part.length < 0 and position < len(inner) and inner[position]):
            position = _aligned(position + _HEADER, layout.part.align) - _HEADER
        position = _value(layout.part, inner, position, short=True)
    _require(position == len(inner), "a range that ends elsewhere")


def _jsonb(layout: Layout, data: memoryview) -> None:
    _container(data, 0)


def _container(data: memoryview, depth: int) -> None:
    _require(depth < _DEEPEST, f"a document deeper than {_DEEPEST}")
    (head,) = struct.unpack_from("<I", data)
    count, kind = head & 0x0FFFFFFF, head >> 28
    _require(kind in (0x2, 0x4, 0x5), "not a document's header")
    total = count * 2 if kind == 0x2 else count
    _require(total * 4 + 4 <= len(data), "a document of more entries than it has bytes")
    entries, inner = struct.unpack_from(f"<{total}I", data, 4), data[4 + 4 * total :]
    end = 0
    for n, entry in enumerate(entries):
        start, length = end, entry & 0x0FFFFFFF
        end = length if entry & 0x80000000 else start + length
        _require(start <= end <= len(inner), "an entry that ends behind its document")
        form = entry >> 28 & 0x7
        _require(form == 0 or kind != 0x2 or n >= count, "a key that is no text")
        _require(kind != 0x5 or (total == 1 and form != 5), "not a document's only value")
        _entry(form, inner, start, end, depth)
    _require(end == len(inner), "a document that ends elsewhere")


def _entry(form: int, inner: memoryview, start: int, end: int, depth: int) -> None:
    """One key or value of a document: text, number, false, true, null, or a document."""
    _require(form <= 5, "an entry of no kind")
    if form == 1:
        position = _aligned(start, 4)
        (head,) = struct.unpack_from("<I", inner, position)
        _require(head & 3 == 0 and position + (head >> 2) == end, "a number that ends elsewhere")
        _numeric(_NUMBER, inner[position + _HEADER : end])
    elif form == 5:
        _container(inner[_aligned(start, 4) : end], depth + 1)
    else:
        _require(form == 0 or start == end, "a constant that has bytes")


_NUMBER = Layout("numeric", 1700, -1, 4)
_FORMS = {
    "fixed": _any, "bytes": _any, "text": _text, "name": _name, "numeric": _numeric, "inet": _inet, "bits": _bits, "array": _array, "range": _range,
    "jsonb": _jsonb,
}  # fmt: skip
