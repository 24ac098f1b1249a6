"""Findings as sentences."""

from __future__ import annotations

import math

from raysweep.diagnose.causes import CAUSES
from raysweep.diagnose.findings import Finding
from raysweep.diagnose.rules import RULES, Rule
from raysweep.diagnose.sweep import MOST_VALUES, AxisEffect, SweepDiagnosis, ValueEffect
from raysweep.terminal import Metric, count_of, format_difference, format_score

RULE_OF = {rule.kind: rule for rule in RULES}
CAUSE_WORDS = {cause.cause: cause.words for cause in CAUSES}
NOT_BY_CHANCE = 0.05
FEW = 2
"""Up to this many trials are named, since what so few share could be anything."""


def describe(finding: Finding) -> str:
    """Say one finding without its trial: for dips and divergences with the cause, for all with what a probe tested."""
    rule = RULE_OF[finding.kind]
    text = rule.describe(finding)
    if finding.tested:
        return f"{text}; {finding.tested}"
    if not rule.has_causes:
        return text
    reasons = {item.cause: item.text for item in finding.evidence if item.supports}
    causes = "; or ".join(f"{CAUSE_WORDS[cause]} ({reasons[cause]})" for cause in finding.causes)
    return f"{text}; likely cause: {causes}" if causes else f"{text}; unexplained"


def evidence_lines(finding: Finding) -> list[str]:
    """Say what speaks for and against each cause."""
    sides = {True: "for", False: "against"}
    return [f"{sides[item.supports]} {CAUSE_WORDS[item.cause]}: {item.text}" for item in finding.evidence]


def sweep_sentences(sweep: SweepDiagnosis) -> list[str]:
    """Say what goes with what, for a reader who has not seen the curves."""
    sentences = [sentence for rule in RULES if rule.verb and (sentence := _association(sweep, rule))]
    scores = {axis.key: sentence for axis in sweep.axes if (sentence := _scores(axis, sweep))}
    sentences += scores.values()
    unlike = [axis.key for axis in sweep.axes if axis.key in scores and not _is_like_with_like(axis)]
    if unlike:
        sentences.append(
            f"The configs behind the means by {', '.join(unlike)} differ in other settings too: only the comparisons "
            "with all else equal are fair."
        )
    return sentences


def _association(sweep: SweepDiagnosis, rule: Rule) -> str:
    having = [trial for trial, diagnosis in sweep.trials.items() if diagnosis.has(rule.kind)]
    if not having:
        return ""
    head = f"{len(having)} of {_able(sweep, rule)} {rule.verb}{'s' if len(having) == 1 else ''}"
    if len(having) <= FEW:
        return f"{head}: {', '.join(having)}."
    able = [axis for axis in sweep.axes if not math.isnan(axis.chance[rule.kind])]
    if not able:
        return f"{head}."
    axis = min(able, key=lambda axis: axis.chance[rule.kind])
    listing = "; ".join(_count(axis.key, value, rule) for value in axis.values if value.able[rule.kind])
    if axis.chance[rule.kind] > NOT_BY_CHANCE:
        return f"{head}. No setting clearly goes with this; the closest is {axis.key}: {listing}."
    caution = "" if axis.changed_alone else " Other settings changed along with it, so it need not be the cause."
    return f"{head}. This goes with {axis.key}: {listing}.{caution}"


def _able(sweep: SweepDiagnosis, rule: Rule) -> str:
    """Return how many trials can have a finding, in words."""
    if not rule.at_end or sweep.finished == len(sweep.trials):
        return f"{len(sweep.trials)} trials"
    return f"{count_of(sweep.finished, 'trial')} that trained to {'its' if sweep.finished == 1 else 'their'} end"


def _count(key: str, value: ValueEffect, rule: Rule) -> str:
    count = value.counts[rule.kind]
    text = f"{key} {value.value}: {count} of {value.able[rule.kind]}"
    if rule.kind != "dip" or not count:
        return text
    if not math.isnan(value.gradient_ratio) and "exploding_gradients" in value.dip_causes:
        text += f", after gradient norms of up to {value.gradient_ratio:.0f} times the usual"
    unexplained = value.dip_causes.get(None, 0)
    if unexplained:
        text += ", unexplained" if unexplained == count else f", {unexplained} unexplained"
    return text


def _is_like_with_like(axis: AxisEffect) -> bool:
    """Return whether the means by this setting are over configs that differ in nothing else."""
    sizes = {size for value in axis.values if value.configs for size in (value.configs, value.comparisons)}
    return len(sizes) == 1


def _scores(axis: AxisEffect, sweep: SweepDiagnosis) -> str:
    scored = [value for value in axis.values if value.configs]
    if sum(value.comparisons > 0 for value in scored) < 2:  # else the means are of quite different configs
        return ""
    scored.sort(key=lambda value: value.score, reverse=sweep.objective.maximize)
    parts = "; ".join(_mean(value, sweep.metric) for value in scored[:MOST_VALUES])
    more = f"; and {len(scored) - MOST_VALUES} more below" if len(scored) > MOST_VALUES else ""
    sentence = f"Mean score by {axis.key}: {parts}{more}."
    by_seeds = 2 * math.hypot(scored[0].standard_error, scored[-1].standard_error)
    if _is_like_with_like(axis) and abs(scored[0].score - scored[-1].score) < by_seeds:
        errors = format_difference(by_seeds, sweep.metric)
        sentence += f" Seeds alone could make differences of this size (two standard errors: {errors})."
    return sentence


def _mean(value: ValueEffect, metric: Metric) -> str:
    configs = count_of(value.configs, "config")
    ahead = f", ahead in {value.ahead} of {value.comparisons} with all else equal" if value.comparisons else ""
    return f"{value.value}: {format_score(value.score, metric)} ({configs}{ahead})"
