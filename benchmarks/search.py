"""How soon a search finds what is good: regret by the epochs spent, beside others that search.

    search.py [PROBLEM ...] [--repetitions N] [--jobs N] [--tried]

Problems (`_problems.py`): alexnet, a surrogate of 512 recorded runs, in $RAYSWEEP_SHARED; cancer_mlp and
diabetes_boosting, two tables of scikit-learn's models; digits, trained for real. Contenders (`_contenders.py`), each on
8 slots that train an epoch a tick, on the same problem:

* random          draws, each to its end: 100 of them give the score to reach
* raysweep        `search: {name: tpe}` and `scheduler: {name: asha, min_survivors: 2}`; generations of 8
* raysweep, ...   the same but for what is named: `name: cmaes`; `scheduler: none`, so that the sampler alone is
                  compared; a generation that competes alone; other sizes
* optuna          `TPESampler()`, which keeps away from running trials by itself, and a pruner: median or hyperband
* ray             OptunaSearch and AsyncHyperBandScheduler: by their defaults, and tuned (grace period 8, eta 3)

Figures: the median over the repetitions, each with another seed, of the regret (the best score there is less the best
so far) after a quarter, half and all of the epochs that are spent, and of the trials and epochs until the median best
of 100 random trials is reached; for that raysweep is played until it has spent half of the epochs that those take, and
without early stopping all of them. An interval is the 95 % one of the median, from 2,000 bootstraps. Repetitions are
played side by side in processes, which changes nothing of the figures.

`--tried` shows instead by what the rule of competition and the generation were chosen, on other problems: a surrogate
of half of the recorded runs, a table of another model, and artificial functions. A ratio is that of mean regrets, after
a quarter, half and all of 600 epochs (1,500 of the surrogate), the geometric mean over the problems.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from _contenders import RIVALS, AtRandom, Competition, Course, OptunaPruned, RayOptuna, RaySweep, Search, play
from _problems import Floats, Problem, alexnet, artificial_problems, digits, held_out, tabular
from _report import emit, parse_arguments
from _search_tables import TABLES, TO_CHOOSE_BY, path_of

RECORDED = Path("data/learning-curves/opda-imagenet-alexnet.parquet")
RANDOM = 100
MANY = 10**6
"""More trials than any budget lets begin."""
CONTENDERS: dict[str, Callable[[Problem, int], Search]] = {
    "random": lambda problem, seed: AtRandom(problem, seed, RANDOM),
    "raysweep": lambda problem, seed: RaySweep(problem, seed, MANY),
    "raysweep_cmaes": lambda problem, seed: RaySweep(problem, seed, MANY, name="cmaes"),
    "raysweep_none": lambda problem, seed: RaySweep(problem, seed, RANDOM, competition=Competition(rungs=())),
    "optuna_median": lambda problem, seed: OptunaPruned(problem, seed, "median"),
    "optuna_hyperband": lambda problem, seed: OptunaPruned(problem, seed, "hyperband"),
    "ray": lambda problem, seed: RayOptuna(problem, seed),
    "ray_tuned": lambda problem, seed: RayOptuna(problem, seed, grace_period=8, reduction_factor=3),
}
ALONE = {
    "raysweep_alone": {},
    "raysweep_alone_1_goes_on": {"min_survivors": 1},
    "raysweep_alone_4_go_on": {"min_survivors": 4},
    "raysweep_alone_generations_of_4": {"generation": 4, "min_survivors": 1},
    "raysweep_alone_generations_of_16": {"generation": 16, "min_survivors": 4},
}


def _alone(generation: int = 8, min_survivors: int = 2) -> Callable[[Problem, int], Search]:
    rules = Competition(rivals="none", min_survivors=min_survivors)
    return lambda problem, seed: RaySweep(problem, seed, MANY, generation, competition=rules)


VARIANTS = {name: _alone(**changed) for name, changed in ALONE.items()}
"""What else was tried; not with what is trained for real."""
BUDGETS = {"alexnet": 1600, "digits": 480}
"""Epochs; of the tables 640. They are about a third of what 100 random trials take."""


@cache
def problem_named(name: str) -> Problem | None:
    """Return a problem; None if what it is made of is not here."""
    if name in TABLES:
        return tabular(name, str(path_of(name)))
    if name == "digits":
        return digits()
    return alexnet(str(recorded)) if (recorded := recorded_runs()) else None


def recorded_runs() -> Path | None:
    shared = os.environ.get("RAYSWEEP_SHARED")
    return Path(shared) / RECORDED if shared else None


def measure(
    problem: Problem, repetitions: int, names: Iterable[str], pool: ProcessPoolExecutor
) -> dict[str, list[Course]]:
    """Play each contender, once for each seed; raysweep until half of the epochs of 100 random trials are spent."""
    courses: dict[str, list[Course]] = {}
    budget = budget_of(problem)
    for name in names:
        print(f"{problem.name}: {name}", file=sys.stderr, flush=True)
        epochs = budget
        if name in ("random", "raysweep_none"):  # each ends by itself after as many trials
            epochs = MANY
        elif name.startswith("raysweep"):
            epochs = max(budget, round(epochs_at_random(courses) / 2))
        courses[name] = list(pool.map(partial(play_one, problem.name, name, epochs), range(repetitions)))
    return courses


def play_one(problem_name: str, contender: str, epochs: int, seed: int) -> Course:
    """Play a contender in a process of the pool, which keeps the problems that it has made."""
    problem = problem_named(problem_name)
    assert problem
    return play((CONTENDERS | VARIANTS)[contender](problem, seed), epochs)


def epochs_at_random(courses: dict[str, list[Course]]) -> float:
    """Return the median epochs that 100 random trials take."""
    return float(np.median([len(course.best) for course in courses["random"]]))


def budget_of(problem: Problem) -> int:
    return BUDGETS.get(problem.name, 640)


def median_and_half(values: Floats) -> tuple[float, float]:
    """Return a median and half of its 95 % interval; the latter is no number where a bootstrap's median is infinite."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(0, len(values), (2000, len(values)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975], method="nearest")
    return float(np.median(values)), float((high - low) / 2) if np.isfinite(high) else float("nan")


def figures_of(problem: Problem, courses: dict[str, list[Course]]) -> dict[str, float]:
    """Return the figures of all contenders on a problem; those that are infinite, since not reached, are left out."""
    to_reach = float(np.median([course.best[-1] for course in courses["random"]]))
    at_random = epochs_at_random(courses)
    figures = {f"{problem.name}_best": problem.best, f"{problem.name}_best_of_random": to_reach}
    figures[f"{problem.name}_epochs_of_random"] = at_random
    budget = budget_of(problem)
    for name, played in courses.items():
        rows = {
            f"regret_{epochs}": [problem.best - course.best_after(epochs) for course in played]
            for epochs in (budget // 4, budget // 2, budget)
        }
        rows["trials_to_best_of_random"] = [course.trials_to(to_reach) for course in played]
        rows["epochs_to_best_of_random"] = [course.epochs_to(to_reach) for course in played]
        for figure, values in rows.items():
            median, half = median_and_half(np.array(values))
            key = f"{problem.name}_{name}_{figure}"
            figures |= {key: median} if np.isfinite(median) else {}
            figures |= {f"{key}_half_interval": half} if np.isfinite(half) else {}
    return figures


def compare(problem: Problem, figures: dict[str, float], slack: float) -> dict[str, float]:
    """Return how raysweep stands beside the others once all epochs are spent: below 0 it is ahead."""
    end = f"regret_{budget_of(problem)}"
    mine = figures[f"{problem.name}_raysweep_{end}"]
    behind: dict[str, float] = {}
    for other in ("optuna", "ray"):
        names = [name for name in CONTENDERS if name.split("_")[0] == other]
        best = min(names, key=lambda name: figures[f"{problem.name}_{name}_{end}"])
        theirs = figures[f"{problem.name}_{best}_{end}"]
        half = figures[f"{problem.name}_{best}_{end}_half_interval"]
        behind[f"{problem.name}_behind_{other}_in_half_intervals"] = (mine - theirs) / max(half, slack)
    return behind


def table(problem: Problem, figures: dict[str, float], repetitions: int) -> str:
    """Return Markdown."""
    budget = budget_of(problem)
    columns = [f"regret_{epochs}" for epochs in (budget // 4, budget // 2, budget)]
    titles = [f"regret after {column.removeprefix('regret_')} epochs" for column in columns]
    to_reach, at_random = (figures[f"{problem.name}_{name}"] for name in ("best_of_random", "epochs_of_random"))
    rows = [
        f"{problem.name}, {repetitions} repetitions; best {problem.best:.4f}, of {RANDOM} random trials "
        f"{to_reach:.4f} after {at_random:.0f} epochs",
        "",
        f"| | {' | '.join(titles)} | trials to the best of {RANDOM} random | epochs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def cell(key: str, digits: int) -> str:
        if key not in figures:
            return "not reached"
        half = figures.get(f"{key}_half_interval")
        return f"{figures[key]:.{digits}f}" + (f" ± {half:.{digits}f}" if half is not None else "")

    for name in CONTENDERS | VARIANTS:
        key = f"{problem.name}_{name}"
        if f"{key}_{columns[0]}" not in figures:
            continue
        cells = [cell(f"{key}_{column}", 4) for column in columns]
        cells += [cell(f"{key}_{each}_to_best_of_random", 0) for each in ("trials", "epochs")]
        contender, _, rest = name.partition("_")
        title = f"{contender}, {rest.replace('_', ' ')}" if rest else contender
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def rules_tried() -> dict[str, Callable[[Problem, int], Search]]:
    """Return searches that differ in who competes with whom, and in the size of a generation; the chosen one first."""

    def search(generation: int = 8, **rules: Any) -> Callable[[Problem, int], Search]:
        return lambda problem, seed: RaySweep(
            problem, seed, MANY, generation=generation, competition=Competition(**rules)
        )

    tried = {
        f"{who}, {least} at least": search(rivals=who, min_survivors=least) for who in RIVALS for least in (2, 1, 4)
    }
    tried |= {f"generations of {size}": search(size, rivals="none", min_survivors=size // 4) for size in (4, 16)}
    return tried | {"cmaes": lambda problem, seed: RaySweep(problem, seed, MANY, name="cmaes")}


def show_tried(repetitions: int) -> None:
    """Print Markdown: the ratio of each search's mean regret to the chosen one's."""
    recorded = recorded_runs()
    half = np.random.default_rng(0).permutation(512)[:256]
    problems = [*artificial_problems(), *(tabular(name, str(path_of(name))) for name in TO_CHOOSE_BY)]
    problems += [alexnet(str(recorded), half, "half of alexnet")] if recorded else []
    chosen: dict[str, Floats] = {}
    print("| tried | a quarter | half | all epochs |\n| --- | --- | --- | --- |")
    for name, search in rules_tried().items():
        ratios = []
        for problem in problems:
            budget = 1500 if "alexnet" in problem.name else 600
            played = [play(search(problem, seed), budget) for seed in range(repetitions)]
            regrets = [[problem.best - each.best_after(budget // part) for part in (4, 2, 1)] for each in played]
            mean = np.maximum(np.mean(regrets, axis=0), 1e-4)
            ratios.append(np.log(mean / chosen.setdefault(problem.name, mean)))
        print(f"| {name} | {' | '.join(f'{ratio:.2f}' for ratio in np.exp(np.mean(ratios, axis=0)))} |", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problems", nargs="*", help="default: all")
    parser.add_argument("--repetitions", type=int, default=50, help="default: 50")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--tried", action="store_true", help="what the rule of competition was chosen by, instead")


def main() -> None:
    arguments = parse_arguments(__doc__, add_arguments)
    if arguments.tried:
        show_tried(3 if arguments.quick else arguments.repetitions)
        return
    names = arguments.problems or (["alexnet", *TABLES] if arguments.quick else ["alexnet", *TABLES, "digits"])
    figures: dict[str, float] = {}
    targets: dict[str, tuple[str, float]] = {}
    notes: dict[str, str] = {}
    for name in names:
        problem = problem_named(name)
        if problem is None:
            notes[name] = "no curves: set RAYSWEEP_SHARED to the folder with data/learning-curves"
            continue
        repetitions = 2 if arguments.quick else arguments.repetitions
        variants = VARIANTS if name != "digits" and not arguments.quick else ()
        with ProcessPoolExecutor(arguments.jobs) as pool:
            courses = measure(problem, repetitions, [*CONTENDERS, *variants], pool)
        own = figures_of(problem, courses)
        own |= compare(problem, own, slack=1e-4)
        figures |= own
        if name == "alexnet" and not arguments.quick:
            figures |= {f"alexnet_held_out_{figure}": value for figure, value in held_out(str(recorded_runs())).items()}
        for contender, unit, most in (
            ("raysweep", "epochs", own[f"{name}_epochs_of_random"] / 2),
            ("raysweep", "trials", RANDOM / 2),
            ("raysweep_none", "trials", RANDOM / 2),
        ):
            reached = f"{name}_{contender}_{unit}_to_best_of_random"
            figures.setdefault(reached, MANY)
            targets[reached] = ("<=", most)
        targets |= {
            f"{name}_behind_optuna_in_half_intervals": ("<=", 1),
            f"{name}_behind_ray_in_half_intervals": ("<=", 0),
        }
        if not arguments.json:
            print(table(problem, own, repetitions), end="\n\n", flush=True)
    emit("search", figures, targets, arguments, notes or None)


if __name__ == "__main__":
    main()
