"""Takes pictures of every face of raysweep, as one page to look through: report, watch, terminal, Ray's dashboard.

    python scripts/screenshots.py OUT [RUN_FOLDER ...]     # minutes on two cores, with Debian's chromium

In: run folders whose reports are wanted. A run of sweeps/digits_random.yaml is made besides, and one of 5,000 trials.
Out: pictures in the folder OUT, and OUT/index.html with all of them.
"""

from __future__ import annotations

import html
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pictures import DONE, ROOT, SWEEP, browser, save_terminal, screens

sys.path.insert(0, str(ROOT / "tests"))
from run_folders import make_run, scoring

from raysweep.report import write_report_to
from raysweep.results.run import open_run
from raysweep.store import Record

RAYSWEEP = [sys.executable, "-m", "raysweep"]
SIZES = {"desktop": (1440, 900, "light"), "dark": (1440, 900, "dark"), "phone": (390, 844, "light")}
MANY = """
name: {name}
base: {{data: synthetic, epochs: {epochs}}}
random: {{samples: 5000, lr: {{log_uniform: [0.0001, 1]}}, model: {{choice: [baseline_block, resnet18, resnet34]}},
  optimizer.weight_decay: {{log_uniform: [1.0e-6, 0.01]}}}}
limits: {{trials: 10000}}
scheduler: {scheduler}
"""


def main(out: Path, runs: list[Path]) -> None:
    """Take all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        storage = Path(folder) / "runs"
        make_run(Path(folder), "five_thousand", epochs=20, text=MANY, end=scored)
        for columns in (80, 120):
            terminal(storage, columns, out)
        for _ in screens([*RAYSWEEP, str(SWEEP), "--storage", str(storage)]):  # to its end
            pass
        watch(Path(folder) / "watched", chromium, out)
        dashboard(Path(folder) / "dashboard", chromium, out)
        for run in [*runs, storage / SWEEP.stem, storage / "five_thousand"]:
            report(run, chromium, out)
    pictures = sorted(out.glob("*.png")) + sorted(out.glob("*.svg"))
    figures = "".join(f"<h2>{html.escape(each.name)}</h2><img src='{html.escape(each.name)}'>" for each in pictures)
    (out / "index.html").write_text(
        f"<!DOCTYPE html><title>Screenshots</title><style>img{{border:1px solid}}</style>{figures}"
    )


def scored(record: Record, place: int) -> Record:
    """Return a record of `make_run` with a score that depends on its settings."""
    lr = record.config["lr"]
    return scoring(record, 0.5 + 0.1 * lr**0.25 - 0.1 * lr + random.Random(place).gauss(0, 0.02))


def report(run: Path, chromium: Any, out: Path) -> None:
    """Take pictures of a report: its first screen in each size, and the whole page."""
    page = out / f"{run.name}.html"
    write_report_to(page, open_run(str(run)))
    for name, (width, height, scheme) in SIZES.items():
        shown = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        shown.goto(page.absolute().as_uri())
        shown.screenshot(path=out / f"report-{run.name}-{name}.png")
        shown.screenshot(path=out / f"report-{run.name}-{name}-whole.png", full_page=True)
        shown.close()


def terminal(storage: Path, columns: int, out: Path) -> None:
    """Take pictures of the live table, of `status` and of `why` in the middle of a run, which stops then."""
    words = [str(SWEEP.relative_to(ROOT)), "--storage", str(storage)]
    for screen in screens([*RAYSWEEP, *words], columns, 24):
        if DONE.search("\n".join(screen.display)):
            save_terminal(screen, f"raysweep {words[0]}", out / f"terminal-{columns}.svg")
            break
    best = open_run(str(storage / SWEEP.stem)).trials[0].id
    for name, *more in (["plan"], ["status"], ["status", "--why", best]):
        *_, screen = screens([*RAYSWEEP, name, *words, *more], columns, 70)
        title = " ".join(["raysweep", name, words[0], *more])
        save_terminal(screen, title, out / f"terminal-{name}{'-why' * bool(more)}-{columns}.svg")


@contextmanager
def running(words: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command of raysweep beside this, and end it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen(
        [*RAYSWEEP, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def watch(storage: Path, chromium: Any, out: Path) -> None:
    """Take pictures of the live page in the middle of a run without early stopping."""
    words = [str(SWEEP.relative_to(ROOT)), "scheduler.name=none", "--storage", str(storage)]
    with running(words), running(["watch", *words, "--no-open"]) as watching:
        assert watching.stdout
        address = next(word for line in watching.stdout for word in line.split() if word.startswith("http://127"))
        shown = chromium.new_page(viewport={"width": 1440, "height": 900})
        shown.goto(address)
        shown.wait_for_timeout(25_000)  # some epochs
        for name, (width, height, scheme) in SIZES.items():
            shown.set_viewport_size({"width": width, "height": height})
            shown.emulate_media(color_scheme=scheme)
            shown.wait_for_timeout(1000)
            shown.screenshot(path=out / f"watch-{name}.png")
            shown.screenshot(path=out / f"watch-{name}-whole.png", full_page=True)
        shown.close()


HEAD = """
import json, ray, sys
told = ray.init(address="local", num_cpus=2, include_dashboard=True, dashboard_port=0, log_to_driver=False).address_info
print(json.dumps({"address": told["gcs_address"], "dashboard": "http://" + told["webui_url"]}), flush=True)
sys.stdin.read()
"""
"""A cluster with a dashboard, which ends with its input."""


def dashboard(storage: Path, chromium: Any, out: Path) -> None:
    """Take pictures of Ray's dashboard in the middle of a run: its processes, and the tasks of its job."""
    guarded = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env={**os.environ, **guarded},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert head.stdin
    assert head.stdout
    told = json.loads(head.stdout.readline())
    words = ["sweeps/quickstart.yaml", "epochs=300", "--storage", str(storage), "--address", told["address"]]
    try:
        with running(words, **guarded):
            shown = chromium.new_page(viewport={"width": 1440, "height": 900})
            token = (Path.home() / ".ray/auth_token").read_text().strip()
            shown.context.add_cookies([{"name": "ray-authentication-token", "value": token, "url": told["dashboard"]}])
            shown.goto(f"{told['dashboard']}/#/actors")
            shown.get_by_text("raysweep quickstart").first.wait_for(timeout=60_000)
            shown.wait_for_timeout(3_000)
            shown.screenshot(path=out / "dashboard-actors.png")
            shown.goto(f"{told['dashboard']}/#/jobs")
            shown.locator("a[href^='#/jobs/']").first.click()
            shown.get_by_text("Task Table", exact=True).click()
            shown.get_by_text("raysweep quickstart/").first.wait_for()
            shown.screenshot(path=out / "dashboard-tasks.png", full_page=True)
            shown.close()
    finally:
        head.stdin.close()
        head.wait(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(map(Path, sys.argv[2:])))
