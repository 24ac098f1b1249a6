"""The verdict on the futures of a trial, from curves that are written down here; and a few trials with real faults."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raysweep.diagnose.probe import futures_of, judge, lines
from raysweep.vision.config import TrialConfig

K, SEED, USUAL = 12, 7, 0.9
CLIPPED, BATCH_NORM = {"clipped": (0.9, 0.9)}, {"batch_norm": (0.91, 0.91)}
CONFIG = TrialConfig(lr=0.3, epochs=30, ema=False).model_dump()


def row(epoch, acc, loss=0.5, lr=0.3, gradient=1.0, **others):
    norms = {"grad_norm": 0.5 + gradient / 100, "grad_norm_max": gradient}
    return {"epoch": epoch, "val_acc": acc, "train_loss": loss, "lr": lr, **norms, **others}


def before(noise=0.004):
    draws = np.random.default_rng(0).normal(0, noise, K - 1)
    return [row(epoch, USUAL + float(draws[epoch - 1])) for epoch in range(1, K)]


def probed(control=0.6, orders=0.9, noise=0.004, changed=None, **control_row):
    """The futures of a fall from 0.9, with the accuracy that each has in epoch K; all recover in the next.

    `changed` are accuracies by change, a pair of that in the trial's own order and that in others; one that is not
    named changes nothing. The `control_row` is of all futures in the trial's own order.
    """
    as_it_was = dict.fromkeys(("clipped", "smaller_lr", "averaged", "batch_norm"), (control, orders))
    levels = {**as_it_was, **(changed or {}), "order": (control, orders)}
    averaged, batch_norm = levels["averaged"], levels["batch_norm"]
    draws = np.random.default_rng(1)
    futures = []
    for future in futures_of(CONFIG, SEED, K, before(), orders=5):
        is_own = future.seed == SEED
        one = {"val_acc": control, "val_acc_ema": of(averaged, True), "val_acc_precise": of(batch_norm, True)}
        if future.name != "control":
            acc = of(levels[future.name], is_own) + float(draws.normal(0, noise))
            ema, precise = (of(each, is_own) + float(draws.normal(0, noise)) for each in (averaged, batch_norm))
            one = {"val_acc": acc, "val_acc_ema": ema, "val_acc_precise": precise}
        first = row(K, one.pop("val_acc"), **one, **(control_row if is_own else {}))
        later = row(K + 1, USUAL + float(draws.normal(0, noise)), val_acc_ema=USUAL, val_acc_precise=USUAL)
        futures.append(replace(future, rows=[first, later]))
    return futures


def of(pair, is_own):
    return pair[not is_own]


def judged(futures, noise=0.004, **arguments):
    return judge(before(noise), trial_of(futures), futures, **arguments)


def trial_of(futures):
    """The trial's own rows, which lack what its control measures beside."""
    return [{name: each[name] for name in row(1, 0.0)} for each in futures[0].rows]


# -------------------------------------------------------------------------- what is trained


def test_futures_change_one_thing_each_and_measure_averaged_weights_and_batch_norm_beside():
    futures = futures_of(CONFIG, SEED, K, [*before(), row(K, 0.6, gradient=50.0)], orders=5)
    aside = {"ema": {}, "precise_batch_norm": True}
    assert [(each.name, each.seed) for each in futures] == [
        ("control", 7),
        *(("clipped", seed) for seed in (7, 8, 9)),
        *(("smaller_lr", seed) for seed in (7, 8, 9)),
        *(("order", seed) for seed in (8, 9, 10, 11, 12)),
    ]
    assert all(future.changes.items() >= aside.items() for future in futures)
    assert futures[0].changes == futures[-1].changes == aside
    assert futures[1].changes == {**aside, "clip_grad_norm": 1.0}, "the usual norm, not the epoch's own"
    assert futures[4].changes == {**aside, "lr": pytest.approx(0.1)}


def test_where_the_learning_rate_rose_the_smaller_one_takes_all_of_the_rise_away():
    futures = futures_of(CONFIG, SEED, K, [*before(), row(K, 0.6, lr=6.0)])
    assert futures[4].changes["lr"] == pytest.approx(0.3 / 20)


def test_of_a_loop_with_other_settings_only_those_that_it_has_are_changed():
    futures = futures_of({"hidden": 3}, SEED, K, [{"epoch": 1, "mse": 1.0}])
    assert {future.name for future in futures} == {"control", "order"}
    assert all(not future.changes for future in futures)


# -------------------------------------------------------------------------- verdicts


def test_a_fall_of_one_order_that_clipping_prevents_is_exploding_gradients():
    verdict = judged(probed(changed=CLIPPED, gradient=40.0))
    assert (verdict.outcome, verdict.cause) == ("named", "exploding_gradients")
    effect = verdict.effect("clipped")
    assert effect.low < 1 < effect.high
    assert "95 % interval" in verdict.in_words()


def test_clipping_that_prevents_a_fall_without_larger_gradients_is_no_proof():
    assert judged(probed(changed=CLIPPED)).outcome == "unexplained"


def test_a_fall_of_all_orders_that_a_smaller_learning_rate_alone_prevents_is_too_high_a_learning_rate():
    verdict = judged(probed(orders=0.62, changed={"smaller_lr": (0.93, 0.93), "batch_norm": (0.7, 0.7)}))
    assert (verdict.outcome, verdict.cause) == ("named", "high_lr")
    assert "5 other orders of batches fall as well" in verdict.in_words()


@pytest.mark.parametrize(("orders", "swings"), [(0.62, 0.0), (0.62, 0.4), (0.9, 0.0)])
def test_where_the_learning_rate_rose_it_is_named_though_the_level_before_is_unsure_or_one_order_alone_fell(
    orders, swings
):
    futures = probed(orders=orders, changed={"smaller_lr": (0.9, 0.9), "batch_norm": (0.9, 0.9)}, lr=3.0)
    curve = [row(epoch, USUAL - swings * (epoch % 2)) for epoch in range(1, K)]
    verdict = judge(curve, trial_of(futures), futures)
    assert (verdict.outcome, verdict.cause) == ("named", "high_lr")
    assert "smaller learning rate" in verdict.in_words()


def test_a_fall_that_comes_again_at_the_smaller_learning_rate_is_no_chance_however_restless_the_curve_was():
    restless = [row(epoch, 0.85 + 0.02 * (-1) ** epoch) for epoch in range(1, K)]
    futures = probed(changed=BATCH_NORM)
    trial = trial_of(futures)
    assert judge(restless, trial, futures).cause == "batch_norm"
    removed = probed(changed={**BATCH_NORM, "smaller_lr": (0.9, 0.9)})
    assert judge(restless, trial, removed).outcome == "chance"


def test_a_fall_that_only_the_running_statistics_see_is_batch_norms():
    alone, all_of_them = judged(probed(changed=BATCH_NORM)), judged(probed(orders=0.6, changed=BATCH_NORM))
    assert alone.cause == all_of_them.cause == "batch_norm"


def test_statistics_are_not_to_blame_where_training_suffers_too():
    assert judged(probed(changed=BATCH_NORM, loss=2.0)).cause != "batch_norm"


def test_a_fall_of_one_order_whose_batches_are_as_hard_at_a_smaller_learning_rate_is_of_the_batches():
    verdict = judged(probed(changed={"clipped": (0.7, 0.9), "smaller_lr": (0.8, 0.9)}, loss=2.0, gradient=4.0))
    assert (verdict.outcome, verdict.cause) == ("named", "batches")


def test_gradients_that_are_large_in_much_of_the_epoch_are_the_batches_and_not_an_explosion():
    much = probed(changed=CLIPPED, loss=2.0, gradient=8.0)
    for future in much:
        future.rows[0]["grad_norm"] *= 3
    assert judged(much).cause == "batches"
    assert judged(probed(changed=CLIPPED, loss=2.0, gradient=8.0)).cause == "exploding_gradients"


@pytest.mark.parametrize(("clipped", "cause"), [(0.9, "exploding_gradients"), (0.62, "batches")])
def test_where_training_loss_says_that_something_happened_clipping_tells_what_though_the_fall_may_be_chance(
    clipped, cause
):
    restless = [row(epoch, 0.75 + 0.15 * (-1) ** epoch) for epoch in range(1, K)]
    futures = probed(changed={"clipped": (clipped, 0.9)}, loss=2.0, gradient=40.0)
    verdict = judge(restless, trial_of(futures), futures)
    assert (verdict.outcome, verdict.cause) == ("named", cause)
    assert verdict.numbers["chance"] > 0.01


def test_a_fall_within_what_other_orders_do_is_chance_though_every_change_takes_it_away():
    futures = probed(
        control=0.8, noise=0.04, changed={**CLIPPED, "smaller_lr": (0.98, 0.98), "batch_norm": (0.98, 0.98)}
    )
    verdict = judged(futures, noise=0.04)
    assert (verdict.outcome, verdict.cause) == ("chance", None)
    assert verdict.numbers["chance"] > 0.01
    assert "All orders are better" in verdict.in_words(), "what makes all of them better is said all the same"


@pytest.mark.parametrize("seed", range(2))
def test_of_healthy_trials_whose_deepest_fall_is_probed_hardly_any_has_a_cause(seed):
    draws = np.random.default_rng(seed)

    def rows_of(accuracies, first):
        more = {"val_acc_ema": float(draws.normal(0.8, 0.03)), "val_acc_precise": float(draws.normal(0.8, 0.03))}
        return [row(first + place, float(acc), **more) for place, acc in enumerate(accuracies)]

    named = 0
    for _ in range(100):
        trial = rows_of(draws.normal(0.8, 0.03, 30), 1)
        epoch = 5 + int(np.argmin([each["val_acc"] for each in trial[4:29]]))
        futures = []
        for future in futures_of(CONFIG, SEED, epoch, trial):
            again = trial[epoch - 1 : epoch + 1]
            fresh = rows_of(draws.normal(0.8, 0.03, 2), epoch)
            futures.append(replace(future, rows=again if future.name == "control" else fresh))
        named += judge(trial[: epoch - 1], trial[epoch - 1 :], futures).outcome == "named"
    assert named <= 2


def test_a_divergence_of_all_orders_that_a_smaller_learning_rate_prevents_is_too_high_a_learning_rate():
    futures = [
        replace(each, rows=(), diverged=True) if each.name in ("control", "order", "clipped") else each
        for each in probed(changed={"smaller_lr": (0.9, 0.9)})
    ]
    verdict = judge(before(), [], futures, phenomenon="divergence", diverged=True)
    assert (verdict.outcome, verdict.cause) == ("named", "high_lr")


def test_a_plateau_that_a_smaller_learning_rate_leaves_is_too_high_a_learning_rate_and_another_is_unexplained():
    for gain, cause in ((0.05, "high_lr"), (0.0, None)):
        futures = []
        draws = np.random.default_rng(3)
        for future in futures_of(CONFIG, SEED, K, before(), phenomenon="plateau"):
            level = USUAL + (gain if future.name == "smaller_lr" else 0.0)
            rows = [row(K + place, level + float(draws.normal(0, 0.004)), lr=0.3) for place in range(5)]
            futures.append(replace(future, rows=rows))
        verdict = judged(futures, phenomenon="plateau")
        assert verdict.cause == cause
        assert verdict.in_words()


def test_a_control_that_is_not_the_trial_to_the_bit_judges_nothing():
    futures = probed(changed=CLIPPED, gradient=40.0)
    trial = [{**futures[0].rows[0], "train_loss": 0.5 + 1e-12}, futures[0].rows[1]]
    verdict = judge(before(), trial, futures)
    assert verdict.outcome == "cannot_judge"
    assert "train_loss" in verdict.in_words()
    assert judge(before(), [{**futures[0].rows[0], "seconds": 9.0}], futures).outcome == "named", "a clock is no metric"
    assert judge(before(), [], futures, diverged=True).outcome == "cannot_judge", (
        "the trial diverged, the control did not"
    )


def test_two_other_orders_are_too_few():
    futures = [each for each in probed() if each.name != "order" or each.seed < 10]
    assert "3 other orders" in judged(futures).in_words()


def test_a_metric_that_is_to_be_small_is_judged_as_well():
    def turned(rows):
        return [{**{name: row[name] for name in row if "acc" not in name}, "mse": 1 - row["val_acc"]} for row in rows]

    futures = [replace(each, rows=turned(each.rows)) for each in probed(changed=CLIPPED, gradient=40.0)]
    verdict = judge(turned(before()), futures[0].rows, futures, metric="mse", maximize=False)
    assert verdict.cause == "exploding_gradients"


def test_a_verdict_is_json_and_a_picture_has_a_line_for_each_future_in_its_own_order_and_each_other_order():
    futures = probed(changed=CLIPPED, gradient=40.0)
    told = json.loads(json.dumps(judged(futures).as_json(), allow_nan=False))
    assert told["cause"] == "exploding_gradients"
    assert {effect["name"] for effect in told["effects"]} == {"clipped", "smaller_lr", "averaged", "batch_norm"}
    names = [line.name for line in lines(futures)]
    assert names == ["control", "clipped", "smaller_lr", *["order"] * 5, "averaged", "batch_norm"]
    assert all(line.epochs == [K, K + 1] and all(map(math.isfinite, line.values)) for line in lines(futures))


# -------------------------------------------------------------------------- real trials


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number"), [("exploding_gradients", 1), ("high_lr", 5), ("batch_norm", 4), ("batches", 3)]
)
def test_the_cause_that_was_put_into_a_small_trial_is_named(kind, number, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from _probe_trials import futures_in, probed

    told = probed((kind, number))
    rows, epoch = told["rows"], told["epoch"]
    verdict = judge(rows[: epoch - 1], rows[epoch - 1 :], futures_in(told), phenomenon=told["finding"] or "dip")
    assert verdict.cause == kind
