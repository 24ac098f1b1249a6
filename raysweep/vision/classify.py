"""The built-in loop, `classify`, as other rooms know it: a `loops.Loop`. Torch is imported on first use."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from raysweep.errors import StorageError, UserError
from raysweep.loops import CLASSIFY, Course, Epoch, EvaluatingLoop, Mode, TrialContext
from raysweep.loops.placement import Size
from raysweep.registry import metric_modes
from raysweep.vision.augment.operations import AUGMENT_PRESETS
from raysweep.vision.config import ModelConfig, TrialConfig
from raysweep.vision.course import course_of
from raysweep.vision.names import AUGMENTATIONS, DATA_SOURCES, LOSSES, METRICS, MODELS, OPTIMIZERS, SCHEDULES
from raysweep.vision.prepared import data_root, default_cache, noted_of
from raysweep.vision.timing import few_of, same_cost

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from raysweep.vision import loop as vision_loop
    from raysweep.vision.data import DataSet
    from raysweep.vision.inference import Classifier
    from raysweep.vision.models.pretrained import Pretrained


class Classify(EvaluatingLoop):
    """Trains image classifiers; see `loops.Loop` for what each method promises."""

    name = CLASSIFY
    config = TrialConfig
    keeps_step = True

    @property
    def metrics(self) -> Mapping[str, Mode]:
        """Return the validation metrics, those of the averaged weights, and the user's own."""
        own = {f"val_{name}": mode for name, mode in metric_modes().items()}
        averaged = {f"{name}_ema": mode for name, mode in own.items()}
        return {"val_acc": "max", "val_loss": "min", "val_acc_ema": "max", **own, **averaged}

    @property
    def costs(self) -> Mapping[str, Mode]:
        """Return what `raysweep models` tells of a network."""
        return {"params": "min", "flops": "min"}

    def costs_of(self, config: TrialConfig, conditions: Mapping[str, Any]) -> dict[str, float]:
        """Return the parameters, and the FLOPs of one image's forward pass, a multiply-add counting as two."""
        return _costs_of(config.model.model_dump_json(), len(conditions["classes"]), int(conditions["image_size"]))

    @property
    def speeds(self) -> Mapping[str, Mode]:
        """Return the images a second in training, and the seconds of an epoch with its evaluation."""
        return {"images_per_s": "max", "seconds": "min"}

    def names(self) -> Mapping[str, Sequence[str]]:
        """Return the names of networks, data sources, augmentations, losses and so on."""
        tables = (MODELS, DATA_SOURCES, LOSSES, METRICS, OPTIMIZERS, SCHEDULES)
        augmentations = [*AUGMENT_PRESETS, *AUGMENTATIONS.names()]
        return {table.section: table.names() for table in tables if table.names()} | {"augment": augmentations}

    def data_key(self, config: TrialConfig) -> str:
        """Return the data section as JSON, with the weights to begin with, which travel with the images."""
        weights, network = config.model.weights, config.model.name if config.model.weights_of_torchvision else None
        return json.dumps([config.data.model_dump(), *([] if weights is None else [weights, network])])

    def data_name(self, config: TrialConfig) -> str:
        """Return the data source's name, and the weights to begin with, as they are shared together."""
        weights, network = config.model.weights, config.model.name
        if weights is None:
            return config.data.name
        return f"{config.data.name} with {weights}" + (f" of {network}" if config.model.weights_of_torchvision else "")

    def why_not_from(self, config: TrialConfig, other: TrialConfig) -> str | None:
        """Return in what networks or data sets differ: a state is of one network, which has seen one's images."""
        one, two = (_what_states_hold(each) for each in (config, other))
        unlike = [f"{key} {_given(one[key])} here, {_given(two[key])} there" for key in one if one[key] != two[key]]
        return ", ".join(unlike) or None

    def data_files(self, config: TrialConfig, sweep_folder: Path) -> Sequence[Path]:
        """Return the files that the data's source finds."""
        from raysweep.vision.data.prepare import find_raw

        raw = find_raw(config.data, data_root(config.data, sweep_folder))
        if config.model.weights is None:
            return raw.files
        from raysweep.vision.models.pretrained import find_weights

        return [*raw.files, *find_weights(config.model, sweep_folder)]

    def data_size(self, config: TrialConfig, sweep_folder: Path) -> Size | None:
        """Return the size of the images and labels, as they were prepared last; without weights to begin with."""
        noted = noted_of(config.data, data_root(config.data, sweep_folder), default_cache())
        return None if noted is None else Size(noted.bytes, noted.device_bytes)

    def prepare(self, config: TrialConfig, sweep_folder: Path) -> dict[str, Any]:
        """Prepare the images, or open them where they are prepared already."""
        from raysweep.vision.data import open_data

        arrays = open_data(config.data, sweep_folder=sweep_folder).to_arrays()
        if config.model.weights is None:
            return arrays
        from raysweep.vision.models.pretrained import read_weights

        pretrained = read_weights(config.model, sweep_folder)
        return {**arrays, **(pretrained.to_arrays() if pretrained else {})}

    def check(self, configs: Sequence[TrialConfig], arrays: dict[str, Any], device: str = "auto") -> None:
        """Check that each network can be built for the images."""
        from raysweep.vision.data import DataSet
        from raysweep.vision.models.pretrained import Pretrained

        data, pretrained = DataSet.from_arrays(arrays), Pretrained.from_arrays(arrays)
        keys = {"model", "sync_batch_norm", "freeze", "lr_factors"}
        problems: list[str] = []
        for config in {each.model_dump_json(include=keys): each for each in configs}.values():
            try:
                check_model(config, data, device, pretrained)
            except UserError as error:
                problems += error.problems
        if problems:
            raise UserError(*dict.fromkeys(problems))

    def conditions(self, config: TrialConfig, arrays: dict[str, Any], device: str = "auto") -> dict[str, Any]:
        """Return the precision, the data's fingerprint and classes, and how the network's input is normalised."""
        from raysweep.vision.data import DataSet, mean_std
        from raysweep.vision.device import resolve_device, resolve_precision
        from raysweep.vision.models.pretrained import Pretrained

        data, pretrained = DataSet.from_arrays(arrays), Pretrained.from_arrays(arrays)
        mean, std = mean_std(config.normalize, data, pretrained.mean_std if pretrained else None)
        return {
            **({"weights": pretrained.sha256} if pretrained else {}),
            "precision": resolve_precision(config, resolve_device(device)),
            "data": data.fingerprint,
            "classes": list(data.classes),
            "image_size": data.image_size,
            "test_images": len(data.test) if data.test else 0,
            "mean": list(mean),
            "std": list(std),
        }

    def same_conditions(self, config: TrialConfig) -> str:
        """Return the settings by which conditions differ, and those by which a network may not fit the images."""
        keys = {"normalize", "precision", "sync_batch_norm", "freeze", "lr_factors"}
        return json.dumps([config.model.name, config.model_dump(mode="json", include=keys)])

    def course(self, config: TrialConfig) -> Course:
        """Return the settings, and the exact learning rates of each epoch."""
        return course_of(config)

    def same_cost(self, config: TrialConfig) -> str:
        """Return all that the time of a step depends on: neither the learning rate nor the number of epochs."""
        return same_cost(config)

    def few(self, config: TrialConfig, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the images of a few steps."""
        from raysweep.vision.data import DataSet

        return {**arrays, **few_of(config, DataSet.from_arrays(arrays)).to_arrays()}

    def epoch_seconds(
        self,
        config: TrialConfig,
        arrays: Mapping[str, Any],
        few: Mapping[str, Any],
        metrics: Mapping[str, float],
        took: float,
    ) -> float:
        """Return the seconds of training and evaluation, each by its number of images."""
        trained, evaluated = len(few["train_labels"]), len(few["val_labels"])
        train_s = trained / metrics["images_per_s"]
        evaluate_s = metrics["seconds"] - train_s
        return train_s * len(arrays["train_labels"]) / trained + evaluate_s * len(arrays["val_labels"]) / evaluated

    def train(self, config: TrialConfig, trial: TrialContext) -> Iterator[Epoch]:
        """Train on the prepared images; see `vision.loop`."""
        from raysweep.vision.data import DataSet
        from raysweep.vision.device import check_precision, resolve_device
        from raysweep.vision.loop import train
        from raysweep.vision.models.pretrained import Pretrained

        data, pretrained = DataSet.from_arrays(dict(trial.data)), Pretrained.from_arrays(trial.data)
        if pretrained is not None and pretrained.sha256 != trial.conditions["weights"]:
            raise UserError(
                f"model.weights: {pretrained.source} changed while the run went on: start it anew with --fresh"
            )
        if data.fingerprint != trial.conditions["data"]:
            raise UserError("the images or labels changed while the run went on: start it anew with --fresh")
        check_precision(config, trial.conditions["precision"], resolve_device(trial.device))
        config = config.model_copy(update={"precision": trial.conditions["precision"]})
        epochs = train(
            config,
            data,
            seed=trial.seed,
            device=trial.device,
            state=trial.saved,
            should_stop=trial.should_stop,
            should_save=trial.should_save,
            pretrained=pretrained,
            gpu_share=trial.gpu_share,
            from_another=trial.from_another,
        )
        return _for_the_record(epochs)

    def network(self, config: Mapping[str, Any], num_classes: int) -> nn.Module:
        """Build the network of a trial's config; its data source and augmentation need not be known here."""
        from raysweep.vision.models.build import build_model

        try:
            return build_model(ModelConfig.model_validate(config["model"]), num_classes)
        except ValidationError as error:
            reasons = (str(each["msg"]).removeprefix("Value error, ") for each in error.errors())
            raise UserError("; ".join(reasons)) from error

    def accuracies(
        self,
        conditions: Mapping[str, Any],
        network: nn.Module,
        arrays: dict[str, Any],
        views: Sequence[int],
        device: str = "auto",
    ) -> list[tuple[float, float | None]]:
        """Measure a network on the validation images, and on the test images where there are any."""
        data, classifier = _trained(conditions, network, arrays, device)
        return [
            (classifier.accuracy(data.val, count), classifier.accuracy(data.test, count) if data.test else None)
            for count in views
        ]

    def answers(
        self,
        conditions: Mapping[str, Any],
        network: nn.Module,
        arrays: dict[str, Any],
        split: Literal["val", "test"],
        device: str = "auto",
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        """Classify the images of a split, each as it is."""
        data, classifier = _trained(conditions, network, arrays, device)
        images = data.val if split == "val" else data.test
        if images is None:
            return None
        probabilities, answers = classifier.top(images.images)
        return images.labels.numpy(), answers[:, 0].numpy(), probabilities[:, 0].numpy()

    def thumbnails(self, arrays: dict[str, Any], rows: Sequence[int]) -> list[bytes]:
        """Return validation images as they were prepared, made smaller."""
        from raysweep.vision.data import DataSet
        from raysweep.vision.data.thumbnails import thumbnail

        images = DataSet.from_arrays(arrays).val.images
        return [thumbnail(images[row]) for row in rows]


@cache
def _costs_of(model: str, num_classes: int, image_size: int) -> dict[str, float]:
    from raysweep.vision.models.summary import summarize

    known = summarize(ModelConfig.model_validate_json(model), num_classes, image_size)
    return {"params": known.params, **({} if known.flops is None else {"flops": known.flops})}


def _what_states_hold(config: TrialConfig) -> dict[str, Any]:
    """Return the settings of network and data by dotted key; paths, which depend on the sweep's folder, left out."""
    values = config.model_dump(mode="json", include={"model", "data"}, exclude={"data": {"path"}})
    if not config.model.weights_of_torchvision:
        values["model"]["weights"] = "a file" if config.model.weights else None
    return {f"{section}.{key}": value for section, inner in values.items() for key, value in inner.items()}


def _given(value: Any) -> Any:
    return "not set" if value is None else value


def _for_the_record(epochs: Generator[vision_loop.Epoch, None, None]) -> Iterator[Epoch]:
    """Yield epochs as raysweep takes them."""
    with closing(epochs):
        for epoch in epochs:
            yield Epoch(
                epoch.metrics,
                epoch.state,
                weights=partial(epoch.own_weights, False),
                ema_weights=partial(epoch.own_weights, True),
                correct=partial(epoch.correct, False),
                ema_correct=partial(epoch.correct, True),
            )


def _trained(
    conditions: Mapping[str, Any], network: nn.Module, arrays: dict[str, Any], device: str
) -> tuple[DataSet, Classifier]:
    """Return the data set, and a trained network as its trial used it; StorageError if the images are others."""
    from raysweep.vision.data import DataSet
    from raysweep.vision.inference import Classifier

    data = DataSet.from_arrays(arrays)
    if data.fingerprint != conditions["data"]:
        raise StorageError("it was trained on other images or labels than there are now")
    mean, std, precision = (conditions[key] for key in ("mean", "std", "precision"))
    return data, Classifier(network, mean, std, precision, data.image_size, device)


def check_model(config: TrialConfig, data: DataSet, device: str = "auto", pretrained: Pretrained | None = None) -> None:
    """Check before anything is trained that a trial's network can be built, takes its weights, and takes the images."""
    from raysweep.vision.device import check_sync_batch_norm, resolve_device
    from raysweep.vision.models.build import check_image_size
    from raysweep.vision.models.pretrained import begin

    check_sync_batch_norm(config, resolve_device(device))
    model = begin(config, data.num_classes, pretrained)
    check_image_size(model, config.model.name, data.image_size, batch_size=2)
