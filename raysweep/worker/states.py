"""What an epoch leaves: the bytes of a commit's `last`, which a trial goes on from, and of the best epoch's `best`."""

from __future__ import annotations

import contextlib
import io
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from raysweep.errors import UserError
from raysweep.loops import Epoch, GeneratorLoop, Loop
from raysweep.results.evidence import pack as pack_correct
from raysweep.store.folders import is_folder, unpack
from raysweep.store.folders import pack as pack_folder

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
    buffer = io.BytesIO()
    torch.save(epoch.state(), buffer)
    if isinstance(loop, GeneratorLoop):
        _check_state(buffer.getvalue(), loop.name)
    return buffer.getvalue()


def _check_state(data: bytes, loop: str) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="meta")
    except pickle.UnpicklingError as error:
        raise UserError(
            f"loop {loop!r}: Epoch.state: can hold tensors, numbers, texts, lists and dicts, and nothing else: "
            f"{str(error).splitlines()[0]}"
        ) from error


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
        """Return copies on the CPU of what an epoch leaves, of its averaged weights if it has any."""
        given = (averaged and epoch.ema_weights) or epoch.weights
        correct = (averaged and epoch.ema_correct) or epoch.correct
        weights = (
            {name: each.detach().to("cpu", copy=True).contiguous() for name, each in given().items()} if given else None
        )
        folder = pack_folder(epoch.checkpoint) if epoch.checkpoint else None
        return cls(weights, folder, correct().cpu().bool() if correct else None)

    def files(self) -> dict[str, bytes]:
        """Return it as files of a commit."""
        weights = {} if self.weights is None else {"best": save_safetensors(self.weights)}
        weights |= {} if self.folder is None else {"best": self.folder}
        return weights if self.correct is None else {**weights, "correct": pack_correct(self.correct.numpy())}
