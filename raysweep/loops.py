"""The loops that train: what raysweep asks of one, and `register_loop`, which makes one of a function.

The built-in loop, `classify`, is registered here by name alone, and imported on first use. No torch, no Ray.
"""

from __future__ import annotations

import inspect
import json
import random
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel

from raysweep.config import LoopConfig, classes_of
from raysweep.errors import UserError
from raysweep.registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

Mode = Literal["max", "min"]
F = TypeVar("F", bound=Callable[..., Any])

CLASSIFY = "classify"
"""The built-in loop, which trains where a sweep file names none."""
LOOPS = Registry("loop", "loop")
LOOPS.build_in({CLASSIFY: "raysweep.vision.classify:Classify"})


# ---------------------------------------------------------------------------------------------------------
# What a loop is given, and what it yields


@dataclass(frozen=True)
class Epoch:
    """One epoch's outcome; or, without metrics, a place inside one, where `TrialContext.should_save` said so.

    What is a function is called at most once, before the loop goes on, and only if the result is wanted.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    """What was measured of the epoch, by any names."""
    state: Callable[[], Mapping[str, Any]] | None = None
    """Returns what `TrialContext.state` is to be when the trial goes on from here: tensors, numbers, texts, lists and
    dicts. Without it a trial that is interrupted begins anew."""
    weights: Callable[[], Mapping[str, Tensor]] | None = None
    """Returns the weights by name, which are kept of the best epoch."""
    ema_weights: Callable[[], Mapping[str, Tensor]] | None = None
    """Returns the averaged weights, whose metrics end in `_ema`."""
    correct: Callable[[], Tensor] | None = None
    """Returns of each validation example whether the weights got it right: bool, always in the same order."""
    ema_correct: Callable[[], Tensor] | None = None
    """Returns the same of the averaged weights."""
    checkpoint: Path | None = None
    """A folder that is committed whole, `state` with it; of the best epoch it is kept in place of `weights`."""


def _never() -> bool:
    return False


@dataclass
class TrialContext:
    """What a loop is told of the trial that it trains, beside the trial's config."""

    seed: int = 0
    epoch: int = 0
    """Epochs that are done: the loop goes on after them."""
    saved: Mapping[str, Any] | None = None
    """What `state` returns."""
    checkpoint: Path | None = None
    """The folder that the trial goes on from, if its loop commits folders."""
    device: str = "cpu"
    """`cuda` or `cpu`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the loop's `prepare` returned: arrays that may not be written to."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """What the trial's numbers depend on beside its config."""
    rank: int = 0
    """This worker's, where several train the trial together."""
    world_size: int = 1
    """How many workers train the trial."""
    should_stop: Callable[[], bool] = _never
    """Whether the run is to stop; cheap enough to be asked before every step. A loop that never asks is stopped at the
    end of its epoch. Where several workers train the trial, all must ask alike; they get the first one's answer."""
    should_save: Callable[[], bool] = _never
    """Whether a loop that can go on from inside an epoch is to yield an `Epoch` without metrics now."""

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What the last `Epoch.state` returned; None where the trial begins.

        Whoever reads it also sets torch's, numpy's and Python's generators to where they were at the beginning of the
        next epoch. So read it once the network is made, and a loop that saves its network and optimizer resumes
        exactly.
        """
        seed_generators(self.seed, self.epoch)
        return self.saved


def seed_generators(seed: int, epochs_done: int) -> None:
    """Seed torch's, numpy's and Python's global generators for the epoch after so many, in any process alike.

    Only libraries that are loaded are seeded: a process that trains has loaded torch and numpy.
    """
    drawn = random.Random(f"{seed}/{epochs_done}").getrandbits(32)
    random.seed(drawn)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(drawn)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(drawn)


# ---------------------------------------------------------------------------------------------------------
# What raysweep asks of a loop


class Loop:
    """What raysweep asks of a training loop; only `train` must be there. Torch is needed by `train` alone.

    `device` is `cpu`, where the slot has no GPU though the node may, or `auto`: a GPU if there is one.
    """

    name: str = ""
    config: type[LoopConfig] = LoopConfig
    """The class of a trial's settings."""
    keeps_step: bool = False
    """Whether its ranks, where several train a trial, go on, save and stop together by themselves."""

    @property
    def metrics(self) -> Mapping[str, Mode]:
        """What trials may be ranked by, each with what is better; the first is the objective by default."""
        return {}

    def names(self) -> Mapping[str, Sequence[str]]:
        """Return the names that a section of a trial's config may have, the user's own too, by section."""
        return {}

    def data_key(self, config: Any) -> str:
        """Return a text that is equal for the trials which share one prepared data set."""
        return ""

    def data_name(self, config: Any) -> str:
        """Return what people call that data set."""
        return "the data"

    def data_files(self, config: Any, sweep_folder: Path) -> Sequence[Path]:
        """Return the files from which a data set is prepared; none for one that needs no files.

        Raises:
            DataError: files are absent or wrong.
        """
        return ()

    def prepare(self, config: Any, sweep_folder: Path) -> dict[str, Any]:
        """Return the data set of a config, as arrays and plain values by name; it is prepared if this node has none.

        Raises:
            DataError: the data set cannot be read as asked.
        """
        return {}

    def check(self, configs: Sequence[Any], arrays: dict[str, Any], device: str = "auto") -> None:
        """Check that each config can be trained on the data set here.

        Raises:
            UserError: one cannot.
        """

    def conditions(self, config: Any, arrays: dict[str, Any], device: str = "auto") -> dict[str, Any]:
        """Return what a trial's numbers depend on beside its config, as JSON; what is `auto` is resolved here."""
        return {}

    def same_cost(self, config: Any) -> str:
        """Return a text that is equal for trials whose epochs take equal time and memory.

        By default these are the trials that differ in real numbers and in `epochs` alone.
        """
        values = config.model_dump(mode="json", exclude={"epochs"})
        return json.dumps({key: value for key, value in values.items() if not isinstance(value, float)})

    def few(self, config: Any, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return as much of a data set as is enough to tell what an epoch costs; by default all of it."""
        return arrays

    def epoch_seconds(
        self, config: Any, arrays: Mapping[str, Any], few: Mapping[str, Any], metrics: Mapping[str, float], took: float
    ) -> float:
        """Return how long an epoch on a whole data set takes, where one on a `few` of it `took` so many seconds."""
        return took

    def train(self, config: Any, trial: TrialContext) -> Iterator[Epoch]:
        """Train from `trial.state`, or from the beginning, and yield each epoch.

        A loop that can go on from inside an epoch also yields where `trial.should_save` says so, once at each such
        place, and before it stops.

        Raises:
            UserError: the conditions do not hold here: the data set is another one, or the device cannot do it.
            Diverged: the loss is not finite.
            Interrupted: `trial.should_stop` said so.
        """
        raise NotImplementedError


class EvaluatingLoop(Loop):
    """A loop whose networks classify images: raysweep can build them from a record and measure them again."""

    @abstractmethod
    def network(self, config: Mapping[str, Any], num_classes: int) -> nn.Module:
        """Build the network of a trial's config, given as JSON; other sections than the network's are not looked at.

        Raises:
            UserError: no such network.
        """

    @abstractmethod
    def accuracies(
        self,
        conditions: Mapping[str, Any],
        network: nn.Module,
        arrays: dict[str, Any],
        views: Sequence[int],
        device: str = "auto",
    ) -> list[tuple[float, float | None]]:
        """Return (validation, test) accuracy of a trained network, each 0..1, for each number of TTA views.

        Raises:
            StorageError: the images or labels are others than those of `conditions`.
        """

    @abstractmethod
    def answers(
        self,
        conditions: Mapping[str, Any],
        network: nn.Module,
        arrays: dict[str, Any],
        split: Literal["val", "test"],
        device: str = "auto",
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        """Return (labels, answers, probabilities) on the images of a split; None where the data has no such split.

        The answers are the most probable labels, with their probability, 0..1.

        Raises:
            StorageError: the images or labels are others than those of `conditions`.
        """

    @abstractmethod
    def thumbnails(self, arrays: dict[str, Any], rows: Sequence[int]) -> list[bytes]:
        """Return validation images as small WebP files."""


def loop_named(name: str) -> Loop:
    """Return the loop of that name.

    Raises:
        UserError: there is none; one of the user's own needs `--import`.
    """
    if name not in LOOPS.names():
        raise UserError(f"{LOOPS.problem(name)} (one of your own: --import its module)")
    loop: Loop = LOOPS.get(name)()
    return loop


def evaluating_loop(name: str) -> EvaluatingLoop:
    """Return the loop of that name, which evaluates networks.

    Raises:
        UserError: there is none, or it does not.
    """
    loop = loop_named(name)
    if not isinstance(loop, EvaluatingLoop):
        raise UserError(f"loop {name!r} does not say how its networks are built")
    return loop


def loop_of(conditions: Mapping[str, Any]) -> str:
    """Return the name of the loop that trained under these conditions; older records had the built-in one alone."""
    return str(conditions.get("loop", CLASSIFY))


# ---------------------------------------------------------------------------------------------------------
# Loops of the user's own


class _Registered(Loop):
    """A loop made of a function."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        config: type[LoopConfig],
        metrics: Mapping[str, Mode],
        prepare: Callable[..., Mapping[str, Any]] | None,
    ) -> None:
        self.name, self.function, self.config = name, function, config
        self._metrics, self._prepare = dict(metrics), prepare

    @property
    def metrics(self) -> Mapping[str, Mode]:
        """Return those that it was registered with."""
        return self._metrics

    def data_key(self, config: Any) -> str:
        """Return the settings that the user's `prepare` takes."""
        return json.dumps(self._of_the_data(config, mode="json"))

    def prepare(self, config: Any, sweep_folder: Path) -> dict[str, Any]:
        """Return what the user's `prepare` returns."""
        return dict(self._prepare(**self._of_the_data(config))) if self._prepare else {}

    def _of_the_data(self, config: Any, mode: str = "python") -> dict[str, Any]:
        names = inspect.signature(self._prepare).parameters if self._prepare else ()
        values = config.model_dump(mode=mode)
        return {name: values[name] for name in names}

    def conditions(self, config: Any, arrays: dict[str, Any], device: str = "auto") -> dict[str, Any]:
        """Return a checksum of the data that was prepared, if any was."""
        return {"data": _checksum(arrays)} if arrays else {}


class GeneratorLoop(_Registered):
    """A loop made of a generator `train(config, trial)`."""

    def train(self, config: Any, trial: TrialContext) -> Iterator[Epoch]:
        """Train by the function; before each epoch the global generators are seeded for it."""
        done = trial.epoch
        seed_generators(trial.seed, 0)  # for the weights that every attempt begins with
        epochs = iter(self.function(config, trial))
        try:
            for epoch in epochs:
                if not isinstance(epoch, Epoch):
                    raise UserError(f"loop {self.name!r}: yielded {epoch!r:.80}, must be a raysweep.Epoch")
                yield epoch
                if epoch.metrics:
                    done += 1
                    seed_generators(trial.seed, done)
        finally:
            if inspect.isgenerator(epochs):
                epochs.close()


class TrainFunctionLoop(_Registered):
    """A loop made of a Ray Train function, `train(config: dict)`; `worker/train_function` hosts it."""

    def __init__(self, *given: Any, epochs_key: str) -> None:
        super().__init__(*given)
        self.epochs_key = epochs_key

    def arguments(self, config: LoopConfig, seed: int) -> dict[str, Any]:
        """Return the dict that the function is called with: the settings, the number of epochs, and the seed."""
        values = config.model_dump()
        return {**values, self.epochs_key: config.epochs, "seed": seed}


def register_loop(
    name: str,
    *,
    config: type[LoopConfig] = LoopConfig,
    metrics: Mapping[str, Mode] = MappingProxyType({}),
    epochs: str = "epochs",
    prepare: Callable[..., Mapping[str, Any]] | None = None,
) -> Callable[[F], F]:
    """Decorate a function that trains, or a `Loop`, so that sweep files can say `loop: NAME`.

    Args:
        name: what sweep files call it.
        config: a trial's settings, a class derived from `raysweep.Config`; its fields are what sweep files may set.
        metrics: what trials may be ranked by, with `max` or `min`; the first is the objective where a file names none.
        epochs: the key under which a Ray Train function finds the number of epochs; sweep files say `epochs`.
        prepare: makes a data set: arrays by name, which lie in the memory of each node once, where the loop finds
            them in `TrialContext.data`. Its parameters are named after the settings that the data set depends on;
            trials that agree in these share it.

    A function of two parameters, `train(config, trial)`, yields an `Epoch` after each epoch. One of a single parameter,
    `train(config: dict)`, or of none, is a function as Ray Train runs it: it calls `ray.train.report`.

    Raises:
        UserError: the name is taken by a built-in loop, or what is registered is no loop.
    """
    _check_config(name, config)
    unknown = [
        each for each in (inspect.signature(prepare).parameters if prepare else ()) if each not in config.model_fields
    ]
    if unknown:
        raise UserError(f"register_loop({name!r}): prepare: {config.__name__} has no field {', '.join(unknown)}")
    if wrong := [metric for metric, mode in metrics.items() if mode not in ("max", "min")]:
        raise UserError(f"register_loop({name!r}): metrics: {', '.join(wrong)}: must be 'max' or 'min'")

    def decorate(function: F) -> F:
        LOOPS.register(name)(_factory(name, function, config, metrics, epochs, prepare))
        return function

    LOOPS.register(name)  # refuses a built-in's name, where the decorator stands
    return decorate


def _factory(
    name: str,
    function: Callable[..., Any],
    config: type[LoopConfig],
    metrics: Mapping[str, Mode],
    epochs: str,
    prepare: Any,
) -> Callable[[], Loop]:
    if isinstance(function, type) and issubclass(function, Loop):
        return function
    parameters = _parameters(function)
    if parameters == 2:
        made: Loop = GeneratorLoop(name, function, config, metrics, prepare)
    elif parameters < 2:
        made = TrainFunctionLoop(name, function, config, metrics, prepare, epochs_key=epochs)
    else:
        raise UserError(
            f"register_loop({name!r}): takes train(config, trial), or a Ray Train function train(config); "
            f"{getattr(function, '__name__', function)} has {parameters} parameters"
        )
    return lambda: made


def _parameters(function: Callable[..., Any]) -> int:
    """Return how many parameters a call must, or may, give by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in kinds for each in inspect.signature(function).parameters.values())


def _check_config(name: str, config: type[LoopConfig]) -> None:
    """Refuse settings of which a slip in a sweep file would be ignored."""
    if not (isinstance(config, type) and issubclass(config, LoopConfig)):
        raise UserError(
            f"register_loop({name!r}): config: got {config!r}, must be a class derived from raysweep.Config"
        )
    lax = [each for each in _models_in(config) if each.model_config.get("extra") != "forbid"]
    for each in lax:
        raise UserError(
            f"register_loop({name!r}): {each.__name__}: derive it from raysweep.Section, which refuses slips"
        )


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.model_fields.values():
        for inner in classes_of(each.annotation):
            yield inner
            yield from _models_in(inner)


def _checksum(arrays: Mapping[str, Any]) -> str:
    """Return a checksum of arrays and plain values by name."""
    import hashlib

    import numpy as np

    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        is_plain = isinstance(value, (str, bytes, int, float, bool, list, tuple, dict, type(None)))
        array = None if is_plain else np.ascontiguousarray(value)
        found.update(f"{name} {'' if array is None else (array.dtype.str, array.shape)}".encode())
        found.update(repr(value).encode() if array is None else array.data)
    return found.hexdigest()[:16]
