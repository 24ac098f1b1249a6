"""How fast trials train on a GPU, and how near that comes to what its arithmetic allows. No Ray.

For each network, at 40x40 pixels, in the precision that `auto` takes, images a second

* eager           of bare training steps: forward, backward, update; the images lie ready on the device
* captured        of the same steps, each replayed whole as one CUDA graph: eager without the time that launches take
* compiled        of steps with `compile: true`, whose kernels are fewer
* graphed         of steps with `compile: reduce-overhead`: compiled, forward and backward replayed as CUDA graphs
* train           of `raysweep.vision.loop.train`, as trials run it, with EMA, evaluation left out; `train_to_eager` is
                  its time over that of eager steps, `train_graphed` the same with `compile: reduce-overhead`
* trials_N        of N processes that `train` at once on the device, all together; `mps`: as clients of NVIDIA's MPS,
                  by which their kernels run side by side and not in turns

and of those four kinds of step

* _of_floor       the share of the time that the step's FLOPs (torch.utils.flop_counter) would take at the rate of a
                  large product of matrices in the same precision, measured in the same run
* _first_s        what the first step, the first with fewer images and the first evaluation take more than the next:
                  what a trial's first epoch takes more than its second

Captured says what launches cost, compiled what fusing kernels saves, and graphed is what a trial can have of both.
Each network is measured in processes of its own, so that one that fails is a line that says so. On a GPU all networks
are compiled at once, which shortens the run and lengthens their `first_s`; they are timed one after the other. Whatever
is left when the budget is spent says that; the cheap and most telling figures come first. Where there is no GPU, what
needs one says so.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from _report import emit, parse_arguments
from _steps import CLASSES, IMAGE_SIZE, NETWORKS, Compile, Step, flops_an_image, matmul_flops, steady_s, wait_for

from raysweep.errors import Interrupted
from raysweep.vision.config import ModelConfig, TrialConfig
from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.device import resolve_device, resolve_precision
from raysweep.vision.loop import train
from raysweep.worker.process import keep_freed_memory

SPAWN = multiprocessing.get_context("spawn")
NEEDS_GPU, NO_TIME = "needs a GPU", "no time left"
TRIALS = (1, 2, 4)
STARTS_WITHIN_S = 60.0
"""Longest wait for a process that imports torch and finds its device."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    device: torch.device
    networks: tuple[str, ...]
    batch: int
    seconds: float  # of a kind of step; twice as many for trials side by side
    quick: bool
    ends_at: float  # on time.monotonic's clock, which processes of one machine share

    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self.ends_at - time.monotonic()

    @property
    def is_gpu(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device.type == "cuda"

    @property
    def side_by_side(self) -> tuple[str, ...]:
        """The networks of trials at once: one that waits for launches, and on a GPU one that computes."""
        wanted = ("baseline_block", "resnet50") if self.is_gpu else ("baseline_block",)
        return tuple(network for network in wanted if network in self.networks)


@dataclass
class Rows:
    """The figures so far, and notes, as why others are missing; each is printed as it comes."""

    figures: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float | str) -> None:
        """Add a figure, or why there is none."""
        if isinstance(value, str):
            self.notes[name] = value
        else:
            self.figures[name] = value
        said = value if isinstance(value, str) else f"{value:.4g}"
        print(f"  {name:<48} {said}", file=sys.stderr, flush=True)

    def lack(self, names: list[str], why: str) -> None:
        """Say of each that has no row yet why."""
        for name in names:
            if name not in self.figures and name not in self.notes:
                self.add(name, why)


# ---------------------------------------------------------------------------------------------------------
# One network, in a process of its own

Say = Callable[[str, float | str], None]


def measure_eager(say: Say, plan: Plan, network: str, flops_per_s: float) -> Iterator[None]:
    """Eager and captured steps, and `train`."""
    yield
    flops_s = flops_an_image(ModelConfig(name=NETWORKS[network])) * plan.batch / flops_per_s
    step = Step(ModelConfig(name=NETWORKS[network]), plan.batch, plan.device)
    say(f"{network}_eager_first_s", step.first_s())
    eager_s = _say_steady(say, plan, f"{network}_eager", step, flops_s)
    with _told(say, f"{network}_captured"):
        _say_captured(say, plan, network, flops_s)
    with _told(say, f"{network}_train"):
        rate = train_images_per_s(plan, network, eager_s)
        say(f"{network}_train_images_per_s", rate)
        say(f"{network}_train_to_eager", plan.batch / rate / eager_s)


def measure_compiled(say: Say, plan: Plan, network: str, flops_per_s: float) -> Iterator[None]:
    """Steps of what torch.compile makes, with CUDA graphs and without, and `train` with them."""
    flops_s = flops_an_image(ModelConfig(name=NETWORKS[network])) * plan.batch / flops_per_s
    ways: dict[str, Compile] = {"compiled": True, **({"graphed": "reduce-overhead"} if plan.is_gpu else {})}
    steps: dict[str, Step] = {}
    for way, compile in ways.items():
        with _told(say, f"{network}_{way}"):
            step = Step(ModelConfig(name=NETWORKS[network]), plan.batch, plan.device, compile)
            say(f"{network}_{way}_first_s", step.first_s())
            steps[way] = step
    yield
    step_s = 0.1
    for way, step in steps.items():
        with _told(say, f"{network}_{way}"):
            step_s = _say_steady(say, plan, f"{network}_{way}", step, flops_s)
            step.release()
    if "graphed" in ways:
        with _told(say, f"{network}_train_graphed"):
            rate = train_images_per_s(plan, network, step_s, "reduce-overhead")
            say(f"{network}_train_graphed_images_per_s", rate)
            say(f"{network}_train_to_graphed", plan.batch / rate / step_s)


def _say_steady(
    say: Say, plan: Plan, name: str, step: Step, flops_s: float, run: Callable[[], object] | None = None
) -> float:
    """Measure steps that are no longer the first; return the seconds of one."""
    step_s = steady_s(step, plan.seconds, run)
    say(f"{name}_images_per_s", plan.batch / step_s)
    say(f"{name}_of_floor", flops_s / step_s)
    return step_s


def _say_captured(say: Say, plan: Plan, network: str, flops_s: float) -> None:
    """Measure steps that are replayed as one CUDA graph each."""
    if not plan.is_gpu:
        say(f"{network}_captured", NEEDS_GPU)
        return
    step = Step(ModelConfig(name=NETWORKS[network]), plan.batch, plan.device)
    began = time.perf_counter()
    graph = captured(step)
    wait_for(plan.device)
    say(f"{network}_captured_first_s", time.perf_counter() - began)
    _say_steady(say, plan, f"{network}_captured", step, flops_s, graph.replay)


def captured(step: Step) -> torch.cuda.CUDAGraph:
    """Return a whole step, the update included, as one CUDA graph."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # as torch asks before a capture: libraries choose, buffers are made
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    step.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()
    return graph


def random_images(count: int, batch: int) -> DataSet:
    """Images to train on, and a batch to evaluate."""

    def split(count: int) -> Split:
        pixels = torch.randint(0, 256, (count, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
        return Split(pixels, torch.randint(0, CLASSES, (count,)))

    names = tuple(map(str, range(CLASSES)))
    return DataSet("random", split(count), split(batch), None, names, (0.5,) * 3, (0.25,) * 3, "-")


def config_of(network: str, batch: int, compile: Compile = False) -> TrialConfig:
    return TrialConfig(
        model=ModelConfig(name=NETWORKS[network]),
        batch_size=batch,
        epochs=100_000,
        lr=0.01,
        lr_schedule={"name": "constant"},
        augment="shift",
        compile=compile,
    )


def train_images_per_s(plan: Plan, network: str, step_s: float, compile: Compile = False) -> float:
    """Images a second, the median of three epochs, without the evaluation; a step takes about so many seconds."""
    steps = max(2, min(400, int(plan.seconds / 2 / step_s)))
    epochs = train(config_of(network, plan.batch, compile), random_images(steps * plan.batch, plan.batch), seed=0)
    rates = [next(epochs).metrics["images_per_s"] for _ in range(4)]
    epochs.close()
    return statistics.median(rates[1:])


def _set_up(plan: Plan) -> None:
    """Make this process what a trial's is."""
    keep_freed_memory()
    if not plan.is_gpu:
        torch.set_num_threads(1)


@contextmanager
def _told(say: Say, name: str) -> Iterator[None]:
    """Make a line of what goes wrong in the block, and go on after it."""
    try:
        yield
    except Exception as error:
        say(name, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


# ---------------------------------------------------------------------------------------------------------
# Several trials at once


def trial(orders: Connection, plan: Plan, barrier: dict[int, Barrier]) -> None:
    """Train as one of several whenever told a network and how many there are; answer images a second."""
    _set_up(plan)
    data = random_images(100 * plan.batch, plan.batch)
    torch.zeros(1, device=plan.device)
    orders.send(None)
    while (order := orders.recv()) is not None:
        network, count = order
        try:
            orders.send(_rate_beside_others(plan, network, data, barrier[count]))
        except Exception as error:
            barrier[count].abort()
            orders.send(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200])


def _rate_beside_others(plan: Plan, network: str, data: DataSet, barrier: Barrier) -> float:
    """Train until all have warmed up, then for so many seconds; return the images a second of the latter."""
    steps, warm = 0, 3 if plan.is_gpu else 1
    began = ends = taken = 0.0

    def should_stop() -> bool:
        nonlocal steps, began, ends, taken
        steps += 1
        if steps == warm + 1:
            wait_for(plan.device)
            barrier.wait(STARTS_WITHIN_S)
            began = time.perf_counter()
            ends = began + 2 * plan.seconds
        if steps <= warm + 1 or time.perf_counter() < ends:
            return False
        wait_for(plan.device)
        taken = time.perf_counter() - began
        return True

    try:
        for _ in train(config_of(network, plan.batch), data, seed=0, should_stop=should_stop):
            pass
    except Interrupted:
        pass
    return (steps - warm - 1) * plan.batch / taken


def measure_trials(rows: Rows, plan: Plan, suffix: str) -> None:
    """Measure 1, 2 and 4 trials at once of each network, in processes that start once."""
    counts = TRIALS[:2] if plan.quick else TRIALS
    names = [f"{network}_trials_{count}{suffix}_images_per_s" for network in plan.side_by_side for count in counts]
    if names and plan.left_s() < 10:
        return rows.lack(names, NO_TIME)
    barriers = {count: SPAWN.Barrier(count) for count in counts}
    pipes, processes = [], []
    for _ in range(max(counts)):
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=trial, args=(theirs, plan, barriers), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            _answer(pipe, STARTS_WITHIN_S)
        for network in plan.side_by_side:
            for count in counts:
                barriers[count].reset()  # one that failed has broken it
                rows.add(f"{network}_trials_{count}{suffix}_images_per_s", _together(plan, pipes[:count], network))
    except (EOFError, OSError, TimeoutError) as error:
        rows.lack(names, f"a process ended or hung: {error or type(error).__name__}")
    finally:
        for process in processes:
            process.kill()
            process.join()


def _together(plan: Plan, pipes: list[Connection], network: str) -> float | str:
    """Return the images a second of all these trials together, or what went wrong."""
    if plan.left_s() < 10 + 2 * plan.seconds:
        return NO_TIME
    for pipe in pipes:
        pipe.send((network, len(pipes)))
    answers = [_answer(pipe, STARTS_WITHIN_S + 4 * plan.seconds) for pipe in pipes]
    wrong = [answer for answer in answers if isinstance(answer, str)]
    telling = [answer for answer in wrong if not answer.startswith("BrokenBarrier")]
    return (telling or wrong)[0] if wrong else sum(answers)


def _answer(pipe: Connection, seconds: float) -> Any:
    if not pipe.poll(seconds):
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return pipe.recv()


@contextmanager
def mps() -> Iterator[None]:
    """NVIDIA's Multi-Process Service, for the processes that start inside the block."""
    with tempfile.TemporaryDirectory() as folder:
        places = {f"CUDA_MPS_{kind}_DIRECTORY": str(Path(folder, kind.lower())) for kind in ("PIPE", "LOG")}
        for place in places.values():
            Path(place).mkdir()
        before = dict(os.environ)
        os.environ.update(places)
        try:
            subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, timeout=20, stdout=sys.stderr)
            try:
                yield
            finally:
                subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, timeout=60, stdout=sys.stderr)
        finally:
            for name in places:
                os.environ.pop(name)
                if name in before:
                    os.environ[name] = before[name]


def measure_all_trials(rows: Rows, plan: Plan) -> None:
    """Trials at once, without and with MPS."""
    if not plan.side_by_side:
        return None
    measure_trials(rows, plan, "")
    names = [f"{network}_trials_mps" for network in plan.side_by_side]
    if not plan.is_gpu:
        return rows.lack(names, NEEDS_GPU)
    if shutil.which("nvidia-cuda-mps-control") is None:
        return rows.lack(names, "no MPS here: there is no nvidia-cuda-mps-control")
    try:
        with mps():
            measure_trials(rows, plan, "_mps")
    except (OSError, subprocess.SubprocessError) as error:
        rows.lack(names, f"no MPS here: {error}")
    return None


# ---------------------------------------------------------------------------------------------------------
# All of it


def measure_rate(say: Say, plan: Plan) -> Iterator[None]:
    """The precision, and the rate of a large product of matrices in it."""
    yield
    is_bf16 = resolve_precision(TrialConfig(), plan.device) == "bf16"
    say("precision", "bf16" if is_bf16 else "fp32")
    say("matmul_tflop_per_s", matmul_flops(plan.device, is_bf16) / 1e12)


class Worker:
    """A process that measures one thing: it prepares at once, and measures when it is told that it is alone."""

    def __init__(self, rows: Rows, plan: Plan, what: str, work: Callable[..., Iterator[None]], *arguments: Any) -> None:
        self.rows, self.plan, self.what = rows, plan, what
        self.is_over = plan.left_s() < 5
        if self.is_over:
            rows.add(self.what, NO_TIME)
            return
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(theirs, what, work, plan, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def go_on(self, until: float, is_alone: bool = False) -> None:
        """Take its rows until it is ready, or where it `is_alone`, all the rest of them; end it if it takes longer."""
        if self.is_over:
            return
        try:
            if is_alone:
                self.pipe.send(None)
            while row := _answer(self.pipe, max(1.0, until - time.monotonic())):
                self.rows.add(*row)
            self.is_over = row is None
        except TimeoutError:
            self._end(f"{NO_TIME}: ended before it was done")
        except (EOFError, OSError):
            self.process.join(10)
            self._end(f"its process ended with code {self.process.exitcode}")
        if self.is_over:
            self._end()

    def _end(self, why: str | None = None) -> None:
        self.is_over = True
        if why is not None:
            self.rows.add(self.what, why)
        self.process.kill()
        self.process.join()


def _work(
    pipe: Connection, what: str, work: Callable[..., Iterator[None]], plan: Plan, arguments: tuple[Any, ...]
) -> None:
    """Send rows; () when ready; None at the end."""
    torch.backends.cudnn.benchmark = True  # as the loop has it
    _set_up(plan)

    def say(name: str, value: float | str) -> None:
        pipe.send((name, value))

    with _told(say, what):
        for _ in work(say, plan, *arguments):
            pipe.send(())
            pipe.recv()
    pipe.send(None)


def measure_everything(rows: Rows, plan: Plan) -> None:
    """Everything, the cheap and most telling figures first."""
    _one_by_one(Worker(rows, plan, "matmul", measure_rate))
    flops_per_s = rows.figures.get("matmul_tflop_per_s", float("nan")) * 1e12
    for network in plan.networks:
        _one_by_one(Worker(rows, plan, f"{network}_eager", measure_eager, network, flops_per_s))
    measure_all_trials(rows, plan)

    def compiling(*networks: str) -> list[Worker]:
        return [Worker(rows, plan, f"{each}_compiled", measure_compiled, each, flops_per_s) for each in networks]

    if plan.quick:
        rows.lack([f"{network}_compiled" for network in plan.networks], "left out by --quick")
    elif plan.is_gpu:
        _one_by_one(*compiling(*plan.networks))
    else:
        for network in plan.networks:
            _one_by_one(*compiling(network))
    if not plan.is_gpu:
        rows.lack([f"{network}_graphed" for network in plan.networks], NEEDS_GPU)


def _one_by_one(*workers: Worker) -> None:
    """Wait until all of them are ready, for most of the time that is left, then let each measure alone."""
    ends_at = workers[0].plan.ends_at
    ready_by = ends_at - (ends_at - time.monotonic()) / 4
    for worker in workers:
        worker.go_on(ready_by)
    for worker in workers:
        worker.go_on(ends_at, is_alone=True)


def add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cuda or cpu")
    parser.add_argument("--batch", type=int, help="images of a step (128; 16 on a CPU)")
    parser.add_argument("--budget", type=float, default=460.0, help="seconds after which no figure is begun (460)")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this one; may be repeated")


def main() -> None:
    arguments = parse_arguments(__doc__, add_own)
    device = resolve_device(arguments.device)
    is_gpu = device.type == "cuda"
    networks = tuple(arguments.network or (list(NETWORKS)[:1] if arguments.quick else NETWORKS))
    plan = Plan(
        device,
        networks,
        arguments.batch or (128 if is_gpu else 16),
        seconds=0.3 if arguments.quick else 2.0,
        quick=arguments.quick,
        ends_at=time.monotonic() + arguments.budget,
    )
    rows = Rows()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # begins empty
        if is_gpu:  # for networks that are compiled at once
            threads = max(1, (os.cpu_count() or 1) // len(networks))
            os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
        measure_everything(rows, plan)
    emit("gpu", rows.figures, {}, arguments, rows.notes)


if __name__ == "__main__":
    main()
