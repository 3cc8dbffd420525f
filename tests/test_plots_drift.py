"""The picture of where a schema differs: its bars, and that it is drawn."""

from __future__ import annotations

from collections import Counter

from mend.mismatch import drift, plots_drift
from mend.mismatch.drift import Difference


def some(objects: int) -> list[Difference]:
    return [
        Difference("column", f"public.t{n:02}.c{c}", None, "integer", "", 0, drift.OUT_OF_BAND if c else drift.PENDING)
        for n in range(objects)
        for c in range(1 + n)
    ]


def test_the_longest_bars_come_first_and_the_rest_are_one() -> None:
    found = some(40)
    bars = plots_drift.bars(found, Counter(one.object for one in found))
    assert [name for name, _ in bars][:2] == ["public.t39", "public.t38"]
    assert bars[0][1] == Counter({drift.OUT_OF_BAND: 39, drift.PENDING: 1})
    assert bars[-1][0] == "25 more objects"
    assert sum(sum(count.values()) for _, count in bars) == len(found)


def test_it_is_drawn_where_there_is_something_to_see() -> None:
    assert plots_drift.where(some(3)) is None
    drawn = plots_drift.where(some(30))
    assert drawn
    assert "data:image/png;base64," in drawn.html
    assert drawn.text == "465 differences on 30 objects."
