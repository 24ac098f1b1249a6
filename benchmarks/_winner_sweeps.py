"""
Simulated sweeps whose truth is known, for `winner.py`; made by another model than the one that judges them.

An answer is right if a latent score is above 0: the config's strength, plus the seed's luck, minus the image's
difficulty, plus how well the image suits the config (configs come in families, alike inside), plus a residual of each
seed on each image. Difficulties are skewed (a fifth of the images is hard), bad luck of seeds is longer than good luck,
and how much seeds differ is each config's own. A config's true accuracy, over all seeds and all images, is a sum of
normal integrals.

A `World` sets the sizes of these; those of digits and Tiny ImageNet reproduce what `winner_runs.parquet` shows
(`winner.py` prints both): the share of the variance of one bit that is the residual, that an image has in common for
seeds of a config, and for different configs; and the seeds' standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from raysweep.results.winner import Sample

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.bool_]

HARD = 0.2
"""The share of images that are hard, by `HARDER` standard deviations of the others' difficulty."""
HARDER = 2.0
UNLUCKY = 0.1
"""The share of seeds that are unlucky: worse by `WORSE` standard deviations of the others, and spread as much again."""
WORSE = 1.5
FAMILIES = 3


@dataclass(frozen=True)
class World:
    """How much there is of what makes answers right or wrong."""

    accuracy: float  # of the best config
    images: int
    common: float  # the share of the latent variance that is the images' difficulty, alike for all configs
    own: float  # and that which an image has for one config; the rest is each seed's own
    between_seeds: (
        float  # standard deviation of a seed's accuracy over all images, of a middling config as good as the best
    )


WORLDS: Mapping[str, World] = {
    "digits, 359 images": World(0.978, 359, 0.70, 0.08, 0.004),
    "digits, 898 images": World(0.978, 898, 0.70, 0.08, 0.004),
    "Tiny ImageNet, 500 images": World(0.28, 500, 0.80, 0.07, 0.006),
    "Tiny ImageNet, 10,000 images": World(0.28, 10_000, 0.80, 0.07, 0.006),
}


def _equal(rng: np.random.Generator, configs: int) -> Floats:
    return np.zeros(configs)


def _two_equal(rng: np.random.Generator, configs: int) -> Floats:
    return np.concatenate([[0, 0], -1 - rng.exponential(1.5, configs - 2)])


def _near(rng: np.random.Generator, configs: int) -> Floats:
    gaps = 0.5 * rng.standard_normal(configs)
    return np.asarray(gaps - gaps.max())


def _spread(rng: np.random.Generator, configs: int) -> Floats:
    gaps = rng.exponential(2, configs) + rng.uniform(5, 20, configs) * (rng.random(configs) < 0.15)
    return np.asarray(gaps.min() - gaps)


def _ahead(rng: np.random.Generator, configs: int) -> Floats:
    return np.concatenate([[0.0], np.full(configs - 1, -rng.uniform(0.5, 4))])


KINDS: Mapping[str, Callable[[np.random.Generator, int], Floats]] = {
    "all equal": _equal,
    "two equal, others worse": _two_equal,
    "nearly equal": _near,
    "spread, some fail": _spread,
    "one ahead": _ahead,
}
"""By how many points the configs are worse than the best."""


class Sweep:
    """Configs with known accuracies, that can be trained by any number of seeds."""

    def __init__(self, world: World, gaps: Floats, rng: np.random.Generator) -> None:
        """`gaps`: by how many points each config is worse than the best."""
        self._rng, self._world = rng, world
        self.truth = np.maximum(world.accuracy + gaps / 100, 0.05)
        configs = len(gaps)
        slope = norm.pdf(norm.ppf(world.accuracy))
        self._between = world.between_seeds * np.exp(0.5 * rng.standard_normal(configs)) / slope
        hard = rng.random(world.images) < HARD
        self._difficulty = np.sqrt(world.common) * (rng.standard_normal(world.images) + HARDER * hard) / _TOTAL
        self._family = rng.integers(0, FAMILIES, configs)
        self._of_family = rng.standard_normal((FAMILIES, world.images))
        self._of_config = rng.integers(0, 2**31, configs)
        self._strength = self._strengths()

    def _strengths(self) -> Floats:
        """Find, by bisection, the strengths that have the true accuracies."""
        low, high = np.full(len(self.truth), -20.0), np.full(len(self.truth), 20.0)
        for _ in range(60):
            middle = (low + high) / 2
            too_low = self._accuracy(middle) < self.truth
            low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
        return (low + high) / 2

    def _accuracy(self, strength: Floats) -> Floats:
        """Return the accuracy over all images and all seeds."""
        world = self._world
        total = np.zeros(len(strength))
        for of_images, harder in ((1 - HARD, 0.0), (HARD, HARDER)):
            for of_seeds, worse in ((1 - UNLUCKY, 0.0), (UNLUCKY, WORSE)):
                mean = strength - np.sqrt(world.common) * harder / _TOTAL - worse * self._between
                variance = world.common / _TOTAL**2 + 1 - world.common + self._between**2 * (1 + (worse > 0))
                total += of_images * of_seeds * norm.cdf(mean / np.sqrt(variance))
        return total

    def train(self, config: int, seeds: int) -> Sample:
        """Return what so many new seeds of a config got right."""
        world, rng = self._world, self._rng
        own = np.random.default_rng(self._of_config[config]).standard_normal(world.images)
        suits = np.sqrt(world.own / 2) * (self._of_family[self._family[config]] + own)
        unlucky = rng.random((seeds, 1)) < UNLUCKY
        luck = rng.standard_normal((seeds, 1)) * np.where(unlucky, np.sqrt(2), 1) - WORSE * unlucky
        residual = np.sqrt(1 - world.common - world.own) * rng.standard_normal((seeds, world.images), dtype=np.float32)
        certain = self._strength[config] + self._between[config] * luck + suits - self._difficulty
        right = certain + residual > 0
        return Sample(right.mean(1).tolist(), right)


_TOTAL = float(np.sqrt(1 + HARD * (1 - HARD) * HARDER**2))
"""The standard deviation of a difficulty before it is scaled."""


def draw_sweep(world: World, kind: str, configs: int, rng: np.random.Generator) -> Sweep:
    """Return a sweep of so many configs of a kind, in random order."""
    return Sweep(world, rng.permutation(KINDS[kind](rng, configs)), rng)
