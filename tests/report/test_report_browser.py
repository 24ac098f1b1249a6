"""The report in a real browser: Chromium, headless, driven by playwright."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from run_folders import SWEEP, add_mistakes, hostile, make_run, mixed

from raysweep.report import write_report
from raysweep.results.ranking import rank
from raysweep.results.run import SweepResult, open_run
from raysweep.store import Record, RunFolder

pytestmark = pytest.mark.slow
WIDTHS = (390, 768, 1440)
SLOWER = 3
"""How much slower a machine that runs tests beside this one may be than the budgets of docs/page.md."""


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
    opened.page.goto("about:blank")  # so that no trial stays open by the address
    opened.page.goto(opened.url)
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


def series(page: Any, of: str = "val") -> dict[str, list[float]]:
    """Return the curves that the large chart draws, by trial."""
    script = """kind => Object.fromEntries(raysweep.curves.series().filter(line => line.kind === kind)
        .map(line => [line.trial, line.values]))"""
    found: dict[str, list[float]] = page.evaluate(script, of)
    return found


def choose(page: Any, metric: str, kind: str = "val") -> None:
    page.locator("#metric").select_option(metric)
    page.locator(f"#kinds input[value={kind}]").check()
    for box in page.locator(f"#kinds input:not([value={kind}])").all():
        if box.is_visible():
            box.uncheck()


def test_every_curve_is_there_with_every_epoch(page: Any, result: SweepResult) -> None:
    for picture, metric in (("acc", "val_acc"), ("loss", "val_loss"), ("lr", "lr"), ("grad_norm_max", "grad_norm_max")):
        choose(page, picture)
        drawn = series(page)
        for place, record in enumerate(result.trials):
            expected = [row[metric] if math.isfinite(row[metric]) else None for row in record.metrics]
            if any(value is not None for value in expected):
                assert drawn[str(place)] == [value and pytest.approx(value, rel=1e-3) for value in expected]
            else:
                assert str(place) not in drawn


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


def test_search_finds_words_and_whole_values_in_rows_and_curves(page: Any) -> None:
    choose(page, "acc")
    everything = len(series(page))
    page.locator("#search").fill("lr=0.01")
    assert set(cells(page, "lr")) == {"0.01"}
    assert page.locator("#shown").inner_text() == "4 of 12 trials"
    page.locator("#search").fill("medium lr=0.01")
    assert page.locator("#shown").inner_text() == "2 of 12 trials"
    assert len(series(page)) == 2
    page.locator("#search").fill("no such trial")
    assert cells(page, "lr") == []
    page.locator("#reset").click()
    assert page.locator("#shown").inner_text() == "12 of 12 trials"
    assert len(series(page)) == everything


def test_an_axis_is_brushed_by_its_sliders_and_by_dragging_and_a_double_click_takes_it_back(page: Any) -> None:
    axis = page.get_by_role("group", name="lr", exact=True)
    axis.get_by_label("lr: least").focus()
    page.keyboard.press("ArrowUp")
    assert set(cells(page, "lr")) == {"0.1", "0.5"}
    assert axis.get_by_label("lr: least").get_attribute("aria-valuetext") == "0.1"
    page.keyboard.press("ArrowUp")
    assert set(cells(page, "lr")) == {"0.5"}
    axis.dblclick(position={"x": 22, "y": 150})
    assert set(cells(page, "lr")) == {"0.01", "0.1", "0.5"}
    box = axis.bounding_box()
    page.mouse.move(box["x"] + 22, box["y"] + 250)
    page.mouse.down()
    page.mouse.move(box["x"] + 22, box["y"] + 120, steps=4)
    page.mouse.up()
    assert set(cells(page, "lr")) == {"0.1"}, "the middle of the axis"
    assert page.locator("#shown").inner_text() == "4 of 12 trials"


def test_training_and_averaged_curves_can_be_shown_and_hidden(page: Any) -> None:
    for kind in ("train", "averaged"):
        choose(page, "acc", kind)
        assert series(page, kind)
        assert not series(page, "val")


def test_smoothing_is_an_average_whose_weights_sum_to_one_and_log_scale_is_log(page: Any, result: SweepResult) -> None:
    choose(page, "loss")
    raw = series(page)["0"]
    page.locator("#smoothing").fill("0.5")
    weights = [0.5 * 0.5 ** (2 - place) for place in range(3)]
    expected = sum(weight * value for weight, value in zip(weights, raw, strict=False)) / sum(weights)
    assert series(page)["0"][2] == pytest.approx(expected)
    assert page.locator("#log").is_checked(), "a loss is drawn so unless told otherwise"


def test_dragging_zooms_in_and_a_double_click_shows_the_whole_again(page: Any) -> None:
    choose(page, "acc")
    chart = page.locator("#curve-chart .u-over")
    chart.scroll_into_view_if_needed()
    whole = page.evaluate("raysweep.curves.scale('x')")
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 200, steps=4)
    page.mouse.up()
    low, high = page.evaluate("raysweep.curves.scale('x')")
    assert (low, high) == (pytest.approx(15.5, abs=0.5), pytest.approx(22.75, abs=0.5))
    page.locator("#search").fill("lr=0.01")
    assert page.evaluate("raysweep.curves.scale('x')") == [low, high], "what is zoomed stays so"
    chart.dblclick()
    assert page.evaluate("raysweep.curves.scale('x')") == whole
    page.locator("#curve-chart").focus()
    page.keyboard.press("+")
    assert page.evaluate("raysweep.curves.scale('x')")[0] > whole[0]
    page.keyboard.press("0")
    assert page.evaluate("raysweep.curves.scale('x')") == whole


def test_pointing_at_a_curve_tells_trial_epoch_and_value(page: Any, result: SweepResult) -> None:
    choose(page, "acc")
    page.locator("#curve-chart").scroll_into_view_if_needed()
    value = result.trials[0].metrics[19]["val_acc"]
    page.mouse.move(*page.evaluate("value => raysweep.curves.position(20, value)", value))
    text = page.locator("#tip").inner_text()
    assert text.startswith("augment none, lr 0.01, seed ")
    assert ", epoch 20: acc " in text
    assert float(text.rpartition("acc ")[2].removesuffix(" %")) == pytest.approx(100 * value, abs=0.02)


def test_curves_are_read_off_with_the_keyboard(page: Any, result: SweepResult) -> None:
    choose(page, "acc")
    page.locator("#curve-chart").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    first = page.locator("#readout").inner_text()
    assert f", epoch 5: acc {100 * result.trials[0].metrics[4]['val_acc']:.2f} %" in first
    page.keyboard.press("ArrowDown")
    assert f"epoch 5: acc {100 * result.trials[1].metrics[4]['val_acc']:.2f} %" in page.locator("#readout").inner_text()
    page.keyboard.press("End")
    assert "epoch 30" in page.locator("#readout").inner_text()


def test_a_row_puts_its_curves_in_the_light(page: Any) -> None:
    button = page.locator("#trials tbody th button").nth(2)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".chart.rungs g.trial.on").count() == 1
    assert page.locator("#trials tr.on").count() == 1
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


def test_findings_are_grouped_by_kind_and_lead_to_the_trials(page: Any, result: SweepResult) -> None:
    group = page.locator("section[aria-labelledby='findings'] > details", has=page.locator("summary", has_text="dip"))
    assert group.count() == 1
    group.locator("summary").click()
    link = group.locator("li a").first
    id = link.get_attribute("href").removeprefix("#trial=")
    link.click()
    assert page.locator("details.part[open] .id").inner_text() == id


def test_colours_follow_the_chosen_setting(page: Any) -> None:
    page.locator("#colour").select_option("augment")
    assert page.locator("#colours li").all_inner_texts() == ["medium", "none"]
    colours = page.evaluate("Object.fromEntries(raysweep.curves.series().map(line => [line.trial, line.colour]))")
    trials = page.locator("#trials tbody tr").evaluate_all("rows => rows.map(row => row.dataset.trial)")
    augments = dict(zip(trials, cells(page, "augment"), strict=True))
    by_value = {(augments[trial], colour) for trial, colour in colours.items()}
    assert len(by_value) == len({colour for _, colour in by_value}) == 2


def test_colours_by_rank_are_those_of_the_page_as_it_came(page: Any) -> None:
    dots = "[...document.querySelectorAll('main svg .trial')].map(dot => getComputedStyle(dot).color)"
    before = page.evaluate(dots)
    page.locator("#colour").select_option("score")
    assert page.evaluate(dots) != before
    page.locator("#colour").select_option("rank")
    assert page.evaluate(dots) == before


def test_a_whole_value_is_found_as_in_the_csv_and_by_its_whole_key(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, text=SWEEP.replace("lr: [0.5, 0.1, 0.01]", "optimizer.weight_decay: [0.0123456, 0.5]"))
    opened = open_page(browser, open_run(str(tmp_path / "runs/made")))
    assert "0.0123" in opened.page.locator("#top").inner_text()
    for words in ("weight_decay=0.0123", "optimizer.weight_decay=0.0123456"):
        opened.page.locator("#search").fill(words)
        assert opened.page.locator("#shown").inner_text() == "4 of 8 trials", words
    opened.page.locator("#search").fill("weight_decay=7")
    assert opened.page.locator("#shown").inner_text().startswith("0 of 8 trials: a row has words or values such as ")
    opened.page.context.close()


def test_an_address_that_was_cut_off_leaves_the_page_whole(browser: Any, opened: Opened) -> None:
    page = browser.new_page()
    page.goto(f"{opened.url}#100%")
    assert page.evaluate("typeof raysweep.update") == "function"
    page.close()


def test_an_opened_trial_shows_its_curves(page: Any) -> None:
    page.locator("#top a.rank").first.click()
    part = page.locator("details.part[open]")
    part.locator(".u-over").nth(1).wait_for()
    assert part.locator("figcaption").first.inner_text().startswith("acc: validation")


def test_on_paper_controls_are_gone_and_nothing_is_cut_off(page: Any) -> None:
    page.set_viewport_size({"width": 794, "height": 1123})  # A4
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 1, "what was open before"
    assert not page.locator(".controls").first.is_visible()
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
    assert opened.page.evaluate("document.scripts.length") == 2, "the document and ours"
    opened.page.context.close()


def test_a_page_of_a_hundred_trials_is_small_and_soon_answers(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, epochs=70, text=SWEEP.replace("seeds: [0, 1]", f"seeds: {list(range(17))}"))
    result = open_run(str(tmp_path / "runs/made"))
    assert len(result.trials) == 102
    opened = open_page(browser, result)
    assert Path(opened.url.removeprefix("file://")).stat().st_size < 1.5e6
    interactive = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    assert opened.page.evaluate(interactive) < 1000 * SLOWER
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
    page = opened.page
    assert opened.said == []
    left_out = "4800 of the shown trials have no curve here: it draws the best 200 that have this metric."
    assert page.locator("#left-out").inner_text() == left_out
    assert page.locator("#trials tbody tr").count() < 300, "the rows in sight"
    took = page.evaluate(
        """async () => {
            const search = document.querySelector('#search'), begun = performance.now();
            search.value = 'trial4321';
            search.dispatchEvent(new Event('input'));
            await new Promise(requestAnimationFrame); // comes before it is painted, the next after
            await new Promise(requestAnimationFrame);
            return performance.now() - begun;
        }"""
    )
    assert took < 200 * SLOWER
    assert page.locator("#shown").inner_text() == "1 of 5000 trials"
    page.locator("#trials a.rank").click()
    part = page.locator("details.part[open]")
    assert part.locator(".id").inner_text() == "trial4321"
    assert "weight_decay" in part.locator("pre").first.text_content()
    page.locator("#reset").click()
    scroll = page.locator("[aria-label='Table of the ranking']")
    scroll.evaluate("element => { element.scrollTop = element.scrollHeight; }")
    page.locator("#trials tbody tr[data-trial='4999']").wait_for()
    assert Path(opened.url.removeprefix("file://")).stat().st_size < 16e6
    opened.page.context.close()
