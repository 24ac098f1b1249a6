"""Who won, how surely, and how good it is: on made-up numbers whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from raysweep.results.winner import Sample, judge, still_racing


class Sweep:
    """Configs with these true accuracies; their seeds are judged on the same images."""

    def __init__(self, accuracies, images=400, seed=0, between_seeds=0.05):
        self.accuracies, self.between_seeds = accuracies, between_seeds
        self.rng = np.random.default_rng(seed)
        self.difficulty = self.rng.standard_normal(images)

    def train(self, config, seeds):
        spread = np.sqrt(1 + 0.4**2 + self.between_seeds**2)
        luck = self.between_seeds * self.rng.standard_normal((seeds, 1))
        residual = 0.4 * self.rng.standard_normal((seeds, len(self.difficulty)))
        right = stats.norm.ppf(self.accuracies[config]) * spread + luck + residual - self.difficulty > 0
        return Sample(right.mean(1).tolist(), right)

    def search(self, seeds):
        return [self.train(config, seeds) for config in range(len(self.accuracies))]


def ranked(samples):
    return sorted(samples, key=lambda sample: -np.mean(sample.scores))


def without_images(samples):
    return [Sample(sample.scores) for sample in samples]


# -------------------------------------------------------------------------- who won


def test_one_seed_each_cannot_tell():
    search = Sweep([0.9, 0.8, 0.7]).search(seeds=1)
    assert judge(search) is None
    assert judge(without_images(search)) is None


def test_a_config_far_ahead_is_a_clear_winner():
    search = Sweep([0.95, 0.8, 0.8, 0.7]).search(seeds=3)
    for evidence in (search, without_images(search)):
        verdict = judge(evidence)
        assert verdict.winner == 0
        assert verdict.is_clear
        assert verdict.rivals == []
        assert verdict.chances[0] > 0.999
        assert verdict.low < 0.95 < verdict.high
        assert verdict.seeds == 3


def test_of_equal_configs_none_is_clear_and_the_score_is_not_that_of_the_luckiest():
    verdict = judge(ranked(Sweep([0.9] * 20).search(seeds=2)))
    assert not verdict.is_clear
    assert len(verdict.rivals) > 10
    assert sum(verdict.chances) == pytest.approx(1)
    assert verdict.rivals == sorted(verdict.rivals, key=lambda place: -verdict.chances[place])
    assert verdict.luck > 0.005
    assert verdict.chosen_by - verdict.luck == pytest.approx(verdict.score)


def test_the_mean_over_seeds_wins_and_not_the_luckiest_seed():
    steady, lucky = Sample([0.221, 0.214, 0.228]), Sample([0.262, 0.17, 0.171])
    assert judge([steady, lucky]).winner == 0
    assert not judge([steady, lucky]).is_clear


def test_losses_that_are_negated_are_judged_by_seeds_alone():
    verdict = judge([Sample([-0.31, -0.30, -0.32]), Sample([-0.9, -0.91, -0.92])])
    assert verdict.images is None
    assert verdict.is_clear
    assert verdict.low < -0.31 < verdict.high


def test_one_config_without_images_leaves_seeds_alone_to_judge_by():
    search = Sweep([0.9, 0.88]).search(seeds=3)
    assert judge(search).images == 400
    assert judge([search[0], Sample(search[1].scores)]).images is None


def test_the_order_of_seeds_does_not_matter():
    sweep = Sweep([0.9, 0.89, 0.88])
    search, fresh = sweep.search(seeds=3), [sweep.train(0, 2), sweep.train(1, 2)]
    turned = [Sample(sample.scores[::-1], sample.correct[::-1]) for sample in search]
    assert judge(search, fresh) == judge(turned, fresh)
    assert judge(search, fresh) == judge(search, [Sample(each.scores[::-1], each.correct[::-1]) for each in fresh])


def test_fresh_seeds_decide_among_the_finalists():
    search = [Sample([0.92, 0.90]), Sample([0.91, 0.90]), Sample([0.86, 0.85])]
    verdict = judge(search, [Sample([0.84, 0.85, 0.83]), Sample([0.91, 0.90, 0.91])])
    assert verdict.winner == 1
    assert verdict.seeds == 5
    assert verdict.chosen_by == pytest.approx(0.905)


def test_finalists_whose_fresh_seeds_all_diverged_leave_the_others_to_win():
    search = [Sample([0.92, 0.91]), Sample([0.91, 0.90]), Sample([0.90, 0.89])]
    assert judge(search, [Sample([]), Sample([0.90]), Sample([0.89])]).winner == 1
    assert judge(search, [Sample([]), Sample([])]).winner == 0


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_where_all_images_are_right_or_wrong_nothing_is_clear_and_the_interval_not_empty(accuracy):
    same = Sample([accuracy] * 2, np.full((2, 100), bool(accuracy)))
    verdict = judge([same, same])
    assert verdict.winner == 0
    assert not verdict.is_clear
    assert verdict.high - verdict.low > 0.01
    assert 0 <= verdict.low <= verdict.high <= 1


def test_a_thousand_configs_of_which_few_were_trained_again():
    sweep = Sweep(np.linspace(0.9, 0.5, 1000), images=2000)
    search = sweep.search(seeds=1)
    verdict = judge(search, [sweep.train(place, 2) for place in range(5)])
    assert verdict.winner < 5
    assert len(verdict.chances) == 1000
    assert sum(verdict.chances) == pytest.approx(1)
    assert 1 < len(verdict.estimates) <= 20
    assert [each.place for each in verdict.estimates] == sorted(each.place for each in verdict.estimates)


# -------------------------------------------------------------------------- against references


def test_a_lone_configs_interval_is_that_of_crossed_random_effects():
    sample = Sweep([0.8], images=300, between_seeds=0.2).train(0, 40)
    bits = sample.correct.astype(float)
    seeds, images = bits.shape
    by_seed, by_image = bits.mean(1, keepdims=True), bits.mean(0, keepdims=True)
    residual = ((bits - by_seed - by_image + bits.mean()) ** 2).sum() / ((seeds - 1) * (images - 1))
    variance = (images * by_seed.var(ddof=1) + seeds * by_image.var(ddof=1) - residual) / (seeds * images)
    verdict = judge([sample])
    assert verdict.score == pytest.approx(bits.mean())
    assert verdict.high - verdict.low == pytest.approx(1.05 * 2 * 1.96 * np.sqrt(variance), rel=0.08)


def test_by_seeds_alone_a_lone_configs_interval_is_students():
    scores = stats.norm.ppf((np.arange(12) + 0.5) / 12, 0.7, 0.01)
    low, high = stats.t.interval(0.95, 11, scores.mean(), stats.sem(scores))
    verdict = judge([Sample(scores.tolist())])
    assert (verdict.low, verdict.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_the_chance_of_the_better_of_two_is_about_that_of_a_t_test():
    better, worse = np.array([0.701, 0.712, 0.694, 0.705, 0.698]), np.array([0.695, 0.702, 0.69, 0.7, 0.691])
    one_sided = stats.ttest_ind(better, worse, alternative="greater").pvalue
    chance = judge([Sample(better.tolist()), Sample(worse.tolist())]).chances[0]
    # Less than that: two configs may well be alike.
    assert 1 - 4 * one_sided < chance < 1 - one_sided


# -------------------------------------------------------------------------- the race


def test_everybody_trains_a_first_fresh_seed_and_nobody_more_than_asked_for():
    search = Sweep([0.9, 0.9, 0.9]).search(seeds=2)
    assert still_racing(search, [Sample([]), Sample([]), Sample([])], seeds=5) == [0, 1, 2]
    assert still_racing(search, search, seeds=2) == []


def test_who_is_far_behind_leaves_the_race():
    sweep = Sweep([0.93, 0.928, 0.8], images=20_000, between_seeds=0.2)
    search, fresh = sweep.search(seeds=2), sweep.search(seeds=1)
    assert still_racing(search, fresh, seeds=5) == [0, 1]


def test_once_the_winner_is_clear_it_trains_on_alone_if_at_all():
    sweep = Sweep([0.95, 0.8, 0.8])
    assert set(still_racing(sweep.search(seeds=2), sweep.search(seeds=1), seeds=5)) <= {0}


def test_a_race_that_images_leave_undecided_ends_early_and_the_leader_trains_once_more_to_be_ranked_first():
    sweep = Sweep([0.9] * 5, images=100, between_seeds=0)
    search, fresh = sweep.search(seeds=4), sweep.search(seeds=2)
    asked = still_racing(search, fresh, seeds=5)
    assert len(asked) == 1
    more = [
        Sample([*each.scores, *each.scores[:1]], np.concatenate([each.correct, each.correct[:1]]))
        if place in asked
        else each
        for place, each in enumerate(fresh)
    ]
    assert still_racing(search, more, seeds=5) == []
    assert judge(search, more).winner == asked[0]


def test_who_has_left_does_not_come_back():
    steady, worse = Sample([0.70, 0.71]), Sample([0.69, 0.70])
    bad_luck = Sample([0.40, 0.41, 0.39])
    assert still_racing([steady, worse], [bad_luck, Sample([0.7])], seeds=5) in ([], [0])


# -------------------------------------------------------------------------- over many sweeps


def test_over_many_sweeps_intervals_cover_and_equal_configs_are_not_called_clear():
    covered, clear, optimism, naive = [], [], [], []
    for number in range(200):
        sweep = Sweep([0.9] * 8, images=300, seed=number)
        verdict = judge(ranked(sweep.search(seeds=3)))
        covered.append(verdict.low <= 0.9 <= verdict.high)
        clear.append(verdict.is_clear)
        optimism.append(verdict.score - 0.9)
        naive.append(verdict.chosen_by - 0.9)
    assert np.mean(covered) > 0.9
    assert np.mean(clear) <= 0.05
    assert np.mean(optimism) < 0.5 * np.mean(naive)
