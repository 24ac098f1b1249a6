"""The report: its words, its table, its Markdown, and what of it can be told without a browser."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow.parquet as pq
import pytest
from run_folders import HTML, METRICS, SWEEP, hostile, make_run, mixed, scoring
from running import Command

import raysweep.report.markdown as markdown_module
import raysweep.report.pictures as pictures_module
from raysweep.cli import main
from raysweep.report import write_report
from raysweep.report.content import Report, gather
from raysweep.report.data import page_data
from raysweep.report.first import top_of
from raysweep.report.importance import importance_of
from raysweep.report.markdown import as_markdown
from raysweep.report.page import as_html
from raysweep.report.pictures import draw
from raysweep.report.svg import Scale, points
from raysweep.report.table import as_csv
from raysweep.results.ranking import standings, trial_as_json
from raysweep.results.run import SweepResult, open_run
from raysweep.store import Record
from raysweep.store.exports import write_results
from raysweep.sweepfile.named import Named


def page_of(report: Report) -> str:
    return as_html(report, draw(report))


def opened(folder: Path, name: str = "made") -> SweepResult:
    return open_run(str(folder / "runs" / name))


def test_the_run_folder_gets_page_markdown_pictures_and_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path, end=mixed)
    runs = tmp_path / "runs"
    assert main(["report", str(path), "--storage", str(runs), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"name": "made", "path": f"{runs}/made/report.html"}
    text = (runs / "made" / "report.md").read_text()
    pictures = re.findall(r"\]\((report/\w+\.svg)\)", text)
    assert {Path(picture).stem for picture in pictures} == {
        *("leaders", "effect0", "effect1", "accuracy", "loss", "lr", "gradient", "parallel"),
    }
    for picture in pictures:
        ET.fromstring((runs / "made" / picture).read_bytes())
    rows = list(csv.DictReader(io.StringIO((runs / "made" / "report.csv").read_text())))
    assert [row["trial"] for row in rows] == [record.id for record in opened(tmp_path).trials]
    assert rows[0]["rank"] == "1"


@pytest.mark.parametrize("suffix", [".html", ".md", ".csv"])
def test_to_writes_one_kind_elsewhere(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path)
    target = tmp_path / "sent" / f"colleague{suffix}"
    assert main(["report", str(path), "--storage", str(tmp_path / "runs"), "--to", str(target)]) == 0
    assert target.read_text()
    assert (target.parent / "colleague_files" / "accuracy.svg").exists() == (suffix == ".md")
    assert not (tmp_path / "runs/made/report.html").exists()
    capsys.readouterr()


def test_to_another_kind_and_a_run_that_never_was_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path)
    assert main(["report", str(path), "--to", "x.pdf"]) == 2
    assert "--to x.pdf: must end in one of .html, .md, .csv" in capsys.readouterr().err
    assert main(["report", str(path), "--storage", str(tmp_path / "elsewhere")]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_the_summary_names_winner_seeds_dips_and_hours(tmp_path: Path) -> None:
    make_run(tmp_path)
    result = opened(tmp_path)
    report = gather(result)
    assert report.judgement
    assert report.judgement.sentences[0].startswith("Probable winner: augment none, lr 0.01, 59.6 % on 2 seeds.")
    assert "augment medium, lr 0.01" in report.judgement.sentences[1]
    summary = "\n".join(report.summary)
    assert "4 of 12 trials dip. This goes with lr: lr 0.01: 0 of 4; lr 0.1: 0 of 4; lr 0.5: 4 of 4, after" in summary
    assert "360 epochs took 0.25 hours of trials" in summary


def test_hours_saved_are_those_of_the_epochs_that_stopped_trials_did_not_train(tmp_path: Path) -> None:
    make_run(tmp_path, end=mixed)
    hours = gather(opened(tmp_path)).hours
    assert hours.epochs_saved == 26
    assert hours.saved == pytest.approx(26 * 2.5 / 3600)


def test_rungs_say_who_went_on_and_why_not(tmp_path: Path) -> None:
    scheduler = "{name: asha, rungs: [1/3], min_survivors: 2}"
    make_run(tmp_path, scheduler=scheduler)
    everyone = opened(tmp_path)
    losers = {record.id for record in everyone.trials if record.config["lr"] == 0.5}
    make_run(
        tmp_path,
        scheduler=scheduler,
        end=lambda record, _: (
            record.with_(status="stopped", metrics=record.metrics[:10]) if record.id in losers else record
        ),
    )
    report = gather(opened(tmp_path))
    for row in report.rows:
        assert len(row.rungs) == 1
        assert row.why.startswith("rung 1 (epoch 10)")
    page = page_of(report)
    assert page.count('class="stop went-on"') + page.count('class="stop out"') >= 12
    assert page.count('class="stop out"') >= 4
    assert 'class="cutoff"' in page


def test_a_run_folder_is_read_and_reported_without_torch_or_ray() -> None:
    script = (
        "import sys, raysweep.report, raysweep.commands.status, raysweep.commands.compare; "
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_commands_to_run_and_pull_again_are_told_with_their_overrides(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    report = gather(opened(tmp_path), Named(str(path), ("epochs=30",)))
    assert report.command == f"{path} epochs=30 --storage {tmp_path}/runs"
    assert all(row.pull is None for row in report.rows), "no trial keeps weights"


def test_a_run_that_goes_on_has_a_report_that_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, end=mixed)
    result = opened(tmp_path)
    assert "Still running" not in page_of(gather(result))
    with result.folder.lease():
        assert "Still running" in page_of(gather(opened(tmp_path)))
        write_report(result, has_ended=True)
        assert "Still running" not in (tmp_path / "runs/made/report.html").read_text()


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_ends_with_its_report_and_a_fault_in_it_is_told_but_fails_nothing(command: Command) -> None:
    path = command.sweep()
    _, err = command(path)
    page = command.folder / "runs/small/report.html"
    assert f"report: {page}" in err
    assert "val_acc" in page.read_text()
    page.unlink()
    page.mkdir()
    _, err = command(path)
    assert "no report: StorageError" in err
    assert str(page) in err
    assert "try again: python -m raysweep report" in err


def test_the_example_in_the_documents_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "lr_stability")
    document = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "diagnosis.md", "exec"), {})
    assert capsys.readouterr().out.count("kind='dip'") == 4


# ---------------------------------------------------------------------------------------------------------
# Text from records is text


class Elements(HTMLParser):
    """Counts elements, and what could run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name.startswith("on") or (name in ("src", "href") and not (value or "").startswith(("#", "data:,"))):
                self.outside.append(f"{tag} {name}={value}")


def test_html_in_names_descriptions_settings_errors_and_sweep_files_stays_text(tmp_path: Path) -> None:
    path = make_run(tmp_path, end=hostile, text=SWEEP.replace("Does lr", f"{HTML} Does lr"))
    result = opened(tmp_path)
    assert result.folder.files.local
    resolved = result.folder.files.local / "resolved.yaml"
    record = result.trials[0]
    assert HTML in json.dumps(record.config)
    page = page_of(gather(result, Named(str(path), (HTML,))))
    parsed = Elements()
    parsed.feed(page)
    assert parsed.tags["script"] == 2, "the document and the page's own"
    assert "img" not in parsed.tags
    assert parsed.outside == []
    assert HTML in resolved.read_text()
    report = gather(result)
    text, pictures = as_markdown(report, draw(report), "report")
    outside_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "<" not in outside_code
    for picture in pictures.values():
        assert {element.tag.rpartition("}")[2] for element in ET.fromstring(picture).iter()} <= {
            *("svg", "title", "desc", "style", "g", "line", "text", "polyline", "circle", "path")
        }


def test_the_page_forbids_requests_and_every_script_but_its_own(tmp_path: Path) -> None:
    make_run(tmp_path)
    page = page_of(gather(opened(tmp_path)))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_csv_cells_are_no_formulas(tmp_path: Path) -> None:
    make_run(tmp_path, end=lambda record, _: record.with_(status="failed", metrics=[], error={"message": "=1+1"}))
    rows = list(csv.DictReader(io.StringIO(as_csv(gather(opened(tmp_path))))))
    assert {row["why"] for row in rows} == {"'=1+1"}


# ---------------------------------------------------------------------------------------------------------
# Bad input


def test_a_torn_record_is_told(tmp_path: Path) -> None:
    make_run(tmp_path)
    torn, *_ = sorted((tmp_path / "runs/made/trials").iterdir())
    for record in torn.glob("record*.json"):
        record.write_bytes(record.read_bytes()[:100])
    report = gather(opened(tmp_path))
    assert f"trials/{torn.name}/record.json: " in "\n".join(report.notes)
    assert [row.record.status for row in report.rows if row.record.id == torn.name] == ["planned"]
    assert torn.name in page_of(report)


def make_newer(folder: Path, ids: list[str]) -> None:
    """Make it that a newer raysweep wrote these trials' records, the plan, and a results.parquet of one more column."""
    run = folder / "runs/made"
    result = opened(folder)
    write_results(result.folder, result.trials, standings(result.configs))
    table = pq.read_table(run / "results.parquet")
    pq.write_table(table.append_column("grams_of_co2", [[1.5] * len(table)]), run / "results.parquet")
    for path in [path for trial_id in ids for path in (run / "trials" / trial_id).glob("record*.json")]:
        path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    plan = json.loads((run / "resolved.yaml").read_text())
    plan["trials"] = [{**trial, "budget": 3} for trial in plan["trials"]]
    plan["sweep"]["objective"]["confidence"] = 0.9
    (run / "resolved.yaml").write_text(json.dumps(plan))


def test_what_a_newer_raysweep_wrote_is_reported_as_far_as_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path, end=mixed)
    before = opened(tmp_path)
    newer = [before.trials[0].id, before.trials[1].id]
    make_newer(tmp_path, newer)
    runs = str(tmp_path / "runs")
    assert main(["report", str(path), "--storage", runs]) == 0
    page = (tmp_path / "runs/made/report.html").read_text()
    for trial_id in newer:
        assert f"trials/{trial_id}/record.json: is of format 2, this raysweep reads 1; not read: upgrade" in page
    capsys.readouterr()
    assert main(["status", str(path), "--storage", runs, "--json"]) == 0
    out, err = capsys.readouterr()
    trials = json.loads(out)["trials"]
    assert [trial["id"] for trial in trials] == [record.id for record in before.trials]
    assert trials[0] == trial_as_json(before.trials[0]), "as results.parquet shows it"
    assert "is of format 2" in err


def test_without_results_parquet_trials_of_a_newer_raysweep_count_as_planned(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    everyone = [record.id for record in opened(tmp_path).trials]
    make_newer(tmp_path, everyone)
    (tmp_path / "runs/made/results.parquet").unlink()
    page = tmp_path / "page.html"
    assert main(["report", str(path), "--storage", str(tmp_path / "runs"), "--to", str(page)]) == 0
    assert "12 trials: 12 planned." in page.read_text()


@pytest.mark.parametrize("status", ["planned", "failed", "diverged", "running"])
def test_a_run_without_a_single_epoch_still_has_a_report(tmp_path: Path, status: str) -> None:
    make_run(tmp_path, end=lambda record, _: record.with_(status=status, metrics=[], error={"message": "x"}))
    result = opened(tmp_path)
    write_report(result)
    summary = " ".join(gather(result).summary)
    assert "No trial has a score yet." in summary
    assert "Trials without a whole epoch: 12." in gather(result).notes


def test_metrics_that_are_no_numbers_leave_gaps(tmp_path: Path) -> None:
    def nan(record: Record, place: int) -> Record:
        rows = [
            {**row, "val_acc": float("nan"), "lr": float("inf")} if row["epoch"] == 9 else row for row in record.metrics
        ]
        return record.with_(metrics=rows)

    make_run(tmp_path, end=nan)
    report = gather(opened(tmp_path))
    assert "Curves with gaps, where metrics are not finite numbers: 12 trials." in report.notes
    assert "nan" not in "".join(re.findall(r'points="[^"]*"', page_of(report)))


def test_a_trial_of_one_epoch_and_one_of_thousands_are_drawn(tmp_path: Path) -> None:
    make_run(tmp_path, epochs=1)
    assert "chart leaders" in page_of(gather(opened(tmp_path)))
    make_run(tmp_path, epochs=2000, text=SWEEP.replace("[0.5, 0.1, 0.01]", "[0.5]").replace("[0, 1]", "[0]"))
    document = page_data(gather(opened(tmp_path)))
    assert document["epochs"][:2] == [1, 6]
    assert document["epochs"][-1] == 2000
    assert len(document["pictures"][0]["lines"]["val"][0]) == len(document["epochs"]) <= 401


def test_the_document_has_every_metric_with_training_and_validation_in_one_picture(tmp_path: Path) -> None:
    make_run(tmp_path, end=mixed)
    report = gather(opened(tmp_path))
    pictures = {picture["name"]: picture for picture in page_data(report)["pictures"]}
    names = {name.format(base) for base in ("acc", "loss") for name in ("train_{}", "val_{}", "val_{}_ema")}
    assert set(pictures) == {"acc", "loss", *(METRICS - names)}
    assert next(iter(pictures)) == "acc", "the objective first"
    assert set(pictures["loss"]["lines"]) == {"train", "val", "averaged"}
    assert set(pictures["lr"]["lines"]) == {"val"}
    drawn = pictures["acc"]["lines"]["val"]
    for row in report.rows:
        values = [metrics["val_acc"] for metrics in row.record.metrics]
        assert not values or drawn[row.number] == [
            None if math.isnan(value) else pytest.approx(value, rel=1e-3) for value in values
        ]


def test_what_is_left_out_of_a_large_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, scheduler="{name: asha, rungs: [1/3], min_survivors: 2}")
    monkeypatch.setattr(pictures_module, "MOST_CURVES", 5)
    monkeypatch.setattr(markdown_module, "MOST_ROWS", 2)
    report = gather(opened(tmp_path))
    text, pictures = as_markdown(report, draw(report), "report")
    assert "Curves of the best 5 trials; those of the other 7 are in results.parquet." in text
    for whole in (page_of(report), text):
        assert "One line for each of the best 5 of 12 trials" in whole
    assert pictures["accuracy.svg"].count(b'<g class="trial') == pictures["parallel.svg"].count(b'<g class="trial') == 5
    assert "The best 2 of 12; report.csv has all." in text
    assert "And 10 more trials; report.csv has all." in text, "of those whose rungs are explained"


# ---------------------------------------------------------------------------------------------------------
# Scales


def test_a_scale_maps_ends_to_ends_and_ticks_lie_between() -> None:
    for scale in (
        Scale(0, 1, 0, 100),
        Scale(0.001, 3, 200, 10, log=True),
        Scale(5, 5, 0, 10),
        Scale(2, 2, 0, 9, log=True),
    ):
        assert scale(scale.low) == pytest.approx(scale.start)
        assert scale(scale.high) == pytest.approx(scale.end)
        ticks = scale.ticks()
        assert len(ticks) >= 2
        assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in ticks)


def test_a_curve_is_broken_where_a_value_is_missing() -> None:
    x, y = Scale(0, 3, 0, 3), Scale(0, 1, 0, 100)
    assert points([0, 1, 2, 3], [0.0, float("nan"), 0.5, 9.0], x, y) == ["0.0,0.00", "2.0,50.00 3.0,100.00"]


def test_the_picture_of_the_winner_has_each_seed_and_the_chance_of_each_config(tmp_path: Path) -> None:
    make_run(tmp_path)
    report = gather(opened(tmp_path))
    (chart,) = draw(report).winner
    text = chart.to_string()
    assert text.count('class="seed"') == 4, "two seeds of each config that has a chance"
    assert text.count('class="interval"') == 2
    assert 'class="c0"' in text[: text.index("1: none</text>")], "the winner in colour"
    page = page_of(report)
    assert page.index(report.verdict[0]) < page.index("Is the winner the winner?") < page.index("Settings</h2>")


def test_the_first_screen_has_verdict_ranking_and_effects_in_short_labels(tmp_path: Path) -> None:
    make_run(tmp_path)
    report = gather(opened(tmp_path))
    assert report.verdict[0] == "Probable winner: augment none, lr 0.01, 59.6 % on 2 seeds."
    assert report.status == "12 trials · 12 finished · 360 epochs in 0.25 hours of trials"
    top = top_of(report)
    assert [each.values for each in top.rows] == [
        [row.settings["lr"], row.settings["augment"]] for row in report.best_rows
    ]
    drawn = draw(report)
    assert drawn.leaders[0].to_string().count('class="leader') == len(report.best_rows)
    assert [chart.title for chart in drawn.effects] == ["lr, all else equal", "augment, all else equal"]


def test_a_failed_trial_shows_file_and_line_and_its_traceback(tmp_path: Path) -> None:
    error = {"type": "ValueError", "message": "bad shape", "at": "mine.py:12", "traceback": "Traceback: forward"}
    make_run(tmp_path, end=lambda record, _: record.with_(status="failed", metrics=[], error=error))
    page = page_of(gather(opened(tmp_path)))
    assert page.count("ValueError: bad shape (at mine.py:12)") == page.count(">Traceback: forward<") == 12


def test_effects_find_a_true_difference_with_all_else_equal_and_none_where_there_is_none(tmp_path: Path) -> None:
    rng = random.Random(0)
    true = {0.5: -0.1, 0.1: 0.0, 0.01: 0.1}

    def scored(record: Record, _: int) -> Record:
        return scoring(record, 0.5 + true[record.config["lr"]] + rng.gauss(0, 0.005))

    make_run(tmp_path, epochs=2, text=SWEEP.replace("[none, medium]", "[none, medium, hard, v1augs]"), end=scored)
    effects = {effect.key: effect for effect in gather(opened(tmp_path)).effects}
    assert list(effects) == ["lr", "augment"]
    for each in effects["lr"].values:
        assert each.difference == pytest.approx(true[float(each.value)], abs=0.01)
        assert each.is_clear or float(each.value) == 0.1
        assert each.count == 4
    assert effects["augment"].is_fair
    assert effects["augment"].spread < 0.02


def test_effects_without_comparable_trials_say_that_other_settings_differ(tmp_path: Path) -> None:
    text = SWEEP.replace(
        "grid: {{lr: [0.5, 0.1, 0.01], augment: [none, medium]}}", "zip: {{lr: [0.5, 0.1], epochs: [2, 3]}}"
    )
    make_run(tmp_path, text=text)
    assert {(effect.key, effect.is_fair) for effect in gather(opened(tmp_path)).effects} == {
        ("lr", False),
        ("epochs", False),
    }


def test_a_random_search_shows_what_the_best_of_so_many_configs_is_and_a_grid_does_not(tmp_path: Path) -> None:
    draws = "random: {{samples: 12, lr: {{log_uniform: [0.001, 1]}}}}"
    text = f"name: {{name}}\nbase: {{{{data: synthetic, epochs: {{epochs}}}}}}\n{draws}\nscheduler: {{scheduler}}\n"
    make_run(tmp_path, epochs=2, text=text, end=lambda record, place: scoring(record, 0.3 + place / 100))
    tuning = draw(gather(opened(tmp_path))).tuning
    assert "Of 12 configs it is 41.00 %." in tuning[0].description
    make_run(tmp_path, "grid", epochs=2)
    assert draw(gather(opened(tmp_path, "grid"))).tuning == []


SEARCH = """
name: {name}
base: {{data: synthetic, epochs: {epochs}}}
random: {{samples: 60, lr: {{log_uniform: [0.0001, 1]}}, optimizer.weight_decay: {{log_uniform: [1.0e-6, 0.01]}},
  augment: {{choice: [none, shift, medium]}}}}
scheduler: {scheduler}
"""


def test_importance_is_the_share_of_the_variance_that_comes_from_a_setting_as_in_simulated_truth(
    tmp_path: Path,
) -> None:
    def score(record: Record, place: int) -> Record:
        lr = (math.log10(record.config["lr"]) + 2) / 2  # uniform on [-1, 1]
        noise = random.Random(place).gauss(0, 0.01)
        return scoring(record, 0.5 + 0.1 * lr + 0.07 * (record.config["augment"] != "none") + noise)

    make_run(tmp_path, epochs=2, text=SEARCH, end=score)
    importance = importance_of(gather(opened(tmp_path)))
    assert importance
    assert importance.explained > 0.6
    found = {each.key: each for each in importance.settings}
    variances = {"lr": 0.1**2 / 3, "augment": 0.07**2 * 2 / 9, "optimizer.weight_decay": 0.0}
    for key, variance in variances.items():
        assert found[key].low - 0.1 <= variance / sum(variances.values()) <= found[key].high + 0.1, key
    assert found["optimizer.weight_decay"].low <= 0 < found["lr"].low, "an interval leaves out zero where it should"


def test_importance_of_scores_that_no_setting_changes_says_that_it_says_little(tmp_path: Path) -> None:
    make_run(tmp_path, epochs=2, text=SEARCH, end=lambda record, place: scoring(record, random.Random(place).random()))
    importance = importance_of(gather(opened(tmp_path)))
    assert importance
    assert importance.says_little
    assert "these numbers say little" in importance.sentences


def test_each_setting_of_a_random_search_has_a_scatter_and_a_grid_has_none(tmp_path: Path) -> None:
    make_run(tmp_path, epochs=2, text=SEARCH)
    report = gather(opened(tmp_path))
    charts = {chart.title: chart for chart in draw(report).scatter}
    assert set(charts) == {"lr", "weight_decay", "augment"}
    dots = charts["lr"].to_string().count('class="stop went-on"')
    assert dots == sum(row.final_score is not None for row in report.rows) > 50
    assert "on a log scale" in charts["lr"].description
    make_run(tmp_path, "grid", epochs=2)
    grid = gather(opened(tmp_path, "grid"))
    assert draw(grid).scatter == []
    assert importance_of(grid) is None


def test_importance_of_configs_with_seeds_does_not_know_a_config_by_its_other_seeds(tmp_path: Path) -> None:
    def by_config(record: Record, place: int) -> Record:
        return scoring(record, random.Random(record.config["lr"]).random())

    text = SEARCH.replace("samples: 60", "samples: 25") + "seeds: [0, 1, 2, 3]\n"
    make_run(tmp_path, epochs=2, text=text, end=by_config)
    importance = importance_of(gather(opened(tmp_path)))
    assert importance
    assert importance.configs == 25
    assert importance.says_little, "a config's score says nothing of another's"


def test_a_random_search_of_one_config_and_many_seeds_has_a_report(tmp_path: Path) -> None:
    text = SEARCH.replace("samples: 60", "samples: 1") + f"seeds: {list(range(21))}\n"
    make_run(tmp_path, epochs=2, text=text)
    assert draw(gather(opened(tmp_path))).importance == []


PROPOSED = """
name: {name}
base: {{data: synthetic, epochs: {epochs}}}
search:
  trials: 4
  generation: 2
  space: {{lr: {{log_uniform: [0.01, 1]}}, augment: {{choice: [none, shift]}}}}
  enqueue: [{{lr: 0.5, augment: none}}]
scheduler: {scheduler}
seeds: [0, 1]
"""


def test_a_search_is_drawn_by_the_means_of_its_configs_with_what_was_enqueued_as_a_square(tmp_path: Path) -> None:
    def end(record: Record, place: int) -> Record:
        row = record.metrics[0] | {"val_acc": 0.3 if place == 0 else 0.1, "val_acc_ema": 0.0}
        return record.with_(metrics=[{**row, "epoch": epoch} for epoch in (1, 2)], status=ends[place])

    ends = ["finished"] * 6 + ["stopped"] * 2
    make_run(tmp_path, epochs=2, text=PROPOSED, end=end)
    report = gather(opened(tmp_path))
    (chart,) = draw(report).progress
    titles = [each.findtext("title") for each in chart.root.iter("g")]
    assert chart.title == "val_acc by proposal"
    assert len(list(chart.root.iter("circle"))) == 3
    (square,) = chart.root.iter("rect")
    assert "went-on" in square.attrib["class"]
    assert titles[0] is not None
    assert titles[0].startswith("enqueued, generation 0: 1 lr 0.5, augment none: 20.00 %, the mean of 2 seeds")
    assert [each.attrib["class"] for each in chart.root.iter("circle")] == ["stop went-on"] * 2 + ["stop out"]
    page = as_html(report, draw(report))
    assert page.count("How the search went") == 1
    assert "■ □ enqueued by the sweep file" in page
