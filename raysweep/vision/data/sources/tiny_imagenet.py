"""The source `tiny_imagenet`: 200 classes of 64 x 64 pixels, in any of the three forms it goes about in.

The Parquet files, the original folder and its zip give the same arrays in the same order, so that a sweep goes on
with the same data on a machine that has another form.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import (
    Encoded,
    Labels,
    RawData,
    RawSplit,
    Rows,
    absent,
    faults,
    read_file,
    refuse_split_names,
)
from raysweep.vision.data.sources.parquet import TINY, name_classes, parquet_in
from raysweep.vision.data.tree import Tree, open_tree, split_of

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ANNOTATIONS = "val/val_annotations.txt"


def tiny_imagenet(config: DataConfig, root: Path) -> RawData:
    """Tiny ImageNet: `train.parquet` and `val.parquet`, or the original folder, or `tiny-imagenet-200.zip`.

    Looked for in `root` and `root/tiny-imagenet-200`; `root` may be the zip itself. The original test split has no
    labels and is not read.

    Raises:
        DataError: none of the three is there, or it is not whole.
    """
    refuse_split_names(config, ["train", "val"])
    archive = root / f"{TINY}.zip"
    looked = [root / TINY / "train.parquet", root / TINY / "train", archive, root / "train.parquet", root / "train"]
    found = root if root.is_file() else next((path for path in looked if path.exists()), None)
    if found is None:
        command = f"curl -L --create-dirs -o {shlex.quote(str(archive))} {URL}"
        raise absent(config.name, "Tiny ImageNet", looked, command)
    if found.name == "train.parquet":
        raw = parquet_in(found.parent, config)
        return replace(
            raw,
            train=_by_content(raw.train),
            val=raw.val and _by_content(raw.val),
            test=raw.test and _by_content(raw.test),
        )
    return _original(open_tree(found.parent if found.name == "train" else found), config)


def _original(tree: Tree, config: DataConfig) -> RawData:
    if config.test is not None:
        raise DataError(f"data.test: {tree.where('test')}: the original test split has no labels; leave the key out")
    wnids = tree.folders("train")
    if tree.has("wnids.txt"):
        wnids = sorted({*wnids, *tree.text("wnids.txt").split()})
    if not wnids:
        raise DataError(f"{tree.where('train')}: has no class folders")
    images = {wnid: tree.images(f"train/{wnid}") if tree.has(f"train/{wnid}") else [] for wnid in wnids}
    empty = [f"{tree.where(f'train/{wnid}')}: the class has no images" for wnid, found in images.items() if not found]
    if empty:
        raise faults(empty)
    train = [(name, label) for label, wnid in enumerate(wnids) for name in images[wnid]]
    val = _annotated(tree, wnids) if config.val_fraction is None else []
    names = [name for name, _ in (*train, *val)]
    return RawData(
        classes=lambda: _class_names(tree, wnids),
        train=_by_content(split_of(tree, train)),
        val=_by_content(split_of(tree, val)) if val else None,
        files=tuple(tree.files([*names, *(name for name in ("words.txt", ANNOTATIONS) if tree.has(name))])),
        content=" ".join(wnids),
    )


def _annotated(tree: Tree, wnids: Sequence[str]) -> list[tuple[str, int]]:
    """Return the validation images and their labels, by `val_annotations.txt`: file, wnid, a box."""
    if not tree.has(ANNOTATIONS):
        raise DataError(
            f"{tree.where(ANNOTATIONS)}: is absent; set data.val_fraction to hold out training images instead, "
            "or use the source `folder` if val has a folder for each class"
        )
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    there = set(tree.images("val/images")) if tree.has("val/images") else set()
    rows, problems = [], []
    for number, line in enumerate(tree.text(ANNOTATIONS).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        wnid, path = rest.partition("\t")[0].strip(), f"val/images/{name}"
        if wnid not in label_of:
            problems.append(f"{tree.where(ANNOTATIONS)}:{number}: class {wnid!r} has no folder in train")
        elif path not in there:
            problems.append(f"{tree.where(ANNOTATIONS)}:{number}: no image {tree.where(path)}")
        else:
            rows.append((path, label_of[wnid]))
    if problems:
        raise faults(problems)
    if not rows:
        raise DataError(f"{tree.where(ANNOTATIONS)}: names no images")
    return rows


def _class_names(tree: Tree, wnids: Sequence[str]) -> list[str]:
    """Name each class by its words in `words.txt`, where that has them."""
    words: dict[str, str] = {}
    if tree.has("words.txt"):
        for line in tree.text("words.txt").splitlines():
            wnid, _, meaning = line.partition("\t")
            words[wnid.strip()] = meaning.strip()
    lines = [f"{wnid}\t{words[wnid]}" if words.get(wnid) else wnid for wnid in wnids]
    return name_classes(lines, tree.where("words.txt"))


def _by_content(split: RawSplit) -> RawSplit:
    """Return the same rows in an order that nothing but their bytes and labels decides.

    All bytes of the split (Tiny ImageNet: 215 MB) are held in memory from the first look on.
    """

    @cache
    def data() -> tuple[Rows, list[bytes | DataError | None]]:
        labels = split.labels()
        encoded = [_bytes(image) for image in split.images(np.arange(len(labels)))]
        keys = [
            (hashlib.sha256(image if isinstance(image, bytes) else b"").digest(), label)
            for image, label in zip(encoded, labels.tolist(), strict=True)
        ]
        return np.asarray(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64), encoded

    def labels() -> Labels:
        return split.labels()[data()[0]]

    def images(rows: Rows) -> Iterator[Encoded]:
        order, encoded = data()
        for row in order[rows]:
            yield encoded[row]

    return RawSplit(labels, images, lambda row: split.where(int(data()[0][row])))


def _bytes(encoded: Encoded) -> bytes | DataError | None:
    if isinstance(encoded, Path):
        return read_file(encoded)
    assert not isinstance(encoded, np.ndarray), "Tiny ImageNet's images are files"
    return encoded
