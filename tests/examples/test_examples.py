"""Each example of examples/ runs as its README says, resumes exactly, and shows what it says it shows."""

from __future__ import annotations

import difflib
import importlib
import io
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from running import Command

from raysweep.loops import TrialContext, loop_named
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "segmentation": ("epochs=2", "examples=60", "grid.width=[4]", "grid.lr=[0.01]"),
    "transformer": ("epochs=2", "steps_per_epoch=3", "random.samples=2"),
    "regression": ("epochs=3", "grid.hidden=[4]", "seeds=[0]"),
    "moved_script": ("epochs=2", "grid.hidden=[16]"),
    "lightning": ("epochs=3", "dropout=0.1"),
    "huggingface": ("epochs=2", "layers=1"),
}
"""What makes each example small enough for a test."""
NEEDS = {"lightning": "lightning", "huggingface": "transformers"}
"""The examples of Ray Train functions, and the library of each. How they resume is in `test_train_function.py`."""


def commands(name: str) -> list[str]:
    """Return the words after `raysweep` of each command in an example's README."""
    text = (EXAMPLES / name / "README.md").read_text()
    return re.findall(r"^(?:python -m )?raysweep (.+?)(?: *#.*)?$", text, re.MULTILINE)


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an example's folder, the working directory; skips where its library is not installed, but not in CI."""
    if request.param in NEEDS and not os.environ.get("CI"):
        pytest.importorskip(NEEDS[request.param])
    folder = tmp_path / request.param
    shutil.copytree(EXAMPLES / request.param, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


each_example = pytest.mark.parametrize("example", SMALL, indirect=True)


def test_every_example_is_listed_and_tested() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/sweep.yaml")}
    assert folders == SMALL.keys()
    index = (EXAMPLES / "README.md").read_text()
    assert all(f"]({name}/README.md)" in index for name in folders)


@pytest.mark.parametrize("example", sorted(SMALL.keys() - NEEDS.keys()), indirect=True)
def test_an_example_resumes_exactly(example: Path) -> None:
    module = re.search(r"--import (\w+)", " ".join(commands(example.name)))
    assert module
    importlib.import_module(module[1])
    trial = plan_trials(load_sweep("sweep.yaml", SMALL[example.name]))[0]
    loop = loop_named(load_sweep("sweep.yaml").loop)
    data = loop.prepare(trial.config, example)

    def train(epoch: int, saved: Mapping[str, Any] | None) -> list[tuple[dict[str, float], dict[str, Any]]]:
        context = TrialContext(seed=trial.seed, epoch=epoch, saved=saved, data=data)
        return [(dict(each.metrics), through_a_file(each.state)) for each in loop.train(trial.config, context)]

    straight = train(0, None)
    resumed = train(1, straight[0][1])
    assert [metrics for metrics, _ in resumed] == [metrics for metrics, _ in straight[1:]]


def through_a_file(state: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(120)
@each_example
def test_an_example_runs_as_its_readme_says(example: Path, cluster: str) -> None:
    run, then = commands(example.name)
    command = Command(cluster, example)
    command.environment["RAYSWEEP_STORAGE"] = str(example / "runs")
    out, _ = command(*run.split(), *SMALL[example.name])
    sweep = load_sweep("sweep.yaml", SMALL[example.name])
    records = command.records(sweep.name)
    assert {record["status"] for record in records.values()} <= {"finished", "stopped"}
    scores = [epoch[sweep.objective.metric] for record in records.values() for epoch in record["metrics"]]
    assert scores
    assert all(map(math.isfinite, scores))
    assert sweep.objective.metric in out
    if not then.startswith("confirm"):  # which trains several times as many trials
        command(*then.split(), *SMALL[example.name])


def test_the_diff_in_the_moved_scripts_readme_is_the_difference_of_the_two_files() -> None:
    folder = EXAMPLES / "moved_script"
    before, after = ((folder / name).read_text().splitlines() for name in ("digits_script.py", "digits_loop.py"))
    made = list(difflib.unified_diff(before, after, "digits_script.py", "digits_loop.py", lineterm="", n=1))
    shown = re.search(r"```diff\n(.*?)\n```", (folder / "README.md").read_text(), re.DOTALL)
    assert shown
    assert shown[1].splitlines() == made
