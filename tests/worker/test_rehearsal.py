"""`raysweep rehearse`: what it says of loops that resume exactly, and of those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raysweep.cli import main
from raysweep.worker import rehearsal
from raysweep.worker.rehearsal import Difference, compare

LOOPS = """
import random
import torch
from torch import nn
import raysweep

class Config(raysweep.Config):
    keeps: str = "all"
    lr: float = 0.1

@raysweep.register_loop("own", config=Config, metrics={"val_loss": "min"})
def train(config, trial):
    print("the loop prints")
    net = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    parts = {"net": net, "optimizer": optimizer} if config.keeps == "all" else {"net": net}
    for name, part in parts.items():
        if trial.state:
            part.load_state_dict(trial.state[name])
    if config.keeps == "broken":
        raise ValueError("no such thing")
    for _ in range(trial.epoch, config.epochs):
        x = torch.randn(8, 3)
        loss = (net(x)[:, 0] - x.sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metrics = {"val_loss": loss.item(), "seconds": random.SystemRandom().random()}
        state = None if config.keeps == "none" else lambda: {name: part.state_dict() for name, part in parts.items()}
        yield raysweep.Epoch(metrics, state=state)
"""


FUNCTION = """
import random
import ray.train
import raysweep

@raysweep.register_loop("never_asks", metrics={"val_loss": "min"})
def train(config):
    for _ in range(config["epochs"]):
        ray.train.report({"val_loss": random.random()})
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of a loop of the user's own, whose trials keep more or less of what they would go on from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_loops.py").write_text(LOOPS)
    path = tmp_path / "s.yaml"
    path.write_text("name: s\nloop: own\nbase: {epochs: 3}\ngrid: {keeps: [all], lr: [0.1, 0.2]}\n")
    return path


def rehearsed(capfd: pytest.CaptureFixture[str], sweep: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["rehearse", str(sweep), *words, "--json"])
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    return code, document


@pytest.mark.slow
def test_a_loop_that_saves_all_resumes_exactly_and_trials_that_cost_the_same_are_rehearsed_once(
    sweep: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, document = rehearsed(capfd, sweep, "--import", "own_loops")
    (found,) = document["rehearsed"]
    assert (code, found["resumes"], len(found["trials"])) == (0, "exactly", 2)
    assert found["last_bytes"] > found["best_bytes"] == 0
    assert found["memory_bytes"] > 1e8
    totals = document["totals"]
    assert totals["slot_hours_in_full"] == pytest.approx(6 * found["epoch_s"] / 3600)
    assert totals["disk_bytes_at_most"] == 2 * (found["last_bytes"] + found["best_bytes"])


@pytest.mark.slow
def test_a_loop_that_forgets_its_optimizer_is_told_before_any_metric_shows_it(
    sweep: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, document = rehearsed(capfd, sweep, "keeps=network", "lr=0.1", "--import", "own_loops")
    (found,) = document["rehearsed"]
    assert (code, found["resumes"]) == (0, "no")
    assert found["why"].startswith("state.net.weight differs after epoch 2, though no metric does yet")


@pytest.mark.slow
def test_a_loop_without_a_state_begins_anew_and_one_that_fails_shows_its_traceback(
    sweep: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep.write_text("name: s\nloop: own\ngrid: {keeps: [none, broken]}\n")
    assert main(["rehearse", str(sweep), "--import", "own_loops"]) == 1
    said = capfd.readouterr()
    assert "begins anew" in said.out
    assert "the loop prints" not in said.out
    assert f'File "{sweep.parent}/own_loops.py", line ' in said.err
    assert said.err.endswith("ValueError: no such thing\n\n")


@pytest.mark.slow
def test_a_function_that_never_asks_for_its_checkpoint_begins_anew_to_the_same_numbers(
    sweep: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (sweep.parent / "functions.py").write_text(FUNCTION)
    sweep.write_text("name: s\nloop: never_asks\nresources: {gpus: 0}\n")
    code, document = rehearsed(capfd, sweep, "--import", "functions")
    (found,) = document["rehearsed"]
    assert (code, found["resumes"]) == (0, "anew")
    assert found["why"].endswith("it trains its epochs again, to the same numbers")


@pytest.mark.slow
def test_of_the_built_in_loop_a_few_steps_are_enough_for_each_network(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nbase: {data: {name: synthetic, image_size: 8, classes: 2, per_class: 4000}, batch_size: 8, epochs: 9}"
        "\ngrid: {lr: [0.1, 0.2], model.width: [2]}\nscheduler: {name: asha, min_survivors: 1}\nresources: {gpus: 0}\n"
    )
    code, document = rehearsed(capfd, path)
    (found,) = document["rehearsed"]
    assert (code, found["resumes"], len(found["trials"])) == (0, "exactly", 2)
    assert found["epoch_s"] > 0.3, "an epoch of 900 steps takes longer than the two that were trained"
    assert document["memory"]["bytes"] == 2 * (4000 + 1000) * (3 * 8**2 + 8)
    assert 0 < document["totals"]["slot_hours"] < document["totals"]["slot_hours_in_full"]


@pytest.mark.parametrize(("share", "epochs", "states", "stay"), [("true", 4 + 8 - 3, 2, 2), ("false", 4 + 8, 0, 0)])
def test_totals_have_each_shared_epoch_once_at_its_own_cost_and_the_states_that_a_run_keeps(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    share: str,
    epochs: int,
    states: int,
    stay: int,
) -> None:
    """Of `wsd` the third epoch is the fork, and the last stable one of the short trial; a cosine leaves no state."""
    path = tmp_path / "s.yaml"
    path.write_text(f"""
name: s
base: {{data: {{name: synthetic, image_size: 8, classes: 2, per_class: 4}}, model: baseline_block}}
cases:
  wsd: {{model.width: 4, lr_schedule: {{name: wsd, decay: 0.25}}, grid: {{epochs: [4, 8]}}}}
  cosine: {{model.width: 16, epochs: 10}}
share: {share}
""")

    def found(setting: object, config: Any, seed: int) -> rehearsal.Rehearsed:
        return rehearsal.Rehearsed(config.model.width, 0, 100, 10, "exactly", "", [])

    monkeypatch.setattr(rehearsal, "rehearse", found)
    code, document = rehearsed(capfd, path)
    totals = document["totals"]
    assert code == 0
    assert totals["slot_hours"] == pytest.approx((epochs * 4 + 10 * 16) / 3600)
    assert totals["slot_hours_in_full"] == pytest.approx(totals["slot_hours"])
    assert (totals["disk_bytes_at_most"], totals["disk_bytes"]) == (110 * (3 + states), 3 * 10 + 110 * stay)


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"loss": 1.0, "the weights": "a"}, {"loss": 1.0, "the weights": "a"}, None),
        ({"loss": float("nan")}, {"loss": float("nan")}, None),
        ({"train_seconds": 1.0, "eval_samples_per_second": 1.0}, {"train_seconds": 2.0}, None),
        ({"a": 1.0, "loss": 1.0, "acc": 3.0}, {"a": 1.0, "loss": 1.5, "acc": 2.0}, Difference("loss", 1.0, 1.5)),
    ],
)
def test_two_epochs_differ_in_the_first_metric_that_is_no_time(
    one: dict[str, float | str], other: dict[str, float | str], found: Difference | None
) -> None:
    assert compare(one, other) == found


def test_what_was_saved_tells_of_a_difference_that_no_metric_shows_yet() -> None:
    saved = compare({"loss": 1.0, "state.step": "1"}, {"loss": 1.0, "state.step": "2"})
    assert saved is not None
    said = saved.in_words("without a stop", "resumed")
    assert said == "state.step differs after epoch 2, though no metric does yet (resumed against without a stop)"
    assert Difference("loss", float("nan"), 1.0).by == float("inf")
