"""How much of the full grid's front halving by several objectives keeps, and for how many epochs, on recorded runs.

    pareto.py                 the table, and rules chosen on one half of the runs and judged on the other: two minutes
    pareto.py --train         first trains the runs that pareto_curves.parquet does not have: 8 s each, on one core

Two sets of runs on real Tiny ImageNet (16 classes, 800 validation images): `sizes`, ten networks of 0.23 to 12 MFLOPs
(`_pareto_runs.py`), and `witness`, those of `witness.py`, with three networks. Sweeps are random draws of 40 of the
runs. A config's accuracy is the best of its plain and EMA weights at any epoch that it trained.

What is kept is a ratio of hypervolumes: the area that the front of the halved sweep dominates, over that of the full
grid's, between chance accuracy and a point right of the largest network by a tenth of the axis; the axis of FLOPs is
logarithmic, and in one column linear. Equal epochs are compared with what needs no halving: a random part of the
configs trained to its end, and all configs trained for a part of their epochs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from _pareto_runs import train_runs
from _replay import Floats, Ints, draw_runs
from _report import emit, parse_arguments

from raysweep.halving.dominance import dominators, hypervolume, in_order
from raysweep.halving.rungs import Halving, Member, Rules, Verdict
from raysweep.halving.scores import rung_scores
from raysweep.sweepfile.schema import Objective
from raysweep.vision.config import ModelConfig
from raysweep.vision.models.summary import summarize

SIZES = Path(__file__).with_name("pareto_curves.parquet")
WITNESS = Path(__file__).with_name("witness_curves.parquet")
CLASSES, IMAGE_SIZE = 16, 40
SWEEP = 40
"""Configs of a sweep; of the half by which rules are chosen it is 30."""
MOST_EPOCHS = 0.45
GOAL = 0.98
RUNGS = tuple(map(Fraction, ("1/18", "1/9", "1/6", "2/9", "1/3")))
TARGETS = {"judged_kept": (">=", GOAL), "judged_epochs": ("<=", MOST_EPOCHS)}
Order = Callable[[Sequence[Sequence[float]]], list[int]]


@dataclass(frozen=True)
class Runs:
    """Recorded runs; row i of each array is run i."""

    name: str
    history: list[list[dict[str, float]]]
    best: Floats  # runs x epochs: the best accuracy so far
    flops: Floats

    def __len__(self) -> int:
        return len(self.history)

    @property
    def epochs(self) -> int:
        """How many each run was to train, and did."""
        return self.best.shape[1]


@dataclass(frozen=True)
class Outcome:
    """What sweeps spent and kept, an entry a draw."""

    epochs: Floats  # shares of the full grid's
    kept: Floats  # with FLOPs on a log axis
    kept_linear: Floats

    def cells(self) -> list[str]:
        """Return what the table has of it."""
        low, high = np.quantile(self.kept, (0.05, 0.95))
        kept = f"{100 * self.kept.mean():.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        often, linear = np.mean(self.kept >= GOAL), self.kept_linear.mean()
        return [f"{100 * self.epochs.mean():.1f} %", kept, f"{100 * often:.0f} %", f"{100 * linear:.1f} %"]


def load(path: Path) -> Runs:
    """Read the runs that did not diverge."""
    rows = [row for row in pq.read_table(path).to_pylist() if len(row["curve_val_acc"]) == row["epochs"]]
    history = [
        [
            {"epoch": epoch, "val_acc": plain, "val_acc_ema": averaged}
            for epoch, (plain, averaged) in enumerate(
                zip(row["curve_val_acc"], row["curve_val_acc_ema"], strict=True), 1
            )
        ]
        for row in rows
    ]
    accuracies = [[max(each["val_acc"], each["val_acc_ema"]) for each in run] for run in history]
    networks = [json.dumps(json.loads(row["config"])["model"]) for row in rows]
    flops = {each: summarize(ModelConfig.model_validate_json(each), CLASSES, IMAGE_SIZE).flops for each in {*networks}}
    costs = np.array([flops[each] for each in networks], float)
    return Runs(path.stem, history, np.maximum.accumulate(np.array(accuracies), axis=1), costs)


def scores_of(runs: Runs, rules: Rules) -> Floats:
    """Return runs x rungs: what `scheduler: asha` ranks by, by default."""
    rungs, objective = rules.rung_epochs(runs.epochs), Objective(mode="max")
    return np.array([[score for score, _ in rung_scores(run, rungs, objective, "trend")] for run in runs.history])


def trained(runs: Runs, draw: Ints, rules: Rules, scores: Floats, order: Order) -> Ints:
    """Return how many epochs each run of a sweep trains."""
    stops = (*rules.rung_epochs(runs.epochs), runs.epochs)
    reached, alive = np.zeros(len(draw), int), np.arange(len(draw))
    for r, places in enumerate(rules.places(len(draw))):
        points = [(-scores[draw[i], r], runs.flops[draw[i]]) for i in alive]
        alive = alive[order(points)[:places]]
        reached[alive] = r + 1
    return np.array(stops)[reached]


def check_that_it_is_what_halving_does(runs: Runs, draw: Ints, rules: Rules, scores: Floats) -> None:
    """Compare `trained` with `raysweep.halving`, to which the runs come in the order of the draw."""
    halving = Halving(rules, [Member(f"{i:04}", i, "", runs.epochs) for i in draw])
    alive, reached = list(draw), dict.fromkeys(draw, 0)
    for r in range(len(rules.rungs)):
        for i in alive:
            halving.record(f"{i:04}", r, scores[i, r], costs=[runs.flops[i]])
        alive = [i for i in alive if halving.verdict(f"{i:04}") is Verdict.SAFE]
        reached |= dict.fromkeys(alive, r + 1)
    stops = (*rules.rung_epochs(runs.epochs), runs.epochs)
    ours = sorted(draw, key=lambda i: (scores[i, 0] * -1, i))  # ties go by score and id there
    of_ours = dict(zip(ours, trained(runs, np.array(ours), rules, scores, in_order), strict=True))
    different = [i for i in draw if stops[reached[i]] != of_ours[i]]
    if len(different) > len(draw) // 10:  # at later rungs ties between equal scores may go either way
        raise AssertionError(f"{len(different)} of {len(draw)} runs end elsewhere")


def outcome(runs: Runs, draws: Ints, ends: Sequence[Ints]) -> Outcome:
    """Return what sweeps keep whose runs end after these epochs, 0 for those that are left out."""
    log = np.log10(runs.flops)
    right = log.max() + 0.1 * np.ptp(log)
    kept = []
    for flops, beyond in ((log, right), (runs.flops, runs.flops.max() + 0.1 * np.ptp(runs.flops))):
        reference = (-1 / CLASSES, beyond)
        ratios = []
        for draw, end in zip(draws, ends, strict=True):
            full = [(-runs.best[i, -1], flops[i]) for i in draw]
            ours = [(-runs.best[i, epochs - 1], flops[i]) for i, epochs in zip(draw, end, strict=True) if epochs]
            ratios.append(hypervolume(ours, reference) / hypervolume(full, reference))
        kept.append(np.array(ratios))
    return Outcome(np.array([end.sum() / (len(end) * runs.epochs) for end in ends]), *kept)


def halved(runs: Runs, draws: Ints, rules: Rules, order: Order = in_order) -> Outcome:
    scores = scores_of(runs, rules)
    return outcome(runs, draws, [trained(runs, draw, rules, scores, order) for draw in draws])


def by_score(points: Sequence[Sequence[float]]) -> list[int]:
    """The order of one objective."""
    return sorted(range(len(points)), key=lambda place: points[place][0])


def fronts_of(points: Sequence[Sequence[float]]) -> list[int]:
    """Non-dominated sorting, as in NSGA-II: the second front is what only points of the first dominate."""
    fronts, left, front = [0] * len(points), list(range(len(points))), 0
    while left:
        front += 1
        counts = dominators([points[place] for place in left])
        for place, count in zip(left, counts, strict=True):
            fronts[place] = 0 if count else front
        left = [place for place in left if not fronts[place]]
    return fronts


def fronts_by_score(points: Sequence[Sequence[float]]) -> list[int]:
    """Front by front, within a front by score."""
    fronts = fronts_of(points)
    return sorted(range(len(points)), key=lambda place: (fronts[place], points[place][0]))


def fronts_by_crowding(points: Sequence[Sequence[float]]) -> list[int]:
    """Front by front, within a front by the crowding distance of NSGA-II, FLOPs on a log axis."""
    fronts, crowding = fronts_of(points), dict[int, float]()
    values = [(score, math.log10(cost)) for score, cost in points]
    for front in {*fronts}:
        members = [place for place, own in enumerate(fronts) if own == front]
        crowding |= dict.fromkeys(members, 0.0)
        for axis in (0, 1):
            ordered = sorted(members, key=lambda place: values[place][axis])
            span = values[ordered[-1]][axis] - values[ordered[0]][axis] or 1.0
            crowding[ordered[0]] = crowding[ordered[-1]] = math.inf
            for before, place, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
                crowding[place] += (values[after][axis] - values[before][axis]) / span
    return sorted(range(len(points)), key=lambda place: (fronts[place], -crowding[place], points[place][0]))


def by_slack(points: Sequence[Sequence[float]]) -> list[int]:
    """By how much better a score no larger network has: nearness to the front in place of the number of fronts."""
    best = [
        points[place][0] - min(score for score, flops in points if flops <= points[place][1])
        for place in range(len(points))
    ]
    spread = {place: at for at, place in enumerate(in_order(points))}
    return sorted(range(len(points)), key=lambda place: (best[place], spread[place]))


DEFAULTS = Rules(3, (Fraction(1, 9), Fraction(2, 9)), 4, costs=(False,))
WIDER = Rules(2, (Fraction(1, 9), Fraction(2, 9)), 14, costs=(False,))
EARLIER = Rules(2, (Fraction(1, 18), Fraction(1, 9)), 16, costs=(False,))
WIDE, EARLY = "eta 2, min_survivors 14", "rungs 1/18, 1/9, eta 2, min_survivors 16"
TABLE: dict[str, tuple[Rules, Order]] = {
    "defaults, by val_acc alone": (DEFAULTS, by_score),
    "defaults": (DEFAULTS, in_order),
    f"{WIDE}, by val_acc alone": (WIDER, by_score),
    WIDE: (WIDER, in_order),
    f"{WIDE}, by NSGA-II: fronts, then crowding": (WIDER, fronts_by_crowding),
    f"{WIDE}, by fronts, then val_acc": (WIDER, fronts_by_score),
    f"{WIDE}, by nearness to the front": (WIDER, by_slack),
    f"{EARLY}, by val_acc alone": (EARLIER, by_score),
    EARLY: (EARLIER, in_order),
    f"{EARLY}, by NSGA-II": (EARLIER, fronts_by_crowding),
}


def table(runs: Runs, draws: Ints, rng: np.random.Generator) -> tuple[str, dict[str, Outcome]]:
    found = {name: halved(runs, draws, rules, order) for name, (rules, order) in TABLE.items()}
    share = found[WIDE].epochs.mean()
    some = round(share * draws.shape[1])
    parts = [rng.permutation(np.repeat([runs.epochs, 0], [some, draws.shape[1] - some])) for _ in draws]
    found[f"a random {some} of {draws.shape[1]} configs to their end"] = outcome(runs, draws, parts)
    short = [np.full(draws.shape[1], round(share * runs.epochs)) for _ in draws]
    found[f"all for {short[0][0]} of {runs.epochs} epochs"] = outcome(runs, draws, short)
    lines = ["| rule | epochs | hypervolume (5 to 95 % of the draws) | draws with 98 % | linear FLOPs |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join([name, *each.cells()])} |" for name, each in found.items()]
    return "\n".join(lines), found


def candidates(configs: int) -> list[Rules]:
    rungs = [*itertools.combinations(RUNGS, 1), *itertools.combinations(RUNGS, 2)]
    survivors = (4, configs // 5, configs // 4, configs // 3, 2 * configs // 5)
    return [Rules(eta, each, least, costs=(False,)) for each in rungs for eta in (2, 3) for least in survivors]


def choose(runs: Runs, drawn: Ints) -> tuple[Outcome, Rules]:
    """Return the rule that keeps most for at most 45 % of the epochs, and what it keeps."""
    tried = [(halved(runs, drawn, rules), rules) for rules in candidates(drawn.shape[1])]
    able = [(each.kept.mean(), i) for i, (each, _) in enumerate(tried) if each.epochs.mean() <= MOST_EPOCHS]
    return tried[max(able)[1]]


def named(rules: Rules) -> str:
    return f"rungs {', '.join(map(str, rules.rungs))}; eta {rules.eta}; min_survivors {rules.min_survivors}"


def chosen_and_judged(runs: Runs, splits: int, draws: int) -> tuple[str, Floats]:
    """Choose on a half of the runs what keeps most for at most 45 % of the epochs; judge it on the other half."""
    rows, lines = [], ["| chosen on a half | there: epochs, kept | on the other half |", "| --- | --- | --- |"]
    size = SWEEP * 3 // 4
    for split in range(splits):
        rng = np.random.default_rng(split)
        order = rng.permutation(len(runs))
        half = len(runs) // 2
        for here, there in ((order[:half], order[half:]), (order[half:], order[:half])):
            drawn, others = (draw_runs(each, draws, min(size, half), rng) for each in (here, there))
            where_chosen, rules = choose(runs, drawn)
            judged = halved(runs, others, rules)
            rows.append([each.mean() for each in (judged.epochs, judged.kept)])
            lines.append(f"| {named(rules)} | {' | '.join(_pair(each) for each in (where_chosen, judged))} |")
    return "\n".join(lines), np.array(rows)


def _pair(found: Outcome) -> str:
    return f"{100 * found.epochs.mean():.1f} %, {100 * found.kept.mean():.1f} %"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", action="store_true", help="train the runs that the file does not have yet")


def main() -> None:
    arguments = parse_arguments(__doc__, add_arguments)
    if arguments.train:
        train_runs(SIZES, Path(os.environ.get("RAYSWEEP_SHARED", ".")))
    draws = 50 if arguments.quick else 1000
    figures: dict[str, Any] = {}
    for name, path in (("sizes", SIZES), ("witness", WITNESS)):
        runs, rng = load(path), np.random.default_rng(0)
        drawn = draw_runs(np.arange(len(runs)), draws, SWEEP, rng)
        for rules in (DEFAULTS, WIDER, EARLIER):
            check_that_it_is_what_halving_does(runs, drawn[0], rules, scores_of(runs, rules))
        text, found = table(runs, drawn, rng)
        networks = len({*runs.flops.tolist()})
        if not arguments.json:
            print(f"## {name}: {len(runs)} runs, {networks} networks, {draws} draws of {SWEEP}\n\n{text}\n")
        for key, rule in (("defaults", "defaults"), ("wider", WIDE), ("earlier", EARLY)):
            figures |= {
                f"{name}_{key}_epochs": found[rule].epochs.mean(),
                f"{name}_{key}_kept": found[rule].kept.mean(),
            }
        figures[f"{name}_wider_by_score_kept"] = found[f"{WIDE}, by val_acc alone"].kept.mean()
    here, there = load(WITNESS), load(SIZES)
    some, others = (
        draw_runs(np.arange(len(each)), min(draws, 200), SWEEP, np.random.default_rng(1)) for each in (here, there)
    )
    _, rules = choose(here, some[:30])
    judged = halved(there, others, rules)
    figures |= {"chosen_on_witness_epochs": judged.epochs.mean(), "chosen_on_witness_kept_of_sizes": judged.kept.mean()}
    if not arguments.json:
        print(f"## Chosen on witness, judged on sizes\n\n{named(rules)}: {_pair(judged)}\n")
    text, rows = chosen_and_judged(there, 2 if arguments.quick else 5, 10 if arguments.quick else 30)
    if not arguments.json:
        print(f"## Chosen on one half, judged on the other\n\n{text}\n")
    epochs, kept = rows.T
    figures |= {"judged_epochs": epochs.mean(), "judged_kept": kept.mean()}
    figures |= {"judged_kept_least": kept.min(), "judged_kept_most": kept.max()}
    emit("pareto", figures, TARGETS, arguments)


if __name__ == "__main__":
    main()
