"""Every YAML block of README and docs is what it seems: a sweep file that can be planned, or a part of one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from raysweep.sweepfile import Sweep, load_sweep
from raysweep.sweepfile.plan import StartedFrom, plan_trials

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(ya?ml[^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(
        block[1],
        block[2],
        path.read_text()[: block.start()].rpartition("\n## ")[2],
        id=f"{path.name}:{path.read_text()[: block.start()].count(chr(10)) + 1}",
    )
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    for block in BLOCK.finditer(path.read_text())
]


@pytest.mark.parametrize(("info", "text", "before"), BLOCKS)
def test_every_yaml_block_is_planned(info: str, text: str, before: str, tmp_path: Path) -> None:
    """With what a module registers that stands before it, below the same heading."""
    kind = info.removeprefix("yaml").strip()
    assert kind in ("", "fragment", "other"), "CONTRIBUTING.md says which kinds of blocks there are"
    if kind == "other":  # another tool's
        assert isinstance(YAML(typ="safe", pure=True).load(text), dict)
        return
    for code in PYTHON.findall(before):
        if "register_" in code:
            exec(code, {})
    file = tmp_path / "sweep.yaml"
    file.write_text(text if kind == "" else f"name: fragment\n{text}")
    assert plan_trials(load_sweep(file, find_start=_begins_with_its_own_config))


def _begins_with_its_own_config(sweep: Sweep) -> StartedFrom:
    """The trial of another run that `start` names, as if there were one."""
    config = plan_trials(sweep.model_copy(update={"start": None}))[0].config.model_dump(mode="json")
    assert sweep.start
    return StartedFrom(str(sweep.start.run), str(sweep.start.trial), sweep.start.epoch or 1, sweep.loop, config, 0)


def test_the_reference_is_what_the_models_make() -> None:
    """In a process of its own, where no other test has registered names."""
    command = [sys.executable, "-m", "raysweep", "schema", "--markdown"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert (ROOT / "docs" / "sweep_file.md").read_text() == made, "run `make reference`"
