"""The sources of one's own images: folder, csv, archives, a source one registers; what they read and say of faults."""

from __future__ import annotations

import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import fault, prepared, reds, write_classes, write_image, zip_folder

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data import raw as raw_module
from raysweep.vision.data import tree as tree_module
from raysweep.vision.names import DATA_SOURCES

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", DATA_SOURCES.builtin)
def test_every_module_of_a_source_has_a_function_of_its_name(name: str) -> None:
    assert callable(DATA_SOURCES.get(name))


# --- folder


def test_folder_with_splits_is_numbered_as_imagefolder_does(root: Path, cache: Path) -> None:
    write_classes(root / "train", 10)
    write_classes(root / "val", 20)
    write_classes(root / "test", 30)
    write_image(root / "train" / "ant" / "deeper" / "x.PNG", 99)
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    write_image(root / "train" / "bee" / "._0.png", 77)
    data = prepared(root, cache, "folder")
    assert data.classes == ("ant", "bee")
    assert reds(data.train) == [10, 11, 99, 12, 13]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert (reds(data.val), reds(data.test)) == ([20, 21, 22, 23], [30, 31, 32, 33])


def test_classes_and_labels_are_torchvisions(root: Path, cache: Path) -> None:
    from torchvision.datasets import ImageFolder

    write_classes(root / "train", classes=("10", "9", "Zoë", "a b"), each=2)
    write_image(root / "train" / "9" / "deeper" / "x.PNG", 99)
    write_classes(root / "val", classes=("9",))
    theirs = ImageFolder(str(root / "train"))
    data = prepared(root, cache, "folder")
    assert list(data.classes) == theirs.classes
    assert data.train.labels.tolist() == theirs.targets
    assert reds(data.train) == [image.getpixel((0, 0))[0] for image, _ in theirs]


def test_one_tree_of_classes_is_split_by_fraction(root: Path, cache: Path) -> None:
    write_classes(root, each=10)
    data = prepared(root, cache, "folder", val_fraction=0.3)
    assert torch.bincount(data.train.labels).tolist() == [7, 7]
    assert sorted(reds(data.train) + reds(data.val)) == list(range(20))
    assert data.test is None
    assert len(prepared(root, cache, "folder").val) == 4, "a fifth, unless asked"


def test_a_class_may_be_called_train(root: Path, cache: Path) -> None:
    write_classes(root, classes=("bus", "train"), each=3)
    assert prepared(root, cache, "folder").classes == ("bus", "train")


def test_fraction_leaves_the_validation_folder_aside(root: Path, cache: Path) -> None:
    write_classes(root / "train", each=4)
    write_classes(root / "val", 50)
    assert max(reds(prepared(root, cache, "folder", val_fraction=0.25).val)) < 50


def test_splits_may_have_other_names(root: Path, cache: Path) -> None:
    write_classes(root / "learn", 10)
    write_classes(root / "check" / "it", 20)
    data = prepared(root, cache, "folder", train="learn", val="check/it")
    assert (reds(data.train), reds(data.val)) == ([10, 11, 12, 13], [20, 21, 22, 23])


@pytest.mark.parametrize("top", ["", "pets/"])
def test_a_zip_is_read_in_place_and_equals_its_folder(root: Path, cache: Path, top: str) -> None:
    write_classes(root / "train", 10)
    write_classes(root / "val", 20)
    archive = zip_folder(root, root.parent / "pets.zip", top)
    before = sorted(root.parent.rglob("*"))
    data = prepared(archive, cache, "folder")
    assert data.fingerprint == prepared(root, cache, "folder").fingerprint
    outside = [path for path in root.parent.rglob("*") if cache not in path.parents and path != cache]
    assert sorted(outside) == before, "nothing was extracted"


def test_a_linked_folder_is_followed_once(root: Path, cache: Path) -> None:
    write_classes(root)
    (root / "bee" / "loop").symlink_to(root / "bee")
    assert len(prepared(root, cache, "folder", val_fraction=0.5).train) == 2


def test_first_classes_and_images_of_each_are_taken(root: Path, cache: Path) -> None:
    write_classes(root / "train", classes=("a", "b", "c"), each=4)
    write_classes(root / "val", 100, classes=("a", "b", "c"))
    data = prepared(root, cache, "folder", classes=2, per_class=3)
    assert (reds(data.train), reds(data.val)) == ([0, 1, 2, 4, 5, 6], [100, 101, 102, 103])


def test_an_absent_folder_says_how_to_name_one(root: Path, cache: Path) -> None:
    message = fault(root / "none", cache, "folder")
    assert str(root / "none") in message
    assert "data.path" in message


@pytest.mark.parametrize("zipped", [False, True])
def test_class_without_images_is_named_with_its_path(root: Path, cache: Path, zipped: bool) -> None:
    write_classes(root / "train")
    (root / "train" / "cow").mkdir()
    (root / "train" / "cow" / "readme.txt").write_text("soon")
    place = zip_folder(root, root.parent / "x.zip") if zipped else root
    message = fault(place, cache, "folder")
    assert ("x.zip: train/cow" if zipped else f"{root}/train/cow") in message
    assert "the class has no images" in message


@pytest.mark.parametrize("loose", [False, True])
def test_folder_without_classes_is_named(root: Path, cache: Path, loose: bool) -> None:
    if loose:
        write_image(root / "0.png")
    message = fault(root, cache, "folder")
    assert message.startswith(str(root))
    assert "class folders" in message


def test_empty_split_folders_are_no_classes(root: Path, cache: Path) -> None:
    (root / "train").mkdir()
    (root / "val").mkdir()
    assert f"{root}/train: has no class folders" in fault(root, cache, "folder")


@pytest.mark.parametrize("keys", [{}, {"test": "test"}])
def test_test_split_without_labels_is_refused(root: Path, cache: Path, keys: dict[str, str]) -> None:
    write_classes(root / "train")
    write_image(root / "test" / "0.png")
    message = fault(root, cache, "folder", **keys)
    assert f"{root}/test: the test split has no labels" in message


def test_class_that_only_validation_has_is_answered_with_the_nearest(root: Path, cache: Path) -> None:
    write_classes(root / "train")
    write_classes(root / "val", classes=("ants", "bee"))
    message = fault(root, cache, "folder")
    assert f"{root}/val/ants: class 'ants' has no training images (did you mean 'ant'?)" in message


def test_all_corrupt_images_are_named_at_once_up_to_a_number(root: Path, cache: Path) -> None:
    write_classes(root / "train", each=15)
    write_classes(root / "val", each=15)
    for path in root.rglob("?.png"):
        path.write_bytes(path.read_bytes()[:40])
    message = fault(root, cache, "folder")
    lines = message.splitlines()
    assert len(lines) == raw_module.MAX_NAMED + 2
    assert lines[0].startswith(f"{root}/train/ant/0.png: cannot decode: ")
    assert lines[-2] == "... and 20 more"
    assert "on_corrupt: skip" in lines[-1]
    data = prepared(root, cache, "folder", on_corrupt="skip")
    assert data.skipped == 40
    assert torch.bincount(data.train.labels).tolist() == [5, 5]


# --- archives


def write_zip(path: Path, members: dict[str, bytes | zipfile.ZipInfo]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if isinstance(data, zipfile.ZipInfo):
                archive.writestr(data, "/etc/passwd")
            else:
                archive.writestr(name, data)
    return path


def symlink(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../../evil/a.png": b"x"}, "leads out of the archive's folder"),
        ({"/etc/a.png": b"x"}, "leads out of the archive's folder"),
        ({"..\\evil.png": b"x"}, "leads out of the archive's folder"),
        ({"a/link.png": symlink("a/link.png")}, "is a symbolic link"),
    ],
)
def test_zip_that_reaches_outside_its_folder_is_refused(
    root: Path, cache: Path, members: dict[str, bytes | zipfile.ZipInfo], message: str
) -> None:
    archive = write_zip(root / "evil.zip", members)
    before = sorted(root.parent.rglob("*"))
    said = fault(archive, cache, "folder")
    assert str(archive) in said
    assert message in said
    assert sorted(path for path in root.parent.rglob("*") if cache not in path.parents and path != cache) == before


def test_zip_bomb_is_refused_before_it_is_unpacked(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "MAX_TOTAL_BYTES", 2**20)
    bomb = write_zip(root / "bomb.zip", {f"train/{name}/0.png": bytes(2**20) for name in "ab"})
    assert bomb.stat().st_size < 10_000
    assert "would unpack to 2,097,152 bytes" in fault(bomb, cache, "folder")


def test_zip_with_too_many_members_is_refused(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "MAX_MEMBERS", 3)
    archive = write_zip(root / "many.zip", {f"a/{number}.png": b"" for number in range(4)})
    assert "has 4 members, at most 3" in fault(archive, cache, "folder")


def test_member_that_unpacks_to_more_than_it_says_is_cut_off(root: Path, cache: Path) -> None:
    """The directory of this archive says 100 bytes where there is a mebibyte."""
    honest = write_zip(
        root / "honest.zip", {"a/0.png": bytes(2**20)} | {f"{at}.png": b"x" for at in ("a/1", "b/0", "b/1")}
    )
    size = struct.pack("<L", 2**20)
    assert honest.read_bytes().count(size) == 2
    liar = root / "liar.zip"
    liar.write_bytes(honest.read_bytes().replace(size, struct.pack("<L", 100)))
    assert f"{liar}: a/0.png: cannot read: Bad CRC-32" in fault(liar, cache, "folder", val_fraction=0.5)


@pytest.mark.parametrize("keep", [0, 30, 400])
def test_unreadable_zip_is_named(root: Path, cache: Path, keep: int) -> None:
    write_classes(root / "in", each=6)
    archive = zip_folder(root / "in", root / "cut.zip")
    archive.write_bytes(archive.read_bytes()[:keep])
    assert f"{archive}: not a readable zip archive" in fault(archive, cache, "folder")


def test_damaged_member_is_one_corrupt_image(root: Path, cache: Path) -> None:
    write_classes(root / "in", each=6)
    archive = zip_folder(root / "in", root / "x.zip")
    with zipfile.ZipFile(archive) as file:
        offset = file.getinfo("bee/3.png").header_offset
    damaged = bytearray(archive.read_bytes())
    damaged[offset + 45] ^= 0xFF
    archive.write_bytes(damaged)
    assert f"{archive}: bee/3.png: cannot read" in fault(archive, cache, "folder")
    assert prepared(archive, cache, "folder", on_corrupt="skip").skipped == 1


# --- csv


def write_listed(root: Path, header: str = "file,class", folder: str = ".") -> None:
    for red in range(8):
        write_image(root / folder / f"{red}.png", red)
    lines = [f"{red}.png,{'dog' if red % 2 else 'cat'}" for red in range(8)]
    (root / "train.csv").write_text("\n".join([*([header] if header else []), *lines[:6]]) + "\n")
    (root / "val.csv").write_text("\n".join([*([header] if header else []), *lines[6:]]) + "\n")


@pytest.mark.parametrize("header", ["file,class", "Filename,Label", ""])
@pytest.mark.parametrize("folder", [".", "images"])
def test_csv_names_the_class_of_each_image(root: Path, cache: Path, header: str, folder: str) -> None:
    write_listed(root, header, folder)
    data = prepared(root, cache, "csv")
    assert data.classes == ("cat", "dog")
    assert (reds(data.train), reds(data.val)) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_csv_may_have_other_columns_and_quoted_names(root: Path, cache: Path) -> None:
    write_image(root / "a, b.png", 3)
    write_image(root / "c.png", 4)
    rows = 'probability,class,file\r\n0.5,cat,"a, b.png"\r\n0.6,dog,c.png\r\n\r\n'
    (root / "labels.csv").write_text(rows, encoding="utf-8-sig")
    (root / "val.csv").write_text(rows)
    assert reds(prepared(root, cache, "csv").train) == [3, 4]


def test_csv_classes_that_are_numbers_are_sorted_as_numbers(root: Path, cache: Path) -> None:
    for name in range(3):
        write_image(root / f"{name}.png")
    (root / "train.csv").write_text("file,class\n0.png,10\n1.png,9\n2.png,1\n")
    shutil.copy(root / "train.csv", root / "val.csv")
    assert prepared(root, cache, "csv").classes == ("1", "9", "10")


def test_csv_classes_txt_sets_the_order_and_the_test_file_is_read(root: Path, cache: Path) -> None:
    write_listed(root)
    (root / "classes.txt").write_text("dog\ncat\n")
    shutil.copy(root / "val.csv", root / "held.csv")
    data = prepared(root, cache, "csv", test="held.csv")
    assert data.classes == ("dog", "cat")
    assert data.train.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert reds(data.test) == [6, 7]


def test_csv_naming_missing_images_names_them_all_with_their_lines(root: Path, cache: Path) -> None:
    write_listed(root)
    for name in ("1.png", "4.png"):
        (root / name).unlink()
    for keys in ({}, {"on_corrupt": "skip"}):
        message = fault(root, cache, "csv", **keys)
        assert message.splitlines() == [
            f"{root}/train.csv:3: no image {root}/1.png",
            f"{root}/train.csv:6: no image {root}/4.png",
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file,class\n", "names no images"),
        ("file,class\n../0.png,cat\n", "leads out of"),
        ("file,class\n/etc/0.png,cat\n", "leads out of"),
        ("file,class\n0.png\n", "train.csv:2: has no class"),
        ("file,class\n,cat\n", "train.csv:2: has no file name"),
        ("file,class\n0.png,cat\n0.png,dog\n", "train.csv:3:"),
        ("file,breed\n0.png,cat\n", "no column `class`; it has file, breed"),
        ("id,breed,age\n0.png,cat,3\n", "must name the columns `file` and `class`; it has id, breed, age"),
        ('file,class\n0.png,"cat', "not a CSV file"),
    ],
)
def test_wrong_csv_is_told_where_and_why(root: Path, cache: Path, text: str, message: str) -> None:
    write_listed(root)
    (root / "train.csv").write_text(text)
    said = fault(root, cache, "csv")
    assert str(root / "train.csv") in said
    assert message in said


def test_csv_test_split_without_labels_is_refused(root: Path, cache: Path) -> None:
    write_listed(root)
    (root / "test.csv").write_text("file\n0.png\n")
    assert f"{root}/test.csv: has no labels: no column `class`; it has file" in fault(root, cache, "csv")


def test_csv_class_that_training_lacks_is_named(root: Path, cache: Path) -> None:
    write_listed(root)
    (root / "val.csv").write_text("file,class\n6.png,cot\n")
    assert f"{root}/val.csv:2: class 'cot' is not among the classes (did you mean 'cat'?)" in fault(root, cache, "csv")
    write_listed(root)
    (root / "classes.txt").write_text("cat\ndog\nemu\n")
    assert f"{root}/train.csv: class 'emu' of {root}/classes.txt has no images" in fault(root, cache, "csv")


# --- one's own


def test_a_source_of_ones_own_is_registered_and_prepared(root: Path, cache: Path) -> None:
    from raysweep import register_data
    from raysweep.vision.data import RawData, from_pixels

    @register_data("test_stripes")
    def stripes(config: DataConfig, root: Path) -> RawData:
        classes = ["dark", "light"]
        pixels = np.repeat(np.arange(0, 240, 10, dtype=np.uint8), 64).reshape(-1, 8, 8)
        return RawData(
            classes=lambda: classes,
            train=from_pixels(lambda: (pixels, np.arange(24) // 12), "stripes", lambda: classes),
            content="stripes 1",
        )

    data = prepared(root, cache, "test_stripes")
    assert data.classes == ("dark", "light")
    assert len(data.train) + len(data.val) == 24


def test_the_documents_own_source_works(root: Path, cache: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec(compile(code, "my_data", "exec", dont_inherit=True), {"__name__": "my_data"})
    for red in range(6):
        write_image(root / f"{'copepod' if red % 2 else 'diatom'}_{red:04}.png", red)
    data = prepared(root, cache, "plankton")
    assert data.classes == ("copepod", "diatom")
    assert sorted(reds(data.train) + reds(data.val)) == list(range(6))


def test_every_source_and_setting_is_documented() -> None:
    text = DOCUMENT.read_text()
    headings = " ".join(line for line in text.splitlines() if line.startswith("### "))
    assert [name for name in DATA_SOURCES.builtin if f"`{name}`" not in headings] == []
    settings = text[text.index("## Settings") : text.index("## Sources")]
    assert [name for name in DataConfig.model_fields if f"`{name}`" not in settings] == []


def test_tree_reads_text_and_names_what_is_not_text(root: Path) -> None:
    (root / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8 text"):
        tree_module.open_tree(root).text("a.txt")
    with pytest.raises(DataError, match=r"b\.txt: cannot read"):
        tree_module.open_tree(root).text("b.txt")


def test_many_small_files_held_at_once_take_no_memory_map_each(root: Path) -> None:
    """A process may have 65,530 of them, and Tiny ImageNet has 100,000 files."""
    (root / "a").write_bytes(b"small")
    maps = Path("/proc/self/maps")
    before = len(maps.read_text().splitlines())
    held = [raw_module.read_file(root / "a") for _ in range(1000)]
    assert len(maps.read_text().splitlines()) < before + 100
    assert set(held) == {b"small"}


def test_file_larger_than_is_read_is_one_corrupt_image(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(root, each=4)
    (root / "bee" / "1.png").write_bytes(bytes(3000))
    monkeypatch.setattr(raw_module.read_file, "__defaults__", (2000,))
    assert f"{root}/bee/1.png: is larger than 2,000 bytes" in fault(root, cache, "folder")
