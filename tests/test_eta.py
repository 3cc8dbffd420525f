"""Pace and end, from looks that err: pure arithmetic, with random numbers of a fixed seed."""

from __future__ import annotations

import random

import pytest
from mend.slow import eta
from mend.slow.eta import Course, Look, estimate


def _looks(
    at: list[float], *, rows: float = 1e6, lasts_s: float, error: float = 0.0, seed: int = 1
) -> tuple[Look, ...]:
    chance = random.Random(seed)
    made = []
    for one in at:
        done = max(0.0, rows * one / lasts_s + chance.gauss(0, error))
        made.append(Look(one, done, rows - done, error))
    return tuple(made)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("lasts_s", [30.0, 600.0, 36_000.0])
def test_after_a_fifth_of_the_work_the_end_is_known_to_a_quarter(lasts_s: float, seed: int) -> None:
    now = lasts_s / 5
    looks = _looks([now - 3, now - 2, now - 1, now], lasts_s=lasts_s, error=8_000, seed=seed)
    found = estimate(Course("rows", looks, began_s=0.0))
    assert found is not None
    assert found.left_s == pytest.approx(lasts_s * 0.8, rel=0.25)
    assert found.low_s is not None
    assert found.high_s is not None
    assert found.low_s < found.left_s < found.high_s


def test_one_look_and_a_beginning_are_two_looks() -> None:
    found = estimate(Course("rows", (Look(100, 250, 750),), began_s=0.0))
    assert found is not None
    assert (found.per_s, found.left_s) == (2.5, 300.0)
    assert found.low_s is not None
    assert 0 < found.low_s < 300


def test_one_look_alone_says_nothing_of_the_pace() -> None:
    assert estimate(Course("rows", (Look(100, 250, 750),))) is None
    assert estimate(Course("rows", ())) is None
    assert "look again" in eta.words(None, "rows")


def test_work_that_is_committed_in_pieces_goes_by_what_is_left() -> None:
    looks = tuple(Look(at, 10.0, 1000.0 - 10 * at) for at in (0.0, 1.0, 2.0, 3.0))
    found = estimate(Course("rows", looks))
    assert found is not None
    assert (found.per_s, found.left_s) == (pytest.approx(10.0), pytest.approx(97.0))


def test_a_pace_that_changed_is_the_one_that_counts() -> None:
    looks = tuple(Look(100 + n, 900 + n, 1000 - n, 0.1) for n in range(4))  # 9 a second before, 1 a second now
    found = estimate(Course("rows", looks, began_s=0.0))
    assert found is not None
    assert found.left_s == pytest.approx(997, rel=0.02)
    assert found.changed < 0.2
    assert "times what it was" in eta.words(found, "rows")


def test_what_stands_still_has_no_end() -> None:
    looks = tuple(Look(at, 500.0, 500.0, 5.0) for at in (50.0, 51.0, 52.0))
    found = estimate(Course("rows", looks))
    assert found is not None
    assert found.left_s is None
    assert "did not move" in eta.words(found, "rows")


def test_nothing_done_yet_has_no_end() -> None:
    found = estimate(Course("rows", (Look(1.0, 0.0, 100.0), Look(2.0, 0.0, 100.0)), began_s=0.0))
    assert found is not None
    assert found.left_s is None


def test_of_many_looks_a_curve_keeps_the_newest() -> None:
    looks = tuple(Look(float(n), 0, 0) for n in range(200))
    kept = eta.merged(looks[:150], looks[150:], most=60)
    assert len(kept) <= 60
    assert kept[-1] == looks[-1]
