"""Exports during a run: a process for each tool, whose faults do not touch the run."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from run_folders import make_run
from running import Command

from raysweep.driver import exporters
from raysweep.driver.exporters import exporting


@pytest.fixture
def run_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run, in the working directory, where modules are found before the real ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    make_run(tmp_path, epochs=2)
    return str(tmp_path / "runs/made")


def test_an_exporter_that_fails_is_told_of_with_its_log_and_nothing_is_raised(run_path: str) -> None:
    Path("trackio.py").write_text("raise ImportError('broken on purpose')")
    said: list[str] = []
    with exporting(run_path, ["trackio"], said.append) as wait:
        wait()
    (line,) = said
    assert line.startswith("export to trackio failed, the run did not; its log: ")
    log = Path(line.rpartition(" ")[2]).read_text()
    assert "export to trackio: broken on purpose; install it: pip install 'raysweep[trackio]'" in log
    assert "Traceback" not in log


def test_a_tool_that_is_not_installed_is_told_of_at_once(run_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    said: list[str] = []
    with exporting(run_path, ["trackio"], said.append) as wait:
        assert said == ["no export to trackio, which is not installed: pip install 'raysweep[trackio]'"]
        wait()
    assert len(said) == 1


HANGS = "import time; time.sleep(600)"


def test_ctrl_c_ends_the_wait_for_all_exporters_that_hang(run_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "SAY_AFTER_S", 0.1)
    for tool in ("trackio", "mlflow"):
        Path(f"{tool}.py").write_text(HANGS)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("waiting for the export to trackio and mlflow"):
            signal.raise_signal(signal.SIGINT)

    with exporting(run_path, ["trackio", "mlflow"], say) as wait:
        wait()
    assert said[1:] == ["export to trackio and mlflow ended before it was whole; `raysweep export` does the rest"]


def test_exporters_that_hang_share_one_deadline(run_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "SAY_AFTER_S", 0.1)
    monkeypatch.setattr(exporters, "WAIT_S", 2.0)
    for tool in ("trackio", "mlflow"):
        Path(f"{tool}.py").write_text(HANGS)
    said: list[str] = []
    with exporting(run_path, ["trackio", "mlflow"], said.append) as wait:
        began = time.monotonic()
        wait()
        took = time.monotonic() - began
    assert took < 3.5
    assert said[0] == "waiting for the export to trackio and mlflow, 2 s at most; Ctrl-C ends it"
    assert [line.partition(";")[0] for line in said[1:]] == [
        "export to trackio took more than 2 s for its last pass and was ended",
        "export to mlflow took more than 2 s for its last pass and was ended",
    ]


def test_a_folder_of_a_tools_name_is_not_the_tool(run_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("wandb").mkdir()
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    said: list[str] = []
    with exporting(run_path, ["wandb"], said.append):
        assert said == ["no export to wandb, which is not installed: pip install 'raysweep[wandb]'"]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_run_exports_itself_whole_and_an_exporter_that_fails_does_not_harm_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.syspath_prepend(command.folder)
    (command.folder / "trackio.py").write_text("raise ImportError('broken on purpose')")  # found before the real one
    sweep = command.sweep("[0.1]")
    sweep.write_text(f"{sweep.read_text()}export: [trackio, mlflow]\n")
    _, err = command(sweep)
    assert "export to trackio failed, the run did not; its log: " in err
    assert "exported to mlflow" in err
    client = MlflowClient(f"sqlite:///{command.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    trials = {run.info.run_name: run for run in runs if "seed" in run.data.tags}
    for id, record in command.records("small").items():
        run = trials.pop(id)
        assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
        history = client.get_metric_history(run.info.run_id, "val_acc")
        assert [(each.step, each.value) for each in history] == [
            (row["epoch"], row["val_acc"]) for row in record["metrics"]
        ]
    assert trials == {}
