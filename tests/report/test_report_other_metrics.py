"""The report of runs whose loops report other metrics than the built-in one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from run_folders import OTHER_SWEEP, make_run

from raysweep.report import write_report
from raysweep.report.content import Report, gather
from raysweep.report.data import page_data
from raysweep.report.families import ends_of
from raysweep.report.first import draw_leaders
from raysweep.report.pictures import MOST_PANELS, draw
from raysweep.report.svg import score_scale
from raysweep.report.winner import draw_tuning
from raysweep.results.ranking import rank
from raysweep.results.run import SweepResult, open_run
from raysweep.store import Record
from raysweep.terminal import Metric, significant

ERROR = Metric("val_mse", percent=False)
RANDOM = """
name: {name}
loop: regression
base: {{epochs: {epochs}}}
random: {{samples: 24, lr: {{log_uniform: [0.01, 0.5]}}, width: {{choice: [8, 16]}}}}
"""


def reported(folder: Path, loop: str, text: str = OTHER_SWEEP, **options: Any) -> Report:
    make_run(folder, name=loop, text=text.replace("LOOP", loop), **options)
    return gather(open_run(str(folder / "runs" / loop)))


def test_a_metric_without_training_twin_has_one_picture_on_a_log_scale_where_it_spans_decades(tmp_path: Path) -> None:
    report = reported(tmp_path, "regression")
    document, pictures = page_data(report), draw(report)
    (picture,) = document["pictures"]
    assert (picture["name"], picture["percent"], picture["log"], picture["marked"]) == ("mse", False, True, True)
    assert picture["words"] == {"val": "validation"}
    assert set(picture["lines"]) == {"val"}
    assert (document["best"], document["percent"], document["log"]) == ("low", False, True)
    assert [chart.name for chart in pictures.curves] == ["mse"]
    assert "log scale" in pictures.leaders[0].title


@pytest.mark.parametrize(
    ("loop", "names"),
    [("wandb_style", ["acc", "loss"]), ("hugging_face", ["loss", "learning_rate", "grad_norm"])],
)
def test_every_metric_has_a_picture_and_training_stands_beside_validation(
    loop: str, names: list[str], tmp_path: Path
) -> None:
    report = reported(tmp_path, loop)
    found = {picture["name"]: picture for picture in page_data(report)["pictures"]}
    assert list(found) == names
    assert set(found["loss"]["lines"]) == {"train", "val"}
    write_report(report.result)
    told = (tmp_path / "runs" / loop / "report.md").read_text()
    files = re.findall(r"\]\(report/(\w+)\.svg\)", told)
    assert set(files) >= {{"acc": "accuracy"}.get(name, name) for name in names if name != "grad_norm"}


def test_findings_of_an_accuracy_are_those_of_the_built_in_loop_whatever_it_is_called_and_counts_to(
    tmp_path: Path,
) -> None:
    make_run(tmp_path, "classic")
    built_in, other = gather(open_run(f"{tmp_path}/runs/classic")), reported(tmp_path, "wandb_style")

    def kinds(report: Report) -> list[tuple[str, str, list[str]]]:
        rows = sorted(report.rows, key=lambda row: (row.settings["lr"], row.settings["augment"], row.record.seed))
        dips = [[text.partition("; likely")[0] for text in row.findings if "dip" in text] for row in rows]
        return [(row.settings["lr"], row.settings["augment"], found) for row, found in zip(rows, dips, strict=True)]

    assert kinds(built_in) == kinds(other)
    assert any(found for _, _, found in kinds(other))


def test_the_best_of_a_loss_is_at_the_top_of_the_parallel_coordinates_and_at_the_bottom_of_its_curves(
    tmp_path: Path,
) -> None:
    report = reported(tmp_path, "regression")
    (chart,) = draw(report).parallel
    ends = {}
    for group in chart.root.iter("g"):
        line = group.find("polyline")
        if line is not None:
            ends[int(group.attrib["data-trial"])] = float(line.attrib["points"].split(",")[-1])
    assert min(ends, key=ends.__getitem__) == 0, "trial 0 is the best"
    scale = score_scale([1.0, 2.0, 300.0], 100, 0, ERROR, maximize=False)
    assert scale.nearest(1.0) > scale.nearest(2.0), "curves fall"


def test_a_loss_that_blew_up_does_not_flatten_the_others_and_neither_does_a_reward_that_did() -> None:
    scores = [1 + place / 100 for place in range(40)]
    assert score_scale([*scores, 1e9], 0, 1, ERROR, maximize=False).high < 2
    assert score_scale([*(-score for score in scores), -1e9], 0, 1, ERROR, maximize=True).low > -2
    low, high = ends_of(np.array([*(-score for score in scores), -1e9]))
    assert -5 < low < high < 0


def test_the_best_of_so_many_errors_goes_down_and_never_below_zero(tmp_path: Path) -> None:
    report = reported(tmp_path, "regression", text=RANDOM)
    (chart,) = draw_tuning(report)
    lines = [polyline.attrib["points"] for polyline in chart.root.iter("polyline")]
    heights = [[float(point.split(",")[1]) for point in line.split()] for line in lines]
    assert all(line == sorted(line) for line in heights), "fewer errors are further down"
    ticks = [element.text for element in chart.root.iter("text") if element.text and element.text[0] in "-0123456789"]
    assert not any(tick.startswith("-") for tick in ticks)


def test_of_a_hundred_metrics_the_first_are_drawn_and_the_page_has_all(tmp_path: Path) -> None:
    def many(record: Record, place: int) -> Record:
        return record.with_(metrics=[{**row, **{f"iou/{n}": 0.5 for n in range(100)}} for row in record.metrics])

    report = reported(tmp_path, "regression", end=many)
    pictures = draw(report)
    assert len(pictures.curves) == MOST_PANELS
    assert pictures.curves[0].name == "mse"
    assert f"Of 101 metrics the first {MOST_PANELS} are drawn" in pictures.left_out
    assert len(page_data(report)["pictures"]) == 101
    assert all(ET.fromstring(chart.to_string()) is not None for chart in pictures.curves)


def test_a_setting_that_is_called_as_the_metric_has_a_column_of_its_own(tmp_path: Path) -> None:
    result = reported(tmp_path, "regression").result
    report = gather(result)
    assert report.score_name == "val_mse"
    renamed = [
        record.with_(axes={**record.axes, "val_mse": place % 2}, config={**record.config, "val_mse": place % 2})
        for place, record in enumerate(result.trials)
    ]
    clashing = SweepResult(
        result.name, result.path, result.objective, rank(renamed, result.objective), result.folder, result.resolved
    )
    document = page_data(gather(clashing))
    assert document["score"] == "best val_mse"
    texts = {column["name"]: column["texts"] for column in document["columns"]}
    assert set(texts["val_mse"]) == {"0", "1"}
    best = clashing.trials[0].best
    assert best
    assert texts["best val_mse"][0] == significant(best.score)


@pytest.mark.slow
def test_the_page_turns_the_axis_of_an_error_and_writes_its_numbers_as_the_terminal_does(
    browser: Any, tmp_path: Path
) -> None:
    result = reported(tmp_path, "regression").result
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{write_report(result)}")
    assert [text.strip() for text in page.locator("#kinds label:visible").all_inner_texts()] == ["validation"]
    assert page.locator("#log").is_checked()
    page.locator("#curve-chart").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    value = result.trials[0].metrics[4]["val_mse"]
    assert page.locator("#readout").inner_text().endswith(f"epoch 5: mse {significant(float(f'{value:.4g}'))}")
    ticks = page.locator("#parallel .brush").last.locator(".tick")
    places = {float(tick.inner_text()): tick.bounding_box()["y"] for tick in ticks.all()}
    assert len(places) > 1
    assert sorted(places, key=places.__getitem__) == sorted(places), "the least error is at the top"
    assert said == []
    page.close()


def test_the_ranks_of_leaders_that_are_close_at_the_bottom_stay_inside_the_picture(tmp_path: Path) -> None:
    (chart,) = draw_leaders(reported(tmp_path, "regression", text=RANDOM))
    ranks = [element for element in chart.root.iter("text") if element.attrib["class"].startswith("rank")]
    places = [float(element.attrib["y"]) for element in ranks]
    assert len(places) == 8
    assert all(0 < place < chart.height for place in places)
    assert min(abs(a - b) for a in places for b in places if a != b) >= 10
