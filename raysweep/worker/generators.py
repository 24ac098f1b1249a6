"""The generators that a loop draws from unasked: torch's, on each device, NumPy's and Python's.

`loops.seed_generators` seeds them; `generator_states` notes where they are, `restore_generators` puts them back there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def generator_states() -> dict[str, Any]:
    """Return the states of all generators, for torch.save and a torch.load of weights only."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, normal = random.getstate()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {
        "torch": torch.get_rng_state(),
        "cuda": on_gpus,
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), normal],
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    """Put all generators where `generator_states` found them; those of GPUs that are not here are left out."""
    keys, position, has_gauss, gauss = states["numpy"]
    version, words, normal = states["python"]
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate((version, tuple(words), normal))
