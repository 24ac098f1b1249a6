"""Trials that hang, are out of memory, or cannot write: told apart, said in words, and the others go on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import SMALL, Command, wait_for

from raysweep.driver.failures import failure_of
from raysweep.driver.housekeeping import Tolerant, repeating
from raysweep.errors import StorageError

NETS = """
import os, time
import torch
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

def after_six(num_classes, width, action):
    net = baseline_block(num_classes, width)
    net.seen = 0
    def look(module, inputs):
        module.seen += 1
        if module.training and module.seen > 6:
            action()
    net.register_forward_pre_hook(look)
    return net

@register_model("hangs_once")
def hangs_once(num_classes, width=None):
    def hang():
        if os.path.exists({switch!r}):
            os.unlink({switch!r})
            time.sleep(3600)
    return after_six(num_classes, width, hang)

@register_model("hungry")
def hungry(num_classes, width=None):
    return after_six(num_classes, width, lambda: torch.empty(2**50))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_trial_that_hangs_starts_again_and_one_out_of_memory_says_its_batch_size(command: Command) -> None:
    switch = command.folder / "switch"
    switch.touch()
    (command.folder / "my_nets.py").write_text(NETS.format(switch=str(switch)))
    sweep = command.folder / "small.yaml"
    text = SMALL.format(lrs="[0.1]", model="baseline_block")
    sweep.write_text(text.replace("grid:", "zip: {model.name: [hangs_once, hungry]}\ngrid:"))
    often = ("checkpoints.every_minutes=0.0001", "limits.stall_minutes=0.2")
    _, err = command(sweep, "--import", "my_nets", *often, code=1)
    by_net = {record["config"]["model"]["name"]: record for record in command.records("small").values()}

    hung = by_net["hangs_once"]
    assert hung["status"] == "finished"
    assert hung["error"]["type"] == "Stalled"
    assert "no report for 0.2 minutes (limits.stall_minutes) (on " in err
    assert "; starts again from its last commit" in err
    assert hung["attempts"] == 2
    assert len(hung["metrics"]) == 3

    hungry = by_net["hungry"]
    assert hungry["status"] == "failed"
    assert hungry["error"]["type"] == "OutOfMemory"
    assert "out of memory in training, with batch_size 32" in hungry["error"]["message"]
    assert "can't allocate memory" in hungry["error"]["traceback"]
    assert "out of memory in training, with batch_size 32" in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.long
def test_a_disk_that_fills_up_in_mid_run_ends_it_and_the_rerun_goes_on_once_there_is_room(
    command: Command, small_disk: Path
) -> None:
    sweep = command.sweep("[0.1, 0.05]")
    words = (sweep, "model.width=32", "checkpoints.every_minutes=0.0001", "--storage", small_disk)
    _, err = command(*words, code=2)
    assert "the disk is full; make room, then run the same command again" in err
    assert "Traceback" not in err
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    trials = json.loads(command(*words, "--json")[0])["trials"]
    assert [(trial["status"], trial["epoch"]) for trial in trials] == [("finished", 3)] * 2


NODE = "The actor died unexpectedly before finishing this task.\nThe actor died because its node has died. Node Id: 0a"
UNREACHABLE = "The actor 4fc6 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed"
WORKER = (
    "The actor died unexpectedly before finishing this task.\nThe actor is dead because its worker process has died. "
    "Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End "
    "of file. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage"
)


@pytest.mark.parametrize(
    ("text", "type", "counts"),
    [
        (NODE, "NodeDied", False),
        (UNREACHABLE, "NodeDied", False),
        (WORKER, "ProcessDied", True),
        ("Task was killed due to the node running low on memory.\nMemory on the node was 31GB", "OutOfMemory", True),
        ("Traceback ...\nraysweep.errors.StorageError: /data/a: the disk is full", "StorageError", False),
        ("Traceback ...\nraysweep.errors.UnfitNodeError: h2 does not see the run folder", "UnfitNode", True),
        ("", "ProcessDied", True),
    ],
)
def test_what_ray_says_of_a_death_tells_whose_fault_it_was(text: str, type: str, counts: bool) -> None:
    failure = failure_of(text, batch_size=64)
    assert (failure.type, failure.counts) == (type, counts)
    assert failure.message
    assert type != "OutOfMemory" or "batch_size 64" in failure.message
    assert type != "StorageError" or failure.message == "/data/a: the disk is full"


def test_a_loop_without_a_batch_size_is_not_told_to_make_it_smaller() -> None:
    text = "Task was killed due to the node running low on memory."
    failure = failure_of(text, batch_size=None)
    assert failure.message.startswith("out of memory (Ray ended")
    assert "batch_size" not in failure.advice
    assert "a smaller batch_size" in failure_of(text, batch_size=64).advice


def test_storage_that_is_away_is_said_once_and_that_it_is_back_and_housekeeping_goes_on() -> None:
    said: list[str] = []
    away = True
    calls = 0

    def refresh() -> None:
        nonlocal calls
        calls += 1
        if away:
            raise StorageError("s3://bucket/run: the store does not answer")

    tolerant = Tolerant("s3://bucket/run", said.append)
    with repeating("test", lambda: tolerant(refresh), every_s=0.001):
        wait_for(lambda: calls > 3, 20)
        assert len(said) == 1
        away = False
        wait_for(lambda: len(said) == 2, 20)
        seen = calls
        wait_for(lambda: calls > seen, 20)
    assert "the store does not answer" in said[0]
    assert said[1:] == ["s3://bucket/run: can be written to again"]
