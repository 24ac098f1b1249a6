"""Other tools' searches as sweep files. In: a file of W&B's or Optuna's. Out: a sweep file's text, and what differs."""

from __future__ import annotations

from dataclasses import dataclass

from raysweep.errors import SweepFileError
from raysweep.sweepfile.convert.choose import check_new_loop, choose_loop
from raysweep.sweepfile.convert.optuna import is_optuna, read_optuna
from raysweep.sweepfile.convert.python import loop_module
from raysweep.sweepfile.convert.wandb import read_wandb
from raysweep.sweepfile.convert.write import sweep_text
from raysweep.sweepfile.document import read_document
from raysweep.terminal import some_of

EXPECTED = "must be a mapping: a W&B sweep file has `method` and `parameters`, an Optuna space a distribution by name"
NEITHER = (
    'is neither a W&B sweep file, with `method` and `parameters`, nor an Optuna space, {"NAME": DISTRIBUTION}, each as '
    "optuna.distributions.distribution_to_json returns it"
)


@dataclass(frozen=True)
class Converted:
    """A sweep file made of another tool's."""

    text: str
    notes: list[str]  # what has no counterpart, each with its place in the other file
    module: str  # the Python that the loop of the user's own begins with; empty where there is a loop
    trials: int


def convert(path: str, samples: int | None = None, loop: str = "") -> Converted:
    """Return the sweep file that another tool's file comes to.

    Args:
        path: a W&B sweep file, or an Optuna space as JSON.
        samples: how many configs to draw, instead of what the file says; needed where it does not say.
        loop: the name of the loop that trains; default: `classify` where it has all the keys, else one that is to be
            written.

    Raises:
        SweepFileError: it is no such file, or cannot be converted; all faults at once, each with its line.
    """
    source = read_document(path, EXPECTED)
    if not is_optuna(source) and not source.values.keys() & {"method", "parameters"}:
        raise SweepFileError(f"{path}:1: {NEITHER}; got {some_of([*source.values])}")
    space = read_optuna(source, samples) if is_optuna(source) else read_wandb(source, samples)
    is_new = choose_loop(space, loop)
    module = ""
    if is_new:
        if problems := space.both_value_and_section():
            raise SweepFileError(*problems)
        module = loop_module(space)
        check_new_loop(space, module)
    return Converted(sweep_text(space, module), space.notes, module, space.trials)
