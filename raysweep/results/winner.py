"""
Whether a sweep's winner is one: scores of configs over seeds in, a `Verdict` out. The method: docs/winner.md.

* judge            who won, how good it is, who may be as good
* still_racing     which finalists are worth one more fresh seed
  + _weigh         what both look at: draws of the true means of the configs that count, from `luck`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.special import ndtr, ndtri

from raysweep.results.luck import Floats, Ints, Lineage, Noise, Sample, draw_means, of_differences
from raysweep.terminal import count_of

__all__ = ["Estimate", "Lineage", "Sample", "Verdict", "judge", "still_racing"]

LOOKED_AT = 100
"""Only so many configs, the first, are looked at. Where more are about equal, the best of them looks too good."""
WINDOW = 8.0
"""Standard errors behind the best; a config further away is not looked at."""
LEAVES_BELOW = 0.02
"""A finalist whose probability of being the best is lower leaves the race."""
FUTILE_BELOW = 0.05
"""The race ends if a clear winner is less probable than this, even if all seeds were spent."""
WIDER = 1.05
"""Intervals are so much wider than the draws, since how configs differ is not known as well as is assumed. Without it
about 94 % of the intervals of simulated sweeps covered the truth, and 93 % without fresh seeds (docs/winner.md)."""
ERROR_SHARE = 1 / 4
"""The winner is told from a rival if no more than this share of the error allowed speaks for the rival. Half would be a
two-sided comparison; but the race looks several times."""
NARROWER_BY = 0.03
"""The winner trains on alone if that makes its interval narrower by this share."""


@dataclass(frozen=True)
class Estimate:
    """What a config can be expected to reach."""

    place: int  # in `search`
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Who won, and what can be said about it."""

    winner: int  # its place in `search`
    is_clear: bool  # whether it can be told from all others
    chosen_by: float  # its mean score in the search
    score: float  # what it can be expected to reach with fresh seeds (and on fresh images, where `images` is known)
    low: float
    high: float  # `low` and `high`: the interval of that, at the confidence asked for
    seeds: int  # that the score rests on
    images: int | None  # that it rests on; None: by seeds alone
    chances: list[float]  # each config's probability of being the best; they add up to 1
    rivals: list[int]  # the configs that cannot be told from the winner, likeliest first
    estimates: list[Estimate]
    """Of the winner and of those with a chance of at least 0.1 %, at most 20, in order of `search`."""

    def __repr__(self) -> str:
        rivals = "clear" if self.is_clear else count_of(len(self.rivals), "rival")
        return f"<Verdict: config {self.winner}, {rivals}, {self.score:.4g} ({self.low:.4g} to {self.high:.4g})>"

    @property
    def luck(self) -> float:
        """How much of the score that the winner was chosen by was luck."""
        return self.chosen_by - self.score


def judge(
    search: Sequence[Sample], fresh: Sequence[Sample] = (), confidence: float = 0.95, winner: int | None = None
) -> Verdict | None:
    """Return who won and how surely; None where it cannot be known: no config has two seeds.

    `search` is ranked best first by mean; `fresh[i]` is the config of `search[i]` on fresh seeds. `winner` is the place
    of the config that all tables rank first; by default that of `ranked_first`, which is the same between rounds. The
    outcome depends neither on the order of seeds nor on chance. Images count where each config that is looked at has
    `correct` for all its seeds, over the same images; else the verdict rests on seeds alone.
    """
    winner = ranked_first(fresh) if winner is None else winner
    evidence = _weigh(_pooled(search, fresh), winner)
    if evidence is None:
        return None
    draws = evidence.draws
    best = int(np.flatnonzero(evidence.places == winner)[0])
    chances = np.zeros(len(search))
    chances[evidence.places] = np.bincount(draws.argmax(1), minlength=draws.shape[1]) / len(draws)
    rivals = [int(evidence.places[each]) for each in _rivals(draws, best, confidence)]
    estimates = evidence.estimates(chances, best, confidence)
    own = next(each for each in estimates if each.place == evidence.places[best])
    return Verdict(
        winner=own.place,
        is_clear=not rivals,
        chosen_by=float(np.mean(search[own.place].scores)),
        score=own.score,
        low=own.low,
        high=own.high,
        seeds=int(evidence.noise.seeds[best]),
        images=evidence.noise.images,
        chances=chances.tolist(),
        rivals=sorted(rivals, key=lambda place: -chances[place]),
        estimates=estimates,
    )


def still_racing(search: Sequence[Sample], fresh: Sequence[Sample], seeds: int, confidence: float = 0.95) -> list[int]:
    """Return which finalists (places in `fresh`) are to train one more fresh seed; nobody once the race is over.

    It is over when all have `seeds` fresh seeds, when the winner is clear, or when the seeds that are left could hardly
    tell. Then the leader trains on alone: once, so that it is ranked first (see `ranked_first`), and as long as that
    makes its interval narrower. A finalist leaves when it is most improbably the best, and does not come back.
    """
    most = max((sample.trained for sample in fresh), default=0)
    if most == 0 or most >= seeds:
        return list(range(len(fresh))) if most < seeds else []
    evidence = _weigh(_pooled(search, fresh), ranked_first(fresh))
    if evidence is None:
        return [place for place, sample in enumerate(fresh) if sample.trained == most]
    draws = evidence.draws
    still = np.array([each for each, place in enumerate(evidence.places) if _seeds(fresh, int(place)) == most])
    leader = _likeliest(draws, still)
    chances = np.bincount(draws.argmax(1), minlength=draws.shape[1]) / len(draws)
    racing = [each for each in still if chances[each] >= LEAVES_BELOW]
    more = np.zeros(len(evidence.places))
    more[racing] = seeds - most
    if not _rivals(draws, leader, confidence) or evidence.hope(more, still, confidence) < FUTILE_BELOW:
        trains_on = len(still) > 1 or evidence.narrowed_by(leader, seeds - most) >= NARROWER_BY
        racing = [leader] if trains_on else []
    return [int(evidence.places[each]) for each in racing]


def ranked_first(fresh: Sequence[Sample]) -> int:
    """Return the place of the config that is ranked first: the best, by fresh seeds, of those with most of them.

    Without fresh seeds it is the best of the search. This is the order of `results.ranking`, which all tables have.
    """
    most = max((sample.trained for sample in fresh), default=0)
    last = [place for place, sample in enumerate(fresh) if sample.scores and sample.trained == most]
    return max(last, key=lambda place: (fmean(fresh[place].scores), -place), default=0)


def _seeds(fresh: Sequence[Sample], place: int) -> int:
    return fresh[place].trained if place < len(fresh) else 0


def _likeliest(draws: Floats, candidates: Ints) -> int:
    """Return the candidate whose mean is highest; of equal ones, the one that was ahead in the search."""
    means = draws[:, candidates].mean(0)
    return int(candidates[np.flatnonzero(means >= means.max() - 1e-9)[0]])


def _rivals(draws: Floats, best: int, confidence: float) -> list[int]:
    """Return who cannot be told from the best of the draws: each is compared with it by itself.

    To be clear the best must be told from every other, and of many equals the second best is close behind it: two
    equals far ahead of all others are the hardest case, so that a two-sided comparison needs no correction for there
    being many (Gutmann and Maymin 1987, "Is the selected population the best?").
    """
    as_good = (draws >= draws[:, [best]]).mean(0)
    return [int(each) for each in np.flatnonzero(as_good > (1 - confidence) * ERROR_SHARE) if each != best]


def _pooled(search: Sequence[Sample], fresh: Sequence[Sample]) -> list[Sample]:
    """Return each config's seeds, those of the search and the fresh ones."""
    return [_joined(sample, fresh[place]) if place < len(fresh) else sample for place, sample in enumerate(search)]


def _joined(one: Sample, other: Sample) -> Sample:
    parts = [each for each in (one, other) if len(each.scores)]
    known = [each.correct for each in parts if each.correct is not None]
    whole = bool(parts) and len(known) == len(parts)
    scores, correct = [*one.scores, *other.scores], np.concatenate(known) if whole else None
    return Sample(scores, correct, lineages=[*one.lineages, *other.lineages])


@dataclass(frozen=True)
class _Evidence:
    """What is known of the configs that are looked at."""

    places: Ints  # in `search`
    draws: Floats  # of the true means: draws x configs
    noise: Noise

    def estimates(self, chances: Floats, best: int, confidence: float) -> list[Estimate]:
        """Return mean and interval of the best and of those that count."""
        counted = [each for each in np.argsort(-chances[self.places], kind="stable") if each != best]
        counted = [each for each in counted if chances[self.places[each]] >= 0.001]
        kept = sorted([best, *counted[:19]], key=lambda each: int(self.places[each]))
        return [Estimate(int(self.places[each]), *self._interval(each, confidence)) for each in kept]

    def _interval(self, config: int, confidence: float) -> tuple[float, float, float]:
        """Return a config's mean and interval, which is shifted by the skewness of its images (Johnson 1978)."""
        draws = self.draws[:, config]
        limits = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        limits = draws.mean() + WIDER * (limits - draws.mean())
        if self.noise.images is not None:
            z = ndtri((1 + confidence) / 2)
            limits = np.clip(limits + self.noise.skewness[config] * (1 + 2 * z**2) / 6, 0, 1)
        return float(draws.mean()), *limits.tolist()

    def narrowed_by(self, config: int, more: float) -> float:
        """Return by what share a config's interval becomes narrower with more seeds."""
        by_seed = self.noise.typical[config]
        now = self.noise.of_images[config, config] + by_seed / self.noise.seeds[config]
        then = now - by_seed / self.noise.seeds[config] + by_seed / (self.noise.seeds[config] + more)
        return float(1 - np.sqrt(then / now)) if now > 0 else 0.0

    def hope(self, more: Floats, finalists: Ints, confidence: float) -> float:
        """Return about how probable a clear winner is after `more` seeds of each config.

        What further seeds will do to the mean of a difference is normal, and its variance is that by which they narrow
        the difference (preposterior analysis; Raiffa and Schlaifer 1961).
        """
        mean, variance = self.draws.mean(0), np.cov(self.draws.T)
        now = of_differences(variance)
        noise = of_differences(self.noise.covariance)
        less = self.noise.typical * (1 / self.noise.seeds - 1 / (self.noise.seeds + more))
        then = noise - (less[:, None] + less[None, :])
        with np.errstate(divide="ignore", invalid="ignore"):
            prior = np.maximum(1 / now - 1 / noise, 0)
            final = 1 / (1 / np.maximum(then, 1e-3 * noise) + prior)
            gained = np.sqrt(np.maximum(now - final, 1e-12 * now))
            ahead = mean[:, None] - mean[None, :] + ndtri((1 - confidence) * ERROR_SHARE) * np.sqrt(final)
            clear = ndtr(ahead / gained)
        np.fill_diagonal(clear, 1)
        return float(clear[finalists].min(1).sum())


def _weigh(samples: Sequence[Sample], winner: int) -> _Evidence | None:
    """Return what is known of the configs that count, the winner among them; None if no config has two seeds."""
    means = np.array([np.sort(each.scores).mean() if len(each.scores) else -np.inf for each in samples[:LOOKED_AT]])
    places = np.flatnonzero(np.isfinite(means))
    noise = Noise.of([samples[place] for place in places.tolist()])
    if noise is None:
        return None
    best = int(means[places].argmax())
    errors = np.sqrt(of_differences(noise.covariance)[best])
    near = places[(means[places[best]] - means[places] <= WINDOW * errors) | (places == winner)]
    if len(near) < len(places) and (closer := Noise.of([samples[place] for place in near.tolist()])):
        places, noise = near, closer
    draws = draw_means(means[places], noise)
    return _Evidence(places, draws, noise)
