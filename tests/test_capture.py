"""What a cell showed is shown, and remembered with the cell; without a notebook its text is printed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest
from mend.notebook import capture


@dataclass(frozen=True)
class Fragment:
    """As ``show`` makes them."""

    html: str
    text: str

    def __str__(self) -> str:
        return self.text


def test_outside_a_notebook_the_text_is_printed_and_nothing_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    capture.start()
    capture.display(Fragment("<b>2 rows</b>", "2 rows"))
    assert capsys.readouterr().out == "2 rows\n"
    assert capture.cells() == []


SHELL = """
import json, sys
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from mend.notebook import capture

class Fragment:
    def __init__(self, text): self.html, self.text = f"<i>{text}</i>", text
    def _repr_html_(self): return self.html
    def __repr__(self): return self.text

class Widget:
    def __repr__(self): return "a slider"

shell = InteractiveShell.instance(history_length=0)
shell.history_manager.enabled = False
shell.user_ns.update(Fragment=Fragment, Widget=Widget, capture=capture)
for source in json.loads(sys.argv[1]):
    shell.run_cell(source, store_history=True)
print("\\n#" + json.dumps(capture.cells()))
"""


def cells(*sources: str) -> list[Any]:
    """Run cells in a shell of its own process; what ``capture.cells()`` then says."""

    command = [sys.executable, "-W", "ignore", "-c", SHELL, json.dumps([textwrap.dedent(source) for source in sources])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout.rpartition("\n#")[2])
    assert isinstance(found, list)
    return found


def shown(text: str) -> dict[str, str]:
    return {"text/html": f"<i>{text}</i>", "text/plain": text}


def test_each_cell_has_what_it_showed_in_order_and_a_widget_leaves_no_trace() -> None:
    found = cells(
        "capture.start()",
        "capture.display(Fragment('one')); capture.display(Fragment('two'))",
        "x = 1",
        "capture.display(Widget()); capture.display(Fragment('three'))",
    )
    assert [outputs for _, outputs in found] == [[], [shown("one"), shown("two")], [], [shown("three")]]
    assert [source for source, _ in found][2] == "x = 1"


def test_a_cell_that_fails_keeps_what_it_showed_before() -> None:
    found = cells("capture.display(Fragment('before')); 1/0", "capture.display(Fragment('after'))")
    assert [outputs for _, outputs in found] == [[shown("before")], [shown("after")]]


def test_a_new_run_in_the_same_kernel_forgets_what_the_old_one_showed() -> None:
    found = cells("capture.display(Fragment('old'))", "capture.start()", "capture.display(Fragment('new'))")
    assert [outputs for _, outputs in found] == [[], [], [shown("new")]]


def test_a_cell_that_runs_twice_is_there_twice() -> None:
    found = cells("capture.display(Fragment('a'))", "capture.display(Fragment('a'))")
    assert len(found) == 2
