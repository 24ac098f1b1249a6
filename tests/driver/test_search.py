"""A search as the command runs it: generations one beside the other, extended, and begun anew after an edit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from running import Command

from raysweep.store import RunFolder
from raysweep.store.generations import read_generations

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SWEEP = """
name: searched
loop: noop
base: {epochs: 9}
search:
  trials: 10
  generation: 4
  space: {lr: {log_uniform: [0.001, 1]}}
  enqueue: [{lr: 0.1}]
scheduler: {name: asha, min_survivors: 1}
seeds: [0, 1]
report: {images: false}
"""


@pytest.fixture
def searched(cluster: str, tmp_path: Path) -> Command:
    """The command in a folder with a search."""
    (tmp_path / "searched.yaml").write_text(SWEEP)
    shutil.copy(Path(__file__).parents[1] / "noop_loop.py", tmp_path)
    return Command(cluster, tmp_path)


def test_a_search_trains_all_its_generations_and_goes_on_where_trials_are_more(searched: Command) -> None:
    words = (searched.folder / "searched.yaml", "--import", "noop_loop")
    _, err = searched(*words)
    run = RunFolder(str(searched.folder / "runs"), "searched")
    made = [each.generation for each in read_generations(run)]
    assert [len(each.proposals) for each in made] == [4, 4, 2]
    assert made[0].proposals[0] == {"lr": 0.1}
    assert "searched: 20 trials, 16 proposed" in err
    assert "searched: generation 2: 4 new trials, proposed from the results of 8 trials" in err
    records = searched.records("searched")
    assert len(records) == 20
    assert {record["generation"] for record in records.values()} == {0, 1, 2}
    assert {record["status"] for record in records.values()} <= {"finished", "stopped", "diverged"}
    assert "nothing is left to train" in searched(*words)[1]

    more = (*words, "search.trials=14")
    planned = searched("plan", *more)[0]
    assert "search: tpe, 14 configs" in planned
    assert "depend on results" in planned
    searched(*more)
    again = [each.generation for each in read_generations(run)]
    assert again[:3] == made
    assert [len(each.proposals) for each in again[3:]] == [4]
    assert len(searched.records("searched")) == 28

    last = next(id for id, record in searched.records("searched").items() if record["generation"] == 3)
    assert "of generation 3 (4) and of those before that had ended" in searched("status", *more, "--why", last)[0]
    ranked = json.loads(searched("status", *more, "--json")[0])["trials"]
    assert len(ranked) == 28


SETS = """
name: sets
base: {data: {name: synthetic, image_size: 8, classes: 3, per_class: 20}, model.width: 4, epochs: 2, batch_size: 32}
search:
  trials: 6
  generation: 2
  space: {data.image_size: {choice: [8, 12, 16]}, lr: {log_uniform: [0.001, 1]}, ema: {choice: [false]}}
objective: [val_acc, {metric: flops, mode: min}]
confirm: {top: 2, seeds: 2}
report: {images: false}
"""


def test_a_search_over_data_sets_waits_for_new_ones_knows_its_costs_and_is_confirmed_at_its_end(
    cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "sets.yaml").write_text(SETS)
    command = Command(cluster, tmp_path)
    _, err = command(tmp_path / "sets.yaml")
    records = command.records("sets")
    searched = [record for record in records.values() if record.get("generation") is not None]
    assert len(searched) == 6
    assert len({record["config"]["data"]["image_size"] for record in searched}) > 1
    flops = {record["config"]["data"]["image_size"]: record["conditions"]["costs"]["flops"] for record in searched}
    assert len(set(flops.values())) == len(flops)
    assert "is the winner the winner?" in err
    assert {record["status"] for record in records.values()} == {"finished"}
