"""Whether what is said of a sweep's winner is true: simulated sweeps with known truth, and real runs resampled.

    winner.py                  2,000 simulated sweeps and 200 resampled ones: five minutes on one core
    winner.py --train          first trains the runs that `winner_runs.parquet` does not have yet: five minutes
    winner.py --sweeps N       so many simulated sweeps

A sweep is played through: 5 to 50 configs are trained by 1 to 5 seeds each; the five best race with fresh seeds as long
as `still_racing` asks for them; `judge` says who won. The same without fresh seeds, for sweeps of at least two seeds;
and without the bits of images, by seeds alone.
Figures, over sweeps: how often the interval of the winner's accuracy covers the true one; how often a winner was called
clear though another config is as good; by how many points the accuracy said, and the score that the winner was chosen
by, exceed the true one; fresh seeds spent, as a share of five for each of five.

`_winner_sweeps.py` describes the simulated sweeps; `_winner_twins.py` those whose configs share epochs. The real ones
are drawn from 20 configs on digits, trained with 20 seeds each and judged by 898 images (`_winner_runs.py`): seeds and
359 images are drawn with replacement, so that the mean over all 20 seeds and all 898 images is the truth that they are
drawn from.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from _report import emit, parse_arguments
from _winner_sweeps import KINDS, WORLDS, Sweep, draw_sweep
from _winner_trials import Outcome, figures, play
from _winner_twins import print_twins

from raysweep.results.winner import Sample

RUNS = Path(__file__).with_name("winner_runs.parquet")
IMAGES = 359
"""Validation images of a resampled sweep: as many as digits have in a sweep."""
TARGETS = {
    "simulated_covered": (">=", 0.935),
    "simulated_not_covered": (">=", 0.035),
    "simulated_wrongly_clear": ("<=", 0.05),
    "simulated_wrongly_clear_in_the_worst_kind": ("<=", 0.05),
    "simulated_optimism_points": ("<=", 0.2),
    "simulated_spent": ("<=", 0.6),
    "digits_wrongly_clear": ("<=", 0.05),
    "digits_optimism_points": ("<=", 0.2),
    "digits_spent": ("<=", 0.6),
}

Bits = npt.NDArray[np.bool_]
Played = dict[str, list[Outcome]]
"""Outcomes by the name of a group of sweeps; a sweep is in several groups."""


def simulate(sweeps: int) -> Iterator[tuple[list[str], Outcome, Outcome | None]]:
    """Play simulated sweeps; yield the groups of each, the outcome after the race, and that without one."""
    for number in range(sweeps):
        rng = np.random.default_rng([2029, number])
        kind = list(KINDS)[number % len(KINDS)]
        world = list(WORLDS)[number // len(KINDS) % len(WORLDS)]
        seeds, configs = int(rng.integers(1, 6)), int(rng.integers(5, 51))
        sweep = draw_sweep(WORLDS[world], kind, configs, rng)
        raced = play(sweep.train, sweep.truth, seeds, with_race=True)
        size = next(f"up to {most} configs" for most in (10, 25, 50) if configs <= most)
        yield [kind, world, _count(seeds), size], raced, play(sweep.train, sweep.truth, seeds, with_race=False)


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def simulate_by_seeds(sweeps: int) -> Iterator[tuple[list[str], Outcome, Outcome | None]]:
    """The same without the bits of images; the truth is what fresh seeds reach on the sweep's own images."""
    for number in range(sweeps):
        rng = np.random.default_rng([1908, number])
        kind = list(KINDS)[number % len(KINDS)]
        world = [name for name, of in WORLDS.items() if of.images < 1000][number // len(KINDS) % 3]
        seeds, configs = int(rng.integers(1, 6)), int(rng.integers(5, 31))
        sweep = draw_sweep(WORLDS[world], kind, configs, rng)
        truth = np.array([np.mean(sweep.train(config, 200).scores) for config in range(configs)])

        def train(config: int, seeds: int, sweep: Sweep = sweep) -> Sample:
            return Sample(sweep.train(config, seeds).scores)

        yield [kind, world], play(train, truth, seeds, with_race=True), play(train, truth, seeds, with_race=False)


def resample(bits: Bits, sweeps: int) -> Iterator[tuple[list[str], Outcome, Outcome | None]]:
    """Play sweeps drawn from real runs: configs x seeds x images."""
    truth = bits.mean((1, 2))
    for number in range(sweeps):
        rng = np.random.default_rng([1797, number])
        images = rng.integers(0, bits.shape[2], IMAGES)

        def train(
            config: int, seeds: int, rng: np.random.Generator = rng, images: npt.NDArray[np.int64] = images
        ) -> Sample:
            right = bits[config, rng.integers(0, bits.shape[1], seeds)][:, images]
            return Sample(right.mean(1).tolist(), right)

        seeds = 1 + number % 5
        raced = play(train, truth, seeds, with_race=True)
        yield [_count(seeds)], raced, play(train, truth, seeds, with_race=False)


def collect(outcomes: Iterator[tuple[list[str], Outcome, Outcome | None]]) -> tuple[Played, Played]:
    """Return the outcomes with a race and those without, by group; the group of all sweeps is `all`."""
    raced: Played = {}
    alone: Played = {}
    for groups, with_race, without in outcomes:
        for group in ["all", *groups]:
            raced.setdefault(group, []).append(with_race)
            alone.setdefault(group, []).extend([without] if without else [])
    return _in_order(raced), _in_order(alone)


def _in_order(groups: Played) -> Played:
    names = ["all", *KINDS, *WORLDS]
    order = sorted(groups, key=lambda name: (names.index(name) if name in names else len(names), len(name), name))
    return {name: groups[name] for name in order if groups[name]}


def load_runs() -> Mapping[str, tuple[Bits, float]]:
    """Return what the recorded runs got right, configs x seeds x images, and what picking an epoch gains, by set."""
    table = pq.read_table(RUNS).to_pandas().sort_values(["set", "config", "seed"])
    found = {}
    for name, rows in table.groupby("set"):
        packed = np.array([np.frombuffer(each, np.uint8) for each in rows.correct])
        bits = np.unpackbits(packed, axis=1, count=int(rows.images.iloc[0])).astype(bool)
        found[str(name)] = bits.reshape(rows.config.nunique(), -1, bits.shape[1]), float(rows.optimism.mean())
    return found


def shares(bits: Bits) -> dict[str, float]:
    """Return what the variance of a bit consists of, and the seeds' standard deviation; configs x seeds x images in."""
    configs, seeds, images = bits.shape
    rates = bits.mean(1)
    accuracy = rates.mean(1)
    total = accuracy * (1 - accuracy)
    residual = bits.var(1, ddof=1).mean(1)
    covariance = np.cov(rates) / np.sqrt(np.outer(total, total))
    others = ~np.eye(configs, dtype=bool)
    between = np.maximum(bits.mean(2).var(1, ddof=1) - residual / images, 0)
    return {
        "residual": float((residual / total).mean()),
        "common_to_seeds": float((np.diag(covariance) - residual / total / seeds).mean()),
        "common_to_configs": float(covariance[others].mean()),
        "between_seeds_points": float(100 * np.sqrt(np.median(between))),
    }


def simulated_shares(world: str) -> dict[str, float]:
    """Return the same of a simulated world, for ten equal configs of ten seeds."""
    sweep = draw_sweep(WORLDS[world], "all equal", 10, np.random.default_rng(0))
    right = [sweep.train(config, 10).correct for config in range(10)]
    return shares(np.array(right))


def print_groups(title: str, groups: Played) -> None:
    """Print a table in Markdown, a row for each group of sweeps.

    *optimism*: of the accuracy said; *naive*: of the score that the winner was chosen by; *width*: of the interval;
    *loss*: by how much the winner is worse than the best; all in points. *chance, best*: the winner's mean chance of
    being the best, and how often it is, by itself.
    """
    print(f"\n{title}\n")
    print("| | sweeps | covered | clear | wrongly | optimism | naive | width | loss | chance, best | spent |")
    print("| --- " * 11 + "|")
    for group, outcomes in groups.items():
        of = figures(outcomes)
        points = f"{of['naive_optimism_points']:+.2f} | {of['width_points']:.2f} | {of['loss_points']:.2f}"
        print(
            f"| {group} | {of['sweeps']} | {of['covered']:.1%} ± {1.96 * of['covered_se']:.1%} | {of['clear']:.1%} "
            f"| {of['wrongly_clear']:.1%} | {of['optimism_points']:+.2f} ± {1.96 * of['optimism_points_se']:.2f} "
            f"| {points} | {of['chance_of_winner']:.0%}, {of['winner_is_best']:.0%} | {of['spent']:.0%} |"
        )


def named(name: str, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the figures, their names beginning with `name`."""
    of = figures(outcomes)
    return {f"{name}_{key}": value for key, value in {**of, "not_covered": 1 - of["covered"]}.items()}


def main() -> None:
    def add_own(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sweeps", type=int, default=2000, help="simulated sweeps (2000)")
        parser.add_argument("--train", action="store_true", help="train the runs that are not recorded yet")

    arguments = parse_arguments(__doc__, add_own)
    if arguments.train:
        from _winner_runs import train_runs

        train_runs(RUNS, Path(os.environ.get("RAYSWEEP_SHARED", ".")))
    runs = load_runs()
    for name, (bits, picked) in runs.items():
        print(f"{name}: {bits.shape[0]} configs x {bits.shape[1]} seeds x {bits.shape[2]} images:", shares(bits))
        print(f"  the best epoch looks {100 * picked:.2f} points better on the half of the images that it is picked on")
    for world in WORLDS:
        print(f"simulated, {world}:", simulated_shares(world))
    sweeps = 100 if arguments.quick else arguments.sweeps
    raced, alone = collect(simulate(sweeps))
    print_groups("Simulated sweeps, with a race:", raced)
    print_groups("Simulated sweeps, without fresh seeds:", alone)
    by_seeds, by_seeds_alone = collect(simulate_by_seeds(15 if arguments.quick else 300))
    print_groups("Simulated sweeps without bits, with a race:", by_seeds)
    print_groups("Simulated sweeps without bits, without fresh seeds:", by_seeds_alone)
    print("\nConfigs that share epochs, without bits:")
    print_twins(10 if arguments.quick else 250)
    real, real_alone = collect(resample(runs["digits"][0], 20 if arguments.quick else 200))
    print_groups("Digits resampled, with a race:", real)
    print_groups("Digits resampled, without fresh seeds:", real_alone)
    reported = {
        "simulated": raced["all"],
        "simulated_alone": alone["all"],
        "by_seeds": by_seeds["all"],
        "by_seeds_alone": by_seeds_alone["all"],
        "digits": real["all"],
        "digits_alone": real_alone["all"],
    }
    numbers = {key: value for name, of in reported.items() for key, value in named(name, of).items()}
    worst = max(figures(raced[kind])["wrongly_clear"] for kind in KINDS)
    emit("winner", numbers | {"simulated_wrongly_clear_in_the_worst_kind": worst}, TARGETS, arguments)


if __name__ == "__main__":
    main()
