"""The winner's evaluation at the end of a run, and a pulled checkpoint's predictions: the same numbers everywhere."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysweep.cli import main
from raysweep.errors import SweepFileError
from raysweep.results.evaluation import (
    FILE,
    Accuracies,
    Evaluation,
    is_wanted,
    read_evaluation,
    views_to_evaluate,
    write_evaluation,
)
from raysweep.results.mistakes import FILE as MISTAKES
from raysweep.results.mistakes import read_mistakes
from raysweep.store import Record, RunFolder
from raysweep.sweepfile import load_sweep
from raysweep.vision.config import DataConfig
from raysweep.vision.data import open_data
from raysweep.vision.tta import MOST_VIEWS

SWEEP = """
name: tested
base:
  data: {{name: parquet, path: {path}, test: test.parquet}}
  model: {{name: baseline_block, width: 4}}
  epochs: 3
  batch_size: 32
grid: {{lr: [0.1, 0.01]}}
{rest}
"""


def committed(folder, weights=b"weights", **changes):
    record = Record(id="a", name="a", seed=0, axes={}, config={}, epochs=1, status="finished")
    return folder.commit(record.with_(**changes), {"best": weights}, keep=("best",))


def evaluation_of(record, rows):
    return Evaluation(record.id, 1, False, record.weights["best"].sha256, [Accuracies(*row) for row in rows])


def test_an_evaluation_is_read_as_written_and_a_torn_one_is_none(tmp_path):
    folder = RunFolder(str(tmp_path), "run")
    written = evaluation_of(committed(folder), [(0, 0.5, 0.25), (8, 0.75, None)])
    write_evaluation(folder, written)
    assert read_evaluation(folder) == written
    assert written.test_acc == 0.25
    content = folder.files.read(FILE)
    for torn in (content[: len(content) // 2], b"{}", b"[]", content.replace(b"accuracies", b"accuracy")):
        folder.files.write(FILE, torn)
        assert read_evaluation(folder) is None


@pytest.mark.parametrize(
    ("asked", "test_images", "views"),
    [([], 0, []), ([], 5, [0]), ([8], 0, [8]), ([8], 5, [0, 8]), ([8, 0, 8], 5, [0, 8])],
)
def test_the_test_split_is_measured_without_augmentation_whatever_the_file_asks(tmp_path, asked, test_images, views):
    record = committed(RunFolder(str(tmp_path), "run"), conditions={"test_images": test_images})
    assert views_to_evaluate(record, asked) == views


def test_an_evaluation_is_wanted_until_it_is_of_these_weights_and_has_all_views(tmp_path):
    folder = RunFolder(str(tmp_path), "run")
    record = committed(folder)
    assert not is_wanted(folder, None, [0])
    assert not is_wanted(folder, record, [])
    assert is_wanted(folder, record, [0, 8])
    write_evaluation(folder, evaluation_of(record, [(0, 0.5, None)]))
    assert not is_wanted(folder, record, [0])
    assert is_wanted(folder, record, [0, 8])
    assert is_wanted(folder, committed(folder, b"other weights"), [0])
    assert not is_wanted(folder, folder.commit(record, {}, keep=()), [0, 8]), "its weights are gone"


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (f"{{tta: [0, {MOST_VIEWS + 1}]}}", f"s.yaml:2: evaluate.tta.1: got {MOST_VIEWS + 1}, must be at most 10"),
        ("{tta: [-1]}", "evaluate.tta.0: got -1, must be at least 0"),
        ("{tta: 8}", "evaluate.tta: got 8, must be a list"),
        ("{ttaa: [8]}", "evaluate.ttaa: unknown key (did you mean 'tta'?)"),
    ],
)
def test_views_that_are_none_are_refused_with_their_line(tmp_path, evaluate, message):
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\nevaluate: {evaluate}\n")
    with pytest.raises(SweepFileError) as error:
        load_sweep(path)
    assert message in str(error.value)
    path.write_text("name: s\n")
    assert load_sweep(path, [f"evaluate.tta=[0, {MOST_VIEWS}]"]).evaluate.tta == [0, MOST_VIEWS]


# -------------------------------------------------------------------------- on a real Ray


def write_parquet(path, split, rows=None):
    images = []
    for image in split.images[:rows]:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        images.append(buffer.getvalue())
    pq.write_table(pa.table({"image": images, "label": split.labels[:rows].tolist()}), path)


@pytest.fixture
def sweep(command):
    """A sweep file on data with a test split, to be completed with further sections."""
    data = open_data(DataConfig(name="synthetic", image_size=12, classes=3, per_class=60), sweep_folder=command.folder)
    folder = command.folder / "data"
    folder.mkdir()
    write_parquet(folder / "train.parquet", data.train)
    write_parquet(folder / "val.parquet", data.val, 20)
    write_parquet(folder / "test.parquet", type(data.val)(data.val.images[20:], data.val.labels[20:]))

    def written(rest=""):
        path = command.folder / "tested.yaml"
        path.write_text(SWEEP.format(path=folder, rest=rest))
        return path

    return written


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_the_winner_is_evaluated_once_and_its_numbers_are_those_of_predict(command, sweep, capsys):
    path = sweep("evaluate: {tta: [0, 8]}")
    out, err = command(path, "--json")
    document = json.loads(out)
    best, evaluation = document["trials"][0], document["evaluation"]
    assert evaluation["id"] == best["id"]
    assert [row["tta"] for row in evaluation["accuracies"]] == [0, 8]
    assert evaluation["accuracies"][0]["val_acc"] == best["val_acc"]
    assert evaluation["test_acc"] == evaluation["accuracies"][0]["test_acc"]
    assert "tta 8" in err

    status = ["status", str(path), "--storage", str(command.folder / "runs")]
    assert main([*status, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] == evaluation
    assert main(status) == 0
    assert "the image alone" in capsys.readouterr().out
    pulled = json.loads(command("pull", path, "--json")[0])["path"]
    assert json.loads((command.folder / pulled / "metrics.json").read_text())["evaluation"] == evaluation
    for row in evaluation["accuracies"]:
        for split in ("val", "test"):
            images = command.folder / "data" / f"{split}.parquet"
            capsys.readouterr()
            assert main(["predict", pulled, str(images), "--tta", str(row["tta"]), "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["accuracy"] == row[f"{split}_acc"]

    run = RunFolder(str(command.folder / "runs"), "tested")
    mistakes = read_mistakes(run)
    assert mistakes is not None
    assert mistakes.rival is not None
    assert (mistakes.winner.correct.mean(), mistakes.test_correct.mean()) == (best["val_acc"], evaluation["test_acc"])
    assert mistakes.thumbnails

    files = [command.folder / "runs/tested" / name for name in (FILE, MISTAKES)]
    before = [file.stat().st_mtime_ns for file in files]
    command(path)
    assert [file.stat().st_mtime_ns for file in files] == before, "evaluated again, though nothing changed"
    out, err = command(sweep("evaluate: {tta: [0, 2, 8]}"), "report.images=false", "--json")
    mistakes = read_mistakes(run)
    assert mistakes is not None
    assert not mistakes.thumbnails
    assert "nothing is left to train (2 trials done)" in err
    more = json.loads(out)["evaluation"]["accuracies"]
    assert [row for row in more if row["tta"] != 2] == evaluation["accuracies"]
    assert len(more) == 3


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.long
def test_a_test_split_is_measured_unasked_and_an_evaluation_that_fails_is_said_and_tried_again(command, sweep):
    path = sweep()
    evaluation = json.loads(command(path, "--json")[0])["evaluation"]
    assert [row["tta"] for row in evaluation["accuracies"]] == [0]
    assert 0 <= evaluation["test_acc"] <= 1
    (command.folder / "runs/tested" / FILE).unlink()
    test = command.folder / "data/test.parquet"
    test.rename(test.with_suffix(".away"))
    _, err = command(path, code=1)
    assert "its evaluation failed" in err
    assert "test.parquet" in err
    test.with_suffix(".away").rename(test)
    assert json.loads(command(path, "--json")[0])["evaluation"] == evaluation


@pytest.mark.long
@pytest.mark.timeout(400)
def test_without_a_test_split_or_views_asked_for_no_accuracy_is_measured_again(command):
    assert json.loads(command(command.sweep("[0.1]"), "--json")[0])["evaluation"] is None
    assert not (command.folder / "runs/small" / FILE).exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_predict_on_real_validation_images_has_the_recorded_val_acc(command, shared):
    """Tiny ImageNet, from the command that trains to the one that predicts; JPEG files in class folders, and a CSV."""
    source = shared / "data/tiny-imagenet-200"
    path = command.folder / "real.yaml"
    path.write_text(
        f"""
name: real
base:
  data: {{name: parquet, path: {source}, image_size: 40, classes: 10, per_class: 50}}
  model: {{name: resnet18, width: 8}}
  epochs: 2
  augment: jitter
  normalize: imagenet
"""
    )
    command(path)
    pulled = json.loads(command("pull", path, "--json")[0])
    classes = (command.folder / pulled["path"] / "classes.txt").read_text().splitlines()
    files = []
    for number, row in enumerate(pq.read_table(source / "val.parquet").to_pylist()):
        if row["label"] < 10:
            file = command.folder / "val" / classes[row["label"]] / f"{number}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(row["image"])
            files.append((file.relative_to(command.folder), classes[row["label"]]))
    with (command.folder / "val.csv").open("w", newline="") as listed:
        csv.writer(listed).writerows([("file", "class"), *files])
    assert len(files) == 500
    for images in ("val", "val.csv", source / "val.parquet"):
        out = json.loads(command("predict", pulled["path"], images, "--csv", "out.csv", "--json")[0])
        assert (out["labelled"], out["accuracy"]) == (500, pulled["val_acc"])
    assert 0.1 < pulled["val_acc"] < 1
