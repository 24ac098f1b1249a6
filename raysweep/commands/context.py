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

from raysweep.errors import UserError
from raysweep.registry import accepting_names_of

if TYPE_CHECKING:
    from raysweep.results.run import SweepResult
    from raysweep.store import RunFolder
    from raysweep.sweepfile import Sweep
    from raysweep.sweepfile.plan import Trial


def add_sweep_flags(parser: argparse.ArgumentParser, or_run: bool = True, storage: bool = True) -> None:
    """Add the sweep file with its overrides, and the flags that nearly every command has.

    Args:
        parser: the command's.
        or_run: whether a run folder may stand for the sweep file.
        storage: whether the command has to do with run folders.
    """
    what = "the sweep file, or a run folder (a path or URI)" if or_run else "the sweep file"
    parser.add_argument("sweep", metavar="SWEEP.yaml", help=what)
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
    def of(cls, arguments: argparse.Namespace, or_run: bool = True) -> Context:
        """Return the context of a command line that has the flags of `add_sweep_flags`.

        Args:
            arguments: the command line.
            or_run: whether a run folder may stand for the sweep file. Its copy of that file lacks the overrides, and
                relative paths in it no longer lead to the data.

        Raises:
            UserError: a run folder is named where it may not be, or is patched as only a sweep file can be.
        """
        context = cls(arguments.sweep, arguments.overrides, getattr(arguments, "storage", None))
        if context.is_run_folder:
            if not or_run:
                raise UserError(f"{arguments.sweep} is a run folder; name the sweep file that it was run from")
            if context.named.overrides or context.named.storage:
                raise UserError(f"{arguments.sweep} is a run folder; only a sweep file takes overrides and --storage")
        return context

    @property
    def file(self) -> Path:
        """The sweep file, if one was named."""
        return Path(self.named.path)

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep, checked together with its trials; of a run folder, that of its last run."""
        from raysweep.sweepfile.load import load_sweep, restore_sweep

        if not self.is_run_folder:
            return load_sweep(self.named.path, self.named.overrides)
        from raysweep.store.resolved import read_resolved

        resolved = read_resolved(self.folder)
        with accepting_names_of(record.config for record in resolved.plan):
            return restore_sweep(
                {**resolved.document["sweep"], "name": self.folder.name}, f"{self.folder.path}/resolved.yaml"
            )

    @property
    def trials(self) -> list[Trial]:
        """The sweep's plan."""
        from raysweep.sweepfile.plan import plan_trials

        return plan_trials(self.sweep)

    @cached_property
    def place(self) -> tuple[str, str]:
        """The path or URI that the run folder lies in, and its name; no more of the sweep file is read for these."""
        from raysweep.store.runfolder import split_path
        from raysweep.sweepfile.load import load_name_and_storage, storage_of

        path, overrides, storage = self.named.path, self.named.overrides, self.named.storage
        if self.is_run_folder:
            return split_path(path)
        sweep = vars(self).get("sweep") or load_name_and_storage(path, overrides)  # the whole sweep, once it is loaded
        return storage_of(sweep, path, storage), sweep.name

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder, which need not exist."""
        from raysweep.store import RunFolder

        return RunFolder(*self.place)

    def results(self, live: bool = False, lenient: bool = False) -> SweepResult:
        """Read the run folder; see `read_results`."""
        from raysweep.results.run import read_results

        return read_results(self.folder, live, lenient)
