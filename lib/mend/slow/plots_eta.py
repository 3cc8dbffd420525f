"""The drawing of work under way: how much is done, and when it would be all.  On the canvas of `plots`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mend.record import plots
from mend.record.markup import Shown, paragraph
from mend.slow import eta
from mend.slow.eta import Course, Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def course(found: Course, estimate: Estimate | None) -> Shown | None:
    """The looks and where they lead; None where there was none, or nothing is known of its pace."""
    if not found.looks or estimate is None or estimate.left_s is None:
        return None
    words = f"Drawn: share done over time, from the beginning of the work to the end that its pace leads to ({eta.span(estimate.left_s)} from the last look)."
    picture = plots.image(lambda: _drawn(found, estimate), f"Share done over time: {eta.words(estimate, found.unit)}")
    return Shown(picture + paragraph(words, "dim"), words)


def _drawn(found: Course, estimate: Estimate) -> bytes:
    figure = plots.canvas(5.4, 3.2)
    axes = figure.subplots()
    last, left_s = found.looks[-1], estimate.left_s or 0.0
    zero = found.began_s if found.began_s is not None else found.looks[0].at_s
    now = last.at_s - zero
    high = min(estimate.high_s or left_s, 3 * left_s)  # a far end would make all the rest a corner
    unit, per = plots.time_unit(now + high)
    _cone(axes, now, 100 * last.share, estimate.low_s or left_s, high, per)
    axes.plot(
        [now / per, (now + left_s) / per], [100 * last.share, 100], color=plots.BLUE, linewidth=1.6, linestyle="--"
    )
    times = [(one.at_s - zero) / per for one in found.looks]
    shares = [100 * one.share for one in found.looks]
    if found.began_s is not None:
        axes.plot([0, *times], [0, *shares], color=plots.BLUE, linewidth=1.8)
    axes.plot(times, shares, color=plots.BLUE, linewidth=1.8, marker="o", markersize=4)
    axes.axvline(now / per, color=plots.ORANGE, linewidth=1)
    axes.set_title("percent done", loc="left", fontsize=11, color=plots.INK)
    axes.set_xlabel(
        f"{unit} since {'the work' if found.began_s is not None else 'the first look'} began",
        fontsize=11,
        color=plots.INK,
    )
    plots.furnish(axes, (now + high) / per * 1.02)
    axes.set_ylim(0, 116)  # room for words above the end
    axes.set_yticks([0, 25, 50, 75, 100])
    _marks(axes, now / per, (now + left_s) / per, left_s, right=(now + high) / per)
    return plots.png(figure)


def _cone(axes: Axes, now: float, share: float, low_s: float, high_s: float, per: float) -> None:
    """Where it ends by what the looks can err."""
    if high_s > low_s:
        axes.fill(
            [now / per, (now + low_s) / per, (now + high_s) / per],
            [share, 100, 100],
            color=plots.SHADE,
            alpha=0.5,
            linewidth=0,
        )


def _marks(axes: Axes, now: float, end: float, left_s: float, *, right: float) -> None:
    """Now, and the end, in words beside their places; on the side where there is room."""
    early = now < 0.75 * right
    axes.annotate(
        "now",
        (now, 3),
        xytext=(4 if early else -4, 0),
        textcoords="offset points",
        ha="left" if early else "right",
        fontsize=10,
        color=plots.ORANGE,
    )
    axes.annotate(
        f"done in {eta.span(left_s)}",
        (end, 100),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        color=plots.INK,
    )
