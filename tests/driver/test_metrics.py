"""What Ray's dashboard and Prometheus see of a sweep."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import SMALL, Command, start_cluster

from raysweep.driver import metrics as metrics_module
from raysweep.driver.board import Board, Progress
from raysweep.driver.metrics import MOST_METRICS, OF_A_TRIAL, OF_THE_SWEEP, TRIALS, Meters
from raysweep.store import Record

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana.json"
UNHURRIED = """
import time
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

@register_model("unhurried")
def unhurried(num_classes, width=None):
    net = baseline_block(num_classes, width)
    net.register_forward_pre_hook(lambda module, inputs: time.sleep(0.08) if module.training else None)
    return net
"""


class FakeGauge:
    """Stands for Ray's: what it was set to since `said` was last emptied."""

    said: dict[tuple[str, str], float] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.tag_keys = name, tag_keys

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        assert tags["sweep"] == "small"
        self.said[self.name, tags.get("trial", tags.get("status", ""))] = value


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Callable[[Meters], dict[tuple[str, str], float]]:
    """Exports once; returns the values by name and trial or status."""
    monkeypatch.setattr(metrics_module, "Gauge", FakeGauge)

    def export(meters: Meters) -> dict[tuple[str, str], float]:
        FakeGauge.said = {}
        meters.export()
        return FakeGauge.said

    return export


def row(epoch: int, seconds: float = 1800.0) -> dict[str, float]:
    return {"epoch": epoch, "val_acc": epoch / 10, "images_per_s": 100.0, "seconds": seconds}


def board_of(gpus: float = 1, **histories: list[dict[str, float]]) -> Board:
    """A board of trials that run, each with a committed history."""
    records = [
        Record(id=id, name=id, seed=0, axes={}, config={}, epochs=9, metrics=rows) for id, rows in histories.items()
    ]
    board = Board(records, maximize=True)
    board.gpus = gpus
    for id in histories:
        board.update(id, "started", status="running")
    return board


def test_a_trial_is_shown_while_it_runs_and_once_more_when_it_has_ended(exported: Any) -> None:
    board = board_of(a=[], b=[row(1)])
    meters = Meters(board, "small")
    said = exported(meters)
    assert said["raysweep_epochs", "a"] == 9
    assert ("raysweep_val_acc", "a") not in said
    assert said["raysweep_val_acc", "b"] == 0.1
    assert (said[TRIALS, "running"], said[TRIALS, "finished"]) == (2, 0)
    board.note_epoch("a", row(1))
    board.update("a", "ended", status="finished", epoch=1, best=0.1)
    said = exported(meters)
    assert said["raysweep_val_acc", "a"] == 0.1
    assert (said[TRIALS, "running"], said[TRIALS, "finished"]) == (1, 1)
    assert said["raysweep_best_score", ""] == 0.1
    assert {trial for name, trial in exported(meters) if name in OF_A_TRIAL} == {"b"}


def test_gpu_hours_count_earlier_runs_and_each_epoch_once(exported: Any) -> None:
    board = board_of(2 * 0.5, a=[row(1)], b=[row(1), row(2)])
    meters = Meters(board, "small")
    said = exported(meters)
    assert (said["raysweep_gpu_hours", "a"], said["raysweep_gpu_hours", "b"]) == (0.5, 1.0)
    board.note_epoch("a", row(2))
    board.update("a", "epoch", epoch=2)
    board.note_epoch("a", row(2, seconds=3600.0))  # its process died before the commit
    board.note_epoch("a", row(3))
    board.update("a", "epoch", epoch=3)
    said = exported(meters)
    assert said["raysweep_gpu_hours", "a"] == 2.0
    assert said["raysweep_sweep_gpu_hours", ""] == 3.0


def test_any_metric_of_a_loop_is_shown_under_a_name_that_prometheus_takes(exported: Any) -> None:
    names = {"val/acc@1": "raysweep_val_acc_1", "trials": "raysweep_loop_trials", "epochs": "raysweep_loop_epochs"}
    board = board_of(a=[{"epoch": 1, **{name: place + 0.5 for place, name in enumerate(names)}}])
    said = exported(Meters(board, "small"))
    assert [said[gauge, "a"] for gauge in names.values()] == [0.5, 1.5, 2.5]
    assert (said["raysweep_epochs", "a"], said[TRIALS, "running"]) == (9, 1)


def test_a_metric_for_each_of_a_thousand_classes_does_not_flood_prometheus(exported: Any) -> None:
    board = board_of(a=[{"epoch": 1, "val_acc": 0.5, **{f"iou_{place}": 0.5 for place in range(1000)}}])
    said = exported(Meters(board, "small"))
    assert said["raysweep_val_acc", "a"] == 0.5
    assert len([name for name, _ in said if "iou" in name]) == MOST_METRICS


def test_a_thousand_trials_show_as_many_series_as_run(exported: Any) -> None:
    board = board_of(**{f"t{number}": [row(1)] for number in range(1000)})
    for number in range(990):
        board.update(f"t{number}", "ended", status="finished")
    meters = Meters(board, "small")
    exported(meters)
    assert len({trial for name, trial in exported(meters) if name in OF_A_TRIAL}) == 10


def test_grafana_asks_for_what_is_exported_and_for_all_of_it() -> None:
    dashboard = json.loads(GRAFANA.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    asked = {name for query in queries for name in re.findall(r"\bray_(\w+)\{", query)}
    assert asked == {*OF_A_TRIAL, *OF_THE_SWEEP, TRIALS}
    labels = {label for query in queries for label in re.findall(r"[{,(]\s*(\w+)\s*(?:=~?|\))", query)}
    assert labels <= {"sweep", "trial", "status"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


# -- against a real Ray


@pytest.fixture(scope="module")
def reporting() -> Iterator[dict[str, str]]:
    """A cluster that reports its metrics every second."""
    options = {"include_dashboard": True, "dashboard_port": 0, "_system_config": {"metrics_report_interval_ms": 1000}}
    with start_cluster(num_cpus=1, **options) as answer:
        yield answer


def ask(dashboard: str, what: str) -> Any:
    token = (Path.home() / ".ray" / "auth_token").read_text().strip()
    request = urllib.request.Request(f"http://{dashboard}/api/{what}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def jobs_at(dashboard: str) -> list[dict[str, Any]]:
    return list(ask(dashboard, "jobs/"))


def listed_at(dashboard: str, kind: str, column: str) -> set[str]:
    """What the dashboard lists, actors or tasks, by one of its columns."""
    return {each[column] for each in ask(dashboard, f"v0/{kind}?limit=1000")["data"]["result"]["result"]}


def series_at(url: str) -> list[tuple[str, dict[str, str], float]]:
    """What a Prometheus endpoint offers of ours: name, tags, value."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [re.fullmatch(r"ray_(raysweep_\w+)\{(.*)\} (\S+)", line) for line in lines]
    return [(each[1], dict(re.findall(r'(\w+)="([^"]*)"', each[2])), float(each[3])) for each in found if each]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_dashboard_names_job_and_trials_and_prometheus_gets_the_metrics_of_the_trials_that_run(
    reporting: dict[str, str], tmp_path: Path
) -> None:
    command = Command(reporting["gcs_address"], tmp_path, apart=True)  # a driver's series end with its process
    (tmp_path / "my_nets.py").write_text(UNHURRIED)
    sweep = tmp_path / "small.yaml"
    sweep.write_text(SMALL.format(lrs="[0.1, 0.05]", model="unhurried"))
    seen: dict[str, dict[str, float]] = defaultdict(dict)
    together: list[set[str]] = []
    names = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            series = series_at(reporting["metrics_url"])
            for name, tags, value in series:
                names.add(name)
                assert tags["sweep"] == "small"
                if "trial" in tags:
                    seen[tags["trial"]][name] = max(value, seen[tags["trial"]].get(name, value))
            if trials := {tags["trial"] for _, tags, _ in series if "trial" in tags}:
                together.append(trials)
            over.wait(0.3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        command(sweep, "--import", "my_nets", "epochs=40")
        end = time.monotonic() + 90
        while any(series_at(reporting["metrics_url"])):
            assert time.monotonic() < end, "the series outlive the sweep"
            time.sleep(0.5)
    finally:
        over.set()
        watcher.join()
    metadata = {"job_name": "small", "raysweep": "small", "raysweep_run_folder": str(tmp_path / "runs" / "small")}
    assert metadata in [job["metadata"] for job in jobs_at(reporting["dashboard"])]
    records = command.records("small")
    assert "raysweep small" in listed_at(reporting["dashboard"], "actors", "class_name")
    assert {f"raysweep small/{id}" for id in records} <= listed_at(reporting["dashboard"], "tasks", "name")
    others = {"raysweep_val_loss_ema", "raysweep_grad_norm_max", "raysweep_seconds"}
    assert names == {*OF_A_TRIAL, *others, *OF_THE_SWEEP, TRIALS}
    assert set(seen) == set(records)
    for id, numbers in seen.items():
        metrics = records[id]["metrics"]
        assert set(numbers) == {*OF_A_TRIAL, *others}
        assert 0 < numbers["raysweep_epoch"] <= 40 == numbers["raysweep_epochs"]
        assert numbers["raysweep_val_acc"] in [pytest.approx(each["val_acc"]) for each in metrics]
        assert numbers["raysweep_images_per_s"] in [pytest.approx(each["images_per_s"]) for each in metrics]
        assert numbers["raysweep_device_memory_bytes"] > 50e6
        assert numbers["raysweep_gpu_hours"] == 0
    assert len(together[-1]) == 1, "the trial that ended first is offered as long as the other"


def test_progress_has_the_newest_rows_of_a_resumed_trial_before_its_first_report() -> None:
    progress = Progress(Record(id="a", name="a", seed=0, axes={}, config={}, epochs=9, metrics=[row(3)]))
    assert metrics_module.numbers_of(progress, 0.0)["raysweep_val_acc"] == 0.3
