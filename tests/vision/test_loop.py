"""The training loop on tiny tensors, on the CPU."""

import contextlib
import copy
import gc
import io
import itertools
import math
import os
import time
import weakref

import pytest
import torch
from run_folders import METRICS
from torch import nn
from torch.backends import cudnn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from raysweep.vision.augment.batch import Normalize
from raysweep.vision.config import TrialConfig
from raysweep.vision.course import course_of
from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.device import resolve_precision
from raysweep.vision.loop import Diverged, Interrupted, split_batches, train
from raysweep.vision.models.build import build_model
from raysweep.vision.names import AUGMENTATIONS, MODELS
from raysweep.vision.precise import gathered_anew
from raysweep.vision.randomness import generator, seeded

CLOCK = ("seconds", "images_per_s")
TINY = {"name": "baseline_block", "width": 8}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def split(count, size=8, seed=0):
    labels = torch.arange(count) % 4
    noise = torch.randint(0, 120, (count, 3, size, size), generator=generator("cpu", "test", seed))
    return Split((noise + labels.view(-1, 1, 1, 1) * 30).to(torch.uint8), labels)


def data(train=50, val=20, size=8):
    return DataSet("tiny", split(train, size), split(val, size, 1), None, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, "-")


def config(**changes):
    return TrialConfig(**{"model": TINY, "epochs": 4, "batch_size": 16, "lr": 0.05, **changes})


def final_weights(settings, images, averaged=False, **arguments):
    for epoch in train(settings, images, seed=3, **arguments):
        weights = epoch.weights(averaged)
    return weights


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# -------------------------------------------------------------------------- learning


def test_overfits_one_batch():
    images = data(train=16)
    *_, last = train(config(epochs=100, lr=0.05, precision="fp32"), images, seed=0)
    assert last.metrics["train_acc"] == 1
    assert last.metrics["train_loss"] < 0.1


def test_learns_what_the_validation_images_have_in_common():
    *_, last = train(config(epochs=12, augment="shift"), data(train=200, val=100), seed=0)
    assert last.metrics["val_acc"] > 0.9
    assert last.metrics["val_acc_ema"] > 0.9


def test_every_epoch_has_the_metrics_by_name():
    epochs = list(train(config(epochs=3), data(), seed=0))
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    for epoch in epochs:
        assert epoch.metrics.keys() == METRICS
        assert all(isinstance(value, float) and math.isfinite(value) for value in epoch.metrics.values())
    assert [epoch.metrics["lr"] for epoch in epochs] == pytest.approx([0.05, 0.0375, 0.0125])


def test_the_learning_rate_of_an_epoch_is_the_mean_of_its_steps():
    epochs = list(train(config(epochs=2, lr=1.0, lr_schedule={"per": "step"}), data(), seed=0))
    of_steps = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert [epoch.metrics["lr"] for epoch in epochs] == pytest.approx([sum(of_steps[:4]) / 4, sum(of_steps[4:]) / 4])


def test_without_ema_there_are_no_averaged_metrics_nor_weights():
    epochs = train(config(ema=False), data(), seed=0)
    epoch = next(epochs)
    assert epoch.metrics.keys() == METRICS - {"val_loss_ema", "val_acc_ema"}
    with pytest.raises(ValueError, match="no EMA weights"):
        epoch.weights(averaged=True)
    epochs.close()


def test_one_epoch_equals_a_plain_loop_written_out():
    settings = config(
        epochs=1, ema=False, precision="fp32", label_smoothing=0.1, clip_grad_norm=0.5, lr_schedule="constant"
    )
    images = data(train=48)
    epochs = train(settings, images, seed=3)
    ours = next(epochs)
    with seeded(torch.device("cpu"), "weights", 3):
        model = build_model(settings.model, 4).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    normalize = Normalize((0.5,) * 3, (0.5,) * 3, "cpu")
    norms, losses, right = [], [], 0
    for batch in torch.randperm(48, generator=generator("cpu", "order", 3, 0)).split(16):
        logits = model(normalize(images.train.images[batch]))
        labels = images.train.labels[batch]
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        right += (logits.argmax(1) == labels).sum().item()
    for name, tensor in ours.weights(averaged=False).items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-5, rtol=1e-4)
    assert ours.metrics["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-4)
    assert ours.metrics["train_acc"] == pytest.approx(right / 48)
    assert ours.metrics["grad_norm"] == pytest.approx(sum(norms) / 3, rel=1e-4)
    assert ours.metrics["grad_norm_max"] == pytest.approx(max(norms), rel=1e-4)
    with torch.no_grad():
        logits = model.eval()(normalize(images.val.images))
    assert ours.metrics["val_loss"] == pytest.approx(F.cross_entropy(logits, images.val.labels).item(), rel=1e-3)
    assert ours.metrics["val_acc"] == pytest.approx((logits.argmax(1) == images.val.labels).float().mean().item())
    epochs.close()


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_a_step_in_parts_is_that_of_the_whole_batch_where_no_layer_looks_across_images(accumulate):
    MODELS.register("linear")(lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes)))
    same = {"model": "linear", "precision": "fp32", "augment": "v1augs", "label_smoothing": 0.1, "clip_grad_norm": 0.5}
    rows, weights, _ = train_saving_before(None, config(**same), data())
    in_parts, others, _ = train_saving_before(None, config(**same, accumulate=accumulate), data())
    for row, other in zip(rows, in_parts, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-6)
    for name, value in weights["plain"].items():
        torch.testing.assert_close(others["plain"][name], value, rtol=1e-4, atol=1e-5)


def test_mixed_batches_in_parts_have_the_labels_and_partners_of_the_whole_batch():
    MODELS.register("linear")(lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes)))
    same = {"model": "linear", "precision": "fp32", "augment": "flip_shift", "mix": {"mixup": 0.4, "cutmix": 1.0}}
    rows, _, _ = train_saving_before(None, config(**same), data())
    in_parts, _, _ = train_saving_before(None, config(**same, accumulate=3), data())
    for row, other in zip(rows, in_parts, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-6)
    assert rows != train_saving_before(None, config(**{**same, "mix": False}), data())[0]


def test_an_augmentation_of_ones_own_is_computed_once_a_step_however_many_parts_it_has():
    calls = []

    @AUGMENTATIONS.register("counts")
    def counts(images, generator):
        calls.append(len(images))
        return images

    list(train(config(augment="counts", accumulate=3, mix={"mixup": 0.4}, epochs=1), data(), seed=0))
    assert calls == [16, 16, 16, 2]


def test_batch_norm_sees_a_part_at_a_time_and_none_is_a_single_image():
    sizes = []

    @MODELS.register("watches_sizes")
    def watches_sizes(num_classes):
        network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, num_classes))
        network.register_forward_pre_hook(
            lambda module, images: sizes.append(len(images[0])) if module.training else None
        )
        return network

    list(train(config(model="watches_sizes", epochs=1, accumulate=5, ema=False), data(), seed=0))
    assert sizes[1:] == [3, 3, 3, 3, 4] * 3 + [2]  # the first is the check of the smallest batch


def test_images_are_only_read():
    images = data()
    before = images.train.images.clone()
    list(train(config(augment="v1augs", epochs=1), images, seed=0))
    assert torch.equal(images.train.images, before)


# -------------------------------------------------------------------------- same seed, same weights

OPTIMIZERS = [
    {"name": "sgd", "momentum": 0.0},
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "adamw"},
]
SCHEDULES = [
    {"name": "constant"},
    {"name": "step", "milestones": [2]},
    {"name": "cosine", "t_max": 2, "warmup_epochs": 1},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule["name"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: "-".join(map(str, optimizer.values())))
def test_resuming_after_any_epoch_equals_never_stopping(optimizer, schedule):
    settings = config(optimizer=optimizer, lr_schedule=schedule, augment="shift", lr=0.01)
    images = data()
    states = []
    for epoch in train(settings, images, seed=3):
        states.append(through_a_file(epoch.state()))
        plain, averaged = epoch.weights(False), epoch.weights(True)
    for state in states[:-1]:
        for epoch in train(settings, images, seed=3, state=state):
            pass_on = epoch.weights(False), epoch.weights(True)
        assert_same(pass_on[0], plain)
        assert_same(pass_on[1], averaged)


WSD = {"name": "wsd", "decay": 0.5, "warmup_epochs": 1}


@pytest.mark.parametrize(
    ("one", "other", "epochs"),
    [
        ({"lr_schedule": WSD, "epochs": 4}, {"lr_schedule": WSD, "epochs": 8}, 2),
        ({"lr_schedule": {**WSD, "per": "step"}, "epochs": 4}, {"lr_schedule": {**WSD, "per": "step"}, "epochs": 8}, 2),
        (
            {"lr_schedule": {"name": "step", "milestones": [3]}},
            {"lr_schedule": {"name": "constant", "per": "step", "warmup_epochs": 0}},
            3,
        ),
        ({"lr_schedule": "cosine"}, {"lr_schedule": "cosine", "epochs": 6}, 1),
    ],
)
def test_where_their_courses_agree_a_trial_goes_on_from_another_ones_state_to_the_same_bits(one, other, epochs):
    settings, others, images = config(**one), config(**other), data()
    agree = zip(course_of(settings).each, course_of(others).each, strict=False)
    assert sum(1 for _ in itertools.takewhile(lambda texts: texts[0] == texts[1], agree)) == epochs
    rows, weights, _ = train_saving_before(0, settings, images)
    training = train(others, images, seed=3)
    firsts = list(itertools.islice(training, epochs))
    state = through_a_file(firsts[-1].state())
    training.close()
    taken = [{name: value for name, value in epoch.metrics.items() if name not in CLOCK} for epoch in firsts]
    rest, ending, _ = train_saving_before(0, settings, images, state=state)
    assert [*taken, *rest] == rows
    assert_same(weights["plain"], ending["plain"])
    assert_same(weights["ema"], ending["ema"])


@pytest.mark.parametrize(
    "changes",
    [{"ema": False}, {"precision": "fp32"}, {"precision": "bf16"}, {"augment": "v1augs"}, {"clip_grad_norm": 0.1}],
    ids=str,
)
def test_resuming_equals_never_stopping_whatever_the_rest(changes):
    settings, images = config(**changes), data()
    epochs = train(settings, images, seed=3)
    next(epochs)
    state = through_a_file(next(epochs).state())
    epochs.close()
    assert_same(final_weights(settings, images), final_weights(settings, images, state=state))


def train_saving_before(step, settings, images, **arguments):
    """Metrics by epoch, the last weights, and the state before the step of that number, counted from 0 over all.

    Before the first step nobody is asked: the caller has the state from which it begins.
    """
    asked = itertools.count(1)
    rows, saved, weights = [], None, None
    for epoch in train(settings, images, seed=3, should_save=lambda: next(asked) == step, **arguments):
        if epoch.metrics:
            rows.append({name: value for name, value in epoch.metrics.items() if name not in CLOCK})
            weights = {"plain": epoch.weights(False)} | ({"ema": epoch.weights(True)} if settings.ema else {})
        else:
            saved = through_a_file(epoch.state())
    return rows, weights, saved


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "v1augs", "clip_grad_norm": 0.1},
        {"optimizer": {"name": "adamw"}, "precision": "bf16"},
        {"model": "with_dropout", "ema": False, "accumulate": 3, "lr_schedule": {"per": "step"}},
        {"mix": {"mixup": 0.2, "cutmix": 1.0, "p": 0.8}, "augment": [{"rand_augment": {}}, {"resized_crop": {}}]},
        {"optimizer": {"name": "muon", "decay_norm_and_bias": False}, "freeze": ["conv1", "bn1"], "accumulate": 2},
        {"augment": "v1augs", "precise_batch_norm": True},
    ],
    ids=str,
)
def test_resuming_before_any_step_equals_never_stopping_in_weights_and_metrics(changes):
    MODELS.register("with_dropout")(lambda num_classes: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 4)))
    settings, images = config(**{"epochs": 2, **changes}), data()
    rows, weights, _ = train_saving_before(None, settings, images)
    for step in range(1, 8):
        through, still, saved = train_saving_before(step, settings, images)
        begun = {"steps": 0, **saved.get("begun", saved)}
        assert (begun["epoch"], begun["steps"]) == divmod(step, 4)
        torch.rand(5)
        later, last, _ = train_saving_before(None, settings, images, state=saved)
        assert through == rows
        assert later == rows[step // 4 :]
        for kind in weights:
            assert_same(still[kind], weights[kind])
            assert_same(last[kind], weights[kind])


def test_a_place_is_saved_once_and_training_goes_on():
    epochs = list(train(config(epochs=2), data(), seed=3, should_save=lambda: True))
    assert [(epoch.number, bool(epoch.metrics)) for epoch in epochs] == [
        *[(0, False)] * 3,
        (1, True),
        *[(1, False)] * 4,
        (2, True),
    ]


def test_an_epoch_whose_state_was_taken_is_not_saved_again():
    places = []
    for epoch in train(config(epochs=2), data(), seed=3, should_save=lambda: True):
        places.append((epoch.number, epoch.state().get("begun", {"steps": 0})["steps"]))
    assert places == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]


def test_a_caller_that_is_to_stop_may_save_first():
    asked = itertools.count(1)
    is_to_stop = lambda: next(asked) >= 3  # noqa: E731
    epochs = train(config(), data(), seed=3, should_stop=is_to_stop, should_save=is_to_stop)
    assert next(epochs).state()["begun"]["steps"] == 1
    with pytest.raises(Interrupted, match="stopped in epoch 1, before step 2 of 4"):
        next(epochs)


def test_the_seconds_of_an_epoch_are_those_before_and_after_a_save_without_the_callers(monkeypatch):
    callers, clock = 0.0, time.perf_counter
    monkeypatch.setattr("raysweep.vision.loop.time.perf_counter", lambda: clock() + callers)
    asked = itertools.count()
    epochs = train(config(epochs=1), data(), seed=3, should_save=lambda: next(asked) == 2)
    state = next(epochs).state()
    callers = 1000
    whole = next(epochs).metrics
    assert 0 < state["begun"]["seconds"] < whole["seconds"] < 1000
    state["begun"]["seconds"] = 2000.0
    (resumed,) = train(config(epochs=1), data(), seed=3, state=state)
    assert 2000 < resumed.metrics["seconds"] < 3000
    assert resumed.metrics["images_per_s"] < 50 / 2000


def test_dropout_is_the_same_after_a_resume_and_consumes_no_global_randomness():
    @MODELS.register("with_dropout")
    def with_dropout(num_classes):
        return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, num_classes))

    settings, images = config(model="with_dropout"), data()
    before = torch.get_rng_state()
    epochs = train(settings, images, seed=3)
    state = next(epochs).state()
    epochs.close()
    whole = final_weights(settings, images)
    torch.rand(5)
    assert_same(whole, final_weights(settings, images, state=state))
    torch.set_rng_state(before)
    list(train(settings, images, seed=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_differ_and_one_seed_repeats():
    images = data()
    first, again, other = (next(train(config(), images, seed=seed)).metrics["train_loss"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def switches():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("ends", ["at its end", "closed", "by an error"])
def test_a_deterministic_trial_computes_so_and_leaves_the_process_as_it_was(ends, monkeypatch):
    seen = set()

    @MODELS.register("watched")
    def watched(num_classes):
        def look(module, inputs):
            if not inputs[0].is_meta:
                seen.add(switches())
                assert ends != "by an error"

        network = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
        network.register_forward_pre_hook(look)
        return network

    monkeypatch.setattr(cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = switches()
    epochs = train(config(model="watched", deterministic=True), data(), seed=3)
    with contextlib.suppress(AssertionError):
        next(epochs)
        list(epochs) if ends == "at its end" else epochs.close()
    assert seen == {(True, False, True, False, ":4096:8")}
    assert switches() == before == (False, False, False, True, None)


def test_any_other_trial_has_cudnn_take_its_fastest_algorithms_and_leaves_the_process_as_it_was():
    before = switches()
    epochs = train(config(), data(), seed=3)
    next(epochs)
    assert switches() == (*before[:3], True, before[4])
    epochs.close()
    assert switches() == before


def test_a_deterministic_trial_comes_to_the_same_numbers_as_any_other_on_a_cpu():
    images, seen = data(), config(augment="v1augs", precision="fp32")
    again = config(augment="v1augs", precision="fp32", deterministic=True)
    assert_same(final_weights(seen, images), final_weights(again, images))


def test_an_operation_without_a_deterministic_algorithm_is_named():
    class Unpooled(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
            self.last = nn.Linear(192, num_classes)

        def forward(self, images):
            return self.last(self.unpool(*self.pool(images)).flatten(1))

    MODELS.register("unpooled")(Unpooled)
    with pytest.raises(RuntimeError, match="max_unpooling2d_forward_out does not have a deterministic implementation"):
        list(train(config(model="unpooled", deterministic=True), data(), seed=3))


# -------------------------------------------------------------------------- state and weights


def test_state_and_weights_are_copies_that_training_does_not_touch():
    epochs = train(config(), data(), seed=0)
    epoch = next(epochs)
    state, weights = epoch.state(), epoch.weights(averaged=False)
    copy = {name: tensor.clone() for name, tensor in weights.items()}
    next(epochs)
    assert_same(weights, copy)
    assert_same(state["model"], copy)
    epochs.close()


def test_state_of_an_epoch_that_is_over_is_refused():
    epochs = train(config(), data(), seed=0)
    first = next(epochs)
    next(epochs)
    with pytest.raises(RuntimeError, match="epoch 1: its weights are gone"):
        first.state()
    epochs.close()


@pytest.mark.parametrize("averaged", [False, True])
def test_weights_load_into_the_network_and_score_as_recorded(averaged):
    settings, images = config(precision="fp32"), data()
    epochs = train(settings, images, seed=0)
    next(epochs)
    epoch = next(epochs)
    model = build_model(settings.model, 4)
    model.load_state_dict(epoch.weights(averaged))
    with torch.no_grad():
        logits = model.eval()(Normalize((0.5,) * 3, (0.5,) * 3, "cpu")(images.val.images))
    accuracy = (logits.argmax(1) == images.val.labels).float().mean().item()
    assert accuracy == pytest.approx(epoch.metrics["val_acc_ema" if averaged else "val_acc"])
    epochs.close()


@pytest.mark.parametrize("averaged", [False, True])
def test_which_validation_images_are_right_is_told_in_their_order_and_its_mean_is_the_accuracy(averaged):
    settings, images = config(precision="fp32", batch_size=8), data(val=150, size=32)
    for epoch in train(settings, images, seed=0):
        correct = epoch.correct(averaged)
        assert correct.double().mean().item() == epoch.metrics["val_acc_ema" if averaged else "val_acc"]
        weights = epoch.weights(averaged)
    assert 0 < correct.sum() < 150
    model = build_model(settings.model, 4).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        logits = model(Normalize((0.5,) * 3, (0.5,) * 3, "cpu")(images.val.images))
    assert torch.equal(correct, logits.argmax(1) == images.val.labels)


def test_inside_an_epoch_nothing_is_known_of_the_validation_images():
    asked = itertools.count(1)
    epochs = train(config(), data(), seed=3, should_save=lambda: next(asked) == 6)
    next(epochs)
    inside = next(epochs)
    assert (inside.number, inside.metrics) == (1, {})
    with pytest.raises(ValueError, match="epoch 1: no evaluation of plain weights"):
        inside.correct(averaged=False)
    epochs.close()


# -------------------------------------------------------------------------- how it ends


def test_diverged_trial_says_where_and_keeps_the_finite_numbers():
    with pytest.raises(Diverged, match=r"the loss of epoch \d+ is not finite") as caught:
        list(train(config(lr=1e20, lr_schedule="constant", precision="fp32"), data(), seed=0))
    diverged = caught.value
    assert diverged.numbers["lr"] == 1e20
    assert not (math.isfinite(diverged.numbers["train_loss"]) and math.isfinite(diverged.numbers["grad_norm"]))
    assert "lr" in diverged.metrics
    assert all(math.isfinite(value) for value in diverged.metrics.values())


def test_stop_is_seen_between_two_steps():
    asked = []

    def should_stop():
        asked.append(True)
        return len(asked) == 7

    epochs = train(config(), data(train=48), seed=0, should_stop=should_stop)
    assert next(epochs).number == 1
    next(epochs)
    with pytest.raises(Interrupted, match="stopped in epoch 3, before step 1 of 3"):
        next(epochs)


def test_nothing_is_left_when_the_loop_is_closed():
    epochs = train(config(), data(), seed=0)
    epoch = next(epochs)
    network = weakref.ref(epoch._training.model)
    average = weakref.ref(epoch._training.average)
    epochs.close()
    gc.collect()
    assert network() is None
    assert average() is None
    with pytest.raises(RuntimeError, match="has ended"):
        epoch.weights(averaged=False)


@pytest.mark.parametrize(("count", "sizes"), [(48, [16, 16, 16]), (50, [16, 16, 16, 2]), (49, [16, 16, 17]), (1, [1])])
def test_last_batch_may_be_short_but_a_single_image_joins_the_batch_before(count, sizes):
    order = torch.randperm(count)
    batches = split_batches(order, 16)
    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches), order)


def test_batches_of_one_stay_batches_of_one():
    assert [len(batch) for batch in split_batches(torch.arange(3), 1)] == [1, 1, 1]


def test_given_precision_is_kept():
    assert resolve_precision(config(precision="fp32"), "cpu") == "fp32"
    assert resolve_precision(config(precision="bf16"), "cpu") == "bf16"
    assert resolve_precision(config(), "cpu") in ("fp32", "bf16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_memory_is_free_after_the_loop():
    before = torch.cuda.memory_allocated()
    list(train(config(augment="v1augs"), data(), seed=0))
    assert torch.cuda.memory_allocated() == before


# -------------------------------------------------------------------------- batch norm, gathered anew


def test_precise_statistics_are_those_of_torchs_update_bn_on_the_batches_of_the_epoch():
    settings, images = config(epochs=2, precise_batch_norm=True, precision="fp32"), data(train=50)
    *_, last = train_keeping(settings, images)
    metrics, weights = last
    model = build_model(settings.model, 4).to(memory_format=torch.channels_last)
    model.load_state_dict(weights)
    normalize = Normalize((0.5,) * 3, (0.5,) * 3, "cpu")
    order = torch.randperm(50, generator=generator("cpu", "order", 3, 1))
    update_bn([normalize(images.train.images[batch]) for batch in split_batches(order, 16)[:3]], model)
    model.eval()
    with torch.inference_mode():
        logits = model(normalize(images.val.images))
    assert metrics["val_loss_precise"] == pytest.approx(F.cross_entropy(logits, images.val.labels).item(), rel=1e-5)
    assert metrics["val_acc_precise"] == pytest.approx((logits.argmax(1) == images.val.labels).float().mean().item())
    assert metrics["val_loss_precise"] != metrics["val_loss"]


def train_keeping(settings, images, **arguments):
    return [(epoch.metrics, epoch.weights(False)) for epoch in train(settings, images, seed=3, **arguments)]


def test_precise_statistics_change_nothing_else_of_a_trial():
    images, plain = data(), config(augment="shift")
    without, with_them = (
        train_keeping(plain.model_copy(update={"precise_batch_norm": each}), images) for each in (False, True)
    )
    for (metrics, weights), (more, same_weights) in zip(without, with_them, strict=True):
        assert {**more, **metrics, **{name: more[name] for name in CLOCK}} == more
        assert more.keys() - metrics.keys() == {"val_acc_precise", "val_loss_precise"}
        assert_same(weights, same_weights)


def test_frozen_batch_norms_keep_their_statistics_where_others_are_gathered_anew():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3))
    seen, before = torch.rand(8, 3, 4, 4) + 1, copy.deepcopy(model.state_dict())
    with gathered_anew(model, [model[0]]):
        model(seen)
        assert torch.equal(model[0].running_mean, before["0.running_mean"])
        torch.testing.assert_close(model[2].running_mean, model[0](seen).mean((0, 2, 3)))
    assert_same(dict(model.state_dict()), dict(before))
    assert model[2].momentum == 0.1


@pytest.mark.parametrize("averages", [True, False])
def test_a_state_goes_on_where_averaging_begins_or_ends_with_it(averages):
    images = data()
    epochs = train(config(ema=False if averages else {}), images, seed=3)
    state = [next(epochs), next(epochs)][-1].state()
    epochs.close()
    ema = {"horizon_epochs": 1} if averages else False
    *_, (metrics, weights) = train_keeping(config(ema=ema), images, state=through_a_file(state))
    assert_same(weights, final_weights(config(), images))
    assert ("val_acc_ema" in metrics) == averages
