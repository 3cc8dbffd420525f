"""report.html: loads nothing, runs nothing, and tells the run even where the notebook does not."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from fix_record import a_plan, cell, fill, notebook
from mend.diagnosis import Check
from mend.record import archive, markup, report, show, tale

EVIL = "<script>alert(1)</script>"
NAME = '"; drop table users; --'


def _page(record: archive.Record) -> str:
    return report.page(record, record.path / "notebook.ipynb")


def _run(record: archive.Record, outputs: list[dict[str, object]], *, markdown: str = "") -> None:
    """A notebook whose first cell showed this."""
    book = notebook("1")
    book["cells"][-1] |= {"execution_count": 1, "outputs": outputs}
    if markdown:
        book["cells"].append({"cell_type": "markdown", "id": "more", "metadata": {}, "source": markdown})
    record.save("notebook.ipynb", json.dumps(book))


def _displayed(**data: str) -> dict[str, object]:
    return {"output_type": "display_data", "metadata": {}, "data": {k.replace("_", "/", 1): v for k, v in data.items()}}


_HARMLESS = {"class", "id", "href", "src", "alt", "lang", "aria-label", "open"}


class _Reader(HTMLParser):
    """Reads a page as a browser would: the tags, the attributes, the style sheets."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.styles = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, text: str) -> None:
        if self.lasttag == "style":
            self.styles += text


def assert_inert(page: str) -> None:
    """No script, no handler, and nothing that a browser would fetch."""
    seen = _Reader(page)
    assert not seen.tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "svg",
        "video",
        "audio",
        "input",
        "button",
    }
    for tag, name, value in seen.attributes:
        assert name in _HARMLESS or tag == "meta", (tag, name)
        assert name != "href" or value.startswith("#"), value
        assert name != "src" or value.startswith("data:image/"), value
        assert name != "http-equiv" or value == "Content-Security-Policy"
    assert "url(" not in seen.styles
    assert "@import" not in seen.styles


def test_a_report_references_nothing(record: archive.Record) -> None:
    fill(record)
    page = _page(record)
    assert_inert(page)
    assert "A plan waits for approval" in page
    assert "<span>What is left? 1 index is left.</span>" in page
    assert f"mend apply {record.run_id} --approve {a_plan().digest()}" in page


HOSTILE = [
    _displayed(text_html=f"<p>{EVIL}</p>"),
    _displayed(text_html='<img src="https://evil.example/x.png"><img src=x onerror=alert(1)>'),
    _displayed(text_html='<a href="javascript:alert(1)">x</a><a href="https://evil.example">y</a>'),
    _displayed(text_html='<div style="background:url(https://evil.example/x)" class="page-banner">z</div>'),
    _displayed(text_html="<style>@import url(https://evil.example)</style><style>p{background:url(https://e)}</style>"),
    _displayed(
        text_html='<svg onload=alert(1)><a xlink:href="javascript:alert(1)"></a></svg><iframe src="https://e"></iframe>'
    ),
    _displayed(
        text_html='<meta http-equiv="refresh" content="0;url=https://e"><base href="https://e"><form action="https://e">'
    ),
    _displayed(text_plain=EVIL),
    _displayed(application_javascript="alert(1)", text_plain="<Javascript>"),
    _displayed(image_png='"><script>alert(1)</script>', text_plain=EVIL),
    {"output_type": "stream", "name": "stdout", "text": EVIL},
    {"output_type": "error", "ename": EVIL, "evalue": EVIL, "traceback": [EVIL]},
]


@pytest.mark.parametrize("output", HOSTILE)
def test_hostile_output_stays_inert(record: archive.Record, output: dict[str, object]) -> None:
    _run(
        record,
        [output],
        markdown=f"## Act\n\n{EVIL} [x](javascript:alert(1)) [y](https://evil.example) ![z](https://evil.example/i.png)\n\n<img src=x onerror=alert(1)>",
    )
    page = _page(record)
    assert_inert(page)
    assert all("evil.example" not in value for _, _, value in _Reader(page).attributes)


def test_hostile_names_and_values_are_shown_as_they_are(record: archive.Record) -> None:
    check = Check("x", EVIL, "found", NAME, EVIL, pd.DataFrame({EVIL: [EVIL], "name": [NAME]}), f"select {EVIL}")
    fragment = show.check(check)
    assert EVIL not in fragment.html
    assert markup.escape(EVIL) in fragment.html
    assert markup.escape(NAME) in fragment.html
    record.journal.append("check", check.as_record())
    page = _page(record)
    assert EVIL not in page
    assert markup.escape(EVIL) in page


def test_a_run_without_a_notebook_is_told_from_its_journal(record: archive.Record) -> None:
    fill(record)
    (record.path / "notebook.ipynb").unlink()
    page = _page(record)
    assert "notebook of this run is missing" in page
    assert "What is left?" in page
    assert "drop index concurrently public.ix;" in page
    assert a_plan().digest() in page


@pytest.mark.parametrize("content", ["", "{", '{"cells": 3}', "[]"])
def test_a_notebook_that_cannot_be_read_is_no_obstacle(record: archive.Record, content: str) -> None:
    fill(record)
    record.save("notebook.ipynb", content)
    assert "notebook of this run is missing" in _page(record)


def test_a_run_that_broke_off_says_so_and_what_did_not_run(record: archive.Record) -> None:
    book = notebook("run.act()", "run.verify()")
    book["cells"][-2] |= {
        "execution_count": 1,
        "outputs": [
            {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": ["\x1b[31mboom\x1b[0m"]}
        ],
    }
    record.save("notebook.ipynb", json.dumps(book))
    record.journal.append("failed", {"error": "MendError", "message": "It broke. Nothing was changed.", "exit_code": 1})
    page = _page(record)
    assert 'class="page-banner bad"' in page
    assert "It broke. Nothing was changed." in page
    assert "KeyError: &#x27;x&#x27;" in page or "KeyError: 'x'" in page
    assert page.count("Not run.") == 1
    assert "\x1b" not in page


def test_our_fragments_survive_the_sanitizer(record: archive.Record) -> None:
    fragments = [show.plan(a_plan()), show.prevention([]), show.outcome("All well.", "completed")]
    _run(record, [_displayed(text_html=f.html) for f in fragments])
    page = _page(record)
    assert page.count("<style>") == 1
    for part in (
        'class="mend-badge mend-ok"',
        "<details><summary>How it is taken back</summary>",
        'class="mend-digest"',
        'class="mend-box mend-ok"',
    ):
        assert part in page


def test_sections_are_listed(record: archive.Record) -> None:
    _run(record, [], markdown="## Decide & act")
    assert re.findall(r'<li><a href="#([a-z-]+)">', _page(record)) == ["diagnose", "decide-act", "timeline"]


def test_pictures_of_the_page_itself_are_kept(record: archive.Record) -> None:
    _run(record, [_displayed(image_png="iVBORw0KGgo=\n", text_plain="<Figure>")])
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in _page(record)


def test_widgets_leave_no_text_of_their_state() -> None:
    book = cell("x", name="a") | {"execution_count": 1, "outputs": [_displayed(text_plain="Text(value='abc')") | {}]}
    book["outputs"][0]["data"]["application/vnd.jupyter.widget-view+json"] = {"model_id": "1"}
    assert "abc" not in tale._cell(book)
