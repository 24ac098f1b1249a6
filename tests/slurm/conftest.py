"""A Slurm cluster for the tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_hosts import NEEDED, PACKAGES, SlurmHosts


@pytest.fixture
def make_slurm(netns: Path) -> Iterator[Callable[..., SlurmHosts]]:
    """Makes Slurm clusters that are gone after the test, whatever happens."""
    missing = [command for command in NEEDED if shutil.which(command) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} ({PACKAGES})")
    made: list[SlurmHosts] = []

    def make(count: int = 3) -> SlurmHosts:
        made.append(SlurmHosts(netns, count))
        return made[-1]

    yield make
    for hosts in made:
        hosts.close()
