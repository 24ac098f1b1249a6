"""The source `folder`: a folder for each class, as for torchvision's ImageFolder, on disk or in a zip archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysweep.errors import DataError, did_you_mean
from raysweep.vision.config import DataConfig
from raysweep.vision.data.dataset import SPLITS
from raysweep.vision.data.raw import RawData, absent, refuse
from raysweep.vision.data.tree import SUFFIXES, Tree, open_tree, split_of

Rows = list[tuple[str, int]]


def folder(config: DataConfig, root: Path) -> RawData:
    """`train/<class>/...`, and optionally `val/<class>/...` and `test/<class>/...`; or `<class>/...` alone.

    `root` is the folder, or a zip archive of it; `data.train`, `data.val` and `data.test` name other folders in it.
    """
    if not root.exists():
        raise absent(config.name, "such folder or zip archive", [root])
    tree = open_tree(root)
    at = _split_folders(tree, config)
    classes = _classes(tree, at["train"], "train")
    rows = {name: _rows(tree, name, place, classes) for name, place in at.items()}
    splits: dict[str, Any] = {name: split_of(tree, listed) for name, listed in rows.items()}
    files = tuple(tree.files([name for listed in rows.values() for name, _ in listed]))
    return RawData(lambda: classes, files=files, content="/".join([*at.values(), *classes]), **splits)


def _split_folders(tree: Tree, config: DataConfig) -> dict[str, str]:
    """Return the folder of each split in the tree; `""` for a tree of classes alone."""
    given = {name: _named_folder(tree, config, name) for name in SPLITS}
    folders = tree.folders()
    by_splits = tree.has("train") and bool(tree.folders("train"))
    if given["train"] is None and not by_splits and not (folders and set(folders) <= set(SPLITS)):
        if given["val"] is not None or given["test"] is not None:
            raise DataError(f"{tree.where('train')}: is absent, beside data.val or data.test; set data.train")
        return {"train": ""}
    at = {name: place or name for name, place in given.items() if place is not None or tree.has(name)}
    if config.val_fraction is not None:
        at.pop("val", None)
    if "train" not in at:
        raise DataError(f"{tree.where('train')}: is absent, beside {', '.join(folders)}")
    return at


def _named_folder(tree: Tree, config: DataConfig, split: str) -> str | None:
    place: str | None = getattr(config, split)
    if place is None:
        return None
    place = place.strip("/")
    if ".." in place.split("/"):
        raise DataError(f"data.{split}: {place!r} leads out of {tree.place}")
    if not tree.has(place):
        raise DataError(f"data.{split}: no folder {tree.where(place)}")
    return place


def _classes(tree: Tree, place: str, split: str) -> list[str]:
    classes = tree.folders(place)
    if not classes:
        where = tree.where(place) if place else str(tree.place)
        unlabelled = f"the {split} split has no labels: its images lie in no class folders"
        what = unlabelled if tree.images(place) else "has no class folders"
        raise DataError(f"{where}: {what}; the layout is {place or 'data'}/<class>/<image>")
    return classes


def _rows(tree: Tree, split: str, place: str, classes: Sequence[str]) -> Rows:
    label_of = {name: label for label, name in enumerate(classes)}
    prefix = f"{place}/" if place else ""
    rows: Rows = []
    problems = []
    for name in _classes(tree, place, split):
        images = tree.images(prefix + name)
        if not images and split == "train":
            problems.append(f"{tree.where(prefix + name)}: the class has no images ({', '.join(SUFFIXES)})")
        elif images and name not in label_of:
            known = did_you_mean(name, classes)
            problems.append(f"{tree.where(prefix + name)}: class {name!r} has no training images{known}")
        else:
            rows += [(image, label_of[name]) for image in images]
    refuse(problems)
    if not rows:
        raise DataError(f"{tree.where(place)}: the {split} split has no images ({', '.join(SUFFIXES)})")
    return rows
