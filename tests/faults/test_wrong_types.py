"""Documents of a run folder whose checksums are right and whose content is not: one sentence, or the answer without."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from run_folders import CONDITIONS, make_run
from sizes import cases

from raysweep.cli import main
from raysweep.results.evaluation import Accuracies, Evaluation, write_evaluation
from raysweep.results.evidence import pack
from raysweep.results.mistakes import Answers, Mistakes, write_mistakes
from raysweep.results.run import open_run
from raysweep.store import Record, RunFolder
from raysweep.store.document import digest, seal, to_bytes
from raysweep.store.spent import Spent, write_spent

pytestmark = pytest.mark.timeout(3600)
SWEEP = """
name: {name}
base: {{data: synthetic, epochs: {epochs}, model: {{name: baseline_block, width: 4}}}}
grid: {{lr: [0.1, 0.01]}}
scheduler: {{name: asha, eta: 2, rungs: [1/2], min_survivors: 1, rank_by: ema}}
"""
WRONG: list[Any] = [None, True, -1, 0, 1.5, float("nan"), "", "x", "../x", [], [None], [1], {}, {"x": None}]


def ended(record: Record, place: int) -> Record:
    record = record.with_(conditions={**CONDITIONS, "mean": [0.5] * 3, "std": [0.25] * 3, "image_size": 8})
    return record if place == 0 else record.with_(status="stopped", metrics=record.metrics[:2])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that is done, with all documents of its run folder; returns the sweep file."""
    base = tmp_path_factory.mktemp("made")
    sweep = make_run(base, epochs=3, text=SWEEP, end=ended)
    folder = RunFolder(str(base / "runs"), "made")
    winner = open_run(folder.path).trials[0]
    right = np.arange(6) > 0
    winner = folder.commit(winner, {"best": b"weights", "correct": pack(right)})
    write_spent(folder, Spent(1.0, 2.0, "limits.wall_hours: 1 are spent"))
    best = winner.weights["best"].sha256
    write_evaluation(folder, Evaluation(winner.id, 1, False, best, [Accuracies(0, 0.5, None)]))
    labels = np.zeros(6, dtype=np.uint8)
    answers = Answers(winner.id, best, right, labels, labels.astype(np.float32))
    write_mistakes(folder, Mistakes(labels, answers, None, right, True, {0: b"a picture"}))
    document = YAML(typ="safe", pure=True).load(base / "runs/made/resolved.yaml")
    folder.files.write("resolved.yaml", to_bytes(seal(document)))
    return sweep


def sealed(name: str, body: Any) -> bytes:
    if name == "record.json":
        return to_bytes({"format": 1, "sha256": digest(body), "record": body})
    return to_bytes(seal(body))


def body_of(path: Path) -> Any:
    document = json.loads(path.read_bytes())
    if "record" in document:
        return document["record"]
    return {key: value for key, value in document.items() if key != "sha256"}


def ways_into(value: Any) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (key,)
        for way in ways_into(inner):
            yield (key, *way)


def with_wrong(body: Any, way: tuple[Any, ...], wrong: Any, is_missing: bool) -> Any:
    body = copy.deepcopy(body)
    inner = body
    for key in way[:-1]:
        inner = inner[key]
    if is_missing:
        del inner[way[-1]]
    else:
        inner[way[-1]] = wrong
    return body


def documents(run: Path) -> list[Path]:
    names = ("resolved.yaml", "evaluation.json", "mistakes.json", "spent.json")
    return [*(run / name for name in names), *sorted(run.glob("trials/*/record.json"))]


COMMANDS = {
    "status": ["status", "RUN"],
    "status --json": ["status", "RUN", "--json"],
    "why the winner goes on": ["status", "RUN", "--why", "lr0.1-"],
    "why the other is out": ["status", "RUN", "--why", "lr0.01-"],
    "pull": ["pull", "SWEEP", "--to", "PULLED"],
    "pull the other": ["pull", "SWEEP", "--to", "PULLED", "--rank", "2"],
    "plan": ["plan", "SWEEP"],
    "clean": ["clean", "RUN", "--dry-run"],
    "report": ["report", "RUN"],
    "compare": ["compare", "RUN", "RUN"],
}


def check(sweep: Path, command: str) -> None:
    """Run a command; it answers, or ends with a sentence."""
    names = {"SWEEP": sweep, "RUN": sweep.parent / "runs/made", "PULLED": sweep.parent / "pulled"}
    trials = [path.name for path in (names["RUN"] / "trials").iterdir()]
    words = [next((id for id in trials if word.startswith("lr0") and word in id), word) for word in COMMANDS[command]]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main([str(names.get(word, word)) for word in words])
    shutil.rmtree(names["PULLED"], ignore_errors=True)
    assert code in (0, 2)
    assert code == 0 or len(err.getvalue().splitlines()) <= 2, err.getvalue()


def test_a_value_of_a_wrong_type_in_any_document_is_said_in_a_sentence_by_every_command(made: Path) -> None:
    run = made.parent / "runs/made"
    places = [(path, way) for path in documents(run) for way in ways_into(body_of(path))]

    @settings(max_examples=cases(100, 20_000), deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(places), st.sampled_from(WRONG), st.integers(0, 7), st.sampled_from(list(COMMANDS)))
    def damage(place: tuple[Path, tuple[Any, ...]], wrong: Any, lot: int, command: str) -> None:
        path, way = place
        paths = [path, *path.parent.glob("record.copy.json")]
        before = {each: each.read_bytes() for each in paths}
        data = sealed(path.name, with_wrong(body_of(path), way, wrong, is_missing=lot == 0))
        try:
            for each in paths:
                each.write_bytes(data)
            check(made, command)
        finally:
            for each, content in before.items():
                each.write_bytes(content)

    damage()


@pytest.mark.parametrize("name", ["evaluation.json", "spent.json"])
@pytest.mark.parametrize("damage", [b"{", b"[]"])
def test_status_names_a_damaged_evaluation_and_a_damaged_account(
    made: Path, name: str, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.parent / "runs/made" / name
    before = path.read_bytes()
    for words in ([], ["--json"]):
        path.write_bytes(damage)
        try:
            assert main(["status", str(made), *words]) == 0
        finally:
            path.write_bytes(before)
        assert f"{name}: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["[/b]", "[red]x[/red]", "x[bold"])
def test_a_storage_with_brackets_is_no_markup(made: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage = made.parent / name
    storage.parent.mkdir(parents=True, exist_ok=True)
    storage.symlink_to(made.parent / "runs")
    for command in ("status", "clean", "report"):
        assert main([command, str(made), "--storage", str(storage)]) == 0
        assert f"{storage}/made" in capsys.readouterr().out
