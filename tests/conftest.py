"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the extra data, named by RAYSWEEP_SHARED; skips where unset, fails where set and not whole."""
    given = os.environ.get("RAYSWEEP_SHARED")
    if not given:
        pytest.skip("RAYSWEEP_SHARED names no folder with data/tiny-imagenet-200")
    folder = Path(given).resolve()
    for name in ("train.parquet", "val.parquet", "classes.txt"):
        path = folder / "data" / "tiny-imagenet-200" / name
        if not path.is_file():
            pytest.fail(f"RAYSWEEP_SHARED is set, but {path} is missing")
    return folder
