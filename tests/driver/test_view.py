"""What the driver shows while a run goes on: the live table, plain lines, hours spent and saved, curves."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from raysweep.driver.board import Board
from raysweep.driver.sharing import Sharing
from raysweep.driver.view import View, sparkline
from raysweep.store import Record
from raysweep.sweepfile import sweep_of
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import step

ID = "v2_receptive_resnet50-width8-lr0.025-v2augs-seed1-97de3157"


def planned(trial_id: str = ID, epochs: int = 20, axes: dict[str, Any] | None = None, **changes: Any) -> Record:
    return Record(trial_id, trial_id[:-9], 0, axes or {}, {}, epochs, **changes)


def epoch(number: int, val_acc: float | None = None) -> dict[str, Any]:
    val_acc = number / 40 if val_acc is None else val_acc
    known = {"train_acc": 0.5, "val_acc": val_acc, "val_acc_ema": 0.4, "images_per_s": 12345.6, "seconds": 90.0}
    return {"epoch": number, **known}


def a_run(records: list[Record], width: int = 80, terminal: bool = True, **options: Any) -> tuple[View, Board]:
    output = io.TextIOWrapper(io.BytesIO(), encoding=options.pop("encoding", "utf-8"))
    console = Console(file=output, width=width, force_terminal=terminal, record=True, **options)
    board = Board(records, maximize=True)
    return View(console, "sweep", board, "val_acc"), board


def trained(board: Board, *rows: dict[str, Any], trial_id: str = ID) -> None:
    board.update(trial_id, "started", status="running")
    for row in rows:
        board.note_epoch(trial_id, row)
        board.update(trial_id, "epoch", epoch=int(row["epoch"]), best=row["val_acc"])


def lines(view: View) -> list[str]:
    """The live table as it would be shown now."""
    view.console.export_text()
    view.console.print(view.render())
    return [line.rstrip() for line in view.console.export_text().splitlines()]


def test_the_time_left_is_told_by_epochs_not_by_how_long_processes_took_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    view, board = a_run([planned()])
    now = 100.0
    trained(board, epoch(1))
    assert "left" not in view.summary()
    for number in range(2, 6):
        now += 10.0
        trained(board, epoch(number))
    assert "elapsed 0:02:20, about 0:02:30 left" in view.summary()


@pytest.mark.parametrize("width", [80, 120])
def test_a_running_trial_has_its_settings_numbers_and_curve_in_a_line_that_fits(width: int) -> None:
    axes = {"model.name": "v2_receptive_resnet50", "lr": 0.025, "augment": "v2augs"}
    others = [{**axes, "lr": 0.1}, {**axes, "lr": 0.5}, {**axes, "model.name": "resnet34"}, {**axes, "augment": "none"}]
    view, board = a_run([planned(axes=axes), *(planned(str(n), axes=other) for n, other in enumerate(others))], width)
    trained(board, *(epoch(i) for i in range(1, 11)))
    head, first, *_ = shown = lines(view)
    assert max(map(len, shown)) <= width
    numbers = {80: ["epoch", "val_acc", "curve"], 120: ["epoch", "train_acc", "val_acc", "averaged", "curve", "best"]}
    assert head.split()[:3] == ["lr", "model", "augment"]
    assert set(numbers[width]) <= set(head.split())
    assert first.split()[:3] == ["0.025", "v2_receptive_resnet50", "v2augs"]
    assert "10/20" in first
    assert "25.00 %" in first
    assert "▁▃▅▆█" in first  # half of its ten characters, at half of its epochs


def test_a_run_that_was_killed_begins_with_trials_that_were_running() -> None:
    view, _ = a_run([planned(status="running", metrics=[epoch(1)])])
    assert "1/20" in "\n".join(lines(view))


def test_a_terminal_of_another_encoding_gets_characters_that_it_has() -> None:
    view, board = a_run([planned()], encoding="ascii")
    trained(board, *(epoch(i) for i in range(1, 11)))
    with view.step("evaluating"):
        text = "\n".join(lines(view))
    assert text.isascii()
    assert "_-+*%" in text


def test_without_colour_there_is_none_on_a_terminal_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> str:
        view, board = a_run([planned()])
        trained(board, epoch(1))
        view.console.print(view.render())
        view.console.file.flush()
        return view.console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]

    coloured = written()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = written()
    assert not any(f"\x1b[{code}" in plain for code in ("3", "9", "38"))
    assert [line.rstrip() for line in _bare(plain).splitlines()] == [
        line.rstrip() for line in _bare(coloured).splitlines()
    ]


def _bare(text: str) -> str:
    return Console(file=io.StringIO()).render_str("").from_ansi(text).plain


def test_in_a_pipe_there_are_whole_lines_and_steps_are_said_once() -> None:
    view, board = a_run([planned()], terminal=False)
    with view.live, view.step("preparing digits"):
        trained(board, epoch(1), epoch(2))
        board.update(ID, "ended", status="stopped", reason="rung 1 (epoch 2): place 4 of 4, 1 goes on")
    view.console.file.flush()
    text = view.console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    assert text.count("preparing digits\n") == 1
    assert f"{ID}: stopped after 2 of 20 epochs, rung 1 (epoch 2): place 4 of 4, 1 goes on\n" in text


def test_a_dumb_terminal_gets_the_lines_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    view, board = a_run([planned()])
    with view.live, view.step("preparing digits"):
        trained(board, epoch(1))
    text = view.console.export_text()
    assert "preparing digits\n" in text
    assert "starts\n" in text
    assert "running" not in text


def test_early_stopping_is_news_on_a_terminal() -> None:
    view, board = a_run([planned()])
    trained(board, epoch(1))
    assert "stopped after" not in view.console.export_text(clear=False)
    board.update(ID, "ended", status="stopped", reason="rung 1")
    assert "stopped after 1 of 20 epochs, rung 1" in view.console.export_text()


def test_a_step_is_a_moving_bar_beside_the_table_and_gone_after_it() -> None:
    view, _ = a_run([planned()])
    with view.step("evaluating the best"):
        assert any(line.startswith("evaluating the best") and "0:00:0" in line for line in lines(view))
    assert not any("evaluating" in line for line in lines(view))


def test_a_step_elsewhere_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with step("pulling a trial, 9.4 MB"):
        pass
    assert capsys.readouterr() == ("", "pulling a trial, 9.4 MB\n")


# ---------------------------------------------------------------------------------------------------------
# Hours


def hours(view: View) -> str:
    """What the summary says of hours: its last parts."""
    return re.sub(r".*, (?=\d+\.\d\d \S+ spent)", "", view.summary())


def test_hours_are_those_of_all_epochs_of_all_runs_times_the_gpus_of_a_trial() -> None:
    earlier = planned("earlier-12345678", 4, status="finished", metrics=[epoch(i) for i in range(1, 5)])
    view, board = a_run([earlier, planned()])
    trained(board, epoch(1), epoch(2))
    assert hours(view) == "0.15 slot-hours spent"  # six epochs of 90 s
    board.gpus = 2
    assert hours(view) == "0.30 GPU-hours spent"
    assert "0.30 GPU-hours spent" in " ".join(lines(view))


def test_hours_saved_are_those_of_the_epochs_that_stopped_trials_did_not_train() -> None:
    stopped = planned("earlier-12345678", 22, status="stopped", metrics=[epoch(1), epoch(2)])
    view, board = a_run([stopped, planned(epochs=10)])
    assert hours(view) == "0.05 slot-hours spent, 0.50 saved by early stopping"
    trained(board, epoch(1), epoch(2))
    board.update(ID, "ended", status="stopped", epoch=2)
    assert hours(view) == "0.10 slot-hours spent, 0.70 saved by early stopping"
    board.update(stopped.id, "started", status="running")  # in a larger plan it got a place
    assert hours(view) == "0.10 slot-hours spent, 0.20 saved by early stopping"


def test_epochs_that_are_trained_again_after_a_death_are_paid_again() -> None:
    view, board = a_run([planned()])
    trained(board, epoch(1), epoch(2))
    board.update(ID, "died", status="planned", reason="its process died")
    trained(board, epoch(2), epoch(3))
    assert hours(view) == "0.10 slot-hours spent"  # four epochs of 90 s


def test_what_is_not_known_costs_nothing() -> None:
    rows = [{"epoch": 1}, {"epoch": 2, "seconds": float("nan")}, {"epoch": 3, "seconds": None}]
    view, _ = a_run([planned(status="stopped", metrics=rows)])
    assert hours(view) == "0.00 slot-hours spent, 0.00 saved by early stopping"


def test_epochs_that_others_trained_cost_nothing_until_they_are_trained_again() -> None:
    view, board = a_run([planned()])
    board.update(ID, "started", status="running")
    board.note_taken(ID, [epoch(1), epoch(2)])
    trained(board, epoch(3), epoch(4))
    assert hours(view) == "0.05 slot-hours spent"  # two epochs of 90 s
    trained(board, epoch(2))  # the state was lost: no epoch of its own precedes this one
    assert hours(view) == "0.08 slot-hours spent"  # and two that are lost


def test_what_is_left_and_what_was_saved_counts_epochs_that_trials_share_once() -> None:
    steps = [{"lr_schedule": {"name": "step", "milestones": [at]}} for at in (12, 16)]
    values = {"name": "s", "base": {"data": "digits", "epochs": 20}, "cases": {"a": steps[0], "b": steps[1]}}
    trials = plan_trials(sweep_of(values)[0])
    one, two = (planned(trial.id) for trial in trials)
    view, board = a_run([one, two])
    conditions: dict[str, dict[str, Any]] = {one.id: {}, two.id: {}}
    board.sharing = Sharing(trials, [one, two], conditions, lambda record: (), False, kept={}, objective=Objective())
    assert board.epochs_left() == 20 + 8
    for record in (one, two):
        trained(board, epoch(1), epoch(2), trial_id=record.id)
        board.update(record.id, "ended", status="stopped", epoch=2)
    assert board.saved_hours() == pytest.approx((10 + 8 + 8) * 90 / 3600)
    assert "saved by early stopping" in hours(view)


# ---------------------------------------------------------------------------------------------------------
# Curves in characters


def test_a_sparkline_goes_from_the_lowest_to_the_highest_value_as_far_as_the_trial_has_come() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 1, 2, 3], 8, 8) == "▁▃▆█"
    assert sparkline([1, 0], 2, 6) == "███▁▁▁"
    assert sparkline([0.5] * 3, 3, 3) == "▁▁▁"
    assert len(sparkline([float(i) for i in range(1000)], 1000, 10)) == 10


def test_a_sparkline_has_gaps_where_there_is_no_number_and_is_empty_without_any() -> None:
    assert sparkline([0, None, float("nan"), 7], 4, 4) == "▁  █"
    assert sparkline([], 10, 10) == sparkline([None, float("inf")], 10, 10) == ""


def test_a_dip_of_one_epoch_shows_among_many() -> None:
    assert sparkline([0.5] * 10 + [0.1] + [0.5] * 9, 20, 10).count("█") == 9


def test_when_the_terminal_changes_its_width_the_screen_begins_anew_with_the_last_lines() -> None:
    view, board = a_run([planned()], 100)
    trained(board, epoch(1))
    with view.live:
        view.say("preparing digits")
        view.console.file.flush()
        written = view.console.file.buffer.getvalue()  # type: ignore[attr-defined]
        view.console.width = 60
        view.live.refresh()  # type: ignore[attr-defined]
        view.console.file.flush()
        after = view.console.file.buffer.getvalue()[len(written) :].decode()  # type: ignore[attr-defined]
        clear = "\x1b[2J\x1b[H"
        assert after.count(clear) == 1
        assert _bare(after.partition(clear)[2]).startswith("preparing digits\n")


def test_the_columns_of_another_loop_are_its_metrics_the_objective_with_its_companion_first() -> None:
    view, board = a_run([planned()], 120)
    view = View(view.console, "sweep", board, "val/loss")
    rows = [
        {"epoch": n, "train/loss": 1 / n, "val/loss": 2 / n, "val/mae": 30000.0, "test_acc": 0.5, "gpu": 1.0}
        for n in (1, 2)
    ]
    trained(board, *({**row, "val_acc": 0.0} for row in rows))
    head, first, *_ = lines(view)
    others = ["val_acc", "val/mae", "test_acc"]  # and not `gpu`, of which no name says that it is of validation
    assert head.split() == ["running", "epoch", "train/loss", "val/loss", "curve", "best", *others]
    assert first.split()[1:4] == ["2/20", "0.5", "1"]
    assert "50.00 %" in first
    assert "30,000" in first


def test_an_accuracy_that_turns_out_to_be_of_0_to_100_is_not_in_percent() -> None:
    view, board = a_run([planned()])
    trained(board, epoch(1, 0.5))
    assert "best val_acc 50.00 %" in view.summary()
    trained(board, epoch(2, 56.25))
    assert "best val_acc 56.25," in view.summary()
