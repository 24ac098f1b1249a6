"""The sources with names of their own: Fashion-MNIST, CIFAR, Tiny ImageNet; each form, and what is said of faults."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from data_files import fault, prepared, write_image, zip_folder
from PIL import Image

from raysweep.vision.data.sources import cifar as cifar_module
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
    from torchvision.datasets import FashionMNIST

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
        ("train-labels-idx1-ubyte.gz", lambda d: gzip.compress(gzip.decompress(d) + b"1"), "has more values"),
        ("train-labels-idx1-ubyte.gz", lambda _: gzip.compress(idx(np.zeros(3, np.uint8))), "3 labels for 40 images"),
        ("train-labels-idx1-ubyte.gz", lambda _: gzip.compress(idx(np.full(40, 11, np.uint8))), "label 11 is out of"),
        (
            "train-images-idx3-ubyte.gz",
            lambda _: gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12),
            "at most 1,073,741,824 are read",
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


def write_cifar(root: Path, name: str = "cifar10", protocol: int = 2) -> Path:
    """Files as torchvision downloads them, of few images; protocol 2 is the originals'."""
    ten = name == "cifar10"
    layout = cifar_module.CIFAR10 if ten else cifar_module.CIFAR100
    folder = root / layout.folder
    folder.mkdir(parents=True)
    classes = 10 if ten else 100
    for number, file in enumerate((*layout.train, *layout.test)):
        rows = classes if ten else 2 * classes
        data = np.random.default_rng(number).integers(0, 256, (rows, 3072), dtype=np.uint8)
        entry = {b"data": data, layout.labels.encode(): [row % classes for row in range(rows)], b"batch_label": b"x"}
        (folder / file).write_bytes(pickle.dumps(entry, protocol))
    meta = {layout.names.encode(): [f"class {label}".encode() for label in range(classes)]}
    (folder / layout.meta).write_bytes(pickle.dumps(meta, protocol))
    return folder


def pack(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    shutil.rmtree(folder)
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(("name", "train"), [("cifar10", 50), ("cifar100", 200)])
def test_cifar_folder_and_archive_give_the_pickled_pixels(
    root: Path, cache: Path, name: str, train: int, protocol: int
) -> None:
    folder = write_cifar(root, name, protocol)
    layout = cifar_module.CIFAR10 if name == "cifar10" else cifar_module.CIFAR100
    entry = pickle.loads((folder / layout.test[0]).read_bytes())
    data = prepared(root, cache, name, val_fraction=0.3)
    assert data.test is not None
    np.testing.assert_array_equal(data.test.images.numpy(), entry[b"data"].reshape(-1, 3, 32, 32))
    assert data.test.labels.tolist() == entry[layout.labels.encode()]
    assert len(data.train) + len(data.val) == train
    assert data.classes[1] == "class 1"
    archive = pack(folder, root / layout.archive)
    assert prepared(root, cache, name, val_fraction=0.3).fingerprint == data.fingerprint
    assert prepared(archive, cache, name, val_fraction=0.3).fingerprint == data.fingerprint
    assert sorted(root.iterdir()) == [archive], "nothing was extracted"


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as the original files have them."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_string


def test_cifar_pickles_of_python_2_are_read(root: Path, cache: Path) -> None:
    folder = write_cifar(root)
    expected = prepared(root, cache, "cifar10").fingerprint
    for path in folder.iterdir():
        entry = pickle.loads(path.read_bytes())
        with path.open("wb") as file:
            Python2Pickler(file, 2).dump(entry)
        assert pickle.loads(path.read_bytes(), encoding="bytes").keys() == entry.keys()
    assert prepared(root, cache, "cifar10").fingerprint == expected


class Evil:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickle_that_would_run_code_runs_none(root: Path, cache: Path, tmp_path: Path) -> None:
    folder = write_cifar(root)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(tmp_path / "pwned")}))
    message = fault(root, cache, "cifar10")
    assert f"{folder}/data_batch_3: not a CIFAR file: it names posix.mkdir, which is not run" in message
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([1], "holds no dict"),
        ({b"labels": [1]}, "has no array 'data'"),
        ({b"data": np.zeros((2, 7), np.uint8), b"labels": [0, 1]}, "must be uint8 (N, 3072)"),
        ({b"data": np.zeros((2, 3072), np.int64), b"labels": [0, 1]}, "not an array of uint8"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "'labels' must be a list of 2 whole numbers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "label 10 is out of range"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10**30]}, "labels out of range"),
    ],
)
def test_wrong_cifar_file_is_named(root: Path, cache: Path, entry: Any, message: str) -> None:
    folder = write_cifar(root)
    (folder / "data_batch_1").write_bytes(pickle.dumps(entry, 2))
    said = fault(root, cache, "cifar10")
    assert str(folder) in said
    assert message in said


def test_cut_off_cifar_files_are_named(root: Path, cache: Path) -> None:
    folder = write_cifar(root)
    (folder / "test_batch").write_bytes(cut((folder / "test_batch").read_bytes()))
    assert f"{folder}/test_batch: not a CIFAR file" in fault(root, cache, "cifar10")
    archive = pack(folder, root / "cifar-10-python.tar.gz")
    archive.write_bytes(cut(archive.read_bytes()))
    assert f"{archive}: not a readable tar.gz archive" in fault(root, cache, "cifar10")


def test_missing_cifar_batch_is_named_beside_the_command(root: Path, cache: Path) -> None:
    folder = write_cifar(root)
    (folder / "data_batch_4").unlink()
    message = fault(root, cache, "cifar10")
    assert f"no {folder}/data_batch_4" in message
    assert "download=True" in message
    archive = pack(folder, root / "cifar-10-python.tar.gz")
    assert f"{archive}: has no cifar-10-batches-py/data_batch_4" in fault(root, cache, "cifar10")


@pytest.mark.parametrize(("name", "torchvision"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_absent_cifar_says_how_to_get_it(root: Path, cache: Path, name: str, torchvision: str) -> None:
    command = f"""python -c 'from torchvision.datasets import {torchvision}; {torchvision}("{root}", download=True)'"""
    assert command in fault(root, cache, name)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MAX_ARCHIVE_BYTES", "unpacks to more than"),
        ("MAX_FILE_BYTES", "at most"),
        ("MAX_MEMBERS", "more than 5 members"),
    ],
)
def test_cifar_archive_that_explodes_is_cut_off(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    archive = pack(write_cifar(root), root / "cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar_module, limit, 5 if limit == "MAX_MEMBERS" else 20_000)
    said = fault(root, cache, "cifar10")
    assert str(archive) in said
    assert message in said


def test_cifar_archive_with_a_link_in_place_of_a_file_is_refused(root: Path, cache: Path) -> None:
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    assert "is not a plain file" in fault(root, cache, "cifar10")


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
