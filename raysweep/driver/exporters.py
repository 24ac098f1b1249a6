"""Exports a run to other tools while it goes on: a process for each tool, off the trials' path.

A fault of an exporter changes nothing about the run: a line says so, and where its log is. One that did its work leaves
no log.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WAIT_S = 120.0
"""How long the exporters may take for their last pass, all of them together."""
SAY_AFTER_S = 10.0
"""How long they may take before a line says what is waited for."""
LOOK_EVERY_S = 0.05


@dataclass
class _Exporter:
    """A tool's exporter that was started."""

    tool: str
    process: subprocess.Popen[bytes]
    log: str  # the path of its log


@contextmanager
def exporting(run_path: str, tools: Sequence[str], say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Start an exporter for each tool; yield what waits for their last pass, once the run folder is free again.

    Ctrl-C ends that waiting, and the exporters. A tool that is not installed is told of at once, and left out.
    """
    there = [tool for tool in tools if _is_installed(tool)]
    for tool in (each for each in tools if each not in there):
        say(f"no export to {tool}, which is not installed: pip install 'raysweep[{tool}]'")
    exporters = [_started(run_path, tool) for tool in there]
    try:
        yield lambda: _wait(exporters, say)
    finally:
        for exporter in exporters:
            exporter.process.kill()
            exporter.process.wait()


def _is_installed(tool: str) -> bool:
    """Whether there is a package of that name; a mere folder is none, such as ./wandb where wandb wrote its runs."""
    spec = importlib.util.find_spec(tool)
    return spec is not None and spec.origin is not None


def _started(run_path: str, tool: str) -> _Exporter:
    with tempfile.NamedTemporaryFile(prefix=f"raysweep-{tool}-", suffix=".log", delete=False) as log:
        words = [sys.executable, "-m", "raysweep", "export", run_path, "--to", tool, "--live"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    return _Exporter(tool, process, log.name)


def _wait(exporters: Sequence[_Exporter], say: Callable[[str], None]) -> None:
    """Wait for all at once, and say of each how it ended."""
    left = list(exporters)
    try:
        _say_of_ended(left, SAY_AFTER_S, say)
        if left:
            say(f"waiting for the export to {_names(left)}, {WAIT_S:.0f} s at most; Ctrl-C ends it")
            _say_of_ended(left, WAIT_S - SAY_AFTER_S, say)
    except KeyboardInterrupt:
        say(f"export to {_names(left)} ended before it was whole; `raysweep export` does the rest")
        return
    for exporter in left:
        why = f"took more than {WAIT_S:.0f} s for its last pass and was ended"
        say(f"export to {exporter.tool} {why}; its log: {exporter.log}")


def _say_of_ended(left: list[_Exporter], within_s: float, say: Callable[[str], None]) -> None:
    """Wait some seconds for exporters; say how each ended, and take it out of those that are `left`."""
    end = time.monotonic() + within_s
    while left:
        for exporter in [each for each in left if each.process.poll() is not None]:
            left.remove(exporter)
            _say_how_it_ended(exporter, say)
        if time.monotonic() >= end:
            return
        time.sleep(LOOK_EVERY_S)


def _say_how_it_ended(exporter: _Exporter, say: Callable[[str], None]) -> None:
    if exporter.process.returncode:
        say(f"export to {exporter.tool} failed, the run did not; its log: {exporter.log}")
    else:
        Path(exporter.log).unlink(missing_ok=True)
        say(f"exported to {exporter.tool}")


def _names(exporters: Sequence[_Exporter]) -> str:
    return " and ".join(exporter.tool for exporter in exporters)
