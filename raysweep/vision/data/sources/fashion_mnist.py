"""The source `fashion_mnist`: 70,000 grey images of 28 x 28 pixels, in MNIST's IDX files."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torchvision.datasets import FashionMNIST

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import RawData, RawSplit, absent, from_pixels, refuse_split_names, torchvision_download

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
FILES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
MAX_BYTES = 2**28
"""Most bytes read of a file; the largest one has 47 MB."""


def fashion_mnist(config: DataConfig, root: Path) -> RawData:
    """Fashion-MNIST: `train-images-idx3-ubyte` and the three others, each plain or `.gz`; DataError if one is absent.

    The files are looked for in `root`, `root/FashionMNIST/raw` (torchvision's), `root/raw`, `root/fashion-mnist` and
    the folder of Debian's package. Those named t10k are the test split; validation images are held out of the others.
    """
    refuse_split_names(config)
    folders = [root, root / "FashionMNIST" / "raw", root / "raw", root / "fashion-mnist", DEBIAN]
    files = next((found for folder in folders if (found := _files(folder)) is not None), None)
    if files is None:
        command = f"{torchvision_download('FashionMNIST', root)}, or on Debian: apt-get install dataset-fashion-mnist"
        names = ", ".join(f"{name}[.gz]" for name in FILES.values())
        raise absent(config.name, f"files {names}", folders, command)
    train, test = (_split(files, name) for name in ("train", "test"))
    return RawData(lambda: FashionMNIST.classes, train=train, test=test, files=tuple(files.values()))


def _files(folder: Path) -> dict[tuple[str, str], Path] | None:
    """Return the four files in `folder`, or None if one is absent."""
    forms = {key: (folder / f"{name}.gz", folder / name) for key, name in FILES.items()}
    files = {key: path for key, paths in forms.items() for path in paths if path.is_file()}  # the plain file, if both
    return files if len(files) == len(FILES) else None


def _split(files: dict[tuple[str, str], Path], split: str) -> RawSplit:
    def read() -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        images, labels = read_idx(files[split, "images"], 3), read_idx(files[split, "labels"], 1)
        if len(images) != len(labels):
            raise DataError(f"{files[split, 'labels']}: has {len(labels):,} labels for {len(images):,} images")
        return images, labels

    return from_pixels(read, str(files[split, "images"]), lambda: FashionMNIST.classes)


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes, plain or gzipped: two zero bytes, 8, the number of dimensions, each size, the values.

    torchvision's reader takes no `.gz` and ends with an AssertionError on a damaged file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot read: {error}") from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path}: not an IDX file of bytes in {dimensions} dimensions")
    shape, values = np.frombuffer(data, ">u4", dimensions, 4).tolist(), np.frombuffer(data, np.uint8, offset=start)
    if len(values) != math.prod(shape):
        raise DataError(f"{path}: has {len(values):,} values where its head says {math.prod(shape):,}")
    return values.reshape(shape)
