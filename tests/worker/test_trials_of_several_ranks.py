"""Whole sweeps whose trials hold several workers, through the command line, on a real Ray of four CPUs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from running import Command, curves, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

SWEEP = """
name: ranks
base:
  data: {name: synthetic, image_size: 8, classes: 3, per_class: 40}
  model: {name: watched, width: 4}
  epochs: 9
  batch_size: 32
grid: {lr: LRS}
resources: {workers: 2, gpus: 0, cpus: 1}
retries: 1
"""
NET = """
import json, os, signal, time
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

@register_model("watched")
def watched(num_classes, width=None):
    '''Notes which process builds it for which rank, and when; kills rank 1's in mid-training where that is asked.'''
    net = baseline_block(num_classes, width)
    net.seen = 0
    def note(what):
        line = json.dumps([what, os.environ.get("RANK"), os.getpid(), time.monotonic()]) + "\\n"
        with open({log!r}, "a") as file:
            file.write(line)
    def watch(module, inputs):
        module.seen += module.training
        if not module.training:
            note("evaluated")
        elif os.environ.get("RANK") == "1" and module.seen > 9 and os.path.exists({switch!r}):
            os.unlink({switch!r})
            os.kill(os.getpid(), signal.SIGKILL)
    net.register_forward_pre_hook(watch)
    note("built")
    with open("/proc/self/cmdline") as file:
        note(file.read().strip("\\0"))  # what Ray calls the task
    return net
"""
LEFT = """
import json, ray
ray.init(logging_level="ERROR", log_to_driver=False)
groups = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
print(json.dumps([len(groups), ray.available_resources().get("CPU", 0)]))
"""


@pytest.fixture
def command(four_cpus: str, tmp_path: Path) -> Command:
    """The raysweep command in a folder with a network that keeps a log."""
    text = NET.replace("{log!r}", repr(str(tmp_path / "log"))).replace("{switch!r}", repr(str(tmp_path / "switch")))
    (tmp_path / "my_nets.py").write_text(text)
    return Command(four_cpus, tmp_path)


def sweep(command: Command, lrs: list[float]) -> tuple[Path, str, str]:
    path = command.folder / "ranks.yaml"
    path.write_text(SWEEP.replace("LRS", str(lrs)))
    return path, "--import", "my_nets"


def log(command: Command) -> list[tuple[str, str, int, float]]:
    """What each rank noted: built, its task or evaluated, rank, process, seconds."""
    lines = [json.loads(line) for line in (command.folder / "log").read_text().splitlines()]
    return [tuple(line) for line in lines if line[1] is not None]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def left_on(command: Command) -> list[float]:
    """Placement groups that were not removed, and CPUs that are free."""
    process = subprocess.run([sys.executable, "-c", LEFT], env=command.environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    found: list[float] = json.loads(process.stdout.strip().splitlines()[-1])
    return found


def test_ten_trials_of_two_ranks_pause_go_on_and_stop_in_the_same_four_processes_and_leave_nothing(
    command: Command,
) -> None:
    asha = "scheduler={name: asha, eta: 3, rungs: [1/9, 1/3], min_survivors: 2}"
    _, err = command(*sweep(command, [0.3 / 2**i for i in range(10)]), asha)
    records = command.records("ranks").values()
    assert sorted({record["status"] for record in records}) == ["finished", "stopped"]
    assert {len(record["metrics"]) for record in records} >= {1, 9}
    assert all(len(record["metrics"]) in (1, 3, 9) for record in records)
    assert all(record["conditions"]["workers"] == 2 for record in records)
    assert "died" not in err
    noted = log(command)
    processes = {rank: {pid for _, of, pid, _ in noted if of == rank} for rank in ("0", "1")}
    assert len(processes["0"]) == len(processes["1"]) == 2, "peers did not stay for the next trial"
    titles = {what for what, *_ in noted if what.startswith("ray::")}
    assert titles == {
        f"ray::raysweep ranks/{id}{rank}" for id in command.records("ranks") for rank in ("", " (rank 1)")
    }
    gaps = waits_for_the_next_trial(noted)
    assert len(gaps) >= 8
    print(f"from a trial's last evaluation to the next one's network: median {statistics.median(gaps):.2f} s")
    assert statistics.median(gaps) < 5
    wait_for(lambda: not any(map(is_alive, processes["0"] | processes["1"])), 30)
    wait_for(lambda: left_on(command) == [0, 4], 30)


def waits_for_the_next_trial(noted: list[tuple[str, str, int, float]]) -> list[float]:
    """Seconds from the last evaluation of a trial to the network of the next in the same process, commit included."""
    by_process: dict[int, list[tuple[str, float]]] = defaultdict(list)
    for what, rank, pid, at in noted:
        if rank == "0":
            by_process[pid].append((what, at))
    return [
        after[1] - before[1]
        for events in by_process.values()
        for before, after in pairwise(events)
        if after[0] == "built"
    ]


@pytest.mark.long
def test_ranks_of_a_loop_of_ones_own_pause_and_go_on_together(command: Command) -> None:
    (command.folder / "sums.py").write_text(SUMS)
    path = command.folder / "ranks.yaml"
    path.write_text(
        "name: ranks\nloop: sums\nbase: {epochs: 3}\ngrid: {step: [1.0, 2.0, 3.0, 4.0]}\n"
        "scheduler: {name: asha, eta: 4, rungs: [1/3], min_survivors: 1}\nresources: {workers: 2, cpus: 1, gpus: 0}\n"
    )
    command(path, "--import", "sums")
    ended = {record["config"]["step"]: record for record in command.records("ranks").values()}
    assert {step: record["status"] for step, record in ended.items()} == {
        1.0: "finished",
        2.0: "stopped",
        3.0: "stopped",
        4.0: "stopped",
    }
    assert [row["val_loss"] for row in ended[1.0]["metrics"]] == [3, 6, 9], "a rank did not go on from the state"


SUMS = """
import raysweep
import torch
import torch.distributed as dist

class Config(raysweep.Config):
    step: float = 1.0

@raysweep.register_loop("sums", config=Config, metrics={"val_loss": "min"})
def train(config, trial):
    total = (trial.state or {"total": torch.zeros(1)})["total"]
    own = total / 3 * (trial.rank + 1)
    while not trial.should_stop():
        own = own + config.step * (trial.rank + 1)
        total = own.clone()
        dist.all_reduce(total)
        yield raysweep.Epoch({"val_loss": total.item()}, state=lambda: {"total": total})
"""


def test_trials_that_find_no_room_beside_each_other_take_turns(command: Command) -> None:
    out, _ = command(*sweep(command, [0.1, 0.05, 0.02]), "resources.workers=3", "epochs=2", "--json")
    trials = json.loads(out)["trials"]
    assert [trial["status"] for trial in trials] == ["finished"] * 3
    assert {rank for _, rank, _, _ in log(command)} == {"0", "1", "2"}


def test_a_trial_one_of_whose_ranks_is_killed_goes_on_to_the_same_numbers(command: Command) -> None:
    arguments = (*sweep(command, [0.1]), "checkpoints.every_minutes=0.0001")
    (command.folder / "switch").touch()
    _, err = command(*arguments)
    assert not (command.folder / "switch").exists()
    assert "starts again" in err
    killed = curves(command.records("ranks"))
    command(*arguments, "--fresh")
    assert killed == curves(command.records("ranks"))
    wait_for(lambda: not any(is_alive(pid) for _, _, pid, _ in log(command)), 30)


@pytest.mark.long
def test_a_fault_of_one_rank_is_the_trials_and_is_told(command: Command) -> None:
    broken = (command.folder / "my_nets.py").read_text().replace("os.kill(os.getpid(), signal.SIGKILL)", "1 / 0")
    (command.folder / "my_nets.py").write_text(broken.replace("            os.unlink", "            0 and os.unlink"))
    (command.folder / "switch").touch()
    _, err = command(*sweep(command, [0.1]), code=1)
    (record,) = command.records("ranks").values()
    assert record["status"] == "failed"
    assert record["error"]["type"] == "ZeroDivisionError"
    assert record["attempts"] == 2
    assert "ZeroDivisionError" in err
