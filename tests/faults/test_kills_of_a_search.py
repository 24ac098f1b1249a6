"""SIGKILL to the driver, to a trial's process, to both, at random moments of a search; then the same command again.

In the end the same generations were proposed, and the same became of their trials, as without a kill.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from running import Command, curves, wait_for

from raysweep.store import RunFolder
from raysweep.store.generations import read_generations

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]

SWEEP = """
name: searched
loop: noted
base: {epochs: 18}
search:
  name: tpe
  trials: 20
  generation: 4
  space: {lr: {log_uniform: [0.001, 1]}}
scheduler: {name: asha, min_survivors: 1}
retries: 99
resources: {gpus: 0}
checkpoints: {every_minutes: 0.001}
report: {images: false}
"""
KILLED = ("driver", "worker", "both")
KILLS = [1, pytest.param(20, marks=pytest.mark.long)]


class Search:
    """A search in a folder of its own."""

    def __init__(self, cluster: str, folder: Path) -> None:
        self.folder, self.command = folder, Command(cluster, folder, apart=True)
        self.path = folder / "searched.yaml"
        self.path.write_text(SWEEP)
        shutil.copy(Path(__file__).with_name("noted_loop.py"), folder)
        shutil.copy(Path(__file__).parents[1] / "noop_loop.py", folder)
        (folder / "pids").mkdir()
        self.command.environment |= {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    def start(self) -> Any:
        return self.command.start(self.path, "--import", "noted_loop")

    @property
    def run(self) -> RunFolder:
        return RunFolder(str(self.folder / "runs"), "searched")

    def pids(self) -> list[int]:
        """The processes that have trained, the latest first."""
        notes = sorted((self.folder / "pids").iterdir(), key=lambda path: -path.stat().st_mtime_ns)
        return [int(path.name) for path in notes]

    def outcome(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the generations, and of each trial its end and its curve."""
        run = self.run
        records = {id: record for id in run.trial_ids() if (record := run.record(id))}
        rows = curves({id: {"metrics": record.metrics} for id, record in records.items()})
        ends = {id: (record.status, record.generation, rows[id]) for id, record in records.items()}
        return [each.generation for each in read_generations(run)], ends


def _trains_or_has_ended(search: Search, process: Any, before: int) -> bool:
    return len(search.pids()) > before or process.poll() is not None


@pytest.fixture(scope="module")
def undisturbed(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[list[Any], Any]]:
    """What a run without kills leaves; it is run once, when it is first asked for."""

    @cache
    def run() -> tuple[list[Any], Any]:
        search = Search(cluster, tmp_path_factory.mktemp("search"))
        process = search.start()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        generations, ends = search.outcome()
        assert [len(each.proposals) for each in generations] == [4] * 5
        assert {status for status, *_ in ends.values()} == {"finished", "stopped", "diverged"}
        return generations, ends

    return run


@pytest.mark.parametrize("kills", KILLS)
def test_a_search_that_is_killed_again_and_again_proposes_and_decides_as_an_undisturbed_one(
    cluster: str, undisturbed: Callable[[], tuple[list[Any], Any]], tmp_path: Path, kills: int
) -> None:
    search, chance = Search(cluster, tmp_path), random.Random(kills)
    for number in range(kills):
        process, before = search.start(), len(search.pids())
        wait_for(partial(_trains_or_has_ended, search, process, before), 100)
        time.sleep(chance.uniform(0, 12 / kills))
        whom = KILLED[number % 3]
        if whom != "driver":
            with suppress(ProcessLookupError, IndexError):
                os.kill(search.pids()[0], signal.SIGKILL)
        if whom != "worker":
            process.kill()
        elif kills > 1:
            time.sleep(chance.uniform(0, 2))
            process.kill()
        process.communicate(timeout=300)
    process = search.start()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert search.outcome() == undisturbed()
