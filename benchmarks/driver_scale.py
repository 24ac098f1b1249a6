"""What the driver costs as a sweep grows: thousands of trials that train nothing, two at a time, three epochs each.

* raysweep, with `asha` (most trials pause at a rung and are stopped there) and with `none` (all run to their end), with
  all its records and exports; each decision of `asha` at a rung is timed in the driver.
* Ray Tune as it comes: a function trainable, Tune's own ASHA, default settings. It is so much slower that it gets fewer
  trials.

A rate is that of one more trial: (many - few) / (seconds of many - seconds of few), so that starting up does not count.
Each run has a fresh driver process and cluster. Memory is the driver process's largest resident set.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _report import emit, parse_arguments

SWEEP = """
name: scale
loop: noop
base: {{epochs: 3}}
random: {{samples: {trials}, lr: {{log_uniform: [0.0001, 1]}}}}
scheduler: {scheduler}
limits: {{trials: 100000}}
resources: {{cpus: 1, gpus: 0}}
"""


def by_raysweep(trials: int, scheduler: str) -> dict[str, Any]:
    """Run a sweep; return seconds, the driver's memory and the seconds of each decision."""
    import ray

    from raysweep.cli import main as raysweep
    from raysweep.driver.queue import TrialQueue
    from raysweep.halving.rungs import Verdict

    decisions: list[float] = []
    judge = TrialQueue.judge

    def timed(self: TrialQueue, *arguments: Any) -> Any:
        began = time.perf_counter()
        verdict = judge(self, *arguments)
        if verdict is Verdict.UNDECIDED:  # of one kind, to be compared: a score is ranked, and the trial has to wait
            decisions.append(time.perf_counter() - began)
        return verdict

    TrialQueue.judge = timed  # type: ignore[method-assign]
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.yaml"
        path.write_text(SWEEP.format(trials=trials, scheduler=scheduler))
        began = time.perf_counter()
        code = raysweep(["run", str(path), "--storage", folder, "--import", "_noop_loop"])
        seconds = time.perf_counter() - began
    assert code == 0, f"raysweep ended with {code}"
    return {"seconds": seconds, "memory_mb": _memory_mb(), "decisions": decisions}


def by_stock_tune(trials: int) -> dict[str, Any]:
    """Run as many trials through Tune as it comes."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def trial(config: dict[str, float]) -> None:
        for epoch in range(1, 4):
            tune.report({"score": config["score"], "epoch": epoch})

    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trial,
            param_space={"score": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=trials, scheduler=ASHAScheduler(), metric="score", mode="max"),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        began = time.perf_counter()
        tuner.fit()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "memory_mb": _memory_mb()}


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_apart(contender: str, *arguments: Any) -> dict[str, Any]:
    """Run a contender in a fresh process; return what it tells."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        words = [sys.executable, __file__, "--contender", contender, json.dumps(arguments), str(told)]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAYSWEEP_CACHE": f"{folder}/cache"}
        log = Path(folder) / "log"
        with log.open("w") as output:
            done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            raise SystemExit(f"{contender} {arguments} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
        outcome: dict[str, Any] = json.loads(told.read_text())
    print(f"{contender} {arguments}: {outcome['seconds']:.1f} s", file=sys.stderr)
    return outcome


def rate(many: dict[str, Any], few: dict[str, Any], count: int) -> float:
    """Trials a second, of those `count` that `many` has more than `few`."""
    return float(count / (many["seconds"] - few["seconds"]))


def growth(decisions: list[float]) -> float:
    """How much longer a decision takes in the last tenth of a run than in the second: medians, the first warms up."""
    tenth = len(decisions) // 10
    return median(decisions[-tenth:]) / median(decisions[tenth : 2 * tenth])


def main() -> None:
    arguments = parse_arguments(__doc__)
    few, many = (50, 400) if arguments.quick else (100, 3000)
    stock_few, stock_many = (4, 24) if arguments.quick else (10, 110)
    asha = [run_apart("raysweep", count, "asha") for count in (few, many)]
    full = [run_apart("raysweep", count, "none") for count in (few, many)]
    stock = [run_apart("stock_tune", count) for count in (stock_few, stock_many)]
    figures = {
        "trials": many,
        "trials_per_s_asha": rate(asha[1], asha[0], many - few),
        "trials_per_s_none": rate(full[1], full[0], many - few),
        "trials_per_s_stock": rate(stock[1], stock[0], stock_many - stock_few),
        "decision_s": median(asha[1]["decisions"]),
        "decision_growth": growth(asha[1]["decisions"]),
        "driver_memory_mb": asha[1]["memory_mb"],
        "driver_memory_mb_a_1000_trials": (asha[1]["memory_mb"] - asha[0]["memory_mb"]) / (many - few) * 1000,
        "stock_driver_memory_mb": stock[1]["memory_mb"],
    }
    figures["asha_to_stock"] = figures["trials_per_s_asha"] / figures["trials_per_s_stock"]
    figures["none_to_stock"] = figures["trials_per_s_none"] / figures["trials_per_s_stock"]
    targets = {"asha_to_stock": (">=", 3.0), "none_to_stock": (">=", 3.0), "decision_growth": ("<=", 2.0)}
    emit("driver_scale", figures, targets, arguments)


CONTENDERS = {"raysweep": by_raysweep, "stock_tune": by_stock_tune}

if __name__ == "__main__":
    if "--contender" in sys.argv:
        _, _, name, given, answer = sys.argv
        Path(answer).write_text(json.dumps(CONTENDERS[name](*json.loads(given))))
    else:
        main()
