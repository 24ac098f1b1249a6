"""The device that a trial computes on, and whether it can do what the trial's config asks for."""

from __future__ import annotations

import platform
from typing import Literal

import torch

from raysweep.errors import UserError
from raysweep.vision.config import TrialConfig


def check_sync_batch_norm(config: TrialConfig, device: torch.device | str) -> None:
    """Refuse `sync_batch_norm` on anything but a GPU: torch cannot do it."""
    if config.sync_batch_norm and torch.device(device).type != "cuda":
        raise UserError(
            "sync_batch_norm: true: batch norm over several workers runs on GPUs only, and the workers have none; "
            "leave it out, or give each worker a GPU (resources.gpus)"
        )


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto` or torch's name of one stands for."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(config: TrialConfig, device: torch.device | str) -> Literal["fp32", "bf16"]:
    """Return the precision of forward and backward pass; `auto` is bf16 where the device computes it fast.

    On CPUs that takes AMX: with AVX512_BF16 alone oneDNN's convolutions were slower in bf16 than in fp32
    (`benchmarks/epoch_overhead.py` shows both), and without either bf16 is emulated.
    """
    if config.precision != "auto":
        return config.precision
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def check_precision(config: TrialConfig, resolved: str, device: torch.device) -> None:
    """Refuse to train in the precision that `auto` was resolved to elsewhere, where the device does not compute it."""
    if resolved == "bf16" and resolve_precision(config, device) != "bf16":
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        raise UserError(
            f"precision: auto became bf16 when the run began, which the {name} of {platform.node()} does not compute "
            "fast; let all trials have one kind of GPU (resources.accelerator), or set precision: fp32 and use --fresh"
        )
