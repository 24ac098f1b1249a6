"""Several objectives through real Ray Tune: costs are on record, halving goes by them, and a rerun adds them."""

from __future__ import annotations

import json

import pytest
from running import Command

from raysweep.vision.config import ModelConfig
from raysweep.vision.models.summary import summarize

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SWEEP = """
name: small
objective: [val_acc, flops]
base: {data: {name: synthetic, image_size: 8, classes: 3, per_class: 40}, epochs: 3, batch_size: 32}
grid: {model.width: [2, 4], lr: [0.1, 0.001]}
scheduler: {name: asha, eta: 2, rungs: [1/3], min_survivors: 1}
"""


def test_halving_goes_by_all_objectives_and_costs_of_an_earlier_run_are_noted(command: Command) -> None:
    sweep = command.folder / "small.yaml"
    sweep.write_text(SWEEP)
    command(sweep, "objective=val_acc", "scheduler=none", "exclude=[{model.width: 4}]")
    before = command.records("small")
    assert not any("costs" in record["conditions"] for record in before.values()), "one objective: as it ever was"
    command(sweep)
    records = command.records("small")
    for record in records.values():
        known = summarize(ModelConfig.model_validate(record["config"]["model"]), 3, 8)
        assert record["conditions"]["costs"] == {"params": known.params, "flops": known.flops}
    for id, record in before.items():
        assert records[id]["metrics"] == record["metrics"]
        assert records[id]["weights"] == record["weights"] or not records[id]["weights"].get("best")
    told = {id: json.loads(command("status", sweep, "--why", id, "--json")[0])["rungs"] for id in records}
    assert min(rungs[0]["dominated_by"] for rungs in told.values()) == 0
    assert {record["status"] for record in records.values()} == {"finished", "stopped"}
    for id, (rung,) in told.items():
        assert (rung["verdict"] == "safe") == (rung["rank"] <= rung["places"]), id
    front = json.loads(command("status", sweep, "--json")[0])["front"]
    assert front[0]["rank"] == 1
    assert all(each["values"]["flops"] for each in front)
