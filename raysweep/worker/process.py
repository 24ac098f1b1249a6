"""Makes a process of the cluster ready for raysweep's work.

It is done by calls, not by a runtime environment of Ray's: Tune gives none to the processes that it starts, and Ray
would start a new process for a task that has one, where another would do that has imported torch already.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping, Sequence

import torch

from raysweep.registry import import_modules

KEPT_BYTES = 2**30
_THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""glibc's parameters M_TRIM_THRESHOLD and M_MMAP_THRESHOLD (mallopt(3)), by the variables that also set them."""


def set_up_process(
    imports: Sequence[str], threads: int, device: str, variables: Mapping[str, str] | None = None
) -> None:
    """Import the user's modules, compute with so many CPU threads, and look for data where the driver is told to.

    If the device is the CPU, this process sees no GPU: Ray leaves all of the node's visible to one that has none.
    """
    os.environ.update(variables or {})
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import_modules(imports)
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process keep freed memory of up to KEPT_BYTES for the next tensors, unless the user has set it.

    By default glibc hands every large tensor's memory back to the kernel, which zeroes it page by page for the next
    one: a quarter of the processor time of a small network's training on a CPU. Does nothing under another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for variable, parameter in _THRESHOLDS.items():
        if variable not in os.environ:
            libc.mallopt(parameter, KEPT_BYTES)
