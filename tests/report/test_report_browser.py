"""The report in a real browser: Chromium, headless, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from run_folders import SWEEP, add_mistakes, hostile, make_run, mixed

from raysweep.report import write_report
from raysweep.results.ranking import rank
from raysweep.results.run import SweepResult, open_run
from raysweep.store import Record, RunFolder

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.slow
WIDTHS = (390, 768, 1440)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and what it said and asked for."""

    page: Any
    url: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def open_page(browser: Any, result: SweepResult, width: int = 1440, scheme: str = "light") -> Opened:
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True).new_page()
    opened = Opened(page, f"file://{write_report(result)}")
    page.on("console", lambda message: opened.said.append(message.text))
    page.on("pageerror", lambda error: opened.said.append(str(error)))
    page.on("dialog", lambda dialog: opened.said.append(dialog.message))
    page.on("request", lambda request: opened.asked.append(request.url))
    page.goto(opened.url)
    return opened


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    folder = tmp_path_factory.mktemp("report")
    make_run(folder, scheduler="{name: asha, rungs: [1/9, 1/3], min_survivors: 2}", end=mixed)
    add_mistakes(RunFolder(str(folder / "runs"), "made"), [f"class {number}" for number in range(20)])
    return open_run(str(folder / "runs" / "made"))


@pytest.fixture(scope="module")
def opened(browser: Any, result: SweepResult) -> Opened:
    return open_page(browser, result)


@pytest.fixture
def page(opened: Opened) -> Any:
    opened.page.reload()
    opened.page.locator("#seeds > summary").click()
    return opened.page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_offline_without_a_message_a_request_an_overflow_or_a_barrier(
    browser: Any, result: SweepResult, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = open_page(browser, result, width, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(opened.page)
    assert found.violations_count == 0, found.generate_report()
    assert opened.said == []
    assert opened.asked == [opened.url]
    opened.page.context.close()


def test_every_curve_is_there_with_every_epoch(page: Any, result: SweepResult) -> None:
    begun = [record for record in result.trials if record.epoch]
    for name in ("accuracy", "lr", "gradient"):
        groups = page.eval_on_selector_all(
            f".chart.{name} g.trial",
            "groups => groups.map(g => [...g.querySelectorAll('polyline.val')]"
            ".map(line => line.getAttribute('points').split(' ').length).reduce((a, b) => a + b, 0))",
        )
        finite = [sum(row["val_acc"] == row["val_acc"] for row in record.metrics) for record in begun]
        assert sorted(groups) == sorted(finite if name == "accuracy" else [record.epoch for record in begun])


def test_every_picture_of_a_mistake_is_seen(page: Any) -> None:
    images = page.locator("section[aria-labelledby='mistakes'] img")
    assert images.count() >= 16
    assert images.evaluate_all("images => images.every(image => image.naturalWidth === 8 && image.alt)")


def cells(page: Any, name: str) -> list[str]:
    names = [text.strip() for text in page.locator("#trials thead th").all_inner_texts()]
    texts: list[str] = page.locator(f"#trials tbody tr:visible > :nth-child({names.index(name) + 1})").all_inner_texts()
    return texts


def test_headers_sort_up_and_down_with_empty_cells_last(page: Any) -> None:
    head = page.locator("#trials thead th", has_text="val_acc")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = cells(page, "val_acc")
    numbers = [float(text.removesuffix(" %")) for text in values if text != "-"]
    assert numbers == sorted(numbers)
    assert values[len(numbers) :] == ["-"] * (len(values) - len(numbers)) != []
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    values = cells(page, "val_acc")
    assert [float(text.removesuffix(" %")) for text in values[: len(numbers)]] == numbers[::-1]
    assert values[-1] == "-"


def test_filters_hide_rows_and_their_curves(page: Any) -> None:
    group = page.locator("fieldset[data-name='lr']")
    for lr in ("0.1", "0.5"):
        group.get_by_label(lr, exact=True).uncheck()
    assert set(cells(page, "lr")) == {"0.01"}
    assert page.locator("#shown").inner_text() == "4 of 12 trials shown"
    assert page.locator(".chart.accuracy g.trial:not(.gone)").count() == 4
    page.locator("#search").fill("medium lr0.01")
    assert page.locator("#shown").inner_text() == "2 of 12 trials shown"
    page.locator("#search").fill("no such trial")
    assert cells(page, "lr") == []
    page.locator("#reset").click()
    assert page.locator("#shown").inner_text() == "12 of 12 trials shown"
    assert page.locator(".chart.accuracy g.trial.gone").count() == 0


def test_training_and_averaged_curves_can_be_shown_and_hidden(page: Any) -> None:
    for kind in ("train", "averaged"):
        lines = page.locator(f".chart.accuracy polyline.{kind}")
        box = page.locator(f"#kinds input[value={kind}]")
        box.check()
        assert lines.first.is_visible()
        box.uncheck()
        assert not lines.first.is_visible()


def test_pointing_at_a_curve_tells_trial_epoch_and_value(page: Any, result: SweepResult) -> None:
    best = result.trials[0]
    page.locator("#kinds input[value=train]").uncheck()
    place = page.evaluate(
        """number => {
            const chart = document.querySelector('.chart.accuracy'), box = chart.getBoundingClientRect();
            chart.scrollIntoView({block: 'center'});
            const line = chart.querySelector(`g.trial[data-trial="${number}"] polyline.val`);
            const [x, y] = line.getAttribute('points').split(' ')[19].split(',').map(Number);
            const now = chart.getBoundingClientRect(), scale = now.width / chart.viewBox.baseVal.width;
            return [now.left + x * scale, now.top + y * scale];
        }""",
        0,
    )
    page.mouse.move(*place)
    text = page.locator("#tip").inner_text()
    assert text.startswith(f"{best.id}, epoch 20: accuracy ")
    told = float(text.rpartition("accuracy ")[2].removesuffix(" %"))
    assert told == pytest.approx(100 * best.metrics[19]["val_acc"], abs=0.02)


def test_curves_are_read_off_with_the_keyboard(page: Any, result: SweepResult) -> None:
    page.locator(".chart.accuracy").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    text = page.locator("#readout").inner_text()
    assert text.startswith(f"{result.trials[0].id}, epoch 5: accuracy ")
    page.keyboard.press("ArrowDown")
    assert page.locator("#readout").inner_text().startswith(f"{result.trials[1].id}, epoch 5: accuracy ")
    page.keyboard.press("End")
    assert "epoch 30" in page.locator("#readout").inner_text()


def test_a_row_puts_its_curves_in_the_light(page: Any) -> None:
    button = page.locator("#trials tbody th button").nth(2)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".chart.accuracy g.trial.on").count() == 1
    button.click()
    assert page.locator("g.trial.on").count() == 0


def test_a_rank_leads_to_the_trial_with_its_config_and_an_address_opens_it(
    browser: Any, page: Any, result: SweepResult
) -> None:
    best, failed = result.trials[0], next(record for record in result.trials if record.status == "failed")
    page.locator("#top a.rank").first.click()
    part = page.locator("details.part[open]")
    assert part.locator(".id").inner_text() == best.id
    assert "weight_decay" in part.locator("pre").first.text_content()
    page.goto(f"{page.url.partition('#')[0]}#trial={failed.id}")
    page.reload()
    assert "X: broke" in page.locator("details.part[open] .error").inner_text()
    page.goto(page.url.partition("#")[0])


def test_findings_are_grouped_by_kind_and_lead_to_the_trials(page: Any, result: SweepResult) -> None:
    group = page.locator("section[aria-labelledby='findings'] > details", has=page.locator("summary", has_text="dip"))
    assert group.count() == 1
    group.locator("summary").click()
    link = group.locator("li a").first
    id = link.get_attribute("href").removeprefix("#trial=")
    link.click()
    assert page.locator("details.part[open] .id").inner_text() == id
    page.goto(page.url.partition("#")[0])


def test_colours_follow_the_chosen_setting(page: Any) -> None:
    page.locator("#colour").select_option("augment")
    assert page.locator("#colours li").all_inner_texts() == ["medium", "none"]
    classes = page.eval_on_selector_all(".chart.accuracy g.trial", "groups => groups.map(g => g.getAttribute('class'))")
    assert {word for names in classes for word in names.split() if word.startswith("c")} == {"c0", "c1"}


def test_on_paper_controls_are_gone_and_nothing_is_cut_off(page: Any) -> None:
    page.set_viewport_size({"width": 794, "height": 1123})  # A4
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 1, "what was open before"
    assert not page.locator(".controls").is_visible()
    assert page.locator("#trials").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
    page.emulate_media(media="screen", color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})


def test_hostile_text_runs_nothing(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, end=hostile, text=SWEEP.replace("Does lr", "<script>alert(3)</script> Does lr"))
    opened = open_page(browser, open_run(str(tmp_path / "runs/made")))
    assert opened.page.locator("#trials tbody tr").count() == 12
    opened.page.locator("#colour").select_option("augment")
    opened.page.locator("#search").fill("<script>")
    assert opened.said == []
    assert opened.asked == [opened.url]
    assert opened.page.evaluate("document.scripts.length") == 1
    opened.page.context.close()


@pytest.mark.timeout(900)
def test_five_thousand_trials_open_and_filter(browser: Any, result: SweepResult) -> None:
    pattern = [record for record in result.trials if record.status == "finished"]

    def copy(i: int) -> Record:
        record, lr = pattern[i % len(pattern)], 1 / (i + 2)
        return record.with_(id=f"trial{i}", axes={"lr": lr}, config={**record.config, "lr": lr})

    trials = [copy(i) for i in range(5000)]
    plan = {"sweep": result.resolved["sweep"], "trials": [{"id": record.id} for record in trials]}
    many = SweepResult("many", result.path, result.objective, rank(trials, result.objective), result.folder, plan)
    opened = open_page(browser, many)
    assert opened.said == []
    assert "the other 4800 are in results.parquet" in opened.page.locator("main").inner_text()
    opened.page.locator("#search").fill("trial4321")
    assert opened.page.locator("#shown").inner_text() == "1 of 5000 trials shown"
    size = Path(opened.url.removeprefix("file://")).stat().st_size
    assert size < 16e6
    opened.page.context.close()
