"""What decides the epochs of a trial, so that trials can share those that are the same. No torch, no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Course:
    """What decides a trial's epochs, beside its seed and the conditions that it is trained under.

    Two trials for which these are equal, and `every` and the first k texts of `each`, have the same first k epochs:
    every metric and every weight, bit for bit on one CPU thread.
    """

    every: str
    """What all epochs depend on: the network, the data, the optimizer."""
    each: Sequence[str]
    """What single epochs depend on beside it, such as their learning rates, in order. It may be worked out as asked."""
