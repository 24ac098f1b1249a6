"""The source `digits`: scikit-learn's real handwritten digits, which need no files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import RawData, from_pixels, refuse_split_names


def digits(config: DataConfig, root: Path) -> RawData:
    """The 1,797 handwritten digits that come with scikit-learn: 8 x 8 pixels, grey, 0..16 scaled to 0..255."""
    refuse_split_names(config)
    classes = [str(digit) for digit in range(10)]
    return RawData(
        classes=lambda: classes,
        train=from_pixels(_read_digits, "digits", lambda: classes),
        content="scikit-learn digits",
    )


def _read_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    from sklearn.datasets import load_digits  # takes a second to import, and is not needed once prepared

    bunch = load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target
