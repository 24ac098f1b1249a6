"""Who won, how surely, and how good it is: on numbers made up here, whose truth is known."""

import numpy as np
import pytest
from scipy.stats import norm

from raysweep.results.winner import Sample, judge, still_racing


def sweep(accuracies, seeds, images=400, seed=0, between_seeds=0.05):
    """Return configs with these true accuracies, trained on so many seeds, and judged on the same images."""
    rng = np.random.default_rng(seed)
    difficulty = rng.standard_normal(images)
    samples = [config(rng, each, seeds, difficulty, between_seeds) for each in accuracies]
    return rng, difficulty, samples


def config(rng, accuracy, seeds, difficulty, between_seeds=0.05):
    spread = np.sqrt(1 + 0.4**2 + between_seeds**2)
    luck = between_seeds * rng.standard_normal((seeds, 1)) + 0.4 * rng.standard_normal((seeds, len(difficulty)))
    right = norm.ppf(accuracy) * spread + luck - difficulty > 0
    return Sample(right.mean(1).tolist(), right)


def ranked(samples):
    return sorted(samples, key=lambda sample: -np.mean(sample.scores))


def without_images(samples):
    return [Sample(sample.scores) for sample in samples]


def test_one_seed_each_cannot_tell():
    _, _, samples = sweep([0.9, 0.8, 0.7], seeds=1)
    assert judge(samples) is None
    assert judge(without_images(samples)) is None


def test_a_config_far_ahead_is_a_clear_winner():
    _, _, samples = sweep([0.95, 0.8, 0.8, 0.7], seeds=3)
    for evidence in (samples, without_images(samples)):
        verdict = judge(evidence)
        assert verdict.winner == 0
        assert verdict.is_clear
        assert verdict.rivals == []
        assert verdict.chances[0] > 0.999
        assert verdict.low < 0.95 < verdict.high
        assert verdict.seeds == 3


def test_of_equal_configs_none_is_clear_and_the_score_is_not_that_of_the_luckiest():
    _, _, samples = sweep([0.9] * 20, seeds=2)
    verdict = judge(ranked(samples))
    assert not verdict.is_clear
    assert len(verdict.rivals) > 10
    assert sum(verdict.chances) == pytest.approx(1)
    assert verdict.rivals == sorted(verdict.rivals, key=lambda place: -verdict.chances[place])
    assert verdict.luck > 0.005
    assert verdict.chosen_by - verdict.luck == pytest.approx(verdict.score)


def test_the_mean_over_seeds_wins_and_not_the_luckiest_seed():
    verdict = judge([Sample([0.22, 0.221, 0.222]), Sample([0.262, 0.17, 0.171])])
    assert verdict.winner == 0


def test_the_order_of_seeds_does_not_matter():
    rng, difficulty, samples = sweep([0.9, 0.89, 0.88], seeds=3)
    turned = [Sample(sample.scores[::-1], sample.correct[::-1]) for sample in samples]
    fresh = [config(rng, each, 2, difficulty) for each in (0.9, 0.89)]
    assert judge(samples, fresh) == judge(turned, fresh)
    assert judge(samples, fresh) == judge(samples, [Sample(each.scores[::-1], each.correct[::-1]) for each in fresh])


def test_everybody_trains_a_first_fresh_seed_and_nobody_more_than_asked_for():
    _, _, samples = sweep([0.9, 0.9, 0.9], seeds=2)
    nothing = [Sample([]), Sample([]), Sample([])]
    assert still_racing(samples, nothing, seeds=5) == [0, 1, 2]
    assert still_racing(samples, samples, seeds=2) == []


def test_who_is_far_behind_leaves_the_race():
    rng, difficulty, samples = sweep([0.93, 0.91, 0.8], seeds=2, images=5000)
    fresh = [config(rng, each, 1, difficulty) for each in (0.93, 0.91, 0.8)]
    assert 2 not in still_racing(samples, fresh, seeds=5)


def test_once_the_winner_is_clear_it_trains_on_alone_if_at_all():
    rng, difficulty, samples = sweep([0.95, 0.8, 0.8], seeds=2)
    fresh = [config(rng, each, 1, difficulty) for each in (0.95, 0.8, 0.8)]
    assert set(still_racing(samples, fresh, seeds=5)) <= {0}
