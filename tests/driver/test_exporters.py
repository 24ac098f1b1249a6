"""Exports during a run: a process for each tool, whose faults do not touch the run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from run_folders import make_run

from raysweep.driver.exporters import exporting


@pytest.mark.skipif(importlib.util.find_spec("trackio") is not None, reason="trackio is installed")
def test_an_exporter_that_fails_is_told_of_with_its_log_and_nothing_is_raised(tmp_path: Path) -> None:
    make_run(tmp_path, epochs=2)
    said: list[str] = []
    with exporting(str(tmp_path / "runs/made"), ["trackio"], said.append) as wait:
        wait()
    (line,) = said
    assert line.startswith("export to trackio failed, the run did not; its log: ")
    log = Path(line.rpartition(" ")[2]).read_text()
    assert "pip install 'raysweep[trackio]'" in log
    assert "Traceback" not in log
