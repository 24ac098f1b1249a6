"""Nothing reaches out (docs/offline.md): where the network leads to nobody, nobody there is addressed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASKED_BY_RAY = {"169.254.169.254:80", "DNS metadata.google.internal"}
"""Where a machine of a cloud learns about itself: Ray's dashboard asks once which it is in, and nothing stops it."""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network"),
    pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("ip")), reason="needs util-linux and iproute2"),
]


def addressed_by(script: str, folder: Path, **variables: str) -> set[str]:
    """Run a script of bash in a network of its own, of the tools' variables with these alone; whom it addressed."""
    tools = ("RAY_", "MLFLOW_", "WANDB_", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(tools)}
    # Names are given up after a second, and Ray tells of its use after a second, not after a minute.
    environment |= {"RES_OPTIONS": "timeout:1 attempts:1", "RAY_USAGE_STATS_REPORT_INTERVAL_S": "1"} | variables
    alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    ended = subprocess.run(
        [*alone, sys.executable, str(ROOT / "tests" / "uplink.py"), "bash", "-ec", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return set(json.loads(ended.stdout.splitlines()[-1]))


def test_a_sweep_its_checkpoint_and_its_exports_reach_out_to_nobody(tmp_path: Path) -> None:
    script = f"""
        raysweep="{sys.executable} -m raysweep"
        $raysweep {ROOT}/sweeps/quickstart.yaml --storage {tmp_path} epochs=2 'grid.lr=[0.1]'
        $raysweep pull quickstart
        $raysweep export quickstart --to mlflow
        $raysweep export quickstart --to wandb
    """
    assert addressed_by(script, tmp_path) <= ASKED_BY_RAY
    assert list(tmp_path.glob("pulled/quickstart/*"))
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_a_cluster_with_the_variables_of_the_image_reaches_out_to_nobody(tmp_path: Path) -> None:
    said = dict(re.findall(r"(RAY_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    assert (
        f"export {' '.join(f'{name}={value}' for name, value in said.items())}"
        in (ROOT / "docs" / "offline.md").read_text()
    )
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is too long for Ray's sockets
        start = f"{sys.executable} -m ray.scripts.scripts start --head --num-cpus=1 --temp-dir={folder}"
        seen = addressed_by(f"{start}; sleep 10", tmp_path, **said)
    assert "DNS metadata.google.internal" in seen, "the dashboard got as far as that"
    assert seen <= ASKED_BY_RAY
