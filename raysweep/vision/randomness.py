"""Every random number of a trial comes from a generator seeded by a stable hash of what it is for.

`generator(device, "augment", seed, epoch, step)` gives the same numbers in every process, on every run and after
every resume; nothing consumes torch's global generator except what runs inside `seeded`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence

import torch
from torch.backends import cudnn

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable without which torch does not trust cuBLAS to be deterministic."""


def stable_seed(*key: str | int) -> int:
    """Return a seed in 0 .. 2^63 - 1 that depends on nothing but `key` (BLAKE2b of its text)."""
    text = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(device: torch.device | str, *key: str | int) -> torch.Generator:
    """Return a generator on `device`, seeded by `key`."""
    return torch.Generator(device).manual_seed(stable_seed(*key))


@contextlib.contextmanager
def seeded(device: torch.device, *key: str | int, states: Sequence[torch.Tensor] | None = None) -> Iterator[None]:
    """Seed torch's global generators (CPU, and `device`'s) by `key` inside the block, and put them back after.

    For what cannot be given a generator: a network's initial weights and its dropout. With the `generator_states` from
    an earlier block of that key, its numbers go on.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        seed = stable_seed(*key)
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if states is not None:
            torch.set_rng_state(states[0])
            if cuda and len(states) > 1:  # a state that was saved on a CPU has none
                torch.cuda.set_rng_state(states[1], device)
        yield


def generator_states(device: torch.device) -> list[torch.Tensor]:
    """Return where torch's global generators stand: the CPU's, and `device`'s."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Use deterministic algorithms alone inside the block, if `wanted`; the process then goes on as it was.

    An operation without such an algorithm raises RuntimeError, which names it. If they are not wanted, cuDNN times its
    algorithms for each new shape, and takes the fastest; a trial has a handful of shapes.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
        cudnn.benchmark = not (wanted or torch.are_deterministic_algorithms_enabled())
        if not wanted:
            yield
            return
        warned = torch.is_deterministic_algorithms_warn_only_enabled()
        undo.callback(
            torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled(), warn_only=warned
        )
        undo.callback(setattr, cudnn, "deterministic", cudnn.deterministic)
        if CUBLAS not in os.environ:
            undo.callback(os.environ.pop, CUBLAS)
            os.environ[CUBLAS] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic = True
        yield
