"""The form mirrors; the approval box applies once, and only for the right name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from fix_runs import until
from mend.database.parameters import Parameter
from mend.errors import LockNotAcquired, QueryFailed
from mend.notebook import widgets
from mend.record import show
from mend.record.markup import Shown

DECLARED = [
    Parameter("target", str, "lab", "where <b>"),
    Parameter("dry_run", bool, True, ""),
    Parameter("lock_timeout_ms", int, 2000, ""),
    Parameter("share", float, 0.5, ""),
]


def test_the_form_shows_values_and_gives_back_what_was_typed() -> None:
    form = widgets.parameter_form(DECLARED, {"target": "env:X"})
    assert form.values() == {"target": "env:X", "dry_run": True, "lock_timeout_ms": 2000, "share": 0.5}
    form._fields["target"].value = "service:y"
    form._fields["dry_run"].value = False
    assert form.values()["target"] == "service:y"
    assert form.values()["dry_run"] is False


def _box(apply: Callable[[widgets.Progress], Shown | None]) -> widgets.Approval:
    return widgets.Approval(database="shop", digest="abc123", apply=apply)


def test_only_the_exact_name_opens_the_button() -> None:
    calls: list[int] = []
    box = _box(lambda say: calls.append(1))  # type: ignore[func-returns-value, arg-type, return-value]
    for name in ("", "sho", "SHOP", "shop ", "shopp"):
        box.name.value = name
        assert box.button.disabled
        box.button.click()
    assert calls == []


def test_it_applies_once_and_tells_how() -> None:
    calls: list[str] = []

    def apply(say: widgets.Progress) -> Shown:
        say("step 1: <drop>")
        calls.append(box.area.value)
        return show.outcome("All steps ran.", "applied")

    box = _box(apply)
    box.name.value = "shop"
    assert not box.button.disabled
    box.button.click()
    box.button.click()
    assert len(calls) == 1
    assert "step 1: &lt;drop&gt;" in calls[0], "progress is live"
    assert "All steps ran." in box.area.value
    assert box.button.disabled
    assert box.name.disabled


def test_an_error_is_shown_where_it_happened() -> None:
    def apply(say: widgets.Progress) -> None:
        raise LockNotAcquired("Could not lock <it>.")

    box = _box(apply)
    box.name.value = "shop"
    box.button.click()
    assert "Could not lock &lt;it&gt;." in box.area.value


@pytest.mark.parametrize("error", [ZeroDivisionError, RuntimeError])
def test_an_unforeseen_error_never_looks_like_success(error: type[Exception], caplog: Any) -> None:
    def apply(say: widgets.Progress) -> None:
        raise error

    box = _box(apply)
    box.name.value = "shop"
    with pytest.raises(error):
        box._clicked(box.button)
    assert "mend resume" in box.area.value
    assert "Applied" not in box.area.value


# --- looking again --------------------------------------------------------------------------------------------------------


def test_a_live_view_looks_only_while_its_switch_is_on() -> None:
    looked = threading.Event()
    seen: list[int] = []

    def look() -> Shown:
        seen.append(len(seen))
        looked.set()
        return Shown(f"<p>look {len(seen)}</p>", "")

    view = widgets.LiveView(look, every_s=0.01, lasts_s=60)
    assert (view.switch.value, view.area.value, seen) == (False, "", [])
    view.switch.value = True
    until(lambda: len(seen) > 2, what="it looks again")
    view.switch.value = False
    thread = next((one for one in threading.enumerate() if one.name == "mend-live"), None)
    if thread:
        thread.join(10)
    assert "look" in view.area.value
    assert not [one for one in threading.enumerate() if one.name == "mend-live"]


def test_a_look_that_fails_says_so_and_the_next_one_follows() -> None:
    answers: list[Any] = [QueryFailed("The server was busy."), RuntimeError("no"), Shown("<p>well</p>", "")]
    shown: list[str] = []

    def look() -> Shown:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    view = widgets.LiveView(look, every_s=0.01, lasts_s=60)
    view.area.observe(lambda change: shown.append(change["new"]), names="value")
    view.switch.value = True
    until(lambda: "<p>well</p>" in shown, what="it goes on")
    view.switch.value = False
    assert "The server was busy." in shown[0]
    assert "This look failed" in shown[1]


def test_a_live_view_switches_itself_off_after_its_time() -> None:
    view = widgets.LiveView(lambda: Shown("<p>x</p>", ""), every_s=0.01, lasts_s=0.1)
    view.switch.value = True
    until(lambda: view.switch.value is False, what="it is off")
