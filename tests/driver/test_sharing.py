"""Trials whose first epochs are the same train them once, to the numbers that each would have got alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import Command

from raysweep.store import Record, RunFolder
from raysweep.store.states import StateStore
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.prefixes import Prefixes

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

SWEEP = """
name: sharing
base:
  data: {name: synthetic, image_size: 8, classes: 3, per_class: 40}
  model: {name: baseline_block, width: 4}
  batch_size: 32
  lr: 0.05
cases:
  steps:
    epochs: 6
    grid: {lr_schedule: [{name: step, milestones: [3]}, {name: step, milestones: [5]}]}
  wsd: {lr_schedule: {name: wsd, decay: 0.5}, grid: {epochs: [2, 4, 8]}}
  constant: {lr_schedule: {name: constant}, grid: {epochs: [3, 6]}}
seeds: [0, 1]
resources: {gpus: 0}
"""
ASHA = """
scheduler: {name: asha, eta: 2, rungs: [1/4, 1/2], min_survivors: 1}
"""
TIMES = {"seconds", "images_per_s"}


def records_of(folder: Path) -> dict[str, Record]:
    """The records of a run folder, by trial."""
    run = RunFolder(str(folder.parent), folder.name)
    return {id: record for id, record in run.records(run.trial_ids()).items() if record}


def what_was_trained(folder: Path) -> dict[str, Any]:
    """All that does not depend on the clock: how trials ended, each metric of each epoch, each weight."""
    return {
        id: (
            record.status,
            [{name: value for name, value in row.items() if name not in TIMES} for row in record.metrics],
            record.best,
            {kind: entry.sha256 for kind, entry in record.weights.items()},
        )
        for id, record in records_of(folder).items()
    }


def unique_epochs(sweep: Path, folder: Path) -> int:
    """How many different epochs the trials of a run have in their histories."""
    prefixes, records = Prefixes(plan_trials(load_sweep(sweep))), records_of(folder)
    return len({prefixes.key(id, epoch, {}) for id, record in records.items() for epoch in range(1, record.epoch + 1)})


def trained_epochs(folder: Path) -> int:
    """How many epochs the trials of a run have trained themselves."""
    return sum(len(record.own_metrics) for record in records_of(folder).values())


@pytest.mark.parametrize("scheduler", ["", ASHA], ids=["all to the end", "asha"])
def test_shared_and_unshared_runs_have_the_same_numbers_and_weights_and_no_epoch_is_trained_twice(
    command: Command, scheduler: str
) -> None:
    sweep = command.folder / "sharing.yaml"
    sweep.write_text(SWEEP + scheduler)
    command(sweep, "checkpoints.keep_best=99", "checkpoints.keep_last=none")
    command(sweep, "checkpoints.keep_best=99", "name=alone", "share=false")
    shared, alone = command.folder / "runs" / "sharing", command.folder / "runs" / "alone"
    assert what_was_trained(shared) == what_was_trained(alone)
    assert trained_epochs(shared) == unique_epochs(sweep, shared)
    assert trained_epochs(alone) > trained_epochs(shared)
    assert StateStore(RunFolder(str(shared.parent), "sharing")).listed() == []


LONGER = """
name: longer
base:
  data: {name: synthetic, image_size: 8, classes: 3, per_class: 12}
  model: {name: baseline_block, width: 4}
  batch_size: 32
  epochs: 35
  lr_schedule: {name: step, milestones: [30]}
grid: {lr: [0.05, 0.1]}
checkpoints: {keep_last: all}
resources: {gpus: 0}
"""


def test_a_step_sweep_of_35_epochs_lengthened_to_70_trains_only_the_difference_and_the_plan_says_so_before(
    command: Command,
) -> None:
    sweep, folder = command.folder / "longer.yaml", command.folder / "runs" / "longer"
    sweep.write_text(LONGER)
    command(sweep)
    sweep.write_text(LONGER.replace("epochs: 35", "epochs: 70"))
    plan = command("plan", sweep)[0]
    assert "2 new" in plan
    assert "70 epochs" in plan, plan
    command(sweep)
    longer = [record for record in records_of(folder).values() if record.epochs == 70]
    assert [(record.epoch, len(record.own_metrics)) for record in longer] == [(70, 35), (70, 35)]
    assert all(record.origins[0].last == 35 for record in longer)
