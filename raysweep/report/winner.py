"""Pictures of who won: what the likeliest configs can be expected to reach, and what a random search is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raysweep.report.content import Report
from raysweep.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Scale, is_log, points
from raysweep.results.ranking import RankedConfig, can_win
from raysweep.results.settings import most_telling, setting_text, setting_texts
from raysweep.results.tuning import tuning_curve
from raysweep.results.verdict import chance_text
from raysweep.results.winner import Estimate
from raysweep.terminal import Metric, shortened, words_of

MOST_RIVALS = 7
"""Configs in the picture of the winner."""
WIDE, LABELS = 820, 300
"""The width of that picture, and where the names of the configs end."""
LONGEST = 36
"""Letters of a config's name there."""
NEVER_NEGATIVE = frozenset(("loss", "error", "err", "mse", "rmse", "mae", "mape", "wer", "cer", "perplexity", "ppl"))
"""Words for what cannot be less than 0; a loss can, but then some of the scores are."""
FEWEST = 5
"""A random search of fewer configs says nothing of what more would reach."""


def draw_winner(report: Report) -> list[Chart]:
    """Draw what the likeliest configs can be expected to reach, beside the score that each was chosen by."""
    judgement = report.judgement
    if judgement is None or judgement.verdict is None:
        return []
    verdict, sign = judgement.verdict, judgement.sign
    likeliest = sorted(verdict.estimates, key=lambda each: (each.place != verdict.winner, -verdict.chances[each.place]))
    shown = [(each, judgement.configs[each.place]) for each in likeliest[:MOST_RIVALS]]
    names = ", ".join(judgement.labels[each.place] for each, _ in shown)
    description = (
        f"{names}: what each can be expected to reach with a new seed (dot), with its {100 * judgement.confidence:g} % "
        "interval (line), and the mean score that it was chosen by (ring). Strokes are its single seeds."
    )
    chart = Chart("Expected, and chosen by", description, "winner", width=WIDE)
    seeds = [record.best.score for _, config in shown for record in config.trials if can_win(record) and record.best]
    bounds = [sign * bound for each, _ in shown for bound in (each.low, each.high)]
    x = Scale(min(*seeds, *bounds), max(*seeds, *bounds), LABELS, WIDE - RIGHT - 16)
    row_height = (HEIGHT - BOTTOM - TOP - 20) / len(shown)
    for value in x.ticks():
        chart.add("line", x1=x(value), x2=x(value), y1=TOP, y2=HEIGHT - BOTTOM, class_="grid")
        chart.add(
            "text",
            text=report.result.metric.tick(value),
            x=f"{x(value):.0f}",
            y=f"{HEIGHT - BOTTOM + 16}",
            class_="tick middle",
        )
    for number, ((each, config), label) in enumerate(
        zip(shown, _names_among(report, [c for _, c in shown]), strict=True)
    ):
        _draw_estimate(chart, report, x, TOP + 10 + row_height * (number + 0.5), (label, each, config))
    key = "● expected, with its interval    ○ the score it was chosen by    | a seed"
    chart.add("text", text=key, x=f"{LABELS}", y=f"{HEIGHT - 6}", class_="tick")
    return [chart]


def _names_among(report: Report, configs: Sequence[RankedConfig]) -> list[str]:
    """Return what configs are called among each other: their values of the settings that tell these apart."""
    records = [config.trials[0] for config in configs]
    keys = most_telling(records, [key for key in report.keys if len({setting_text(each, key) for each in records}) > 1])
    columns = [shortened(setting_texts(records, key)) for key in keys]
    rank = {id(config): place for place, config in enumerate(report.result.configs, 1)}
    named = ((config, ", ".join(texts)) for config, *texts in zip(configs, *columns, strict=True))
    return [f"{rank[id(config)]}: {values or config.name}" for config, values in named]


def _draw_estimate(chart: Chart, report: Report, x: Scale, y: float, row: tuple[str, Estimate, RankedConfig]) -> None:
    """Draw one config: its name, its chance of being the best, its seeds, what it was chosen by, what to expect."""
    label, estimate, config = row
    assert report.judgement is not None
    assert report.judgement.verdict is not None
    verdict, sign = report.judgement.verdict, report.judgement.sign
    group = chart.add("g", class_="c0" if estimate.place == verdict.winner else "c7")
    text = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
    strong = " strong" if estimate.place == verdict.winner else ""
    chart.add("text", group, text, x=f"{LABELS - 12}", y=f"{y:.1f}", class_=f"tick end{strong}")
    chance = f"the best: {chance_text(verdict.chances[estimate.place])}"
    chart.add("text", group, chance, x=f"{LABELS - 12}", y=f"{y + 14:.1f}", class_="tick end")
    for record in config.trials:
        if can_win(record) and record.best:
            at = x(record.best.score)
            chart.add("line", group, x1=at, x2=at, y1=y - 7, y2=y + 7, class_="seed")
    low, high = (x(sign * bound) for bound in (estimate.low, estimate.high))
    chart.add("line", group, x1=low, x2=high, y1=y, y2=y, class_="interval")
    if config.scores.mean is not None:
        chart.add("circle", group, class_="stop", cx=x(config.scores.mean), cy=y, r=5.0)
    chart.add("circle", group, class_="stop went-on", cx=x(sign * estimate.score), cy=y, r=5.0)


def draw_tuning(report: Report) -> list[Chart]:
    """Draw how good the best of 1, 2, ... random configs is; of random searches alone, and without early stopping."""
    scores = _of_random_search(report)
    if sum(map(math.isfinite, scores)) < FEWEST:
        return []
    metric, sign = report.result.metric, 1 if report.result.objective.maximize else -1
    curve = tuning_curve(scores, best_possible=_best_possible(metric, sign, scores))
    counts = range(1, len(scores) + 1)
    low, median, high = ([sign * value for value in line] for line in (curve.low, curve.median, curve.high))
    finite = [value for value in (*low, *median, *high) if math.isfinite(value)]
    description = (
        f"The best {metric.name} of so many random configs is as likely better as worse than the line; the dotted "
        f"lines are a 95 % band for all at once. Of {len(scores)} configs it is {report.score_text(median[-1])}."
    )
    chart = Chart("The best of so many random configs", description, "tuning")
    x, low_y, high_y = Scale(1, len(scores), LEFT, WIDTH - RIGHT), min(finite), max(finite)
    y = Scale(low_y, high_y, HEIGHT - BOTTOM, TOP + 8, is_log((low_y, high_y)) and not metric.percent)
    chart.axes(x, y, "configs", "log scale" if y.log else "", metric.tick)
    group = chart.add("g", class_="c0")
    for line, kind in ((low, "averaged"), (median, "val"), (high, "averaged")):
        for stretch in points(counts, line, x, y):
            chart.add("polyline", group, class_=kind, points=stretch)
    return [chart]


def _best_possible(metric: Metric, sign: int, scores: Sequence[float]) -> float:
    """Return what no score exceeds, more being better: 1 for accuracies, 0 for losses and errors, if none was lower."""
    if sign > 0:
        return 1.0 if metric.percent else math.inf
    return 0.0 if NEVER_NEGATIVE.intersection(words_of(metric.name)) and max(scores) <= 0 else math.inf


def _of_random_search(report: Report) -> list[float]:
    """Return the scores of configs that are draws of one distribution, more being better; none of other sweeps."""
    sweep, configs = report.result.resolved.get("sweep", {}), report.result.configs
    is_random = bool(sweep.get("random")) and not any(sweep.get(axes) for axes in ("grid", "zip", "cases"))
    over = ("finished", "diverged", "failed")
    if not is_random or any(record.status not in over for config in configs for record in config.search):
        return []
    sign = 1 if report.result.objective.maximize else -1
    return [-math.inf if config.scores.mean is None else sign * config.scores.mean for config in configs]
