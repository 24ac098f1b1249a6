"""
A GPU that is not there: tensors on `cuda` that have shapes and no numbers, and what would make a program wait for them.

torch's FakeTensorMode computes shapes, types and devices of tensors on a device that this machine lacks, without its
driver. Tensors on the CPU stay real here. Whatever a real GPU would have to be waited for raises `Waits`: a number that
is asked for (`.item()`, `if tensor:`), a shape that depends on numbers (`nonzero`, a mask as an index), and a copy from or
to memory that is not pinned. The backward pass needs a real device, and is left out.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raysweep.vision.augment import geometry, operation

aten = torch.ops.aten
CUDA = torch.device("cuda")
WITHOUT_FAKES = (aten._fused_sgd_.default,)
"""What torch has no fake of; they change tensors in place, and wait for nothing."""


class Waits(Exception):
    """A program would wait for the GPU here."""


class FakeCuda(TorchDispatchMode):
    """Inside the block, and inside one of FakeTensorMode, tensors on `cuda` are fake, and those on the CPU are real."""

    def __init__(self) -> None:
        super().__init__()
        self._pinned: dict[int, torch.UntypedStorage] = {}
        self._patient = self._all = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if func is aten._pin_memory.default:
            return self._pin(*args)
        if func is aten.is_pinned.default:
            return self._is_pinned(args[0])
        is_fake = any(isinstance(each, FakeTensor) for each in tensors)
        if not self._all and not is_fake and torch.device(kwargs.get("device") or "cpu").type != "cuda":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if not self._patient:
            self._check(func, args, kwargs)
        if func in WITHOUT_FAKES:
            assert {each.device.type for each in tensors} == {"cuda"}, f"{func}: a tensor that is not on the GPU"
            return None
        try:
            return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise Waits(f"{func}: the host asks for numbers that the GPU has yet to compute") from error

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        """Raise Waits for what fake tensors let pass, and a GPU does not."""
        if func is aten._to_copy.default:
            target = kwargs.get("device") or args[0].device
            self._check_copy(func, args[0], target, kwargs.get("non_blocking", False))
        elif func is aten.copy_.default:
            self._check_copy(func, args[1], args[0].device, args[2] if len(args) > 2 else False)
        elif func in (aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default):
            masks = [each for each in args[1] if each is not None and each.dtype in (torch.bool, torch.uint8)]
            if masks and args[2].numel() != 1:  # of a single value it is a masked_fill
                raise Waits(f"{func}: a mask as an index, which is counted first")

    def _check_copy(self, func: Any, source: torch.Tensor, target: torch.device, non_blocking: bool) -> None:
        if source.device.type == torch.device(target).type:
            return
        if source.device.type == "cpu" and non_blocking and self._is_pinned(source):
            return
        raise Waits(f"{func}: a copy of {tuple(source.shape)} from {source.device} to {target} that blocks")

    def _pin(self, tensor: torch.Tensor, device: object = None) -> torch.Tensor:
        with unset_fake_temporarily():
            pinned = tensor.clone()
        self._pinned[pinned.untyped_storage().data_ptr()] = pinned.untyped_storage()  # kept, so that none has its address
        return pinned

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, FakeTensor) and tensor.untyped_storage().data_ptr() in self._pinned

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Let the program wait in the block, as it may at the beginning and at the end of an epoch."""
        self._patient, before = True, self._patient
        try:
            yield
        finally:
            self._patient = before

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[None]:
        """Let tensors made on the CPU in the block be fake, too, since to fill a large network with numbers takes long."""
        self._all = True
        try:
            yield
        finally:
            self._all = False


class FakeGenerator(torch.Generator):
    """A generator that says that it is on the device it was asked for."""

    def __new__(cls, device: torch.device | str = "cpu") -> FakeGenerator:
        made = super().__new__(cls, "cpu")
        made.named = torch.device(device)
        return made

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:
        return self.named


def _apply(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
    """Do what nn.Module._apply does, which swaps parameters in a way that fake ones cannot be."""
    for child in module.children() if recurse else ():
        child._apply(change)
    with torch.no_grad():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(change(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = change(buffer)
    return module


def _deepcopy(tensor: torch.Tensor, memo: dict[int, torch.Tensor]) -> torch.Tensor:
    """Copy a fake parameter or buffer; torch's own deepcopy of fakes corrupts the heap."""
    copied = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        copied = nn.Parameter(copied, tensor.requires_grad)
    return memo.setdefault(id(tensor), copied)


@contextlib.contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Put a fake GPU into this process; what it has made must not be used after the block."""
    caches = (geometry._pixel_centres,)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(FakeTensor, "__deepcopy__", _deepcopy)
        patch.setattr(torch, "Generator", FakeGenerator)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        for cache in caches:
            cache.cache_clear()
        try:
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # torch does, in deepcopy
            with FakeTensorMode(allow_non_fake_inputs=True), FakeCuda() as cuda:
                yield cuda
        finally:
            for cache in caches:
                cache.cache_clear()
