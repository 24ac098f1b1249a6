"""
Simulated sweeps whose configs share epochs, for `winner.py`: does the verdict know that their luck is the same?

Configs come in groups of twins. A seed's luck is normal, and the twins of a group have a share of it in common; the
verdict is told what share of their epochs that is, or `blind`, nothing. By seeds alone, without images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysweep.results.winner import Course, Sample, judge

SPREAD = 0.01
"""Standard deviation of a seed's score."""
EPOCHS = 100


@dataclass(frozen=True)
class Twins:
    """Sweeps of one kind."""

    groups: int
    size: int  # configs of a group
    seeds: int
    luck: float  # the share of a seed's luck that twins have in common
    epochs: float  # the share of their epochs
    two_ahead: bool  # whether two configs, of two groups, are as good and all others worse; else all are equal

    def truth(self, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Return the configs' true scores."""
        if not self.two_ahead:
            return np.full(self.groups * self.size, 0.7)
        truth = np.full(self.groups * self.size, 0.65)
        truth[[0, self.size]] = 0.7
        return truth


KINDS = {
    "ten equal configs in one group, 2 seeds, 90 %": Twins(1, 10, 2, 0.9, 0.9, False),
    "two groups of eight, 2 seeds, 90 %; two equal, others worse": Twins(2, 8, 2, 0.9, 0.9, True),
    "the same, 50 %": Twins(2, 8, 2, 0.5, 0.5, True),
    "the same, 90 % of the epochs, but 30 % of the luck": Twins(2, 8, 2, 0.3, 0.9, True),
}


def play(kind: Twins, number: int, blind: bool) -> tuple[bool, bool]:
    """Judge one sweep; return whether the interval covers the truth, and whether a winner is wrongly called clear."""
    rng = np.random.default_rng([1848, number])
    group = np.repeat(np.arange(kind.groups), kind.size)
    truth = kind.truth(rng)
    common = rng.standard_normal((kind.groups, kind.seeds))[group]
    own = rng.standard_normal((len(group), kind.seeds))
    scores = truth[:, None] + SPREAD * (np.sqrt(kind.luck) * common + np.sqrt(1 - kind.luck) * own)
    order = np.argsort(-scores.mean(1))
    verdict = judge(
        [Sample(scores[each].tolist(), courses=[] if blind else _courses(kind, group[each])) for each in order]
    )
    assert verdict is not None
    best = truth[order[verdict.winner]]
    equals = int((truth >= best).sum())
    return verdict.low <= best <= verdict.high, verdict.is_clear and equals > 1


def _courses(kind: Twins, group: int) -> list[Course]:
    shared = range(round(kind.epochs * EPOCHS))
    return [
        Course(tuple((group * kind.seeds + seed) * EPOCHS + each for each in shared), EPOCHS)
        for seed in range(kind.seeds)
    ]


def print_twins(sweeps: int) -> None:
    """Print the table of `docs/winner.md`."""
    print("\n| | covered, blind | covered | wrongly clear, blind | wrongly clear |")
    print("| --- " * 5 + "|")
    for name, kind in KINDS.items():
        blind, told = (
            np.mean([play(kind, number, each) for number in range(sweeps)], axis=0) for each in (True, False)
        )
        print(f"| {name} | {blind[0]:.1%} | {told[0]:.1%} | {blind[1]:.1%} | {told[1]:.1%} |")
