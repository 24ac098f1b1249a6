"""What a sampler is told: records to what is known of each proposal."""

from collections.abc import Sequence
from typing import Any

import pytest

from raysweep.results.search.told import tell
from raysweep.store import Record
from raysweep.store.record import Score as Best
from raysweep.store.record import planned_record
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import trials_of_generation
from raysweep.sweepfile.proposals import first_generations

ASHA = {"name": "asha", "rungs": ["1/3", "2/3"], "rank_by": "ema"}


def search(**keys: Any) -> Sweep:
    space = {"lr": {"log_uniform": [0.01, 1]}}
    values = {"name": "search", "base": {"data": "synthetic", "epochs": 9}, "scheduler": ASHA}
    return Sweep.model_validate(values | {"search": {"trials": 4, "generation": 2, "space": space}} | keys)


def trained(record: Record, status: str, scores: Sequence[float]) -> Record:
    rows = [{"epoch": epoch, "val_acc": score, "val_loss": 1.0} for epoch, score in enumerate(scores, 1)]
    best = Best(1 + scores.index(max(scores)), max(scores), False, max(scores)) if scores else None
    return record.with_(status=status, metrics=rows, best=best)


def told(sweep: Sweep, *ends: tuple[str, Sequence[float]]) -> list[tuple[Any, ...]]:
    """What is told of the first proposals, the trials of which ended so; of the others nothing is known."""
    generations = first_generations(sweep)
    ids, records = {}, {}
    for generation in generations:
        for place, trials in enumerate(trials_of_generation(sweep, generation)):
            ids[generation.number, place] = [trial.id for trial in trials]
            records |= {trial.id: planned_record(trial) for trial in trials}
    known = list(records)[: len(ends)]
    records |= {id: trained(records[id], *end) for id, end in zip(known, ends, strict=True)}
    return [(each.state, each.score, each.rungs) for each in tell(sweep, generations, ids, records, known)]


def test_a_proposal_is_told_with_its_best_score_and_its_scores_at_the_rungs():
    finished = ("finished", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.8, 0.7])
    stopped = ("stopped", [0.1, 0.2, 0.3])
    diverged = ("diverged", [0.5, 0.4])
    assert told(search(), finished, stopped, diverged) == [
        ("finished", 0.9, [(pytest.approx(1 / 3), 0.3), (pytest.approx(2 / 3), 0.6)]),
        ("stopped", 0.3, [(pytest.approx(1 / 3), 0.3)]),
        ("failed", None, []),
        ("pending", None, []),
    ]


def test_the_seeds_of_a_proposal_are_told_as_their_means():
    sweep = search(seeds=[0, 1])
    first, second = [0.2] * 8 + [0.4], [0.4] * 8 + [0.6]
    proposals = told(sweep, ("finished", first), ("finished", second), ("finished", second), ("failed", []))
    assert proposals[0] == (
        "finished",
        0.5,
        [(pytest.approx(1 / 3), pytest.approx(0.3)), (pytest.approx(2 / 3), pytest.approx(0.3))],
    )
    assert proposals[1] == ("finished", 0.6, [(pytest.approx(1 / 3), 0.4), (pytest.approx(2 / 3), 0.4)])
    assert [state for state, _, _ in proposals[2:]] == ["pending", "pending"]
