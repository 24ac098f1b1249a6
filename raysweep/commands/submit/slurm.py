"""`raysweep submit --slurm`."""

from __future__ import annotations

import argparse


def submit(arguments: argparse.Namespace) -> int:
    """Not built yet."""
    raise NotImplementedError
