"""The one drawing of a record: how fast a backfill went, and why it went slower.  The only importer of matplotlib, when it draws.

What it shows stands in words beside it, and in the journal: a drawing that fails costs nothing but itself.
"""

from __future__ import annotations

import base64
import io
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mend import settings
from mend.batches.progress import Sample, duration, from_payload
from mend.journal import Event
from mend.record.markup import Shown, escape, paragraph, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEWEST = 4  # samples: of fewer a drawing shows nothing that a sentence does not
_MOST_STEPS = 5
_SHORTEST_S = 0.25
BLUE, ORANGE, SHADE, INK, GRID = "#0b5cad", "#b45309", "#f5c26b", "#1b1f24", "#d8dde2"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Slow:
    """A time in which one reason slowed the step: seconds from its beginning."""

    since_s: float
    until_s: float
    why: str


@dataclass(frozen=True)
class Course:
    """One step: its samples with their times in seconds from its beginning, and when it was slowed."""

    step: int
    times_s: tuple[float, ...]
    samples: tuple[Sample, ...]
    slow: tuple[Slow, ...]


def pace(events: Sequence[Event]) -> Shown | None:
    """How the backfills of a run went, from its journal; None where there was none."""
    courses = _courses(events)
    if not courses:
        return None
    drawn = [_fragment(course) for course in courses[:_MOST_STEPS]]
    more = len(courses) - len(drawn)
    if more > 0:
        drawn.append(_words(f"And {more} more steps of this kind: see the journal."))
    return shown([part.html for part in drawn], "\n".join(part.text for part in drawn))


def _courses(events: Sequence[Event]) -> list[Course]:
    """The steps that were sampled, in order."""
    began = {e.payload.get("step"): _seconds(e) for e in events if e.kind == "step_started"}
    sampled = [e for e in events if e.kind == "batch_sample"]
    steps = sorted({int(e.payload.get("step") or 0) for e in sampled})
    return [
        _course(step, [e for e in sampled if int(e.payload.get("step") or 0) == step], began.get(step))
        for step in steps
    ]


def _course(step: int, sampled: Sequence[Event], began: float | None) -> Course:
    zero = min(began if began is not None else _seconds(sampled[0]), _seconds(sampled[0]))
    times = tuple(_seconds(event) - zero for event in sampled)
    samples = tuple(from_payload(event.payload) for event in sampled)
    return Course(step, times, samples, _slow(times, samples))


def _seconds(event: Event) -> float:
    return datetime.fromisoformat(event.time).timestamp()


def _slow(times: Sequence[float], samples: Sequence[Sample]) -> tuple[Slow, ...]:
    """Neighbouring samples with the same reasons, whatever their numbers; a sample speaks for the time before it."""
    found = []
    for _, run in itertools.groupby(range(len(samples)), key=lambda n: _without_numbers(samples[n].why)):
        first, *rest = run
        if samples[first].why:
            found.append(
                Slow(times[first - 1] if first else 0.0, times[rest[-1] if rest else first], samples[first].why)
            )
    return tuple(found)


def _without_numbers(why: str) -> str:
    return re.sub(r"\d+(?:[.,]\d+)*", "#", why)


def _fragment(course: Course) -> Shown:
    """The drawing with its words; the words alone where there is little to draw."""
    legend = [f"{_letter(course, slow)}, {_span(slow)}: {slow.why}" for slow in course.slow[: len(_LETTERS)]]
    beyond = len(course.slow) - len(legend)
    legend += [f"and {beyond} more times: see the journal"] if beyond > 0 else []
    text = "\n".join([_summary(course), *(f"  {line}" for line in legend)])
    listed = "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in legend) + "</ul>" if legend else ""
    return Shown(
        paragraph(_summary(course)) + _image(course) + (paragraph("Slowed:", "dim") + listed if listed else ""), text
    )


def _words(text: str) -> Shown:
    return Shown(paragraph(text, "dim"), text)


def _letter(course: Course, slow: Slow) -> str:
    """The same reason has the same letter wherever it comes up."""
    kinds = list(dict.fromkeys(_without_numbers(one.why) for one in course.slow))
    return _LETTERS[kinds.index(_without_numbers(slow.why)) % len(_LETTERS)]


def _span(slow: Slow) -> str:
    return f"from {duration(slow.since_s)} to {duration(slow.until_s)}"


def _summary(course: Course) -> str:
    last, lasted = course.samples[-1], course.times_s[-1]
    worst = max(max(s.worst_ms, s.batch_ms) for s in course.samples)
    busy = [s.batch_ms for s in course.samples if s.batch_ms]
    batch = f"; a batch took {sorted(busy)[len(busy) // 2]:,.0f} ms (median), {worst:,.0f} ms at most" if busy else ""
    workers = f", {last.workers} workers" if last.workers > 1 else ""
    return f"Step {course.step + 1}: {last.rows:,} rows in {duration(lasted)}{workers}{batch}."


def _image(course: Course) -> str:
    """An ``img`` with the drawing in it, or '' where it cannot be made."""
    if len(course.samples) < _FEWEST:
        return ""
    return image(lambda: _drawn(course), f"Rate and batch time of step {course.step + 1} over time")


def _drawn(course: Course) -> bytes:
    """Two panels, one above the other, in a size that a phone shows with letters that can be read."""
    figure = canvas(5.4, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    unit, per = time_unit(course.times_s[-1])
    times, rates = [t / per for t in course.times_s], _rates(course)
    upper.fill_between(times, rates, color=BLUE, alpha=0.15, linewidth=0)
    upper.plot(times, rates, color=BLUE, linewidth=1.8)
    upper.set_title("rows per second", loc="left", fontsize=11, color=INK)
    nothing = float("nan")  # no batch in that second: the line has a gap
    mean = [s.batch_ms or nothing for s in course.samples]
    worst = [max(s.worst_ms, s.batch_ms) or nothing for s in course.samples]
    lower.plot(times, mean, color=ORANGE, linewidth=1.8)
    lower.plot(times, worst, color=ORANGE, linewidth=1, linestyle=":")
    lower.set_title("milliseconds per batch: mean, and worst (dotted)", loc="left", fontsize=11, color=INK)
    lower.set_xlabel(f"{unit} since the step began", fontsize=11, color=INK)
    for axes in (upper, lower):
        furnish(axes, times[-1])
        for slow in course.slow:
            axes.axvspan(slow.since_s / per, slow.until_s / per, color=SHADE, alpha=0.4, linewidth=0)
    _letters(upper, course, per)
    return png(figure)


def canvas(width: float, height: float) -> Figure:
    """An empty figure, inches at 160 dots each."""
    os.environ.setdefault("MPLCONFIGDIR", str(settings.made_home("matplotlib")))  # its font cache; never in HOME
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The drawing as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def image(drawn: Callable[[], bytes], alt: str) -> str:
    """An ``img`` with the drawing in it; a sentence where it cannot be made: a broken drawing library must make nothing look failed."""
    try:
        encoded = base64.b64encode(drawn()).decode()
    except Exception:  # noqa: BLE001 what it shows stands in words beside it
        return paragraph("(No drawing: matplotlib failed.)", "dim")
    return f'<img class="mend-plot" src="data:image/png;base64,{encoded}" alt="{escape(alt)}">'


def _rates(course: Course) -> list[float]:
    """Rows a second between two samples, as they were: those of the samples are smoothed.  The last may come right after another."""
    rates = [course.samples[0].rows_per_s]
    for (before, then), (t, now) in itertools.pairwise(zip(course.times_s, course.samples, strict=True)):
        rates.append((now.rows - then.rows) / (t - before) if t - before > _SHORTEST_S else rates[-1])
    return rates


def _letters(axes: Axes, course: Course, per: float) -> None:
    """The letter of each reason over its shade, but no two on top of each other."""
    last, room = float("-inf"), 0.05 * course.times_s[-1] / per
    for slow in course.slow:
        at = (slow.since_s + slow.until_s) / 2 / per
        if at - last >= room:
            axes.text(at, 0.98, _letter(course, slow), transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=11, fontweight="bold", color=INK)  # fmt: skip
            last = at


def furnish(axes: Axes, until: float) -> None:
    """Axes from 0 to ``until``, with nothing on them that does not speak."""
    axes.set_xlim(0, until)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.18)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10, colors=INK, length=0)
    axes.yaxis.set_major_formatter(_short)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _short(number: float, _position: Any = None) -> str:
    """
    >>> _short(0), _short(950), _short(31_000), _short(2_500_000)
    ('0', '950', '31 k', '2.5 M')
    """
    for unit, of in (("M", 1e6), ("k", 1e3)):
        if abs(number) >= of:
            return f"{number / of:.1f}".removesuffix(".0") + f" {unit}"
    return f"{number:g}"


def time_unit(seconds: float) -> tuple[str, float]:
    """What to count time in, and how many seconds that is."""
    return ("seconds", 1.0) if seconds < 180 else ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)
