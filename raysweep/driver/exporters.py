"""Exports a run to other tools while it goes on: a process for each tool, off the trials' path.

A fault of an exporter changes nothing about the run: a line says so, and where its log is. One that did its work leaves
no log.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

WAIT_S = 120.0
"""How long an exporter may take for its last pass."""
SAY_AFTER_S = 10.0
"""How long it may take before a line says what is waited for."""


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
    there = [tool for tool in tools if importlib.util.find_spec(tool)]
    for tool in (each for each in tools if each not in there):
        say(f"no export to {tool}, which is not installed: pip install 'raysweep[{tool}]'")
    exporters = [_started(run_path, tool) for tool in there]

    def wait() -> None:
        for exporter in exporters:
            try:
                _wait(exporter, say)
            except KeyboardInterrupt:
                say(f"export to {exporter.tool} ended before it was whole; `raysweep export` does the rest")

    try:
        yield wait
    finally:
        for exporter in exporters:
            exporter.process.kill()
            exporter.process.wait()


def _started(run_path: str, tool: str) -> _Exporter:
    with tempfile.NamedTemporaryFile(prefix=f"raysweep-{tool}-", suffix=".log", delete=False) as log:
        words = [sys.executable, "-m", "raysweep", "export", run_path, "--to", tool, "--live"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    return _Exporter(tool, process, log.name)


def _wait(exporter: _Exporter, say: Callable[[str], None]) -> None:
    try:
        code = _code(exporter, say)
    except subprocess.TimeoutExpired:
        why = f"took more than {WAIT_S:.0f} s for its last pass and was ended"
        say(f"export to {exporter.tool} {why}; its log: {exporter.log}")
        return
    if code:
        say(f"export to {exporter.tool} failed, the run did not; its log: {exporter.log}")
    else:
        Path(exporter.log).unlink(missing_ok=True)
        say(f"exported to {exporter.tool}")


def _code(exporter: _Exporter, say: Callable[[str], None]) -> int:
    with suppress(subprocess.TimeoutExpired):
        return exporter.process.wait(SAY_AFTER_S)
    say(f"waiting for the export to {exporter.tool}, {WAIT_S:.0f} s at most; Ctrl-C ends it")
    return exporter.process.wait(WAIT_S - SAY_AFTER_S)
