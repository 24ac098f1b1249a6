"""What early stopping saves and what it loses, on recorded learning curves.

    early_stopping.py [CURVES.parquet ...] [--draws N] [--choose] [--tried] [--picture FILE.svg]

A draw is 25 or 100 of the recorded runs in random order: a sweep. Each is replayed, event by event, on 1, 4 and 16
slots, by five methods:

* none                 the full grid
* ray_asha             Tune's own AsyncHyperBandScheduler with its defaults: grace period 1, eta 4, max_t 100
* ray_asha, tuned      the same with grace period 8, eta 3
* plain halving        `raysweep.halving.rungs` by the best score so far; rungs 1/9 and 1/3, eta 3, 4 survivors
* asha                 what `scheduler: asha` does by default

Figures: the share of the full grid's epochs that was spent, over all draws; how often the sweep's best score is the
full grid's; by how much it is less (regret, in accuracy 0..1), in the mean and at the 95th percentile; the makespan in
epochs, each of which takes a unit of time, nothing else any. What Tune's ASHA stops depends on who comes first, so its
first figures are those on 4 slots. The targets but for the makespan look at twelve times the draws.

Two 95 % intervals: for the draws, as if the recorded runs were all there are; and, wider, for the runs as a sample of
those that might have been recorded. The second is from 40 random halves of them: a figure's values on halves spread
about the whole's as the values on samples of the whole's size about the truth (the delete-half jackknife, Shao and Wu
1989, "A general theory for jackknife variance estimation").

`--choose` repeats the choice of rules on halves of the runs, each judged on the other half; `--tried` adds what else
was tried; both on 25 runs of the first set. `--picture` draws epochs spent against regret.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from _choice import choice_table, choose_on_halves
from _picture import Series, draw_picture
from _replay import (
    Curves,
    Floats,
    Ints,
    Outcome,
    Outcomes,
    default_rules,
    draw_runs,
    load_curves,
    none,
    ours,
    ray_asha,
    scores_at_rungs,
    synchronous,
)
from _report import emit, parse_arguments, skip
from _tried import try_all

from raysweep.halving.rungs import Rules
from raysweep.sweepfile.schema import RankBy

RECORDED = ("opda-imagenet-alexnet.parquet", "tiny-imagenet-10class-lenet.parquet")
PLAIN = Rules(eta=3, rungs=(Fraction(1, 9), Fraction(1, 3)), min_survivors=4)
PLAIN_RANK_BY: RankBy = "best"
SIZES = (25, 100)
SLOTS = (1, 4, 16)
MORE = 12
"""How many times as many draws are affordable where a method's outcome depends on neither slots nor order."""
TARGETS = {
    "epochs_on_more_draws": ("<=", 0.40),
    "best_kept_on_more_draws": (">=", 0.95),
    "regret_on_more_draws": ("<=", 0.001),
    "makespan_1_to_ray_asha_tuned": ("<=", 1.15),
    "makespan_4_to_ray_asha_tuned": ("<=", 1.15),
    "makespan_16_to_ray_asha_tuned": ("<=", 1.35),
}
"""For `asha` on 25 runs of the first recorded set. A makespan's ratio is taken at equal epochs: each is divided by the
epochs that its method spent."""


@dataclass(frozen=True)
class Method:
    """One way to run a sweep."""

    title: str
    sweep: Callable[[Curves, Ints, int], Outcome]
    many: Callable[[Curves, Ints], Outcomes]
    """Its outcomes for many draws; on 4 slots if they matter."""


def methods(curves: Curves) -> dict[str, Method]:
    """What is compared, by name; the full grid first."""

    def halving(title: str, rules: Rules, rank_by: RankBy) -> Method:
        scores = scores_at_rungs(curves, rules, rank_by)
        return Method(
            title,
            partial(ours, rules=rules, scores=scores),
            partial(synchronous, rules=rules, scores=scores),
        )

    def one_by_one(title: str, sweep: Callable[[Curves, Ints, int], Outcome]) -> Method:
        return Method(title, sweep, lambda curves, draws: replay(sweep, curves, draws, 4))

    tuned = partial(ray_asha, grace_period=8, reduction_factor=3)
    return {
        "none": one_by_one("`none`: the full grid", none),
        "ray_asha": one_by_one("Tune's ASHA, defaults", ray_asha),
        "ray_asha_tuned": one_by_one("Tune's ASHA, grace 8, eta 3", tuned),
        "plain_halving": halving("plain halving", PLAIN, PLAIN_RANK_BY),
        "asha": halving("`asha`", *default_rules()),
    }


def replay(sweep: Callable[[Curves, Ints, int], Outcome], curves: Curves, draws: Ints, slots: int) -> Outcomes:
    """Return what a method spends and finds on each draw."""
    outcomes = [sweep(curves, draw, slots) for draw in draws]
    return Outcomes(*(np.array([getattr(one, name) for one in outcomes]) for name in ("epochs", "best", "makespan")))


@dataclass(frozen=True)
class Figures:
    """What one method reached over draws, beside the full grid on the same draws."""

    epochs: float
    best_kept: float
    regret: float
    regret_p95: float

    @classmethod
    def of(cls, outcomes: Outcomes, full: Outcomes) -> Figures:
        """Compare a method's outcomes with those of the full grid on the same draws."""
        regret = full.best - outcomes.best
        share = outcomes.epochs.sum() / full.epochs.sum()
        return cls(float(share), float((regret <= 0).mean()), float(regret.mean()), float(np.quantile(regret, 0.95)))

    def as_row(self) -> Floats:
        """Return them in their order."""
        return np.array([self.epochs, self.best_kept, self.regret, self.regret_p95])


def interval_of_draws(outcomes: Outcomes, full: Outcomes) -> Floats:
    """Return half of each figure's 95 % interval for the draws, by 400 bootstraps over them."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        some = rng.integers(0, len(full.best), len(full.best))
        rows.append(Figures.of(outcomes.some(some), full.some(some)).as_row())
    return 1.96 * np.std(rows, axis=0)


def interval_of_runs(curves: Curves, names: list[str], size: int, draws: int) -> dict[str, Floats]:
    """Return half of each figure's 95 % interval for the runs, by method: the delete-half jackknife."""
    rng = np.random.default_rng(1)
    rows: dict[str, list[Floats]] = {name: [] for name in names}
    noise: dict[str, list[Floats]] = {name: [] for name in names}
    among = methods(curves)
    for _ in range(40):
        half = rng.permutation(len(curves))[: len(curves) // 2]
        drawn = draw_runs(half, draws, size, rng)
        full = among["none"].many(curves, drawn)
        for name in names:
            outcomes = among[name].many(curves, drawn)
            rows[name].append(Figures.of(outcomes, full).as_row())
            noise[name].append(interval_of_draws(outcomes, full) / 1.96)
    # The halves' figures differ by their draws, too: that part is not the runs'.
    return {
        name: 1.96 * np.sqrt(np.maximum(np.var(rows[name], axis=0) - np.mean(np.square(noise[name]), axis=0), 0))
        for name in names
    }


# ---------------------------------------------------------------------------------------------------------
# Tables and the picture


@dataclass(frozen=True)
class Line:
    """One method on draws of one size of one recorded set."""

    figures: Figures
    of_draws: Floats
    of_runs: Floats | None
    makespans: dict[int, float]
    """The mean over draws, by the number of slots."""
    epochs: float
    """The mean over draws."""


def measure(curves: Curves, size: int, draws: int, half_draws: int) -> dict[str, Line]:
    """Replay every method on the same draws; `half_draws`: of each half, 0 for no interval of runs."""
    among = methods(curves)
    drawn = draw_runs(np.arange(len(curves)), draws, size, np.random.default_rng(0))
    by_slots = {
        name: {slots: replay(method.sweep, curves, drawn, slots) for slots in SLOTS} for name, method in among.items()
    }
    of_runs = interval_of_runs(curves, list(among), size, half_draws) if half_draws else {}
    full = by_slots["none"][4]
    for name in ("plain_halving", "asha"):
        at_once = among[name].many(curves, drawn)
        for slots, outcomes in by_slots[name].items():
            if not (outcomes.epochs == at_once.epochs).all() or not (outcomes.best == at_once.best).all():
                raise AssertionError(f"{name} on {slots} slots does not decide as synchronous halving does")
    return {
        name: Line(
            Figures.of(outcomes[4], full),
            interval_of_draws(outcomes[4], full),
            of_runs.get(name),
            {slots: float(outcomes[slots].makespan.mean()) for slots in SLOTS},
            float(outcomes[4].epochs.mean()),
        )
        for name, outcomes in by_slots.items()
    }


def on_more_draws(curves: Curves, size: int, draws: int) -> dict[str, float]:
    """Return the figures of `asha` on `MORE` times the draws, as its targets name them."""
    drawn = draw_runs(np.arange(len(curves)), MORE * draws, size, np.random.default_rng(0))
    among = methods(curves)
    mine = Figures.of(among["asha"].many(curves, drawn), among["none"].many(curves, drawn))
    return {f"{figure}_on_more_draws": value for figure, value in asdict(mine).items()}


def makespan_ratios(lines: dict[str, Line]) -> dict[int, float]:
    """Return by slots: the makespan of `asha` over that of Tune's tuned ASHA, each an epoch that its method spent."""
    mine, theirs = lines["asha"], lines["ray_asha_tuned"]
    return {slots: mine.makespans[slots] / mine.epochs / (theirs.makespans[slots] / theirs.epochs) for slots in SLOTS}


def table(curves: Curves, size: int, draws: int, lines: dict[str, Line]) -> str:
    """Return Markdown."""
    titles = {name: method.title for name, method in methods(curves).items()}
    rows = [
        f"{size} of the {len(curves)} runs of {curves.name}, {draws} draws",
        "",
        "| | epochs | best kept | mean regret | 95th percentile | makespan on 1, 4, 16 slots |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, line in lines.items():
        shown = [
            _with_intervals(value, line, i, percent)
            for i, (value, percent) in enumerate(zip(line.figures.as_row(), (True, True, False, False), strict=True))
        ]
        spans = ", ".join(f"{line.makespans[slots]:.0f}" for slots in SLOTS)
        rows.append(f"| {titles[name]} | {' | '.join(shown)} | {spans} |")
    return "\n".join(rows)


def _with_intervals(value: float, line: Line, i: int, percent: bool) -> str:
    """The 95th percentile has no interval for the runs: the jackknife knows too little of a quantile."""

    def text(number: float) -> str:
        return f"{100 * number:.1f}" if percent else f"{number:.4f}"

    halves = [line.of_draws[i]]
    if line.of_runs is not None and i < 3:
        halves.append(line.of_runs[i])
    unit = " %" if percent else ""
    return f"{text(value)}{unit}" if max(halves) == 0 else f"{text(value)}{unit} ± {' / '.join(map(text, halves))}"


def picture(curves: Curves, path: Path, draws: int) -> None:
    """Draw epochs spent against mean regret, for 25 runs of one set."""
    drawn = draw_runs(np.arange(len(curves)), draws, SIZES[0], np.random.default_rng(0))
    full = replay(none, curves, drawn, 4)

    def point(outcomes: Outcomes, label: str) -> tuple[float, float, str]:
        figures = Figures.of(outcomes, full)
        return figures.epochs, figures.regret, label

    def survivors(rules: Rules, rank_by: RankBy) -> list[tuple[float, float, str]]:
        scores = scores_at_rungs(curves, rules, rank_by)
        several = [replace(rules, min_survivors=number) for number in range(3, 9)]
        return [point(synchronous(curves, drawn, rules, scores), str(rules.min_survivors)) for rules in several]

    def tune(eta: int) -> list[tuple[float, float, str]]:
        graces = (1, 2, 4, 8, 16)
        sweeps = [partial(ray_asha, grace_period=grace, reduction_factor=eta) for grace in graces]
        outcomes = [replay(sweep, curves, drawn, 4) for sweep in sweeps]
        return [point(one, f"grace {grace}") for one, grace in zip(outcomes, graces, strict=True)]

    rules, rank_by = default_rules()
    draw_picture(
        path,
        f"What early stopping spends and loses: {SIZES[0]} runs of {curves.name}",
        "epochs spent, of those of the full grid",
        "mean regret (accuracy, 0..1)",
        [
            Series("Tune's ASHA, eta 4, 4 slots", tune(4)),
            Series("Tune's ASHA, eta 3, 4 slots", tune(3)),
            Series("plain halving, by survivors", survivors(PLAIN, PLAIN_RANK_BY)),
            Series("asha, by survivors", survivors(rules, rank_by)),
        ],
        (-4, 0),
    )


def recorded_sets(given: list[Path]) -> list[Path]:
    """Return the files to replay: those given, else those in $RAYSWEEP_SHARED."""
    if given:
        return given
    shared = os.environ.get("RAYSWEEP_SHARED")
    if shared is None:
        skip("no curves: name a Parquet file, or set RAYSWEEP_SHARED to the folder with data/learning-curves")
    return [Path(shared) / "data" / "learning-curves" / name for name in RECORDED]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("curves", nargs="*", type=Path, help="default: the two sets in $RAYSWEEP_SHARED")
    parser.add_argument("--draws", type=int, default=1000, help="of 25 and of 100 runs each (default: 1000)")
    parser.add_argument("--choose", action="store_true", help="choose rules on halves, judge on the other halves")
    parser.add_argument("--tried", action="store_true", help="other rules, on the first set")
    parser.add_argument("--picture", type=Path, help="an SVG file to draw")


def main() -> None:
    arguments = parse_arguments(__doc__, add_arguments)
    draws = min(arguments.draws, 100) if arguments.quick else arguments.draws
    figures: dict[str, float] = {}
    targets: dict[str, tuple[str, float]] = {}
    paths = recorded_sets(arguments.curves)
    sets = [load_curves(path) for path in paths]
    for curves in sets:
        for size in SIZES:
            lines = measure(curves, size, draws, 0 if size > SIZES[0] else draws // 10)
            key = f"{curves.name}_{size}"
            for name, line in lines.items():
                figures |= {f"{key}_{name}_{figure}": value for figure, value in asdict(line.figures).items()}
            for slots, ratio in makespan_ratios(lines).items():
                figures[f"{key}_asha_makespan_{slots}_to_ray_asha_tuned"] = ratio
            if f"{curves.name}.parquet" == RECORDED[0] and size == SIZES[0]:
                figures |= {
                    f"{key}_asha_{figure}": value for figure, value in on_more_draws(curves, size, draws).items()
                }
                targets = {f"{key}_asha_{figure}": target for figure, target in TARGETS.items()}
            if not arguments.json:
                print(table(curves, size, draws, lines), end="\n\n", flush=True)
    if arguments.choose:
        judgements = choose_on_halves(sets[0], SIZES[0], draws // 2)
        mean = np.mean([one.where_judged for one in judgements], axis=0)
        figures |= dict(zip(("chosen_epochs", "chosen_best_kept", "chosen_regret"), mean.tolist(), strict=True))
        if not arguments.json:
            print(choice_table(judgements), end="\n\n")
    if arguments.tried and not arguments.json:
        print("| tried | epochs | best kept | mean regret |\n| --- | --- | --- | --- |")
        for name, (share, kept, regret) in try_all(paths[0], sets[0], SIZES[0], MORE * draws):
            print(f"| {name} | {100 * share:.1f} % | {100 * kept:.1f} % | {regret:.4f} |")
        print()
    if arguments.picture:
        picture(sets[0], arguments.picture, draws)
    emit("early_stopping", figures, targets, arguments)


if __name__ == "__main__":
    main()
