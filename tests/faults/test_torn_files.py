"""Files of a run folder torn, zeroed or flipped: reads never raise, good is kept, bad is never used."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from run_folders import CONDITIONS, make_run
from safetensors.torch import save as save_safetensors
from sizes import cases

from raysweep.cli import main
from raysweep.errors import StorageError, UserError
from raysweep.results.checkpoint import load_model
from raysweep.results.evaluation import Accuracies, Evaluation, write_evaluation
from raysweep.results.evidence import pack, read_correct, unpack
from raysweep.results.mistakes import Answers, Mistakes, read_mistakes, write_mistakes
from raysweep.results.ranking import rank, standings
from raysweep.results.run import open_run
from raysweep.store import Record, RunFolder
from raysweep.store.document import seal, to_bytes
from raysweep.store.exports import read_exported, write_results
from raysweep.store.runfolder import OF_THE_BEST
from raysweep.store.spent import Spent, read_spent, write_spent
from raysweep.sweepfile.schema import Objective
from raysweep.vision.config import TrialConfig
from raysweep.vision.models.build import build_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SWEEP = """
name: {name}
base: {{data: synthetic, epochs: {epochs}, model: {{name: baseline_block, width: 4}}, ema: false}}
grid: {{lr: [0.1, 0.01]}}
scheduler: {scheduler}
"""
SETTINGS = {**CONDITIONS, "mean": [0.5] * 3, "std": [0.25] * 3, "image_size": 8, "classes": ["a", "b", "c"]}
SPENT = Spent(wall_s=1234.5, gpu_s=2469.0)
Damage = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Pristine:
    """A run folder before damage: one trial finished, the winner, and one that waits with two commits."""

    sweep: Path
    folder: Path
    winner: Record
    waiting: Record
    status: dict[str, Any]
    pulled: dict[str, bytes]
    metrics: dict[str, list[dict[str, float]]]

    def file(self, record: Record, kind: str) -> str:
        return f"trials/{record.id}/{record.weights[kind].file}"

    @property
    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def weights(record: Record, seed: int) -> dict[str, bytes]:
    torch.manual_seed(seed)
    model = build_model(TrialConfig.model_validate(record.config).model, 3)
    buffer = io.BytesIO()
    torch.save({"epoch": record.epoch, "model": model.state_dict()}, buffer)
    correct = pack(np.random.default_rng(seed).random(50) < 0.5)
    return {"best": save_safetensors(model.state_dict()), "last": buffer.getvalue(), "correct": correct}


def half_done(record: Record, place: int) -> Record:
    record = record.with_(conditions=SETTINGS)
    return record if place == 1 else record.with_(status="paused", metrics=record.metrics[:2])


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    base = tmp_path_factory.mktemp("pristine")
    sweep = make_run(base, epochs=4, text=SWEEP, end=half_done)
    folder = RunFolder(str(base / "runs"), "made")
    first, second = (trial.id for trial in open_run(str(base / "runs/made")).trials)
    records = {trial_id: folder.record(trial_id) for trial_id in (first, second)}
    finished = next(record for record in records.values() if record and record.is_final)
    paused = next(record for record in records.values() if record and not record.is_final)
    of_winner = {kind: data for kind, data in weights(finished, 0).items() if kind in OF_THE_BEST}
    winner = folder.commit(finished, of_winner, keep=OF_THE_BEST)
    earlier = folder.commit(paused.with_(metrics=paused.metrics[:1]), weights(paused, 1))
    waiting = folder.commit(earlier.with_(metrics=paused.metrics), weights(paused, 2))
    local = base / "runs/made"
    document = YAML(typ="safe", pure=True).load(local / "resolved.yaml")
    folder.files.write("resolved.yaml", to_bytes(seal(document)))
    write_spent(folder, SPENT)
    best = winner.weights["best"].sha256
    assert winner.best
    write_evaluation(folder, Evaluation(winner.id, winner.best.epoch, False, best, [Accuracies(0, 0.5, None)]))
    ranked = rank([winner, waiting.with_(status="running")], Objective())
    write_results(folder, [record for config in ranked for record in config.trials], standings(ranked))
    labels = np.zeros(50, dtype=np.uint8)
    write_mistakes(
        folder, Mistakes(labels, Answers(winner.id, best, labels == 0, labels, labels), None, None, True, {})
    )
    with folder.lease():
        pass
    status = json.loads(run(["status", str(sweep), "--json"])[1])
    assert [trial["epoch"] for trial in status["trials"]] in ([4, 2], [2, 4])
    assert status["evaluation"]
    code, _ = run(["pull", str(sweep), "--to", str(base / "pulled")])
    assert code == 0
    pulled = {path.name: path.read_bytes() for path in (base / "pulled").iterdir()}
    return Pristine(sweep, local, winner, waiting, status, pulled, read_exported(folder).running)


def run(words: list[str]) -> tuple[int, str]:
    """The command's exit code and stdout; an exception that it lets through fails the test."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(words)
    return code, out.getvalue()


def check(pristine: Pristine, base: Path, damaged: set[str]) -> None:
    """Read everything of the damaged copy in `base`, and hold it against what was there before."""
    local = base / "runs/made"
    before = {path: path.read_bytes() for path in local.rglob("*") if path.is_file()}
    shutil.rmtree(base / "pulled", ignore_errors=True)
    sweep = str(base / "made.yaml")

    code, out = run(["status", sweep, "--json"])
    if code == 0:
        status = json.loads(out)
        assert status["evaluation"] in (pristine.status["evaluation"], None)
        assert status["evaluation"] or "evaluation.json" in damaged
        assert status["trials"] == pristine.status["trials"]
    else:
        assert (code, damaged) == (2, {"resolved.yaml"})

    code, _ = run(["pull", sweep, "--to", str(base / "pulled")])
    if code == 0:
        pulled = {path.name: path.read_bytes() for path in (base / "pulled").iterdir()}
        assert pulled["model.safetensors"] == pristine.pulled["model.safetensors"]
        assert pulled == pristine.pulled or "evaluation.json" in damaged
    else:
        assert code == 2
        assert damaged <= {"resolved.yaml", pristine.file(pristine.winner, "best")}
        assert not (base / "pulled").exists()

    folder = RunFolder(str(base / "runs"), "made")
    found = folder.resume_point(pristine.waiting.id)
    assert found is not None
    record, data = found
    own = {pristine.file(pristine.waiting, kind) for kind in ("last", "best")}
    if any((local / file).read_bytes() != (pristine.folder / file).read_bytes() for file in own & damaged):
        assert record.metrics == pristine.waiting.metrics[:1]
        assert data == (pristine.folder / f"trials/{record.id}/{pristine.waiting.previous['last'].file}").read_bytes()
    else:
        assert (record, data) == (pristine.waiting, whole(pristine, pristine.waiting, "last"))
    for committed in (pristine.winner, pristine.waiting):
        correct = read_correct(folder, committed)
        assert correct is None or np.array_equal(correct, unpack(whole(pristine, committed, "correct")))
        assert correct is not None or pristine.file(committed, "correct") in damaged
    mistakes = read_mistakes(folder)
    assert mistakes is None or mistakes.winner.correct.all()
    assert mistakes is not None or "mistakes.json" in damaged
    assert read_spent(folder) == SPENT or ("spent.json" in damaged and "spent.json" in folder.damaged)
    metrics = read_exported(folder).running
    assert metrics == pristine.metrics or ("results.parquet" in damaged and metrics == {})
    assert not folder.is_driven()
    assert {path: path.read_bytes() for path in local.rglob("*") if path.is_file()} == before


def whole(pristine: Pristine, record: Record, kind: str) -> bytes:
    return (pristine.folder / pristine.file(record, kind)).read_bytes()


@pytest.fixture(scope="module")
def copy(pristine: Pristine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("copy")
    shutil.copytree(pristine.folder, base / "runs/made")
    shutil.copy(pristine.sweep, base / "made.yaml")
    return base


@contextlib.contextmanager
def damaged(pristine: Pristine, copy: Path, file: str, damage: Damage) -> Any:
    path = copy / "runs/made" / file
    data = (pristine.folder / file).read_bytes()
    path.write_bytes(damage(data))
    try:
        yield
    finally:
        path.write_bytes(data)


def zeroed(place: float) -> Damage:
    """A lost sector: 16 bytes of zeros."""

    def damage(data: bytes) -> bytes:
        start = int(place * max(0, len(data) - 16))
        return data[:start] + bytes(min(16, len(data))) + data[start + 16 :]

    return damage


def flipped(place: float, bit: int) -> Damage:
    def damage(data: bytes) -> bytes:
        if not data:
            return data
        at = min(int(place * len(data)), len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]

    return damage


def cut(share: float) -> Damage:
    return lambda data: data[: int(share * len(data))]


WAYS = {
    "empty": cut(0),
    "cut at the start": cut(0.05),
    "cut in the middle": cut(0.5),
    "cut at the end": lambda data: data[:-1],
    "zeros at the start": zeroed(0),
    "zeros in the middle": zeroed(0.5),
    "zeros at the end": zeroed(1),
    "another file's content": lambda data: b"\x80\x04\x95 something else entirely\n",
    "a line more": lambda data: data + b"\n{}\n",
}


def test_each_file_damaged_in_each_way(pristine: Pristine, copy: Path) -> None:
    for file in pristine.files:
        for way in WAYS.values():
            with damaged(pristine, copy, file, way):
                check(pristine, copy, {file})


def test_any_single_bit_of_any_file_flipped(pristine: Pristine, copy: Path) -> None:
    place = st.floats(0, 1, exclude_max=True)

    @settings(max_examples=cases(100, 5000), deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(pristine.files), place, st.integers(0, 7))
    def flip(file: str, place: float, bit: int) -> None:
        with damaged(pristine, copy, file, flipped(place, bit)):
            check(pristine, copy, {file})

    flip()


def test_a_record_and_its_copy_both_damaged_are_as_none_and_named(pristine: Pristine, copy: Path) -> None:
    names = [f"trials/{pristine.waiting.id}/{name}" for name in ("record.json", "record.copy.json")]
    with damaged(pristine, copy, names[0], cut(0.5)), damaged(pristine, copy, names[1], flipped(0.5, 0)):
        folder = RunFolder(str(copy / "runs"), "made")
        assert folder.resume_point(pristine.waiting.id) is None
        assert set(folder.damaged) == set(names)
        rubbish = folder.rubbish(folder.files.list_files(recursive=True))
        assert not [path for path in rubbish if pristine.waiting.id in path]
        code, out = run(["status", str(copy / "made.yaml"), "--json"])
        assert code == 0
        statuses = {trial["id"]: trial["status"] for trial in json.loads(out)["trials"]}
        assert statuses == {pristine.winner.id: "finished", pristine.waiting.id: "planned"}


def test_a_trial_whose_last_two_commits_are_damaged_begins_anew(pristine: Pristine, copy: Path) -> None:
    waiting = pristine.waiting
    previous = f"trials/{waiting.id}/{waiting.previous['last'].file}"
    with (
        damaged(pristine, copy, pristine.file(waiting, "last"), cut(0.9)),
        damaged(pristine, copy, previous, flipped(0.5, 3)),
    ):
        found = RunFolder(str(copy / "runs"), "made").resume_point(waiting.id)
        assert found is not None
        assert (found[0].metrics, found[0].best, found[1]) == ([], None, None)


def test_a_record_in_another_trials_place_is_not_used(pristine: Pristine, copy: Path) -> None:
    other = (pristine.folder / f"trials/{pristine.winner.id}/record.json").read_bytes()
    file = f"trials/{pristine.waiting.id}/record.json"
    with damaged(pristine, copy, file, lambda data: other):
        assert RunFolder(str(copy / "runs"), "made").record(pristine.waiting.id) == pristine.waiting


def test_a_record_of_a_newer_raysweep_is_left_alone(pristine: Pristine, copy: Path) -> None:
    newer: Damage = lambda data: data.replace(b'"format": 1', b'"format": 2')  # noqa: E731
    names = [f"trials/{pristine.waiting.id}/{name}" for name in ("record.json", "record.copy.json")]
    with damaged(pristine, copy, names[0], newer), damaged(pristine, copy, names[1], newer):
        with pytest.raises(StorageError, match="is of format 2, this raysweep reads 1; upgrade"):
            RunFolder(str(copy / "runs"), "made").record(pristine.waiting.id)
        assert run(["pull", str(copy / "made.yaml")])[0] == 2


def test_a_lease_file_of_any_content_is_no_hindrance(pristine: Pristine, copy: Path) -> None:
    for content in (b"", b"[]", b"null", b'{"pid": 1}', b"\xff\xfe", b"x" * 10_000):
        with damaged(pristine, copy, ".lease", lambda data, content=content: content):  # type: ignore[misc]
            folder = RunFolder(str(copy / "runs"), "made")
            assert not folder.is_driven()
            with folder.lease():
                other = RunFolder(str(copy / "runs"), "made")
                with pytest.raises(StorageError, match="another raysweep drives this run"), other.lease():
                    pass


def test_a_pulled_folder_with_any_file_damaged_is_refused_or_loads_the_same(pristine: Pristine, tmp_path: Path) -> None:
    def write(name: str = "", data: bytes = b"") -> None:
        for each, content in {**pristine.pulled, name: data}.items():
            if each:
                (tmp_path / each).write_bytes(content)

    for name in ("model.safetensors", "config.yaml", "metrics.json", "classes.txt"):
        for way in WAYS.values():
            write(name, way(pristine.pulled[name]))
            with contextlib.suppress(UserError):
                load_model(tmp_path)
                assert name != "model.safetensors"
    write()
    assert load_model(tmp_path)
