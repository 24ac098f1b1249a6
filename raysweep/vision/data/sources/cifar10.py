"""The source `cifar10`: 60,000 colour images of 32 x 32 pixels in 10 classes, read by torchvision.

The files are pickles, which can run any code. torchvision unpickles a file only if its MD5 is that of the file which
CIFAR's authors published, and an archive is unpacked here only after the same check.
"""

from __future__ import annotations

import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import RawData, RawSplit, absent, from_pixels, refuse_split_names, torchvision_download


def cifar10(config: DataConfig, root: Path) -> RawData:
    """CIFAR-10: the folder `cifar-10-batches-py` or `cifar-10-python.tar.gz`, as torchvision downloads them."""
    return read_cifar(CIFAR10, config, root)


def read_cifar(kind: type[CIFAR10], config: DataConfig, root: Path) -> RawData:
    """Return what lies in `root`: the folder or the archive of `kind`; `root` may also be either itself.

    torchvision's test set is the test split; validation images are held out of its training set.
    """
    refuse_split_names(config)
    places = [root / kind.base_folder, root, root / kind.filename]
    folder = next((place for place in places[:2] if (place / kind.meta["filename"]).is_file()), None)
    place = folder or next((place for place in places[1:] if place.is_file()), None)
    command = torchvision_download(kind.__name__, root)
    if place is None:
        raise absent(config.name, f"folder {kind.base_folder} or archive {kind.filename}", places, command)
    both = cache(lambda: _open(kind, folder, command) if folder else _unpack(kind, place, command))

    def split(number: int, name: str) -> RawSplit:
        return from_pixels(
            lambda: (both()[number].data, np.asarray(both()[number].targets)), f"{place}: {name}", classes
        )

    def classes() -> list[str]:
        return list(both()[0].classes)

    files = [folder / name for name in _md5s(kind)] if folder else [place]
    return RawData(classes, train=split(0, "train"), test=split(1, "test"), files=tuple(filter(Path.is_file, files)))


def _unpack(kind: type[CIFAR10], archive: Path, command: str) -> tuple[CIFAR10, CIFAR10]:
    if not check_integrity(str(archive), kind.tgz_md5):
        raise DataError(f"{archive}: is damaged: its MD5 is not {kind.tgz_md5}; download it again: {command}")
    with tempfile.TemporaryDirectory(prefix="raysweep-") as folder, tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
        return _open(kind, Path(folder) / kind.base_folder, command)


def _open(kind: type[CIFAR10], folder: Path, command: str) -> tuple[CIFAR10, CIFAR10]:
    here = type(kind.__name__, (kind,), {"base_folder": ""})  # the folder may have another name than torchvision's
    try:
        return here(str(folder), train=True), here(str(folder), train=False)
    except RuntimeError:
        wrong = [name for name, md5 in _md5s(kind).items() if not check_integrity(str(folder / name), md5)]
        raise DataError(f"{folder}: absent or damaged: {', '.join(wrong)}; download it again: {command}") from None


def _md5s(kind: type[CIFAR10]) -> dict[str, str]:
    return {**dict([*kind.train_list, *kind.test_list]), kind.meta["filename"]: kind.meta["md5"]}
