"""How fast work goes and when it will be done, from looks at how far it is.  Arithmetic only.

Two paces are known: the one of the last looks, and the one since the work began.  The first is about now; the second is steadier, because
its time is long.  Each errs by what the looks err, and because no machine goes evenly: the shorter it was looked at, the less a pace says
of the next hour.  Where the two agree within that, both count, each by how sure it is; where they do not, the pace has changed, and the
first counts alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_SURE = 2.0  # standard errors: 95 %
_CHANGED = 3.0  # of the errors: that a pace has changed is a strong word
_DRIFT = 0.4  # how far the pace of one second may be from that of the whole; of n seconds, by the root of n less
_SHORTEST_S = 0.2  # between two looks, or the difference is all noise


@dataclass(frozen=True)
class Look:
    """How far the work was: ``at_s`` seconds since some beginning; ``done`` and ``left`` in the course's unit; ``error``: the standard
    error of ``done`` (and of ``left``), 0 where they were counted."""

    at_s: float
    done: float
    left: float
    error: float = 0.0

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        whole = self.done + self.left
        return self.done / whole if whole > 0 else 0.0


@dataclass(frozen=True)
class Course:
    """The looks at one piece of work, in order.

    ``unit``: rows, blocks, tuples, bytes.  ``began_s``: when nothing was done yet, in the looks' time; None where that is not known, or
    where what is done is committed in pieces, so that ``done`` does not grow.  ``how``: the way it was measured, as a clause.
    """

    unit: str
    looks: tuple[Look, ...]
    began_s: float | None = None
    how: str = ""


@dataclass(frozen=True)
class Estimate:
    """``left_s``: seconds until the end from the last look; ``low_s`` and ``high_s``: where it is with 95 % if the pace stays; None
    where it does not move.  ``changed``: the pace is not what it was, and by how much (1: the same)."""

    per_s: float
    left_s: float | None
    low_s: float | None
    high_s: float | None
    share: float
    changed: float = 1.0


@dataclass(frozen=True)
class _Pace:
    """``seen``: the error of the looks alone, per second; ``error``: with what a pace drifts, too."""

    per_s: float
    seen: float
    lasted_s: float

    @property
    def error(self) -> float:
        return math.hypot(self.seen, _DRIFT * self.per_s / math.sqrt(self.lasted_s))


def _both(one: _Pace, other: _Pace) -> _Pace:
    """The mean, by how sure each is."""
    weights = [1 / max(pace.error, 1e-12) ** 2 for pace in (one, other)]
    share = weights[0] / sum(weights)
    seen = math.hypot(share * one.seen, (1 - share) * other.seen)
    return _Pace(share * one.per_s + (1 - share) * other.per_s, seen, max(one.lasted_s, other.lasted_s))


def estimate(course: Course) -> Estimate | None:
    """The estimate from two looks at least (that of the beginning counts); None where there are fewer.

    >>> course = Course("rows", (Look(10, 200, 800), Look(12, 240, 760)), began_s=0)
    >>> estimate(course)  # doctest: +ELLIPSIS
    Estimate(per_s=20.0, left_s=38.0, low_s=29.2..., high_s=46.7..., share=0.24, changed=1.0)
    """
    if not course.looks:
        return None
    lately = _lately(course)
    last = _now(course, lately)
    whole = _since_beginning(course, last)
    pace = lately or whole
    if pace is None:
        return None
    changed = 1.0
    if lately and whole and whole.per_s > 0:
        if abs(lately.per_s - whole.per_s) <= _CHANGED * math.hypot(lately.error, whole.error):
            pace = _both(lately, whole)
        else:
            changed = max(lately.per_s, 0.0) / whole.per_s
    if pace is lately and pace.per_s <= _SURE * pace.seen:  # it may as well stand still
        return Estimate(max(pace.per_s, 0.0), None, None, None, last.share, changed)
    return _until_end(pace, last, changed)


def _until_end(pace: _Pace, last: Look, changed: float) -> Estimate:
    if pace.per_s <= 0:
        return Estimate(0.0, None, None, None, last.share, changed)
    left_s = last.left / pace.per_s
    # What a look errs in `done` it errs in `left`, the other way round; so the relative errors add up.
    doubt = _SURE * (pace.error / pace.per_s + (last.error / last.left if last.left > 0 else 0.0))
    return Estimate(pace.per_s, left_s, left_s * max(0.0, 1 - doubt), left_s * (1 + doubt), last.share, changed)


def _now(course: Course, lately: _Pace | None) -> Look:
    """The last look, made surer by those before it: each says where the work is now, at the pace between them."""
    looks, last = course.looks, course.looks[-1]
    if lately is None or not last.error:
        return last
    rows = last.done + last.left
    per_s = (
        last.done / (last.at_s - course.began_s)
        if course.began_s is not None and last.at_s > course.began_s
        else lately.per_s
    )
    ahead = [look.share * rows + per_s * (last.at_s - look.at_s) for look in looks]
    done = min(max(sum(ahead) / len(ahead), 0.0), rows)
    return Look(last.at_s, done, rows - done, math.sqrt(sum(look.error**2 for look in looks)) / len(looks))


def _since_beginning(course: Course, last: Look) -> _Pace | None:
    if course.began_s is None or last.at_s - course.began_s < _SHORTEST_S:
        return None
    lasted = last.at_s - course.began_s
    return _Pace(last.done / lasted, last.error / lasted, lasted)


def _lately(course: Course) -> _Pace | None:
    """The slope through the looks, by least squares.  ``left`` is what counts: it shrinks however the work is committed."""
    looks = course.looks
    if len(looks) < 2 or looks[-1].at_s - looks[0].at_s < _SHORTEST_S:
        return None
    middle = sum(look.at_s for look in looks) / len(looks)
    spread = sum((look.at_s - middle) ** 2 for look in looks)
    slope = -sum((look.at_s - middle) * look.left for look in looks) / spread
    error = math.sqrt(sum(((look.at_s - middle) / spread) ** 2 * look.error**2 for look in looks))
    return _Pace(slope, error, looks[-1].at_s - looks[0].at_s)


def words(found: Estimate | None, unit: str) -> str:
    """The estimate as a sentence's part.

    >>> words(Estimate(20.0, 38.0, 30.0, 46.0, 0.24), "rows")
    '24 % done, 20 rows/s, about 38 s left (30 s to 46 s)'
    """
    if found is None:
        return "one look says how far it is, not how fast: look again"
    share, pace = f"{found.share:.0%}".replace("%", " %") + " done", f"{found.per_s:,.0f} {unit}/s"
    if found.left_s is None:
        return f"{share}, and it did not move while it was looked at"
    bounds = ""
    if found.low_s is not None and found.high_s is not None and found.high_s - found.low_s > 0.05 * found.left_s:
        bounds = f" ({span(found.low_s)} to {span(found.high_s)})"
    moved = f"; its pace is {found.changed:.1f} times what it was on the whole" if found.changed != 1.0 else ""
    return f"{share}, {pace}, about {span(found.left_s)} left{bounds}{moved}"


def span(seconds: float) -> str:
    """
    >>> span(38), span(300), span(9000)
    ('38 s', '5.0 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def merged(before: Sequence[Look], now: Sequence[Look], *, most: int = 60) -> tuple[Look, ...]:
    """Older looks with newer ones, thinned out evenly where they are too many; the newest stays."""
    looks = [*before, *now]
    while len(looks) > most:
        looks = [look for n, look in enumerate(looks) if n % 2 == (len(looks) - 1) % 2]
    return tuple(looks)
