"""A `Sweep` becomes its list of trials: order, ids, draws, exclusions."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.errors import SweepFileError
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import Trial, id_named, keep_ids, plan_as_json, plan_trials


def plan(**sections: object) -> list[Trial]:
    return plan_trials(Sweep.model_validate({"name": "a", **sections}))


def ids(**sections: object) -> list[str]:
    return [trial.id for trial in plan(**sections)]


# ---------------------------------------------------------------------------------------------------------
# Expansion


def test_a_sweep_that_varies_nothing_is_one_trial() -> None:
    (trial,) = plan(base={"epochs": 3})
    assert trial.config.epochs == 3
    assert trial.axes == {}
    assert re.fullmatch(r"baseline_block-lr0\.1-[0-9a-f]{12}", trial.id)


def test_a_grid_is_the_product_of_its_lists_the_last_advancing_first() -> None:
    trials = plan(grid={"lr": [0.2, 0.1], "model.width": [8, 16]})
    assert [(t.config.lr, t.config.model.width) for t in trials] == [(0.2, 8), (0.2, 16), (0.1, 8), (0.1, 16)]


def test_zipped_lists_advance_together() -> None:
    trials = plan(zip={"lr": [0.2, 0.1], "epochs": [5, 10]})
    assert [(t.config.lr, t.config.epochs) for t in trials] == [(0.2, 5), (0.1, 10)]


def test_cases_keep_their_order_and_may_have_a_grid_of_their_own() -> None:
    trials = plan(
        cases={"late": {"lr": 0.3}, "early": {"grid": {"lr": [0.1, 0.2]}, "epochs": 4}}, grid={"batch_size": [32, 64]}
    )
    assert [(t.config.lr, t.config.batch_size) for t in trials] == [
        *((0.3, 32), (0.3, 64)),
        *((0.1, 32), (0.1, 64), (0.2, 32), (0.2, 64)),
    ]
    assert {t.config.epochs for t in trials[2:]} == {4}


def test_seeds_repeat_each_config() -> None:
    trials = plan(grid={"lr": [0.2, 0.1]}, seeds=[0, 7])
    assert [(t.config.lr, t.seed) for t in trials] == [(0.2, 0), (0.2, 7), (0.1, 0), (0.1, 7)]
    assert len({t.id for t in trials}) == 4


def test_without_seeds_trials_have_the_sweeps() -> None:
    assert [t.seed for t in plan(seed=5)] == [5]


@pytest.mark.parametrize(
    ("partial", "left"),
    [
        ({"lr": 0.2, "model": {"width": 8}}, 3),
        ({"lr": 0.2, "model.width": 8}, 3),
        ({"model": "baseline_block", "lr": 0.1}, 2),
        ({"lr": 0.3}, 4),
        ({"optimizer": {"name": "sgd"}, "model.width": 16}, 2),
    ],
)
def test_partial_configs_exclude_what_agrees_with_them(partial: dict[str, object], left: int) -> None:
    assert len(plan(grid={"lr": [0.2, 0.1], "model.width": [8, 16]}, exclude=[partial])) == left


def test_a_list_of_operations_excludes_what_has_them_whatever_their_defaults() -> None:
    lists = [[{"flip": {"p": 0.5}}, {"crop": {}}], [{"flip": {"p": 0.5}}], [{"flip": {"p": 0.4}}, {"crop": {}}]]
    left = plan(grid={"augment": lists}, exclude=[{"augment": [{"flip": {"p": 0.5}}, {"crop": {}}]}])
    assert [t.axes["augment"] for t in left] == [
        [{"flip": {"p": 0.5, "direction": "horizontal"}}],
        [{"flip": {"p": 0.4, "direction": "horizontal"}}, {"crop": {"padding": None}}],
    ]


def test_equal_configs_are_one_trial() -> None:
    assert len(plan(grid={"lr": [0.1, 0.1, 0.2]})) == 2
    assert len(plan(grid={"optimizer": ["sgd", {"name": "sgd", "momentum": 0.9}]})) == 1


def test_a_dotted_key_keeps_the_rest_of_its_section() -> None:
    (trial,) = plan(base={"model": "resnet18", "data": {"name": "synthetic", "classes": 4}}, grid={"model.width": [8]})
    assert (trial.config.model.name, trial.config.model.width) == ("resnet18", 8)
    assert (trial.config.data.name, trial.config.data.classes) == ("synthetic", 4)


def test_a_section_keeps_the_keys_inside_it_that_vary_whichever_the_file_has_first() -> None:
    grid = {"model": ["resnet18", "resnet34"], "model.width": [4, 8]}
    turned = {key: grid[key] for key in reversed(grid)}
    assert sorted(ids(grid=grid)) == sorted(ids(grid=turned))
    cases = {"narrow": {"model.width": 4}, "wide": {"model.width": 8}}
    assert sorted(ids(cases=cases, grid={"model": grid["model"]})) == sorted(ids(grid=grid))


def test_a_mapping_without_name_keeps_the_rest_of_its_section() -> None:
    (trial,) = plan(base={"data": "synthetic"}, cases={"a": {"data": {"classes": 4}}})
    assert (trial.config.data.name, trial.config.data.classes) == ("synthetic", 4)


def test_another_kind_of_optimizer_does_not_inherit_the_keys_of_the_first() -> None:
    base = {"optimizer": {"name": "sgd", "momentum": 0.8}}
    for axis in ({"optimizer": ["sgd", "adamw"]}, {"optimizer.name": ["sgd", "adamw"]}):
        assert [t.config.optimizer.name for t in plan(base=base, grid=axis)] == ["sgd", "adamw"]


# ---------------------------------------------------------------------------------------------------------
# Random draws


DRAWS = {
    "lr": {"log_uniform": [1e-3, 1.0]},
    "label_smoothing": {"uniform": [0, 0.2]},
    "epochs": {"int": [2, 4]},
    "augment": {"choice": ["none", "shift"]},
}


def test_draws_lie_inside_their_bounds() -> None:
    trials = plan(random={"samples": 200, **DRAWS})
    assert all(1e-3 <= t.config.lr <= 1.0 for t in trials)
    assert all(0 <= t.config.label_smoothing <= 0.2 for t in trials)
    assert {t.config.epochs for t in trials} == {2, 3, 4}
    assert {t.config.augment for t in trials} == {"none", "shift"}
    below = sum(t.config.lr < math.sqrt(1e-3) for t in trials)
    assert 70 < below < 130  # half of the logarithms


def test_a_draw_depends_only_on_seed_key_and_number() -> None:
    def lrs(samples: int, seed: int = 0, **keys: object) -> list[float]:
        return [t.config.lr for t in plan(seed=seed, random={"samples": samples, "lr": DRAWS["lr"], **keys})]

    assert lrs(9)[:4] == lrs(4)
    assert lrs(4, epochs=DRAWS["epochs"]) == lrs(4)
    assert lrs(4, seed=1) != lrs(4)


# ---------------------------------------------------------------------------------------------------------
# Ids


def test_ids_are_pinned_so_that_run_folders_go_on_those_of_an_older_raysweep_too() -> None:
    trials = plan(grid={"lr": [0.1, 0.05], "augment": ["none", "shift"]}, base={"model": {"width": 16}})
    assert [trial.id for trial in trials] == PINNED
    operations = [{"flip": {"p": 0.5}}, {"crop": {"padding": 4}}, {"color_jitter": {"hue": 0.1}}]
    trials += plan(base={"augment": operations})
    assert [trial.former_id for trial in trials] == FORMER
    known = keep_ids(trials, {"baseline_block-lr0.1-ab5fee29", "some-other-12345678"})
    assert [trial.id for trial in known] == [*PINNED, "baseline_block-lr0.1-ab5fee29"]


PINNED = [
    "baseline_block-width16-lr0.1-1bd6fc4aecbd",
    "baseline_block-width16-lr0.1-shift-9cf9bb3f8caa",
    "baseline_block-width16-lr0.05-42eb34c70553",
    "baseline_block-width16-lr0.05-shift-282839093627",
]
FORMER = [id[:-4] for id in PINNED] + ["baseline_block-lr0.1-ab5fee29"]


def test_of_two_trials_that_an_older_raysweep_would_have_taken_for_one_neither_keeps_its_id() -> None:
    trials = plan(
        base={"data": "synthetic", "epochs": 1, "optimizer": {"name": "sgd"}},
        grid={"optimizer.weight_decay": [0.030891, 0.077067]},
    )
    assert {trial.former_id for trial in trials} == {"baseline_block-lr0.1-92abd7d1"}
    assert keep_ids(trials, {"baseline_block-lr0.1-92abd7d1"}) == trials


def test_ids_do_not_depend_on_how_the_config_is_written() -> None:
    (plain,) = ids(base={"optimizer": "adamw", "lr": 0.1})
    (full,) = ids(base={"lr": 0.1, "epochs": 20, "optimizer": {"name": "adamw", "eps": 1e-8}})
    (dotted,) = ids(base={"optimizer.name": "adamw"})
    assert plain == full == dotted


def test_adding_trials_changes_no_other_id() -> None:
    assert set(ids(grid={"lr": [0.1, 0.2]})) <= set(ids(grid={"lr": [0.3, 0.2, 0.1]}))


def test_where_the_data_lies_and_precision_are_no_part_of_the_id_unless_varied() -> None:
    assert ids(base={"data": {"path": "/a"}, "precision": "fp32", "compile": True}) == ids()
    assert len(set(ids(grid={"precision": ["fp32", "bf16"]}))) == 2


@pytest.mark.parametrize(
    "grid",
    [
        {"lr": [0.1], "model.width": [8]},
        {"model": ["torchvision/resnet18", {"name": "resnet18", "width": 8}]},
        {"augment": [[{"flip": {"p": 0.5}}, {"crop": {}}], "none"]},
        {"normalize": [{"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}, "half"]},
        {key: [1] for key in ("epochs", "batch_size", "lr", "model.width", "data.per_class", "lr_schedule.t_max")},
    ],
)
def test_ids_are_short_safe_names(grid: dict[str, list[object]]) -> None:
    for trial_id in ids(grid=grid, seeds=[0, 1]):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}-[0-9a-f]{12}", trial_id)


# ---------------------------------------------------------------------------------------------------------
# Properties

AXES = {
    "lr": st.floats(1e-4, 10, allow_nan=False),
    "epochs": st.integers(1, 100),
    "model.width": st.integers(1, 64),
    "augment": st.sampled_from(["none", "shift"]),
    "optimizer.momentum": st.floats(0, 0.99),
}
GRIDS = st.fixed_dictionaries(
    {}, optional={key: st.lists(v, min_size=1, max_size=3, unique=True) for key, v in AXES.items()}
)


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
def test_a_plan_has_the_product_of_the_lists_unique_ids_and_one_order(
    grid: dict[str, list[object]], seeds: list[int]
) -> None:
    trials = plan(grid=grid, seeds=seeds)
    assert len(trials) == math.prod(map(len, grid.values())) * len(seeds)
    assert len({trial.id for trial in trials}) == len(trials)
    assert trials == plan(grid=grid, seeds=seeds)


@settings(max_examples=30, deadline=None)
@given(grid=GRIDS)
def test_the_order_of_keys_and_values_changes_no_id_hash(grid: dict[str, list[object]]) -> None:
    turned = {key: values[::-1] for key, values in reversed(grid.items())}
    assert {i[-8:] for i in ids(grid=grid)} == {i[-8:] for i in ids(grid=turned)}


# ---------------------------------------------------------------------------------------------------------
# As JSON; errors without a file


def test_the_document_of_a_plan_has_every_default_filled_in() -> None:
    sweep = Sweep.model_validate({"name": "a", "base": {"epochs": 3}, "seeds": [1, 2]})
    document = plan_as_json(sweep, plan_trials(sweep))
    assert document["name"] == "a"
    first = document["trials"][0]
    assert first.keys() >= {"id", "config", "status", "epoch", "val_acc", "epochs", "seed"}
    assert (first["status"], first["epoch"], first["val_acc"], first["epochs"], first["seed"]) == (
        "planned",
        0,
        None,
        3,
        1,
    )
    assert first["config"]["optimizer"]["weight_decay"] == 5e-4


def test_a_sweep_made_in_python_has_messages_too() -> None:
    with pytest.raises(SweepFileError, match=r"grid.lr.0: got -1, must be greater than 0"):
        plan(grid={"lr": [-1]})


def test_a_trials_id_stays_when_the_sweep_around_it_is_edited() -> None:
    (alone,) = plan(base={"epochs": 3}, grid={"lr": [0.1]})
    edits = [plan(base={"epochs": 3}, grid={"lr": [0.2, 0.1]}), plan(base={"epochs": 3, "lr": 0.1}, seeds=[0, 1])]
    edits.append(plan(cases={"slow": {"lr": 0.1, "epochs": 3}}))
    for trials in edits:
        assert alone.id in [trial.id for trial in trials]


COLLIDING = {"data": "synthetic", "epochs": 1, "optimizer": {"name": "sgd"}}
"""With weight decays of 0.010832349 and 0.01118027 this config has the same id, by chance."""


def test_two_trials_whose_hashes_collide_are_refused_and_named_rather_than_one_dropped() -> None:
    decays = {"optimizer.weight_decay": [0.010832349, 0.5, 0.01118027]}
    with pytest.raises(SweepFileError) as caught:
        plan(base=COLLIDING, grid=decays)
    (problem,) = caught.value.problems
    assert "baseline_block-lr0.1-a34a67d9e8c3" in problem
    assert "optimizer.weight_decay 0.010832349 and 0.01118027" in problem
    assert "exclude" in problem
    assert len(plan(base=COLLIDING, grid=decays, exclude=[{"optimizer.weight_decay": 0.01118027}])) == 2


def test_the_same_trial_twice_is_one_and_no_collision() -> None:
    assert len(plan(base=COLLIDING, grid={"optimizer.weight_decay": [0.01118027, 0.01118027]})) == 1


@pytest.mark.parametrize("asked", ["e636285a7ca7", "e636", "7ca7", "block-lr0.1-e636"])
def test_a_trial_is_found_by_what_only_its_id_or_its_hash_begins_or_ends_with(asked: str) -> None:
    known = ["block-lr0.1-e636285a7ca7", "block-lr0.2-f0e6361111ab"]
    assert id_named(asked, known) == known[0]
