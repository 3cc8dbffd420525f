"""The form mirrors; the approval box applies once, and only for the right name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mend import show, widgets
from mend.errors import LockNotAcquired
from mend.markup import Shown
from mend.parameters import Parameter

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
