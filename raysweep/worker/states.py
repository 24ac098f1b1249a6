"""What an epoch leaves: the bytes of a commit's `last`, which a trial goes on from, and of the best epoch's `best`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors

from raysweep.errors import UserError
from raysweep.loops import Epoch, GeneratorLoop, Loop
from raysweep.results.evidence import pack as pack_correct
from raysweep.store.folders import is_folder, unpack
from raysweep.store.folders import pack as pack_folder

ROOM_FOR_BEST = 4
"""The best weights stay on a GPU until the next commit if it has room for so many of them: training may need more."""
GENERATORS = "generators"
"""The key of a state that holds where the generators of a Ray Train function stand."""
STATE = ".raysweep-state.pt"
"""The file of a packed folder that holds the epoch's state."""


def state_of(epoch: Epoch, loop: Loop) -> dict[str, bytes]:
    """Return what a trial can go on from after an epoch, as a file of a commit; nothing if the loop gives none.

    Raises:
        UserError: it could be saved, but not loaded.
    """
    if epoch.checkpoint is not None:
        return {"last": pack_folder(epoch.checkpoint, {STATE: _saved(epoch, loop)} if epoch.state else {})}
    return {"last": _saved(epoch, loop)} if epoch.state else {}


def _saved(epoch: Epoch, loop: Loop) -> bytes:
    assert epoch.state is not None
    state, buffer = epoch.state(), io.BytesIO()
    try:
        torch.save(state, buffer)
        if isinstance(loop, GeneratorLoop):
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True, map_location="meta")
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise UserError(
            f"loop {loop.name!r}: Epoch.state: {_foreign(state) or 'something in it'} cannot be loaded again safely; "
            "it can hold tensors, numbers, texts, lists and dicts (an array by torch.from_numpy, a number by .item())"
        ) from error
    return buffer.getvalue()


def _foreign(value: Any, way: str = "") -> str | None:
    """Return the way to the first value that a state cannot hold, and its type; None if there is none."""
    if isinstance(value, Mapping):
        return next(filter(None, (_foreign(inner, f"{way}.{key}") for key, inner in value.items())), None)
    if isinstance(value, list | tuple | set):
        return next(filter(None, (_foreign(inner, f"{way}.{place}") for place, inner in enumerate(value))), None)
    if (
        isinstance(value, torch.Tensor | str | bytes | int | float | complex | None)
        and type(value).__module__ != "numpy"
    ):
        return None
    return f"{way[1:] or 'it'} is a {type(value).__module__}.{type(value).__name__}, which"


@contextlib.contextmanager
def going_on_from(last: bytes | None) -> Iterator[tuple[Mapping[str, Any] | None, Path | None]]:
    """Yield the state that was saved, and the folder that was committed, which is there inside the block."""
    if last is None or not is_folder(last):
        yield None if last is None else _loaded(last), None
        return
    with tempfile.TemporaryDirectory(prefix="raysweep-checkpoint-", ignore_cleanup_errors=True) as folder:
        unpack(last, Path(folder))
        state = Path(folder, STATE)
        saved = _loaded(state.read_bytes()) if state.exists() else None
        state.unlink(missing_ok=True)
        yield saved, Path(folder)


def leaves_of(last: bytes) -> dict[str, str]:
    """Return a checksum of each tensor and value that was saved, by its way, as far as it can be read safely.

    Where random generators stand is left out: whether that matters shows in what is drawn.
    """
    with going_on_from(last) as (saved, folder):
        parts = {"state": {name: value for name, value in (saved or {}).items() if name != GENERATORS}}
        for file in sorted(folder.rglob("*")) if folder else ():
            assert folder
            with contextlib.suppress(Exception):  # of any kind, in a file that is none of torch's
                is_safe = file.suffix == ".safetensors"
                parts[file.relative_to(folder).as_posix()] = (
                    load_file(file) if is_safe else torch.load(file, weights_only=True)
                )
        return dict(_leaves(parts, ""))


def _leaves(value: Any, way: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{way}.{key}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{way}.{place}")
    elif isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        yield way[1:], f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}"
    else:
        yield way[1:], repr(value)


def _loaded(data: bytes) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return saved


@dataclass(frozen=True)
class Best:
    """What a best epoch leaves."""

    weights: dict[str, torch.Tensor] | None
    folder: bytes | None  # the packed checkpoint that it reported
    correct: torch.Tensor | None  # which validation examples they got right

    @classmethod
    def of(cls, epoch: Epoch, averaged: bool) -> Best:
        """Return copies, on their device, of what an epoch leaves, of its averaged weights if it has any.

        Most best epochs are overtaken before there is a commit, so their weights never leave a GPU.
        """
        given = (averaged and epoch.ema_weights) or epoch.weights
        correct = (averaged and epoch.ema_correct) or epoch.correct
        weights = _copies(given()) if given else None
        folder = pack_folder(epoch.checkpoint) if epoch.checkpoint else None
        return cls(weights, folder, correct().cpu().bool() if correct else None)

    def files(self) -> dict[str, bytes]:
        """Return it as files of a commit."""
        on_cpu = {name: weight.cpu() for name, weight in (self.weights or {}).items()}
        weights = {} if self.weights is None else {"best": save_safetensors(on_cpu)}
        weights |= {} if self.folder is None else {"best": self.folder}
        return weights if self.correct is None else {**weights, "correct": pack_correct(self.correct.numpy())}


def _copies(weights: Any) -> dict[str, torch.Tensor]:
    if not isinstance(weights, Mapping):
        raise UserError(
            f"Epoch.weights: returned a {type(weights).__name__}; it must return tensors by name (net.state_dict)"
        )
    for name, weight in weights.items():
        if not isinstance(weight, torch.Tensor):
            raise UserError(f"Epoch.weights: {name} is a {type(weight).__name__}; it must be a tensor")
    size = sum(weight.nbytes for weight in weights.values())
    on_gpu = [weight.device for weight in weights.values() if weight.device.type == "cuda"]
    if on_gpu and torch.cuda.mem_get_info(on_gpu[0])[0] < ROOM_FOR_BEST * size:
        return _on("cpu", weights)
    return _on(None, weights)


def _on(device: str | None, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous copies on a device, or each on its own."""
    contiguous = torch.contiguous_format
    return {
        name: weight.detach().to(device or weight.device, memory_format=contiguous, copy=True)
        for name, weight in weights.items()
    }
