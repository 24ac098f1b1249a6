"""How well the diagnosis agrees with labels of real curves, and what it takes back of what it said of first epochs.

The labels are in diagnosis_labels.csv: `yes`, `no`, or `?` where the reader could not tell, for each kind of finding;
trials 81 on were labelled for dips alone. `row` is the trial's place in its source's file, `cut` the epoch after which
it counts as stopped. Sources: `report_small` (report_small_curves.parquet, of an earlier run, read back from its page,
where losses above 10.58 were drawn at the edge), `witness` (witness_curves.parquet), and from the folder of shared data
`alexnet` (opda-imagenet-alexnet.parquet) and `lenet` (tiny-imagenet-10class-lenet.parquet).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _report import emit, parse_arguments, skip

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from faulty_curves import taken_back
from labelled_curves import KINDS, RealTrial, agreement, labelled_trials, read_real, real_trials

PARTS = {"mended": "rules mended by them", "held_out": "held out", "falls": "falls of four points, held out"}
EVERY = {"report_small": 1, "witness": 1, "alexnet": 4, "lenet": 40}
"""One in how many trials of a source is cut."""


@dataclass
class Cuts:
    """What was found in the first epochs of trials, by kind, and what of it the whole trials do not have."""

    cuts: int = 0
    said: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    taken_back: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))


def agreement_with_labels(shared: Path) -> dict[str, float]:
    """Print how diagnosis and labels compare, by part and kind; return each kappa."""
    found = [(labelled, read_real(labelled.trial)) for labelled in labelled_trials(shared)]
    figures: dict[str, float] = {}
    print("| curves | finding | labelled yes / no / ? | missed | wrongly found | found where ? | kappa |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for part, words in PARTS.items():
        for kind in KINDS:
            pairs = [
                (one.labels[kind], said.has(kind)) for one, said in found if one.part == part and kind in one.labels
            ]
            if not pairs:
                continue
            told = agreement(pairs)
            counts = f"{told.yes} / {told.no} / {told.unclear} | {told.missed} | {told.wrong} | {told.unclear_found}"
            print(f"| {words} | {kind} | {counts} | {told.kappa:.2f} |")
            figures[f"{kind}_kappa_{part}"] = told.kappa
    return figures


def cut_trials(trials: Sequence[RealTrial]) -> Cuts:
    """Stop each trial after each of its epochs but the last, or a third of them in long trials."""
    counts = Cuts()
    for trial in trials:
        whole = read_real(trial)
        for epochs in range(1, len(trial.rows), 3 if len(trial.rows) > 30 else 1):
            said = read_real(trial.cut(epochs))
            counts.cuts += 1
            for kind in {finding.kind for finding in said.findings}:
                counts.said[kind] += 1
            for kind in taken_back(said, whole):
                counts.taken_back[kind] += 1
    return counts


def first_epochs(shared: Path) -> dict[str, float]:
    """Print what is taken back of what was said of first epochs, by source and kind; return the share in all."""
    print("\n| trials | cuts | " + " | ".join(KINDS) + " |\n| --- | --- |" + " --- |" * len(KINDS))
    said = wrong = 0
    for source, trials in real_trials(shared).items():
        counts = cut_trials(trials[:: EVERY[source]])
        cells = [f"{counts.taken_back[kind]} of {counts.said[kind]}" for kind in KINDS]
        print(f"| {source} | {counts.cuts} | {' | '.join(cells)} |")
        said += sum(counts.said.values())
        wrong += sum(counts.taken_back.values())
    return {"first_epochs_findings": said, "first_epochs_taken_back_share": wrong / said}


def main() -> None:
    arguments = parse_arguments(__doc__)
    given = os.environ.get("RAYSWEEP_SHARED")
    if not given:
        skip("RAYSWEEP_SHARED names no folder of extra data (CONTRIBUTING.md)")
    figures = agreement_with_labels(Path(given))
    if not arguments.quick:
        figures |= first_epochs(Path(given))
    targets = {name: (">=", 0.4 if name.startswith("dip") else 0.8) for name in figures if "_kappa_" in name}
    emit("diagnosis", figures, targets, arguments)


if __name__ == "__main__":
    main()
