"""Memory that a trial's process frees and takes again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from raysweep.worker.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def step():
    torch.zeros(8 * 2**20).add_(1)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(
    ("how", "variables", "are_few"),
    [("kept", {}, True), ("given back", {}, False), ("kept", {"MALLOC_MMAP_THRESHOLD_": "1000000"}, False)],
    ids=["kept", "by default", "as the user has it"],
)
def test_memory_of_tensors_is_taken_from_the_kernel_once(how: str, variables: dict[str, str], are_few: bool) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    words = [sys.executable, "-c", FAULTS, how]
    faults = int(subprocess.run(words, env={**plain, **variables}, capture_output=True, check=True, text=True).stdout)
    assert (faults < 20 * 8192 / 2) == are_few  # 20 tensors of 8192 pages
