"""The rooms of the package: import-linter's contracts hold, and notice an import that goes the wrong way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": ".", "COLUMNS": "200"}
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("store/sealed.py", "from raysweep.driver import run", "Imports point down"),
        ("halving/rungs.py", "def f():\n    import torch", "without Ray and torch"),
        ("driver/stop.py", "from raysweep.vision import loop", "know vision by the name"),
        ("report/svg.py", "def f():\n    from raysweep.report import write", "No circles"),
    ],
)
def test_an_import_that_goes_the_wrong_way_is_refused(module: str, line: str, contract: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "raysweep", tmp_path / "raysweep", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "raysweep" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = subprocess.run([LINT, "--no-cache"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert any(contract in text for text in done.stdout.splitlines() if " BROKEN" in text), done.stdout
