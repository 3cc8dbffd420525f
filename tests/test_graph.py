"""The revision graph: which heads belong together, and a drawing that stays legible."""

from __future__ import annotations

from pathlib import Path

import projects
import pytest
from mend.conflict import plots_graph
from mend.histories import graph, history
from mend.histories.history import History
from projects import revision


@pytest.fixture
def read(tmp_path: Path) -> object:
    def make(*made: tuple[str, str | tuple[str, ...] | None] | tuple[str, str | None, str]) -> History:
        files = {
            f"{n:03d}": revision(one[0], one[1], head=one[2] if len(one) > 2 else "") for n, one in enumerate(made)
        }  # type: ignore[arg-type,misc]
        return history.read(projects.project(tmp_path, files).alembic_ini)

    return make


@pytest.mark.parametrize(
    ("made", "groups"),
    [
        ([("a1", None), ("b1", "a1")], ()),
        ([("a1", None), ("b1", "a1"), ("c1", "a1")], (("b1", "c1"),)),
        ([("a1", None), ("b1", "a1"), ("c1", "a1"), ("d1", "a1")], (("b1", "c1", "d1"),)),
        ([("a1", None), ("b1", None)], ()),
        ([("a1", None), ("b1", "a1"), ("c1", "a1", "branch_labels = 'reports'")], ()),
        ([("a1", None), ("b1", "a1"), ("c1", "a1", "depends_on = 'b1'")], ()),
        ([("a1", None), ("b1", "a1"), ("c1", "a1"), ("x1", None), ("y1", "x1"), ("z1", "x1")], (("b1", "c1"), ("y1", "z1"))),
        ([("a1", None), ("b1", "a1"), ("c1", "a1"), ("d1", ("b1", "c1")), ("e1", ("c1", "b1"))], (("d1", "e1"),)),
    ],
    ids=["one head", "two heads", "three", "two roots", "a label", "a dependency", "two pairs", "merged twice"],
)  # fmt: skip
def test_heads_that_nobody_meant_to_stand_apart(
    read: object, made: list[tuple[str, ...]], groups: tuple[tuple[str, ...], ...]
) -> None:
    assert graph.apart_by_accident(read(*made)) == groups  # type: ignore[operator]


def test_a_branch_is_what_only_its_head_comes_after(read: object) -> None:
    past = read(("a1", None), ("b1", "a1"), ("c1", "a1"), ("d1", "c1"))  # type: ignore[operator]
    assert graph.own(past, "d1", past.heads) == ("c1", "d1")
    assert graph.tips(past, graph.common(past, past.heads)) == ("a1",)


def test_three_hundred_revisions_are_drawn_legibly(read: object) -> None:
    """A long trunk with old merges, then two branches: the trunk is one line, the branches are drawn one by one."""
    trunk: list[tuple[str, str | tuple[str, ...] | None]] = [("r000", None)]
    for n in range(1, 290):
        trunk.append((f"r{n:03d}", f"r{n - 1:03d}"))
        if n % 40 == 0:
            trunk += [(f"side{n}", f"r{n - 1:03d}"), (f"m{n}", (f"r{n:03d}", f"side{n}"))]
            trunk[-1], trunk[-3] = trunk[-1], trunk[-3]
    past = read(*trunk, ("x1", "r289"), ("x2", "x1"), ("y1", "r289"))  # type: ignore[operator]
    picture = graph.picture(past, ["x1"])
    assert len(picture.vertices) <= graph.MOST_DRAWN
    named = {one.id for one in picture.vertices if one.count == 1}
    assert {"x1", "x2", "y1", "r289"} <= named
    assert sum(one.count for one in picture.vertices) == len(past.revisions)
    shown = plots_graph.drawn(picture)
    assert 'src="data:image/png;base64,' in shown.html
    assert "x1 after r289 [the database is here]" in shown.text


def test_missing_parents_and_unknown_rows_are_drawn_too(read: object) -> None:
    past = read(("a1", None), ("c1", "b1"))  # type: ignore[operator]
    picture = graph.picture(past, ["lost1"])
    kinds = {one.id: one.kinds for one in picture.vertices}
    assert "missing" in kinds["b1"]
    assert kinds["lost1"] == {"missing", "row"}
    assert "no file" in plots_graph.drawn(picture).text


def test_a_cycle_and_an_empty_history_are_drawn(read: object, tmp_path: Path) -> None:
    past = read(("a1", "c1"), ("b1", "a1"), ("c1", "b1"))  # type: ignore[operator]
    assert "in a cycle" in plots_graph.drawn(graph.picture(past, [])).text
    empty = history.read(projects.project(tmp_path / "empty", {}).alembic_ini)
    assert "no revision" in plots_graph.drawn(graph.picture(empty, [])).text


def test_lanes_do_not_cross_vertices_of_others(read: object) -> None:
    past = read(("a1", None), ("b1", "a1"), ("c1", "a1"), ("d1", ("b1", "c1")))  # type: ignore[operator]
    placed = {one.vertex.id: one for one in plots_graph.place(graph.picture(past, []))}
    assert placed["d1"].line == 0
    assert placed["b1"].lane != placed["c1"].lane
