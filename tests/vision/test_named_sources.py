"""The sources with names of their own: Fashion-MNIST, CIFAR, Tiny ImageNet; each form, and what is said of faults."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from data_files import fault, prepared, write_image, zip_folder
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from raysweep.vision.data.sources import fashion_mnist as fashion_module


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


# --- fashion_mnist


def idx(values: npt.NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_fashion(folder: Path, zipped: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", 40), ("t10k", 10)):
        images = np.random.default_rng(rows).integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        parts = {"images-idx3-ubyte": idx(images), "labels-idx1-ubyte": idx(np.arange(rows, dtype=np.uint8) % 10)}
        for part, data in parts.items():
            path = folder / f"{name}-{part}{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(data) if zipped else data)


@pytest.fixture
def no_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_module, "DEBIAN", tmp_path / "no" / "package")


@pytest.mark.usefixtures("no_debian")
def test_fashion_mnist_equals_what_torchvision_reads(root: Path, cache: Path) -> None:
    write_fashion(root / "FashionMNIST" / "raw", zipped=False)
    data = prepared(root, cache, "fashion_mnist", val_fraction=0.25)
    theirs, tests = FashionMNIST(str(root)), FashionMNIST(str(root), train=False)
    assert data.classes == tuple(theirs.classes)
    assert data.test is not None
    assert torch.equal(data.test.images, tests.data[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(data.test.labels, tests.targets)
    assert (len(data.train), len(data.val)) == (30, 10)


def test_fashion_mnist_is_found_in_debians_package(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion_module, "DEBIAN", tmp_path / "package")
    write_fashion(tmp_path / "package")
    write_fashion(root / "plain", zipped=False)
    assert (
        prepared(root, cache, "fashion_mnist").fingerprint
        == prepared(root / "plain", cache, "fashion_mnist").fingerprint
    )


@pytest.mark.usefixtures("no_debian")
def test_absent_fashion_mnist_says_how_to_get_it(root: Path, cache: Path) -> None:
    message = fault(root, cache, "fashion_mnist")
    assert (
        f"""python -c 'from torchvision.datasets import FashionMNIST; FashionMNIST("{root}", download=True)'"""
        in message
    )
    assert "apt-get install dataset-fashion-mnist" in message


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte.gz", cut, "cannot read"),
        ("train-images-idx3-ubyte.gz", lambda _: b"no gzip", "cannot read"),
        ("train-images-idx3-ubyte.gz", lambda _: gzip.compress(b"no idx"), "not an IDX file of bytes in 3 dimensions"),
        ("train-images-idx3-ubyte.gz", lambda d: gzip.compress(cut(gzip.decompress(d))), "where its head says 31,360"),
        ("train-labels-idx1-ubyte.gz", lambda d: gzip.compress(gzip.decompress(d) + b"1"), "41 values where"),
        ("train-labels-idx1-ubyte.gz", lambda _: gzip.compress(idx(np.zeros(3, np.uint8))), "3 labels for 40 images"),
        ("train-labels-idx1-ubyte.gz", lambda _: gzip.compress(idx(np.full(40, 11, np.uint8))), "label 11 is out of"),
        (
            "train-images-idx3-ubyte.gz",
            lambda _: gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12),
            "has 0 values where its head says",
        ),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_debian")
def test_damaged_fashion_mnist_is_named(
    root: Path, cache: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    write_fashion(root)
    (root / name).write_bytes(change((root / name).read_bytes()))
    said = fault(root, cache, "fashion_mnist")
    assert str(root) in said
    assert message in said


# --- cifar


CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def trust(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: Any) -> None:
    """Let torchvision's tables have the checksums of these few images' files."""
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(kind, name, [[file, md5(folder / file)] for file, _ in getattr(kind, name)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})


@pytest.fixture(params=CIFAR)
def cifar(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Cifar:
    """Files as torchvision downloads them, of few images, and with the checksums that torchvision expects."""
    kind = CIFAR[request.param]
    folder = root / kind.base_folder
    folder.mkdir()
    classes, labels = (10, "labels") if kind is CIFAR10 else (100, "fine_labels")
    for number, (file, _) in enumerate([*kind.train_list, *kind.test_list]):
        data = np.random.default_rng(number).integers(0, 256, (2 * classes, 3072), dtype=np.uint8)
        (folder / file).write_bytes(pickle.dumps({"data": data, labels: [row % classes for row in range(2 * classes)]}))
    names = [f"class {label}" for label in range(classes)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    trust(monkeypatch, folder, kind)
    return Cifar(request.param, kind, folder, labels)


@dataclass(frozen=True)
class Cifar:
    name: str
    kind: Any
    folder: Path
    labels: str

    def pack(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Put an archive in the folder's place."""
        archive = self.folder.parent / self.kind.filename
        with tarfile.open(archive, "w:gz") as file:
            file.add(self.folder, self.folder.name)
        shutil.rmtree(self.folder)
        monkeypatch.setattr(self.kind, "tgz_md5", md5(archive))
        return archive


def test_cifar_folder_and_archive_give_the_pickled_pixels(
    cifar: Cifar, root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = pickle.loads((cifar.folder / cifar.kind.test_list[0][0]).read_bytes())
    data = prepared(root, cache, cifar.name, val_fraction=0.3)
    assert data.test is not None
    np.testing.assert_array_equal(data.test.images.numpy(), entry["data"].reshape(-1, 3, 32, 32))
    assert data.test.labels.tolist() == entry[cifar.labels]
    assert len(data.train) + len(data.val) == len(cifar.kind.train_list) * len(data.test)
    assert data.classes[1] == "class 1"
    moved = shutil.copytree(cifar.folder, tmp_path / "of another name")
    archive = cifar.pack(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for place in (root, archive, moved):
        assert prepared(place, cache, cifar.name, val_fraction=0.3).fingerprint == data.fingerprint
    assert list(root.iterdir()) == [archive]
    assert not list(tmp_path.glob("raysweep-*")), "what was unpacked is gone"


class Evil:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickle_of_another_checksum_runs_no_code(cifar: Cifar, root: Path, cache: Path, tmp_path: Path) -> None:
    name = cifar.kind.test_list[0][0]
    (cifar.folder / name).write_bytes(pickle.dumps({"data": Evil(tmp_path / "pwned")}))
    message = fault(root, cache, cifar.name)
    assert f"{cifar.folder}: absent or damaged: {name}; download it again: python -c" in message
    assert not (tmp_path / "pwned").exists()


def test_absent_and_damaged_cifar_files_are_named_beside_the_command(cifar: Cifar, root: Path, cache: Path) -> None:
    train, meta = cifar.kind.train_list[0][0], cifar.kind.meta["filename"]
    (cifar.folder / train).unlink()
    (cifar.folder / meta).write_bytes(cut((cifar.folder / meta).read_bytes()))
    message = fault(root, cache, cifar.name)
    assert f"{cifar.folder}: absent or damaged: {train}, {meta}; " in message
    assert "download=True" in message


def test_cifar_archive_of_another_checksum_is_not_unpacked(
    cifar: Cifar, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = cifar.pack(monkeypatch)
    archive.write_bytes(cut(archive.read_bytes()))
    message = fault(root, cache, cifar.name)
    assert f"{archive}: is damaged: its MD5 is not {cifar.kind.tgz_md5}; download it again: python -c" in message


@pytest.mark.parametrize("name", CIFAR)
def test_absent_cifar_says_how_to_get_it(root: Path, cache: Path, name: str) -> None:
    kind = CIFAR[name].__name__
    command = f"""python -c 'from torchvision.datasets import {kind}; {kind}("{root}", download=True)'"""
    assert command in fault(root, cache, name)


# --- tiny_imagenet


CLASSES = 3
EACH = 6


def write_tiny(folder: Path, shared: Path) -> None:
    """The original folder of three classes' first images, from the Parquet files' bytes."""
    source = shared / "data" / "tiny-imagenet-200"
    lines = (source / "classes.txt").read_text().splitlines()[:CLASSES]
    wnids = [line.partition("\t")[0] for line in lines]
    for wnid in wnids:
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("0.JPEG\t0\t0\t1\t1\n")
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "test" / "images").mkdir(parents=True)
    (folder / "test" / "images" / "test_0.JPEG").write_bytes(b"never read")
    annotations = []
    for split in ("train", "val"):
        table = pq.ParquetFile(source / f"{split}.parquet").read_row_group(0)
        for row, (image, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
            if label < CLASSES and row < 200 * EACH:
                wnid = wnids[label]
                if split == "train":
                    (folder / "train" / wnid / "images" / f"{wnid}_{row}.JPEG").write_bytes(image)
                else:
                    (folder / "val" / "images" / f"val_{row}.JPEG").write_bytes(image)
                    annotations.append(f"val_{row}.JPEG\t{wnid}\t0\t0\t62\t62")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(reversed(annotations)) + "\n")
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)))
    (folder / "words.txt").write_text("\n".join(["n00001740\tentity", *lines]) + "\n")


def write_tiny_parquet(folder: Path, shared: Path) -> None:
    source = shared / "data" / "tiny-imagenet-200"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        table = pq.ParquetFile(source / f"{split}.parquet").read_row_group(0).slice(0, 200 * EACH)
        pq.write_table(table.filter(pq.filters_to_expression([("label", "<", CLASSES)])), folder / f"{split}.parquet")
    lines = (source / "classes.txt").read_text().splitlines()[:CLASSES]
    (folder / "classes.txt").write_text("\n".join(lines) + "\n")


def test_tiny_imagenet_is_the_same_in_all_three_forms(root: Path, cache: Path, shared: Path) -> None:
    write_tiny(root / "a" / "tiny-imagenet-200", shared)
    write_tiny_parquet(root / "b" / "tiny-imagenet-200", shared)
    (root / "c").mkdir()
    zip_folder(root / "a" / "tiny-imagenet-200", root / "c" / "tiny-imagenet-200.zip", "tiny-imagenet-200/")
    places = [root / "a", root / "a/tiny-imagenet-200", root / "b", root / "c", root / "c/tiny-imagenet-200.zip"]
    first, *others = (prepared(place, cache, "tiny_imagenet", image_size=40) for place in places)
    assert first.train.images.shape == (CLASSES * EACH, 3, 40, 40)
    assert len(first.val) == CLASSES * EACH
    assert first.classes[0] == "goldfish, Carassius auratus"
    assert torch.bincount(first.train.labels).tolist() == [EACH] * CLASSES
    for data in others:
        assert torch.equal(data.train.images, first.train.images)
        assert torch.equal(data.train.labels, first.train.labels)
        assert torch.equal(data.val.images, first.val.images)
        assert torch.equal(data.val.labels, first.val.labels)
        assert (data.classes, data.fingerprint) == (first.classes, first.fingerprint)
    held_out = {prepared(place, cache, "tiny_imagenet", val_fraction=0.5, per_class=2).fingerprint for place in places}
    assert len(held_out) == 1, "the same images are held out, the same are the first"


def test_tiny_imagenet_pixels_are_the_jpegs(root: Path, cache: Path, shared: Path) -> None:
    write_tiny(root, shared)
    data = prepared(root, cache, "tiny_imagenet")
    wnids = sorted((root / "wnids.txt").read_text().split())
    expected = set()
    for label, wnid in enumerate(wnids):
        for path in (root / "train" / wnid / "images").iterdir():
            expected.add((label, np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).tobytes()))
    given = zip(data.train.labels.tolist(), data.train.images.numpy(), strict=True)
    assert {(label, image.tobytes()) for label, image in given} == expected


def write_made_up_tiny(root: Path) -> None:
    """The original layout, of made-up images: two classes, as faults need no more."""
    for wnid in ("n01", "n02"):
        for number in range(3):
            write_image(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", number)
    for number in range(2):
        write_image(root / "val" / "images" / f"val_{number}.JPEG", 100 + number)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t9\t9\nval_1.JPEG\tn02\t0\t0\t9\t9\n")
    (root / "wnids.txt").write_text("n02\nn01\n")


def test_tiny_imagenet_annotations_naming_missing_images_or_classes_are_named(root: Path, cache: Path) -> None:
    write_made_up_tiny(root)
    path = root / "val" / "val_annotations.txt"
    path.write_text("val_0.JPEG\tn01\nval_7.JPEG\tn02\nval_1.JPEG\tn99\n")
    assert fault(root, cache, "tiny_imagenet").splitlines() == [
        f"{path}:2: no image {root}/val/images/val_7.JPEG",
        f"{path}:3: class 'n99' has no folder in train",
    ]
    path.unlink()
    assert f"{path}: is absent" in fault(root, cache, "tiny_imagenet")
    assert len(prepared(root, cache, "tiny_imagenet", val_fraction=0.3).val) == 2


def test_tiny_imagenet_class_without_folder_or_images_is_named(root: Path, cache: Path) -> None:
    write_made_up_tiny(root)
    (root / "wnids.txt").write_text("n02\nn01\nn03\nn04\n")
    (root / "train" / "n03").mkdir()
    assert fault(root, cache, "tiny_imagenet").splitlines() == [
        f"{root}/train/n03: the class has no images",
        f"{root}/train/n04: the class has no images",
    ]


def test_tiny_imagenet_test_split_without_labels_is_refused(root: Path, cache: Path) -> None:
    write_made_up_tiny(root)
    write_image(root / "test" / "images" / "test_0.JPEG")
    message = fault(root, cache, "tiny_imagenet", test="test")
    assert f"{root}/test" in message
    assert "no labels" in message


def test_tiny_imagenet_corrupt_image_is_named_by_its_file(root: Path, cache: Path) -> None:
    write_made_up_tiny(root)
    path = root / "train" / "n02" / "images" / "n02_1.JPEG"
    path.write_bytes(b"no image")
    assert f"{path}: cannot decode" in fault(root, cache, "tiny_imagenet")
    assert prepared(root, cache, "tiny_imagenet", on_corrupt="skip").skipped == 1


def test_absent_tiny_imagenet_says_how_to_get_it(root: Path, cache: Path) -> None:
    message = fault(root, cache, "tiny_imagenet")
    assert f"curl -L --create-dirs -o {root}/tiny-imagenet-200.zip http://cs231n.stanford.edu/" in message


def test_sources_that_know_their_files_take_no_names_of_files(root: Path, cache: Path) -> None:
    for name in ("digits", "synthetic", "tiny_imagenet", "fashion_mnist", "cifar10", "cifar100"):
        assert f"data.train, data.val: {name} takes no such key" in fault(root, cache, name, train="a", val="b")
