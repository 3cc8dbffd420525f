"""In Debian's Chromium: the report asks the network for nothing, and a runbook in JupyterLab mends by hand what it mends headless."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fix_record import fill
from mend import lab
from mend.record import archive, report

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
ASKS_ABROAD = '<img src="https://evil.example/i.png"><script src="https://evil.example/s.js"></script><p style="background:url(https://evil.example/b)">x</p>'
RUN_ALL = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.ready; await panel.sessionContext.ready;
    await jupyterapp.commands.execute('notebook:run-all-cells');
    return panel.content.model.sharedModel.cells.flatMap(cell => cell.getOutputs?.() ?? [])
        .filter(output => output.output_type === 'error').map(output => output.evalue);
}"""
RUN_FROM = """async (source) => {
    const notebook = jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.sharedModel.getSource() === source);
    await jupyterapp.commands.execute('notebook:run-all-below');
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser.  Without one these tests are skipped on a laptop, and fail in CI."""
    path = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    if path is None:
        text = f"No Chromium at {CHROMIUM}. Install it: apt-get install --no-install-recommends chromium"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()


def _opened(chromium: Any, path: Path) -> tuple[Any, list[str]]:
    """A page, and the addresses that it asked for besides itself."""
    page = chromium.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    return page, asked[1:]


def test_the_report_asks_the_network_for_nothing(chromium: Any, ended: archive.Record) -> None:
    page, asked = _opened(chromium, ended.path / "report.html")
    assert asked == []
    assert page.locator("h1").inner_text() == "A small runbook"
    assert page.locator(".page-banner .big").inner_text() == "A plan waits for approval"
    assert page.evaluate("document.scripts.length") == 0
    page.close()


def test_hostile_output_does_nothing_in_a_real_browser(chromium: Any, record: archive.Record) -> None:
    fill(record)
    book = json.loads((record.path / "notebook.ipynb").read_text())
    hostile = ASKS_ABROAD + "<img src=x onerror=\"document.title='owned'\">"
    book["cells"][-1] |= {
        "execution_count": 1,
        "outputs": [{"output_type": "display_data", "metadata": {}, "data": {"text/html": hostile}}],
    }
    record.save("notebook.ipynb", json.dumps(book))
    path = record.save("report.html", report.page(record, record.path / "notebook.ipynb"))
    page, asked = _opened(chromium, path)
    assert asked == []
    assert page.title().startswith("small: planned")
    page.close()


def test_on_paper_nothing_is_folded_away(chromium: Any, ended: archive.Record, tmp_path: Path) -> None:
    (ended.path / "notebook.ipynb").unlink()
    path = ended.save("report.html", report.page(ended, ended.path / "notebook.ipynb"))
    page, _ = _opened(chromium, path)
    folded = page.locator("details pre", has_text="create index ix").first
    assert not folded.is_visible()
    page.emulate_media(media="print")
    assert folded.is_visible()
    assert page.get_by_role("cell", name="public.ix", exact=True).first.is_visible()
    assert not page.locator("nav").is_visible()
    page.close()


@pytest.fixture
def jupyterlab(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``mend open`` on a fresh lab incident: its address and its process."""
    lab.start("failed_migration", rows=1000)
    config = tmp_path / "jupyter"
    config.mkdir()
    (config / "jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    environ = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, "-m", "mend", "open", "failed_migration"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environ | {"JUPYTER_CONFIG_DIR": str(config), "HOME": str(tmp_path)},
    )
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+/\S+", line):
            break
    else:
        pytest.fail(f"mend open ended with {process.wait()}")
    yield found[0], process
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    process.stdout.close()


@pytest.mark.timeout(240)
def test_an_incident_is_mended_by_hand(
    chromium: Any, jupyterlab: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    url, process = jupyterlab
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(90_000)
    _goto(page, url)
    page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 20")
    assert page.evaluate(RUN_ALL) == []
    name, button = page.locator(".mend-approval-name input"), page.locator("button.mend-approval-apply")
    name.wait_for(state="attached")
    name.scroll_into_view_if_needed()
    page.get_by_text("Which operations of the failed revision are done?").first.wait_for(state="attached")
    assert button.is_disabled()
    name.fill("sho")
    assert button.is_disabled()
    name.fill("shop")
    playwright.expect(button).to_be_enabled()
    button.click()
    page.locator(".mend-approval-result", has_text="Applied").wait_for(state="attached")
    page.screenshot(path=tmp_path / "applied.png")
    page.evaluate(RUN_FROM, "run.verify()")
    page.locator(".jp-OutputArea", has_text="Done and verified").first.wait_for(state="attached")
    page.screenshot(path=tmp_path / "verified.png")
    record = archive.runs()[0]
    _until_whole(record)
    assert record.outcome == "completed"
    assert [e.payload["how"] for e in record.journal.of("approved")] == ["typed"]
    assert "Done and verified" in (record.path / "report.html").read_text()
    page.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def _goto(page: Any, url: str) -> None:
    """JupyterLab prints nothing when it is up; ask until it is."""
    deadline = time.monotonic() + 60
    while True:
        try:
            page.goto(url)
            return
        except playwright.Error:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.3)


def _until_whole(record: archive.Record) -> None:
    deadline = time.monotonic() + 30
    while (verdict := archive.verify(record)).state != "whole":
        assert time.monotonic() < deadline, verdict
        time.sleep(0.2)
