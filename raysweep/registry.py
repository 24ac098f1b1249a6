"""What a sweep file may name beside values: networks, data sources, losses and so on. No torch, no Ray.

A table of names is empty here. The built-in loop adds its own (`vision/names.py`), each as `module:attribute`, which is
imported on first use; a module named with `--import` adds the user's, through the decorators `register_model`,
`register_data`, `register_augmentation`, `register_loss`, `register_metric`, `register_optimizer` and
`register_schedule`.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from raysweep.errors import RaysweepError, UserError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """A table of names, each of a factory: built in (imported lazily) or registered by the user."""

    def __init__(self, kind: str, section: str) -> None:
        """`kind`: what messages call such a thing; `section`: the section of a trial's config that names one."""
        self.kind = kind
        self.section = section
        self.builtin: Mapping[str, str] = {}
        self._registered: dict[str, Callable[..., Any]] = {}

    def build_in(self, table: Mapping[str, str]) -> None:
        """Make built-in names known, each with its factory as `module:attribute`; UserError if the user has one."""
        self.builtin = table
        for name in self._registered.keys() & table.keys():
            del self._registered[name]  # else whatever comes after would fail as well
            self._check_free(name)

    def names(self) -> list[str]:
        """All known names, built-in ones first."""
        return [*self.builtin, *self._registered]

    def __contains__(self, name: str) -> bool:
        return name in self.builtin or name in self._registered or (self.section, name) in _accepted

    def problem(self, name: str) -> str:
        """The message for a `name` that is not known."""
        known = self.names()
        listed = ", ".join(known) or "none; --import names a module that registers it"
        return f"unknown {self.kind} {name!r}{did_you_mean(name, known)}; known: {listed}"

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory of `name`, importing its module if need be; raise UserError if the name is unknown."""
        if name in self._registered:
            return self._registered[name]
        if name not in self.builtin:
            raise UserError(self.problem(name))
        module, _, attribute = self.builtin[name].partition(":")
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return factory

    def register(self, name: str) -> Callable[[F], F]:
        """Decorate a factory, to make it known as `name`; raise UserError if a built-in has that name."""
        self._check_free(name)

        def decorate(factory: F) -> F:
            self._registered[name] = factory
            return factory

        return decorate

    @contextmanager
    def for_now(self) -> Iterator[None]:
        """Forget at the end of the block what was registered in it."""
        before = dict(self._registered)
        try:
            yield
        finally:
            self._registered = before

    def _check_free(self, name: str) -> None:
        if name in self.builtin:
            raise UserError(f"cannot register {self.kind} {name!r}: a built-in has that name")


_accepted: set[tuple[str, str]] = set()
"""Names accepted for now, though nobody registered them, each with its section."""


@contextmanager
def accepting_names_of(configs: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Accept in sweep files what these trials' configs name, though no module that registers it was imported."""
    for config in configs:
        for section, value in config.items():
            for each in value if isinstance(value, list) else [value]:
                name = each.get("name") if isinstance(each, Mapping) else each
                if isinstance(name, str):
                    _accepted.add((section, name))
    try:
        yield
    finally:
        _accepted.clear()


def import_modules(names: Iterable[str]) -> None:
    """Import the user's modules of `--import`, so that they register what they bring; UserError if one cannot be."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if error.name and error.name.partition(".")[0] == "raysweep":
                raise UserError(f"--import {name}: {error}; docs/data.md and CONTRIBUTING.md have the names") from error
            if error.name != name and not name.startswith(f"{error.name}."):
                raise UserError(f"--import {name}: {error}{_place_of(error)}; it must be installed here") from error
            if name.endswith(".py"):
                name_of_module = name.removesuffix(".py").replace("/", ".")
                raise UserError(f"--import {name}: is a file; name the module: --import {name_of_module}") from error
            raise UserError(
                f"--import {name}: no module of that name; run from its folder or set PYTHONPATH"
            ) from error
        except RaysweepError:
            raise
        except Exception as error:
            what = next(iter(str(error).splitlines()), "")
            raise UserError(f"--import {name}: {type(error).__name__}: {what}{_place_of(error)}") from error


def _place_of(error: Exception) -> str:
    """Return where in the user's code an import failed, in words."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f", imported at {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""


MODELS = Registry("network", "model")
DATA_SOURCES = Registry("data set", "data")
AUGMENTATIONS = Registry("augmentation", "augment")
LOSSES = Registry("loss", "loss")
METRICS = Registry("metric", "metrics")
OPTIMIZERS = Registry("optimizer", "optimizer")
SCHEDULES = Registry("lr_schedule", "lr_schedule")

register_model = MODELS.register
register_data = DATA_SOURCES.register
register_augmentation = AUGMENTATIONS.register
register_loss = LOSSES.register
register_optimizer = OPTIMIZERS.register
register_schedule = SCHEDULES.register

Mode = Literal["max", "min"]

_modes: dict[str, Mode] = {}
"""What of each registered metric is better."""


def register_metric(name: str, mode: Mode = "max") -> Callable[[F], F]:
    """Decorate a metric of validation images, to make it known as `name`; `mode` says what of it is better."""
    register = METRICS.register(name)

    def decorate(metric: F) -> F:
        _modes[name] = mode
        return register(metric)

    return decorate


def metric_modes() -> dict[str, Mode]:
    """Return what of each metric is better, of those that are accepted for now as well."""
    accepted: dict[str, Mode] = {name: "max" for section, name in _accepted if section == METRICS.section}
    return accepted | _modes
