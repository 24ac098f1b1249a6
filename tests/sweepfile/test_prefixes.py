"""Which epochs a plan's trials share, and which states they leave for longer ones."""

from __future__ import annotations

import pytest

from raysweep.sweepfile import sweep_of
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.prefixes import Prefixes


@pytest.mark.parametrize(
    ("schedule", "until", "epoch"),
    [
        ({"name": "step", "milestones": [10]}, None, 20),
        ({"name": "wsd", "decay": 0.2}, None, 16),
        ({"name": "wsd", "decay": 0.7}, None, 0),  # six of twenty are not worth a state
        ("cosine", None, 0),  # a longer one has the first epoch in common
        ("cosine", 7, 7),  # the whole schedule has all seven
    ],
)
def test_a_trial_leaves_a_state_for_longer_ones_where_these_have_at_least_half_of_its_epochs(
    schedule: object, until: int | None, epoch: int
) -> None:
    values = {"name": "s", "base": {"data": "digits", "epochs": 20, "lr_schedule": schedule}, "until": until}
    (trial,) = plan_trials(sweep_of(values)[0])
    assert Prefixes([trial]).last_state(trial.id) == epoch
