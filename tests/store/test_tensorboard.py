"""The run folder's TensorBoard files in the real TensorBoard, asked over its own HTTP API."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_run, mixed

from raysweep.results.run import SweepResult, open_run
from raysweep.store.tensorboard import write_tensorboard

pytest.importorskip("tensorboard", reason="tensorboard is not installed")
pytestmark = pytest.mark.slow
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    folder = tmp_path_factory.mktemp("tensorboard")
    make_run(folder, end=mixed)
    result = open_run(str(folder / "runs" / "made"))
    for record in result.trials:
        if record.epoch:
            write_tensorboard(result.folder, record)
    return result


@pytest.fixture(scope="module")
def ask(result: SweepResult) -> Iterator[Ask]:
    """A question to a TensorBoard on the run folder: path, query, and what to post, if anything."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", f"{result.path}/tensorboard", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--load_fast", "false", "--reload_interval", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    said = ""
    while not (address := re.search(r"http://127\.0\.0\.1:\d+", said)):
        line = process.stderr.readline()
        assert line, f"TensorBoard ended: {said}"
        said += line

    def question(path: str, query: dict[str, str] | None = None, post: Any = None) -> Any:
        url = f"{address[0]}/data/plugin/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if post is None else json.dumps(post).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    begun = {record.id for record in result.trials if record.epoch}
    end = time.monotonic() + 120
    while {run for run in question("scalars/tags") if not run.startswith(".")} < begun:
        assert time.monotonic() < end, "TensorBoard did not find the runs"
        time.sleep(0.5)
    yield question
    process.terminate()
    process.wait(30)
    process.stderr.close()


def test_every_trial_is_a_run_with_all_its_scalars(ask: Ask, result: SweepResult) -> None:
    tags = ask("scalars/tags")
    for record in result.trials:
        if record.epoch:
            names = {
                name for row in record.metrics for name, value in row.items() if name != "epoch" and value is not None
            }
            assert names <= set(tags[record.id])
        else:
            assert record.id not in tags
    best = result.trials[0]
    points = ask("scalars/scalars", {"run": best.id, "tag": "val_acc"})
    assert [step for _, step, _ in points] == [row["epoch"] for row in best.metrics]
    assert [value for _, _, value in points] == pytest.approx([row["val_acc"] for row in best.metrics], abs=1e-6)


def test_the_hparams_tab_has_every_setting_and_the_final_metrics(ask: Ask, result: SweepResult) -> None:
    experiment = ask("hparams/experiment", post={})
    assert {"lr", "augment", "seed"} <= {info["name"] for info in experiment["hparamInfos"]}
    metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert {"final/score", "final/val_acc", "final/best_epoch", "final/epochs"} <= metrics
    columns = [{"metric": info["name"]} for info in experiment["metricInfos"]]
    names = [info["name"] for info in experiment["hparamInfos"]]
    groups = ask(
        "hparams/session_groups",
        post={
            "startIndex": 0,
            "sliceSize": 100,
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
            "colParams": [*columns, *({"hparam": name} for name in names)],
        },
    )
    rows = {group["sessions"][0]["name"]: group for group in groups["sessionGroups"]}
    for record in result.trials:
        if not record.best:
            continue
        row = rows[record.id]
        assert row["hparams"]["lr"] == record.config["lr"]
        assert row["hparams"]["augment"] == record.config["augment"]
        assert row["hparams"]["seed"] == record.seed
        values = {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]}
        assert values["final/score"] == pytest.approx(record.best.score, abs=1e-6)
        assert values["final/best_epoch"] == record.best.epoch
        assert values["final/epochs"] == record.epoch
    status = {record.id: record.status for record in result.trials}
    ended = {name: row["sessions"][0]["status"] for name, row in rows.items()}
    for name, told in ended.items():
        expected = {"finished": "STATUS_SUCCESS", "stopped": "STATUS_SUCCESS", "diverged": "STATUS_FAILURE"}
        assert told == expected.get(status[name], "STATUS_UNKNOWN"), name


def test_scalars_that_are_no_numbers_do_not_hide_the_others(ask: Ask, result: SweepResult) -> None:
    broken = next(record for record in result.trials if record.epoch == 9)
    assert len(ask("scalars/scalars", {"run": broken.id, "tag": "lr"})) == 9
    assert Path(result.path, "tensorboard", broken.id).is_dir()
