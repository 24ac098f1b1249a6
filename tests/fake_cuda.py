"""
A GPU that is not there: tensors on `cuda` that have shapes and no numbers, and what makes a program wait for them.

torch's FakeTensorMode computes shapes, types and devices of tensors on a device that this machine lacks, without its
driver; here, tensors on the CPU stay real. What a real GPU would have to be waited for is noted, or raises `Waits`: a
number that is asked for (`.item()`, `if tensor:`), a shape that depends on numbers (`nonzero`, a mask as an index), and
a copy from or to memory that is not pinned. The backward pass needs a real device.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raysweep.vision import feed
from raysweep.vision.augment import geometry, operation

aten = torch.ops.aten
CUDA = torch.device("cuda")
WITHOUT_FAKES = (aten._fused_sgd_.default,)
"""What torch has no fake of: it changes tensors in place, and waits for nothing."""
LARGE = 2**12


class Waits(Exception):
    """The program would wait for the GPU here."""


class FakeCuda(TorchDispatchMode):
    """Within FakeTensorMode: tensors on `cuda` are fake, those on the CPU are real, and `waits` says what waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.stream_log: list[str] = []
        """What was done: `copied` and `event` on a stream of its own, `waited` and `recorded` on the usual one."""
        self._pinned: dict[int, torch.UntypedStorage] = {}
        self._refused = self._hollow = self.on_stream = False

    @contextlib.contextmanager
    def no_waiting(self) -> Iterator[None]:
        """Raise Waits in the block where the program would wait."""
        self._refused = True
        try:
            yield
        finally:
            self._refused = False

    @contextlib.contextmanager
    def hollow(self) -> Iterator[None]:
        """Make large tensors on the CPU fakes, too, in the block: to fill a network with numbers takes long."""
        self._hollow = True
        try:
            yield
        finally:
            self._hollow = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # every second call
            return func(*args)
        if func is aten._pin_memory.default:
            return self._pin(args[0])
        if func is aten.is_pinned.default:
            return self._is_pinned(args[0])
        if kwargs.get("pin_memory"):
            with unset_fake_temporarily():
                return self._pin(func(*args, **{**kwargs, "pin_memory": False}))
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if self._is_real(func, tensors, args, kwargs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        self._check_copies(func, args, kwargs)
        if func in (aten.item.default, aten._local_scalar_dense.default):
            self._wait(f"{func}: a number that the GPU has yet to compute")
            return 0.0 if args[0].is_floating_point() else 0
        if func in WITHOUT_FAKES:
            assert {each.device.type for each in tensors} == {"cuda"}, f"{func}: a tensor that is not on the GPU"
            return None
        try:
            return func(*args, **kwargs)
        except DynamicOutputShapeException as error:
            raise Waits(f"{func}: a shape that depends on numbers of the GPU") from error

    def _is_real(self, func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> bool:
        if any(isinstance(each, FakeTensor) for each in tensors):
            return False
        if self._hollow and func is aten.empty.memory_format and math.prod(args[0]) > LARGE:
            return False
        return torch.device(kwargs.get("device") or "cpu").type != "cuda"

    def _check_copies(self, func: Any, args: Any, kwargs: Any) -> None:
        """Look for what fakes let pass, and a GPU does not."""
        if func is aten._to_copy.default:
            self._check_copy(args[0], kwargs.get("device") or args[0].device, kwargs.get("non_blocking", False))
        elif func is aten.copy_.default:
            self._check_copy(args[1], args[0].device, len(args) > 2 and args[2])
        elif func in (aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default):
            is_mask = any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
            if is_mask and args[2].numel() != 1:  # of a single value it is a masked_fill
                self._wait(f"{func}: a mask as an index, which is counted first")

    def _check_copy(self, source: torch.Tensor, target: torch.device, non_blocking: bool) -> None:
        is_to_gpu = source.device.type == "cpu"
        if source.device.type == torch.device(target).type:
            return
        if is_to_gpu and non_blocking and self._is_pinned(source):
            self.stream_log += ["copied"] if self.on_stream else []
            return
        self._wait(f"a blocking copy of {tuple(source.shape)} from {source.device} to {target}")

    def _wait(self, why: str) -> None:
        if self._refused:
            raise Waits(why)
        self.waits.append(why)

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        with unset_fake_temporarily():
            pinned = tensor.clone()
        storage = pinned.untyped_storage()
        self._pinned[storage.data_ptr()] = storage  # kept, so that no other comes to its address
        return pinned

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, FakeTensor) and tensor.untyped_storage().data_ptr() in self._pinned


class FakeStream:
    """A stream of the fake GPU, which notes what is done with it."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda

    def __enter__(self) -> None:
        self._cuda.on_stream = True

    def __exit__(self, *_: object) -> None:
        self._cuda.on_stream = False

    def record_event(self) -> str:
        self._cuda.stream_log.append("event")
        return "event"

    def wait_event(self, event: str) -> None:
        assert event == "event"
        self._cuda.stream_log.append("waited")


class InPlace:
    """An executor that calls at once, in the thread that asks: other threads know nothing of the fake GPU."""

    def __init__(self, *_: Any) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, **_: Any) -> None:
        pass


class FakeGenerator(torch.Generator):
    """A generator that says that it is on the device which was asked for."""

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
    """Do what nn.Module._apply does, but replace the parameters, which it swaps: fakes cannot be swapped."""
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
    """Put a fake GPU into this process; what was made on it must not be used after the block."""
    caches = geometry._pixel_centres, operation.constant
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(FakeTensor, "__deepcopy__", _deepcopy, raising=False)
        patch.setattr(torch, "Generator", FakeGenerator)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(feed, "_kept", None)
        patch.setattr(feed, "ThreadPoolExecutor", InPlace)
        for cache in caches:
            cache.cache_clear()
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), FakeCuda() as cuda:
                patch.setattr(torch.cuda, "Stream", lambda device: FakeStream(cuda))
                patch.setattr(torch.cuda, "current_stream", lambda device: FakeStream(cuda))
                patch.setattr(torch.cuda, "stream", lambda stream: stream)
                patch.setattr(torch.Tensor, "record_stream", lambda *_: cuda.stream_log.append("recorded"))
                yield cuda
        finally:
            for cache in caches:
                cache.cache_clear()
