"""Small files for the tests of data sources, and what comes of preparing them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data import DataSet, load
from raysweep.vision.data.prepare import prepare

SIZE = 8


def write_image(path: Path, red: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE, SIZE), (red, 0, 0)).save(path, "PNG")


def prepared(root: Path, cache: Path, name: str, **keys: Any) -> DataSet:
    return load(prepare(DataConfig(name=name, **keys), root=root, cache=cache, progress=False))


def fault(root: Path, cache: Path, name: str, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        prepare(DataConfig(name=name, **keys), root=root, cache=cache, progress=False)
    assert not list((cache / "sets").glob("*")), "nothing half-prepared stays"
    return str(caught.value)


def reds(split: Any) -> list[int]:
    return [int(value) for value in split.images[:, 0, 0, 0]]


def write_classes(folder: Path, first: int = 0, classes: tuple[str, ...] = ("bee", "ant"), each: int = 2) -> None:
    """Images a class, each of its own red, counting up."""
    for index, name in enumerate(sorted(classes)):
        for image in range(each):
            write_image(folder / name / f"{image}.png", first + index * each + image)


def zip_folder(folder: Path, path: Path, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path
