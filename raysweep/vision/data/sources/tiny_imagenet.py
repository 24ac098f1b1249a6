"""The source `tiny_imagenet`: 200 classes of 64 x 64 pixels, in any of the three forms in which it is distributed.

The Parquet files, the original folder and its zip archive give the same arrays in the same order, so that a sweep can
continue on a machine that has the data in another form.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import Encoded, RawData, RawSplit, Rows, absent, read_file, refuse, refuse_split_names
from raysweep.vision.data.sources.parquet import TINY, name_classes, parquet_in
from raysweep.vision.data.tree import Tree, open_tree, split_of

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ANNOTATIONS = "val/val_annotations.txt"


def tiny_imagenet(config: DataConfig, root: Path) -> RawData:
    """The two Parquet files, the original folder, or its zip archive, in `root` or `root/tiny-imagenet-200`."""
    refuse_split_names(config, ["train", "val"])
    archive = root / f"{TINY}.zip"
    looked = [root / TINY / "train.parquet", root / TINY / "train", archive, root / "train.parquet", root / "train"]
    found = root if root.is_file() else next((path for path in looked if path.exists()), None)
    if found is None:
        command = f"curl -L --create-dirs -o {shlex.quote(str(archive))} {URL}"
        raise absent(config.name, "Tiny ImageNet", looked, command)
    if found.name == "train.parquet":
        raw = parquet_in(found.parent, config)
        val, test = (split and _by_content(split) for split in (raw.val, raw.test))
        return replace(raw, train=_by_content(raw.train), val=val, test=test)
    return _original(open_tree(found.parent if found.name == "train" else found), config)


def _original(tree: Tree, config: DataConfig) -> RawData:
    if config.test is not None:
        raise DataError(f"data.test: {tree.where('test')}: the original test split has no labels; leave the key out")
    wnids = tree.folders("train")
    if tree.has("wnids.txt"):
        wnids = sorted({*wnids, *tree.text("wnids.txt").split()})
    if not wnids:
        raise DataError(f"{tree.where('train')}: has no class folders")
    images = {wnid: tree.images(f"train/{wnid}") for wnid in wnids}
    empty = [f"{tree.where(f'train/{wnid}')}: the class has no images" for wnid, found in images.items() if not found]
    refuse(empty)
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
    """Return the validation images and their labels from `val_annotations.txt`, whose lines are file, wnid, box."""
    where = tree.where(ANNOTATIONS)
    if not tree.has(ANNOTATIONS):
        raise DataError(
            f"{where}: is absent; set data.val_fraction to hold out training images instead, "
            "or use the source `folder` if val has a folder for each class"
        )
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    there = set(tree.images("val/images"))
    rows, problems = [], []
    for number, line in enumerate(tree.text(ANNOTATIONS).splitlines(), start=1):
        name, wnid, *_ = [*map(str.strip, line.split("\t")), ""]
        path = f"val/images/{name}"
        if wnid in label_of and path in there:
            rows.append((path, label_of[wnid]))
        elif line.strip():
            missing = f"no image {tree.where(path)}" if wnid in label_of else f"class {wnid!r} has no folder in train"
            problems.append(f"{where}:{number}: {missing}")
    refuse(problems)
    if not rows:
        raise DataError(f"{where}: names no images")
    return rows


def _class_names(tree: Tree, wnids: Sequence[str]) -> list[str]:
    """Return the name of each class: its words in `words.txt`, or else its wnid."""
    text = tree.text("words.txt") if tree.has("words.txt") else ""
    words = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return name_classes([f"{wnid}\t{words.get(wnid, '')}" for wnid in wnids], tree.where("words.txt"))


def _by_content(split: RawSplit) -> RawSplit:
    """Return the same rows in an order that only their bytes and labels decide.

    All bytes of the split (215 MB for Tiny ImageNet) are held in memory once the first row has been read.
    """

    @cache
    def data() -> tuple[Rows, list[Encoded]]:
        labels = split.labels().tolist()
        found = split.images(np.arange(len(labels)))
        encoded: list[Encoded] = [read_file(image) if isinstance(image, Path) else image for image in found]
        digests = [hashlib.sha256(image if isinstance(image, bytes) else b"").digest() for image in encoded]
        order = sorted(range(len(labels)), key=lambda row: (digests[row], labels[row]))
        return np.asarray(order, dtype=np.int64), encoded

    return RawSplit(
        labels=lambda: split.labels()[data()[0]],
        images=lambda rows: (data()[1][row] for row in data()[0][rows]),
        where=lambda row: split.where(int(data()[0][row])),
    )
