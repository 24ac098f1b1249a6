"""`raysweep probe`: what it refuses, and a small probe from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import make_run
from running import Command

from raysweep.cli import main
from raysweep.diagnose.probed import read_probes
from raysweep.store import Record, RunFolder
from raysweep.sweepfile import sweep_of
from raysweep.sweepfile.plan import plan_trials, short_id

TINY = """
name: tiny
base:
  data: {name: synthetic, image_size: 8, classes: 3, per_class: 40}
  model: {name: baseline_block, width: 4}
  batch_size: 16
  epochs: 6
grid: {lr: [0.5]}
resources: {gpus: 0}
"""


def rising(record: Record, place: int) -> Record:
    """Let the trials of the middle learning rate rise evenly."""
    if record.config["lr"] != 0.1:
        return record
    return record.with_(metrics=[{**row, "val_acc": 0.1 + 0.02 * row["epoch"]} for row in record.metrics])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "nobody: no such trial"),
        (["lr0.01"], "lr0.01: no such trial"),
        (["{dipping}", "--epoch", "1"], "--epoch 1: must be from 2 to 30"),
        (["{dipping}", "--epoch", "31"], "--epoch 31: must be from 2 to 30; "),
        (["{dipping}", "--orders", "2"], "--orders 2: must be at least 3"),
        (["{calm}"], "no dip, divergence or plateau is found in its curves; name one: --epoch K, from 2 to 30"),
    ],
)
def test_what_cannot_be_probed_is_said_before_anything_is_trained(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_run(tmp_path, end=rising)
    folder = RunFolder(str(tmp_path / "runs"), "made")
    by_lr = {record.config["lr"]: id for id in folder.trial_ids() if (record := folder.record(id))}
    named = {"dipping": by_lr[0.5], "calm": by_lr[0.1]}
    assert main(["probe", str(sweep), *(word.format(**named) for word in words)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs/made/probes").exists()


def test_trials_may_end_in_the_middle_of_their_schedules() -> None:
    values = {"name": "s", "base": {"data": "digits", "epochs": 30}, "seeds": [0, 1]}
    whole, first = (plan_trials(sweep_of(each)[0]) for each in (values, {**values, "until": 7}))
    assert [trial.epochs for trial in first] == [7, 7]
    assert [trial.config for trial in first] == [trial.config for trial in whole]
    assert {trial.id for trial in first}.isdisjoint(trial.id for trial in whole)
    assert plan_trials(sweep_of({**values, "until": 30})[0])[0].id == whole[0].id, "they end there anyway"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_probe_repeats_the_trial_to_the_bit_and_is_made_once(command: Command) -> None:
    (command.folder / "tiny.yaml").write_text(TINY)
    command("run", "tiny.yaml")
    run = RunFolder(str(command.folder / "runs"), "tiny")
    (trial,) = run.trial_ids()
    asked = ("probe", "tiny.yaml", trial, "--epoch", "4", "--orders", "3", "--json")
    told = json.loads(command(*asked)[0])
    assert told["outcome"] != "cannot_judge", told["words"]
    assert (told["trial"], told["epoch"], len(told["futures"])) == (trial, 4, 1 + 3 + 3 + 3)
    record = run.record(trial)
    assert record is not None
    control = next(line for line in told["lines"] if line["name"] == "control")
    assert control["values"] == [row["val_acc"] for row in record.metrics[3:5]]
    futures = RunFolder(f"{run.path}/probes", f"{short_id(trial)}-4")
    for future in told["futures"]:
        trained = futures.record(future["trial"])
        assert trained is not None
        assert trained.seed == future["seed"]
        assert trained.epoch == 5
        changed = {key: value for key, value in trained.config.items() if value != record.config[key]}
        assert changed == future["changes"], future["name"]
    (probe,) = read_probes(run)
    assert probe.words == told["words"]

    out, err = command(*asked)
    assert json.loads(out) == told
    assert "nothing is left to train" in err
    command("report", "tiny.yaml")
    assert "## What was tested" in (command.folder / "runs/tiny/report.md").read_text()
