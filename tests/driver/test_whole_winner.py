"""What a rerun makes of damaged best weights of the trial that leads, before it connects to Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import make_run

from raysweep.cli import main
from raysweep.driver import before
from raysweep.driver.before import Run
from raysweep.halving.rungs import Verdict
from raysweep.store import Record, RunFolder
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.named import Named

SWEEP = """
name: {name}
base: {{data: synthetic, epochs: {epochs}}}
grid: {{lr: [0.1, 0.01, 0.001]}}
scheduler: {{name: asha, eta: 3, rungs: [1/2], min_survivors: 1, rank_by: ema}}
"""


def ends(leader: str, folder: Path) -> list[Record]:
    """Make a run of three trials in which one with whole weights leads, as it ended; return the records, it first."""

    def end(record: Record, place: int) -> Record:
        status, epochs = ("finished", 4) if place == 0 else ("stopped" if leader == "finished" else leader, 2)
        plain = 0.9 if status == leader and place < 2 else 0.1
        ema = 0.5 - 0.1 * place
        row = {"val_acc": plain, "val_acc_ema": ema, "val_loss": 1.0, "val_loss_ema": 1.0}
        return record.with_(status=status, metrics=[{"epoch": epoch + 1, **row} for epoch in range(epochs)])

    make_run(folder, epochs=4, text=SWEEP, end=end)
    run = RunFolder(str(folder / "runs"), "made")
    found = [record for id in run.trial_ids() if (record := run.record(id))]
    committed = [run.commit(record, {"best": b"best of %s" % record.id.encode()}) for record in found]
    return sorted(committed, key=lambda record: -record.best.score if record.best else 0)


def open_rerun(folder: Path) -> Run:
    path = str(folder / "made.yaml")
    return Run(load_sweep(path), Named(path, ()), RunFolder(str(folder / "runs"), "made"), ())


@pytest.mark.parametrize("leader", ["finished", "stopped", "paused"])
def test_a_leader_whose_best_weights_are_damaged_begins_anew_and_the_others_stay(
    tmp_path: Path, leader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = ends(leader, tmp_path)
    assert first.status == leader
    assert "new" not in open_rerun(tmp_path).rerun.fates.values()
    weights = tmp_path / "runs/made/trials" / first.id / first.weights["best"].file
    weights.write_bytes(b"Best" + weights.read_bytes()[4:])
    capsys.readouterr()
    run = open_rerun(tmp_path)
    assert run.rerun.fates[first.id] == "new"
    halving = run.rerun.halving
    assert Verdict.SAFE not in [halving.verdict(record.id) for record in others if record.status != "finished"]
    assert halving.verdict(first.id) is Verdict.SAFE
    assert halving.next_trial() == first.id
    assert capsys.readouterr().err == (
        f"{first.id}: trials/{first.id}/{first.weights['best'].file}: its checksum does not match; not used; "
        "it was the best, so it is trained anew\n"
    )
    assert [record.former_metrics for record in run.records if record.id == first.id] == [
        [first.metrics] if leader == "finished" else []
    ]


def test_damaged_weights_of_a_trial_that_does_not_lead_cost_no_training(tmp_path: Path) -> None:
    _, other, _ = ends("finished", tmp_path)
    (tmp_path / "runs/made/trials" / other.id / other.weights["best"].file).write_bytes(b"")
    assert "new" not in open_rerun(tmp_path).rerun.fates.values()


def test_a_run_whose_winner_turns_out_to_have_damaged_weights_at_its_end_says_so_and_does_not_name_it_for_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = ends("finished", tmp_path)
    (tmp_path / "runs/made/trials" / first.id / first.weights["best"].file).write_bytes(b"")
    as_if_it_had_been_whole_then = lambda sweep, trials, _, folder: before.rerun_of(sweep, trials, folder)  # noqa: E731
    monkeypatch.setattr(before, "_rerun_to_a_whole_winner", as_if_it_had_been_whole_then)
    assert main(["run", str(tmp_path / "made.yaml")]) == 1
    said = capsys.readouterr().err
    assert f"{first.id}: its best weights are damaged; run the same command again: it trains it anew" in said
    assert "best checkpoint" not in said
