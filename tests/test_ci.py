"""What CI runs goes on to the tests where something that only a few of them need cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"


@pytest.mark.parametrize("has_npm", [False, True])
def test_ci_runs_the_tests_where_no_language_server_can_be_installed(tmp_path: Path, has_npm: bool) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "timeout"):
        (programs / name).symlink_to(str(shutil.which(name)))
    made = {"id": "echo 1000", "chromium": "", "make": 'echo "make $1"; test "$1" = test'} | (
        {"npm": ""} if has_npm else {}
    )
    for name, does in made.items():
        (programs / name).write_text(f"#!{shutil.which('bash')}\n{does}\n")
        (programs / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci")
    environment = {**os.environ, "PATH": str(programs)}
    ended = subprocess.run([tmp_path / ".ci/run"], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == (["make editor", "make test"] if has_npm else ["make test"])
    assert ended.stderr == "no YAML language server: tests/sweepfile/test_editor.py will fail\n"
