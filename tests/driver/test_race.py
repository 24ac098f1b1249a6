"""Confirming on a real cluster: rounds of fresh seeds, also after a kill in the middle of one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from running import SMALL, Command, wait_for

from raysweep.store import RunFolder

pytestmark = pytest.mark.ray


def verdict(command: Command, name: str) -> dict[str, Any]:
    document = json.loads(command("status", command.folder / f"runs/{name}", "--json")[0])
    of_winner = {key: value for key, value in document["winner"].items() if key != "sentences"}
    assert of_winner["is_known"]
    return {"winner": of_winner, "configs": document["configs"], "trials": document["trials"]}


def test_killed_in_the_middle_of_a_round_and_run_again_it_ends_with_the_same_verdict(command: Command) -> None:
    text = SMALL.format(model="baseline_block", lrs="[0.1, 0.02]").replace("epochs: 3", "epochs: 4")
    (command.folder / "small.yaml").write_text(text)
    out, err = command("confirm", "small.yaml", "confirm.seeds=2", "name=undisturbed")
    assert "with fresh seeds (1000)" in err
    assert "inner: lr " in out.splitlines()[0]

    killed = command.start("confirm", "small.yaml", "confirm.seeds=2")
    folder = RunFolder(str(command.folder / "runs"), "small")
    wait_for(lambda: any("seed1000" in id for id in folder.trial_ids()), 60)
    killed.kill()
    killed.communicate()
    undisturbed = verdict(command, "undisturbed")
    command("small.yaml")  # an ordinary run goes on with the race
    assert verdict(command, "small") == undisturbed
    seeds = {trial["seed"] for trial in undisturbed["trials"]}
    assert seeds >= {0, 1000}
