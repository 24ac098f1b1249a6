"""The price of sharing epochs: how long a sweep takes on 1, 2 and 4 slots, shared and unshared.

    makespan.py [--grids N] [--draws N] [--slots N ...] [--real]

A trial that shares epochs with one that trains them waits for it, so a slot may stay empty that would not be otherwise.
Sweeps are played event by event, by the driver's own queue (tests/played_slots.py): those in sweeps/, and random grids
of step, warmup-stable-decay, constant and cosine schedules with several networks, learning rates, lengths and seeds;
each as it is and with `asha`. How long an epoch takes is drawn for each network from recorded runs (RAYSWEEP_SHARED),
else between 0.2 and 5 s; to begin in a slot costs nothing, or VISIT_S.

No machine takes exactly as long twice, and with a few trials on a few slots who begins next is chance: an `asha` sweep
that is not shared at all may end 15 % later because its epochs take less, or because other trials score well. So each
sweep is played several times on each number of slots, with other scores, every trial up to 5 % faster or slower, and
its price is the mean of these makespans, shared / unshared.

Figures, a set of sweeps each: the mean and the worst of the prices. `above` counts those of more than 1.02; `lone` the
plays of `--draws 1` that are. `much_saved` are those where more than 10 % of the training is saved; `no_shorter` those
of them that are not below 1, and `longer` those that are above 1. `at_bound` counts those of `no_shorter` where the
sweep takes no longer, unshared, than its longest trial: what that one trains comes one epoch after the other, shared or
not, so that no order is shorter. `missed` are the rest of `no_shorter`. In all of them shared epochs are trained once.

`--real` (with a Ray of its own) runs a sweep of six sleeping trials on 1, 2 and 4 slots, shared and unshared, by `none`
and by `asha`; `lost` is what one slot spends on all but epochs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from _grids import Grid, random_grid
from _report import emit, parse_arguments

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from played_slots import Epoch, Plan, epochs_of, play

from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import Trial, plan_trials
from raysweep.sweepfile.schema import AshaConfig, NoneConfig, SchedulerConfig

SWEEPS = Path(__file__).parent.parent / "sweeps"
SLOTS = (1, 2, 4)
VARIES = 0.05
"""How much faster or slower a trial may be than the recorded run, from draw to draw."""
EQUAL = 1e-9
"""Makespans are equal that differ by rounding alone."""
VISIT_S = 0.1
"""About what it takes a trial to begin in a process that is there, and to commit what it takes over (`--real`)."""


@dataclass(frozen=True)
class Price:
    """A sweep on some slots, shared beside unshared."""

    ratio: float  # of the mean makespans
    lone_ratio: float  # of the makespans of the first draw alone
    saved: float  # the share of the time in training
    is_at_bound: bool  # whether the sweep takes no longer, unshared, than its longest trial, in all draws


def price(grid: Grid, scheduler: SchedulerConfig, slots: int, visit_s: float, luck: int, draws: int) -> Price:
    """Play a grid shared and unshared, several times."""
    played = [_play_both(grid, scheduler, slots, visit_s, luck, draw) for draw in range(draws)]
    shared, alone, saved, longest = zip(*played, strict=True)
    is_at_bound = sum(alone) <= sum(longest) * (1 + EQUAL)
    return Price(sum(shared) / sum(alone), shared[0] / alone[0], mean(saved), is_at_bound)


def _play_both(
    grid: Grid, scheduler: SchedulerConfig, slots: int, visit_s: float, luck: int, draw: int
) -> tuple[float, float, float, float]:
    """Return the makespans, shared and unshared, the share of the time in training that is saved, the longest trial."""

    def score(epoch: Epoch) -> float:
        return random.Random(f"{luck} {draw} {epoch}").random()

    def seconds(trial: Trial) -> float:
        return grid.seconds(trial) * random.Random(f"{luck} {draw} {trial.id}").uniform(1 - VARIES, 1 + VARIES)

    plan = Plan(grid.trials, scheduler, score, seconds, visit_s)
    shared, alone = play(plan, slots), play(plan, slots, shared=False)
    assert (shared.statuses, shared.histories) == (alone.statuses, alone.histories)
    assert set(shared.trained.values()) == {1}, "an epoch was trained twice"
    epochs = epochs_of(grid.trials)
    takes = {epoch: grid.seconds(trial) for trial in grid.trials for epoch in epochs[trial.id]}
    trained = [sum(takes[epoch] * times for epoch, times in played.trained.items()) for played in (shared, alone)]
    longest = max(visit_s + alone.histories[trial.id] * seconds(trial) for trial in grid.trials)
    return shared.makespan, alone.makespan, 1 - trained[0] / trained[1], longest


def shipped() -> Iterator[Grid]:
    """Yield the sweeps of sweeps/, whose networks' costs are in the ratio of their depths."""
    for path in sorted(SWEEPS.glob("*.yaml")):
        yield Grid(plan_trials(load_sweep(path)), _seconds_by_depth)


def _seconds_by_depth(trial: Trial) -> float:
    model: Any = trial.config.model  # type: ignore[attr-defined]
    name = str(model.name)
    depth = next((depth for depth in (152, 101, 50, 34, 18) if name.endswith(str(depth))), 10)
    return depth / 10 * (model.width or 64) / 64


def recorded_durations() -> list[float]:
    """Return seconds an epoch of recorded runs, or made-up ones."""
    folder = os.environ.get("RAYSWEEP_SHARED")
    if not folder:
        draw = random.Random(0)
        return [draw.uniform(0.2, 5) for _ in range(100)]
    import pyarrow.parquet as pq

    path = Path(folder) / "data" / "learning-curves" / "opda-imagenet-alexnet.parquet"
    times = pq.read_table(path, columns=["curve_time"])["curve_time"].to_pylist()
    return [each[-1] / len(each) for each in times if each]


def prices_of_shipped(scheduler: SchedulerConfig, slots: Sequence[int], draws: int) -> Iterator[Price]:
    for luck, grid in enumerate(shipped()):
        for count in slots:
            yield price(grid, scheduler, count, VISIT_S, luck, draws)


def prices_of_grids(grids: int, scheduler: SchedulerConfig, slots: Sequence[int], draws: int) -> Iterator[Price]:
    durations = recorded_durations()
    for luck in range(grids):
        grid = random_grid(random.Random(luck), durations)
        for count in slots:
            yield price(grid, scheduler, count, VISIT_S * (luck % 2), luck, draws)


def figures_of(name: str, prices: Sequence[Price]) -> dict[str, float]:
    much_saved = [each for each in prices if each.saved > 0.1]
    no_shorter = [each for each in much_saved if each.ratio >= 1 - EQUAL]
    return {
        f"{name}_sweeps": len(prices),
        f"{name}_mean": mean(each.ratio for each in prices),
        f"{name}_worst": max(each.ratio for each in prices),
        f"{name}_saved_mean": mean(each.saved for each in prices),
        f"{name}_above": sum(each.ratio > 1.02 for each in prices),
        f"{name}_lone": sum(each.lone_ratio > 1.02 for each in prices),
        f"{name}_much_saved": len(much_saved),
        f"{name}_no_shorter": len(no_shorter),
        f"{name}_longer": sum(each.ratio > 1 + EQUAL for each in no_shorter),
        f"{name}_at_bound": sum(each.is_at_bound for each in no_shorter),
        f"{name}_missed": sum(not each.is_at_bound for each in no_shorter),
    }


# ---------------------------------------------------------------------------------------------------------
# For real

REAL_SLOTS = (1, 2, 4)
REAL_EPOCH_S = 0.4
REAL = """
name: forking
loop: forking
base: {{epochs: 8}}
grid: {{lr: [0.1, 0.2], epochs: [8, 16, 32]}}
scheduler: {scheduler}
limits: {{max_concurrent: {slots}}}
resources: {{cpus: 1, gpus: 0}}
share: {share}
"""


def run_forking(scheduler: str, slots: int, share: bool) -> None:
    import ray

    from raysweep.cli import main as raysweep

    ray.init(address="local", num_cpus=max(REAL_SLOTS), log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "forking.yaml"
        path.write_text(REAL.format(scheduler=scheduler, slots=slots, share=str(share).lower()))
        assert raysweep(["run", str(path), "--storage", folder, "--import", "_forking_loop"]) == 0
    ray.shutdown()


def span(scheduler: str, slots: int, share: bool) -> tuple[float, int]:
    """Run it in a fresh process and cluster; return seconds from the first epoch to the last, and their number."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--contender", json.dumps([scheduler, slots, share])]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAYSWEEP_CACHE": f"{folder}/cache"}
        environment |= {"PYTHONPATH": f"{Path(__file__).parent}:{SWEEPS.parent}", "OMP_NUM_THREADS": "1"}
        environment |= {"RAY_worker_niceness": "0"}  # else on a busy machine trials start late
        environment |= {"FORKING_LOG": f"{folder}/notes", "FORKING_EPOCH_S": str(REAL_EPOCH_S)}
        (Path(folder) / "notes").mkdir()
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{words} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        lines = [line for note in (Path(folder) / "notes").iterdir() for line in note.read_text().splitlines()]
    times = [tuple(map(float, line.split())) for line in lines]
    took = max(ended for _, ended in times) - min(began for began, _ in times)
    print(f"{scheduler}, {slots} slots, share {share}: {took:.1f} s, {len(times)} epochs", file=sys.stderr)
    return took, len(times)


def real_figures() -> dict[str, float]:
    figures: dict[str, float] = {"real_epoch_s": REAL_EPOCH_S}
    for scheduler in ("none", "asha"):
        for slots in REAL_SLOTS:
            (shared, epochs), (alone, asked) = span(scheduler, slots, True), span(scheduler, slots, False)
            figures[f"real_{scheduler}_{slots}_saved"] = 1 - epochs / asked
            figures[f"real_{scheduler}_{slots}_ratio"] = shared / alone
            if slots == 1:
                figures[f"real_{scheduler}_lost_shared_s"] = shared - epochs * REAL_EPOCH_S
                figures[f"real_{scheduler}_lost_alone_s"] = alone - asked * REAL_EPOCH_S
    return figures


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grids", type=int, default=300, help="how many random grids")
    parser.add_argument("--draws", type=int, default=10, help="how often each sweep is played on each number of slots")
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS, help="the numbers of slots")
    parser.add_argument("--real", action="store_true", help="run sleeping trials on Ray, too: five minutes")


def main() -> None:
    arguments = parse_arguments(__doc__, _add_flags)
    grids, draws = (20, 2) if arguments.quick else (arguments.grids, arguments.draws)
    schedulers: dict[str, SchedulerConfig] = {"none": NoneConfig(), "asha": AshaConfig(name="asha")}
    figures, targets = dict[str, float](), dict[str, tuple[str, float]]()
    for name, scheduler in schedulers.items():
        figures |= figures_of(f"shipped_{name}", list(prices_of_shipped(scheduler, arguments.slots, draws)))
        figures |= figures_of(f"grids_{name}", list(prices_of_grids(grids, scheduler, arguments.slots, draws)))
        for kind in ("shipped", "grids"):
            targets |= {f"{kind}_{name}_{each}": ("<=", 0) for each in ("above", "longer", "missed")}
    if arguments.real:
        figures |= real_figures()
    emit("makespan", figures, targets, arguments)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        run_forking(*json.loads(sys.argv[2]))
    else:
        main()
