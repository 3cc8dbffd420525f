"""Where a schema differs from its history, drawn: the objects with the most differences, each bar parted by whose they are.

What it shows stands in the table beside it; a drawing that fails costs nothing but itself.
"""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Sequence

from mend import settings
from mend.mismatch.drift import CHANGED, MEANINGS, NEVER_RAN, OUT_OF_BAND, Difference
from mend.record.markup import Shown, escape, paragraph

_FEWEST = 4  # objects: of fewer the table says it as well
_MOST = 15  # objects that are drawn; the rest are one bar
_LONGEST = 34  # characters of a name
_INK, _GRID = "#1b1f24", "#d8dde2"
_COLOURS = {NEVER_RAN: "#b45309", CHANGED: "#0b5cad", OUT_OF_BAND: "#7a3e9d"}
_REST = ("#4d7c0f", "#64748b", "#be185d")


def where(differences: Sequence[Difference]) -> Shown | None:
    """A picture of where the differences are; None where there are too few for one."""
    objects = Counter(one.object for one in differences)
    if len(objects) < _FEWEST:
        return None
    words = f"{len(differences)} differences on {len(objects)} objects."
    try:
        png = base64.b64encode(_drawn(differences, objects)).decode()
    except Exception:  # noqa: BLE001 the answer stands in words; a broken drawing library must not make it look failed
        return Shown(paragraph("(No drawing: matplotlib failed.)", "dim"), words)
    return Shown(
        f'<img class="mend-plot" src="data:image/png;base64,{png}" alt="{escape(f"{words} Bars: the objects with the most")}">',
        words,
    )


def bars(differences: Sequence[Difference], objects: Counter[str]) -> list[tuple[str, Counter[str]]]:
    """The bars, the longest first: a name, and how many differences of each attribution."""
    first = [name for name, _ in sorted(objects.items(), key=lambda item: (-item[1], item[0]))[:_MOST]]
    found = {name: Counter[str]() for name in first}
    rest = Counter[str]()
    for one in differences:
        found.get(one.object, rest)[one.attribution] += 1
    more = len(objects) - len(first)
    return [*found.items(), *([(f"{more} more objects", rest)] if more else [])]


def _drawn(differences: Sequence[Difference], objects: Counter[str]) -> bytes:
    os.environ.setdefault("MPLCONFIGDIR", str(settings.made_home("matplotlib")))  # its font cache; never in HOME
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = bars(differences, objects)[::-1]
    figure = Figure(figsize=(5.6, 1.3 + 0.28 * len(rows)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    left = [0] * len(rows)
    rest = iter(_REST)
    for word in [word for word in MEANINGS if any(count[word] for _, count in rows)]:
        widths = [count[word] for _, count in rows]
        colour = _COLOURS.get(word) or next(rest, _INK)
        axes.barh(range(len(rows)), widths, left=left, color=colour, label=word, height=0.72)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for n, total in enumerate(left):
        axes.text(total, n, f" {total}", va="center", fontsize=9, color=_INK)
    axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
    axes.set_title("differences by object", loc="left", fontsize=11, color=_INK)
    axes.tick_params(labelsize=9, colors=_INK, length=0)
    axes.margins(x=0.12)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(_GRID)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _short(name: str) -> str:
    """
    >>> _short("public." + "x" * 40)
    'public.xxxxxxxxxxxxxxxxxxxxxxxxxx…'
    """
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
