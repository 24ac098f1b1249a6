"""What one more trial, and one more epoch, costs beside the training itself.

The same tiny trials (32 synthetic images, the smallest network) are run two at a time by
(a) the pattern of Ray's documentation: TorchTrainer(num_workers=1) inside a Tune function, TuneReportCallback;
(b) raysweep, with all its records and exports;
(c) a multiprocessing pool that trains in-process: the floor.
Beside them, trials that train nothing: by a registered generator, and by a Ray Train function that reports a checkpoint
folder each epoch.
A cost is a difference: (wall time of many - wall time of few) / (many - few), so that starting up does not count.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from _report import emit, parse_arguments

SWEEP = """
name: overhead
base:
  data: {{name: synthetic, image_size: 8, classes: 2, per_class: 16}}
  model: {{name: baseline_block, width: 2}}
  epochs: {epochs}
  batch_size: 32
  lr_schedule: constant
seeds: {seeds}
resources: {{cpus: 1, gpus: 0}}
"""

NOOP = """
name: overhead
loop: {loop}
base: {{epochs: {epochs}}}
seeds: {seeds}
resources: {{cpus: 1, gpus: 0}}
"""
"""Trials that train nothing, by a loop of `_noop_loop`."""


def sweep_file(folder: Path, trials: int, epochs: int, loop: str | None = None) -> Path:
    path = folder / f"overhead-{loop or 'classify'}-{trials}-{epochs}.yaml"
    text = (NOOP if loop else SWEEP).format(epochs=epochs, seeds=list(range(trials)), loop=loop)
    text = text.replace("overhead", path.stem, 1)
    path.write_text(text)
    return path


def train_one(path: str, index: int, report: Callable[[dict[str, float]], None]) -> None:
    """One trial's training, without any of the three ways around it."""
    import torch

    from raysweep.sweepfile import load_sweep
    from raysweep.sweepfile.plan import plan_trials
    from raysweep.vision.data import open_data
    from raysweep.vision.loop import train

    torch.set_num_threads(1)
    trial = plan_trials(load_sweep(path))[index]
    data = open_data(trial.config.data, sweep_folder=Path(path).parent)
    for epoch in train(trial.config, data, seed=trial.seed):
        report({"epoch": epoch.number, **epoch.metrics})


def by_documented_pattern(path: Path, trials: int) -> float:
    """(a): seconds from the first to the last of `trials`, the cluster being up."""
    import ray
    from ray import train as ray_train
    from ray import tune
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def loop(config: dict[str, object]) -> None:
        train_one(str(path), int(str(config["index"])), ray_train.report)

    def driver(config: dict[str, object]) -> None:
        TorchTrainer(
            loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1),
            run_config=ray_train.RunConfig(storage_path=str(config["scratch"]), callbacks=[TuneReportCallback()]),
        ).fit()

    with tempfile.TemporaryDirectory() as scratch:
        ray.init(address="local", num_cpus=4, log_to_driver=False, logging_level=logging.ERROR)
        began = time.perf_counter()
        tune.Tuner(
            driver,
            param_space={"index": tune.grid_search(list(range(trials))), "scratch": scratch},
            tune_config=tune.TuneConfig(max_concurrent_trials=2),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
        seconds = time.perf_counter() - began
        ray.shutdown()
    return seconds


def by_raysweep(path: Path, trials: int) -> float:
    """(b): seconds of the whole run, the cluster being up."""
    import ray

    from raysweep.cli import main as raysweep

    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as storage,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        code = raysweep(["run", str(path), "--storage", storage, "--import", "_noop_loop"])
    assert code == 0, f"raysweep ended with {code}"
    return time.perf_counter() - began


def _train_quietly(path: str, index: int) -> None:
    train_one(path, index, lambda metrics: None)


def by_pool(path: Path, trials: int) -> float:
    """(c): seconds of the pool's map, the processes being up."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_train_quietly, [(str(path), 0)] * 2)
        began = time.perf_counter()
        pool.starmap(_train_quietly, [(str(path), index) for index in range(trials)], chunksize=1)
        return time.perf_counter() - began


def marginal(
    run: Callable[[Path, int], float], folder: Path, few: int, many: int, epochs: int, loop: str | None = None
) -> float:
    """Seconds that one more trial costs."""
    short = run(sweep_file(folder, few, epochs, loop), few)
    return (run(sweep_file(folder, many, epochs, loop), many) - short) / (many - few)


def marginal_epoch(
    run: Callable[[Path, int], float], folder: Path, few: int, many: int, loop: str | None = None
) -> float:
    """Seconds that one more epoch of each of two trials, side by side, costs."""
    short = run(sweep_file(folder, 2, few, loop), 2)
    return (run(sweep_file(folder, 2, many, loop), 2) - short) / (many - few)


def main() -> None:
    arguments = parse_arguments(__doc__)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAYSWEEP_DATA"] = "."
    documented = (2, 4) if arguments.quick else (2, 8)
    ours = (10, 60) if arguments.quick else (20, 220)
    epochs = (3, 13) if arguments.quick else (3, 40)
    our_epochs = (10, 110) if arguments.quick else (10, 410)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["RAYSWEEP_CACHE"] = f"{scratch}/cache"
        folder = Path(scratch)
        figures = {
            "trial_pool_s": marginal(by_pool, folder, *ours, epochs=3),
            "trial_raysweep_s": marginal(by_raysweep, folder, *ours, epochs=3),
            "epoch_pool_s": marginal_epoch(by_pool, folder, *our_epochs),
            "epoch_raysweep_s": marginal_epoch(by_raysweep, folder, *our_epochs),
            "trial_generator_s": marginal(by_raysweep, folder, *ours, epochs=3, loop="noop"),
            "trial_function_s": marginal(by_raysweep, folder, *ours, epochs=3, loop="noop_function"),
            "epoch_generator_s": marginal_epoch(by_raysweep, folder, *our_epochs, loop="noop"),
            "epoch_function_s": marginal_epoch(by_raysweep, folder, *our_epochs, loop="noop_function"),
            "trial_documented_s": marginal(by_documented_pattern, folder, *documented, epochs=3),
            "epoch_documented_s": marginal_epoch(by_documented_pattern, folder, *epochs),
        }
    for what in ("trial", "epoch"):
        figures[f"{what}_function_to_generator"] = figures[f"{what}_function_s"] / figures[f"{what}_generator_s"]
    figures["trial_raysweep_to_documented"] = figures["trial_raysweep_s"] / figures["trial_documented_s"]
    targets = {
        "trial_raysweep_to_documented": ("<=", 0.01),
        "epoch_raysweep_s": ("<=", 0.040),
        "trial_function_to_generator": ("<=", 2.0),
        "epoch_function_to_generator": ("<=", 2.0),
    }
    emit("trial_overhead", figures, targets, arguments)


if __name__ == "__main__":
    main()
