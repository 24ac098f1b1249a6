"""Makes the README's pictures from a real run: the live table in a terminal, and the report's first screen.

    python scripts/pictures.py     # or `make pictures`; a minute on two cores, with Debian's chromium

In: sweeps/digits_random.yaml, run in a terminal of its own. Out: docs/pictures/live.svg and docs/pictures/report.png.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
SWEEP, PICTURES = ROOT / "sweeps/digits_random.yaml", ROOT / "docs/pictures"
COLUMNS, LINES = 100, 14
DONE = re.compile(r"█.*\b[1-9] of 60 trials done", re.DOTALL)
"""The live table is taken once a curve has come so far, and before all is done."""
COLOURS = 64
"""Enough for a page of text and lines, in a quarter of the bytes."""


def main() -> None:
    """Make both pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "raysweep", str(SWEEP.relative_to(ROOT)), "--storage", folder]
        screen = next((screen for screen in screens(command) if DONE.search("\n".join(screen.display))), None)
        assert screen, "the run ended before as many trials were done"
        save_terminal(screen, f"raysweep {SWEEP.relative_to(ROOT)}", PICTURES / "live.svg")
        for _ in screens(command):  # a rerun is a resume
            pass
        save_page(Path(folder) / SWEEP.stem / "report.html", PICTURES / "report.png")


def screens(command: list[str], columns: int = COLUMNS, lines: int = LINES) -> Iterator[pyte.Screen]:
    """Run a command in a terminal; yield its screen after each thing written. If the reader stops, so does the run."""
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        while data := os.read(ours, 65536):
            stream.feed(data)
            yield screen
    except OSError:  # so Linux tells that the other side is closed
        pass
    finally:
        process.terminate()
        os.close(ours)
        process.wait()


def save_terminal(screen: pyte.Screen, title: str, path: Path) -> None:
    """Draw a terminal's screen."""
    console = Console(width=screen.columns, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    while screen.display[-1:] and not (lines := screen.display)[-1].strip():
        screen.lines = len(lines) - 1
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        text = Text()
        for cell in cells:
            text.append(cell.data, "bold" if cell.bold else "")
        text.rstrip()
        console.print(text)
    console.save_svg(str(path), title=title)


@contextmanager
def browser() -> Iterator[Any]:
    """Start a Chromium, and end it."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] * (os.geteuid() == 0))
        yield started
        started.close()


def save_page(page: Path, path: Path) -> None:
    """Take a picture of a page's first screen."""
    with browser() as chromium:
        shown = chromium.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        shown.goto(page.as_uri())
        shown.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
