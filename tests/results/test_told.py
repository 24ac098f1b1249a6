"""What a sampler is told with several objectives: places in the order of dominance."""

from __future__ import annotations

from typing import Any

from raysweep.results.search.told import Told, tell
from raysweep.store import Record
from raysweep.store.record import Score, planned_record
from raysweep.sweepfile import sweep_of
from raysweep.sweepfile.plan import first_of_search, plan_trials, trials_of_generation

SEARCH: dict[str, Any] = {
    "name": "searched",
    "base": {"data": "digits", "model": "baseline_block", "epochs": 9},
    "search": {"trials": 5, "generation": 5, "space": {"lr": {"log_uniform": [0.001, 1]}}},
    "scheduler": {"name": "asha", "rank_by": "last"},
}


def told_of(rows: list[tuple[str, int, float, float]], **changes: Any) -> list[Told]:
    """What is told of trials with (status, epochs, accuracy, flops)."""
    sweep, _ = sweep_of({**SEARCH, **changes})
    generations = first_of_search(sweep)
    ids = {(0, place): [own.id] for place, (own,) in enumerate(trials_of_generation(sweep, generations[0]))}
    records: dict[str, Record] = {}
    for trial, (status, epochs, accuracy, flops) in zip(plan_trials(sweep), rows, strict=True):
        best = Score(epochs, accuracy, False, accuracy)
        metrics = [{"epoch": float(epoch), "val_acc": accuracy} for epoch in range(1, epochs + 1)]
        ended: Any = status
        records[trial.id] = planned_record(trial).with_(
            status=ended, metrics=metrics, best=best, conditions={"costs": {"flops": flops, "params": 1.0}}
        )
    return tell(sweep, generations, ids, records, list(records))


ROWS = [
    ("finished", 9, 0.9, 100.0),
    ("finished", 9, 0.8, 200.0),  # dominated by the first
    ("finished", 9, 0.7, 10.0),
    ("stopped", 1, 0.3, 5.0),
    ("stopped", 1, 0.2, 50.0),  # dominated there by all but the second
]


def test_one_objective_is_told_as_it_is():
    assert [each.score for each in told_of(ROWS)] == [0.9, 0.8, 0.7, 0.3, 0.2]


def test_several_objectives_are_told_as_places_of_which_those_on_the_front_are_the_best():
    told = told_of(ROWS, objective=["val_acc", {"metric": "flops", "mode": "min"}])
    assert [each.state for each in told] == ["finished"] * 3 + ["stopped"] * 2
    assert [each.score for each in told[:3]] == [0, -2, -1]
    at_first_rung = [each.rungs[0][1] for each in told]
    assert at_first_rung[4] < at_first_rung[3]
    assert sorted(at_first_rung, reverse=True) == [0, -1, -2, -3, -4]
