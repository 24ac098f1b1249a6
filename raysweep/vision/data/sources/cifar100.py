"""The source `cifar100`: CIFAR-100, 60,000 colour images of 32 x 32 pixels in 100 (fine) classes."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import CIFAR100

from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import RawData
from raysweep.vision.data.sources.cifar10 import read_cifar


def cifar100(config: DataConfig, root: Path) -> RawData:
    """CIFAR-100 with its 100 fine classes: `cifar-100-python` or `cifar-100-python.tar.gz`; see `cifar10`."""
    return read_cifar(CIFAR100, config, root)
