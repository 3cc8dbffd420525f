"""The wait forest as a picture and in words: who stands behind whom, how long, and what each root is.

Sessions that stand at the same place and do the same are one line, so that two hundred of them stay legible.  What the picture shows
stands in words beside it; a drawing that fails costs nothing but itself.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mend import settings
from mend.batches.progress import duration
from mend.queue.forest import MEANINGS, Forest, counted
from mend.record.markup import Shown, escape, folded, paragraph, sql
from mend.record.markup import shown as fragment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 40  # in the picture; the words hold them all
_MOST_WORDS = 400
_ROW_IN, _WIDTH_IN, _DPI = 0.46, 10.0, 120
_INK, _DIM, _GRID = "#1b1f24", "#57606a", "#d8dde2"
_ROOT, _HARD, _SOFT = "#b42318", "#0b5cad", "#7fb1e3"


@dataclass(frozen=True)
class Line:
    """One line of the picture: sessions at the same place that do the same.  ``up``: the line of their blocker, or None."""

    keys: tuple[int, ...]
    depth: int
    up: int | None
    title: str
    says: str
    shortest_s: float
    longest_s: float
    soft: bool
    freed: str = ""


def lines(forest: Forest) -> list[Line]:
    """The forest as lines, each below the one that it waits for; roots first."""
    found: list[Line] = []
    stack: list[tuple[int, int | None, tuple[int, ...]]] = [(0, None, (key,)) for key in reversed(forest.roots)]
    while stack:
        depth, up, keys = stack.pop()
        chain = _chain(forest, keys) if depth and len(keys) == 1 else keys
        found.append(_line(forest, depth, up, chain, in_line=len(chain) > len(keys)))
        at = len(found) - 1
        below = chain[-1:] if len(chain) > len(keys) else keys
        groups = _alike(forest, [child for key in below for child in forest.children.get(key, ())])
        stack += [(depth + 1, at, group) for group in reversed(groups)]
    return found


def _alike(forest: Forest, keys: Sequence[int]) -> list[tuple[int, ...]]:
    """Those that nobody waits for in the tree, and that want the same by the same statement, together; the others alone."""
    groups: dict[object, list[int]] = {}
    for key in keys:
        groups.setdefault(key if forest.children.get(key) else _wish(forest, key), []).append(key)
    return [tuple(group) for group in groups.values()]


def _chain(forest: Forest, keys: tuple[int, ...]) -> tuple[int, ...]:
    """A queue in which each stands behind the one before and all want the same by the same statement, from its first on."""
    found = list(keys)
    while len(after := forest.children.get(found[-1], ())) == 1 and _wish(forest, after[0]) == _wish(forest, found[-1]):
        found.append(after[0])
    return tuple(found)


def _wish(forest: Forest, key: int) -> tuple[str, ...]:
    """What it wants, and by which statement."""
    wait, who = forest.wait_of[key], forest.sessions.get(key)
    return (wait.mode, wait.object, who.query if who else "", who.role if who else "")


def _line(forest: Forest, depth: int, up: int | None, keys: tuple[int, ...], *, in_line: bool) -> Line:
    waits = [forest.wait_of[key].wait_s for key in keys if key in forest.wait_of]
    who = forest.sessions.get(keys[0])
    statement = (who.query if who else "") or ("" if keys[0] in forest.prepared else "(no statement is shown)")
    soft = all(key in forest.soft for key in keys)
    if depth == 0:
        freed = f"frees {len(forest.freed_if_ended(keys))} of {len(forest.below(keys[0]))}"
        return Line(keys, 0, None, forest.told(keys[0]), " ".join(statement.split()), 0.0, 0.0, False, freed)
    wait = forest.wait_of[keys[0]]
    also = ", ".join(_short(forest, b) for b in forest.also_behind(keys[0])[:3]) if len(keys) == 1 else ""
    wants = f"{wait.mode} on {wait.object}{f'; also behind {also}' if also else ''}"
    title = (
        f"{who.label() if who else f'pid {keys[0]}'} wants {wants}"
        if len(keys) == 1
        else _group(forest, keys, wants, in_line)
    )
    return Line(keys, depth, up, title, " ".join(statement.split()), min(waits), max(waits), soft)


def _short(forest: Forest, key: int) -> str:
    return f"pid {key}" if key > 0 else forest.named(key)


def _group(forest: Forest, keys: Sequence[int], wants: str, in_line: bool) -> str:
    """Several sessions in one sentence; which they are stands in the words."""
    who = forest.sessions.get(keys[0])
    role = f" (role {who.role})" if who and who.role else ""
    how = ", one behind the other," if in_line else ""
    return f"{len(keys)} sessions{how} want {wants}{role}"


def shown(forest: Forest) -> Shown:
    """Picture and words; one sentence where nobody waits."""
    if not forest.waits:
        return fragment(
            [paragraph("Nobody waits for a lock at this moment.", "says")], "Nobody waits for a lock at this moment."
        )
    drawn = lines(forest)
    words = "\n".join(_words(forest, drawn))
    parts = [paragraph(_summary(forest), "says"), _image(drawn), folded("The same in words", sql(words))]
    return fragment(parts, f"{_summary(forest)}\n{words}")


def _summary(forest: Forest) -> str:
    count, roots = len(forest.blockers), len(forest.roots)
    longest = max(wait.wait_s for wait in forest.waits)
    return f"{counted(count, 'session')} wait{'s' if count == 1 else ''}, the longest for {duration(longest)}, behind {counted(roots, 'root')}."


def _words(forest: Forest, drawn: Sequence[Line]) -> Iterator[str]:
    """The tree as text."""
    for line in drawn[:_MOST_WORDS]:
        indent = "    " * line.depth
        if line.depth == 0:
            yield f"{line.title}"
            yield f"  {MEANINGS[forest.kind(line.keys[0])]}; ending it {line.freed} behind it"
        else:
            how = "behind one that asked before (soft)" if line.soft else "behind a lock that is held"
            yield f"{indent}{line.title}, for {_span(line)}, {how}"
            if len(line.keys) > 1:
                yield f"{indent}  pids {', '.join(map(str, line.keys))}"
        if line.says:
            yield f"{indent}  {line.says[:160]}"
    if len(drawn) > _MOST_WORDS:
        yield f"and {len(drawn) - _MOST_WORDS} more"


def _span(line: Line) -> str:
    low, high = duration(line.shortest_s), duration(line.longest_s)
    return high if low == high else f"{low} to {high}"


def _image(drawn: Sequence[Line]) -> str:
    """An ``img`` with the picture in it, or why there is none."""
    try:
        png = base64.b64encode(picture(drawn)).decode()
    except Exception:  # noqa: BLE001 the words say the same; a broken drawing library must not stop a look at an incident
        return paragraph("(No picture: matplotlib failed.)", "dim")
    return f'<img class="mend-plot mend-wide" src="data:image/png;base64,{png}" alt="{escape("Who waits behind whom, and how long")}">'


def picture(drawn: Sequence[Line]) -> bytes:
    """The lines as a PNG: the tree to the left, and how long each has waited as a bar to the right."""
    os.environ.setdefault("MPLCONFIGDIR", str(settings.made_home("matplotlib")))  # its font cache; never in HOME
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    visible, hidden = drawn[:_MOST_LINES], drawn[_MOST_LINES:]
    rows = len(visible) + (1 if hidden else 0)
    height = _ROW_IN * rows + 0.55
    figure = Figure(figsize=(_WIDTH_IN, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    top = 1 - 0.4 / height
    tree = figure.add_axes((0.01, 0.1 / height, 0.76, top - 0.1 / height))
    bars = figure.add_axes((0.78, 0.1 / height, 0.2, top - 0.1 / height), sharey=tree)
    for axes in (tree, bars):
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_axis_off()
    tree.set_xlim(0, 100)
    tree.set_title("who waits behind whom", loc="left", fontsize=10, color=_DIM)
    bars.set_title("has waited", loc="left", fontsize=10, color=_DIM)
    _draw_branches(tree, visible)
    for n, line in enumerate(visible):
        _draw_words(tree, n, line)
    _draw_bars(bars, visible)
    if hidden:
        count = sum(len(line.keys) for line in hidden)
        tree.text(1, rows - 1, f"and {count} more sessions: see the words below", fontsize=9.5, color=_DIM, va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _indent(depth: int) -> float:
    return 1.0 + 3.2 * min(depth, 12)


def _colour(line: Line) -> str:
    return _ROOT if line.depth == 0 else _SOFT if line.soft else _HARD


def _draw_branches(axes: Axes, visible: Sequence[Line]) -> None:
    """The branch from each one's blocker to it, and a mark: a square for a root, a dot for who waits."""
    from matplotlib.collections import LineCollection

    for soft in (False, True):
        chosen = [(n, line) for n, line in enumerate(visible) if line.up is not None and line.soft is soft]
        ways = [
            [
                (_indent(line.depth - 1), float(line.up or 0) + 0.22),
                (_indent(line.depth - 1), n),
                (_indent(line.depth), n),
            ]
            for n, line in chosen
        ]
        axes.add_collection(
            LineCollection(ways, colors=_SOFT if soft else _HARD, linewidths=1.3, linestyles=":" if soft else "-"),
            autolim=False,
        )
    for mark, size, roots in (("s", 64, True), ("o", 36, False)):
        chosen = [(n, line) for n, line in enumerate(visible) if (line.depth == 0) is roots]
        axes.scatter(
            [_indent(line.depth) for _, line in chosen], [n for n, _ in chosen], marker=mark, s=size,
            c=[_colour(line) for _, line in chosen], zorder=3, linewidths=0,
        )  # fmt: skip


def _draw_words(axes: Axes, n: int, line: Line) -> None:
    """Who wants what, and by which statement."""
    x = _indent(line.depth)
    weight = "bold" if line.depth == 0 else "normal"
    room = int((100 - x) * (1.0 if weight == "bold" else 1.1))
    below = bool(line.says)
    axes.text(x + 1.6, n - (0.17 if below else 0), _cut(line.title, room), fontsize=9.5, color=_INK, va="center", fontweight=weight, parse_math=False)  # fmt: skip
    if below:
        axes.text(x + 1.6, n + 0.22, _cut(line.says, int((100 - x) * 0.98)), fontsize=9, color=_DIM, va="center", family="monospace", parse_math=False)  # fmt: skip


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _draw_bars(axes: Axes, visible: Sequence[Line]) -> None:
    """How long each has waited: a bar, of a group with the shortest wait darker, and the number beside it."""
    longest = max([line.longest_s for line in visible] + [1e-3])
    axes.set_xlim(0, longest * 1.75)
    waiting = [(n, line) for n, line in enumerate(visible) if line.depth]
    places, colours = [n for n, _ in waiting], [_colour(line) for _, line in waiting]
    axes.barh(places, [line.longest_s for _, line in waiting], height=0.34, color=colours, alpha=0.55)
    axes.barh(places, [line.shortest_s for _, line in waiting], height=0.34, color=colours)
    for n, line in enumerate(visible):
        at, words = (line.longest_s + longest * 0.03, _span(line)) if line.depth else (0.0, f"its end {line.freed}")
        axes.text(at, n, words, fontsize=9, color=_INK if line.depth else _ROOT, va="center", parse_math=False)
