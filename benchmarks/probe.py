"""Which cause does `raysweep probe` name, where it is known: faults put into small trials, and healthy ones.

Of each kind of fault 50 trials are probed whose dip or divergence the diagnosis sees, and 200 healthy ones with a
chance fall. What is trained is kept in a file, and a rerun trains what is missing; the verdicts are made anew. Beside
them stands what the diagnosis says of the same trials by their curves alone. The thresholds were chosen by trials from
`--first 0` to 2999; those from 3000 on are fresh.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from _probe_trials import KINDS, futures_in, probed
from _report import emit, parse_arguments

from raysweep.diagnose.probe import Verdict, judge

BY_CURVES = {
    "exploding_gradients": "exploding_gradients",
    "rising_lr": "high_lr",
    "high_lr": "high_lr",
    "validation_only": "batch_norm",
}
"""What the causes of the diagnosis are called here."""

ROUNDS = 10
"""The kinds take turns, in about so many rounds."""


def trained(file: Path, wanted: Mapping[str, int], first: int, processes: int) -> list[dict[str, Any]]:
    """Return so many probed trials of each kind, from the file and newly trained."""
    known = {(told["kind"], told["number"]): told for told in _kept(file)}
    numbers = dict.fromkeys(wanted, first)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool, file.open("a") as kept:
        while tasks := [task for kind in wanted for task in _next(kind, first, numbers, known, wanted[kind])]:
            for told in pool.map(probed, [task for task in tasks if task not in known]):
                known[told["kind"], told["number"]] = told
                kept.write(json.dumps(told) + "\n")
                kept.flush()
    return [told for (kind, number), told in sorted(known.items()) if first <= number < numbers.get(kind, first)]


def _next(
    kind: str, first: int, numbers: dict[str, int], known: Mapping[tuple[str, int], dict[str, Any]], wanted: int
) -> list[tuple[str, int]]:
    """Return some more trials of a kind, as many as are missing at most, and count on."""
    there = [known[kind, number] for number in range(first, numbers[kind])]
    missing = wanted - sum(told["epoch"] is not None for told in there)
    begin, numbers[kind] = numbers[kind], numbers[kind] + min(missing, max(1, wanted // ROUNDS))
    return [(kind, number) for number in range(begin, numbers[kind])]


def _kept(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        yield from map(json.loads, file.read_text().splitlines())


def verdict_of(told: Mapping[str, Any]) -> Verdict:
    """Judge one probed trial."""
    before, after = told["rows"][: told["epoch"] - 1], told["rows"][told["epoch"] - 1 :]
    return judge(before, after, futures_in(told), phenomenon=told["finding"] or "dip")


def main() -> None:
    """Train what is missing, and print how often each cause is named."""
    arguments = parse_arguments(__doc__, _add_flags)
    each = 5 if arguments.quick else arguments.trials
    wanted = {kind: each * (4 if kind == "healthy" else 1) for kind in KINDS}
    told = trained(arguments.file, wanted, arguments.first, arguments.processes)
    print("| fault | drawn | probed | named rightly | wrongly | none named | by curves: rightly | wrongly | none |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    figures: dict[str, float] = {}
    for kind in KINDS:
        figures |= _row(kind, [one for one in told if one["kind"] == kind])
    faults = [figures[f"{kind}_named"] for kind in KINDS if kind != "healthy"]
    figures |= {"named": sum(faults) / len(faults), "healthy_none_named": 1 - figures["healthy_wrong"]}
    emit("probe", figures, {"named": (">=", 0.95), "healthy_none_named": (">=", 0.98)}, arguments)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=50, help="probed ones of each fault; of healthy ones four times")
    parser.add_argument("--first", type=int, default=3000, help="the number of the first trial")
    parser.add_argument("--processes", type=int, default=1, help="trials at a time")
    parser.add_argument("--file", type=Path, default=Path("probe_trials.jsonl"), help="where trained trials are kept")


def _row(kind: str, drawn: list[dict[str, Any]]) -> dict[str, float]:
    """Print one kind's row of the table; return the shares that were named rightly and wrongly."""
    probes = [one for one in drawn if one["epoch"] is not None]
    counts = [*_counts(kind, [{verdict_of(one).cause} - {None} for one in probes])]
    counts += _counts(kind, [{BY_CURVES[cause] for cause in one["causes"]} for one in probes])
    print("| " + " | ".join(map(str, (kind, len(drawn), len(probes), *counts))) + " |")
    right, wrong, _, *by_curves = (count / len(probes) for count in counts)
    return {
        f"{kind}_named": right,
        f"{kind}_wrong": wrong,
        f"{kind}_named_by_curves": by_curves[0],
        f"{kind}_wrong_by_curves": by_curves[1],
    }


def _counts(kind: str, named: list[set[str]]) -> tuple[int, int, int]:
    """Return how often the right cause alone is named, another one as well or instead, and none."""
    return sum(one == {kind} for one in named), sum(bool(one - {kind}) for one in named), sum(not one for one in named)


if __name__ == "__main__":
    main()
