"""W&B's `early_terminate`: Hyperband's bands of iterations, as the rungs of `scheduler: asha`."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from pydantic.functional_validators import model_validator

from raysweep.config import Config


class EarlyTerminate(Config):
    """The section `early_terminate` of a W&B sweep."""

    type: Literal["hyperband"]
    min_iter: PositiveInt | None = None
    max_iter: PositiveInt | None = None
    s: PositiveInt | None = None
    eta: Annotated[float, Field(gt=1)] = 3
    strict: bool = False

    @model_validator(mode="after")
    def _has_bands(self) -> EarlyTerminate:
        if self.min_iter is None and (self.max_iter is None or self.s is None):
            raise ValueError("needs min_iter, or max_iter and s")
        return self


def asha_of(early: EarlyTerminate, epochs: int, how: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the scheduler for trials of so many epochs, none if no band lies inside; and what it does otherwise.

    `how` says, in words, whence the epochs are known. The bands are those of W&B's own code, `hyperband_stopping.py` in
    github.com/wandb/sweeps.
    """
    bands = sorted({band for band in _bands(early, epochs) if band < epochs})
    if not bands:
        return {}, [f"its first band comes after the end of {epochs} epochs{how}, so no trial is stopped early"]
    eta = max(2, round(early.eta))
    differs = [
        f"its bands, {', '.join(map(str, bands))}, are rungs of {epochs} epochs{how}: W&B counts how often a run logs "
        "its metric, raysweep takes fractions of each trial's own epochs",
        "W&B compares a run with those that have logged so far, raysweep with the whole sweep, whoever comes first; "
        "at least min_survivors (4) go on",
    ]
    if eta != early.eta:
        differs.append(f"eta {early.eta:g} is {eta}: one in a whole number goes on")
    if early.strict:
        differs.append("strict has no counterpart")
    return {"name": "asha", "eta": eta, "rungs": [str(Fraction(band, epochs)) for band in bands]}, differs


def _bands(early: EarlyTerminate, epochs: int) -> Iterator[int]:
    if early.max_iter is not None and early.s is not None:
        band = float(early.max_iter)
        for _ in range(early.s):
            band /= early.eta
            if band < 1:
                return
            yield int(band)
        return
    band = float(early.min_iter or 1)
    while band < epochs:
        yield int(band)
        band *= early.eta
