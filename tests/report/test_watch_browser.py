"""A run watched in a real browser while it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from run_folders import curve, make_run

from raysweep.report.live import Follower, Server
from raysweep.results.run import read_results
from raysweep.store import Record, RunFolder
from raysweep.store.newest import Tail, write_newest

pytestmark = pytest.mark.slow
LONGEST = "Math.max(...raysweep.curves.series().map(({ values }) => values.filter((value) => value !== null).length))"
OPEN_PARTS = "[...document.querySelectorAll('#parts > details[open]')].map((part) => part.id)"


@dataclass
class Watched:
    """A page of a served run folder, and what it said."""

    page: Any
    server: Server
    folder: RunFolder
    said: list[str] = field(default_factory=list)

    def wait_for(self, condition: str, seconds: float) -> None:
        """Wait until a JavaScript expression is true; the page's policy forbids it to evaluate one itself."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"{condition}: {self.page.locator('#now').inner_text()} {self.said}"
            time.sleep(0.02)


@pytest.fixture
def watched(browser: Any, tmp_path: Path) -> Iterator[Watched]:
    follower = Follower(RunFolder(str(tmp_path / "runs"), "made"))
    with follower, Server(follower) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        watched = Watched(page, server, RunFolder(str(tmp_path / "runs"), "made"))
        page.on("console", lambda message: watched.said.append(message.text))
        page.on("pageerror", lambda error: watched.said.append(str(error)))
        yield watched
        page.context.close()
        server.shutdown()
        thread.join()


def running_after_three(record: Record, place: int) -> Record:
    return record.with_(status="running", metrics=record.metrics[:3]) if place == 0 else record.with_(status="planned")


def test_a_wrong_token_shows_nothing(watched: Watched) -> None:
    address = watched.server.address.replace(watched.server.token, "x" * len(watched.server.token))
    playwright = pytest.importorskip("playwright.sync_api")
    with pytest.raises(playwright.Error, match="ERR_HTTP_RESPONSE_CODE_FAILURE"):  # it shows a page of its own instead
        watched.page.goto(address)
    assert watched.page.locator("#now").count() == 0


def test_epochs_appear_without_a_reload_and_what_the_reader_chose_stays(watched: Watched, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = watched.page
    page.goto(watched.server.address)
    watched.wait_for("document.querySelector('#now .state').textContent === 'Waiting'", 2)
    make_run(tmp_path, epochs=12, end=running_after_three)
    (running,) = [record for record in read_results(watched.folder).trials if record.epoch]
    with watched.folder.lease():
        page.locator("#curve-chart").wait_for(timeout=10_000)  # another page, with the first report
        watched.wait_for(f"{LONGEST} === 3", 5)
        page.evaluate("window.isTheSame = true")
        page.locator("#top a.rank").first.click()
        page.locator("#search").fill("lr=0.5")
        page.locator("#explore").evaluate("(element) => element.scrollIntoView()")
        before = page.locator("#explore").bounding_box()["y"], page.evaluate(OPEN_PARTS)
        for epochs in (4, 5):
            write_newest(watched.folder, {running.id: Tail.of("running", curve(12, 0.5, 0)[:epochs], 4)})
            watched.wait_for(f"document.querySelector('#now tbody').textContent.includes('{epochs} of 12')", 2)
            watched.wait_for(f"{LONGEST} === {epochs}", 5)
        assert page.evaluate("window.isTheSame")
        assert len(before[1]) == 1
        assert (page.locator("#explore").bounding_box()["y"], page.evaluate(OPEN_PARTS)) == before
        assert page.locator("#search").input_value() == "lr=0.5"
        assert page.evaluate("document.activeElement.id") == "search"
        assert page.locator("#trials tbody tr").count() == 4
        page.get_by_label("lr: least").focus()
        write_newest(watched.folder, {running.id: Tail.of("running", curve(12, 0.5, 0)[:6], 4)})
        watched.wait_for(f"{LONGEST} === 6", 5)
        assert page.evaluate("document.activeElement.ariaLabel") == "lr: least", "the keyboard keeps its place"
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    watched.wait_for("document.querySelector('#now .state').textContent === 'Not running'", 3)
    assert watched.said == []
