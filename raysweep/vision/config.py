"""What one trial trains, and with what: every section, key, default and bound, as frozen pydantic models.

`TrialConfig` is the whole of it, after the plan has merged `base`, `cases`, `grid`, `zip`, `random` and `seeds`;
the sweep around the trials is in `sweepfile.schema`. Each default lives here and nowhere else. No torch, no Ray.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.functional_validators import AfterValidator, model_validator

from raysweep.config import Config, Fraction01, LoopConfig, Pair, Triple, check_no_credentials, section
from raysweep.vision.augment.operations import Augment
from raysweep.vision.names import DATA_SOURCES, MODELS


def _source(name: str) -> str:
    if name not in DATA_SOURCES:
        raise ValueError(DATA_SOURCES.problem(name))
    return name


def _network(name: str) -> str:
    if name not in MODELS and not name.startswith("torchvision/"):
        raise ValueError(MODELS.problem(name) + ", torchvision/<name>")
    return name


class DataConfig(Config):
    """The images to train on, and how many of them."""

    name: Annotated[str, AfterValidator(_source)] = "digits"
    """The data source."""
    path: Annotated[str, AfterValidator(check_no_credentials)] | None = None
    """Where its files lie; default: $RAYSWEEP_DATA, else ./data. Relative to the sweep file."""
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Images are resized to this height and width, in pixels; default: the source's own size."""
    classes: Annotated[int, Field(ge=2)] | None = None
    """Only the first n classes."""
    per_class: PositiveInt | None = None
    """Only the first n training images of each class."""
    val_fraction: Fraction01 | None = None
    """Share of the training images held out for validation, per class; default 0.2 where the source has no
    validation split of its own."""
    train: str | None = None
    """The training split's file or folder, inside `path`; the source knows its own default."""
    val: str | None = None
    """The validation split's file or folder, inside `path`."""
    test: str | None = None
    """The test split's file or folder, inside `path`."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do with an image that cannot be decoded: end with its name, or skip and count it."""
    seed: NonNegativeInt = 0
    """Seed of the held-out choice (`val_fraction`) and of `synthetic` images."""


def _json(options: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(options, allow_nan=False)
    except ValueError:
        raise ValueError("must hold finite numbers: a trial's config is kept as JSON, which has no others") from None
    return options


class ModelConfig(Config):
    """The network to train."""

    name: Annotated[str, AfterValidator(_network)] = "baseline_block"
    """The network's name; `raysweep models` lists them."""
    width: PositiveInt | None = None
    """Channels of the first stage, the later ones in proportion; default: the network's own."""
    options: Annotated[dict[str, Any], AfterValidator(_json)] = {}
    """Further keyword arguments of a network of your own."""


class SgdConfig(Config):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """The share of the last step that goes on into the next."""
    weight_decay: NonNegativeFloat = 5e-4
    """L2 penalty on all weights."""
    nesterov: bool = False
    """Nesterov's momentum; it needs a momentum above 0."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamWConfig(Config):
    """Adam with decoupled weight decay (torch.optim.AdamW)."""

    name: Literal["adamw"]
    betas: Pair[Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    weight_decay: NonNegativeFloat = 0.01
    """Weights shrink by this times the learning rate, each step."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator, so that it is never zero."""


class LrSchedule(Config):
    """Base of the learning rate's schedules; all step once an epoch, as torch's own do."""

    warmup_epochs: NonNegativeInt = 0
    """Epochs over which the learning rate rises linearly to its peak before the schedule begins."""


class ConstantConfig(LrSchedule):
    """The same learning rate throughout."""

    name: Literal["constant"]


class StepConfig(LrSchedule):
    """The learning rate is multiplied by `gamma` at each milestone (torch's MultiStepLR)."""

    name: Literal["step"]
    milestones: Annotated[list[PositiveInt], Field(min_length=1)]
    """Epochs, counted from the end of the warm-up."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The factor."""


class CosineConfig(LrSchedule):
    """Half a cosine from the peak to `min_lr` (torch's CosineAnnealingLR)."""

    name: Literal["cosine"] = "cosine"
    t_max: PositiveInt | None = None
    """Epochs of the half period; default: the rest of the trial. A smaller one makes the schedule cyclic."""
    min_lr: NonNegativeFloat = 0.0
    """The learning rate at the end."""


OptimizerConfig = Annotated[SgdConfig | AdamWConfig, section("sgd"), Field(discriminator="name")]
LrScheduleConfig = Annotated[ConstantConfig | StepConfig | CosineConfig, section("cosine"), Field(discriminator="name")]


class EmaConfig(Config):
    """The exponential average of the weights, evaluated beside them."""

    horizon_epochs: PositiveFloat = 0.75
    """Steps over which the average looks back, in epochs: decay = min((1 + t) / (10 + t), 1 - 1 / steps)."""


class MeanStd(Config):
    """Normalisation by given numbers, on the scale 0..1."""

    mean: Triple[float]
    """Of red, green, blue."""
    std: Triple[PositiveFloat]
    """Of red, green, blue."""


class TrialConfig(LoopConfig):
    """All that decides what one trial computes."""

    model_config = ConfigDict(strict=True)

    not_in_id: ClassVar[tuple[str, ...]] = ("precision", "compile", "data.path")
    """What these resolve to is recorded in the trial's conditions, and compared on a rerun."""

    data: Annotated[DataConfig, section("digits")] = DataConfig()
    """The images to train on."""
    model: Annotated[ModelConfig, section("baseline_block")] = ModelConfig()
    """The network to train."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Images a step, over all workers of the trial."""
    optimizer: OptimizerConfig = SgdConfig()
    """What makes steps of gradients."""
    lr: PositiveFloat = 0.1
    """Peak learning rate."""
    lr_schedule: LrScheduleConfig = CosineConfig()
    """How the learning rate changes over the epochs."""
    augment: Augment = "none"
    """A preset, or a list of operations."""
    normalize: Literal["half", "imagenet", "dataset"] | MeanStd = "half"
    """Mean and std of the input: 0.5 each, ImageNet's, the training images' own, or given."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The probability that is spread over all classes in the labels."""
    clip_grad_norm: PositiveFloat | None = None
    """Gradients are scaled down to this norm where they exceed it."""
    ema: EmaConfig | Literal[False] = EmaConfig()
    """Averaged weights, evaluated beside the plain ones; false: none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward and backward pass; auto: bf16 where the device computes it fast (GPUs from Ampere on,
    CPUs with AMX)."""
    compile: bool = False
    """torch.compile the network."""
    deterministic: bool = False
    """Compute by torch's and cuDNN's deterministic algorithms alone, so that GPUs of one kind come to the same bits, as
    CPUs do anyway. Slower; an operation that has no such algorithm fails the trial."""
    sync_batch_norm: bool = False
    """Batch norm over the whole batch where a trial has several workers (GPUs only); false: each over its own part."""

    def label(self) -> str:
        """Return the network's name with its width, learning rate and augmentation."""
        parts = [self.model.name, f"lr{self.lr:g}"]
        if self.model.width is not None:
            parts.insert(1, f"width{self.model.width}")
        if isinstance(self.augment, str) and self.augment != "none":
            parts.append(self.augment)
        return "-".join(parts)

    def why_without(self, metric: str) -> str | None:
        """Return `ema: false` where a metric of the averaged weights is asked for."""
        return "ema: false" if self.ema is False and metric.endswith("_ema") else None

    def idle_settings(self) -> dict[str, str]:
        """Return a warm-up as long as the training, and milestones after its end."""
        schedule, left = self.lr_schedule, self.epochs - self.lr_schedule.warmup_epochs
        if left <= 0:
            why = f"the warm-up of {schedule.warmup_epochs} epochs takes all of the training's {self.epochs}"
            return {"lr_schedule.warmup_epochs": why}
        late = [each for each in schedule.milestones if each >= left] if isinstance(schedule, StepConfig) else []
        if not late:
            return {}
        after = " after the warm-up" if schedule.warmup_epochs else ""
        why = f"milestone {', '.join(map(str, late))} is never reached: training ends after epoch {left}{after}"
        return {"lr_schedule.milestones": why}

    def paths(self) -> dict[str, str]:
        """Return `data.path`, where it is set."""
        return {"data.path": self.data.path} if self.data.path else {}
