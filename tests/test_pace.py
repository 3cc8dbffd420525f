"""A batch takes what it should; whatever throttles is said once, slows to the floor, and never ends the work."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mend.batches.pace import Pace, Reason, Sample

LAG = Reason("lag r", "replica r is 14 s behind, the limit is 10 s")
HALF = Reason("vacuum", "autovacuum of t is running: half the pace", 0.5)
NOTE = Reason("unseen lag", "the lag cannot be seen", 1.0)
PAUSED = Reason("paused", "paused by me", stop=True, remedy="; lift it")


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _runs(pace: Pace, row_s: float, batches: int, *, density: float = 1.0, fixed_s: float = 0.002) -> list[float]:
    """Batches whose rows cost that much; the seconds of each."""
    took = []
    for _ in range(batches):
        size = pace.size()
        rows = int(size * density)
        seconds = fixed_s + rows * row_s + size * 1e-6
        pace.ran(rows=rows, scanned=size, seconds=seconds)
        took.append(seconds)
    return took


def test_a_batch_comes_to_take_the_target_time() -> None:
    took = _runs(Pace(target_ms=100), 40e-6, 30)
    assert took[-1] == pytest.approx(0.09, rel=0.1)
    assert max(took) <= 0.1


def test_a_batch_grows_by_half_at_most() -> None:
    pace = Pace(first_rows=100)
    sizes = []
    for _ in range(8):
        sizes.append(pace.size())
        pace.ran(rows=sizes[-1], seconds=0.001)
    assert sizes[-1] > 10 * sizes[0]
    assert all(b <= 1.5 * a + 1 for a, b in itertools.pairwise(sizes))


def test_a_batch_shrinks_at_once() -> None:
    pace = Pace(target_ms=100)
    _runs(pace, 20e-6, 20)
    before = pace.size()
    pace.ran(rows=before, seconds=1.0)
    assert pace.size() <= before * 0.1


def test_one_slow_batch_is_forgotten_after_a_few() -> None:
    pace = Pace(target_ms=100)
    _runs(pace, 20e-6, 20)
    before = pace.size()
    pace.ran(rows=before, seconds=1.0)
    _runs(pace, 20e-6, 15)
    assert pace.size() > before * 0.9


@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.floats(0, 10)), max_size=50),
    st.integers(1, 1000),
    st.integers(1, 30_000),
)
def test_a_size_never_leaves_its_bounds(batches: list[tuple[int, float]], floor: int, most: int) -> None:
    pace = Pace(floor_rows=floor, most_rows=most)
    for rows, seconds in batches:
        assert floor <= pace.size() <= max(floor, most)
        assert floor <= pace.reach() <= 100 * max(floor, most)
        pace.ran(rows=rows, scanned=rows + len(batches), seconds=seconds)


def _walks(
    pace: Pace, needs: list[bool], *, row_s: float = 40e-6, look_s: float = 1e-6
) -> list[tuple[int, int, float]]:
    """Walk a table whose rows need a change or do not: (looked at, changed, seconds) of each batch."""
    at, batches = 0, []
    while at < len(needs):
        size, window = pace.size(), needs[at : at + pace.reach()]
        found = [n for n, need in enumerate(window) if need][:size]
        scanned = found[-1] + 1 if len(found) == size else len(window)
        seconds = 0.001 + len(found) * row_s + scanned * look_s
        pace.ran(rows=len(found), scanned=scanned, seconds=seconds)
        batches.append((scanned, len(found), seconds))
        at += scanned
    return batches


def test_where_no_row_needs_a_change_a_batch_looks_at_many() -> None:
    batches = _walks(Pace(), [False] * 1_000_000)
    assert len(batches) < 40
    assert max(seconds for _, _, seconds in batches) < 0.1


def test_where_few_rows_need_a_change_a_dense_stretch_is_no_shock() -> None:
    pace = Pace(target_ms=100)
    _walks(pace, [n % 100 == 0 for n in range(500_000)])
    dense = _walks(pace, [True] * 20_000)
    assert max(seconds for _, _, seconds in dense) < 0.15
    assert all(scanned == changed for scanned, changed, _ in dense[1:]), "it looks no further than it changes"


def test_where_rows_cost_more_than_expected_and_few_need_it_a_batch_shrinks_too() -> None:
    batches = _walks(Pace(target_ms=100), [n % 10 == 0 for n in range(20_000)], row_s=5e-3)
    assert sum(seconds > 0.2 for _, _, seconds in batches) <= 2


def test_a_batch_that_failed_halves_the_next() -> None:
    pace = Pace(first_rows=1000)
    pace.failed()
    assert pace.size() == 500


def test_a_throttled_backfill_keeps_the_floor_of_one_small_batch_a_second(clock: Clock) -> None:
    pace = Pace(clock=clock, floor_rows=50)
    pace.told([LAG])
    batches = 0
    for _ in range(1000):  # ten seconds, by two workers
        for _worker in range(2):
            wait, why = pace.throttle()
            assert why == LAG.says
            if wait == 0:
                batches += 1
                assert pace.size() == 50
                pace.ran(rows=50, seconds=0.001)
        clock.now += 0.01
    assert 10 <= batches <= 11


def test_floor_batches_teach_nothing_of_the_size() -> None:
    pace = Pace(target_ms=100)
    _runs(pace, 20e-6, 20)
    before = pace.size()
    pace.told([LAG])
    for _ in range(5):
        pace.ran(rows=50, seconds=0.05)
    pace.told([])
    assert pace.size() == before


def test_half_the_pace_rests_as_long_as_it_works(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.told([HALF])
    assert pace.throttle() == (0.0, HALF.says)
    pace.ran(rows=500, seconds=0.1)
    wait, why = pace.throttle()
    assert (wait, why) == (pytest.approx(0.1), HALF.says)
    clock.now += 0.1001
    assert pace.throttle()[0] == 0
    assert pace.size() > 50


def test_the_smallest_share_counts(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.told([HALF, LAG, NOTE])
    assert pace.throttle() == (0.0, f"{HALF.says}; {LAG.says}")
    assert pace.throttle()[0] > 0


def test_a_pause_lets_nothing_through_until_it_is_lifted(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.told([PAUSED])
    for _ in range(100):
        clock.now += 60
        assert pace.throttle()[0] > 0
    pace.told([])
    assert pace.throttle() == (0.0, "")


def test_a_worker_that_waits_goes_on_when_it_is_let_or_stopped() -> None:
    for end in ("told", "stopped"):
        pace, stopped, went = Pace(), threading.Event(), threading.Event()
        pace.told([PAUSED])

        def work(pace: Pace = pace, stopped: threading.Event = stopped, went: threading.Event = went) -> None:
            pace.turn(stopped)
            went.set()

        threading.Thread(target=work, daemon=True).start()
        assert not went.is_set()
        pace.told([]) if end == "told" else stopped.set()
        assert went.wait(10)


def test_of_a_paused_backfill_nobody_knows_how_much_time_is_left(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.ran(rows=100, seconds=0.1)
    for reasons, left in (((), 9.0), ((PAUSED,), None)):
        clock.now += 1
        pace.told(reasons)
        sample = pace.sample(total=1000)
        assert sample is not None
        assert sample.left_s == left


def test_the_deadline_ends_even_a_pause(clock: Clock) -> None:
    pace = Pace(clock=clock, deadline_s=60)
    pace.told([PAUSED])
    assert not pace.overdue()
    clock.now += 60
    assert pace.overdue()
    assert pace.turn() == PAUSED.says


def test_each_change_of_reason_is_said_once(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.told([LAG])
    pace.told([Reason(LAG.key, "replica r is 15 s behind, the limit is 10 s")])
    assert pace.news() == (f"slowed: {LAG.says}",)
    assert pace.throttle()[1] == "replica r is 15 s behind, the limit is 10 s"
    pace.told([LAG, HALF])
    clock.now += 4
    pace.told([HALF])
    assert pace.news() == (f"slowed: {HALF.says}", f"no longer: {LAG.says}")
    clock.now += 4
    pace.told([])
    pace.told([])
    assert pace.news() == ("at full pace again",)
    assert pace.news() == ()


def test_a_reason_that_comes_and_goes_is_said_once_and_slows_only_while_it_is_there(clock: Clock) -> None:
    pace = Pace(clock=clock)
    for n in range(20):
        pace.told([LAG] if n % 2 == 0 else [])
        assert pace.throttle()[1] == (LAG.says if n % 2 == 0 else "")
        clock.now += 1
    assert pace.news() == (f"slowed: {LAG.says}",)


def test_the_end_of_a_pause_is_said_at_once(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.told([PAUSED])
    clock.now += 0.25
    pace.told([])
    assert pace.news() == ("paused by me; lift it", "at full pace again")


def test_a_note_slows_nothing_and_is_said_once(clock: Clock) -> None:
    pace = Pace(clock=clock)
    for _ in range(3):
        pace.told([NOTE])
    assert pace.news() == (NOTE.says,)
    assert pace.throttle() == (0.0, "")
    clock.now += 10
    pace.told([])
    assert pace.news() == ()


def test_a_sample_comes_about_once_a_second_and_adds_up(clock: Clock) -> None:
    pace = Pace(clock=clock, rows_before=1000, workers=2)
    assert pace.sample(total=5000) is None
    pace.ran(rows=600, seconds=0.1)
    pace.ran(rows=400, seconds=0.3)
    clock.now += 1
    sample = pace.sample(total=5000)
    assert sample == Sample(2000, 5000, 1000.0, 200.0, 500, 2, "", 3.0, None, 300.0)
    assert pace.sample(total=5000) is None
    last = pace.sample(total=5000, last=True)
    assert last is not None
    assert (last.rows, last.rows_per_s, last.batch_rows, last.left_s) == (2000, 1000.0, 0, None)
    assert last.payload(3)["step"] == 3


def test_what_is_left_is_told_by_the_share_of_the_table_where_it_is_known(clock: Clock) -> None:
    pace = Pace(clock=clock)
    lefts = []
    for n in range(5):
        clock.now += 1
        pace.ran(rows=10, seconds=0.1)
        sample = pace.sample(total=None, through=0.1 * (n + 1))
        lefts.append(sample and sample.left_s)
    assert lefts[0] is None
    assert lefts[-1] == pytest.approx(5.0)
