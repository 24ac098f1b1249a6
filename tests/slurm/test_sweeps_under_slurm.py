"""`raysweep submit --slurm` on a real Slurm: jobs that run out of time and nodes that die change no number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from namespace_hosts import following, wait_until
from running import check_equal, records_alone, records_in
from slurm_hosts import SlurmHosts

SWEEP = """
name: {name}
base: {{data: digits, model: paced, epochs: {epochs}, batch_size: 64}}
grid: {{lr: {lrs}}}
scheduler: {{name: asha, eta: 2, rungs: [1/3], min_survivors: 1}}
checkpoints: {{every_minutes: 0.02}}
resources: {{cpus: 1}}
cluster: {{nodes: {nodes}, gpus_per_node: 0, cpus_per_node: 1, memory_per_node: 1G, slurm: {slurm}}}
"""
PACED = Path(__file__).parent / "paced.py"
IMPORT = ("--import", "paced")
Make = Callable[..., SlurmHosts]


class Sweep:
    """A sweep that is submitted from the login node.

    Args:
        alone: the records to end with; by default those of the same sweep that is run now on this machine alone.
    """

    def __init__(
        self,
        hosts: SlurmHosts,
        folder: Path,
        epochs: int,
        nodes: int,
        name: str = "digits",
        lrs: str = "[0.1, 0.01]",
        slurm: str = "{time: 60}",
        alone: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.hosts, self.name = hosts, name
        for place in (folder, hosts.shared):
            shutil.copy(PACED, place)
        text = SWEEP.format(name=name, epochs=epochs, nodes=nodes, lrs=lrs, slurm=slurm)
        (folder / "sweep.yaml").write_text(text)
        self.alone = records_alone(folder / "sweep.yaml", *IMPORT, STEP_S="0") if alone is None else alone
        (hosts.shared / f"{name}.yaml").write_text(text)

    def submit(self, *words: str) -> Any:
        return self.hosts.submit(f"{self.name}.yaml", *IMPORT, *words)

    def job(self) -> int:
        """The id of its job, once it is in the queue."""
        listed = lambda: self.hosts.run("squeue", "--noheader", "--format=%i", f"--name={self.name}").split()  # noqa: E731
        return int(wait_until(listed, 60, f"{self.name} is in the queue")[0])

    def wait_for_start(self, go: int) -> None:
        """Wait until its job runs for the so manyth time, and has committed more than it had when it began to."""
        job = self.job()
        again = {"JobState": "RUNNING", "Restarts": str(go - 1)}
        wait_until(lambda: again.items() <= self.hosts.job(job).items(), 240, f"job {job} runs, for the {go}. time")
        epochs = self.epochs()
        wait_until(lambda: self.epochs() > epochs, 240, f"a commit in the {go}. go")

    def epochs(self) -> int:
        """How many epochs are committed."""
        records = records_in(self.hosts.shared / "runs" / self.name)
        return sum(len(record["metrics"]) for record in records.values())

    def follow_to_the_end(self, process: Any) -> str:
        """Wait until the command that follows the job ends well, and the numbers are those of the undisturbed run."""
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        check_equal(records_in(self.hosts.shared / "runs" / self.name), self.alone)
        return str(said)


def check_nothing_is_left(hosts: SlurmHosts, nodes: int) -> None:
    """No job in the queue, and neither processes of Ray nor folders of the jobs on the nodes."""
    wait_until(lambda: hosts.nodes() == {"idle": nodes}, 90, "all nodes are idle")
    for node in (f"h{n + 1}" for n in range(nodes)):
        left = "ps -eo comm= | grep -E '^(raylet|gcs_server|ray::)'; ls -d /tmp/raysweep-* 2> /dev/null"
        assert hosts.run("bash", "-c", left, host=node, code=None) == "", node


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_whose_time_is_nearly_up_goes_back_into_the_queue_and_ends_as_if_undisturbed(
    make_slurm: Make, tmp_path: Path
) -> None:
    hosts = make_slurm(2)
    sweep = Sweep(hosts, tmp_path, epochs=30, nodes=2)
    process = sweep.submit()
    sweep.wait_for_start(1)
    job = sweep.job()
    hosts.time_is_nearly_up(job)
    said = sweep.follow_to_the_end(process)
    assert "the job's time is nearly up: trials commit" in said
    assert f"job {job} waits in the queue again, for run 2" in said
    assert "goes on after epoch" in said
    assert f"job {job} has ended: COMPLETED" in said
    assert "2 of 2 trials done" in hosts.raysweep("status", "digits.yaml")
    hosts.raysweep("pull", "digits.yaml", "--to", "/tmp/shared/best")
    assert (hosts.shared / "best" / "model.safetensors").stat().st_size > 0
    check_nothing_is_left(hosts, 2)


@pytest.mark.long
@pytest.mark.timeout(840)
def test_ten_goes_through_the_queue_change_no_number(make_slurm: Make, tmp_path: Path) -> None:
    hosts = make_slurm(1)
    sweep = Sweep(hosts, tmp_path, epochs=60, nodes=1)
    process = sweep.submit()
    for go in range(1, 11):
        sweep.wait_for_start(go)
        hosts.time_is_nearly_up(sweep.job())
    assert "for run 11" in sweep.follow_to_the_end(process)
    check_nothing_is_left(hosts, 1)


@pytest.mark.long
@pytest.mark.timeout(840)
def test_a_sweep_outlives_a_lost_node_its_time_limit_and_the_loss_of_its_first_node(
    make_slurm: Make, tmp_path: Path
) -> None:
    hosts = make_slurm(3)
    sweep = Sweep(hosts, tmp_path, epochs=150, nodes=3, lrs="[0.1, 0.03, 0.01]", slurm="{time: 2, signal_seconds: 30}")
    process = sweep.submit()
    sweep.wait_for_start(1)
    job = sweep.job()
    first = hosts.job(job)["BatchHost"]
    lost = next(node for node in ("h1", "h2") if node != first)
    hosts.kill(lost)
    wait_until(lambda: hosts.job(job)["NumNodes"] == "2", 120, "Slurm has seen the loss")
    assert hosts.job(job)["Restarts"] == "0"
    hosts.boot(lost)

    sweep.wait_for_start(2)  # after the time limit, which is a real one
    first = hosts.job(job)["BatchHost"]
    hosts.kill(first)
    wait_until(lambda: int(hosts.job(job)["Restarts"]) > 1, 240, "the job is in the queue again")
    hosts.boot(first)
    said = sweep.follow_to_the_end(process)
    assert "the job's time is nearly up: trials commit" in said
    assert "its node went away" in said


@pytest.mark.long
@pytest.mark.timeout(840)
def test_two_sweeps_share_nodes_and_one_is_left_followed_again_and_replaced(make_slurm: Make, tmp_path: Path) -> None:
    hosts = make_slurm(2)
    one = Sweep(hosts, tmp_path, epochs=80, nodes=2, name="one")
    two = Sweep(hosts, tmp_path, epochs=80, nodes=2, name="two", alone=one.alone)
    of_two = two.submit()
    with following(one.submit()) as lines:
        one.wait_for_start(1)
        two.wait_for_start(1)
        jobs = [sweep.job() for sweep in (one, two)]
        assert [hosts.job(job)["NodeList"] for job in jobs] == ["h[1-2]", "h[1-2]"], lines
    assert hosts.state(jobs[0]) == "RUNNING"  # the command was killed, not the job

    refused = hosts.raysweep("submit", "--slurm", *IMPORT, "one.yaml", "--time", "90", code=2)
    assert f"one has a job already, {jobs[0]}, with another script" in refused
    assert "+#SBATCH --time=90" in refused
    again = hosts.raysweep("submit", "--slurm", *IMPORT, "one.yaml", "--detach")
    assert f"one has a job already, {jobs[0]}" in again

    said = one.follow_to_the_end(one.submit("--replace", "--time", "90"))
    assert f"stopping job {jobs[0]}: its trials commit" in said
    assert "goes on after epoch" in said
    two.follow_to_the_end(of_two)
    check_nothing_is_left(hosts, 2)
