"""What raysweep asks of a loop that trains. No torch, no Ray."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raysweep.config import LoopConfig
from raysweep.loops.course import Course
from raysweep.loops.epoch import Epoch, TrialContext
from raysweep.loops.placement import Size
from raysweep.registry import Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn


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

    @property
    def costs(self) -> Mapping[str, Mode]:
        """What is known of a trial before it trains, and may be an objective beside a metric, with what is better."""
        return {}

    def costs_of(self, config: Any, conditions: Mapping[str, Any]) -> dict[str, float]:
        """Return the `costs` of a trial, given what its numbers depend on beside its config (`conditions`)."""
        return {}

    @property
    def speeds(self) -> Mapping[str, Mode]:
        """What is measured of each epoch beside `metrics`, and may be an objective beside one, with what is better."""
        return {}

    @property
    def tradeoffs(self) -> Mapping[str, Mode]:
        """All that a metric may be traded off against beside other metrics, with what is better."""
        return {**self.costs, **self.speeds}

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

    def data_size(self, config: Any, sweep_folder: Path) -> Size | None:
        """Return the size of a data set that this node has prepared; None where that is not known at once."""
        return None

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

    def same_conditions(self, config: Any) -> str:
        """Return a text that is equal for trials whose `conditions` are, on one data set, and which all pass `check`.

        A search proposes trials while others run; of those whose text is known nothing need be prepared anew. By
        default they are the trials of `same_cost`.
        """
        return self.same_cost(config)

    def course(self, config: Any) -> Course | None:
        """Return what decides the epochs of a trial; None, as by default, where trials are to share none."""
        return None

    def why_not_from(self, config: Any, other: Any) -> str | None:
        """Return why training cannot go on from a state that was trained with another config; None if it can.

        By default it is left to `train`, which gets that state.
        """
        return None

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


class EvaluatingLoop(Loop, ABC):
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
