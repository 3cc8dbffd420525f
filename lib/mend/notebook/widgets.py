"""The widgets of a runbook in JupyterLab; the only module that imports ipywidgets.

They mirror and ask; they are never evidence.  What a widget shows stands beside it, or in the journal, as plain HTML too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import ipywidgets as ipw

from mend.batches.progress import Live
from mend.database.parameters import Parameter
from mend.errors import Interrupted, MendError
from mend.record import show
from mend.record.markup import Shown, escape

Progress = Callable[[str], None]

_LABEL = {"description_width": "11rem"}
_WIDE = ipw.Layout(width="44rem", max_width="100%")


class Form:
    """A form that mirrors a runbook's parameters; ``values()`` reads it."""

    def __init__(self, fields: Mapping[str, ipw.ValueWidget], helps: Mapping[str, str]) -> None:
        self._fields = dict(fields)
        rows = [ipw.VBox([field, ipw.HTML(_dim(helps[name]))]) for name, field in fields.items()]
        self.widget = ipw.VBox(rows, _dom_classes=("mend-form",))

    def values(self) -> dict[str, Any]:
        """The parameters as the form shows them now."""
        return {name: field.value for name, field in self._fields.items()}


def parameter_form(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> Form:
    """One field per parameter, of its type, filled with its value.

    Parameters
    ----------
    values : validated; a missing one shows its default
    """
    fields = {p.name: _field(p, values.get(p.name, p.default)) for p in parameters}
    return Form(fields, {p.name: p.help for p in parameters})


def _field(parameter: Parameter, value: Any) -> ipw.ValueWidget:
    kinds = {bool: ipw.Checkbox, int: ipw.IntText, float: ipw.FloatText}
    kind = kinds.get(parameter.type, ipw.Text)
    options = {"indent": False} if kind is ipw.Checkbox else {"continuous_update": False}
    return kind(
        value=value,
        description=parameter.name,
        style=_LABEL,
        layout=_WIDE,
        _dom_classes=(f"mend-{parameter.name}",),
        **options,
    )


def _dim(text: str) -> str:
    return f'<div style="margin:-.3rem 0 .3rem 11.4rem;opacity:.65;font-size:12px">{escape(text)}</div>'


class Bar:
    """How far a long step is: a bar, and the line of its last sample; hidden until there is one."""

    def __init__(self) -> None:
        self._bar = ipw.FloatProgress(min=0, max=1, layout=ipw.Layout(width="100%"), _dom_classes=("mend-bar",))
        self._line = ipw.HTML(_dom_classes=("mend-bar-line",))
        self.widget = ipw.VBox(
            [self._bar, self._line], layout=ipw.Layout(width="44rem", max_width="100%", display="none")
        )

    def say(self, line: Live) -> None:
        """Show a sample in place of the one before; where nobody knows how much is left, the bar says only that it goes on."""
        self.widget.layout.display = ""
        self._bar.value = 1.0 if line.share is None else line.share
        self._bar.bar_style = "warning" if line.slowed else "" if line.share is None else "info"
        self._line.value = f"<span>{escape(line)}</span>"

    def end(self) -> None:
        """All is over: a bar that stands still says nothing."""
        self.widget.layout.display = "none"


class Approval:
    """Asks for the name of the database, then applies the plan once, and shows how it goes."""

    def __init__(self, *, database: str, digest: str, apply: Callable[[Progress], Shown | None]) -> None:
        self._database, self._digest, self._apply = database, digest, apply
        self._lines: list[str] = []
        self.name = ipw.Text(
            placeholder="name of the database",
            description="Type its name",
            style=_LABEL,
            layout=ipw.Layout(width="30rem"),
            _dom_classes=("mend-approval-name",),
        )
        self.button = ipw.Button(
            description=f"Apply plan {digest}",
            button_style="danger",
            disabled=True,
            layout=ipw.Layout(width="19rem"),
            _dom_classes=("mend-approval-apply",),
        )
        self.area = ipw.HTML(_dom_classes=("mend-approval-result",))
        self.bar = Bar()
        question = ipw.HTML(
            f"<p>This changes the database <b>{escape(database)}</b>. To apply the plan above, type the name of the database.</p>"
        )
        self.widget = ipw.VBox(
            [question, ipw.HBox([self.name, self.button]), self.bar.widget, self.area], _dom_classes=("mend-approval",)
        )
        self.name.observe(self._typed, names="value")
        self.button.on_click(self._clicked)

    def _typed(self, _change: Any) -> None:
        self.button.disabled = self.name.value != self._database

    def _clicked(self, _button: Any) -> None:
        """The front end can be told to click a disabled button, so the name is compared again here."""
        if self.button.disabled or self.name.value != self._database:
            return
        self.name.disabled = self.button.disabled = True
        self._say(f"applying plan {self._digest} to {self._database}")
        ended: Shown | None = show.error(
            {
                "error": "OutcomeUnknown",
                "message": "The apply broke off. The journal says which steps ran; `mend resume` goes on from there.",
            }
        )
        try:
            ended = self._apply(self._say)
        except MendError as error:
            ended = show.error(error)
        except KeyboardInterrupt:
            ended = show.error(Interrupted())
        finally:
            self.bar.end()
            self._show(ended or show.outcome("Run the next cells to verify it.", "applied"))

    def _say(self, line: str) -> None:
        if isinstance(line, Live):
            self.bar.say(line)
            return
        self._lines.append(line)
        self.area.value = show.progress(self._lines).html

    def _show(self, ended: Shown) -> None:
        self.area.value = show.progress(self._lines, done=True).html + ended.html


def approval(*, database: str, digest: str, apply: Callable[[Progress], Shown | None]) -> Any:
    """The approval box.

    Parameters
    ----------
    database : what the operator must type, exactly
    digest : of the plan shown above the box
    apply : runs it, told where to report progress; may return what to show at the end

    Returns
    -------
    A widget.  Its button works once, and only while the name stands in the box.
    """
    return Approval(database=database, digest=digest, apply=apply).widget


class LiveView:
    """What a look shows, looked at again on a timer while the switch is on: off at first, and off again after ``lasts_s``.

    The looks run in a thread of their own, one at a time, which ends with the kernel; a look never outlives the switch by more
    than itself.
    """

    def __init__(self, look: Callable[[], Shown], *, every_s: float, lasts_s: float) -> None:
        self._look, self._every_s, self._lasts_s = look, every_s, lasts_s
        self._stop = threading.Event()
        self.switch = ipw.ToggleButton(
            value=False,
            description=f"refresh every {every_s:g} s",
            icon="refresh",
            layout=ipw.Layout(width="15rem"),
            _dom_classes=("mend-live-switch",),
        )
        self.says = ipw.HTML(_dom_classes=("mend-live-says",))
        self.area = ipw.HTML(_dom_classes=("mend-live-area",))
        self.widget = ipw.VBox([ipw.HBox([self.switch, self.says]), self.area], _dom_classes=("mend-live",))
        self.switch.observe(self._switched, names="value")

    def _switched(self, change: Any) -> None:
        self._stop.set()  # the thread before, if any, is of another turn of the switch
        if not change["new"]:
            self.says.value = "<span>off; what stands below is the last look</span>" if self.area.value else ""
            return
        self._stop = threading.Event()
        threading.Thread(target=self._refresh, args=(self._stop,), daemon=True, name="mend-live").start()

    def _refresh(self, stop: threading.Event) -> None:
        ends = threading.Timer(self._lasts_s, stop.set)
        ends.daemon = True
        ends.start()
        while not stop.is_set():
            try:
                shown = self._look()
            except MendError as error:
                shown = show.error(error)
            except Exception as error:  # noqa: BLE001 a view that fails says so and goes on; nothing hangs on it
                shown = show.error(
                    {"error": type(error).__name__, "message": "This look failed. The next one may do better."}
                )
            if not stop.is_set():
                self.area.value = shown.html
                self.says.value = f"<span>looked at {datetime.now(UTC):%H:%M:%S} UTC</span>"
            stop.wait(self._every_s)
        ends.cancel()
        if stop is self._stop and self.switch.value:
            self.switch.value = False  # the time is over


def live(look: Callable[[], Shown], *, every_s: float = 5.0, lasts_s: float = 1800.0) -> Any:
    """A switch, off, that shows ``look()`` again every ``every_s`` seconds for at most ``lasts_s``.

    Parameters
    ----------
    look : one short read; what it raises is shown in place of it, and the next look follows

    Returns
    -------
    A widget.
    """
    return LiveView(look, every_s=every_s, lasts_s=lasts_s).widget
