"""The data: sources, preparation, the cache, and what is said of faults."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig, MeanStd
from raysweep.vision.data import DataSet, load, mean_std, open_data
from raysweep.vision.data import cache as cache_module
from raysweep.vision.data.prepare import prepare
from raysweep.vision.data.selection import first_of_each, hold_out
from raysweep.vision.prepared import data_root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def png(colour: tuple[int, int, int] | int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def write_parquet(path: Path, images: list[bytes | None], labels: list[Any], kind: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": pa.array(images, pa.binary()), "label": pa.array(labels, kind or pa.int16())})
    pq.write_table(table, path, row_group_size=4)


def write_small(root: Path, rows: int = 12, classes: int = 2) -> None:
    """Row i has label i % classes and the colour (i, 0, 0)."""
    write_parquet(root / "train.parquet", [png((i, 0, 0)) for i in range(rows)], [i % classes for i in range(rows)])
    write_parquet(root / "val.parquet", [png((0, i, 0)) for i in range(classes)], list(range(classes)))


def config(**keys: Any) -> DataConfig:
    return DataConfig(**({"name": "parquet"} | keys))


def prepared(root: Path, cache: Path, **keys: Any) -> DataSet:
    return load(prepare(config(**keys), root=root, cache=cache, progress=False))


def fault(root: Path, cache: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        prepare(config(**keys), root=root, cache=cache, progress=False)
    assert not list((cache / "sets").glob("*")), "nothing half-prepared stays"
    return str(caught.value)


# --- sources


def test_digits_are_eight_pixels_wide_and_held_out_by_a_fifth(tmp_path: Path, cache: Path) -> None:
    data = load(prepare(DataConfig(), root=tmp_path, cache=cache, progress=False))
    assert data.train.images.shape == (1438, 3, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert data.val.labels.dtype == torch.int64
    assert len(data.val) == 359
    assert data.test is None
    assert (data.num_classes, data.image_size) == (10, 8)
    assert int(data.train.images.max()) == 255


def test_synthetic_is_labelled_as_such_and_repeats(tmp_path: Path) -> None:
    asked = DataConfig(name="synthetic", classes=3, per_class=8, image_size=12, seed=5)
    one, two = (
        load(prepare(asked, root=tmp_path, cache=tmp_path / name, progress=False)) for name in ("cache1", "cache2")
    )
    assert one.classes == ("synthetic-0", "synthetic-1", "synthetic-2")
    assert one.train.images.shape == (24, 3, 12, 12)
    assert len(one.val) == 6
    assert one.fingerprint == two.fingerprint
    other = asked.model_copy(update={"seed": 6})
    assert load(prepare(other, root=tmp_path, cache=tmp_path / "cache1", progress=False)).fingerprint != one.fingerprint


def test_parquet_rows_keep_their_order_and_pixels(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    data = prepared(tmp_path, cache)
    assert data.train.images[:, 0, 0, 0].tolist() == list(range(12))
    assert data.train.labels.tolist() == [0, 1] * 6
    assert data.val.images[:, 1, 3, 3].tolist() == [0, 1]
    assert data.classes == ("0", "1")


def test_mean_and_std_are_those_of_the_training_images(tmp_path: Path, cache: Path) -> None:
    data = load(prepare(DataConfig(name="synthetic"), root=tmp_path, cache=cache, progress=False))
    images = data.train.images.double() / 255
    np.testing.assert_allclose(data.mean, images.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(data.std, images.std((0, 2, 3), correction=0), rtol=1e-9)


def test_class_names_come_from_classes_txt(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "classes.txt").write_text("n01\tgoldfish, Carassius\nn02\ttree\n")
    assert prepared(tmp_path, cache).classes == ("goldfish, Carassius", "tree")


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path, cache: Path) -> None:
    images = [png(7, mode="L"), png(0, mode="P"), png((1, 2, 3, 4), mode="RGBA"), png((9, 9, 9))]  # type: ignore[arg-type]
    write_parquet(tmp_path / "train.parquet", images, [0, 0, 1, 1])
    write_parquet(tmp_path / "val.parquet", images, [0, 0, 1, 1])
    assert prepared(tmp_path, cache).train.images[0, :, 0, 0].tolist() == [7, 7, 7]


def test_one_parquet_file_is_split_by_fraction(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "all.parquet", [png((i, 0, 0)) for i in range(20)], [i % 2 for i in range(20)])
    data = prepared(tmp_path, cache, train="all.parquet", val_fraction=0.3)
    assert (len(data.train), len(data.val)) == (14, 6)
    reds = data.train.images[:, 0, 0, 0].tolist() + data.val.images[:, 0, 0, 0].tolist()
    assert sorted(reds) == list(range(20))
    assert torch.bincount(data.val.labels).tolist() == [3, 3]


def test_named_test_split_is_prepared_too(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    write_parquet(tmp_path / "t.parquet", [png((200, 0, 0))], [1])
    data = prepared(tmp_path, cache, test="t.parquet")
    assert data.test is not None
    assert data.test.labels.tolist() == [1]


def test_tiny_imagenet_rows_are_resized_as_pillow_does(shared: Path, cache: Path) -> None:
    data = prepared(shared / "data", cache, classes=20, per_class=10, image_size=40)
    assert data.train.images.shape == (200, 3, 40, 40)
    assert data.val.images.shape == (1000, 3, 40, 40)
    assert torch.bincount(data.train.labels).tolist() == [10] * 20
    assert data.classes[0] == "goldfish, Carassius auratus"
    table = pq.ParquetFile(shared / "data/tiny-imagenet-200/train.parquet").read_row_group(0)
    row = next(i for i, label in enumerate(table["label"].to_pylist()) if label < 20)
    image = Image.open(io.BytesIO(table["image"][row].as_py())).convert("RGB")
    expected = np.asarray(image.resize((40, 40), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.train.images[0].numpy(), expected)


# --- selection


@given(st.lists(st.integers(0, 3), min_size=12, max_size=60), st.floats(0.05, 0.5), st.integers(0, 9))
def test_held_out_rows_are_stratified_and_do_not_depend_on_other_classes(
    extra: list[int], fraction: float, seed: int
) -> None:
    labels = np.array([0, 1, 2, 3] * 2 + extra)
    held_out = hold_out(labels, 4, fraction, seed)
    for label in range(4):
        rows = np.flatnonzero(labels == label)
        assert np.isin(rows, held_out).sum() == max(1, round(fraction * len(rows)))
    fewer = hold_out(labels, 2, fraction, seed)
    assert set(fewer) == {row for row in held_out if labels[row] < 2}


def test_per_class_takes_the_first_of_each_class_in_order() -> None:
    labels = np.array([0, 1, 0, 0, 1, 1])
    assert first_of_each(labels, np.arange(6), 2).tolist() == [0, 1, 2, 4]


def test_fewer_classes_and_images_are_taken(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path, rows=30, classes=3)
    data = prepared(tmp_path, cache, classes=2, per_class=4)
    assert data.classes == ("0", "1")
    assert torch.bincount(data.train.labels).tolist() == [4, 4]
    assert len(data.val) == 2


# --- the cache


def test_second_preparation_reads_no_image(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    for file in tmp_path.glob("*.parquet"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    first = prepare(config(), root=tmp_path, cache=cache, progress=False)

    def fail(*_: object) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(cache_module, "_digest", fail)
    monkeypatch.setattr("raysweep.vision.data.prepare._write", fail)
    assert prepare(config(), root=tmp_path, cache=cache, progress=False) == first


def test_changed_content_is_noticed_even_within_a_second(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    first = prepared(tmp_path, cache)
    write_parquet(tmp_path / "val.parquet", [png((0, 9, 0)), png((0, 1, 0))], [0, 1])
    second = prepared(tmp_path, cache)
    assert first.fingerprint != second.fingerprint
    assert second.val.images[0, 1, 0, 0] == 9


def test_moved_files_are_not_prepared_again(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path / "a")
    write_small(tmp_path / "b")
    paths = {prepare(config(path=n), root=tmp_path / n, cache=cache, progress=False) for n in ("a", "b")}
    assert len(paths) == 1


def _prepare_in_process(root: Path, cache: Path, start: Any, results: Any) -> None:
    start.wait()
    path = prepare(config(image_size=32), root=root, cache=cache, progress=False)
    results.put((str(path), load(path).fingerprint))


def test_two_processes_prepare_one_set_at_once(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path, rows=200)
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=_prepare_in_process, args=(tmp_path, cache, start, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    answers = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(answers) == 1
    assert len(list((cache / "sets").iterdir())) == 1


def test_what_a_killed_preparation_leaves_is_never_used(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from raysweep.vision.config import DataConfig; import raysweep.vision.data.prepare as p\n"
        "p._fingerprint = lambda *a: os._exit(9)\n"
        "p.prepare(DataConfig(name='parquet'), root=Path(sys.argv[1]), cache=Path(sys.argv[2]), progress=False)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path, cache], check=False)
    assert done.returncode == 9
    assert [path.name[0] for path in (cache / "sets").iterdir()] == ["."]
    assert len(prepared(tmp_path, cache).train) == 12
    assert len(list((cache / "sets").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        ("data.json", lambda file: file.unlink(), "No such file or directory"),
        ("data.json", lambda file: file.write_text("{}"), "'name'"),
        ("val_images.npy", lambda file: file.unlink(), "No such file or directory"),
        ("train_images.npy", lambda file: os.truncate(file, 200), "mmap length is greater than file size"),
    ],
)
def test_the_damaged_file_of_a_prepared_set_is_named_with_the_command_that_removes_the_set(
    tmp_path: Path, cache: Path, name: str, damage: Callable[[Path], object], why: str
) -> None:
    write_small(tmp_path)
    (folder,) = prepared(tmp_path, cache) and (cache / "sets").iterdir()
    damage(folder / name)
    with pytest.raises(DataError) as refused:
        load(folder)
    assert str(refused.value) == (
        f"{folder}/{name}: this prepared set is damaged: {why}; remove it, and it is prepared again: rm -r {folder}"
    )


def test_where_the_files_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYSWEEP_DATA", raising=False)
    assert data_root(DataConfig(), tmp_path) == tmp_path / "data"
    monkeypatch.setenv("RAYSWEEP_DATA", "/somewhere")
    assert data_root(DataConfig(), tmp_path) == Path("/somewhere")
    assert data_root(DataConfig(path="mine"), tmp_path) == tmp_path / "mine"


def test_open_data_uses_the_cache_that_the_environment_names(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSWEEP_CACHE", str(cache))
    data = open_data(DataConfig(name="synthetic", classes=2, per_class=4), sweep_folder=tmp_path)
    assert len(data.train) == 8
    assert len(list((cache / "sets").iterdir())) == 1


# --- the prepared set


def test_read_only_arrays_become_tensors_without_copy_or_warning(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    data = prepared(tmp_path, cache, test="val.parquet")
    arrays = data.to_arrays()
    for name, array in arrays.items():
        if isinstance(array, np.ndarray):
            arrays[name] = array.view()
            arrays[name].flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = DataSet.from_arrays(arrays)
    assert back.train.images.data_ptr() == data.train.images.data_ptr()
    assert torch.equal(back.val.images, data.val.images)
    assert back.test is not None
    assert (back.classes, back.mean, back.std, back.fingerprint) == (
        data.classes, data.mean, data.std, data.fingerprint,
    )  # fmt: skip


def test_a_prepared_set_is_mapped_such_that_nothing_can_write_to_it(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    data = prepared(tmp_path, cache)
    maps = [line.split()[1] for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line]
    assert (len(data.train), len(maps), set(maps)) == (12, 4, {"r--s"})


def test_normalisation_by_name_or_numbers(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    data = prepared(tmp_path, cache)
    assert mean_std("half", data) == ((0.5,) * 3, (0.5,) * 3)
    assert mean_std("imagenet", data)[0] == (0.485, 0.456, 0.406)
    assert mean_std("dataset", data)[0] == data.mean
    assert min(mean_std("dataset", data)[1]) > 0, "a channel that never varies"
    assert mean_std(MeanStd(mean=(0, 0, 0), std=(1, 1, 1)), data) == ((0, 0, 0), (1, 1, 1))


# --- faults


def test_absent_files_say_where_was_looked_and_how_to_set_it(tmp_path: Path, cache: Path) -> None:
    message = fault(tmp_path / "nowhere", cache)
    for part in (str(tmp_path / "nowhere/train.parquet"), "data.path", "RAYSWEEP_DATA"):
        assert part in message


@pytest.mark.parametrize(
    "broken", [b"\x89PNG\r\n\x1a\n nonsense", png()[:-30], b"", None], ids=["garbage", "truncated", "empty", "missing"]
)
def test_undecodable_image_is_named_by_row(tmp_path: Path, cache: Path, broken: bytes | None) -> None:
    write_small(tmp_path)
    images: list[bytes | None] = [png((i, 0, 0)) for i in range(8)]
    images[5] = broken
    write_parquet(tmp_path / "train.parquet", images, [0, 1] * 4)
    assert "train.parquet: row 5: cannot decode: " in fault(tmp_path, cache)
    data = prepared(tmp_path, cache, on_corrupt="skip")
    assert (len(data.train), data.skipped) == (7, 1)
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 0, 1]
    assert data.train.images[:, 0, 4, 4].tolist() == [0, 1, 2, 3, 4, 6, 7]


def test_all_undecodable_rows_of_all_splits_are_named_at_once(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    write_parquet(tmp_path / "train.parquet", [png(), b"x", png(), png(), None], [0, 0, 1, 1, 0])
    write_parquet(tmp_path / "val.parquet", [b"y"], [0])
    *lines, advice = fault(tmp_path, cache).splitlines()
    assert [line.partition(": cannot")[0] for line in lines] == [
        f"{tmp_path}/train.parquet: row 1",
        f"{tmp_path}/train.parquet: row 4",
        f"{tmp_path}/val.parquet: row 0",
    ]
    assert "on_corrupt: skip" in advice


def test_too_little_room_for_the_prepared_images_is_told_before_writing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2000}))
    assert "the prepared images take 2.69 kB, 2 kB are free; set a smaller data.image_size" in fault(tmp_path, cache)


def test_room_is_looked_for_before_anything_is_decoded_where_the_size_is_given(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 600}))
    monkeypatch.setattr("raysweep.vision.data.prepare.decode_all", lambda *_: pytest.fail("an image is decoded"))
    assert "the prepared images take 672 B, 600 B are free" in fault(tmp_path, cache, image_size=4)


def test_cache_that_is_no_folder_is_named(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    cache.write_text("a file")
    with pytest.raises(DataError, match="cannot write the cache"):
        prepared(tmp_path, cache)


def test_class_whose_images_are_all_corrupt_is_a_fault_even_when_skipping(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    write_parquet(tmp_path / "train.parquet", [png(), b"x"], [0, 1])
    assert "no training images for class 1 (1)" in fault(tmp_path, cache, on_corrupt="skip")


def test_decompression_bomb_is_refused(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    write_parquet(tmp_path / "train.parquet", [png(), png(0, (9000, 9000), "1")], [0, 1])
    assert "row 1: cannot decode: too large" in fault(tmp_path, cache, image_size=8)


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([0, 1, 2, 1], pa.int16(), "train.parquet: row 2: label 2 is out of range, must be 0..1"),
        ([0, -1, 0, 1], pa.int64(), "train.parquet: row 1: label -1 is out of range, must be 0..1"),
        ([0, 1, None, 1], pa.int16(), "train.parquet: row 2: has no label"),
        ([0.0, 1.0, 0.5, 1.0], pa.float64(), "column 'label' is double, must be an integer type"),
        (["a", "b", "a", "b"], pa.string(), "column 'label' is string, must be an integer type"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, cache: Path, labels: list[Any], kind: Any, message: str) -> None:
    write_small(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    write_parquet(tmp_path / "train.parquet", [png()] * 4, labels, kind)
    assert message in fault(tmp_path, cache)


def test_absent_column_is_named_beside_those_there_are(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), tmp_path / "train.parquet")
    assert "no column 'image'; it has picture, label" in fault(tmp_path, cache)


def test_unreadable_parquet_is_named(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no more")
    assert "train.parquet: not a readable Parquet file" in fault(tmp_path, cache)


def test_class_without_images_is_named(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\nemu\n")
    assert f"{tmp_path}: no training images for class 2 (emu)" in fault(tmp_path, cache)


def test_more_classes_than_there_are(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path)
    assert "data.classes: got 5, but parquet has 2 classes" in fault(tmp_path, cache, classes=5)


@pytest.mark.parametrize("size", [(9, 9), (8, 9)])
def test_images_of_several_sizes_ask_for_image_size(tmp_path: Path, cache: Path, size: tuple[int, int]) -> None:
    write_small(tmp_path)
    write_parquet(tmp_path / "train.parquet", [png(), png(size=size)], [0, 1])
    message = fault(tmp_path, cache)
    assert f"row 1: the image is {size[0]} x {size[1]} pixels" in message
    assert "set data.image_size" in message
    assert prepared(tmp_path, cache, image_size=10).image_size == 10


def test_validation_file_and_fraction_exclude_each_other(tmp_path: Path, cache: Path) -> None:
    assert "set one of the two" in fault(tmp_path, cache, val="val.parquet", val_fraction=0.5)


def test_file_names_cannot_leave_the_folder(tmp_path: Path, cache: Path) -> None:
    write_small(tmp_path / "in")
    write_small(tmp_path)
    assert "leads out of" in fault(tmp_path / "in", cache, val="../val.parquet")
