"""The drawing of a revision graph: newest at the top, one line for each vertex, its branches in lanes.

What it shows stands in the table above it; a drawing that fails costs nothing but itself.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend.histories.graph import Picture, Vertex
from mend.record import plots
from mend.record.markup import Shown, escape, paragraph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _DIM, _LINE = "#1b1f24", "#6b7280", "#9aa4af"
_LANES = ("#0b5cad", "#b45309", "#15803d", "#7e22ce", "#be123c", "#0e7490")
_BAD, _ROW = "#c81e1e", "#15803d"
_TROUBLE = {"missing", "duplicate id", "in a cycle", "broken"}
_LINE_IN, _LANE_IN, _WIDTH_IN = 0.27, 0.3, 7.6
_DOC = 48  # characters


@dataclass(frozen=True)
class Placed:
    """A vertex in its line (0 at the top) and lane (0 at the left)."""

    vertex: Vertex
    line: int
    lane: int


def drawn(picture: Picture) -> Shown:
    """The graph as an image, with its words for whoever cannot see it."""
    if not picture.vertices:
        return Shown(paragraph("There is no revision to draw.", "dim"), "There is no revision to draw.")
    placed = place(picture)
    words = "\n".join([*(_words(one) for one in placed), picture.left_out]).strip()
    try:
        image = base64.b64encode(_image(placed)).decode()
    except Exception:  # noqa: BLE001 a broken drawing library must not make a diagnosis look failed
        return Shown(paragraph("(No drawing: matplotlib failed.)", "dim"), words)
    alt = escape(f"Revision graph, {len(placed)} lines, newest first")
    html = f'<img class="mend-plot" src="data:image/png;base64,{image}" alt="{alt}">'
    return Shown(html + paragraph(picture.left_out, "dim"), words)


def place(picture: Picture) -> tuple[Placed, ...]:
    """Newest at the top; a branch keeps its lane as far as it goes, and frees it where it parted."""
    lanes: list[str | None] = []  # what each lane waits for, going down
    placed = []
    for line, vertex in enumerate(reversed(picture.vertices)):
        waiting = [n for n, wanted in enumerate(lanes) if wanted == vertex.id]
        lane = waiting[0] if waiting else _free(lanes)
        for n in waiting:
            lanes[n] = None
        placed.append(Placed(vertex, line, lane))
        for n, parent in enumerate(p for p in vertex.parents if p not in lanes):
            if n == 0:
                lanes[lane] = parent
            else:
                lanes[_free(lanes)] = parent
    return tuple(placed)


def _free(lanes: list[str | None]) -> int:
    for n, wanted in enumerate(lanes):
        if wanted is None:
            return n
    lanes.append(None)
    return len(lanes) - 1


def _words(one: Placed) -> str:
    name = f"({one.vertex.count:,} revisions)" if one.vertex.count > 1 else one.vertex.id
    marks = ", ".join(_marks(one.vertex))
    after = f" after {', '.join(one.vertex.parents)}" if one.vertex.parents else ""
    return f"{'  ' * one.lane}* {name}{after}{f' [{marks}]' if marks else ''}"


def _marks(vertex: Vertex) -> list[str]:
    names = {"row": "the database is here", "missing": "no file"}
    shown = ("row", "head", "missing", "duplicate id", "in a cycle", "broken", "merge point", "branch point")
    return [names.get(kind, kind) for kind in shown if kind in vertex.kinds]


def _image(placed: tuple[Placed, ...]) -> bytes:
    lanes = max(one.lane for one in placed) + 1
    figure = plots.canvas(_WIDTH_IN, max(1.0, _LINE_IN * (len(placed) + 1)))
    axes = figure.subplots()
    axes.set_xlim(-0.6, _WIDTH_IN / _LANE_IN)
    axes.set_ylim(len(placed) - 0.4, -0.6)
    axes.axis("off")
    of = {one.vertex.id: one for one in placed}
    for one in placed:
        _edges(axes, one, of)
    for one in placed:
        _vertex(axes, one, lanes)
    return plots.png(figure)


def _edges(axes: Axes, one: Placed, of: Mapping[str, Placed]) -> None:
    for parent in one.vertex.parents:
        if (to := of.get(parent)) is not None:
            lane = max(one.lane, to.lane)
            colour = _LANES[lane % len(_LANES)]
            turn = to.line - 0.5 if one.lane >= to.lane else one.line + 0.5  # the lane is left just above the parent
            across = one.lane if one.lane >= to.lane else to.lane
            xs, ys = [one.lane, across, across, to.lane], [one.line, min(turn, one.line + 0.5), turn, to.line]
            axes.plot(xs, ys, color=colour, linewidth=1.6, zorder=1, solid_joinstyle="round")
    for parent in one.vertex.depends:
        if (to := of.get(parent)) is not None:
            axes.plot([one.lane, to.lane], [one.line, to.line], color=_LINE, linewidth=1, linestyle=":", zorder=1)


def _vertex(axes: Axes, one: Placed, lanes: int) -> None:
    vertex, x, y = one.vertex, one.lane, one.line
    bad = bool(vertex.kinds & _TROUBLE)
    colour = _BAD if bad else _ROW if "row" in vertex.kinds else _LANES[x % len(_LANES)]
    if vertex.count > 1:
        axes.plot([x], [y], marker="$⋮$", color=_DIM, markersize=9, zorder=2, linestyle="none")
        axes.text(lanes, y, f"{vertex.count:,} revisions", fontsize=8, color=_DIM, va="center", style="italic")
        return
    fill = "white" if "missing" in vertex.kinds else colour
    shape = "s" if "head" in vertex.kinds else "o"
    axes.plot([x], [y], marker=shape, color=colour, markerfacecolor=fill, markersize=7, zorder=2, linestyle="none")
    name = axes.text(
        lanes,
        y,
        _short(vertex.id),
        fontsize=8.5,
        color=_BAD if bad else _INK,
        va="center",
        weight="bold",
        family="monospace",
    )
    marks = ", ".join(_marks(vertex))
    told = "  ".join(
        part for part in (f"[{marks}]" if marks else "", textwrap.shorten(vertex.doc, _DOC, placeholder="…")) if part
    )
    tone = _BAD if bad else _ROW if "row" in vertex.kinds else _DIM
    axes.annotate(
        told.replace("$", r"\$"),
        (1, 0.5),
        xycoords=name,
        xytext=(6, 0),
        textcoords="offset points",
        fontsize=8,
        color=tone,
        va="center",
    )


def _short(name: str) -> str:
    """An id, its middle left out where it is too long to draw."""
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= 34 else f"{plain[:20]}…{plain[-10:]}"
