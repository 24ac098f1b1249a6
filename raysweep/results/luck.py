"""
How much of configs' scores is luck, of seeds and of images. Samples in, draws of the configs' true means out.

* Sample         what one config's seeds reached, and which epochs they share with seeds of others
* Noise.of       how far the observed means may be from the true ones
  + shared_luck             which configs' seeds have their luck in common, since they share epochs
  + _draw_seed_variances    how much seeds differ: each config's own, and all configs together (Smyth 2004)
  + _image_noise            how much the choice of images moves the means (crossed random effects; Owen 2007)
* draw_means     what the true means may be: the observed ones, drawn together by empirical Bayes
  + _draw_prior_variances   how much configs differ: what is known of one before its own score
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

TINY = 1e-14
"""A variance that is as good as none."""
FAR = 4.0
"""Standard errors by which configs spread that lie apart from the others."""
OUTER, INNER = 128, 32
"""Draws: of the noise's and the prior's scales, and for each of the configs' means."""


@dataclass(frozen=True)
class Lineage:
    """The epochs that led to a score, as far as other trials have the same ones."""

    shared: tuple[int, ...] = ()  # the first epochs: trials have the same number where they have the same epoch
    epochs: int = 1  # all of them

    def has_in_common(self, other: Lineage) -> float:
        """Return the correlation of two scores if luck comes evenly with the epochs: that of two random walks."""
        both = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.shared, other.shared, strict=False)))
        return float(both / np.sqrt(self.epochs * other.epochs))


@dataclass(frozen=True)
class Sample:
    """What one config's seeds reached on the validation images."""

    scores: Sequence[float]  # of each seed, finite; more is better
    correct: Bools | None = None  # seeds x images: what each seed's best epoch got right; None where it is not known
    lost: int = 0  # seeds that were trained and have no score: they diverged or failed
    lineages: Sequence[Lineage] = ()  # of each seed; without them no epochs are shared

    @property
    def trained(self) -> int:
        """How many seeds were trained."""
        return len(self.scores) + self.lost


@dataclass(frozen=True)
class Noise:
    """How much the observed means of configs vary about the true ones: configs x configs, or draws x configs."""

    seeds: Ints  # of each config
    of_images: Floats  # covariance that the choice of images gives the means
    typical: Floats  # variance of one seed of each config, beyond what the images show of it
    drawn: Floats  # the same, as it may be: draws x configs
    skewness: Floats  # third moment of a config's images over the second, by their number
    images: int | None
    shared: Floats  # correlation of the means' luck of seeds, if all luck of shared epochs is shared luck

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Noise | None:
        """Return the noise of some configs' means; None if none of them has two seeds."""
        seeds = np.array([len(sample.scores) for sample in samples])
        if seeds.max(initial=0) < 2:
            return None
        of_images, residuals, skewness, images = _image_noise(samples)
        scores = [np.sort(sample.scores) for sample in samples]
        means = np.array([each.mean() for each in scores])
        # An accuracy near 1 varies less.
        scale = np.maximum(means * (1 - means), 1 / images) if images else np.ones(len(scores))
        shared = shared_luck(samples)
        in_units = [each / size for each, size in zip(scores, np.sqrt(scale), strict=True)]
        drawn = scale * _draw_seed_variances(in_units, 1 / (shared**2).sum(1))
        drawn = np.maximum(drawn - residuals, 0)
        return cls(seeds, of_images, np.sqrt(drawn).mean(0) ** 2, drawn, skewness, images, shared)

    @property
    def covariance(self) -> Floats:
        """Return the covariance of the observed means, half of the luck of shared epochs being shared luck."""
        by_seed = np.sqrt(self.typical / self.seeds)
        correlation = (self.shared + np.eye(len(by_seed))) / 2
        return np.asarray(self.of_images + correlation * np.outer(by_seed, by_seed))

    @property
    def own_by_images(self) -> Floats:
        """What images add to each mean alone."""
        return _own(self.of_images)

    @property
    def has_shared_luck(self) -> bool:
        """Whether seeds of different configs share epochs."""
        return bool(np.count_nonzero(self.shared) > len(self.shared))


def _own(covariance: Floats) -> Floats:
    """Return variances whose sums are about those of the differences of each two."""
    count = len(covariance)
    if count < 3:
        return np.full(count, of_differences(covariance).sum() / 4)
    apart = of_differences(covariance).sum(1)
    own = (apart - apart.mean() / 2 * count / (count - 1)) / (count - 2)
    return np.asarray(np.maximum(own, 0.25 * own.mean()))


def shared_luck(samples: Sequence[Sample]) -> Floats:
    """Return how the seeds' luck in the means of configs is correlated: configs x configs, 1 on the diagonal."""
    found = np.eye(len(samples))
    alike = defaultdict[int, list[tuple[int, Lineage]]](list)  # by the first epoch
    for place, sample in enumerate(samples):
        for lineage in sample.lineages:
            if lineage.shared:
                alike[lineage.shared[0]].append((place, lineage))
    for place, own in (each for group in alike.values() for each in group):
        for other, lineage in alike[own.shared[0]]:
            if other != place:
                seeds = len(samples[place].scores) * len(samples[other].scores)
                found[place, other] += own.has_in_common(lineage) / np.sqrt(seeds)
    return found


def of_differences(covariance: Floats) -> Floats:
    """Return the variance of the difference of each two, from their covariance."""
    diagonal = np.diag(covariance)
    return np.asarray(diagonal[:, None] + diagonal[None, :] - 2 * covariance)


def _draw_seed_variances(scores: Sequence[Floats], weights: Floats) -> Floats:
    """Draw what the variance of one seed's score may be, for each config: draws x configs.

    Variances of configs scatter about a common one like inverse chi-squares; both its size and how closely they follow
    it are learnt from all configs (Smyth 2004, "Linear models and empirical Bayes methods"; here on a grid, not by
    moments, since there may be as few as two configs). Configs whose seeds share luck say the same again: `weights` are
    those of their likelihoods, by the correlation of normal variances, which is the square of that of the scores.
    """
    rng = np.random.default_rng(0)
    freedom = np.array([len(each) - 1 for each in scores])
    own = np.array([each.var(ddof=1) if len(each) > 1 else 0.0 for each in scores])
    counted = weights * freedom
    pooled = float((counted * own).sum() / counted.sum())
    reach = 4 * min(8, freedom.sum() / counted.sum())  # of few independent seeds all may be too much alike
    floor = max(1e-4 * pooled, TINY)  # equal scores of two seeds do not mean that there is no noise
    grid = np.meshgrid([2.0, 4.0, 8.0, 16.0, 32.0], max(pooled, floor) * np.geomspace(0.1, reach, 33))
    tightness, size = (each.reshape(-1, 1) for each in grid)
    fits = _log_density(np.maximum(own, floor), freedom, tightness, size)
    drawn = _draw((weights * fits).sum(1), rng)
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
    counts = {each.shape[1] for each in known}
    if len(known) < len(samples) or len(counts) > 1 or max(counts) < 2:
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
    """Return the third moment of images over the second, by their number; that of a lone image where all are alike."""
    images = rates.shape[1]
    away = rates - rates.mean(1, keepdims=True)
    second, third = (away**2).mean(1), (away**3).mean(1)
    lone = np.where(rates.mean(1) > 0.5, -1.0, 1.0)
    return np.asarray(np.where(second > 0, third / np.maximum(second, TINY), lone) / images)


def _unseen(rates: Floats) -> float:
    """Return the variance to add where hardly an image is got wrong: as if half an image more were."""
    accuracy = rates.mean()
    padded = (accuracy * rates.shape[1] + 0.5) / (rates.shape[1] + 1)
    return float(max(0.0, padded * (1 - padded) - accuracy * (1 - accuracy)))


def draw_means(means: Floats, noise: Noise) -> Floats:
    """Draw what the configs' true means may be: draws x configs.

    Each mean is drawn towards the centre of all by how much of its distance is likely to be noise. To see how far off
    that may be, truths and data are drawn, and the error of the same estimate on them is taken from it ("Matheron's
    rule"; Papandreou and Yuille 2010, "Gaussian sampling by local perturbations").
    """
    rng = np.random.default_rng(1)
    count = len(means)
    prior = _draw_prior_variances(means, noise, rng)[:, None]
    by_seed = (noise.drawn / noise.seeds)[:, None]
    truth = np.sqrt(prior) * _normals(rng, count)
    of_images, of_seeds = _normals(rng, count) @ _root(noise.of_images).T, _normals(rng, count)
    own = np.ones((1, 1, count))
    if noise.has_shared_luck:
        of_seeds, own = _with_shared_luck(of_seeds, noise.shared, rng)
    away = means - truth - of_images - np.sqrt(by_seed) * of_seeds
    weights = 1 / (prior + noise.own_by_images + by_seed * own + TINY)
    centre = (away * weights).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True)
    return np.asarray((truth + centre + prior * weights * (away - centre)).reshape(-1, count))


def _with_shared_luck(luck: Floats, shared: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the seeds' luck, as drawn for independent ones, with what they share; and how much of it is each's own.

    How much of the luck of shared epochs is still there in the end is not known: each draw takes another share of it,
    from none to all. So two configs are told apart only if they are though they share none, and their common error is
    allowed for as if they shared all.
    """
    share = rng.permutation((np.arange(OUTER) + 0.5) / OUTER)[:, None, None]
    common = _normals(rng, len(shared)) @ _root(shared).T
    return np.sqrt(1 - share) * luck + np.sqrt(share) * common, 1 - share + share * _own(shared)


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def _normals(rng: np.random.Generator, count: int) -> Floats:
    """Return normal draws and their opposites, so that their mean is exact."""
    half = rng.standard_normal((OUTER, INNER // 2, count))
    return np.concatenate([half, -half], axis=1)


def _draw_prior_variances(means: Floats, noise: Noise, rng: np.random.Generator) -> Floats:
    """Draw how far each config may lie from the others before its own score is known, as variances: draws x configs.

    Configs lie about a centre, normally; some may lie far from it. Centre, scale and the share of those that are far
    are learnt on a grid; the scale's own prior is a half-Cauchy of half a standard error (Gelman 2006). For this, what
    noise has in common is left out, and the rest is taken as independent.
    """
    half_shared = (1 + _own(noise.shared)) / 2 if noise.has_shared_luck else 1.0
    own = noise.own_by_images + noise.typical / noise.seeds * half_shared + TINY
    unit = np.sqrt(np.median(own))
    centres = np.linspace(means.min() - unit, means.max() + unit, 101)
    scales = unit * np.geomspace(0.05, 10, 16)
    shares = np.array([0.02, 0.1, 0.3])
    centre, scale, share = (each.ravel()[:, None] for each in np.meshgrid(centres, scales, shares, indexing="ij"))
    near = (1 - share) * _density(means - centre, own + scale**2)
    far = share * _density(means - centre, own + scale**2 + (FAR * unit) ** 2)
    fits = np.log(near + far + 1e-300).sum(1) + np.log(scale / ((unit / 2) ** 2 + scale**2))[:, 0]
    drawn = _draw(fits, rng)
    is_far = rng.random((OUTER, len(means))) < (far / (near + far + 1e-300))[drawn]
    return np.asarray(scale[drawn] ** 2 + is_far * (FAR * unit) ** 2)


def _density(distances: Floats, variances: Floats) -> Floats:
    """Return the normal's."""
    return np.asarray(np.exp(-(distances**2) / (2 * variances)) / np.sqrt(2 * np.pi * variances))
