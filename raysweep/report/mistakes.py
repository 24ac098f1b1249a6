"""What the winner gets wrong, as the report says it: by class, what is taken for what, and against the runner-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysweep.results.by_class import Duel, accuracy_by_class, confusion_matrix, duel, most_confused
from raysweep.results.mistakes import Mistakes, most_confident, only_one_is_right, read_mistakes, rival_of, still_true
from raysweep.results.run import SweepResult
from raysweep.terminal import count_of, format_acc, percent

MOST_DRAWN = 30
"""Classes of a confusion matrix that is drawn; beyond them it is told by its pairs alone."""
PAIR_COLUMNS = {"class": False, "taken for": False, "images": True, "of the class": True}
"""The columns of the table of pairs, and whether they have numbers."""
LONGEST_NAME = 26
"""Letters of a class's name beside a picture at most."""
SURE = 0.05
"""The p value below which two networks are said to differ."""


@dataclass(frozen=True)
class Shown:
    """One validation image."""

    row: int  # its place in the data set
    alt: str
    truth: str  # its class
    said: list[str]  # what the networks answer
    webp: bytes | None  # its picture, where the sweep file wants pictures


@dataclass(frozen=True)
class WhatItGetsWrong:
    """The section of the report."""

    sentences: list[str]
    names: Sequence[str]  # of the classes
    matrix: NDArray[np.int64]  # images by class (row) and answer (column)
    class_columns: Mapping[str, bool]  # of the table of classes: whether they have numbers
    class_rows: list[list[str]]  # the worst class first
    pair_rows: list[list[str]]  # the pairs that are confused most
    galleries: dict[str, list[Shown]]  # images by what they show

    @property
    def is_drawn(self) -> bool:
        """Whether the classes are few enough for a picture of the confusion matrix, and there is confusion."""
        return len(self.names) <= MOST_DRAWN and bool(self.pair_rows)

    @property
    def shown(self) -> list[Shown]:
        """All images that are shown."""
        return [image for images in self.galleries.values() for image in images]


def what_it_gets_wrong(result: SweepResult) -> WhatItGetsWrong | None:
    """Return what the winner gets wrong; None if the run folder does not know that of its present winner."""
    winner, rival = result.best, rival_of(result.folder, result.configs)
    known = read_mistakes(result.folder) if winner else None
    found = still_true(known, winner, rival) if winner and known else None
    if winner is None or found is None or found.winner.labels is None:
        return None
    names = winner.conditions["classes"]
    matrix = confusion_matrix(found.truth, found.winner.labels, len(names))
    return WhatItGetsWrong(
        sentences=_sentences(found),
        names=names,
        matrix=matrix,
        class_columns=_class_columns(found),
        class_rows=_class_rows(found, names, matrix),
        pair_rows=[
            [names[pair.truth], names[pair.answer], f"{pair.images:,}", percent(pair.images / pair.of)]
            for pair in most_confused(matrix, 10 if len(names) <= MOST_DRAWN else 20)
        ],
        galleries=_galleries(found, names),
    )


def _sentences(found: Mistakes) -> list[str]:
    right, images = int(found.winner.correct.sum()), len(found.truth)
    sentences = [
        f"The best trial, {found.winner.id}, gets {right:,} of {count_of(images, 'validation image')} right "
        f"({percent(right / images)}). It was chosen on these images, so it is likely to do a little worse on others."
    ]
    if found.rival is not None:
        sentences += _against(found.rival.id, duel(found.winner.correct, found.rival.correct))
    return sentences


def _against(rival: str, found: Duel) -> list[str]:
    """Say how the winner's network compares with the runner-up's, and what that cannot show."""
    if found.p < SURE:
        verdict = "chance alone seldom makes two equally good networks differ so"
    else:
        verdict = "these images do not tell the two networks apart"
    return [
        f"The runner-up, the next config's best trial {rival}, gets {found.both + found.second:,} right. Only the best "
        f"trial gets {found.first:,} right and only the runner-up {found.second:,}; both get {found.both:,}, neither "
        f"{found.neither:,}.",
        f"McNemar's exact test: p {_p(found.p)}: {verdict}. But the best trial was chosen on these images, and this "
        "compares one seed of each config, not the configs.",
    ]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def _class_columns(found: Mistakes) -> dict[str, bool]:
    columns = {"class": False, "images": True, "right": True, "95 % interval": True}
    runner_up = {"runner-up": True} if found.rival else {}
    return {**columns, **runner_up, "most often taken for": False}


def _class_rows(found: Mistakes, names: Sequence[str], matrix: NDArray[np.int64]) -> list[list[str]]:
    rivals: dict[int, str] = {}
    if found.rival:
        rivals = {each.label: format_acc(each.accuracy) for each in accuracy_by_class(found.truth, found.rival.correct)}
    rows = []
    for each in accuracy_by_class(found.truth, found.winner.correct):
        interval = f"{100 * each.low:.1f} to {100 * each.high:.1f} %"
        row = [names[each.label], f"{each.images:,}", format_acc(each.accuracy), interval]
        row += [rivals[each.label]] if found.rival else []
        rows.append([*row, _mostly(matrix[each.label], each.label, names)])
    return rows


def _mostly(answers: NDArray[np.int64], label: int, names: Sequence[str]) -> str:
    """Say what a class is most often taken for; nothing if it always gets the right answer."""
    wrong = np.where(np.arange(len(answers)) == label, 0, answers)
    worst = int(wrong.argmax())
    return f"{names[worst]} ({wrong[worst]:,})" if wrong[worst] else "-"


def _galleries(found: Mistakes, names: Sequence[str]) -> dict[str, list[Shown]]:
    winners, rivals = only_one_is_right(found)
    galleries = {
        "The most confident mistakes": most_confident(found),
        "What only the best trial gets right": winners,
        "What only the runner-up gets right": rivals,
    }
    return {title: [_shown(found, row, names) for row in rows] for title, rows in galleries.items() if rows}


def _shown(found: Mistakes, row: int, names: Sequence[str]) -> Shown:
    truth = names[found.truth[row]]
    short = [shortened(name, LONGEST_NAME) for name in names]
    answers = [("best trial", found.winner), ("runner-up", found.rival)]
    return Shown(
        row=row,
        alt=f"validation image {row}, of class {truth}",
        truth=shortened(truth, LONGEST_NAME),
        said=[f"{who}: {_answer(of, row, short)}" for who, of in answers if of and of.labels is not None],
        webp=found.thumbnails.get(row),
    )


def _answer(answers: Any, row: int, names: Sequence[str]) -> str:
    return f"{names[answers.labels[row]]} ({percent(float(answers.probabilities[row]))})"


def shortened(name: str, letters: int) -> str:
    """Return a class's name in at most so many letters."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
