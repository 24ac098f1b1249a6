"""What one trial trains, and with what: every section, key, default and bound, as frozen pydantic models.

`TrialConfig` is the whole of it, after the plan has merged `base`, `cases`, `grid`, `zip`, `random` and `seeds`;
the sweep around the trials is in `sweepfile.schema`. Each default lives here and nowhere else. No torch, no Ray.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.functional_validators import AfterValidator, BeforeValidator, field_validator, model_validator

from raysweep.config import Config, Fraction01, LoopConfig, Pair, Triple, check_no_credentials, section
from raysweep.registry import Registry
from raysweep.vision.augment.operations import Augment
from raysweep.vision.names import CROSS_ENTROPY, DATA_SOURCES, LOSSES, METRICS, MODELS, OF_TORCH, OPTIMIZERS, SCHEDULES


def _source(name: str) -> str:
    if name not in DATA_SOURCES:
        raise ValueError(DATA_SOURCES.problem(name))
    return name


def _network(name: str) -> str:
    if name not in MODELS and not name.startswith("torchvision/"):
        raise ValueError(MODELS.problem(name) + ", torchvision/<name>")
    return name


def _loss(name: str) -> str:
    if name not in LOSSES:
        raise ValueError(LOSSES.problem(name))
    return name


def _metric(name: str) -> str:
    if name in ("acc", "loss") or name.endswith("_ema"):
        raise ValueError(f"got {name!r}, must be another name: val_{name} is one of raysweep's own metrics")
    if name not in METRICS:
        raise ValueError(METRICS.problem(name))
    return name


def _listed(names: Any) -> Any:
    return [names] if isinstance(names, str) else names


def _own(registry: Registry) -> Any:
    """Return the type of a name that the user has registered."""

    def check(name: str) -> str:
        if name in registry.builtin or name not in registry:
            raise ValueError(registry.problem(name))
        return name

    builtin = list(OF_TORCH[registry])
    return Annotated[str, AfterValidator(check), WithJsonSchema({"type": "string", "not": {"enum": builtin}})]


def _kinds(registry: Registry) -> Discriminator:
    """Choose a section's kind by its name; any name that is not built in is of the user's own kind."""

    def tag(section: Any) -> str:
        name = section.get("name") if isinstance(section, dict) else getattr(section, "name", None)
        return name if isinstance(name, str) and name in OF_TORCH[registry] else "own"

    return Discriminator(tag)


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


Options = Annotated[dict[str, Any], AfterValidator(_json)]


class ModelConfig(Config):
    """The network to train."""

    name: Annotated[str, AfterValidator(_network)] = "baseline_block"
    """The network's name; `raysweep models` lists them."""
    width: PositiveInt | None = None
    """Channels of the first stage, the later ones in proportion; default: the network's own."""
    options: Options = {}
    """Further keyword arguments of a network of your own."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Weights to begin with: torchvision's by name (IMAGENET1K_V2), from torch's cache; or a file (.pt, .pth,
    .safetensors) or pulled folder, relative to the sweep file. The head is fresh if its number of classes differs.
    Default: random ones."""

    @property
    def weights_of_torchvision(self) -> bool:
        """Whether `weights` is a name in torchvision's tables, not a path."""
        return self.weights is not None and re.fullmatch(r"[A-Z][A-Z0-9_]*", self.weights) is not None

    @model_validator(mode="after")
    def _only_torchvision_has_weights_by_name(self) -> ModelConfig:
        if self.weights_of_torchvision and not self.name.startswith("torchvision/"):
            raise ValueError(
                f"weights: {self.weights} is a name of torchvision's, which has none for {self.name}; "
                f"choose model torchvision/..., or give a file (./{self.weights})"
            )
        return self


Betas = Pair[Annotated[float, Field(ge=0, lt=1)]]


class Optimizer(Config):
    """Base of torch's own optimizers."""

    decay_norm_and_bias: bool = True
    """Whether biases and the weights of normalisations decay, too; false: only what has two dimensions or more."""


class SgdConfig(Optimizer):
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


class AdamConfig(Optimizer):
    """Adam (torch.optim.Adam)."""

    name: Literal["adam"]
    betas: Betas = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty on all weights."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator, so that it is never zero."""


class AdamWConfig(Optimizer):
    """Adam with decoupled weight decay (torch.optim.AdamW)."""

    name: Literal["adamw"]
    betas: Betas = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    weight_decay: NonNegativeFloat = 0.01
    """Weights shrink by this times the learning rate, each step."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator, so that it is never zero."""


class MuonConfig(Optimizer):
    """Muon (torch.optim.Muon) for weights of two dimensions or more, a convolution's filters as rows of a matrix; AdamW
    for all others.
    """

    name: Literal["muon"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """The share of the last steps' gradients in the next step of Muon."""
    nesterov: bool = True
    """Nesterov's momentum, in Muon."""
    ns_steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Steps of the Newton-Schulz iteration."""
    adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How Muon's learning rate follows from `lr`, by a matrix's size; by default such that AdamW's learning rates fit
    both."""
    betas: Betas = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square, in AdamW."""
    weight_decay: NonNegativeFloat = 0.1
    """Weights shrink by this times the learning rate, each step, in both."""
    eps: PositiveFloat = 1e-8
    """Added to AdamW's denominator, so that it is never zero."""


class OwnOptimizer(Optimizer):
    """An optimizer of your own, by the name under which `register_optimizer` made it known."""

    name: _own(OPTIMIZERS)  # type: ignore[valid-type]  # a function makes it
    """Its name."""
    options: Options = {}
    """Keyword arguments of what is registered."""


class LrSchedule(Config):
    """Base of the learning rate's schedules."""

    warmup_epochs: NonNegativeInt = 0
    """Epochs over which the learning rate rises linearly to its peak before the schedule begins."""
    per: Literal["epoch", "step"] = "epoch"
    """How often the learning rate changes."""


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


class WsdConfig(LrSchedule):
    """Warmup-stable-decay: the peak after the warm-up, until it falls linearly at the end (torch's LinearLR).

    Trials of several lengths share their stable epochs. Zhai et al. 2022 let one training have several such ends, Hu et
    al. 2024 (MiniCPM) named it, and Hägele et al. 2024 measured it against cosines.
    """

    name: Literal["wsd"]
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The share of all epochs over which the learning rate falls, after the warm-up and for one epoch at least (with
    `per: step`, one step)."""


class OwnSchedule(LrSchedule):
    """A schedule of your own, by the name under which `register_schedule` made it known."""

    name: _own(SCHEDULES)  # type: ignore[valid-type]  # a function makes it
    """Its name."""
    options: Options = {}
    """Keyword arguments of what is registered."""


OptimizerConfig = Annotated[
    Annotated[SgdConfig, Tag("sgd")]
    | Annotated[AdamConfig, Tag("adam")]
    | Annotated[AdamWConfig, Tag("adamw")]
    | Annotated[MuonConfig, Tag("muon")]
    | Annotated[OwnOptimizer, Tag("own")],
    _kinds(OPTIMIZERS),
    section("sgd"),
]
LrScheduleConfig = Annotated[
    Annotated[ConstantConfig, Tag("constant")]
    | Annotated[StepConfig, Tag("step")]
    | Annotated[CosineConfig, Tag("cosine")]
    | Annotated[WsdConfig, Tag("wsd")]
    | Annotated[OwnSchedule, Tag("own")],
    _kinds(SCHEDULES),
    section("cosine"),
]


class LossConfig(Config):
    """What training makes smaller, and `val_loss` measures."""

    name: Annotated[str, AfterValidator(_loss)] = CROSS_ENTROPY
    """`cross_entropy`, or the name under which `register_loss` made one of your own known."""
    options: Options = {}
    """Keyword arguments of a loss of your own."""


class EmaConfig(Config):
    """The exponential average of the weights, evaluated beside them."""

    horizon_epochs: PositiveFloat = 0.75
    """Steps over which the average looks back, in epochs: decay = min((1 + t) / (10 + t), 1 - 1 / steps)."""


class MixConfig(Config):
    """Images and labels mixed with those of another image of the batch (torchvision's MixUp and CutMix)."""

    mixup: PositiveFloat | None = None
    """The alpha of MixUp, which blends images: a batch's weight is drawn from Beta(alpha, alpha)."""
    cutmix: PositiveFloat | None = None
    """The alpha of CutMix, which cuts a box out of the other image. With both, each batch draws one of the two."""
    p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of batches that are mixed."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> MixConfig:
        if self.mixup is None and self.cutmix is None:
            raise ValueError("must have mixup or cutmix, or both, each with its alpha: {mixup: 0.2, cutmix: 1}")
        return self


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
    accumulate: PositiveInt = 1
    """Parts in which a worker computes its images of a step, one after the other, which takes less memory. The step is
    the same but for rounding, except that batch norms see a part at a time."""
    optimizer: OptimizerConfig = SgdConfig()
    """What makes steps of gradients."""
    lr: PositiveFloat = 0.1
    """Peak learning rate."""
    lr_schedule: LrScheduleConfig = CosineConfig()
    """How the learning rate changes over the epochs."""
    lr_factors: dict[str, PositiveFloat] = {}
    """Factors of the learning rate for parts of the network, as {layer1: 0.1}; of several names that a parameter is at
    or below, the longest counts. Names are those of torch's parameters, and may have `*` and `?`."""
    freeze: list[Annotated[str, Field(min_length=1)]] = []
    """Parts of the network that are not trained, as [conv1, bn1, layer1]; a batch norm that is named, or whose weights
    are all frozen, keeps its statistics, and normalises by them."""
    augment: Augment = "none"
    """A preset, or a list of operations."""
    mix: MixConfig | Literal[False] = False
    """Mixed images and labels; false: none are."""
    normalize: Literal["half", "imagenet", "dataset", "weights"] | MeanStd = "half"
    """Mean and std of the input: 0.5 each, ImageNet's, the training images' own, those that `model.weights` were
    trained with, or given."""
    loss: Annotated[LossConfig, section(CROSS_ENTROPY)] = LossConfig()
    """What training makes smaller, and `val_loss` measures."""
    metrics: Annotated[list[Annotated[str, AfterValidator(_metric)]], BeforeValidator(_listed)] = []
    """Names under which `register_metric` made metrics of your own known, each measured as val_NAME."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The probability that is spread over all classes in the labels."""
    clip_grad_norm: PositiveFloat | None = None
    """Gradients are scaled down to this norm where they exceed it."""
    ema: EmaConfig | Literal[False] = EmaConfig()
    """Averaged weights, evaluated beside the plain ones; false: none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward and backward pass; auto: bf16 where the device computes it fast (GPUs from Ampere on,
    CPUs with AMX). fp32 is what torch means by it: such GPUs convolve in TF32, and multiply matrices in fp32."""
    compile: bool | Literal["reduce-overhead"] = False
    """torch.compile the network. `reduce-overhead`, a mode of torch's, also has GPUs replay it as CUDA graphs, for
    networks so small that telling a GPU what to do takes longer than doing it; never tried on a GPU. On CPUs it is
    the same as true."""
    deterministic: bool = False
    """Compute by torch's and cuDNN's deterministic algorithms alone, so that GPUs of one kind come to the same bits, as
    CPUs do anyway. Slower; an operation that has no such algorithm fails the trial."""
    sync_batch_norm: bool = False
    """Batch norm over the whole batch where a trial has several workers (GPUs only); false: each over its own part."""
    precise_batch_norm: bool = False
    """Also evaluate with batch-norm statistics that are gathered anew after each epoch, as val_acc_precise and
    val_loss_precise; training and its own statistics stay as they are. It takes as long as evaluating 10,000 images."""

    def label(self) -> str:
        """Return the network's name with its width, learning rate and augmentation."""
        parts = [self.model.name, f"lr{self.lr:g}"]
        if self.model.width is not None:
            parts.insert(1, f"width{self.model.width}")
        if isinstance(self.augment, str) and self.augment != "none":
            parts.append(self.augment)
        return "-".join(parts)

    @field_validator("normalize")
    @classmethod
    def _weights_say_how_to_normalize(cls, normalize: Any, others: ValidationInfo) -> Any:
        model = others.data.get("model")
        if normalize == "weights" and model is not None and model.weights is None:
            raise ValueError("weights needs model.weights; without them: half, imagenet, dataset, or numbers")
        return normalize

    def why_without(self, metric: str) -> str | None:
        """Return `ema: false` for a metric of the averaged weights, or `metrics` where it lacks one of the user's."""
        if self.ema is False and metric.endswith("_ema"):
            return "ema: false"
        own = metric.removeprefix("val_").removesuffix("_ema")
        is_measured = own not in METRICS or own in self.metrics
        return None if is_measured else f"metrics: [{', '.join(self.metrics)}]"

    def idle_settings(self) -> dict[str, str]:
        """Return what has no effect: say, a warm-up as long as the training, and milestones after its end."""
        return self._idle_accumulation() | self._idle_decay() | self._idle_loss() | self._idle_schedule()

    def _idle_accumulation(self) -> dict[str, str]:
        most = max(1, self.batch_size // 2)
        if self.accumulate <= most:
            return {}
        return {"accumulate": f"a batch of {self.batch_size} has at most {most} parts, since none has a single image"}

    def _idle_loss(self) -> dict[str, str]:
        if self.loss.name == CROSS_ENTROPY:
            return {"loss.options": "cross_entropy takes none"} if self.loss.options else {}
        return {"label_smoothing": f"{self.loss.name} does not know of it"} if self.label_smoothing else {}

    def _idle_decay(self) -> dict[str, str]:
        if (
            isinstance(self.optimizer, OwnOptimizer)
            or self.optimizer.decay_norm_and_bias
            or self.optimizer.weight_decay
        ):
            return {}
        return {"optimizer.decay_norm_and_bias": "nothing decays with optimizer.weight_decay: 0"}

    def _idle_schedule(self) -> dict[str, str]:
        schedule, left = self.lr_schedule, self.epochs - self.lr_schedule.warmup_epochs
        if schedule.per == "step" and not schedule.warmup_epochs and isinstance(schedule, ConstantConfig | StepConfig):
            why = f"without a warm-up, `{schedule.name}` changes the learning rate between two epochs at most"
            return {"lr_schedule.per": why}
        if left <= 0:
            why = f"the warm-up of {schedule.warmup_epochs} epochs takes all of the training's {self.epochs}"
            return {"lr_schedule.warmup_epochs": why}
        if isinstance(schedule, WsdConfig) and round(schedule.decay * self.epochs) > left:
            why = f"the warm-up leaves {left} of the training's {self.epochs} epochs, fewer than this share of them"
            return {"lr_schedule.decay": why}
        late = [each for each in schedule.milestones if each >= left] if isinstance(schedule, StepConfig) else []
        if not late:
            return {}
        after = " after the warm-up" if schedule.warmup_epochs else ""
        why = f"milestone {', '.join(map(str, late))} is never reached: training ends after epoch {left}{after}"
        return {"lr_schedule.milestones": why}

    def paths(self) -> dict[str, str]:
        """Return `data.path` and the file of `model.weights`, where they are set."""
        file = None if self.model.weights_of_torchvision else self.model.weights
        return {key: path for key, path in (("data.path", self.data.path), ("model.weights", file)) if path}
