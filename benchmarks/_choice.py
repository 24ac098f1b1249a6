"""Rules of early stopping chosen on one half of recorded runs and judged on the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from _replay import Curves, Floats, Ints, default_rules, draw_runs, scores_at_rungs, synchronous

from raysweep.halving.rungs import Rules
from raysweep.sweepfile.schema import RankBy

SHARES = tuple(Fraction(share) for share in ("1/12", "1/9", "1/8", "1/6", "2/9", "1/4", "1/3", "1/2"))
WITNESSES: tuple[RankBy, ...] = ("best", "last", "trend")
MOST_EPOCHS = 0.40
"""The share of the full grid's epochs that a rule may spend on the half of the runs by which it is chosen."""
SPLITS = 10


@dataclass(frozen=True)
class Candidate:
    """A rule that may be chosen."""

    rules: Rules
    rank_by: RankBy

    def __str__(self) -> str:
        rungs = ", ".join(map(str, self.rules.rungs))
        return f"rungs {rungs}; eta {self.rules.eta}; min_survivors {self.rules.min_survivors}; by {self.rank_by}"


def candidates() -> Iterator[Candidate]:
    """One to three rungs, how many go on, and what they are ranked by: 1,932."""
    for number in (1, 2, 3):
        for rungs in itertools.combinations(SHARES, number):
            for eta, min_survivors in ((2, 3), (2, 4), (3, 3), (3, 4), (3, 5), (4, 4), (4, 5)):
                for rank_by in WITNESSES:
                    yield Candidate(Rules(eta, rungs, min_survivors), rank_by)


@dataclass(frozen=True)
class Judgement:
    """A candidate chosen on one half of the runs; each row: share of the epochs, best kept, mean regret."""

    chosen: Candidate
    where_chosen: Floats
    where_judged: Floats
    default_where_judged: Floats


def choose_on_halves(curves: Curves, size: int, draws: int) -> list[Judgement]:
    """Return what is chosen on each half of some random splits: the least regret for `MOST_EPOCHS`."""

    @cache
    def scores(rank_by: RankBy, share: Fraction) -> Floats:
        return scores_at_rungs(curves, Rules(rungs=(share,)), rank_by)

    def figures(candidate: Candidate, drawn: Ints) -> Floats:
        columns = [scores(candidate.rank_by, share) for share in candidate.rules.rungs]
        outcomes = synchronous(curves, drawn, candidate.rules, np.hstack(columns))
        regret = curves.best[drawn].max(axis=1) - outcomes.best
        full = curves.spent[drawn].sum()
        return np.array([outcomes.epochs.sum() / full, (regret <= 0).mean(), regret.mean()])

    default = Candidate(*default_rules())
    judgements = []
    for split in range(SPLITS):
        rng = np.random.default_rng(split)
        order = rng.permutation(len(curves))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for here, there in (halves, halves[::-1]):
            drawn, others = draw_runs(here, draws, size, rng), draw_runs(there, draws, size, rng)
            tried = [(figures(candidate, drawn), candidate) for candidate in candidates()]
            affordable = [(row[2], i) for i, (row, _) in enumerate(tried) if row[0] <= MOST_EPOCHS]
            row, chosen = tried[min(affordable)[1]]
            judgements.append(Judgement(chosen, row, figures(chosen, others), figures(default, others)))
    return judgements


def choice_table(judgements: list[Judgement]) -> str:
    """Return Markdown."""
    rows = [
        "| chosen on a half | there: epochs, best kept, regret | on the other half | the defaults there |",
        "| --- | --- | --- | --- |",
    ]

    def text(row: Floats) -> str:
        return f"{100 * row[0]:.1f} %, {100 * row[1]:.1f} %, {row[2]:.4f}"

    for one in judgements:
        cells = (str(one.chosen), text(one.where_chosen), text(one.where_judged), text(one.default_where_judged))
        rows.append(f"| {' | '.join(cells)} |")
    means = [
        np.mean([getattr(one, name) for one in judgements], axis=0)
        for name in Judgement.__annotations__
        if name != "chosen"
    ]
    rows.append(f"| mean | {' | '.join(text(mean) for mean in means)} |")
    return "\n".join(rows)
