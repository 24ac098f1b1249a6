"""What the commands share: the flags that name a sweep or a run, and the context that loads what they name.

In: a parsed command line. Out: the sweep, its trials, its run folder and what that holds, each loaded once, and only
if the command asks for it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from raysweep.errors import UserError
from raysweep.registry import accepting_names_of
from raysweep.terminal import counting

if TYPE_CHECKING:
    from raysweep.results.run import SweepResult
    from raysweep.store import RunFolder
    from raysweep.sweepfile import Sweep
    from raysweep.sweepfile.plan import StartedFrom, Trial


BRINGS = "a module that registers loops, networks, data or augmentations of your own"
"""What `--import` names."""
DATA_LIES_BESIDE_IT = "paths to data are relative to that file"
"""Why a command that reads images needs the sweep file itself."""


def add_sweep_flags(
    parser: argparse.ArgumentParser,
    what: str = "the sweep file, or a run folder (a path or URI)",
    storage: bool = True,
    optional: bool = False,
) -> None:
    """Add the sweep, which `what` describes, with its overrides and the flags that nearly every command has."""
    parser.add_argument("sweep", metavar="SWEEP.yaml", nargs="?" if optional else None, help=what)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="patch the sweep file: epochs=2, scheduler.eta=2"
    )
    add_common_flags(parser, storage)


def add_common_flags(parser: argparse.ArgumentParser, storage: bool = True) -> None:
    """Add `--json`, `--import` and, for commands that look for a run folder, `--storage`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help=BRINGS,
    )
    if storage:
        parser.add_argument("--storage", metavar="PATH|URI", help="where run folders lie, instead of the sweep file's")


class Context:
    """What a command line names: a sweep file with its overrides, or a run folder."""

    def __init__(
        self, path: str, overrides: Sequence[str] = (), storage: str | None = None, imports: Sequence[str] = ()
    ) -> None:
        from raysweep.sweepfile.named import Named

        self.named = Named(path, tuple(overrides), storage, tuple(imports))
        self.is_run_folder = not path.endswith((".yaml", ".yml")) and not Path(path).is_file()
        self.is_fresh = False  # whether the run folder that is there does not count

    @classmethod
    def of(cls, arguments: argparse.Namespace, only_file: str | None = None) -> Context:
        """Return the context of a command line; `only_file` says why a run folder cannot stand for the sweep file.

        Raises:
            UserError: a run folder is named where it cannot be, or is patched as only a sweep file can be.
        """
        path, overrides, storage = arguments.sweep, arguments.overrides, getattr(arguments, "storage", None)
        context = cls(path, overrides, storage, arguments.imports)
        context.is_fresh = getattr(arguments, "fresh", False)
        if context.is_run_folder and only_file:
            raise UserError(f"{path} is a run folder; name the sweep file that it was run from, since {only_file}")
        if context.is_run_folder and (overrides or storage):
            raise UserError(f"{path} is a run folder; only a sweep file takes overrides and --storage")
        return context

    @property
    def run_path(self) -> str:
        """The run folder that was named, as an absolute path or a URI."""
        return self.named.path if "://" in self.named.path else os.path.abspath(self.named.path)

    @property
    def file(self) -> Path:
        """The sweep file, if one was named."""
        return Path(self.named.path)

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep, checked together with its trials; of a run folder, that of its last run."""
        from raysweep.sweepfile.load import load_sweep, restore_sweep

        if not self.is_run_folder:
            return load_sweep(self.named.path, self.named.overrides, self._find_start)
        from raysweep.store.resolved import read_resolved

        folder, resolved = self.folder, read_resolved(self.folder)
        document, place = {**resolved.document["sweep"], "name": folder.name}, f"{folder.path}/resolved.yaml"
        with accepting_names_of(record.config for record in resolved.plan):
            return restore_sweep(document, place, resolved.start)

    def _find_start(self, sweep: Sweep) -> StartedFrom:
        from raysweep.results.start import find_start  # takes as long to import as a small plan to print

        return find_start(sweep, self.named.storage, self.is_fresh)

    @property
    def trials(self) -> list[Trial]:
        """The sweep's plan."""
        from raysweep.sweepfile.plan import plan_trials

        return plan_trials(self.sweep)

    @cached_property
    def place(self) -> tuple[str, str]:
        """The path or URI that the run folder lies in, and its name; other faults in the sweep file do not matter."""
        named = self.named
        if self.is_run_folder:
            from raysweep.store.runfolder import split_path

            return split_path(self.run_path)
        from raysweep.sweepfile.load import load_name_and_storage, storage_of

        loaded: Sweep | None = vars(self).get("sweep")
        sweep = loaded or load_name_and_storage(named.path, named.overrides)
        return storage_of(sweep, named.path, named.storage), sweep.name

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder, which need not exist."""
        from raysweep.store import RunFolder

        return RunFolder(*self.place)

    def results(self, live: bool = False, lenient: bool = False) -> SweepResult:
        """Read the run folder; see `read_results`."""
        from raysweep.results.run import read_results

        return read_results(self.folder, live, lenient, tell=counting)
