"""
The training loop: `for epoch in train(config, data, seed=0)`. Plain torch, no Ray.

* train              config and data in, one `Epoch` after another out
  + _Training        network, optimizer, EMA weights and data of one trial, on its device
    x train_epoch -> _step       augment, forward and backward, clip, update
      + _pass                    forward and backward, on a part of a batch
    x evaluate                   plain or EMA weights on the validation images
  + Epoch            metrics, and on request the state to resume from and the weights for inference

All randomness comes from (seed, epoch, step), so on one CPU a trial that is stopped after any step and resumed from
`Epoch.state()` ends with the same weights and metrics, bit for bit, as one that never stopped.

In a process group of torch.distributed every rank calls `train` alike, and the ranks train one network together, each
on its part of every batch: `batch_size` is that of all together; metrics, state and weights are the same on all. Before
each epoch the ranks wait for rank 0, whose caller closes the generator if there shall be no other epoch.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from raysweep.errors import Diverged, Interrupted
from raysweep.vision.augment.batch import Normalize, build_augment
from raysweep.vision.compiled import begin_step, compile_network, release
from raysweep.vision.config import TrialConfig
from raysweep.vision.data.dataset import DataSet, mean_std
from raysweep.vision.device import check_sync_batch_norm, resolve_device, resolve_precision
from raysweep.vision.distributed import Group, Pace, used_parameters
from raysweep.vision.ema import AveragedWeights
from raysweep.vision.feed import Place, Rows, feed_of
from raysweep.vision.losses import Loss
from raysweep.vision.memory import FEWER, Batches, telling
from raysweep.vision.mix import draw_mix
from raysweep.vision.models.build import check_image_size
from raysweep.vision.models.parts import frozen_norms
from raysweep.vision.models.pretrained import Pretrained, begin
from raysweep.vision.names import METRICS
from raysweep.vision.optimizers import build_optimizer, fingerprint, load_optimizer
from raysweep.vision.precise import PRECISE_IMAGES, check_precise_batch_norm, gathered_anew
from raysweep.vision.randomness import deterministic, generator, generator_states, seeded
from raysweep.vision.schedules import lr_at, mean_lr

SMALLER = f"a smaller batch_size, a smaller network or a larger accumulate makes it another trial; {FEWER}"


@dataclass(frozen=True)
class Epoch:
    """One epoch's outcome, or a place inside one; what its methods return is there until the loop goes on."""

    number: int
    """Counted from 1; inside an epoch, that of the last whole one."""
    metrics: dict[str, float]
    """Nothing inside an epoch. After it: train_loss (as optimised, label smoothing included) and train_acc on
    the augmented batches, where the answer to a mixed image counts by its share; val_loss, val_acc and the user's
    metrics, all with `_ema` once more where `ema` is on, and with `_precise` by batch-norm statistics that are
    gathered anew, where `precise_batch_norm` is; lr, the mean over the steps; grad_norm and grad_norm_max, the
    mean and the largest over the steps, before clipping; images_per_s of the training alone; seconds of the whole
    epoch, without the time that the caller took inside it."""
    _training: _Training = field(repr=False, compare=False)
    _place: tuple[int, int] = field(repr=False, compare=False)

    def state(self) -> dict[str, Any]:
        """Return all that `train(state=...)` needs to go on: copies on the CPU, for torch.load(weights_only=True)."""
        return self._still_here().state()

    def weights(self, averaged: bool) -> dict[str, torch.Tensor]:
        """Return copies on the CPU of the plain or the EMA weights, named as in `build_model(...)`."""
        return {
            name: tensor.to("cpu", memory_format=torch.contiguous_format, copy=True)
            for name, tensor in self.own_weights(averaged).items()
        }

    def own_weights(self, averaged: bool) -> dict[str, torch.Tensor]:
        """Return what `weights` copies: the network's tensors, on their device, which training changes."""
        training = self._still_here()
        if not averaged:
            return dict(training.model.state_dict())
        if training.average is None:
            raise ValueError("no EMA weights: the trial's config has ema: false")
        return dict(training.average.module.state_dict())

    def correct(self, averaged: bool) -> torch.Tensor:
        """Return of each validation image whether the plain or the EMA weights got it right: bool, on the CPU.

        Their mean is val_acc or val_acc_ema. Among several ranks each knows of all images.
        """
        correct = self._still_here().correct.get(averaged)
        if correct is None:
            raise ValueError(f"epoch {self.number}: no evaluation of {'EMA' if averaged else 'plain'} weights")
        return correct.to("cpu", torch.bool, copy=True)

    def _still_here(self) -> _Training:
        if self._training.place != self._place:
            raise RuntimeError(f"epoch {self.number}: its weights are gone, training has moved on or has ended")
        return self._training


def train(
    config: TrialConfig,
    data: DataSet,
    *,
    seed: int,
    device: str = "auto",
    state: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
    pretrained: Pretrained | None = None,
    place: Place = "auto",
    gpu_share: float = 1.0,
    from_another: bool = False,
) -> Generator[Epoch, None, None]:
    """Train a network and yield after each epoch, and before each step where `should_save()` is true.

    `seed` decides the initial weights, the order of images, augmentation and dropout. `device` is torch's name of one,
    or `auto`: a GPU if there is one. `state` is the `Epoch.state()` to go on from. `should_stop` and `should_save`
    are asked before every step, and must be cheap; where both are true, it saves and then stops. Among several ranks,
    rank 0's `state` and answers count, and it is asked every few steps. `pretrained` are the weights to begin with,
    where `config.model` names any. The images lie on the `device`, or stream there from the `host`, which makes no
    difference to any number; `auto`: on the device where they take at most half of its memory that is free, or of the
    `gpu_share` of it that this process may have. A state `from_another` trial may be one of other settings, but for the
    network.

    Raises:
        UserError: the network cannot be built, cannot take images of this size, or the optimizer cannot go on.
        Diverged: the loss of an epoch is not finite.
        Interrupted: `should_stop()` is true.
    """
    with (
        Group() as group,
        closing(_Training(config, data, seed, resolve_device(device), group, pretrained, place, gpu_share)) as training,
        deterministic(config.deterministic),
        group.aborted_by_errors(),
    ):
        try:
            state = group.from_first(state)
            if state is not None:
                training.load(state, from_another)
            while training.epochs_done < config.epochs and group.agree(True):
                metrics = training.advance(should_stop, should_save)
                yield Epoch(training.epochs_done, metrics, training, training.place)
        except GeneratorExit:
            if training.epochs_done < config.epochs:
                group.agree(False)
            raise


class Order(IntEnum):
    """What rank 0 wants before a step."""

    STOP = 0
    GO_ON = 1
    SAVE = 2


@dataclass
class _Begun:
    """How far an epoch has come."""

    sums: torch.Tensor
    """Of this rank's losses, right answers and gradient norms, and the largest of the norms; on the device."""
    steps: int = 0
    seconds: float = 0.0
    generators: list[torch.Tensor] | None = None
    """The states of torch's generators after the last step, from which dropout goes on."""
    of_ranks: list[dict[str, Any]] = field(default_factory=list)
    """What each rank has of its own, to be saved."""


class _Training:
    """All that one trial holds on its device, and how it advances."""

    @telling("set-up")
    def __init__(
        self,
        config: TrialConfig,
        data: DataSet,
        seed: int,
        device: torch.device,
        group: Group,
        pretrained: Pretrained | None,
        place: Place,
        gpu_share: float,
    ) -> None:
        check_sync_batch_norm(config, device)
        self.config, self.seed, self.device, self.group = config, seed, device, group
        self.epochs_done = 0
        self.begun = self._new_epoch()
        self.correct: dict[bool, torch.Tensor] = {}
        """Of each validation image, 1 or 0: whether the plain (False) or the EMA weights (True) got it right last."""
        self._saved_at = self.place  # its state is the caller's, or nothing
        mean, std = mean_std(config.normalize, data, pretrained.mean_std if pretrained else None)
        self.normalize = Normalize(mean, std, device)
        self.augment = build_augment(config.augment, data.image_size)
        self.num_classes, self.image_size = data.num_classes, data.image_size
        self.train_images, self.val_images = len(data.train), len(data.val)
        self.val_share = group.share(self.val_images)
        self.feed = feed_of(data, self.val_share, device, place, gpu_share)
        self.val_labels = data.val.labels.to(device, copy=True) if config.metrics else None  # of all ranks' images
        at_once = -(-config.batch_size // group.size // config.accumulate)
        self.val_batches = Batches(device, data.image_size, at_once)
        self.loss, self.pace = Loss(config), Pace(group)
        batches = split_batches(torch.arange(len(data.train)), config.batch_size)
        smallest = min(group.smallest_part(len(batch)) for batch in batches)
        check_precise_batch_norm(config, group.size, len(batches[0]))
        model, used = self._new_model(data, pretrained, smallest if config.accumulate == 1 else min(smallest, 2))
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.average: AveragedWeights | None = None
        if config.ema is not False:
            self.average = AveragedWeights(self.model, config.ema.horizon_epochs * len(batches))
        if config.sync_batch_norm and group.size > 1:  # not before: a layer that knows a process group is not copied
            self.model = model = nn.SyncBatchNorm.convert_sync_batchnorm(model, group.data)  # type: ignore[no-untyped-call]
        self.optimizer, self.factors = build_optimizer(config, model)
        self.bf16 = group.agree(resolve_precision(config, device) == "bf16")
        self.forward: Callable[[torch.Tensor], torch.Tensor] = self._compiled(model, data) if config.compile else model
        self.sharded = group.shard(self.forward, data.num_classes, device, used)
        self.frozen_norms = frozen_norms(model, config.freeze)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def _new_model(
        self, data: DataSet, pretrained: Pretrained | None, smallest_batch: int
    ) -> tuple[nn.Module, list[bool] | None]:
        """Return the network, and which of its parameters are used (see `used_parameters`)."""
        with seeded(self.device, "weights", self.seed):
            model = begin(self.config, data.num_classes, pretrained)
        check_image_size(model, self.config.model.name, data.image_size, smallest_batch)
        return model, used_parameters(model, data.image_size) if self.group.size > 1 else None

    def _compiled(self, model: nn.Module, data: DataSet) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the network compiled, by the graphs of the trial before if it computed the same."""
        config = self.config
        computed = (
            config.model.model_dump_json(),
            *config.freeze,
            data.num_classes,
            data.image_size,
            config.batch_size,
            config.accumulate,
            self.bf16,
            config.deterministic,
            self.group.size,
            str(self.device),
        )
        return compile_network(model, computed, with_graphs=config.compile == "reduce-overhead")

    def load(self, state: Mapping[str, Any], from_another: bool) -> None:
        """Go on from an `Epoch.state()`; one `from_another` trial may be of other settings, but for the network."""
        self.model.load_state_dict(state["model"])
        is_others = from_another and "begun" not in state  # which a trial leaves for itself alone
        load_optimizer(self.optimizer, self.config, state["optimizer"], state.get("optimizer_of"), is_others)
        if self.average is not None and "average" in state:  # else averaging begins with the next step
            self.average.load_state_dict(state["average"])
        if "begun" in state:
            self._load_begun(**state["begun"])
        else:
            self.epochs_done = state["epoch"]
        self._saved_at = self.place

    def _load_begun(self, epoch: int, steps: int, seconds: float, of_ranks: Sequence[Mapping[str, Any]]) -> None:
        self.epochs_done = epoch
        own = of_ranks[self.group.rank]
        self.begun = _Begun(own["sums"].to(self.device), steps, seconds, own["generators"])
        for buffer, value in zip(self._buffers(), own["buffers"], strict=True):
            buffer.copy_(value)

    def state(self) -> dict[str, Any]:
        """Return what `load` takes; the caller then has it, and is not asked to save this place."""
        self._saved_at = self.place
        state: dict[str, Any] = {
            "model": _copies(self.model.state_dict()),
            "optimizer": _copies(self.optimizer.state_dict()),
            "optimizer_of": fingerprint(self.config),
        }
        if self.average is not None:
            state["average"] = _copies(self.average.state_dict())
        if not self.begun.steps:
            return {"epoch": self.epochs_done, **state}
        steps, seconds, of_ranks = self.begun.steps, self.begun.seconds, self.begun.of_ranks
        # Without an "epoch" of its own, older readers cannot take it for the state after one.
        return {"begun": {"epoch": self.epochs_done, "steps": steps, "seconds": seconds, "of_ranks": of_ranks}, **state}

    @property
    def place(self) -> tuple[int, int]:
        """Whole epochs trained, and steps of the next one."""
        return self.epochs_done, self.begun.steps

    def _new_epoch(self) -> _Begun:
        return _Begun(torch.zeros(4, device=self.device))

    def _buffers(self) -> list[torch.Tensor]:
        """What ranks have different ones of inside an epoch: the batch norms' statistics."""
        return [*self.model.buffers(), *(self.average.buffers() if self.average is not None else ())]

    def close(self) -> None:
        """Free the device for the next trial in the process."""
        self.epochs_done = -1
        release(self.forward)
        del self.model, self.average, self.forward, self.sharded, self.parameters, self.frozen_norms, self.optimizer
        del self.val_labels, self.correct
        self.feed.close()
        if self.device.type == "cuda" or self.group.size > 1:
            gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def advance(self, should_stop: Callable[[], bool], should_save: Callable[[], bool]) -> dict[str, float]:
        """Train to the end of the epoch and evaluate; return the metrics of `Epoch`.

        Where `should_save()` is true before a step, train only so far, and return no metrics.
        """
        start = time.perf_counter() - self.begun.seconds
        self.correct = {}
        # No rank drops what another does; the key of rank 0 is that of a trial of one.
        key = ("dropout", self.seed, self.epochs_done, *((self.group.rank,) if self.group.rank else ()))
        with seeded(self.device, *key, states=self.begun.generators):
            is_whole = self.train_epoch(should_stop, should_save)
        if not is_whole:
            self.begun.seconds = time.perf_counter() - start
            return {}
        metrics = self._training_metrics()
        metrics["images_per_s"] = self.train_images / (time.perf_counter() - start)
        self.group.average_buffers(self.model)
        measured, self.correct[False] = self.evaluate(self.forward, self.model)
        metrics |= {f"val_{name}": value for name, value in measured.items()}
        if self.average is not None:
            module = self.average.module
            self.group.average_buffers(module)
            measured, self.correct[True] = self.evaluate(module, module)
            metrics |= {f"val_{name}_ema": value for name, value in measured.items()}
        if self.config.precise_batch_norm:
            measured = self._evaluate_precisely()
            metrics |= {f"val_{name}_precise": value for name, value in measured.items()}
        config, steps = self.config, self.begun.steps
        lr = mean_lr(config.lr_schedule, self.epochs_done, config.epochs, config.lr, steps)
        metrics |= {"lr": lr, "seconds": time.perf_counter() - start}
        self.group.wait_for_all()
        if not (math.isfinite(metrics["train_loss"]) and math.isfinite(metrics["val_loss"])):
            raise Diverged(self.epochs_done + 1, metrics)
        self.epochs_done += 1
        self.begun = self._new_epoch()
        return metrics

    def train_epoch(self, should_stop: Callable[[], bool], should_save: Callable[[], bool]) -> bool:
        """Train on every image that the epoch has left; return False where `should_save()` is true before that.

        The device is asked for numbers only at the end, so it never waits.
        """
        self.model.train()
        for frozen in self.frozen_norms:
            frozen.eval()
        epoch, begun = self.epochs_done, self.begun
        batches, labels = self._batches()
        loss_sum, correct, norm_sum, norm_max = begun.sums.unbind()
        self.pace.begin_anew()
        with closing(self.feed.train.batches(batches[begun.steps :], self._needed)) as images:
            for batch, labels_of_batch in zip(images, labels[begun.steps :], strict=True):
                match self.pace.ask(partial(self._order, should_stop, should_save), Order.GO_ON):
                    case Order.SAVE:
                        self._pause()
                        return False
                    case Order.STOP:
                        where = f"before step {begun.steps + 1} of {len(batches)}"
                        raise Interrupted(f"stopped in epoch {epoch + 1}, {where}")
                self._set_lr(len(batches))
                with telling(f"training, with batch_size {self.config.batch_size}", SMALLER):
                    loss, hits, norm = self._step(epoch, begun.steps, batch, labels_of_batch)
                loss_sum += loss * len(labels_of_batch)
                correct += hits
                norm_sum += norm
                torch.maximum(norm_max, norm, out=norm_max)
                begun.steps += 1
        return True

    def _batches(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return which images the epoch's batches have, in their order, and the labels."""
        order = torch.randperm(self.train_images, generator=generator("cpu", "order", self.seed, self.epochs_done))
        labels = self.feed.train_labels[order.to(self.device)]
        return split_batches(order, self.config.batch_size), split_batches(labels, self.config.batch_size)

    def _needed(self, count: int) -> list[slice]:
        """Return the rows of a batch of `count` images that this rank looks at."""
        if self.group.size == 1 or self.augment.takes_all:
            return [slice(0, count)]
        part = self.group.part(count)
        return [_row_before(part, count), part] if self.config.mix else [part]

    def _set_lr(self, steps: int) -> None:
        """Set the learning rates of the next step, in an epoch of so many."""
        config = self.config
        lr = lr_at(config.lr_schedule, self.epochs_done, config.epochs, config.lr, self.begun.steps, steps)
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = lr * factor

    def _order(self, should_stop: Callable[[], bool], should_save: Callable[[], bool]) -> Order:
        """Return what is wanted before a step; nobody is asked to save the place that was saved last."""
        order = Order.STOP if should_stop() else Order.GO_ON
        if self.place != self._saved_at and should_save():
            order = Order.SAVE  # before it stops; asked second, lest the answer to both change between them
        return order

    def _pause(self) -> None:
        """Note what `state` needs beside the weights, inside of an epoch."""
        begun = self.begun
        begun.generators = generator_states(self.device)
        own = {"sums": begun.sums, "buffers": self._buffers(), "generators": begun.generators}
        begun.of_ranks = self.group.gather(_copies(own))
        self._saved_at = self.place

    def _training_metrics(self) -> dict[str, float]:
        self.group.sum_(self.begun.sums[:2])  # the norms are of the averaged gradient: the same on all ranks
        loss_sum, correct, norm_sum, norm_max = self.begun.sums.tolist()
        images = self.train_images
        return {
            "train_loss": loss_sum / images,
            "train_acc": correct / images,
            "grad_norm": norm_sum / self.begun.steps,
            "grad_norm_max": norm_max,
        }

    def _step(
        self, epoch: int, step: int, batch: Rows, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Update the weights on one batch, of which this rank computes its part.

        Returns this rank's share of the batch's mean loss and of its correct answers, and the gradient's norm.
        """
        examples, count = self._examples(epoch, step, batch, labels), len(labels)
        begin_step(self.forward)
        *others, last = self.group.parts(count, self.config.accumulate)
        shares = [self._pass(*examples(rows), count, is_last=False) for rows in others]
        loss, hits = self._pass(*examples(last), count, is_last=True)
        for loss_of_part, hits_of_part in shares:
            loss, hits = loss + loss_of_part, hits + hits_of_part
        norm = self._clip()
        self.optimizer.step()
        # The gradients' memory is given back at once rather than filled with zeros.
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss, hits, norm

    def _pass(
        self, images: torch.Tensor, labels: torch.Tensor, count: int, is_last: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the gradients of part of a batch of `count`; return its share of the mean loss and of correct answers."""
        with self.group.gradients_meet(self.sharded, now=is_last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.sharded(self.normalize(images)).float()
                loss = self._loss(logits, labels, count)
            # Gradients are averaged over the ranks; of shares of a mean it takes their sum, however uneven the parts.
            (loss * self.group.size if self.group.size > 1 else loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), _hits(logits.detach().argmax(1), labels)

    def _examples(
        self, epoch: int, step: int, batch: Rows, all_labels: torch.Tensor
    ) -> Callable[[slice], tuple[torch.Tensor, torch.Tensor]]:
        """Return what gives some rows of a batch: images as the network gets them but for normalisation, and labels.

        Labels are int64, N, or where they are mixed the probability of each class, N x classes.
        """
        config, count = self.config.mix, len(all_labels)
        drawn_from = generator(self.device, "augment", self.seed, epoch, step)
        augmented = self.augment.parts(batch, count, self.image_size, drawn_from)

        def examples(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
            images, labels = augmented(rows), all_labels[rows]
            mix = draw_mix(config, images.shape[-1], self.seed, epoch, step) if config else None
            if mix is None or len(labels) == 0:
                return images, labels
            before = _row_before(rows, count)
            mixed = mix.images(images, torch.cat([augmented(before), images[:-1]]))
            return mixed, mix.labels(labels, torch.cat([all_labels[before], labels[:-1]]), self.num_classes)

        return examples

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
        """Return what these logits add to the mean loss of a batch of `count` images."""
        if self.group.size == 1 and len(labels) == count:
            return self.loss.mean(logits, labels)
        return self.loss.sum(logits, labels) / count

    def _clip(self) -> torch.Tensor:
        """Scale the gradients down to `clip_grad_norm`, if any; return their norm before."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None], foreach=True)
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip_grad_norm, norm, foreach=True)
        return norm

    @torch.inference_mode()
    def evaluate(
        self, forward: Callable[[torch.Tensor], torch.Tensor], model: nn.Module
    ) -> tuple[dict[str, float], torch.Tensor]:
        """Return mean loss, accuracy (0..1) and the user's metrics on the validation images, and which are right (1).

        `forward` computes `model`.
        """
        model.eval()
        # One sum over the ranks does for the loss and for each image, which is 0 on all ranks but one.
        sums = torch.zeros(1 + self.val_images, device=self.device)
        loss_sum, hits = sums[0], sums[1:][self.val_share]
        start, kept = 0, []
        for loss, logits in self.val_batches.over(
            self.val_share.stop - self.val_share.start, partial(self._loss_and_logits, forward)
        ):
            loss_sum += loss
            rows = slice(start, start + len(logits))
            hits[rows] = logits.argmax(1) == self.feed.val_labels[rows]
            kept += [logits.clone()] if self.config.metrics else []
            start = rows.stop
        correct = self.group.sum_(sums)[1:]
        loss, right = torch.stack([loss_sum, correct.sum()]).tolist()
        measured = {"loss": loss / self.val_images, "acc": right / self.val_images}
        return measured | self._own_metrics(kept), correct

    def _evaluate_precisely(self) -> dict[str, float]:
        """Return what `evaluate` measures by statistics of the images that the epoch's first batches were made of.

        They are augmented and mixed as training saw them, and its batches are whole, so that nothing but the weights
        of the end of the epoch tells these statistics from training's own.
        """
        with gathered_anew(self.model, self.frozen_norms):
            batches, labels = self._batches()
            whole, size = self.train_images // self.config.batch_size, self.config.batch_size
            count = max(1, min(whole, -(-PRECISE_IMAGES // size)))
            with closing(self.feed.train.batches(batches[:count], self._needed)) as images:
                for step, (batch, labels_of_batch) in enumerate(zip(images, labels[:count], strict=True)):
                    self._look_at(self.epochs_done, step, batch, labels_of_batch)
            self.group.average_buffers(self.model)
            return self.evaluate(self.model, self.model)[0]

    @torch.no_grad()
    def _look_at(self, epoch: int, step: int, batch: Rows, labels: torch.Tensor) -> None:
        """Compute a batch of the epoch as `_step` does, in the same parts, and change no weights."""
        examples = self._examples(epoch, step, batch, labels)
        for rows in self.group.parts(len(labels), self.config.accumulate):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                self.model(self.normalize(examples(rows)[0]))

    def _own_metrics(self, logits: list[torch.Tensor]) -> dict[str, float]:
        """Return the user's metrics of the logits of all ranks, of which this one has a part."""
        if not self.config.metrics:
            return {}
        of_all = torch.zeros(self.val_images, self.num_classes, device=self.device)
        if logits:
            of_all[self.val_share] = torch.cat(logits)
        self.group.sum_(of_all)
        return {name: float(METRICS.get(name)(of_all, self.val_labels)) for name in self.config.metrics}

    def _loss_and_logits(
        self, forward: Callable[[torch.Tensor], torch.Tensor], rows: slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the losses of some validation images, and their logits."""
        begin_step(forward)
        labels, images = self.feed.val_labels[rows], self.normalize(self.feed.val[rows])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = forward(images).float()
        return self.loss.sum(logits, labels, smoothed=False), logits


def _hits(answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return how many answers are right; of labels that are mixed, the sum of the answers' shares."""
    if labels.is_floating_point():
        return labels.gather(1, answers.unsqueeze(1)).sum()
    return (answers == labels).sum()


def _row_before(rows: slice, count: int) -> slice:
    """Return the row of a batch of `count` before the first of `rows`, whose image is mixed with it.

    It is the last one before the first, and may be another rank's.
    """
    before = (rows.start or count) - 1
    return slice(before, before + 1)


def split_batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Cut indices into batches; the last may be shorter, but a single image joins the batch before it.

    Batch norm cannot train on one image where a stage is 1x1, and its statistics would be noise elsewhere.
    """
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _copies(state: Mapping[str, Any]) -> Any:
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), dict(state))
