"""What `compile: true` is worth on a CPU: a compiled step against an eager one, and what compiling takes.

Each network is measured in a process of its own, whose cache on the disk begins empty. Eager and compiled steps of
bare training (forward, backward, update; images lie ready) alternate; the ratio is the median of the pairs' ratios.

* first_s           what a trial's first epoch takes more than its second: the first step, the first one with fewer
                    images and the first evaluation, each less the next of its kind
* second_trial_s    the same of the next trial in the same process, of another network of the same shape
* second_process_s  the same of the first trial in another process, which finds on the disk what torch compiled
* pays_after_epochs epochs of 10,000 images after which first_s has been won back; there is none where a compiled step
                    is the slower one. pays_again_after_epochs: second_process_s

One thread by default, as where each core has a trial of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from _report import emit, parse_arguments
from _steps import NETWORKS, Step

from raysweep.vision.config import ModelConfig
from raysweep.worker.process import keep_freed_memory

EPOCH = 10_000
"""Images of an epoch."""
PLANS = {  # network: widths, batch, pairs of steps
    "baseline_block": ((16, 32, 64), 128, 15),
    "resnet18": ((16, 64), 64, 9),
    "resnet50": ((64,), 32, 7),
    "v2": ((64,), 16, 7),
    "v4": ((64,), 8, 5),
}
QUICK = {"baseline_block": ((8,), 32, 9)}


def measure(network: str, width: int, batch: int, pairs: int) -> dict[str, float]:
    """Measure one network in this process; with no pairs, only what compiling takes."""
    keep_freed_memory()  # as a trial's process does
    model, device = ModelConfig(name=NETWORKS[network], width=width), torch.device("cpu")
    compiled, second = (Step(model, batch, device, compile=True) for _ in range(2))
    figures = {"first_s": compiled.first_s()}
    if not pairs:
        return figures
    figures["second_trial_s"] = second.first_s()
    eager = Step(model, batch, device)
    eager.seconds(times=2)
    times = []
    for pair in range(pairs):
        in_turn = [eager, compiled] if pair % 2 else [compiled, eager]
        taken = {step: step.seconds() for step in in_turn}
        times.append((taken[eager], taken[compiled]))
    of_eager, of_compiled = zip(*times, strict=True)
    figures |= {"eager_step_s": statistics.median(of_eager), "compiled_step_s": statistics.median(of_compiled)}
    return {**figures, "compiled_to_eager": statistics.median(b / a for a, b in times)}


def in_a_process(network: str, width: int, batch: int, pairs: int, cache: Path, threads: int) -> dict[str, float]:
    """Measure in a new process, which keeps what torch compiles in `cache`."""
    words = [network, width, batch, pairs]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--measure", *map(str, words)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(network: str, width: int, batch: int, pairs: int, threads: int) -> dict[str, float]:
    """Return the figures of one network."""
    with tempfile.TemporaryDirectory() as cache:
        figures = in_a_process(network, width, batch, pairs, Path(cache), threads)
        again = in_a_process(network, width, batch, 0, Path(cache), threads)
    figures["second_process_s"] = again["first_s"]
    won = figures["eager_step_s"] * (1 - figures["compiled_to_eager"]) * EPOCH / batch  # seconds an epoch
    if won > 0:
        figures["pays_after_epochs"] = figures["first_s"] / won
        figures["pays_again_after_epochs"] = again["first_s"] / won
    return figures


def add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1, help="threads of a trial (1)")
    parser.add_argument("--network", choices=NETWORKS, help="this one only")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)


def main() -> None:
    arguments = parse_arguments(__doc__, add_own)
    if arguments.measure:
        network, *sizes = arguments.measure
        print(json.dumps(measure(network, *map(int, sizes))))
        return
    torch.set_num_threads(arguments.threads)  # for `emit`, which says how many
    figures: dict[str, float] = {}
    for network, (widths, batch, pairs) in (QUICK if arguments.quick else PLANS).items():
        for width in widths if arguments.network in (None, network) else ():
            found = compare(network, width, batch, pairs, arguments.threads)
            print(f"{network}, width {width}, batch {batch}:", file=sys.stderr)
            print("  " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()), file=sys.stderr, flush=True)
            figures |= {f"{network}_{width}_{name}": value for name, value in found.items()}
    emit("compile", figures, {}, arguments)


if __name__ == "__main__":
    main()
