"""`raysweep predict` on a pulled folder: its CSV and accuracy, from folders, archives, CSV and Parquet files."""

import csv
import io
import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save

import raysweep
from raysweep.cli import main
from raysweep.errors import UserError
from raysweep.halving.scores import best_epoch
from raysweep.store import Record, RunFolder
from raysweep.sweepfile import load_sweep, storage_of
from raysweep.sweepfile.plan import plan_trials
from raysweep.vision.data import DataSet, mean_std, open_data
from raysweep.vision.device import resolve_device, resolve_precision
from raysweep.vision.loop import train

SWEEP = """
name: tiny
base:
  data: {name: synthetic, image_size: 12, classes: 3, per_class: 40}
  model: {name: baseline_block, width: 4}
  epochs: 3
  batch_size: 32
  normalize: dataset
"""


@dataclass(frozen=True)
class Pulled:
    folder: Path
    val_acc: float
    data: DataSet


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Pulled:
    """A checkpoint trained without Ray, committed and pulled."""
    place = tmp_path_factory.mktemp("predict")
    path = place / "tiny.yaml"
    path.write_text(SWEEP)
    sweep = load_sweep(path)
    (trial,) = plan_trials(sweep)
    data = open_data(trial.config.data, sweep_folder=place)
    metrics = []
    for epoch in train(trial.config, data, seed=trial.seed):
        metrics.append({"epoch": epoch.number, **epoch.metrics})
        best = best_epoch(metrics, sweep.objective)
        if best and best.epoch == epoch.number:
            weights = epoch.weights(best.averaged)
    mean, std = mean_std(trial.config.normalize, data)
    conditions = {
        "precision": resolve_precision(trial.config, resolve_device("auto")),
        "classes": data.classes,
        "mean": mean,
        "std": std,
    }
    record = Record(
        id=trial.id,
        name=trial.name,
        seed=trial.seed,
        axes={},
        config=trial.config.model_dump(mode="json"),
        epochs=3,
        status="finished",
        metrics=metrics,
        best=best,
        conditions={**json.loads(json.dumps(conditions)), "image_size": data.image_size},
    )
    folder = RunFolder(storage_of(sweep, path), sweep.name)
    folder.commit(record, {"best": save(weights)}, keep=("best",))
    planned = {"id": trial.id, "name": trial.name, "seed": 0, "axes": {}, "epochs": 3, "config": record.config}
    folder.files.write("resolved.yaml", json.dumps({"sweep": {"objective": {}}, "trials": [planned]}).encode())
    assert main(["pull", str(path), "--to", str(place / "best")]) == 0
    assert 0.34 < best.val_acc < 1, "an accuracy that says nothing about agreement"
    return Pulled(place / "best", best.val_acc, data)


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(pulled: Pulled, folder: Path, by_class: bool = True) -> dict[str, str]:
    """The validation images as PNG files; returns the class of each file."""
    written = {}
    for number, (image, label) in enumerate(zip(pulled.data.val.images, pulled.data.val.labels, strict=True)):
        name = pulled.data.classes[label]
        file = f"{name}/sub/{number}.png" if by_class else f"{number}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(png(image))
        written[file] = name
    return written


def predicted(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    capsys.readouterr()
    assert main(["predict", "--json", *map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main(["predict", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_accuracy_on_the_validation_images_as_files_is_the_recorded_one(pulled, tmp_path, capsys):
    write_images(pulled, tmp_path / "val")
    result = predicted(capsys, pulled.folder, tmp_path / "val")
    assert result["accuracy"] == pulled.val_acc
    assert result["images"] == result["labelled"] == len(pulled.data.val)


def test_csv_has_the_class_and_probability_of_every_file_and_is_read_again_as_labels(pulled, tmp_path, capsys):
    written = write_images(pulled, tmp_path / "val")
    out = tmp_path / "val" / "out.csv"
    assert predicted(capsys, pulled.folder, tmp_path / "val", "--csv", out)["csv"] == str(out)
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert list(rows[0]) == ["file", "class", "probability", "truth"]
    assert {row["file"]: row["truth"] for row in rows} == written
    assert [row["file"] for row in rows] == sorted(written)
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    right = sum(row["class"] == written[row["file"]] for row in rows)
    assert right / len(rows) == pulled.val_acc
    assert predicted(capsys, pulled.folder, out)["accuracy"] == 1


def test_without_a_csv_the_rows_are_printed_and_the_accuracy_said_beside_them(pulled, tmp_path, capsys):
    written = write_images(pulled, tmp_path / "val")
    capsys.readouterr()
    assert main(["predict", str(pulled.folder), str(tmp_path / "val")]) == 0
    captured = capsys.readouterr()
    assert [row["file"] for row in csv.DictReader(io.StringIO(captured.out))] == sorted(written)
    assert f"accuracy {100 * pulled.val_acc:.2f} %" in captured.err


def test_images_in_no_class_folder_are_classified_without_an_accuracy(pulled, tmp_path, capsys):
    write_images(pulled, tmp_path / "photos", by_class=False)
    result = predicted(capsys, pulled.folder, tmp_path / "photos")
    assert result["accuracy"] is None
    assert result["images"] == len(result["predictions"]) == len(pulled.data.val)
    assert result["predictions"][0].keys() == {"file", "class", "probability"}
    assert (result["top_accuracy"], result["classes"]) == (None, [])


def test_accuracy_counts_only_images_whose_label_is_known(pulled, tmp_path, capsys):
    write_images(pulled, tmp_path / "val")
    (tmp_path / "val" / "a.png").write_bytes(png(pulled.data.val.images[0]))
    result = predicted(capsys, pulled.folder, tmp_path / "val")
    assert result["accuracy"] == pulled.val_acc
    assert result["labelled"] == result["images"] - 1
    assert next(row["truth"] for row in result["predictions"] if row["file"] == "a.png") is None


def test_a_folder_that_is_no_class_among_others_that_are_is_refused_with_its_name_and_the_classes(
    pulled, tmp_path, capsys
):
    write_images(pulled, tmp_path / "val")
    (tmp_path / "val" / "synthetic_1").mkdir()
    (tmp_path / "val" / "synthetic_1" / "a.png").write_bytes(png(pulled.data.val.images[0]))
    error = refused(capsys, pulled.folder, tmp_path / "val")
    assert f"{tmp_path}/val: folder 'synthetic_1' is no class of the checkpoint (did you mean 'synthetic-1'?)" in error
    assert "its classes are synthetic-0, synthetic-1, synthetic-2" in error


def test_the_accuracy_of_each_class_comes_with_its_interval_the_worst_first(pulled, tmp_path, capsys):
    written = write_images(pulled, tmp_path / "val")
    result = predicted(capsys, pulled.folder, tmp_path / "val")
    right = [row["truth"] for row in result["predictions"] if row["truth"] == row["class"]]
    assert {each["class"]: (each["right"], each["images"]) for each in result["classes"]} == {
        name: (right.count(name), [*written.values()].count(name)) for name in pulled.data.classes
    }
    accuracies = [each["accuracy"] for each in result["classes"]]
    assert accuracies == sorted(accuracies)
    assert all(each["low"] < each["accuracy"] <= each["high"] for each in result["classes"] if each["accuracy"])
    main(["predict", str(pulled.folder), str(tmp_path / "val")])
    table = capsys.readouterr().err
    assert re.search(rf"{result['classes'][0]['class']} +\d+ +{100 * accuracies[0]:.2f} % +\d", table)


def test_top_k_has_the_most_probable_classes_in_their_order_and_how_often_the_label_is_among_them(
    pulled, tmp_path, capsys
):
    write_images(pulled, tmp_path / "val")
    result = predicted(capsys, pulled.folder, tmp_path / "val", "--top", 2)
    row = result["predictions"][0]
    assert list(row) == ["file", "class", "probability", "truth", "class_2", "probability_2"]
    assert row["probability"] >= row["probability_2"] >= 0
    among = [row["truth"] in (row["class"], row["class_2"]) for row in result["predictions"]]
    assert result["accuracy"] == pulled.val_acc
    assert pulled.val_acc < result["top_accuracy"] == sum(among) / len(among)
    assert predicted(capsys, pulled.folder, tmp_path / "val", "--top", 3)["top_accuracy"] == 1
    assert "--top 4: must be 1 to 3" in refused(capsys, pulled.folder, tmp_path / "val", "--top", 4)
    main(["predict", str(pulled.folder), str(tmp_path / "val"), "--top", "2"])
    assert f"top-2 accuracy {100 * result['top_accuracy']:.2f} %" in capsys.readouterr().err


def test_single_files_are_classified_as_in_their_folder_and_stand_beside_folders(pulled, tmp_path, capsys):
    written = write_images(pulled, tmp_path / "val")
    whole = {row["file"]: row["class"] for row in predicted(capsys, pulled.folder, tmp_path / "val")["predictions"]}
    first, second = sorted(written)[:2]
    result = predicted(capsys, pulled.folder, tmp_path / "val" / second, tmp_path / "val" / first)
    assert [(row["file"], row["class"]) for row in result["predictions"]] == [
        (str(tmp_path / "val" / file), whole[file]) for file in (second, first)
    ]
    assert result["labelled"] == 0
    result = predicted(capsys, pulled.folder, tmp_path / "val" / first, tmp_path / "val")
    assert (result["labelled"], result["images"]) == (len(written), len(written) + 1)
    assert result["accuracy"] == pulled.val_acc
    assert result["predictions"][1]["file"] == f"{tmp_path}/val/{first}"
    assert f"{tmp_path}/no.png: no such file" in refused(capsys, pulled.folder, tmp_path / "no.png")


def rename_classes(pulled: Pulled, folder: Path, name_of) -> None:
    write_images(pulled, folder)
    for label, name in enumerate(pulled.data.classes):
        (folder / name).rename(folder / f"new-{label}")
    for label in range(len(pulled.data.classes)):
        (folder / f"new-{label}").rename(folder / name_of(label))


def test_as_many_other_folders_as_classes_are_the_classes_in_sorted_order_and_that_is_said(pulled, tmp_path, capsys):
    rename_classes(pulled, tmp_path / "val", lambda label: f"n0{label}443537")
    result = predicted(capsys, pulled.folder, tmp_path / "val")
    assert (result["accuracy"], result["labelled_by"]) == (pulled.val_acc, "folders in sorted order as the classes")
    assert main(["predict", str(pulled.folder), str(tmp_path / "val"), "--csv", str(tmp_path / "out.csv")]) == 0
    assert "taking folders in sorted order as the classes" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "val" / "n00443537")
    assert predicted(capsys, pulled.folder, tmp_path / "val")["accuracy"] is None


def test_folders_named_by_numbers_are_labels(pulled, tmp_path, capsys, monkeypatch):
    copy = shutil.copytree(pulled.folder, tmp_path / "copy")
    (copy / "classes.txt").write_text("cat\ndog\nowl\n")
    rename_classes(pulled, tmp_path / "val", lambda label: f"0{label}")
    result = predicted(capsys, copy, tmp_path / "val")
    assert (result["accuracy"], result["labelled_by"]) == (pulled.val_acc, "folders' names as numbers of classes")


def test_a_zip_archive_is_read_in_place(pulled, tmp_path, capsys):
    written = write_images(pulled, tmp_path / "val")
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        for file in written:
            archive.write(tmp_path / "val" / file, file)
    assert predicted(capsys, pulled.folder, tmp_path / "val.zip")["accuracy"] == pulled.val_acc


def test_a_csv_names_files_and_classes_and_may_leave_classes_out(pulled, tmp_path, capsys):
    written = write_images(pulled, tmp_path / "images", by_class=False)
    listed = tmp_path / "list.csv"
    listed.write_text("file,class\n" + "".join(f"{file},{name}\n" for file, name in written.items()))
    assert predicted(capsys, pulled.folder, listed)["accuracy"] == pulled.val_acc
    listed.write_text("file\n" + "".join(f"images/{file}\n" for file in written))
    result = predicted(capsys, pulled.folder, listed)
    assert (result["accuracy"], result["images"]) == (None, len(written))


def test_a_parquet_file_of_the_validation_images_agrees_and_unknown_labels_do_not_count(pulled, tmp_path, capsys):
    images = [png(image) for image in pulled.data.val.images]
    labels = pulled.data.val.labels.tolist()
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "val.parquet")
    result = predicted(capsys, pulled.folder, tmp_path / "val.parquet")
    assert result["accuracy"] == pulled.val_acc
    assert result["predictions"][0]["file"] == "val.parquet: row 0"
    pq.write_table(pa.table({"image": [*images, images[0]], "label": [*labels, 7]}), tmp_path / "more.parquet")
    result = predicted(capsys, pulled.folder, tmp_path / "more.parquet")
    assert (result["accuracy"], result["labelled"]) == (pulled.val_acc, len(images))


def test_labels_of_a_parquet_file_with_its_own_classes_go_by_name(pulled, tmp_path, capsys):
    names = list(reversed(pulled.data.classes))
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    labels = [names.index(pulled.data.classes[label]) for label in pulled.data.val.labels]
    images = [png(image) for image in pulled.data.val.images]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "val.parquet")
    assert predicted(capsys, pulled.folder, tmp_path / "val.parquet")["accuracy"] == pulled.val_acc


def test_larger_images_are_resized_as_the_data_preparation_does(pulled, tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    large = torch.randint(0, 256, (3, 40, 31), dtype=torch.uint8, generator=generator)
    small = Image.open(io.BytesIO(png(large))).resize((12, 12), Image.Resampling.BICUBIC)
    (tmp_path / "large.png").write_bytes(png(large))
    small.save(tmp_path / "small.png")
    first, second = predicted(capsys, pulled.folder, tmp_path)["predictions"]
    assert (first["file"], second["file"]) == ("large.png", "small.png")
    assert first["probability"] == second["probability"]


def test_tta_changes_probabilities_and_one_view_is_none(pulled, tmp_path, capsys):
    write_images(pulled, tmp_path / "val")
    rows = [predicted(capsys, pulled.folder, tmp_path / "val", "--tta", n)["predictions"] for n in (0, 1, 8)]
    assert rows[0] == rows[1] != rows[2]


def test_a_corrupt_image_is_named_or_skipped_and_counted(pulled, tmp_path, capsys):
    write_images(pulled, tmp_path / "val")
    (tmp_path / "val" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    error = refused(capsys, pulled.folder, tmp_path / "val", "--csv", tmp_path / "out.csv")
    assert "torn.png: cannot decode" in error
    assert not (tmp_path / "out.csv").exists()
    result = predicted(capsys, pulled.folder, tmp_path / "val", "--on-corrupt", "skip")
    assert (result["skipped"], result["accuracy"]) == (1, pulled.val_acc)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\na.png\n", "the first line must name a column `file`; it has name"),
        ("file,class\na.png,nonesuch\n", "list.csv:2: unknown class 'nonesuch'"),
        ("file,class\n,0\n", "list.csv:2: has no file name"),
        ("file,class\n", "has no images"),
        ("file\nabsent.png\n", "absent.png: cannot read: No such file"),
    ],
)
def test_a_csv_that_says_nothing_useful_ends_with_exit_2(pulled, tmp_path, capsys, text, message):
    (tmp_path / "list.csv").write_text(text)
    assert message in refused(capsys, pulled.folder, tmp_path / "list.csv")


def test_what_is_not_there_ends_with_exit_2(pulled, tmp_path, capsys):
    assert "no such folder" in refused(capsys, pulled.folder, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "has no images" in refused(capsys, pulled.folder, tmp_path / "empty")
    assert "--tta 11: must be 0 to 10" in refused(capsys, pulled.folder, tmp_path, "--tta", 11)
    assert "--csv" in refused(capsys, pulled.folder, tmp_path, "--csv", tmp_path / "absent" / "out.csv")
    assert "not a pulled checkpoint: no model.safetensors" in refused(capsys, tmp_path / "empty", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"torn", "not as pull wrote it: model.safetensors does not have the checksum"),
        ("classes.txt", b"a\nb\n", "not as pull wrote it: classes.txt names 2 classes"),
        ("config.yaml", b"config: {", "not as pull wrote it"),
        ("config.yaml", b"config: {}\n", "not as pull wrote it"),
        (
            "config.yaml",
            b"config: {}\ninput: {mean: [0, 0, 0], std: [1, 1, 1], image_size: 8, precision: fp32}",
            "not as pull wrote it: 'model'",
        ),
        ("metrics.json", b"{}", "not as pull wrote it"),
    ],
)
def test_a_pulled_folder_that_is_not_whole_is_said_to_be_so(pulled, tmp_path, capsys, file, content, message):
    broken = shutil.copytree(pulled.folder, tmp_path / "broken")
    (broken / file).write_bytes(content)
    assert message in refused(capsys, broken, tmp_path)


def test_a_network_that_is_not_registered_names_the_option_that_does(pulled, tmp_path, capsys):
    copy = shutil.copytree(pulled.folder, tmp_path / "copy")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("name: baseline_block", "name: my_own"))
    error = refused(capsys, copy, tmp_path)
    assert "unknown network 'my_own'" in error
    assert "--import" in error


def test_a_folder_needs_no_module_of_its_data_source_or_augmentation(pulled: Pulled, tmp_path: Path) -> None:
    folder = shutil.copytree(pulled.folder, tmp_path / "pulled")
    document = YAML(typ="safe").load(folder / "config.yaml")
    document["config"]["data"]["name"] = document["config"]["augment"] = "of_my_own"
    YAML(typ="safe").dump(document, folder / "config.yaml")
    assert raysweep.load_model(folder).training is False
    document["config"]["model"]["name"] = "of_my_own"
    YAML(typ="safe").dump(document, folder / "config.yaml")
    with pytest.raises(UserError, match=r"config.yaml: model: unknown network 'of_my_own'.*--import its module"):
        raysweep.load_model(folder)
