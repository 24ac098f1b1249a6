"""What the benchmarks share: their arguments, the machine and versions that they ran on, and their output."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import operator
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

PACKAGES = ("raysweep", "torch", "torchvision", "ray", "optuna", "scikit-learn", "kornia")
_COMPARE = {"<=": operator.le, ">=": operator.ge}


def parse_arguments(
    description: str | None, add_own: Callable[[argparse.ArgumentParser], object] = lambda parser: None
) -> argparse.Namespace:
    """Return `quick` and `json`, the flags of every benchmark, and those that `add_own` adds to the parser."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats: a look, not a measurement")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_own(parser)
    arguments = parser.parse_args()
    if arguments.json:
        _keep_stdout()
    return arguments


_document: TextIO | None = None
"""Where the JSON document goes; None without --json."""


def _keep_stdout() -> None:
    """Keep stdout for the document. All else goes to stderr: Ray prints the lines of its processes to `sys.stdout`,
    and C libraries and child processes write to the file descriptor itself.
    """
    global _document
    sys.stdout.flush()
    _document = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def _print_document(document: Mapping[str, Any]) -> None:
    json.dump(document, _document or sys.stdout, indent=2, allow_nan=False)
    print(file=_document, flush=True)


def skip(reason: str) -> NoReturn:
    """End with exit code 0 and without figures, since something that the benchmark needs is missing."""
    print(f"skipped: {reason}", file=sys.stderr)
    if _document:
        _print_document({"skipped": reason})
    raise SystemExit(0)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, and the GPU if there is one."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's name; on Linux platform.processor() has none."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def emit(
    name: str,
    figures: Mapping[str, float],
    targets: Mapping[str, tuple[str, float]],
    arguments: argparse.Namespace,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Print the outcome.

    Args:
        name: the benchmark's.
        figures: numbers by name; a name ends with the unit (`_s`), that of a ratio has none.
        targets: `("<=" or ">=", bound)` by the figure's name.
        arguments: what `parse_arguments` returned.
        notes: what else there is to say, by name, as why a figure is missing.
    """
    missed = [figure for figure, (sign, bound) in targets.items() if not _COMPARE[sign](figures[figure], bound)]
    if arguments.json:
        wanted = {figure: f"{sign} {bound:g}" for figure, (sign, bound) in targets.items()}
        outcome = {"figures": dict(figures), "targets": wanted, "met": not missed}
        outcome |= {} if notes is None else {"notes": dict(notes)}
        _print_document({"name": name, "machine": machine(), "versions": versions(), **outcome})
        return
    print(f"{name} on {', '.join(f'{key} {value}' for key, value in machine().items() if value is not None)}")
    print(", ".join(f"{package} {version}" for package, version in versions().items()))
    for figure, value in figures.items():
        target = ""
        if figure in targets:
            sign, bound = targets[figure]
            target = f"   target {sign} {bound:g}: {'missed' if figure in missed else 'met'}"
        print(f"  {figure:<40} {value:>12.4g}{target}")
    for name, text in (notes or {}).items():
        print(f"  {name:<40} {text}")
