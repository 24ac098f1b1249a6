"""The memory that this machine has for data sets: in Ray's object store, as Ray would size it, and on GPUs.

No Ray, no torch: `raysweep plan` has no time for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

Number = TypeVar("Number", int, float)

SHARE_OF_MEMORY = 0.3
MOST_BYTES = 200 * 10**9
LEAST_CAP_BYTES = 10**10
SHARE_OF_SHM = 0.95
"""Ray's rule, with its defaults: `resolve_object_store_memory` in ray/_private/utils.py."""
CGROUPS = {
    "memory/memory.limit_in_bytes": ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_"),
    "memory.max": ("memory.current", "memory.stat", ""),
}
"""Files of a container's limit on memory, of its use, and of what of that the kernel would give up; version 1 and 2."""
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")
NVIDIA_SMI_S = 3


@dataclass(frozen=True)
class Memory:
    """Memory of some kind, in bytes."""

    free: int
    total: int


def object_store_bytes() -> int:
    """Return the size of the object store that Ray would make here now, where nobody gives it one.

    That is 30 % of the memory that is free, at most 95 % of /dev/shm if that has more than 10 GB, at most 200 GB.
    """
    share = _from_environment("RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION", SHARE_OF_MEMORY)
    most = _from_environment("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", MOST_BYTES)
    with suppress(OSError):
        shm = os.statvfs("/dev/shm")
        most = min(most, max(LEAST_CAP_BYTES, int(SHARE_OF_SHM * shm.f_frsize * shm.f_blocks)))
    return min(most, int(share * memory().free))


def _from_environment(name: str, default: Number) -> Number:
    """Return a number that the environment sets; the default, as Ray does, where that is not one of its type."""
    with suppress(KeyError, ValueError):
        return type(default)(os.environ[name])
    return default


def memory() -> Memory:
    """Return this machine's memory, or its container's, as Ray counts it: what files are cached in is free."""
    whole = psutil.virtual_memory()
    for limit, (usage, stat, prefix) in CGROUPS.items():
        root = Path("/sys/fs/cgroup")
        with suppress(OSError, ValueError, KeyError):
            known = dict(line.split() for line in (root / stat).read_text().splitlines())
            cached = sum(int(known[f"{prefix}{kind}_file"]) for kind in ("inactive", "active"))
            most = (root / limit).read_text().strip()
            total = min(whole.total, int(most)) if most != "max" else whole.total
            return Memory(total - (int((root / usage).read_text()) - cached), total)
    return Memory(whole.total - whole.used, whole.total)


def gpus() -> list[Memory]:
    """Return the memory of each of NVIDIA's GPUs here that CUDA_VISIBLE_DEVICES does not hide.

    It is as NVIDIA's own command tells; none where that cannot say, so there may be GPUs even so.
    """
    if shutil.which(NVIDIA_SMI[0]) is None:
        return []
    try:
        told = subprocess.check_output(NVIDIA_SMI, stderr=subprocess.DEVNULL, timeout=NVIDIA_SMI_S, text=True)
        here = [(index, uuid, numbers) for index, uuid, *numbers in (line.split(", ") for line in told.splitlines())]
        visible = [numbers for index, uuid, numbers in here if _is_visible(index, uuid)]
        return [Memory(int(free) * 2**20, int(total) * 2**20) for free, total in visible]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _is_visible(index: str, uuid: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES names a GPU, by its number or by how its id begins; where it is unset, all are."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return True
    return any(each and (each == index or uuid.startswith(each)) for each in map(str.strip, named.split(",")))
