"""
Whether a sweep's winner is one: scores of configs over seeds in, a `Verdict` out. The method: docs/winner.md.

* judge            who won, how good it is, who may be as good
* still_racing     which finalists are worth one more fresh seed
  + _weigh         both look at draws of the configs' true means, made in three steps
    x _draw_seed_variances    how much seeds differ, each config's own and all together (Smyth 2004)
    x _image_noise            how much the choice of images moves the means, together and apart (Owen 2007)
    x _draw_prior_variances   how much configs differ: what is known of one before its own score (empirical Bayes)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import norm

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

LOOKED_AT = 50
"""Only so many configs, the best, are looked at: any other is too far behind to matter, unless all are nearly equal."""
TINY = 1e-14
"""A variance that is as good as none."""
FAR = 4.0
"""Standard errors by which configs spread that lie apart from the others."""
WINDOW = 8.0
"""Standard errors behind the best; a config further away is not looked at."""
OUTER, INNER = 128, 32
"""Draws: of the noise's and the prior's scales, and for each of the configs' means."""
LEAVES_BELOW = 0.02
"""A finalist whose probability of being the best is lower leaves the race."""
FUTILE_BELOW = 0.05
"""The race ends if a clear winner is less probable than this, even if all seeds were spent."""


WIDER = 1.05
"""Intervals are so much wider than the draws, since how configs differ is not known as well as is assumed. Without it,
94.5 % of the intervals of simulated sweeps covered the truth, and 92.8 % without fresh seeds (docs/winner.md)."""
ERROR_SHARE = 1 / 4
"""The share of the error allowed by which each rival may be mistaken: half would be two-sided; the race looks often."""
NARROWER_BY = 0.03
"""The winner trains on alone if that makes its interval narrower by this share."""


@dataclass(frozen=True)
class Sample:
    """What one config's seeds reached on the validation images."""

    scores: Sequence[float]  # of each seed; more is better
    correct: Bools | None = None  # seeds x images: what each seed's best epoch got right; None where it is not known


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
    estimates: list[
        Estimate
    ]  # of the winner and of those with a chance of at least 0.1 %, at most 20, in order of `search`

    @property
    def luck(self) -> float:
        """How much of the score that the winner was chosen by was luck."""
        return self.chosen_by - self.score


def judge(search: Sequence[Sample], fresh: Sequence[Sample] = (), confidence: float = 0.95) -> Verdict | None:
    """Return who won and how surely; None where it cannot be known: no config has two seeds.

    `search` is ranked best first by mean; `fresh[i]` is the config of `search[i]` on fresh seeds. Where there are fresh
    seeds, one of their configs wins. The outcome depends neither on the order of seeds nor on chance.
    """
    evidence = _weigh(_pooled(search, fresh), len(fresh))
    if evidence is None:
        return None
    draws = evidence.draws
    candidates = np.flatnonzero(evidence.places < len(fresh)) if _any_seeds(fresh) else np.arange(len(evidence.places))
    best = _likeliest(draws, candidates)
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
    tell; then the leader alone trains on, as long as that makes its interval narrower. A finalist leaves when it is
    most improbably the best; should the others get worse, it may come back.
    """
    unspent = [place for place, sample in enumerate(fresh) if len(sample.scores) < seeds]
    if not _any_seeds(fresh) or not unspent:
        return unspent
    evidence = _weigh(_pooled(search, fresh), len(fresh))
    if evidence is None:
        return unspent
    draws = evidence.draws
    finalists = np.flatnonzero(evidence.places < len(fresh))
    leader = _likeliest(draws, finalists)
    chances = np.bincount(draws.argmax(1), minlength=draws.shape[1]) / len(draws)
    racing = [each for each in finalists if evidence.places[each] in unspent and chances[each] >= LEAVES_BELOW]
    more = np.zeros(len(evidence.places))
    more[racing] = [seeds - len(fresh[evidence.places[each]].scores) for each in racing]
    if not _rivals(draws, leader, confidence) or evidence.hope(more, finalists, confidence) < FUTILE_BELOW:
        racing = [leader] if evidence.narrowed_by(leader, more[leader]) >= NARROWER_BY else []
    return [int(evidence.places[each]) for each in racing]


def _any_seeds(samples: Sequence[Sample]) -> bool:
    return any(len(sample.scores) for sample in samples)


def _likeliest(draws: Floats, candidates: Ints) -> int:
    """Return the candidate whose mean is highest; of equal ones, the one that was ahead in the search."""
    means = draws[:, candidates].mean(0)
    return int(candidates[np.flatnonzero(means >= means.max() - 1e-9)[0]])


def _rivals(draws: Floats, best: int, confidence: float) -> list[int]:
    """Return who cannot be told from the best of the draws: each is compared with it at the two-sided level.

    The best of several equals is compared with the runner-up too often rather than too seldom, so that no further
    correction is needed for there being many (Gutmann and Maymin 1987, "Is the selected population the best?").
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
    return Sample([*one.scores, *other.scores], np.concatenate(known) if whole else None)


@dataclass(frozen=True)
class _Evidence:
    """What is known of the configs that are looked at."""

    places: Ints  # in `search`
    draws: Floats  # of the true means: draws x configs
    noise: _Noise

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
            z = norm.ppf((1 + confidence) / 2)
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
        now = _of_differences(variance)
        noise = _of_differences(self.noise.covariance)
        less = self.noise.typical * (1 / self.noise.seeds - 1 / (self.noise.seeds + more))
        then = noise - (less[:, None] + less[None, :])
        with np.errstate(divide="ignore", invalid="ignore"):
            prior = np.maximum(1 / now - 1 / noise, 0)
            final = 1 / (1 / np.maximum(then, 1e-3 * noise) + prior)
            gained = np.sqrt(np.maximum(now - final, 1e-12 * now))
            ahead = mean[:, None] - mean[None, :] - norm.isf((1 - confidence) * ERROR_SHARE) * np.sqrt(final)
            clear = norm.cdf(ahead / gained)
        np.fill_diagonal(clear, 1)
        return float(clear[finalists].min(1).sum())


def _of_differences(covariance: Floats) -> Floats:
    """Return the variance of the difference of each two."""
    diagonal = np.diag(covariance)
    return np.asarray(diagonal[:, None] + diagonal[None, :] - 2 * covariance)


def _weigh(samples: Sequence[Sample], finalists: int) -> _Evidence | None:
    """Return what is known of the configs that count; None if no config has two seeds."""
    means = np.array([np.sort(sample.scores).mean() if len(sample.scores) else -np.inf for sample in samples])
    order = np.argsort(-means, kind="stable")
    places = np.union1d(order[:LOOKED_AT], np.arange(finalists))
    places = places[np.isfinite(means[places])]
    noise = _Noise.of([samples[place] for place in places])
    if noise is None:
        return None
    best = int(means[places].argmax())
    errors = np.sqrt(_of_differences(noise.covariance)[best])
    near = places[means[places[best]] - means[places] <= WINDOW * errors]
    if len(near) < len(places) and (closer := _Noise.of([samples[place] for place in near])):
        places, noise = near, closer
    draws = _draw_means(means[places], noise)
    return _Evidence(places, draws, noise)


@dataclass(frozen=True)
class _Noise:
    """How much the observed means of configs vary about the true ones: configs x configs, or draws x configs."""

    seeds: Ints  # of each config
    of_images: Floats  # covariance that the choice of images gives the means
    typical: Floats  # variance of one seed of each config, beyond what the images show of it
    drawn: Floats  # the same, as it may be: draws x configs
    skewness: Floats  # third moment of a config's images over the second, by their number
    images: int | None

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Noise | None:
        """Return the noise of some configs' means; None if none of them has two seeds."""
        seeds = np.array([len(sample.scores) for sample in samples])
        if seeds.max(initial=0) < 2:
            return None
        of_images, residuals, skewness, images = _image_noise(samples)
        scores = [np.sort(sample.scores) for sample in samples]
        means = np.array([each.mean() for each in scores])
        # An accuracy near 1 varies less.
        scale = np.maximum(means * (1 - means), 1 / images) if images else np.ones(len(scores))
        drawn = scale * _draw_seed_variances([each / size for each, size in zip(scores, np.sqrt(scale), strict=True)])
        drawn = np.maximum(drawn - residuals, 0)
        return cls(seeds, of_images, np.sqrt(drawn).mean(0) ** 2, drawn, skewness, images)

    @property
    def covariance(self) -> Floats:
        """Of the observed means."""
        return np.asarray(self.of_images + np.diag(self.typical / self.seeds))

    @property
    def own_by_images(self) -> Floats:
        """What images add to each mean alone: variances whose sums are about those of the differences of each two."""
        count = len(self.of_images)
        if count < 3:
            return np.full(count, _of_differences(self.of_images).sum() / 4)
        apart = _of_differences(self.of_images).sum(1)
        own = (apart - apart.mean() / 2 * count / (count - 1)) / (count - 2)
        return np.asarray(np.maximum(own, 0.25 * own.mean()))


def _draw_seed_variances(scores: Sequence[Floats]) -> Floats:
    """Draw what the variance of one seed's score may be, for each config: draws x configs.

    Variances of configs scatter about a common one like inverse chi-squares; both its size and how closely they follow
    it are learnt from all configs (Smyth 2004, "Linear models and empirical Bayes methods"; here on a grid, not by
    moments, since there may be as few as two configs).
    """
    rng = np.random.default_rng(0)
    freedom = np.array([len(each) - 1 for each in scores])
    own = np.array([each.var(ddof=1) if len(each) > 1 else 0.0 for each in scores])
    pooled = float((freedom * own).sum() / freedom.sum())
    floor = max(1e-4 * pooled, TINY)  # equal scores of two seeds do not mean that there is no noise
    grid = np.meshgrid([2.0, 4.0, 8.0, 16.0, 32.0], max(pooled, floor) * np.geomspace(0.1, 4, 33))
    tightness, size = (each.reshape(-1, 1) for each in grid)
    drawn = _draw(_log_density(np.maximum(own, floor), freedom, tightness, size).sum(1), rng)
    tightness, size = tightness[drawn], size[drawn]
    return np.asarray((tightness * size + freedom * own) / rng.chisquare(tightness + freedom))


def _draw(fits: Floats, rng: np.random.Generator) -> Ints:
    """Draw points of a grid by their log likelihoods."""
    likely = np.exp(fits - fits.max())
    return rng.choice(len(fits), OUTER, p=likely / likely.sum())


def _log_density(variances: Floats, freedom: Ints, tightness: Floats, size: Floats) -> Floats:
    """Return the log density of observed variances over `size`, which is F; 0 where there are no degrees of freedom."""
    half, other = np.maximum(freedom, 1) / 2, tightness / 2
    ratio = variances / size * half / other
    scale = gammaln(half + other) - gammaln(half) - gammaln(other)
    density = scale + half * np.log(ratio) - (half + other) * np.log1p(ratio)
    return np.asarray(np.where(freedom > 0, density, 0.0))


def _image_noise(samples: Sequence[Sample]) -> tuple[Floats, Floats, Floats, int | None]:
    """Return the covariance that the images give the means, what of a seed's variance they show, and their number.

    Images and seeds are crossed. An image's mean over a config's seeds varies by what is easy for the config and by
    residual / seeds; a seed's mean over the images varies by its luck and by residual / images. The residual is in
    both, so it is taken out of one of them: a mean's variance is (MS_seed + MS_image - MS_residual) / (seeds x images).
    """
    known = [sample.correct for sample in samples if sample.correct is not None]
    if len(known) < len(samples) or len({each.shape[1] for each in known}) > 1:
        nothing = np.zeros(len(samples))
        return np.diag(nothing), nothing, nothing, None
    images = known[0].shape[1]
    rates = np.array([each.mean(0) for each in known])
    seeds = np.array([len(each) for each in known])
    binomial = rates.mean(1) * (1 - rates.mean(1))
    again = seeds > 1
    within = (rates * (1 - rates)).mean(1) * seeds / np.maximum(seeds - 1, 1)
    share = within[again].sum() / max(binomial[again].sum(), 1e-12)
    residuals = np.where(again, within, share * binomial) / images
    shared = np.cov(rates).reshape(len(samples), -1) / images
    return shared + _unseen(rates) / images, residuals, _skewness(rates), images


def _skewness(rates: Floats) -> Floats:
    """Return the third moment of images over the second, by their number; that of a lone image where none is wrong."""
    images = rates.shape[1]
    away = rates - rates.mean(1, keepdims=True)
    second = (away**2).mean(1)
    return np.asarray(np.where(second > 0, (away**3).mean(1) / np.where(second > 0, second, 1), -1) / images)


def _unseen(rates: Floats) -> float:
    """Return the variance to add where hardly an image is got wrong: as if half an image more were."""
    accuracy = rates.mean()
    padded = (accuracy * rates.shape[1] + 0.5) / (rates.shape[1] + 1)
    return float(max(0.0, padded * (1 - padded) - accuracy * (1 - accuracy)))


def _draw_means(means: Floats, noise: _Noise) -> Floats:
    """Draw what the configs' true means may be: draws x configs.

    Each mean is drawn towards the centre of all by how much of its distance is likely to be noise. To see how far off
    that may be, truths and data are drawn, and the error of the same estimate on them is taken from it ("Matheron's
    rule"; Papandreou and Yuille 2010, "Gaussian sampling by local perturbations").
    """
    rng = np.random.default_rng(1)
    count = len(means)
    prior = _draw_prior_variances(means, noise, rng)[:, None]
    values, vectors = np.linalg.eigh(noise.of_images)
    root = vectors * np.sqrt(np.maximum(values, 0))
    by_seed = (noise.drawn / noise.seeds)[:, None]
    truth = np.sqrt(prior) * _normals(rng, count)
    errors = _normals(rng, count) @ root.T + np.sqrt(by_seed) * _normals(rng, count)
    away = means - truth - errors
    weights = 1 / (prior + noise.own_by_images + by_seed + TINY)
    centre = (away * weights).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True)
    return np.asarray((truth + centre + prior * weights * (away - centre)).reshape(-1, count))


def _normals(rng: np.random.Generator, count: int) -> Floats:
    """Return normal draws and their opposites, so that their mean is exact."""
    half = rng.standard_normal((OUTER, INNER // 2, count))
    return np.concatenate([half, -half], axis=1)


def _draw_prior_variances(means: Floats, noise: _Noise, rng: np.random.Generator) -> Floats:
    """Draw how far each config may lie from the others before its own score is known, as variances: draws x configs.

    Configs lie about a centre, normally; some may lie far from it. Scale, centre and share of the latter are learnt
    on a grid; for this, what noise has in common is left out, and the rest is taken as independent.
    """
    own = noise.own_by_images + noise.typical / noise.seeds + TINY
    unit = np.sqrt(np.median(own))
    centres = np.linspace(means.min() - unit, means.max() + unit, 101)
    scales = unit * np.geomspace(0.05, 10, 16)
    shares = np.array([0.02, 0.1, 0.3])
    centre, scale, share = (each.ravel()[:, None] for each in np.meshgrid(centres, scales, shares, indexing="ij"))
    near = (1 - share) * _density(means - centre, own + scale**2)
    far = share * _density(means - centre, own + scale**2 + (FAR * unit) ** 2)
    fits = np.log(near + far + 1e-300).sum(1) + np.log(scale / (unit**2 + scale**2))[:, 0]
    drawn = _draw(fits, rng)
    is_far = rng.random((OUTER, len(means))) < (far / (near + far + 1e-300))[drawn]
    return np.asarray(scale[drawn] ** 2 + is_far * (FAR * unit) ** 2)


def _density(distances: Floats, variances: Floats) -> Floats:
    """Return the normal's."""
    return np.asarray(np.exp(-(distances**2) / (2 * variances)) / np.sqrt(2 * np.pi * variances))
