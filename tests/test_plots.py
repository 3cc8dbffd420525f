"""A backfill's pace is drawn from the journal, with the reasons in words; a broken drawing costs nothing but itself."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mend.batches.progress import Sample
from mend.journal import Event
from mend.record import plots, report, show
from mend.record.archive import Record

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
LAG = "replica <b>r1</b> is {} s behind, the limit is 10 s"


def _event(second: float, kind: str, payload: dict[str, Any]) -> Event:
    time = (BEGAN + timedelta(seconds=second)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(0, time, kind, payload, "", "", "")


def _sample(second: float, rows: int, *, why: str = "", step: int = 0, batch_ms: float = 90.0) -> Event:
    sample = Sample(rows, 1_000_000, 30_000.0, batch_ms, 2900, 2, why, 9.0, None, batch_ms * 1.5)
    return _event(second, "batch_sample", sample.payload(step))


def _events(seconds: int = 10, *, step: int = 0) -> list[Event]:
    began = [_event(0, "step_started", {"step": step, "says": "Fill it"})]
    return began + [
        _sample(n, 30_000 * n, step=step, why=LAG.format(n) if n in (4, 5, 6) else "") for n in range(1, seconds + 1)
    ]


def _images(html: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', html)]


def _size(png: bytes) -> tuple[int, int]:
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def test_a_run_without_a_backfill_has_no_drawing() -> None:
    assert plots.pace([_event(0, "step_started", {"step": 0}), _event(1, "step_done", {"step": 0})]) is None


def test_the_drawing_has_its_facts_in_words() -> None:
    drawn = plots.pace(_events())
    assert drawn is not None
    (png,) = _images(drawn.html)
    width, height = _size(png)
    assert 700 < width < 1000
    assert height < width * 1.2
    assert len(png) < 150_000
    assert drawn.text.splitlines() == [
        "Step 1: 300,000 rows in 10 s, 2 workers; a batch took 90 ms (median), 135 ms at most.",
        f"  A, from 3 s to 6 s: {LAG.format(4)}",
    ]
    assert "replica &lt;b&gt;r1&lt;/b&gt; is 4 s behind" in drawn.html


def test_reasons_are_parted_by_what_they_say_and_not_by_their_numbers() -> None:
    whys = ["x 1", "x 2", "", "y", "x 3.5", ""]
    drawn = plots.pace([_sample(n + 1, n, why=why) for n, why in enumerate(whys)])
    assert drawn is not None
    assert [line[2] for line in drawn.text.splitlines()[1:]] == ["A", "B", "A"]


def test_a_short_step_is_a_sentence() -> None:
    drawn = plots.pace(_events(2))
    assert drawn is not None
    assert _images(drawn.html) == []
    assert drawn.text == "Step 1: 60,000 rows in 2 s, 2 workers; a batch took 90 ms (median), 135 ms at most."


def test_a_step_that_was_paused_throughout_can_be_drawn() -> None:
    drawn = plots.pace([_sample(n, 0, why="paused by me", batch_ms=0.0) for n in range(8)])
    assert drawn is not None
    assert len(_images(drawn.html)) == 1
    assert "batch" not in drawn.text


def test_each_step_has_its_own_and_many_are_counted() -> None:
    drawn = plots.pace([event for step in range(7) for event in _events(5, step=step)])
    assert drawn is not None
    assert len(_images(drawn.html)) == 5
    assert "And 2 more steps of this kind" in drawn.text


def test_where_matplotlib_fails_the_words_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    drawn = plots.pace(_events())
    assert drawn is not None
    assert _images(drawn.html) == []
    assert "300,000 rows in 10 s" in drawn.html


def test_the_common_path_never_loads_matplotlib() -> None:
    program = "import sys, mend.runbook, mend.record.report, mend.command.commands, mend.record.plots; print([n for n in sys.modules if n.startswith('matplotlib')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_drawing_loads_no_pyplot_and_writes_nothing_to_home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    program = (
        "import sys, test_plots; from mend.record import plots; assert test_plots._images(plots.pace(test_plots._events()).html);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    environ = {"HOME": str(tmp_path / "home"), "MEND_HOME": str(tmp_path / "mend"), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environ)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
    assert list((tmp_path / "home").iterdir()) == []


# -- in the record ----------------------------------------------------------------------------------------------------


def _filled(record: Record) -> str:
    """The report of a run whose first cell showed the drawing."""
    import json

    from fix_record import fill, notebook

    fill(record)
    for event in _events():
        record.journal.append(event.kind, event.payload)
    record.journal.append("throttled", {"step": 0, "why": "slowed: <it>"})
    record.journal.append("batch_sample", _events()[-1].payload)
    drawn = plots.pace(_events())
    assert drawn is not None
    book = notebook("run.act()")
    output = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"text/html": drawn.html, "text/plain": drawn.text},
    }
    book["cells"][-1] |= {"execution_count": 1, "outputs": [output]}
    record.save("notebook.ipynb", json.dumps(book))
    return report.page(record, record.path / "notebook.ipynb")


def test_the_report_keeps_the_drawing_and_its_words(record: Record) -> None:
    page = _filled(record)
    assert len(_images(page)) == 1
    assert '<img class="mend-plot" src="data:image/png;base64,' in page
    assert 'alt="Rate and batch time of step 1 over time"' in page
    assert ".mend-plot{" in page


def test_the_timeline_has_one_row_for_samples_that_follow_each_other(record: Record) -> None:
    page = _filled(record)
    timeline = page[page.index('id="timeline"') :]
    assert timeline.count("rows/s") == 2
    assert re.search(r"<td>\d+–\d+</td><td>[\d:.]+</td><td>step 1: 300,000 of about 1,000,000 rows, 30,000 rows/s, 9 s left \(10 samples", timeline)  # fmt: skip
    assert "Step 1: slowed: &lt;it&gt;" in timeline


def test_what_is_shown_can_be_joined() -> None:
    drawn, ended = plots.pace(_events(2)), show.outcome("Done.", "completed")
    from mend.record.markup import joined

    both = joined(drawn, None, ended)
    assert both.text.splitlines()[0].startswith("Step 1:")
    assert both.html.endswith(ended.html)
