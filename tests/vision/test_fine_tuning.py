"""The recipe for fine-tuning, as docs/recipes.md has it, from a first run's pulled weights to the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from running import Command
from safetensors.torch import load_file

RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"
FIRST = """
name: first
base: {data: digits, model: {name: baseline_block, width: 16}, epochs: 2, lr: 0.1}
"""


@pytest.mark.slow
@pytest.mark.ray
def test_the_recipe_trains_from_pulled_weights_to_the_end_and_its_own_can_be_pulled(command: Command) -> None:
    (recipe,) = re.findall(r"```yaml\n(name: fine_tuning\n.*?)```", RECIPES.read_text(), re.DOTALL)
    first, second = command.folder / "first.yaml", command.folder / "fine_tuning.yaml"
    first.write_text(FIRST)
    second.write_text(recipe)
    command(first)
    command("pull", first, "--to", "pretrained")
    command(second, "epochs=2")
    begun = load_file(command.folder / "pretrained" / "model.safetensors")
    records = command.records("fine_tuning").values()
    assert {record["status"] for record in records} == {"finished"}
    assert len({record["conditions"]["weights"] for record in records}) == 1
    assert all(record["metrics"][-1]["val_acc"] > 0.8 for record in records)
    changed = []
    for rank in ("1", "2", "3"):
        command("pull", second, "epochs=2", "--rank", rank, "--to", rank)
        tuned = load_file(command.folder / rank / "model.safetensors")
        assert tuned.keys() == begun.keys()
        assert len(tuned["fc.bias"]) == 5
        changed.append({name.partition(".")[0] for name in begun if not torch.equal(tuned[name], begun[name])})
    assert sorted(changed, key=len) == [{"fc"}, {"fc", "layer1"}, {"fc", "layer1", "bn1", "conv1"}]
