"""Names a sweep file may use for networks, data sources and augmentations, without importing torch.

Built-in names map to `module:attribute`, imported on first use. A user's own are added by a module
named with `--import`, through the decorators `register_model`, `register_data` and
`register_augmentation`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from raysweep.errors import UserError, did_you_mean

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
