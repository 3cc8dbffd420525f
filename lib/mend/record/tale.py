"""The body of a report: an executed notebook as sections of sanitized HTML, or the same told from a journal.

Not nbconvert: its sanitizer works on Markdown *source*, which breaks quotes, its pages load scripts, and its import takes half a second.
"""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mend.journal import Event
from mend.plan import Plan
from mend.record import account, show
from mend.record.markup import Shown, escape, folded

_TAGS = {
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "br",
        "hr",
        "ul",
        "ol",
        "li",
        "blockquote",
        "pre",
        "code",
        "em",
        "strong",
        "b",
        "i",
        "del",
        "sub",
        "sup",
    ),
    *("table", "thead", "tbody", "tr", "th", "td", "div", "span", "details", "summary", "img", "a"),
}
_IMAGES = re.compile(r"data:image/(png|jpeg|svg\+xml);base64,[A-Za-z0-9+/=\s]+")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Tale:
    """A story as HTML: its heading, its sections, and (anchor, words) for a table of contents."""

    heading: str
    body: str
    contents: tuple[tuple[str, str], ...]


def from_notebook(path: Path) -> Tale | None:
    """The story of an executed notebook; None where there is none that can be read."""
    try:
        cells = list(json.loads(path.read_text(encoding="utf-8"))["cells"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    body = sanitized("".join(_cell(cell) for cell in cells))
    heading, _, rest = body.partition("</h1>")
    return Tale(f"{heading}</h1>", rest, _contents(body)) if rest else Tale("", body, _contents(body))


def from_journal(events: Sequence[Event], plan: Plan | None) -> Tale:
    """What can be told without the notebook."""
    checks = account.checks(events)
    parts = ['<p class="mend-notrun">The notebook of this run is missing. This is what its journal says.</p>']
    if checks:
        parts.append('<h2 id="diagnose">Diagnose</h2>')
        parts += [f"<h3>{escape(check['question'])}</h3>{_shown(show.check(check))}" for check in checks]
    if plan:
        parts += ['<h2 id="decide">Decide</h2>', _shown(show.plan(plan))]
    if failed := account.error(events):
        parts += ['<h2 id="act">Act</h2>', _shown(show.error(failed))]
    body = sanitized("".join(parts))
    return Tale("", body, _contents(body))


def _contents(body: str) -> tuple[tuple[str, str], ...]:
    return tuple(re.findall(r'<h2 id="([a-z0-9-]+)">([^<]*)</h2>', body))


def _shown(fragment: Shown) -> str:
    return f'<div class="mend-output">{_without_style(fragment.html)}</div>'


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell.get("source", ""))
    if cell["cell_type"] == "markdown":
        return markdown(source)
    if cell["cell_type"] != "code" or not source.strip():
        return ""
    outputs = "".join(_output(output) for output in _merged(cell.get("outputs", [])))
    ran = cell.get("execution_count") is not None or outputs
    if "parameters" in cell.get("metadata", {}).get("tags", []):
        return ""  # the defaults; what counted stands in the table below
    rest = outputs if ran else '<p class="mend-notrun">Not run.</p>'
    lines = source.strip().splitlines()
    words = lines[0] if len(lines) == 1 else "code, " + _lines(source.strip())
    return f'<details class="mend-code"><summary>{escape(words)}</summary><pre>{escape(source)}</pre></details>{rest}'


def _merged(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs with the text that was printed in pieces put together."""
    merged: list[dict[str, Any]] = []
    for output in outputs:
        if output["output_type"] == "stream" and merged and merged[-1]["output_type"] == "stream":
            merged[-1] = merged[-1] | {"text": "".join(merged[-1]["text"]) + "".join(output["text"])}
        else:
            merged.append(output)
    return merged


def _output(output: dict[str, Any]) -> str:
    kind = output["output_type"]
    if kind == "stream":
        text = _ANSI.sub("", "".join(output["text"])).rstrip()
        return _framed(folded("progress, " + _lines(text), f"<pre>{escape(text)}</pre>")) if text else ""
    if kind == "error":
        trace = _ANSI.sub("", "\n".join(output.get("traceback", [])))
        said = str(output.get("evalue", "")).partition("\n")[0][:160]
        return _framed(folded(f"{output.get('ename')}: {said}", f"<pre>{escape(trace)}</pre>"))
    return _framed(
        _data(
            {
                mime: "".join(content)
                for mime, content in output.get("data", {}).items()
                if isinstance(content, (str, list)) or mime == _WIDGET
            }
        )
    )


def _lines(text: str) -> str:
    count = len(text.splitlines())
    return f"{count} line" + ("" if count == 1 else "s")


def _data(data: dict[str, str]) -> str:
    """The richest form that is safe to show; a widget is none, and its text says nothing."""
    if fragment := data.get("text/html"):
        return _without_style(fragment)
    for mime in ("image/png", "image/jpeg"):
        if mime in data:
            return f'<img src="data:{mime};base64,{"".join(data[mime].split())}" alt="{escape(data.get("text/plain", ""))}">'
    if _WIDGET in data or "text/plain" not in data:
        return ""
    return f"<pre>{escape(data['text/plain'])}</pre>"


def _framed(content: str) -> str:
    return f'<div class="mend-output">{content}</div>' if content else ""


def _without_style(fragment: str) -> str:
    """A fragment without the style element that it carries; the page has one of its own."""
    return re.sub(r"<style>[^<]*</style>", "", fragment)


def markdown(text: str) -> str:
    """Markdown to HTML; HTML in it is shown, not obeyed, and a link outwards is written out."""
    return str(_renderer()(text))


@functools.cache
def _renderer() -> Any:
    import mistune

    class Renderer(mistune.HTMLRenderer):
        def heading(self, text: str, level: int, **_attributes: Any) -> str:
            anchor = f' id="{re.sub("[^a-z0-9]+", "-", html.unescape(text).lower()).strip("-")}"' if level == 2 else ""
            return f"<h{level}{anchor}>{text}</h{level}>\n"

        def link(self, text: str, url: str, title: str | None = None) -> str:
            return f'<a href="{escape(url)}">{text}</a>' if url.startswith("#") else f"{text} ({escape(url)})"

        def image(self, text: str, url: str, title: str | None = None) -> str:
            return escape(text)

    return mistune.create_markdown(renderer=Renderer(escape=True), plugins=["table", "strikethrough"])


def sanitized(content: str) -> str:
    """Only harmless tags, our own classes, anchors within the page, and images that lie in the page itself."""
    import bleach  # type: ignore[import-untyped]

    return str(bleach.clean(content, tags=_TAGS, attributes=_allowed, protocols={"data"}))


def _allowed(tag: str, name: str, value: str) -> bool:
    match name:
        case "class":
            return all(word.startswith("mend") for word in value.split())
        case "id":
            return tag == "h2"
        case "href":
            return tag == "a" and value.startswith("#")
        case "src":
            return tag == "img" and _IMAGES.fullmatch(value) is not None
        case "alt" | "open" | "colspan" | "rowspan":
            return True
    return False
