"""Lets functions that make tensors of Python's numbers on a GPU do so without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from raysweep.vision.augment.operation import to_device


class Unblocked(TorchFunctionMode):
    """In the block, `torch.tensor(numbers, device=...)` copies them as `to_device` does.

    torchvision's functional operations make their matrices and kernels in that way.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or what takes the place of torch.tensor."""
        kwargs = dict(kwargs or {})
        if func is not torch.tensor or kwargs.get("device") is None:
            return func(*args, **kwargs)
        device = torch.device(kwargs.pop("device"))
        return to_device(torch.tensor(*args, **kwargs), device)
