"""Order-proof ASHA through real Ray Tune: the decisions of synchronous successive halving, whatever happens."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import noop_loop
import pytest
from running import Command, ray_cluster, wait_for

from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

SWEEP = """
name: noop
loop: noop
random: {samples: 60, lr: {log_uniform: [0.001, 1]}, epochs: {choice: [9, 18]}}
scheduler: {name: asha, eta: 3, rungs: [1/9, 1/3], min_survivors: 2, rank_by: ema}
resources: {gpus: 0}
"""


@pytest.fixture
def noop(four_cpus: str, tmp_path: Path) -> Command:
    """The command with a loop that trains nothing."""
    command = Command(four_cpus, tmp_path)
    shutil.copy(noop_loop.__file__, tmp_path)
    (tmp_path / "noop.yaml").write_text(SWEEP)
    return command


def outcome(command: Command) -> dict[str, tuple[str, int]]:
    """How each trial ended, and after which epoch."""
    return {id: (record["status"], len(record["metrics"])) for id, record in command.records("noop").items()}


def synchronous(sweep: Path, *overrides: str) -> dict[str, tuple[str, int]]:
    """The same, were everybody to wait for everybody at each rung."""
    trials = {trial.id: trial.config for trial in plan_trials(load_sweep(sweep, overrides))}
    deaths = {id: noop_loop.death_of(config.lr, config.epochs) or 1000 for id, config in trials.items()}
    contestants, ends = set(trials), {}
    for share, next_share, places in ((9, 3, -(-len(trials) // 3)), (3, 1, -(-len(trials) // 9))):
        epochs = {id: config.epochs // share for id, config in trials.items()}
        arrived = {id for id in contestants if deaths[id] > epochs[id]}
        key = {id: (-noop_loop.curve(trials[id].lr, 0, epochs[id])[-1], id) for id in arrived}
        lasting = sorted(key[id] for id in arrived if deaths[id] > trials[id].epochs // next_share)
        ends |= {id: ("diverged", deaths[id] - 1) for id in contestants - arrived}
        contestants = {id for id in arrived if sum(other < key[id] for other in lasting) < places}
        ends |= {id: ("stopped", epochs[id]) for id in arrived - contestants}
    for id in contestants:
        whole = deaths[id] > trials[id].epochs
        ends[id] = ("finished", trials[id].epochs) if whole else ("diverged", deaths[id] - 1)
    return ends


@pytest.mark.parametrize("slots", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(4, marks=pytest.mark.long)])
def test_trials_end_where_synchronous_halving_ends_them_on_any_number_of_slots(noop: Command, slots: int) -> None:
    sweep = noop.folder / "noop.yaml"
    noop(sweep, f"resources.cpus={4 // slots}", "--import", "noop_loop")
    assert outcome(noop) == synchronous(sweep)
    assert {status for status, _ in outcome(noop).values()} == {"finished", "stopped", "diverged"}


@pytest.mark.long
def test_after_a_killed_driver_the_rerun_decides_from_the_records_what_an_undisturbed_run_decides(
    noop: Command,
) -> None:
    sweep = noop.folder / "noop.yaml"
    process = noop.start(sweep, "resources.cpus=2", "--import", "noop_loop")
    wait_for(lambda: sum(status == "paused" for status, _ in outcome(noop).values()) >= 25)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = outcome(noop)
    assert len(before) < 60 or "paused" in {status for status, _ in before.values()}, "killed too late"
    noop(sweep, "--import", "noop_loop")
    assert outcome(noop) == synchronous(sweep)


@pytest.mark.long
def test_an_edited_plan_trains_all_that_a_fresh_run_of_it_would(noop: Command) -> None:
    sweep = noop.folder / "noop.yaml"
    small = ("random.samples=12", "--import", "noop_loop")
    noop(sweep, *small)
    before = outcome(noop)
    noop(sweep, *small)
    assert outcome(noop) == before, "a rerun with nothing to do did something"
    noop(sweep, "random.samples=30", "--import", "noop_loop")
    after, fresh = outcome(noop), synchronous(sweep, "random.samples=30")
    assert all(after[id][1] >= epochs for id, (_, epochs) in fresh.items())
    assert {id for id in after if after[id] != fresh[id]} <= set(before)


DRIFTING = """
import noop_loop
from pathlib import Path
import raysweep

@raysweep.register_loop("noop", config=noop_loop.Config, metrics={{"val_acc": "max"}})
def train(config, trial):
    for epoch in noop_loop.train(config, trial):
        if Path({switch!r}).exists():
            epoch.metrics["val_acc_ema"] += 1
        yield epoch
"""


@pytest.mark.long
def test_a_stopped_trial_that_begins_anew_and_comes_out_otherwise_keeps_the_score_by_which_it_was_judged(
    noop: Command,
) -> None:
    switch = noop.folder / "drift"
    (noop.folder / "drifting.py").write_text(DRIFTING.format(switch=str(switch)))
    sweep = noop.folder / "noop.yaml"
    sweep.write_text(SWEEP.replace("random: {samples: 60, lr: {log_uniform: [0.001, 1]}, epochs: {choice: [9, 18]}}",
                                   "grid: {lr: [0.1, 0.2, 0.3], epochs: [9]}"))  # fmt: skip
    words = (sweep, "--import", "noop_loop", "--import", "drifting")
    noop(*words, "scheduler.min_survivors=1")
    (stopped, *_) = (id for id, (status, epoch) in outcome(noop).items() if (status, epoch) == ("stopped", 1))

    def first_rung() -> dict[str, Any]:
        rung: dict[str, Any] = json.loads(noop("status", sweep, "--why", stopped, "--json")[0])["rungs"][0]
        return rung

    before = first_rung()
    assert before["verdict"] == "out"
    switch.touch()
    noop(*words, "scheduler.min_survivors=3")
    assert outcome(noop)[stopped] == ("finished", 9)
    assert noop.records("noop")[stopped]["metrics"][0]["val_acc_ema"] > 1
    assert (first_rung()["score"], first_rung()["rank"]) == (before["score"], before["rank"])


def test_spent_gpu_hours_end_the_command_with_3_and_nothing_is_trained_before_the_limit_is_raised(
    tmp_path: Path,
) -> None:
    with ray_cluster(num_cpus=2, num_gpus=2) as address:
        command = Command(address, tmp_path)
        shutil.copy(noop_loop.__file__, tmp_path)
        (tmp_path / "noop.yaml").write_text(SWEEP.replace("gpus: 0", "gpus: auto"))
        words = (tmp_path / "noop.yaml", "random.samples=4", "epochs=20000", "--import", "noop_loop", "--json")
        process = command.start(*words, "checkpoints.every_minutes=0.0001")
        wait_for(lambda: any(record["metrics"] for record in command.records("noop").values()))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=100)
        gpu_s = json.loads((tmp_path / "runs/noop/spent.json").read_text())["gpu_s"]
        assert gpu_s > 0
        limit = f"limits.gpu_hours={(gpu_s + 1) / 3600}"
        out, err = command(*words, limit, code=3)
        assert "limits.gpu_hours: " in err
        assert json.loads(out)["cut_short"].endswith(" are spent")
        records = command.records("noop")
        assert any(record["metrics"] and record["weights"] for record in records.values())
        command(*words, limit, code=3)
        assert command.records("noop") == records, "it trained on though the limit was spent before"


@pytest.mark.long
def test_wall_hours_count_over_reruns_and_what_they_cut_short_is_said(noop: Command) -> None:
    sweep = noop.folder / "noop.yaml"
    words = ("random.samples=4", "epochs=20000", "--import", "noop_loop")
    process = noop.start(sweep, *words, "checkpoints.every_minutes=0.0001")
    wait_for(lambda: any(record["metrics"] for record in noop.records("noop").values()))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    assert process.returncode == 130
    spent = json.loads((noop.folder / "runs/noop/spent.json").read_text())
    assert spent["wall_s"] > 0
    assert spent["cut_short"] is None
    before = {id: len(record["metrics"]) for id, record in noop.records("noop").items()}
    _, err = noop(sweep, *words, f"limits.wall_hours={(spent['wall_s'] + 1) / 3600}", code=3)
    assert "the ranking is that of trials cut short" in err
    after = {id: len(record["metrics"]) for id, record in noop.records("noop").items()}
    assert all(after[id] >= epochs for id, epochs in before.items())
    assert json.loads(noop("status", sweep, "--json")[0])["cut_short"].startswith("limits.wall_hours")
    assert "cut short" in noop("status", sweep)[0]


def test_lr_stability_in_small_pauses_promotes_and_finishes_and_tells_why_it_stopped(
    cluster: str, tmp_path: Path, shared: Path
) -> None:
    command = Command(cluster, tmp_path)
    command.environment["RAYSWEEP_DATA"] = str(shared / "data" / "tiny-imagenet-200")
    sweep = Path(__file__).parents[2] / "sweeps" / "lr_stability.yaml"
    small = ["data.classes=4", "data.per_class=24", "data.image_size=16", "model.width=4", "epochs=9"]
    _, err = command(sweep, *small, "batch_size=32")
    records = command.records("lr_stability")
    ends = sorted((record["config"]["lr"], record["status"]) for record in records.values())
    assert ends == [(lr, status) for lr in (0.01, 0.1, 0.5) for status in ("finished", "stopped")]
    assert ": paused after 1 of 9 epochs, rung 1 (epoch 1)" in err
    for id, record in records.items():
        told = json.loads(command("status", sweep, "--why", id, "--json")[0])
        words = command("status", sweep, "--why", id)[0]
        if record["status"] == "finished":
            assert [rung["verdict"] for rung in told["rungs"]] == ["safe", "safe"]
            # Which of two pauses depends on which comes first; the one that comes last goes on at once
            assert (f"{id}: paused after 1 of" in err) == (f"{id}: goes on after epoch 1" in err)
            continue
        assert f"{id}: stopped after" in err
        last = told["rungs"][-1]
        (winner,) = (each for each in records if each != id and records[each]["config"]["lr"] == record["config"]["lr"])
        assert (last["verdict"], last["rank"], last["places"], last["beaten_by"]) == ("out", 2, 1, [winner])
        assert f"compared among 2 configs with lr {record['config']['lr']}" in words
        assert f"just ahead of it: {winner}" in words
        assert f"stopped at rung {last['rung']}" in words
