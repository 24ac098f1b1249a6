"""What a sweep file may name, without importing torch: networks, data sources, augmentations, and the loop that trains.

Built-in names map to `module:attribute`, imported on first use; their tables lie in `vision/names.py`, which is read
when a name is first looked up. A user's own names are added by a module named with `--import`, through the decorators
`register_model`, `register_data` and `register_augmentation`. `loop()` returns the training loop: the one door through
which other rooms reach `vision`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from raysweep.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from raysweep.config import LoopConfig

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """A table of names, each of a factory: built in (imported lazily) or registered by the user."""

    def __init__(self, kind: str, table: str | None = None) -> None:
        """`table`: the `module:attribute` of the table of built-in names, if there is one."""
        self.kind = kind
        self._table = table
        self._registered: dict[str, Callable[..., Any]] = {}
        self._accepted: set[str] = set()

    @functools.cached_property
    def builtin(self) -> Mapping[str, str]:
        """Built-in names, each with its factory as `module:attribute`."""
        return _attribute(self._table) if self._table else {}

    def names(self) -> list[str]:
        """All known names, built-in ones first."""
        return [*self.builtin, *self._registered]

    def __contains__(self, name: str) -> bool:
        return name in self.builtin or name in self._registered or name in self._accepted

    def problem(self, name: str) -> str:
        """The message for a `name` that is not known."""
        known = self.names()
        return f"unknown {self.kind} {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory of `name`, importing its module if need be; raise UserError if the name is unknown."""
        if name in self._registered:
            return self._registered[name]
        if name not in self.builtin:
            raise UserError(self.problem(name))
        factory: Callable[..., Any] = _attribute(self.builtin[name])
        return factory

    def register(self, name: str) -> Callable[[F], F]:
        """Decorate a factory, to make it known as `name`; raise UserError if a built-in has that name."""
        if name in self.builtin:
            raise UserError(f"cannot register {self.kind} {name!r}: a built-in has that name")

        def decorate(factory: F) -> F:
            self._registered[name] = factory
            return factory

        return decorate


@contextmanager
def accepting_names_of(configs: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Accept in sweep files what these trials' configs name, though no module that registers it was imported."""
    registries = {"model": MODELS, "data": DATA_SOURCES, "augment": AUGMENTATIONS}
    for config in configs:
        for section, registry in registries.items():
            value = config.get(section)
            name = value.get("name") if isinstance(value, Mapping) else value
            if isinstance(name, str):
                registry._accepted.add(name)
    try:
        yield
    finally:
        for registry in registries.values():
            registry._accepted.clear()


def _attribute(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_modules(names: Iterable[str]) -> None:
    """Import the user's modules of `--import`, so that they register what they bring; UserError if one is missing."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name and not name.startswith(f"{error.name}."):
                raise
            raise UserError(
                f"--import {name}: no module of that name; run from its folder or set PYTHONPATH"
            ) from error


MODELS = Registry("network", "raysweep.vision.names:NETWORKS")
DATA_SOURCES = Registry("data set", "raysweep.vision.names:SOURCES")
AUGMENTATIONS = Registry("augmentation")

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
        self, conditions: Mapping[str, Any], network: nn.Module, arrays: dict[str, Any], views: Sequence[int]
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
