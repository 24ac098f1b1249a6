"""The learning rate's closed forms against torch.optim.lr_scheduler, epoch by epoch and step by step."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from raysweep.vision.config import TrialConfig
from raysweep.vision.schedules import lr_at, mean_lr

EPOCHS = 30


def schedule(**config):
    return TrialConfig(lr_schedule=config).lr_schedule


def ours(config, lr=0.5):
    return [lr_at(config, epoch, EPOCHS, lr) for epoch in range(EPOCHS)]


def torchs(make, lr=0.5):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler = make(optimizer)
    lrs = []
    for _ in range(EPOCHS):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def in_turn(optimizer, schedulers, milestones):
    return lr_scheduler.SequentialLR(optimizer, schedulers, milestones) if milestones else schedulers[0]


def warm_stable_falling(optimizer, places, falling, warmup):
    """torch's counterpart of `wsd`: its schedulers, and where one takes over from another."""
    first, last = falling / (falling + 1), 1 / (falling + 1)
    parts = [
        (0, warmup, lambda: lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)),
        (warmup, places - falling, lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0)),
        (places - falling, places, lambda: lr_scheduler.LinearLR(optimizer, first, last, max(1, falling - 1))),
    ]
    there = [(start, make) for start, end, make in parts if end > start]
    return [make() for _, make in there], [start for start, _ in there[1:]]


def test_constant_stays():
    assert ours(schedule(name="constant")) == [0.5] * EPOCHS


@pytest.mark.parametrize("milestones", [[10], [10, 20], [5, 5, 25]])
def test_step_equals_torchs_multi_step_lr(milestones):
    config = schedule(name="step", milestones=milestones, gamma=0.2)
    assert ours(config) == pytest.approx(torchs(lambda o: lr_scheduler.MultiStepLR(o, milestones, 0.2)))


@pytest.mark.parametrize("min_lr", [0.0, 0.01])
@pytest.mark.parametrize("t_max", [None, 7, 30, 45])
def test_cosine_equals_torchs_cosine_annealing_lr_also_past_its_half_period(t_max, min_lr):
    config = schedule(name="cosine", t_max=t_max, min_lr=min_lr)
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, t_max or EPOCHS, min_lr))
    assert ours(config) == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR uses it itself
@pytest.mark.parametrize("warmup", [1, 5])
@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
def test_warm_up_then_schedule_equals_torchs_sequential_lr(kind, warmup):
    mains = {
        "constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
        "step": lambda o: lr_scheduler.MultiStepLR(o, [8], 0.1),
        "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS - warmup),
    }
    config = schedule(name=kind, warmup_epochs=warmup, **({"milestones": [8]} if kind == "step" else {}))
    rise = 1 / (warmup + 1)

    def make(optimizer):
        warm = lr_scheduler.LinearLR(optimizer, start_factor=rise, total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [warm, mains[kind](optimizer)], [warmup])

    assert ours(config) == pytest.approx(torchs(make), abs=1e-9)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_a_schedule_per_step_equals_torchs_own_stepped_after_each_step(kind, warmup):
    epochs, steps = 6, 5
    settings = {"step": {"milestones": [3]}, "cosine": {"min_lr": 0.01}}[kind]
    config = schedule(name=kind, per="step", warmup_epochs=warmup, **settings)

    def make(optimizer):
        after = (epochs - warmup) * steps
        main = {
            "step": lambda: lr_scheduler.MultiStepLR(optimizer, [3 * steps], 0.1),
            "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, after, 0.01),
        }
        if not warmup:
            return main[kind]()
        rise = lr_scheduler.LinearLR(optimizer, 1 / (warmup * steps + 1), total_iters=warmup * steps)
        return lr_scheduler.SequentialLR(optimizer, [rise, main[kind]()], [warmup * steps])

    ours = [lr_at(config, epoch, epochs, 0.5, step, steps) for epoch in range(epochs) for step in range(steps)]
    assert ours == pytest.approx(torchs(make), abs=1e-9)
    assert mean_lr(config, 1, epochs, 0.5, steps) == pytest.approx(sum(ours[steps : 2 * steps]) / steps)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize(("decay", "falling"), [(0.2, 6), (0.01, 1), (0.8, 24), (0.75, 22), (1.0, 30)])
def test_wsd_equals_torchs_constant_lr_and_then_linear_lr_over_a_share_of_all_epochs(decay, falling, warmup):
    config = schedule(name="wsd", decay=decay, warmup_epochs=warmup)
    expected = torchs(lambda o: in_turn(o, *warm_stable_falling(o, EPOCHS, min(falling, EPOCHS - warmup), warmup)))
    assert ours(config) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("warmup", [0, 2])
def test_wsd_per_step_equals_torchs_own_stepped_after_each_step(warmup):
    epochs, steps, falling = 6, 5, 8  # a quarter of 30 steps, 7.5, is rounded to the even number
    config = schedule(name="wsd", decay=0.25, warmup_epochs=warmup, per="step")
    ours = [lr_at(config, epoch, epochs, 0.5, step, steps) for epoch in range(epochs) for step in range(steps)]
    expected = torchs(lambda o: in_turn(o, *warm_stable_falling(o, epochs * steps, falling, warmup * steps)))
    assert ours == pytest.approx(expected)
    assert mean_lr(config, 5, epochs, 0.5, steps) == pytest.approx(sum(ours[-steps:]) / steps)


def test_the_fall_of_wsd_mirrors_its_warm_up_and_the_epochs_between_have_exactly_the_peak():
    lrs = ours(schedule(name="wsd", warmup_epochs=6, decay=0.2), lr=0.3)
    assert lrs[-6:] == pytest.approx(lrs[5::-1])
    assert lrs[6:-6] == [0.3] * (EPOCHS - 12)


@pytest.mark.parametrize("kind", ["constant", "wsd"])
def test_a_mean_of_equal_learning_rates_is_exactly_these(kind):
    assert math.fsum([0.7] * 3) / 3 != 0.7
    assert mean_lr(schedule(name=kind, per="step"), 3, EPOCHS, 0.7, steps=3) == 0.7


def test_warm_up_longer_than_the_trial_only_rises():
    lrs = ours(schedule(name="cosine", warmup_epochs=EPOCHS + 10))
    assert lrs == sorted(lrs)
    assert lrs[-1] < 0.5
