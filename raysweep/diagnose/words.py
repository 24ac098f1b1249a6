"""Findings as sentences."""

from __future__ import annotations

import math
from collections.abc import Callable

from raysweep.diagnose.findings import Cause, Finding, Kind
from raysweep.diagnose.sweep import MOST_VALUES, AxisEffect, SweepDiagnosis, ValueEffect

CAUSE_NAMES: dict[Cause, str] = {
    "exploding_gradients": "exploding gradients",
    "rising_lr": "a rising learning rate (cyclic schedule or warm-up)",
    "high_lr": "too high a learning rate",
    "validation_only": "validation alone (batch-norm statistics, or weights that swing)",
}
VERBS: dict[Kind, str] = {"divergence": "diverge", "dip": "dip", "overfitting": "overfit", "underfitting": "underfit"}
NOT_BY_CHANCE = 0.05
PLATEAU_GAIN = 0.02
"""Training accuracy that must be gained during a plateau to be worth a word."""
FEW = 2
"""So many trials are named; what they share could be anything."""


def percent(value: float) -> str:
    """An accuracy."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of accuracies."""
    return f"{100 * value:.1f} points"


def describe(finding: Finding) -> str:
    """One finding, in one sentence without its trial; of dips and divergence also the cause."""
    n = finding.numbers
    match finding.kind:
        case "dip":
            ending = "recovered" if finding.recovered else "not recovered"
            text = (
                f"dip of {points(n['depth'])} at epoch {finding.first} ({percent(n['from'])} to {percent(n['to'])}), "
                f"{_epochs(n['length'])}, {ending}"
            )
            return f"{text}; {_cause(finding)}"
        case "divergence":
            return f"{_divergence(finding)}; {_cause(finding)}"
        case "overfitting":
            return _overfitting(finding)
        case "underfitting":
            if "guessing" in n:
                return (
                    f"learns next to nothing: training loss ends at {n['train_loss']:.2f}; guessing would cost "
                    f"{n['guessing']:.2f}"
                )
            more = ", still gaining at the end" if n["still_gaining"] > 0.01 else ""
            return (
                f"underfits: training accuracy ends at {percent(n['train_acc'])}, validation at "
                f"{percent(n['val_acc'])}{more}"
            )
        case "plateau":
            return _plateau(finding)


def evidence_lines(finding: Finding) -> list[str]:
    """What speaks for and against each cause."""
    return [
        f"{'for' if item.supports else 'against'} {CAUSE_NAMES[item.cause]}: {item.text}" for item in finding.evidence
    ]


def _cause(finding: Finding) -> str:
    if not finding.causes:
        return "unexplained"
    texts = {item.cause: item.text for item in finding.evidence if item.supports}
    return "likely " + "; or ".join(f"{CAUSE_NAMES[cause]} ({texts[cause]})" for cause in finding.causes)


def _divergence(finding: Finding) -> str:
    n = finding.numbers
    if math.isinf(n["train_loss"]):
        return f"diverged: the loss of epoch {finding.first} is not finite"
    if n["train_loss"] > n["guessing"]:
        return (
            f"diverged: training loss ends at {n['train_loss']:.3g}, above the {n['guessing']:.3g} of guessing, "
            f"lost from epoch {finding.first}"
        )
    return (
        f"diverged: training loss, {n['first']:.3g} at first and {n['lowest']:.3g} at best, ends at "
        f"{n['train_loss']:.3g}; lost from epoch {finding.first}"
    )


def _overfitting(finding: Finding) -> str:
    n = finding.numbers
    parts = [f"training accuracy ends {points(n['gap'])} above validation"]
    if "peak" in n:
        parts.append(f"validation fell {points(n['fall'])} from {percent(n['peak_val_acc'])} at epoch {n['peak']:.0f}")
    if "loss_rise" in n:
        parts.append(
            f"validation loss rose {100 * n['loss_rise']:.0f} % from its lowest at epoch {n['lowest_loss']:.0f}"
        )
    return f"overfits from epoch {finding.first}: {', '.join(parts)}"


def _plateau(finding: Finding) -> str:
    n = finding.numbers
    text = f"validation flat at {percent(n['val_acc'])} from epoch {finding.first} to {finding.last}"
    beside = f", while training accuracy rose by {points(n['train_gain'])}" if n["train_gain"] > PLATEAU_GAIN else ""
    if math.isnan(n["lr_share"]):
        return text + beside
    if n["lr_share"] < 0.1:
        low = "lr was below a tenth of its peak for half of it"
        return f"{text}{beside}; {low}" if beside else f"{text}: {low}, so the schedule ended it"
    share = f"lr at {100 * n['lr_share']:.0f} % of its peak"
    return f"{text}, {'stalled ' if n['lr_share'] >= 0.5 else ''}with {share}{beside}"


def _epochs(count: float) -> str:
    return "one epoch" if count == 1 else f"{count:.0f} epochs"


# ---------------------------------------------------------------------------------------------------------
# Across the sweep


def sweep_sentences(
    sweep: SweepDiagnosis, score_text: Callable[[float], str], difference_text: Callable[[float], str]
) -> list[str]:
    """What goes with what, for a reader who has not seen the curves.

    Args:
        sweep: of all trials.
        score_text: writes a score.
        difference_text: writes a difference of scores.
    """
    sentences = [sentence for kind in VERBS if (sentence := _association(sweep, kind))]
    scores = {
        axis.key: sentence for axis in sweep.axes if (sentence := _scores(axis, score_text, difference_text, sweep))
    }
    sentences += scores.values()
    unlike = [axis.key for axis in sweep.axes if axis.key in scores and not _is_like_with_like(axis)]
    if unlike:
        sentences.append(
            f"The configs of those means by {', '.join(unlike)} differ in other settings too: only the comparisons "
            "with all else equal are fair."
        )
    return sentences


def _association(sweep: SweepDiagnosis, kind: Kind) -> str:
    total = sum(diagnosis.has(kind) for diagnosis in sweep.trials.values())
    if not total:
        return ""
    verb = VERBS[kind] + ("s" if total == 1 else "")
    head = f"{total} of {len(sweep.trials)} trials {verb}"
    if total <= FEW:
        return f"{head}: {', '.join(trial for trial, diagnosis in sweep.trials.items() if diagnosis.has(kind))}."
    head += "."
    able = [axis for axis in sweep.axes if not math.isnan(axis.chance[kind])]
    if not able:
        return head
    axis = min(able, key=lambda axis: axis.chance[kind])
    listing = "; ".join(_count(axis.key, value, kind) for value in axis.values)
    if axis.chance[kind] <= NOT_BY_CHANCE:
        caution = "" if axis.changed_alone else " Other settings changed along with it, so it need not be the cause."
        return f"{head} It goes with {axis.key}: {listing}.{caution}"
    return f"{head} No setting clearly goes with it; nearest, by {axis.key}: {listing}."


def _count(key: str, value: ValueEffect, kind: Kind) -> str:
    text = f"{key} {value.value}: {value.counts[kind]} of {value.trials}"
    if kind != "dip" or not value.counts["dip"]:
        return text
    if not math.isnan(value.gradient_ratio) and "exploding_gradients" in value.dip_causes:
        text += f", largest gradient norm x{value.gradient_ratio:.0f} before"
    unexplained = value.dip_causes.get(None, 0)
    if unexplained:
        text += ", unexplained" if unexplained == value.counts["dip"] else f", {unexplained} unexplained"
    return text


def _is_like_with_like(axis: AxisEffect) -> bool:
    """Whether the means by this setting are over configs that differ in nothing else."""
    sizes = {size for value in axis.values if value.configs for size in (value.configs, value.comparisons)}
    return len(sizes) == 1


def _scores(
    axis: AxisEffect,
    score_text: Callable[[float], str],
    difference_text: Callable[[float], str],
    sweep: SweepDiagnosis,
) -> str:
    scored = [value for value in axis.values if value.configs]
    if sum(value.comparisons > 0 for value in scored) < 2:  # else the means are of quite different configs
        return ""
    scored.sort(key=lambda value: value.score, reverse=sweep.maximize)
    parts = []
    for value in scored[:MOST_VALUES]:
        text = f"{value.value}: {score_text(value.score)} ({plural(value.configs, 'config')}"
        text += f", ahead in {value.ahead} of {value.comparisons} with all else equal)" if value.comparisons else ")"
        parts.append(text)
    more = f"; and {len(scored) - MOST_VALUES} more below" if len(scored) > MOST_VALUES else ""
    sentence = f"Mean score by {axis.key}: {'; '.join(parts)}{more}."
    by_seeds = 2 * math.hypot(scored[0].standard_error, scored[-1].standard_error)
    if _is_like_with_like(axis) and abs(scored[0].score - scored[-1].score) < by_seeds:
        sentence += (
            f" The differences are within what seeds alone do (two standard errors: {difference_text(by_seeds)})."
        )
    return sentence


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
