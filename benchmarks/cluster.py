"""How well a cluster's slots are used: trials that sleep, on one, two and three worker hosts of two slots each.

The hosts are Ray nodes of this machine, beside a head that runs no trials; a sleeping trial needs no processor, so two
cores are enough. All that a sweep does is done: the plan through Ray Tune, records and weights committed, exports.

The share of the slots' time that is used is (trials x seconds that one sleeps) / (slots x seconds from the first
trial's first line to the last one's last). What is missing are the trials' beginnings and ends, the driver's
decisions, and processes that start later than the first.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from _report import emit, parse_arguments

SLOTS_A_HOST = 2
EPOCHS = 10
SWEEP = """
name: sleeping
loop: sleeping
base: {{epochs: {epochs}}}
seeds: {seeds}
resources: {{cpus: 1, gpus: 0}}
"""


def sleep_on(hosts: int, trials: int) -> dict[str, float]:
    """Run a sweep on so many hosts; return `span_s`, from the first start to the last finish."""
    from ray.cluster_utils import Cluster

    from raysweep.cli import main as raysweep

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(hosts):
        cluster.add_node(num_cpus=SLOTS_A_HOST)
    log = Path(os.environ["SLEEPING_LOG"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sleeping.yaml"
        path.write_text(SWEEP.format(epochs=EPOCHS, seeds=list(range(trials))))
        code = raysweep(
            ["run", str(path), "--storage", folder, "--address", cluster.address, "--import", "_sleeping_loop"]
        )
    cluster.shutdown()
    assert code == 0, f"raysweep ended with {code}"
    notes = [json.loads(note.read_text()) for note in log.glob("*.json")]
    assert len(notes) == trials, f"{len(notes)} trials have slept, not {trials}"
    return {"span_s": max(note["ended"] for note in notes) - min(note["began"] for note in notes)}


def run_apart(hosts: int, trials: int, trial_s: float) -> float:
    """Run the sweep in a fresh process and cluster; return seconds from the first start to the last finish."""
    with tempfile.TemporaryDirectory() as folder:
        told, log = Path(folder) / "told.json", Path(folder) / "log"
        notes = Path(folder) / "notes"
        notes.mkdir()
        words = [sys.executable, __file__, "--contender", str(hosts), str(trials), str(told)]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAYSWEEP_CACHE": f"{folder}/cache"}
        environment |= {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        environment |= {"SLEEPING_EPOCH_S": str(trial_s / EPOCHS), "SLEEPING_LOG": str(notes)}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        with log.open("w") as output:
            done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            raise SystemExit(f"{hosts} hosts ended with {done.returncode}:\n{log.read_text()[-3000:]}")
        span = float(json.loads(told.read_text())["span_s"])
    print(f"{hosts} hosts, {trials} trials of {trial_s:g} s: {span:.1f} s", file=sys.stderr)
    return span


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 3], help="numbers of worker hosts to try")


def main() -> None:
    arguments = parse_arguments(__doc__, _add_hosts)
    trial_s, trials_a_slot = (5.0, 2) if arguments.quick else (30.0, 4)
    figures: dict[str, float] = {"trial_s": trial_s, "slots_a_host": SLOTS_A_HOST}
    targets = {}
    for hosts in arguments.hosts:
        slots = hosts * SLOTS_A_HOST
        span = run_apart(hosts, slots * trials_a_slot, trial_s)
        figures[f"hosts_{hosts}_trials"] = slots * trials_a_slot
        figures[f"hosts_{hosts}_share_used"] = slots * trials_a_slot * trial_s / (slots * span)
        figures[f"hosts_{hosts}_trials_an_hour"] = slots * trials_a_slot / span * 3600
        targets[f"hosts_{hosts}_share_used"] = (">=", 0.97)
    emit("cluster", figures, {} if arguments.quick else targets, arguments)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        logging.disable(logging.WARNING)
        Path(sys.argv[4]).write_text(json.dumps(sleep_on(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
