"""What the winner gets wrong, measured at the end of a run: its answers on each validation image (`mistakes.json`).

Beside them stand the runner-up's, so that both can be compared on the same images. Where the runner-up's weights are
no longer kept, it is known which images it got right, since every trial commits that.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Base64UrlBytes, PlainSerializer, PlainValidator, TypeAdapter

from raysweep.results.by_class import BoolArray
from raysweep.results.evidence import read_correct
from raysweep.results.ranking import RankedConfig, can_win
from raysweep.store import Record, RunFolder
from raysweep.store.document import checked, seal, to_bytes, unseal

FILE = "mistakes.json"
MOST_CONFIDENT = 16
"""The most confident mistakes that are shown."""
MOST_OF_ONE = 8
"""The images that are shown of those which only one of two networks gets right."""


def _as_text(array: NDArray[Any]) -> str:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


def _from_text(text: object) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(io.BytesIO(zlib.decompress(base64.b64decode(text))), allow_pickle=False)  # type: ignore[arg-type]
    except (TypeError, ValueError, EOFError, zlib.error) as error:
        raise ValueError(f"is no array as text: {error}") from error
    return array


Array = Annotated[NDArray[Any], PlainValidator(_from_text), PlainSerializer(_as_text)]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one trial's best weights make of the validation images, in the data set's order."""

    id: str
    made_from: str  # the sha256 of the file that it was made from: the winner's best weights, the runner-up's evidence
    correct: Array  # of each image, whether it is right: bool
    labels: Array | None  # the most probable class of each image; None where the weights are no longer kept
    probabilities: Array | None  # of those classes, float32


@dataclass(frozen=True, eq=False)
class Mistakes:
    """What the winner and the runner-up answer."""

    truth: Array  # the label of each validation image
    winner: Answers
    rival: Answers | None  # the best seed of the next config; None where there is none to compare with
    test_correct: Array | None  # of each test image, whether the winner is right; None without a test split
    wants_images: bool  # whether the sweep file wanted thumbnails
    thumbnails: dict[int, Base64UrlBytes]  # WebP files of images that are shown, by their place in the data set

    def __post_init__(self) -> None:
        trials = [self.winner, *([self.rival] if self.rival else [])]
        arrays = [array for of in trials for array in (of.correct, of.labels, of.probabilities) if array is not None]
        if any(array.shape != (len(self.truth),) for array in arrays):
            raise ValueError("must have an answer for each image")

    def is_of(self, winner: Record, rival: Record | None) -> bool:
        """Whether these are the answers of the winner's present weights, beside this runner-up's."""
        if (self.rival is None) != (rival is None):
            return False
        is_winners = _is_of(self.winner, winner, "best")
        return is_winners and (self.rival is None or rival is None or _is_of(self.rival, rival, "correct"))


def still_true(mistakes: Mistakes, winner: Record, rival: Record | None) -> Mistakes | None:
    """Return the mistakes without a runner-up that is another one now; None if they are of another winner."""
    if mistakes.is_of(winner, rival):
        return mistakes
    return replace(mistakes, rival=None) if _is_of(mistakes.winner, winner, "best") else None


def _is_of(answers: Answers, record: Record, kind: str) -> bool:
    file = record.weights.get(kind)
    return answers.id == record.id and file is not None and file.sha256 == answers.made_from


def rival_of(folder: RunFolder, configs: Sequence[RankedConfig]) -> Record | None:
    """Return the best seed of the second config, of configs that are ranked best first; its weights may be gone.

    None if there is none, or if its images are others than the winner's, or if it is not known what it got right.
    """
    winner, rival = configs[0].best if configs else None, configs[1].trials[0] if len(configs) > 1 else None
    if winner is None or rival is None or not can_win(rival):
        return None
    if rival.conditions.get("data") != winner.conditions.get("data"):
        return None
    return None if read_correct(folder, rival) is None else rival


def is_wanted(folder: RunFolder, winner: Record | None, rival: Record | None, images: bool) -> bool:
    """Whether the run folder lacks the winner's mistakes beside this runner-up's.

    `images` says whether there shall be thumbnails among them, which otherwise there must not be.
    A trial that has no evidence was trained by an older raysweep, or by a loop whose answers are no classes.
    """
    if winner is None or not {"best", "correct"} <= winner.weights.keys():
        return False
    found = read_mistakes(folder)
    return found is None or not found.is_of(winner, rival) or found.wants_images != images


def read_mistakes(folder: RunFolder) -> Mistakes | None:
    """Read the run folder's mistakes; None if there are none, or if the file is damaged."""
    return folder.read(FILE, _parse, "the next run measures again")


def _parse(data: bytes) -> Mistakes:
    mistakes: Mistakes = checked(Mistakes, unseal(json.loads(data)))
    return mistakes


def write_mistakes(folder: RunFolder, mistakes: Mistakes) -> None:
    """Write mistakes.json."""
    folder.files.write(FILE, to_bytes(seal(TypeAdapter(Mistakes).dump_python(mistakes, mode="json"))))


# ---------------------------------------------------------------------------------------------------------
# Which images are shown


def most_confident(mistakes: Mistakes) -> list[int]:
    """Return the images that the winner gets wrong and is the surest of, these first."""
    return _surest(mistakes, ~mistakes.winner.correct, MOST_CONFIDENT)


def only_one_is_right(mistakes: Mistakes) -> tuple[list[int], list[int]]:
    """Return images that only the winner, and that only the runner-up gets right; first those it is the surest of."""
    if mistakes.rival is None:
        return [], []
    winner, rival = mistakes.winner.correct, mistakes.rival.correct
    return _surest(mistakes, winner & ~rival, MOST_OF_ONE), _surest(mistakes, rival & ~winner, MOST_OF_ONE)


def _surest(mistakes: Mistakes, among: BoolArray, most: int) -> list[int]:
    """Return images among some, by the probability that the winner gives its answer; of equal ones the first."""
    assert mistakes.winner.probabilities is not None
    rows = np.flatnonzero(among)
    return [int(row) for row in rows[np.argsort(-mistakes.winner.probabilities[rows], kind="stable")][:most]]
