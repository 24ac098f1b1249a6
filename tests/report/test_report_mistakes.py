"""What the report says of what the winner gets wrong."""

from __future__ import annotations

import base64
import re
from html import unescape
from pathlib import Path

import pytest
from run_folders import HTML, add_mistakes, make_run

from raysweep.report import write_report
from raysweep.report.content import gather
from raysweep.report.mistakes import WhatItGetsWrong
from raysweep.results.run import SweepResult, open_run
from raysweep.store import RunFolder

NAMES = ["cat", "dog", "owl"]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    make_run(tmp_path)
    return RunFolder(str(tmp_path / "runs"), "made")


def result(folder: RunFolder) -> SweepResult:
    return open_run(folder.path)


def section(folder: RunFolder) -> WhatItGetsWrong:
    found = gather(result(folder)).mistakes
    assert found is not None
    return found


def written(folder: RunFolder, name: str) -> str:
    write_report(result(folder))
    return folder.files.read(name).decode()


def test_without_mistakes_of_the_present_winner_there_is_no_such_section(folder: RunFolder) -> None:
    assert gather(result(folder)).mistakes is None
    assert "What it gets wrong" not in written(folder, "report.html")
    add_mistakes(folder, NAMES)
    assert "What it gets wrong" in written(folder, "report.html")
    winner = result(folder).best
    assert winner is not None
    folder.commit(winner, {"best": b"trained anew", "correct": folder.read_weights(winner, "correct") or b""})
    assert "What it gets wrong" not in written(folder, "report.html")


def test_classes_stand_with_both_accuracies_the_interval_and_what_they_are_taken_for(folder: RunFolder) -> None:
    mistakes = add_mistakes(folder, NAMES)
    found = section(folder)
    assert [row[0] for row in found.class_rows] == NAMES
    assert dict(zip(found.class_columns, found.class_rows[0], strict=True)) == {
        "class": "cat",
        "images": "4",
        "right": "75.00 %",
        "95 % interval": "30.1 to 95.4 %",
        "runner-up": "75.00 %",
        "most often taken for": "dog (1)",
    }
    assert found.pair_rows[0] == ["cat", "dog", "1", "25.0 %"]
    assert mistakes.rival is not None
    assert f"The best trial, {mistakes.winner.id}, gets 9 of 12 validation images right (75.0 %)." in found.sentences[0]
    assert "Only the best trial gets 3 right and only the runner-up 3; both get 6, neither 0." in found.sentences[1]
    assert "p = 1: these images do not tell the two networks apart." in found.sentences[2]


def test_the_surest_mistakes_are_shown_first_with_truth_answers_and_probability(folder: RunFolder) -> None:
    add_mistakes(folder, NAMES)
    galleries = section(folder).galleries
    first = galleries["The most confident mistakes"][0]
    assert (first.truth, first.said) == ("owl", ["best trial: cat (86.4 %)", "runner-up: owl (86.4 %)"])
    assert first.alt == "validation image 8, of class owl"
    assert [image.row for image in galleries["What only the runner-up gets right"]] == [8, 4, 0]
    assert [image.row for image in galleries["What only the best trial gets right"]] == [11, 7, 3]


def test_pictures_stand_in_the_page_itself_and_beside_the_markdown(folder: RunFolder) -> None:
    mistakes = add_mistakes(folder, NAMES)
    page = written(folder, "report.html")
    shown = re.findall(r'<img src="data:image/webp;base64,([^"]*)" alt="validation image (\d+)', page)
    assert {int(row): base64.b64decode(data) for data, row in shown} == mistakes.thumbnails
    text = folder.files.read("report.md").decode()
    linked = re.findall(r"!\[validation image \d+, of class \w+\]\((report/image-\d+\.webp)\)", text)
    assert {path: folder.files.read(path) for path in linked} == {
        f"report/image-{row}.webp": data for row, data in mistakes.thumbnails.items()
    }


def test_pictures_that_are_no_longer_wanted_go_from_the_run_folder_and_the_words_stay(folder: RunFolder) -> None:
    add_mistakes(folder, NAMES)
    assert "<img" in written(folder, "report.html")
    add_mistakes(folder, NAMES, wants_images=False)
    page = written(folder, "report.html")
    assert "<img" not in page
    assert "best trial: cat (86.4 %)" in page
    assert not [path for path in folder.files.list_files("report") if path.endswith(".webp")]


def test_a_confusion_matrix_is_drawn_of_thirty_classes_and_of_more_only_the_worst_pairs_are_told(
    folder: RunFolder,
) -> None:
    add_mistakes(folder, [f"class {number}" for number in range(30)], per_class=2)
    page = written(folder, "report.html")
    assert page.count("<title>class 0, taken for class 1: 1 of 2</title>") == 1
    assert 'class="chart confusion"' in page
    add_mistakes(folder, [f"class {number}" for number in range(31)], per_class=2)
    page = written(folder, "report.html")
    assert 'class="chart confusion"' not in page
    assert "The worst 30 of 31 classes; report.html has all." in folder.files.read("report.md").decode()
    assert len(section(folder).pair_rows) == 20


def test_names_of_classes_are_no_markup(folder: RunFolder) -> None:
    add_mistakes(folder, [HTML, "a|b", "*c*"])
    page = written(folder, "report.html")
    assert HTML not in page
    assert HTML in unescape(page)
    assert r"a\|b" in folder.files.read("report.md").decode()
