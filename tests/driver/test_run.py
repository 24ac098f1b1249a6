"""Whole sweeps through the command line, on a real Ray."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from run_folders import make_run
from running import SMALL, Command, curves, wait_for
from safetensors.torch import save as save_safetensors

import raysweep
from raysweep.halving.scores import better_of
from raysweep.loops import CLASSIFY, Epoch, TrialContext, evaluating_loop
from raysweep.results.evidence import pack
from raysweep.store import Record, RunFolder
from raysweep.store.newest import read_newest
from raysweep.store.record import planned_record
from raysweep.store.runfolder import OF_THE_BEST, SUFFIX
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import Trial, plan_trials
from raysweep.sweepfile.schema import Objective
from raysweep.vision.data import open_data

LOOP = evaluating_loop(CLASSIFY)

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
FRAGILE = """
import os
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

@register_model("fragile")
def fragile(num_classes, width=None):
    net = baseline_block(num_classes, width)
    def break_down(module, inputs):
        if module.training and module.seen > 6 and os.path.exists({switch!r}):
            raise RuntimeError("broke down on purpose")
        module.seen += 1
    net.seen = 0
    net.register_forward_pre_hook(break_down)
    return net
"""


ONLY_HERE = """
import os
from raysweep import register_augmentation

if os.getpid() == {pid}:
    register_augmentation("only_here")(lambda images, generator: images)
"""


def test_a_trial_whose_config_its_process_cannot_read_fails_with_a_sentence_and_the_others_go_on(
    command: Command,
) -> None:
    (command.folder / "my_aug.py").write_text(ONLY_HERE.format(pid=os.getpid()))
    path = command.folder / "small.yaml"
    text = SMALL.format(lrs="[0.1]", model="baseline_block")
    path.write_text(text.replace("grid: {", "grid: {augment: [none, only_here], "))
    _, err = command(path, "--import", "my_aug", code=1)
    records = {record["axes"]["augment"]: record for record in command.records("small").values()}
    assert records["none"]["status"] == "finished"
    failed = records["only_here"]
    assert (failed["status"], failed["attempts"], failed["error"]["type"]) == ("failed", 1, "UserError")
    assert "augment: unknown augmentation 'only_here'; known: none, shift" in failed["error"]["message"]
    assert failed["error"]["message"] in err
    assert "Traceback" not in err


GPU_IN_SIGHT = """
import os
import torch

if os.getpid() != {pid}:
    torch.cuda.is_available = lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != ""
"""
"""A module after whose import a trial's process takes the node for one with GPUs, unless they are hidden from it."""


def test_without_gpus_in_its_slot_a_trial_trains_on_the_cpu_though_the_node_has_gpus(command: Command) -> None:
    (command.folder / "my_gpu.py").write_text(GPU_IN_SIGHT.format(pid=os.getpid()))
    resources = "resources={gpus: 0, cpus: 1, workers: 2}"
    out, err = command(command.sweep("[0.1]"), "--import", "my_gpu", resources, "evaluate={tta: [2]}", "--json")
    (trial,) = json.loads(out)["trials"]
    assert trial["status"] == "finished"
    assert json.loads((command.folder / "runs/small/spent.json").read_text())["gpu_s"] == 0
    assert "its evaluation failed" not in err


def test_quickstart_reaches_95_percent_and_its_pulled_best_has_the_recorded_accuracy(command: Command) -> None:
    out, _ = command(QUICKSTART, "--json")
    trials = json.loads(out)["trials"]
    assert len(trials) >= 6
    assert {trial["status"] for trial in trials} == {"finished"}
    pulled = json.loads(command("pull", QUICKSTART, "--json")[0])
    assert pulled["id"] == trials[0]["id"]
    assert pulled["val_acc"] == trials[0]["val_acc"] > 0.95

    model = raysweep.load_model(pulled["path"])
    data = open_data(load_sweep_data(), sweep_folder=QUICKSTART.parent)
    with torch.inference_mode():
        logits = model((data.val.images / 255 - 0.5) / 0.5)
    accuracy = (logits.argmax(1) == data.val.labels).float().mean().item()
    assert accuracy == pytest.approx(pulled["val_acc"], abs=0.003)

    table = pq.read_table(command.folder / "runs/quickstart/results.parquet")
    assert table.column("val_acc").to_pylist() == [trial["val_acc"] for trial in trials]
    assert [len(curve) for curve in table.column("curve.val_acc").to_pylist()] == [t["epochs"] for t in trials]
    assert len(list((command.folder / "runs/quickstart/tensorboard").glob("*/events*"))) == len(trials)


def load_sweep_data() -> Any:
    from raysweep.sweepfile.plan import plan_trials

    return plan_trials(load_sweep(QUICKSTART))[0].config.data


@pytest.mark.long
def test_a_driver_killed_halfway_and_run_again_ends_with_the_numbers_of_an_undisturbed_run(command: Command) -> None:
    often = "checkpoints.every_minutes=0.0001"
    undisturbed = json.loads(command(QUICKSTART, often, "--json", "--storage", command.folder / "whole")[0])
    process = command.start(QUICKSTART, often)
    wait_for(lambda: sum(r["status"] == "finished" for r in command.records("quickstart").values()) >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {name: record for name, record in command.records("quickstart").items() if record["status"] == "finished"}
    assert len(before) < 6, "killed too late to prove anything"
    resumed = json.loads(command(QUICKSTART, often, "--json")[0])
    numbers = [
        {trial["id"]: (trial["val_acc"], trial["best_epoch"], trial["status"]) for trial in result["trials"]}
        for result in (undisturbed, resumed)
    ]
    assert numbers[0] == numbers[1]
    after = command.records("quickstart")
    assert {name: _told(after[name]) for name in before} == {name: _told(before[name]) for name in before}


def _told(record: dict[str, Any]) -> dict[str, Any]:
    """What a finished trial's record says, but for the weights, which retention may have freed since."""
    return {key: value for key, value in record.items() if key not in ("weights", "previous")}


def test_a_run_that_is_stopped_before_its_first_trial_says_so_and_begins_later(command: Command) -> None:
    sweep = command.sweep("[0.1]")
    process = command.start(sweep)
    wait_for(lambda: process.poll() is not None or "preparing" in process.stderr.readline())  # type: ignore[union-attr]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped before anything was trained" in err
    assert "Traceback" not in err
    command(sweep)


def test_an_interrupted_run_commits_exits_130_and_goes_on_to_the_same_numbers(command: Command) -> None:
    sweep = command.sweep(lrs="[0.1, 0.05]")
    process = command.start(sweep, "epochs=100")
    folder = RunFolder(str(command.folder / "runs"), "small")
    wait_for(lambda: process.poll() is not None or any(tail.rows for tail in read_newest(folder).values()))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in err
    command(sweep, "epochs=100")
    undisturbed = {
        trial.id: {"metrics": [{"epoch": epoch, **each.metrics} for epoch, each in enumerate(epochs_of(trial), 1)]}
        for trial in plan_trials(load_sweep(sweep, ["epochs=100"]))
    }
    assert curves(command.records("small")) == curves(undisturbed)


def test_a_trial_that_raises_is_retried_recorded_and_failed_while_the_others_go_on(command: Command) -> None:
    switch = command.folder / "broken"
    switch.touch()
    (command.folder / "my_nets.py").write_text(FRAGILE.format(switch=str(switch)))
    sweep = command.folder / "small.yaml"
    text = SMALL.format(lrs="[0.1]", model="baseline_block").replace(
        "grid:", "zip: {model.name: [baseline_block, fragile]}\ngrid:"
    )
    sweep.write_text(text)
    _, err = command(sweep, "retries=5", "--import", "my_nets", code=1)
    records = command.records("small").values()
    by_status = {record["status"]: record for record in records}
    assert set(by_status) == {"finished", "failed"}
    assert "broke down on purpose" in err
    error = by_status["failed"]["error"]
    assert "broke down on purpose" in error["traceback"]
    line = FRAGILE[: FRAGILE.index("broke down")].count("\n") + 1
    assert error["at"] == f"{command.folder / 'my_nets.py'}:{line}"
    assert error["at"] in err
    assert by_status["failed"]["attempts"] == 2
    assert "so not tried again" in err
    why, _ = command("status", sweep, "--why", by_status["failed"]["id"])
    assert error["traceback"].splitlines()[-2] in why
    switch.unlink()
    command(sweep, "--import", "my_nets")
    assert {record["status"] for record in command.records("small").values()} == {"finished"}


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def epochs_of(trial: Trial) -> Iterator[Epoch]:
    """Train a trial in this process."""
    data = LOOP.prepare(trial.config, Path())
    conditions = LOOP.conditions(trial.config, data)
    return LOOP.train(trial.config, TrialContext(trial.seed, data=data, conditions=conditions))


def train_here(folder: RunFolder, trial: Trial, epochs: int) -> Record:
    """Train a trial for some epochs in this process, and commit each as a run does."""
    conditions = {"workers": 1, **LOOP.conditions(trial.config, LOOP.prepare(trial.config, Path()))}
    record = planned_record(trial).with_(status="running", conditions=conditions)
    for number, epoch in enumerate(itertools.islice(epochs_of(trial), epochs), 1):
        record = record.with_(metrics=[*record.metrics, {"epoch": number, **epoch.metrics}])
        best = better_of(record.best, record.metrics[-1], Objective())
        assert best
        weights = {}
        if best != record.best:
            kept = epoch.ema_weights if best.averaged else epoch.weights
            correct = epoch.ema_correct if best.averaged else epoch.correct
            assert kept
            assert correct
            copies = {name: weight.contiguous() for name, weight in kept().items()}
            weights = {"best": save_safetensors(copies), "correct": pack(correct().numpy())}
        ends = number == trial.config.epochs
        if not ends:
            buffer = io.BytesIO()
            assert epoch.state
            torch.save(epoch.state(), buffer)
            weights["last"] = buffer.getvalue()
        record = record.with_(best=best, status="finished" if ends else "running")
        record = folder.commit(record, weights, keep=OF_THE_BEST if ends else SUFFIX)
    return record


def test_a_rerun_ends_with_whole_best_weights_where_those_of_the_winner_and_of_an_interrupted_trial_were_damaged(
    command: Command,
) -> None:
    sweep = command.sweep("[0.1, 0.01]")
    trials = plan_trials(load_sweep(sweep))
    undisturbed = [train_here(RunFolder(str(command.folder / "undisturbed"), "small"), trial, 3) for trial in trials]
    winner, other = sorted(undisturbed, key=lambda record: -record.best.score if record.best else 0)
    folder = RunFolder(str(command.folder / "runs"), "small")
    for trial in trials:
        record = train_here(folder, trial, 3 if trial.id == winner.id else 2)
        flip_a_bit(command.folder / "runs/small/trials" / record.id / record.weights["best"].file)

    _, err = command(sweep)
    assert f"{winner.id}: trials/{winner.id}/best." in err
    assert "its checksum does not match; not used; it was the best, so it is trained anew" in err
    assert f"{other.id}: trials/{other.id}/best." in err
    found = [folder.record(trial.id) for trial in trials]
    assert [record and record.weights for record in found] == [record.weights for record in undisturbed]
    assert curves(command.records("small")) == curves({record.id: asdict(record) for record in undisturbed})
    command("pull", sweep)


def test_trials_added_to_the_file_are_added_and_removed_ones_leave_the_ranking(command: Command) -> None:
    command(command.sweep("[0.1]"))
    first = command.records("small")
    out, err = command(command.sweep("[0.1, 0.02]"), "--json")
    assert "1 done" in err
    assert len(json.loads(out)["trials"]) == 2
    assert {name: command.records("small")[name] for name in first} == first
    status = json.loads(command("status", command.sweep("[0.02]"), "--json")[0])
    assert len(status["trials"]) == 2, "status speaks of the last run's plan"
    out, _ = command(command.sweep("[0.02]"), "--json")
    assert len(json.loads(out)["trials"]) == 1


def test_fresh_moves_the_old_run_folder_aside(command: Command) -> None:
    make_run(command.folder, "small")
    command(command.sweep("[0.1]"), "--fresh")
    folders = sorted(path.name for path in (command.folder / "runs").iterdir())
    assert len(folders) == 2
    assert folders[1].startswith("small.")
    assert (command.folder / "runs" / folders[1] / "resolved.yaml").exists()
    assert len(command.records("small")) == 1


def test_rays_own_asha_stops_trials_and_says_so_and_only_the_best_trial_keeps_its_weights(command: Command) -> None:
    out, _ = command(
        command.sweep("[0.1, 0.000001, 0.0000001, 0.00000001]"),
        "scheduler={name: ray_asha, grace_period: 1, eta: 2}",
        "epochs=8",
        "limits.max_concurrent=1",
        "checkpoints.keep_best=1",
        "--json",
    )
    trials = json.loads(out)["trials"]
    assert {trial["status"] for trial in trials} == {"finished", "stopped"}
    kept = {path.parent.name for path in (command.folder / "runs/small/trials").glob("*/*.safetensors")}
    assert kept == {trials[0]["id"]}
    _, err = command("pull", command.folder / "small.yaml", "--rank", "2", code=2)
    assert "no longer has weights" in err


def test_more_gpus_than_any_node_has_is_said_before_anything_starts(command: Command) -> None:
    _, err = command(command.sweep(), "resources={workers: 2, gpus: 1, cpus: 1}", code=2)
    assert "a worker asks for 1 CPU and 1 GPU, more than any node has" in err
    assert "2 CPUs and 0 GPUs" in err
    assert not command.records("small")


@pytest.mark.long
def test_a_trial_on_a_device_that_cannot_keep_the_precision_of_the_run_fails_in_one_sentence(
    cluster: str, tmp_path: Path
) -> None:
    command = Command(cluster, tmp_path, apart=True)
    (tmp_path / "mixed.py").write_text(  # only the process of a task, which prepares the data, computes bf16
        "import ray, torch\n"
        "torch.cpu._is_amx_tile_supported = lambda: ray.get_runtime_context().get_actor_id() is None\n"
    )
    _, err = command(command.sweep("[0.1]"), "--import", "mixed", code=1)
    (record,) = command.records("small").values()
    assert record["status"] == "failed"
    assert record["error"]["message"].startswith("precision: auto became bf16 when the run began, which the CPU of ")
    assert record["error"]["message"] in err


@pytest.mark.long
def test_precision_that_changed_since_the_run_began_is_refused(command: Command) -> None:
    sweep = command.sweep("[0.1]")
    process = command.start(sweep, "epochs=500", "checkpoints.every_minutes=0.0001", "precision=fp32")
    wait_for(lambda: any(record["metrics"] for record in command.records("small").values()))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, err = command(sweep, "epochs=500", "precision=bf16", code=2)
    assert "precision was 'fp32', is 'bf16'" in err


def test_a_folder_that_is_not_a_run_folder_is_left_alone(command: Command) -> None:
    (command.folder / "runs/small").mkdir(parents=True)
    (command.folder / "runs/small/thesis.txt").write_text("ten days of work")
    _, err = command(command.sweep(), code=2)
    assert "not a run folder" in err
    assert [path.name for path in (command.folder / "runs/small").iterdir()] == ["thesis.txt"]


@pytest.mark.long
def test_two_trials_on_20_classes_of_tiny_imagenet_train_and_finish(command: Command, shared: Path) -> None:
    sweep = command.folder / "tiny.yaml"
    sweep.write_text(
        f"""
name: tiny
base:
  data: {{name: parquet, path: {shared}/data/tiny-imagenet-200, image_size: 40, classes: 20, per_class: 50}}
  model: {{name: resnet18, width: 8}}
  epochs: 2
  augment: shift
grid: {{lr: [0.1, 0.02]}}
"""
    )
    trials = json.loads(command(sweep, "--json")[0])["trials"]
    assert [trial["status"] for trial in trials] == ["finished", "finished"]
    assert max(trial["val_acc"] for trial in trials) > 1 / 20
