"""Finds which witness tells early who will win, from full runs on real Tiny ImageNet, and makes those runs.

    witness.py                     analyses the runs in witness_curves.parquet: under a minute
    witness.py --train [--runs N]  first trains those that the file does not have yet; half a minute each, on one core

The runs (`_witness_runs.py`): random learning rate, optimizer, schedule, augmentation and network, each trained to its
end by `raysweep.vision.loop`. A run's result is the best accuracy of its plain or EMA weights at any epoch. A
witness is a number made from what a run reported up to an epoch; it is judged by

* Kendall's tau (b) between witness and result;
* what halving by it loses, in draws of 12 runs: how often the best is kept, and the mean regret in accuracy, where the
  best third go on from one rung, and where half go on from 1/9 and a quarter from 1/3 (39 % of the epochs).

Runs with even numbers are for choosing, those with odd numbers for judging. Behind "±" stands half of a 95 % interval
for the runs as a sample: of tau by the bootstrap over runs; of what halving loses, and of the ratio of a regret to the
plain witness's (by its logarithm), from subsets of two thirds of them (the delete-d jackknife, Shao and Wu 1989).
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _replay import Curves, Floats, Ints, draw_runs, synchronous
from _report import emit, parse_arguments
from _witness_runs import train_runs
from scipy.stats import kendalltau

from raysweep.halving.rungs import Rules
from raysweep.halving.scores import trend

CURVES = Path(__file__).with_name("witness_curves.parquet")
FRACTIONS = tuple(Fraction(share) for share in ("1/9", "1/6", "1/5", "1/3", "1/2", "2/3"))
HALVING = Rules(eta=2, rungs=(Fraction(1, 9), Fraction(1, 3)), min_survivors=1)
DRAWN = 12
PLAIN = "plain, best so far"
DEFAULT = "averaged, trend"
"""What `scheduler: asha` ranks by."""
TARGETS = {
    "judging_default_regret_to_plain": ("<=", 1 / 3),
    "judging_chosen_regret_to_plain": ("<=", 1 / 3),
}
FLOOR = 1e-4
"""Added to regrets before their logarithms are taken: some subsets lose nothing."""

History = Mapping[str, Floats]
"""A run's values up to an epoch, by metric."""


def best(metric: str) -> Callable[[History], float]:
    return lambda history: float(np.max(history[metric]))


def last(metric: str, sign: int = 1) -> Callable[[History], float]:
    return lambda history: float(sign * history[metric][-1])


def rising(metric: str, sign: int = 1) -> Callable[[History], float]:
    return lambda history: trend([sign * float(value) for value in history[metric]])


def rising_whole(metric: str) -> Callable[[History], float]:
    def witness(history: History) -> float:
        values = history[metric]
        return float(2 * values[-1] - values[math.ceil(len(values) * 2 / 3) - 1])

    return witness


WITNESSES: dict[str, Callable[[History], float]] = {
    PLAIN: best("val_acc"),
    "plain, last": last("val_acc"),
    "plain, trend": rising("val_acc"),
    "averaged, best so far": best("val_acc_ema"),
    "averaged, last": last("val_acc_ema"),
    "averaged, trend": rising("val_acc_ema"),
    "averaged, trend with the whole rise": rising_whole("val_acc_ema"),
    "averaged over 3 epochs, last": last("val_acc_mean3"),
    "averaged over the last half, last": last("val_acc_mean_half"),
    "plain val_loss, last": last("val_loss", -1),
    "averaged val_loss, last": last("val_loss_ema", -1),
    "averaged val_loss, trend": rising("val_loss_ema", -1),
    "train_loss, last": last("train_loss", -1),
    "train_loss, trend": rising("train_loss", -1),
}


def load_histories(path: Path) -> tuple[Curves, list[dict[str, Floats]]]:
    """Read the runs: their results as curves of the better of plain and EMA weights, and all their metrics."""
    if not path.exists():
        raise SystemExit(f"{path}: no such file; `witness.py --train` makes it")
    rows = pq.read_table(path).to_pylist()
    histories = [
        {
            name.removeprefix("curve_"): np.array(values, dtype=float)
            for name, values in row.items()
            if name.startswith("curve_")
        }
        for row in rows
    ]
    epochs = np.array([row["epochs"] for row in rows])
    score = np.full((len(rows), int(epochs.max())), np.nan)
    for i, history in enumerate(histories):
        score[i, : len(history["val_acc"])] = np.fmax(history["val_acc"], history["val_acc_ema"])
    return Curves(path.stem, score, epochs, np.isfinite(score).sum(axis=1)), histories


def values_at(curves: Curves, histories: list[dict[str, Floats]], name: str, rungs: Sequence[Fraction]) -> Floats:
    """Return runs x rungs: a witness there, NaN where a run does not come to be."""
    values = np.full((len(curves), len(rungs)), np.nan)
    for i, history in enumerate(histories):
        for r, rung in enumerate(rungs):
            epoch = math.ceil(rung * int(curves.epochs[i]))
            if epoch <= curves.recorded[i]:
                values[i, r] = WITNESSES[name]({metric: column[:epoch] for metric, column in history.items()})
    return values


def tau_with_interval(witness: Floats, result: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Return Kendall's tau b and half of its 95 % interval; a run that has diverged is behind all others."""
    witness = np.where(np.isfinite(witness), witness, -np.inf)
    value = float(kendalltau(witness, result).statistic)
    again = rng.integers(0, len(result), (200, len(result)))
    return value, 1.96 * float(np.nanstd([kendalltau(witness[some], result[some]).statistic for some in again]))


@dataclass(frozen=True)
class Loss:
    """What halving by a witness loses."""

    best_kept: float
    regret: float


def loss(curves: Curves, drawn: Ints, rules: Rules, scores: Floats) -> Loss:
    regret = curves.best[drawn].max(axis=1) - synchronous(curves, drawn, rules, scores).best
    return Loss(float((regret <= 0).mean()), float(regret.mean()))


def subsets(runs: Ints, number: int) -> list[Ints]:
    """Return random two thirds of the runs."""
    rng = np.random.default_rng(2)
    return [rng.permutation(runs)[: -(len(runs) // 3)] for _ in range(number)]


def interval(values: Sequence[float], runs: int) -> float:
    """Return half of a 95 % interval from a figure's values on `subsets`."""
    left_out = runs // 3
    return 1.96 * float(np.std(values)) * math.sqrt((runs - left_out) / left_out)


def tau_table(curves: Curves, histories: list[dict[str, Floats]], runs: Ints) -> str:
    """Return Markdown: Kendall's tau of each witness at each fraction."""
    lines = [
        f"| Kendall's tau, {len(runs)} runs | {' | '.join(str(rung) for rung in FRACTIONS)} |",
        f"| --- |{' --- |' * len(FRACTIONS)}",
    ]
    for name in WITNESSES:
        values = values_at(curves, histories, name, FRACTIONS)
        cells = [
            tau_with_interval(values[runs, r], curves.best[runs], np.random.default_rng(r))
            for r in range(len(FRACTIONS))
        ]
        lines.append(f"| {name} | {' | '.join(f'{tau:.2f} ± {half:.2f}' for tau, half in cells)} |")
    return "\n".join(lines)


def third_table(curves: Curves, histories: list[dict[str, Floats]], runs: Ints, draws: int) -> str:
    """Return Markdown: what is lost where the best third go on from one rung."""
    drawn = draw_runs(runs, draws, DRAWN, np.random.default_rng(3))
    lines = [
        f"| best kept, mean regret; {len(runs)} runs | {' | '.join(str(rung) for rung in FRACTIONS)} |",
        f"| --- |{' --- |' * len(FRACTIONS)}",
    ]
    for name in WITNESSES:
        values = values_at(curves, histories, name, FRACTIONS)
        losses = [loss(curves, drawn, Rules(eta=3, rungs=(rung,)), values[:, [r]]) for r, rung in enumerate(FRACTIONS)]
        lines.append(f"| {name} | {' | '.join(f'{100 * one.best_kept:.0f} %, {one.regret:.4f}' for one in losses)} |")
    return "\n".join(lines)


def halving_table(
    curves: Curves, histories: list[dict[str, Floats]], runs: Ints, draws: int
) -> tuple[str, dict[str, tuple[Loss, float, float]]]:
    """Return Markdown, and by witness its loss, the ratio of its regret to the plain one's, and that ratio's factor.

    The factor is that by which the ratio's 95 % interval reaches up and down.
    """
    rng = np.random.default_rng(4)
    on_all = draw_runs(runs, draws, DRAWN, rng)
    on_some = [draw_runs(some, max(50, draws // 10), DRAWN, rng) for some in subsets(runs, 60)]
    scores = {name: values_at(curves, histories, name, HALVING.rungs) for name in WITNESSES}
    parts = {name: [loss(curves, drawn, HALVING, values) for drawn in on_some] for name, values in scores.items()}
    whole = {name: loss(curves, on_all, HALVING, values) for name, values in scores.items()}
    lines = [
        f"| half go on from 1/9, a quarter from 1/3; {len(runs)} runs | best kept | mean regret | regret to plain |",
        "| --- | --- | --- | --- |",
    ]
    outcome = {}
    for name in WITNESSES:
        kept = interval([one.best_kept for one in parts[name]], len(runs))
        lost = interval([one.regret for one in parts[name]], len(runs))
        ratio = whole[name].regret / whole[PLAIN].regret
        ratios = [
            math.log((one.regret + FLOOR) / (plain.regret + FLOOR))
            for one, plain in zip(parts[name], parts[PLAIN], strict=True)
        ]
        factor = math.exp(interval(ratios, len(runs)))
        lines.append(
            f"| {name} | {100 * whole[name].best_kept:.1f} % ± {100 * kept:.1f} "
            f"| {whole[name].regret:.4f} ± {lost:.4f} | {ratio:.2f}, within a factor of {factor:.1f} |"
        )
        outcome[name] = (whole[name], ratio, factor)
    return "\n".join(lines), outcome


RUNGS: list[Rules] = [
    Rules(eta, tuple(Fraction(share) for share in rungs.split()), survivors)
    for rungs, eta, survivors in (
        ("1/9 2/9", 3, 4),
        ("1/9 2/9", 3, 5),
        ("1/9 1/3", 3, 4),
        ("1/9 1/3", 3, 5),
        ("1/9 2/9 1/2", 2, 4),
        ("1/9 1/3 1/2", 2, 4),
        ("1/6 1/3 1/2", 2, 4),
    )
]


def rungs_table(curves: Curves, histories: list[dict[str, Floats]], draws: int) -> str:
    """Return Markdown: what some rungs spend and lose in draws of 25 of all runs, by three witnesses."""
    drawn = draw_runs(np.arange(len(curves)), draws, 25, np.random.default_rng(5))
    names = (PLAIN, DEFAULT, "averaged val_loss, last")
    lines = [
        f"| best kept, mean regret; 25 of {len(curves)} runs | epochs | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]
    for rules in RUNGS:
        cells = []
        for name in names:
            scores = values_at(curves, histories, name, rules.rungs)
            lost = loss(curves, drawn, rules, scores)
            cells.append(f"{100 * lost.best_kept:.0f} %, {lost.regret:.4f}")
        share = synchronous(curves, drawn, rules, scores).epochs.sum() / curves.spent[drawn].sum()
        title = f"rungs {', '.join(map(str, rules.rungs))}; eta {rules.eta}; {rules.min_survivors} survivors"
        lines.append(f"| {title} | {100 * share:.1f} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", action="store_true", help="train the runs that the file does not have yet")
    parser.add_argument("--runs", type=int, default=96, help="how many there are to be (default: 96)")
    parser.add_argument("--curves", type=Path, default=CURVES, help="the file (default: beside this script)")


def main() -> None:
    arguments = parse_arguments(__doc__, add_arguments)
    if arguments.train:
        shared = os.environ.get("RAYSWEEP_SHARED")
        if shared is None and "RAYSWEEP_DATA" not in os.environ:
            raise SystemExit("no images: set RAYSWEEP_DATA to the folder with tiny-imagenet-200")
        train_runs(arguments.curves, arguments.runs, Path(shared or "."))
    curves, histories = load_histories(arguments.curves)
    draws = 200 if arguments.quick else 2000
    numbers = np.arange(len(curves))
    figures: dict[str, float] = {"runs": len(curves)}
    chosen = ""
    if len(numbers) < 3 * DRAWN:
        raise SystemExit(
            f"{arguments.curves}: {len(numbers)} runs, too few to judge by; at least {3 * DRAWN} are needed"
        )
    for half, runs in (("choosing", numbers[::2]), ("judging", numbers[1::2]), ("all", numbers)):
        text, outcome = halving_table(curves, histories, runs, draws)
        if half == "choosing":
            chosen = min(outcome, key=lambda name: outcome[name][0].regret)
        for name in {PLAIN, DEFAULT, chosen}:
            key = f"{half}_{name.replace(',', '').replace(' ', '_')}"
            figures |= {f"{key}_best_kept": outcome[name][0].best_kept, f"{key}_regret": outcome[name][0].regret}
        figures[f"{half}_default_regret_to_plain"] = outcome[DEFAULT][1]
        figures[f"{half}_chosen_regret_to_plain"] = outcome[chosen][1]
        if not arguments.json:
            tables = (tau_table(curves, histories, runs), third_table(curves, histories, runs, draws), text)
            print(f"## {half}\n", *tables, sep="\n\n", end="\n\n")
    if not arguments.json:
        print(rungs_table(curves, histories, draws), end="\n\n")
        print(f"least regret on the choosing half: {chosen}; the default is: {DEFAULT}\n")
    emit("witness", figures, TARGETS, arguments)


if __name__ == "__main__":
    main()
