"""The loops that train: what raysweep asks of one, and how one of the user's own is made. No torch, no Ray.

* `epoch`      what a loop is told of its trial, and what it yields
* `loop`       what raysweep asks of a loop
* `course`     what decides a trial's epochs, by which trials share them
* `named`      the loops by name
* `own`        `register_loop`, and the loops that it makes of functions
* `checksum`   of the data that a loop has prepared
* `placement`  where that data lies while trials train on it
"""

from raysweep.loops.course import Course
from raysweep.loops.epoch import Epoch, TrialContext, seed_generators
from raysweep.loops.loop import EvaluatingLoop, Loop
from raysweep.loops.named import CLASSIFY, LOOPS, evaluating_loop, loop_named, loop_of
from raysweep.loops.own import GeneratorLoop, TrainFunctionLoop, register_loop
from raysweep.registry import Mode

__all__ = [
    "CLASSIFY",
    "LOOPS",
    "Course",
    "Epoch",
    "EvaluatingLoop",
    "GeneratorLoop",
    "Loop",
    "Mode",
    "TrainFunctionLoop",
    "TrialContext",
    "evaluating_loop",
    "loop_named",
    "loop_of",
    "register_loop",
    "seed_generators",
]
