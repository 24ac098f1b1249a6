"""`plan` warns of what this machine lacks, and still plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.cli import main
from raysweep.commands import plan


def test_a_gpu_that_this_machine_lacks_and_a_missing_folder_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(plan, "GPU_DEVICES", (str(tmp_path / "gpu*"),))
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nresources: {gpus: 1}\nbase: {data: {name: folder, path: pets}}\n")
    assert main(["plan", str(file)]) == 0
    out = capsys.readouterr().out
    assert "warning: resources.gpus is 1, and this machine has no GPU" in out
    assert "warning: data.path: pets is not on this machine" in out
    (tmp_path / "gpu0").touch()
    (tmp_path / "pets").mkdir()
    assert main(["plan", str(file)]) == 0
    assert "warning" not in capsys.readouterr().out
