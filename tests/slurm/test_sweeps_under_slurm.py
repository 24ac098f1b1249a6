"""`raysweep submit --slurm` on a real Slurm: jobs that run out of time and nodes that die change no number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from namespace_hosts import following, wait_until
from running import check_equal, records_alone, records_in
from slurm_hosts import SlurmHosts

SWEEP = """
name: {name}
base: {{data: digits, model: baseline_block, epochs: {epochs}, batch_size: 64}}
grid: {{model.width: {widths}, lr: [0.1, 0.01]}}
scheduler: {{name: asha, eta: 2, rungs: [1/3], min_survivors: 2}}
checkpoints: {{every_minutes: 0.02}}
resources: {{cpus: 1}}
cluster: {{nodes: {nodes}, gpus_per_node: 0, cpus_per_node: 1, memory_per_node: 1G, slurm: {slurm}}}
"""
Make = Callable[..., SlurmHosts]


class Sweep:
    """A sweep that is submitted from the login node; the same one runs undisturbed first, on this machine alone."""

    def __init__(
        self,
        hosts: SlurmHosts,
        folder: Path,
        epochs: int,
        nodes: int,
        name: str = "digits",
        widths: str = "[4, 8]",
        slurm: str = "{time: 60}",
    ) -> None:
        self.hosts, self.name = hosts, name
        text = SWEEP.format(name=name, epochs=epochs, nodes=nodes, widths=widths, slurm=slurm)
        (folder / name).mkdir()
        (folder / name / "sweep.yaml").write_text(text)
        self.alone = records_alone(folder / name / "sweep.yaml")
        (hosts.shared / f"{name}.yaml").write_text(text)

    def submit(self, *words: str) -> Any:
        return self.hosts.submit(f"{self.name}.yaml", *words)

    def records(self) -> dict[str, dict[str, Any]]:
        return records_in(self.hosts.shared / "runs" / self.name)

    def epochs(self) -> int:
        """How many epochs are committed."""
        return sum(len(record["metrics"]) for record in self.records().values())

    def wait_for_more(self, than: int = 0) -> int:
        """Wait until more epochs are committed; return how many."""
        return int(wait_until(lambda: epochs if (epochs := self.epochs()) > than else 0, 180, "a commit"))

    def follow_to_the_end(self, process: Any) -> str:
        """Wait until the command that follows the job ends well, and the numbers are those of the undisturbed run."""
        with following(process) as lines:
            code = process.wait(400)
        said = "".join(lines)
        assert code == 0, said
        check_equal(self.records(), self.alone)
        return said


def check_nothing_is_left(hosts: SlurmHosts, nodes: int) -> None:
    """No job in the queue, and neither processes of Ray nor folders of the jobs on the nodes."""
    wait_until(lambda: not hosts.jobs(), 60, "no job is left")
    for node in (f"h{n + 1}" for n in range(nodes)):
        ray = "pgrep --list-full 'raylet|gcs_server' || pgrep --list-full '^ray::'; ls -d /tmp/raysweep-*"
        left = hosts.run("bash", "-c", f"{ray} 2> /dev/null", host=node, code=None)
        assert left == "", f"{node}: {left}"


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_whose_time_is_nearly_up_goes_back_into_the_queue_and_ends_as_if_undisturbed(
    make_slurm: Make, tmp_path: Path
) -> None:
    hosts = make_slurm(2)
    sweep = Sweep(hosts, tmp_path, epochs=24, nodes=2, widths="[4]")
    process = sweep.submit()
    sweep.wait_for_more()
    (job,) = hosts.jobs()
    hosts.run("scancel", "--batch", "--signal=USR1", str(job))  # what Slurm itself sends before the time limit
    said = sweep.follow_to_the_end(process)
    assert "the job's time is nearly up: trials commit" in said
    assert f"job {job} waits in the queue again, for the 2nd go" in said
    assert "goes on after epoch" in said
    assert f"job {job} has ended: COMPLETED" in said
    assert "2 of 2 trials done" in hosts.raysweep("status", "digits.yaml")
    hosts.raysweep("pull", "digits.yaml", "--to", "/tmp/shared/best")
    assert (hosts.shared / "best" / "model.safetensors").stat().st_size > 0
    check_nothing_is_left(hosts, 2)
