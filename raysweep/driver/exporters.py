"""Exports a run to other tools while it goes on: a process for each tool, off the trials' path.

A fault of an exporter changes nothing about the run: a line says so, and where its log is. One that did its work leaves
no log.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 120.0
"""How long an exporter may take for its last pass."""


@contextmanager
def exporting(run_path: str, tools: Sequence[str], say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Start an exporter for each tool; yield what waits for their last pass, once the run folder is free again."""
    started = {}
    for tool in tools:
        log = tempfile.NamedTemporaryFile(prefix=f"raysweep-{tool}-", suffix=".log", delete=False)  # noqa: SIM115
        words = [sys.executable, "-m", "raysweep", "export", run_path, "--to", tool, "--live"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        log.close()
        started[tool] = process, log.name
    ended = [False]

    def wait() -> None:
        ended[0] = True
        for tool, (process, log_name) in started.items():
            _wait(tool, process, log_name, say)

    try:
        yield wait
    finally:
        if not ended[0]:
            for process, _ in started.values():
                process.terminate()
                process.wait()


def _wait(tool: str, process: subprocess.Popen[bytes], log: str, say: Callable[[str], None]) -> None:
    try:
        code = process.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        say(f"export to {tool}: its last pass took more than {WAIT_S:.0f} s and was ended; its log: {log}")
    else:
        if code:
            say(f"export to {tool} failed, the run did not; its log: {log}")
        else:
            Path(log).unlink(missing_ok=True)
            say(f"exported to {tool}")
