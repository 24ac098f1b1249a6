"""`raysweep.run`: a sweep given from Python is run as Python says, or refused before anything begins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_run

import raysweep
from raysweep.errors import UserError

NET = """
from torch import nn
from raysweep import register_model

@register_model("one_layer_of_mine")
def one_layer(num_classes, width=None):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))
"""
SWEEP = {
    "name": "small",
    "base": {
        "data": {"name": "synthetic", "image_size": 8, "classes": 3, "per_class": 40},
        "model": "baseline_block",
        "epochs": 3,
    },
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RAYSWEEP_STORAGE", raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("default")
def test_a_dict_is_run_anew_in_a_storage_with_imports_and_overrides_and_then_nothing_is_left(
    cluster: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    (folder / "my_net.py").write_text(NET)
    make_run(folder, name="small", epochs=1)
    given: dict[str, Any] = {"storage": folder / "runs", "imports": ["my_net"], "epochs": 1, "ema": False}
    sweep = {**SWEEP, "storage": "elsewhere"}
    result = raysweep.run(sweep, **given, fresh=True, model="one_layer_of_mine")
    assert result.path == str(folder / "runs/small")
    (record,) = result.trials
    assert (record.status, record.epoch, record.config["model"]["name"]) == ("finished", 1, "one_layer_of_mine")
    assert len(list(folder.glob("runs/small.*/trials/*/record.json"))) == 12, "the old run is aside"
    assert raysweep.run(sweep, **given, model="one_layer_of_mine").trials == [record]
    assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize(
    ("sweep", "options", "message"),
    [
        ({**SWEEP, "base": {"epochs": 0}}, {}, "base.epochs: got 0, must be at least 1"),
        (SWEEP, {"lr": -1}, "override 'lr=-1': base.lr: got -1, must be greater than 0"),
        (SWEEP, {"storage": "s3://"}, "--storage: got 's3://', which names no bucket: s3://bucket/folder"),
        (SWEEP, {"imports": ["no_such_module"]}, "no_such_module"),
        ("none.yaml", {}, "cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_raised_before_anything_begins(
    sweep: Any, options: dict[str, Any], message: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        raysweep.run(sweep, **options)
    assert list(folder.iterdir()) == []
