"""What a trial goes on from: what an epoch gives in, the bytes of a commit's `last` out; and back."""

from __future__ import annotations

import contextlib
import io
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from raysweep.errors import UserError
from raysweep.loops import Epoch, GeneratorLoop, Loop
from raysweep.store.folders import is_folder, pack, unpack

STATE = ".raysweep-state.pt"
"""The file of a packed folder that holds the epoch's state."""


def state_of(epoch: Epoch, loop: Loop) -> dict[str, bytes]:
    """Return what a trial can go on from after an epoch, as a file of a commit; nothing if the loop gives none.

    Raises:
        UserError: it could be saved, but not loaded.
    """
    if epoch.checkpoint is not None:
        return {"last": pack(epoch.checkpoint, {STATE: _saved(epoch, loop)} if epoch.state else {})}
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
