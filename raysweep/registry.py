"""What a sweep file may name, without importing torch: networks, data sources, augmentations, and the loop that trains.

Built-in names map to `module:attribute`, imported on first use. A user's own are added by a module
named with `--import`, through the decorators `register_model`, `register_data` and
`register_augmentation`. `loop()` returns the training loop: the one door through which other rooms reach `vision`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from raysweep.config import LoopConfig
from raysweep.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """A table of names, each of a factory: built in (imported lazily) or registered by the user."""

    def __init__(self, kind: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self._builtin = builtin
        self._registered: dict[str, Callable[..., Any]] = {}

    def names(self) -> list[str]:
        """All known names, built-in ones first."""
        return [*self._builtin, *self._registered]

    def __contains__(self, name: str) -> bool:
        return name in self._builtin or name in self._registered

    def problem(self, name: str) -> str:
        """The message for a `name` that is not known."""
        known = ", ".join(self.names())
        return f"unknown {self.kind} {name!r}{did_you_mean(name, self.names())}; known: {known}"

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory of `name`, importing its module if need be.

        Raises:
            UserError: no such name.
        """
        if name in self._registered:
            return self._registered[name]
        if name not in self._builtin:
            raise UserError(self.problem(name))
        module, _, attribute = self._builtin[name].partition(":")
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return factory

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator: make the decorated factory known as `name`.

        Raises:
            UserError: the name is taken by a built-in.
        """
        if name in self._builtin:
            raise UserError(f"cannot register {self.kind} {name!r}: a built-in has that name")

        def decorate(factory: F) -> F:
            self._registered[name] = factory
            return factory

        return decorate


def import_modules(names: Iterable[str]) -> None:
    """Import the user's modules of `--import`, so that they register what they bring.

    Raises:
        UserError: a module cannot be found.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name and not name.startswith(f"{error.name}."):
                raise
            raise UserError(
                f"--import {name}: no module of that name; run from its folder or set PYTHONPATH"
            ) from error


MODELS = Registry(
    "network",
    {
        "baseline_block": "raysweep.vision.models.resnets:baseline_block",
        "resnet18": "raysweep.vision.models.resnets:resnet18",
        "resnet34": "raysweep.vision.models.resnets:resnet34",
        "resnet50": "raysweep.vision.models.resnets:resnet50",
        "resnet152": "raysweep.vision.models.resnets:resnet152",
        "my_resnet34": "raysweep.vision.models.resnets:my_resnet34",
        "my_resnet50": "raysweep.vision.models.resnets:my_resnet50",
        "receptive_resnet50": "raysweep.vision.models.resnets:receptive_resnet50",
        "v2_receptive_resnet50": "raysweep.vision.models.resnets:v2_receptive_resnet50",
        "v3_receptive_resnet50": "raysweep.vision.models.resnets:v3_receptive_resnet50",
        "v4_receptive_resnet50": "raysweep.vision.models.resnets:v4_receptive_resnet50",
    },
)
DATA_SOURCES = Registry(
    "data set",
    {
        "digits": "raysweep.vision.data.sources.generated:digits",
        "synthetic": "raysweep.vision.data.sources.generated:synthetic",
        "tiny_imagenet": "raysweep.vision.data.sources.tiny_imagenet:tiny_imagenet",
        "fashion_mnist": "raysweep.vision.data.sources.fashion_mnist:fashion_mnist",
        "cifar10": "raysweep.vision.data.sources.cifar:cifar10",
        "cifar100": "raysweep.vision.data.sources.cifar:cifar100",
        "folder": "raysweep.vision.data.sources.folder:folder",
        "csv": "raysweep.vision.data.sources.csv_file:csv",
        "parquet": "raysweep.vision.data.sources.parquet:parquet",
    },
)
AUGMENTATIONS = Registry("augmentation", {})

register_model = MODELS.register
register_data = DATA_SOURCES.register
register_augmentation = AUGMENTATIONS.register


# ---------------------------------------------------------------------------------------------------------
# The training loop


class Epoch(Protocol):
    """One epoch's outcome."""

    @property
    def number(self) -> int:
        """The epoch, counted from 1."""

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured of the epoch."""

    def state(self) -> dict[str, Any]:
        """Return what `train` needs to go on from here, for torch.save."""

    def weights(self, averaged: bool) -> dict[str, Tensor]:
        """Return the plain or the EMA weights by name, on the CPU."""


class Loop(Protocol):
    """What raysweep asks of a training loop. Only `train` and what trains or measures networks may need torch."""

    config: type[LoopConfig]
    """The class of a trial's settings."""

    def prepare(self, configs: Sequence[Any], sweep_folder: Path) -> dict[str, Any]:
        """Return the prepared data set of configs that share one, as arrays and plain values by name.

        Raises:
            DataError: the data set cannot be read as asked.
            UserError: a config cannot be trained on it.
        """

    def conditions(self, config: Any, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return what a trial's numbers depend on beside its config, as JSON."""

    def train(
        self,
        config: Any,
        arrays: dict[str, Any],
        seed: int,
        state: dict[str, Any] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Epoch, None, None]:
        """Train from a state, or from the beginning, and yield each epoch.

        Raises:
            Diverged: the loss is not finite.
            Interrupted: `should_stop` said so.
        """

    def network(self, config: Mapping[str, Any], num_classes: int) -> nn.Module:
        """Build the network of a trial's config, given as JSON; other sections than the network's are not looked at.

        Raises:
            UserError: no such network.
        """

    def accuracies(
        self,
        config: Mapping[str, Any],
        conditions: Mapping[str, Any],
        network: nn.Module,
        arrays: dict[str, Any] | None,
        sweep_folder: Path,
        views: Sequence[int],
    ) -> list[tuple[float, float | None]]:
        """Return (validation, test) accuracy of a trained network, each 0..1, for each number of TTA views.

        Raises:
            StorageError: the images or labels are others than those of `conditions`.
        """


@functools.cache
def loop() -> Loop:
    """Return the loop that trains: the built-in `classify`."""
    made: Loop = importlib.import_module("raysweep.vision.classify").Classify()
    return made
