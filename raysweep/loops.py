"""The loop that trains: what raysweep asks of one, and `loop()`, the door through which other rooms reach `vision`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from raysweep.config import LoopConfig


class Epoch(Protocol):
    """One epoch's outcome; or a place inside one, where `should_save` asked for the state."""

    @property
    def number(self) -> int:
        """The epoch, counted from 1; inside one, the last whole one."""

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured of the epoch; nothing inside one."""

    def state(self) -> dict[str, Any]:
        """Return what `train` needs to go on from here, for torch.save."""

    def weights(self, averaged: bool) -> dict[str, Tensor]:
        """Return the plain or the EMA weights by name, on the CPU."""

    def correct(self, averaged: bool) -> Tensor | None:
        """Return of each validation image whether the plain or the EMA weights got it right: bool, on the CPU.

        They are in the data set's order, and their mean is the accuracy. None where the loop does not tell.
        """


class Loop(Protocol):
    """What raysweep asks of a training loop. Only `train` and what trains or measures networks may need torch.

    `device` is `cpu`, where the slot has no GPU though the node may, or `auto`: a GPU if there is one.
    """

    @property
    def config(self) -> type[LoopConfig]:
        """The class of a trial's settings."""

    def names(self) -> Mapping[str, Sequence[str]]:
        """Return the names that a section of a trial's config may have, the user's own too, by section."""

    def data_files(self, config: Any, sweep_folder: Path) -> Sequence[Path]:
        """Return the files from which a data set is prepared; none for one that needs no files.

        Raises:
            DataError: files are absent or wrong.
        """

    def prepare(self, config: Any, sweep_folder: Path) -> dict[str, Any]:
        """Return the data set of a config, as arrays and plain values by name; it is prepared if this node has none.

        Raises:
            DataError: the data set cannot be read as asked.
        """

    def check(self, configs: Sequence[Any], arrays: dict[str, Any], device: str = "auto") -> None:
        """Check that each config can be trained on the data set here.

        Raises:
            UserError: one cannot.
        """

    def conditions(self, config: Any, arrays: dict[str, Any], device: str = "auto") -> dict[str, Any]:
        """Return what a trial's numbers depend on beside its config, as JSON; what is `auto` is resolved here."""

    def train(
        self,
        config: Any,
        arrays: dict[str, Any],
        conditions: Mapping[str, Any],
        seed: int,
        state: dict[str, Any] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        should_save: Callable[[], bool] = lambda: False,
        device: str = "auto",
    ) -> Generator[Epoch, None, None]:
        """Train under the given conditions, from a state or from the beginning, and yield each epoch.

        A loop that can go on from inside an epoch also yields where `should_save` says so, once at each such place, and
        before it stops.

        Raises:
            UserError: the conditions do not hold here: the data set is another one, or the device cannot do it.
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

    def thumbnails(self, arrays: dict[str, Any], rows: Sequence[int]) -> list[bytes]:
        """Return validation images as small WebP files."""


@functools.cache
def loop() -> Loop:
    """Return the loop that trains: the built-in `classify`."""
    from raysweep.vision.classify import Classify

    return Classify()
