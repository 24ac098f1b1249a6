"""What a run ends with and `raysweep status` prints: configs with their seeds, best first; the winner's evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from raysweep.results.evaluation import Evaluation
from raysweep.results.ranking import RankedConfig, SeedScores
from raysweep.results.run import SweepResult
from raysweep.results.settings import (
    are_numbers,
    most_telling,
    setting_texts,
    varied_settings,
)
from raysweep.results.trade_offs import front_in_words, value_text
from raysweep.store import Record
from raysweep.store.metrics import EMA
from raysweep.sweepfile.patch import short_labels
from raysweep.sweepfile.plan import short_id
from raysweep.terminal import (
    Metric,
    count_of,
    format_acc,
    format_score,
    format_score_and_error,
    print_fitting,
    say,
    shortened,
    table_console,
    table_of,
)

RIGHT = ("rank", "epoch", "best at", "val_acc", "fresh seeds")
OPTIONAL = ("weights", "best at")
"""Columns that are left out first where the terminal is narrow."""


def print_results(result: SweepResult, stderr: bool = False) -> None:
    """Print the configs as they are ranked, with several objectives what the front is; then the winner's evaluation."""
    print_ranking(result.configs, result.metric, stderr, _of_all_objectives(result))
    for line in front_in_words(result.trade_offs, result.objective):
        say(line, stderr)
    print_evaluation(result.evaluation, stderr)


def _of_all_objectives(result: SweepResult) -> dict[str, list[str]]:
    """Return the columns that the table has with several objectives only, a cell for each config that has a score."""
    if not result.objective.against:
        return {}
    found = result.trade_offs
    values = {
        metric.name: [value_text(each.values[metric.name], metric) for each in found] for metric in result.metrics[1:]
    }
    return {**values, "dominated by": [str(each.dominated_by) for each in found]}


def print_ranking(
    configs: Sequence[RankedConfig],
    metric: Metric,
    stderr: bool = False,
    more: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Print the table of ranked configs, with the seeds of each below it where there are several.

    Configs are told apart by the settings that vary, as many of them as the terminal has room for; the last column is
    the end of the trial's id, by which `status --why` finds it. `metric` is the objective's, `more` the cells of
    further columns, of the first configs.
    """
    settings = _setting_columns(configs)
    metric = replace(metric, name=f"best {metric.name}") if metric.name in settings else metric
    columns = _columns(configs, metric, more)
    shown = {"rank": columns.pop("rank"), **settings, **columns}
    telling = _most_telling_first(configs)
    same = ("epoch", "status") if {*columns["status"]} <= {"finished", ""} else ()
    numbers = [label for label, cells in settings.items() if are_numbers({*cells} - {"", "-"})]
    right = {*RIGHT, metric.name, *numbers, *more}
    print_fitting(shown, [*OPTIONAL, *same, *reversed(telling[1:])], right, stderr)


def _columns(
    configs: Sequence[RankedConfig], metric: Metric, more: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the columns but for the settings, by their heads."""
    repeated = any(len(config.trials) > 1 for config in configs)
    confirmed = any(config.fresh for config in configs)
    digits = max(len(str(record.seed)) for config in configs for record in config.trials) if configs else 1
    rows = list[dict[str, str]]()
    for place, config in enumerate(configs, 1):
        of_config = {"rank": str(place) if config.best else "-"}
        of_config |= {head: cells[place - 1] if place <= len(cells) else "-" for head, cells in more.items()}
        if repeated:
            rows.append(
                {**of_config, "trial": count_of(len(config.search), "seed"), **_means(config, metric, confirmed)}
            )
            of_config = {}
        for record in config.trials:
            cells = _trial_cells(record, metric, record.id in config.fresh_ids)
            seed = f"seed {record.seed:<{digits}}  " if repeated else ""
            rows.append({**of_config, **cells, "trial": seed + cells["trial"]})
    records = [record for config in configs for record in config.trials]
    heads = ("rank", metric.name, *more, *(["fresh seeds"] if confirmed else []))
    heads += (*_known_of(records, metric), "epoch", "status", "best at", *_weights_of(records), "trial")
    return {head: [row.get(head, "") for row in rows] for head in heads}


def _known_of(records: Sequence[Record], metric: Metric) -> list[str]:
    """Return the column of the accuracy that a loop has reported beside the metric it is ranked by."""
    is_known = metric.name != "val_acc" and any(record.best and record.best.val_acc is not None for record in records)
    return ["val_acc"] if is_known else []


def _weights_of(records: Sequence[Record]) -> list[str]:
    """Return the column that tells averaged weights from plain ones; nothing where no trial has averaged ones."""
    return ["weights"] if any(name.endswith(EMA) for record in records for name in (record.metrics or [{}])[-1]) else []


def _setting_columns(configs: Sequence[RankedConfig]) -> dict[str, list[str]]:
    """Return the columns of the settings that vary; of configs that do not differ, their name."""
    firsts = [config.trials[0] for config in configs]
    labels = short_labels(varied_settings(firsts))
    texts = {label: shortened(setting_texts(firsts, key)) for key, label in labels.items()}
    repeated = any(len(config.trials) > 1 for config in configs)
    # Beside the seeds of a config, whose settings are the same, the cells are empty.
    below = [[""] * len(config.trials) if repeated else [] for config in configs]
    return {
        label: [cell for text, empty in zip(column, below, strict=True) for cell in (text, *empty)]
        for label, column in (texts or {"config": shortened([config.name for config in configs])}).items()
    }


def _most_telling_first(configs: Sequence[RankedConfig]) -> list[str]:
    firsts = [config.trials[0] for config in configs]
    labels = short_labels(varied_settings(firsts))
    return [labels[key] for key in most_telling(firsts, list(labels))]


def _means(config: RankedConfig, metric: Metric, confirmed: bool) -> dict[str, str]:
    """Return the cells of a config's mean scores."""
    fresh = {"fresh seeds": format_mean(config.fresh_scores, metric)} if confirmed else {}
    return {metric.name: format_mean(config.scores, metric), **fresh}


def _trial_cells(record: Record, metric: Metric, is_fresh: bool) -> dict[str, str]:
    best = record.best
    cells = {
        "fresh seeds" if is_fresh else metric.name: format_score(best.score, metric) if best else "-",
        "epoch": f"{record.epoch}/{record.epochs}",
        "status": record.status,
        "best at": str(best.epoch) if best else "-",
        "weights": "-" if not best else "averaged" if best.averaged else "plain",
        "trial": short_id(record.id),
    }
    return cells if metric.name == "val_acc" else {"val_acc": format_acc(best.val_acc if best else None), **cells}


def format_mean(scores: SeedScores, metric: Metric) -> str:
    """Return the mean over seeds with its standard error, if there is one."""
    return format_score_and_error(scores.mean, scores.standard_error, metric)


def print_evaluation(evaluation: Evaluation | None, stderr: bool = False) -> None:
    """Print the winner's accuracies, if it was evaluated."""
    if evaluation is None:
        return
    right = ("val_acc", "test_acc")
    rows = [
        ("the image alone" if row.tta == 0 else f"tta {row.tta}", format_acc(row.val_acc), format_acc(row.test_acc))
        for row in evaluation.accuracies
    ]
    table_console(stderr).print(table_of(("best trial's accuracy", *right), rows, right))
