"""What a run makes of signals, deaths and changed data, and what it shows on a terminal meanwhile."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from running import SMALL, Command, curves, settled, wait_for

from raysweep.driver.queue import TrialQueue
from raysweep.worker.tasks import Assignment

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

MORTAL = """
import os, signal
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

@register_model("mortal")
def mortal(num_classes, width=None):
    net = baseline_block(num_classes, width)
    net.seen = 0
    def die(module, inputs):
        module.seen += 1
        if module.training:
            with open({switch!r} + ".steps", "a") as file:
                file.write(".")
        if module.training and module.seen > 9 and os.path.exists({switch!r}):
            if {once}:
                os.unlink({switch!r})
            os.kill(os.getpid(), signal.SIGKILL)
    net.register_forward_pre_hook(die)
    return net
"""


def mortal_sweep(command: Command, once: bool) -> Path:
    """A sweep of a sound network and of one whose process is killed in mid-training: once, or each time."""
    switch = command.folder / "switch"
    switch.touch()
    (command.folder / "my_nets.py").write_text(MORTAL.format(switch=str(switch), once=once))
    path = command.folder / "small.yaml"
    text = SMALL.format(lrs="[0.1]", model="baseline_block")
    path.write_text(text.replace("grid:", "zip: {model.name: [baseline_block, mortal]}\ngrid:"))
    return path


@pytest.mark.long
def test_a_trial_whose_process_dies_in_the_middle_of_an_epoch_goes_on_from_its_commit_there_to_the_same_numbers(
    command: Command,
) -> None:
    words = (
        mortal_sweep(command, once=True),
        "--import",
        "my_nets",
        "batch_size=8",
        "checkpoints.every_minutes=0.0001",
    )
    steps = command.folder / "switch.steps"
    _, err = command(*words)
    assert re.search(r"its process died.*; starts again", err), err
    died, steps_died = curves(command.records("small")), steps.stat().st_size
    steps.unlink()
    command(*words, "--fresh")
    assert died == curves(command.records("small"))
    assert 0 < steps_died - steps.stat().st_size < 9, "it trained its first epoch, in which it died, from the beginning"


@pytest.mark.long
def test_a_trial_whose_process_always_dies_is_failed_and_the_others_finish(command: Command) -> None:
    sweep = mortal_sweep(command, once=False)
    _, err = command(sweep, "--import", "my_nets", code=1)
    by_status = {record["status"]: record for record in command.records("small").values()}
    assert set(by_status) == {"finished", "failed"}
    assert by_status["failed"]["error"]["type"] == "ProcessDied"
    assert by_status["failed"]["config"]["model"]["name"] == "mortal"
    assert by_status["failed"]["id"] in err


def test_a_second_ctrl_c_ends_at_once_and_the_run_goes_on_later(command: Command) -> None:
    sweep = command.sweep("[0.1]")
    often = "checkpoints.every_minutes=0.002"
    process = command.start(sweep, "epochs=300", often)
    wait_for(lambda: any(record["metrics"] for record in command.records("small").values()))
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    trials = json.loads(command(sweep, "epochs=300", often, "--json")[0])["trials"]
    assert [(trial["status"], trial["epoch"]) for trial in trials] == [("finished", 300)]


@pytest.mark.long
def test_the_death_of_the_stop_flags_process_stops_no_trial_and_ctrl_c_is_heard_after_it(command: Command) -> None:
    process = command.start(command.sweep("[0.1]"), "epochs=100000", "checkpoints.every_minutes=0.0001")
    wait_for(lambda: any(record["metrics"] for record in command.records("small").values()))
    ours = psutil.Process().children(recursive=True)  # the cluster's too
    flags = [each for each in ours if "ray::raysweep small (stop flag)" in " ".join(each.cmdline())]
    for flag in flags:
        flag.kill()
    time.sleep(2)
    (before,) = (len(record["metrics"]) for record in command.records("small").values())
    wait_for(lambda: any(len(record["metrics"]) > before for record in command.records("small").values()), 20)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert flags
    assert process.returncode == 130
    assert {record["status"] for record in command.records("small").values()} == {"running"}


def write_images(path: Path, shade: int) -> None:
    """A Parquet file of 40 small images of two classes, which differ by `shade`."""
    rows = []
    for number in range(40):
        data = io.BytesIO()
        Image.new("RGB", (8, 8), (number, (number % 2) * shade, 0)).save(data, "PNG")
        rows.append({"image": data.getvalue(), "label": number % 2})
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_data_that_changed_since_the_run_began_is_refused_and_nothing_is_lost(command: Command) -> None:
    sweep = command.folder / "small.yaml"
    sweep.write_text(
        f"name: small\nbase: {{data: {{name: parquet, path: {command.folder}, train: t.parquet, val_fraction: 0.5}},"
        " model: {name: baseline_block, width: 4}, epochs: 5000}\n"
    )
    write_images(command.folder / "t.parquet", 200)
    process = command.start(sweep, "checkpoints.every_minutes=0.0001")
    wait_for(lambda: any(record["metrics"] for record in command.records("small").values()))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = settled(lambda: command.records("small"))
    write_images(command.folder / "t.parquet", 100)
    _, err = command(sweep, code=2)
    assert "the data changed since the run began" in err
    assert "--fresh" in err
    assert command.records("small") == before


def test_status_counts_epochs_that_are_not_committed_yet_and_a_second_driver_is_told_who_holds_the_run(
    command: Command,
) -> None:
    sweep = command.sweep("[0.1]")
    process = command.start(sweep, "name=other", "epochs=100000")
    wait_for((command.folder / "runs/other/newest.json").exists)

    def trial_now() -> Any:
        return json.loads(command("status", sweep, "name=other", "--json")[0])["trials"][0]

    wait_for(lambda: trial_now()["epoch"] > 0)
    trial = trial_now()
    assert not command.records("other")
    assert trial["status"] == "running"
    assert 0 <= trial["val_acc"] <= 1
    _, err = command(sweep, "name=other", "epochs=100000", code=2)
    assert f"process {process.pid} on" in err
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    trial = trial_now()
    assert trial["status"] == "interrupted"
    pulled = json.loads(command("pull", sweep, "name=other", "--json")[0])
    assert pulled["id"] == trial["id"]


def test_on_a_terminal_of_80_columns_the_live_table_shows_running_trials_and_fits(command: Command) -> None:
    sweep = command.sweep("[0.1]")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "raysweep", str(sweep), "epochs=400"],
        cwd=command.folder,
        env={**command.environment, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert re.search(r"baseline_block-w\S* +\d+/400 +\d+\.\d\d %", text)
    assert "val_acc" in text
    assert "0 of 1 trial done" in text
    assert re.search(r"\d/400 .* % +[▁▂▃▄▅▆▇█]{2,} ", text), "its curve so far"
    assert re.search(r"0\.\d\d\s+slot-hours\s+spent", text)
    assert "preparing synthetic" in text
    assert "best checkpoint: python -m raysweep pull" in text
    table = [line for line in re.split(r"[\r\n]+", text) if "/400 " in line]
    assert max(map(len, table)) <= 80


def test_a_stop_between_the_handing_out_of_a_trial_and_its_start_ends_as_any_other(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_out = TrialQueue.hand_out

    def hand_out_and_stop(queue: TrialQueue, tune_id: str) -> Assignment | None:
        assignment = hand_out(queue, tune_id)
        if assignment:
            queue._stop.request()
        return assignment

    monkeypatch.setattr(TrialQueue, "hand_out", hand_out_and_stop)
    _, err = command(command.sweep("[0.1]"), code=130)
    assert "stopped; what is whole is committed" in err
