"""What the commands share: the flags that name a sweep or a run, and the context that loads what they name.

In: a parsed command line. Out: the sweep, its trials, its run folder and what that holds, each loaded once, and only
if the command asks for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysweep.results.run import SweepResult
    from raysweep.store import RunFolder
    from raysweep.sweepfile import Sweep
    from raysweep.sweepfile.plan import Trial


def add_sweep_flags(parser: argparse.ArgumentParser, storage: bool = True) -> None:
    """Add the sweep file with its overrides, and the flags that nearly every command has."""
    parser.add_argument("sweep", metavar="SWEEP.yaml")
    add_overrides(parser)
    add_common_flags(parser)
    if storage:
        add_storage_flag(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the words that patch the sweep file."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="patch the sweep file: epochs=2, scheduler.eta=2"
    )


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--json` and `--import`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module that registers networks, data or augmentations of your own",
    )


def add_storage_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--storage`."""
    parser.add_argument("--storage", metavar="PATH|URI", help="where run folders lie, instead of the sweep file's")


class Context:
    """What a command line names: a sweep file with its overrides, or a run folder."""

    def __init__(self, path: str, overrides: Sequence[str] = (), storage: str | None = None) -> None:
        from raysweep.sweepfile.named import Named

        self.named = Named(path, tuple(overrides), storage)
        self.is_run_folder = not path.endswith((".yaml", ".yml")) and not Path(path).is_file()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Context:
        """Return the context of a command line that has the flags of `add_sweep_flags`."""
        return cls(arguments.sweep, arguments.overrides, getattr(arguments, "storage", None))

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep, checked together with its trials."""
        from raysweep.sweepfile import load_sweep

        return load_sweep(self.named.path, self.named.overrides)

    @property
    def trials(self) -> list[Trial]:
        """The sweep's plan."""
        from raysweep.sweepfile.plan import plan_trials

        return plan_trials(self.sweep)

    @property
    def data_folder(self) -> Path:
        """The folder that the data's paths are relative to."""
        return Path(self.named.path).absolute().parent

    @property
    def storage(self) -> str:
        """The path or URI that the run folder lies in."""
        from raysweep.sweepfile import storage_of

        return storage_of(self.sweep, self.named.path, self.named.storage)

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder, which need not exist."""
        from raysweep.results.run import folder_at
        from raysweep.store import RunFolder

        return folder_at(self.named.path) if self.is_run_folder else RunFolder(self.storage, self.sweep.name)

    def results(self, live: bool = False, lenient: bool = False) -> SweepResult:
        """Read the run folder; see `read_results`."""
        from raysweep.results.run import read_results

        return read_results(self.folder, live, lenient)
