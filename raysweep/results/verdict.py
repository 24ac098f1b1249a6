"""What can be said of a run's winner: a run's results in, `winner.Verdict` and three sentences out. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysweep.results.evaluation import read_evaluation
from raysweep.results.evidence import samples_of
from raysweep.results.ranking import RankedConfig, has_ended
from raysweep.results.run import SweepResult
from raysweep.results.settings import in_words, most_telling, setting_texts, varied_settings
from raysweep.results.winner import Estimate, Verdict, judge, still_racing
from raysweep.sweepfile.patch import short_labels
from raysweep.sweepfile.schema import Confirm
from raysweep.terminal import count_of, format_score, percent, points

MOST_NAMED = 3
"""As many rivals are named; of more it is said how many they are."""
LONGEST_LABEL = 90
"""Settings that take more characters are not named; the config's own name is."""


@dataclass(frozen=True)
class Judgement:
    """A run's configs, and what can be said of the best one."""

    configs: list[RankedConfig]  # those that are compared: first those with fresh seeds, each group best first
    labels: list[str]  # how each is called: by the settings in which configs differ
    verdict: Verdict | None  # places are those in `configs`; None where every config has one seed alone
    confidence: float
    sign: int  # -1 where less is better: the verdict's scores are turned then
    sentences: list[str]
    brief: list[str]  # the first of them in a sentence or two

    def __repr__(self) -> str:
        winner = f"winner {self.labels[self.verdict.winner]}" if self.verdict else "winner unknown, one seed each"
        return f"<Judgement of {count_of(len(self.configs), 'config')}: {winner}>"

    def as_json(self) -> dict[str, Any]:
        """Return the `winner` of `status --json`; scores and luck are the objective's own, be it a loss."""
        known = {"sentences": self.sentences, "confidence": self.confidence, "is_known": self.verdict is not None}
        verdict = self.verdict
        if verdict is None:
            return known
        own = next(each for each in verdict.estimates if each.place == verdict.winner)
        numbers = {"chosen_by": self.sign * verdict.chosen_by, **self._numbers(own), "luck": self.sign * verdict.luck}
        rests_on = {"is_clear": verdict.is_clear, "seeds": verdict.seeds, "images": verdict.images}
        return {**known, **rests_on, **numbers, "configs": [self._config(each, verdict) for each in verdict.estimates]}

    def _config(self, estimate: Estimate, verdict: Verdict) -> dict[str, Any]:
        place, best = estimate.place, self.configs[estimate.place].best
        named = {"label": self.labels[place], "best": best.id if best else None, "chance": verdict.chances[place]}
        roles = {"is_winner": place == verdict.winner, "is_rival": place in verdict.rivals}
        return {**named, **self._numbers(estimate), **roles}

    def _numbers(self, estimate: Estimate) -> dict[str, float]:
        low, high = sorted((self.sign * estimate.low, self.sign * estimate.high))
        return {"score": self.sign * estimate.score, "low": low, "high": high}


def judgement_of(result: SweepResult, named: str | None) -> Judgement | None:
    """Return what can be said of the best config; None while the sweep itself goes on.

    Configs are compared of which a seed trained to the end; there must be two.

    `named` is how a command names the sweep; None where only its run folder is known.
    """
    configs = [config for config in result.configs if config.is_comparable]
    if len(configs) < 2 or not all(has_ended(record) for config in result.configs for record in config.search):
        return None
    first, sign = configs[0], 1 if result.objective.maximize else -1

    def by_search(config: RankedConfig) -> tuple[bool, float]:
        return not config.fresh, -sign * config.scores.mean if config.scores.mean is not None else 0.0

    configs.sort(key=by_search)
    finalists = [config for config in configs if config.fresh]
    known = result.resolved["sweep"].get("confirm") or {}
    confidence, seeds = known.get("confidence", Confirm().confidence), int(known.get("seeds", 0))
    search = samples_of([config.search for config in configs], result.objective, result.folder)
    fresh = samples_of([config.fresh for config in finalists], result.objective, result.folder)
    verdict = judge(search, fresh, confidence, configs.index(first))
    if verdict and result.metric.percent:
        verdict = _clipped(verdict)
    labels = _labels(configs)
    goes_on = bool(fresh) and bool(still_racing(search, fresh, seeds, confidence))
    words = _Words(result, configs, labels, named, goes_on, seeds)
    return Judgement(
        configs, labels, verdict, confidence, sign, words.sentences(verdict, confidence), words.brief(verdict)
    )


def _clipped(verdict: Verdict) -> Verdict:
    """Return the verdict on accuracies with no interval beyond 0 to 1."""
    estimates = [replace(each, low=max(0.0, each.low), high=min(1.0, each.high)) for each in verdict.estimates]
    return replace(verdict, low=max(0.0, verdict.low), high=min(1.0, verdict.high), estimates=estimates)


def _labels(configs: Sequence[RankedConfig]) -> list[str]:
    """Return a short name for each config: the settings that vary, with its values, or the most telling of them."""
    records = [config.trials[0] for config in configs]
    keys = short_labels(varied_settings(records))
    texts = {key: setting_texts(records, key) for key in keys}
    telling = most_telling(records, list(keys))
    for count in range(len(keys), 0, -1):
        shown = [key for key in keys if key in telling[:count]]
        labels = [in_words({keys[key]: texts[key][place] for key in shown}) for place in range(len(records))]
        if max(map(len, labels)) <= LONGEST_LABEL:
            return labels
    return [config.name for config in configs]


class _Words:
    """Puts a verdict into words; `named` is how a command names the sweep."""

    def __init__(
        self,
        result: SweepResult,
        configs: Sequence[RankedConfig],
        labels: Sequence[str],
        named: str | None,
        goes_on: bool,
        seeds: int,
    ) -> None:
        self._result, self._configs, self._labels, self._named = result, configs, labels, named
        self._goes_on, self._seeds = goes_on, seeds
        # What the built-in loop validates on is known; of another loop, at most which examples were right.
        self._examples = "images" if result.is_built_in else "examples"
        self._metric, self._sign = result.metric, 1 if result.objective.maximize else -1

    def sentences(self, verdict: Verdict | None, confidence: float) -> list[str]:
        """Say who won and how much of its score was luck, who may be as good, and what was chosen on which images."""
        if verdict is None:
            return [self._unknown(), self._chosen_on(None)]
        winner = self._configs[verdict.winner]
        first = [self._who(verdict, winner), self._expected(verdict, confidence), self._luck(verdict, winner)]
        second = [self._rivals(verdict, winner), *self._what_more_seeds_could(verdict, winner)]
        return [" ".join([*first, *self._lost(winner)]), " ".join(second), self._chosen_on(verdict.images)]

    def brief(self, verdict: Verdict | None) -> list[str]:
        """Say who won, and how sure that is."""
        if verdict is None:
            who = f"{self._labels[0]} has the best score, {self._score(self._configs[0].scores.mean)}."
            return [who, "One seed each: whether it is the best config cannot be known."]
        sure = f"It is the best with a probability of {chance_text(verdict.chances[verdict.winner])}"
        others = len(verdict.rivals) - 1
        if verdict.rivals:
            sure += f"; the next has {chance_text(verdict.chances[verdict.rivals[0]])}"
        if others > 0:
            sure += f", and {others} more cannot be ruled out"
        return [self._who(verdict, self._configs[verdict.winner]), f"{sure}."]

    def _unknown(self) -> str:
        score = self._score(self._configs[0].scores.mean)
        return (
            f"{self._labels[0]} has the best score, {score}, but no config has the scores of two seeds, so whether it "
            f"is the best config cannot be known. {self._to_find_out()}"
        )

    def _who(self, verdict: Verdict, winner: RankedConfig) -> str:
        is_likeliest = verdict.chances[verdict.winner] >= max(verdict.chances)
        who = "Winner" if verdict.is_clear else "Probable winner" if is_likeliest else "Ranked first"
        seeds = count_of(winner.ranked_by.seeds, "fresh seed" if winner.fresh_scores.seeds else "seed")
        return f"{who}: {self._labels[verdict.winner]}, {self._score(winner.ranked_by.mean)} on {seeds}."

    def _expected(self, verdict: Verdict, confidence: float) -> str:
        low, high = sorted((self._sign * verdict.low, self._sign * verdict.high))
        new = f"a new seed on new {self._examples}" if verdict.images else "a new seed"
        interval = f"{self._score(low).removesuffix(' %')} to {self._score(high)}"
        score = self._score(self._sign * verdict.score)
        return f"Expect {score} from {new} ({100 * confidence:g} % interval: {interval})."

    def _luck(self, verdict: Verdict, winner: RankedConfig) -> str:
        """Say by what the winner was chosen, and how much of that was luck."""
        luck, scores = verdict.luck, winner.scores
        amount = points(abs(luck)) if self._metric.percent else f"{abs(luck):.3g}"
        chosen_by = f"It was chosen by {self._score(scores.mean)} on {count_of(scores.seeds, 'seed')}"
        if not float(amount.split()[0]):
            return f"{chosen_by}; as far as can be told, none of that was luck."
        return f"{chosen_by}; {amount} of that were luck." if luck > 0 else f"{chosen_by}; bad luck cost it {amount}."

    def _lost(self, winner: RankedConfig) -> Iterator[str]:
        """Say which of the winner's seeds have no score."""
        lost = Counter[str](record.status for record in winner.trials if record.status in ("diverged", "failed"))
        for status, count in lost.items():
            yield f"{count} of its {len(winner.trials)} seeds {status}."

    def _rivals(self, verdict: Verdict, winner: RankedConfig) -> str:
        if verdict.is_clear:
            stopped = any(config.best and not config.is_comparable for config in self._result.configs)
            others = "other config" if len(self._configs) == 2 else f"{len(self._configs) - 1:,} other configs"
            return f"It is clearly better than the {others}{' that trained to the end' if stopped else ''}."
        named, more = verdict.rivals[:MOST_NAMED], len(verdict.rivals[MOST_NAMED:])
        texts = [f"{self._labels[place]} ({chance_text(verdict.chances[place])})" for place in named]
        names = ", ".join(texts) + (f" and {count_of(more, 'other')}" if more else "")
        own = chance_text(verdict.chances[verdict.winner])
        text = f"It is the best with a probability of {own}, and cannot be told from {names}."
        return text if winner.fresh else f"{text} {self._to_find_out()}"

    def _what_more_seeds_could(self, verdict: Verdict, winner: RankedConfig) -> Iterator[str]:
        """Say that the race goes on, or why there are no more seeds though the winner is not clear."""
        left = sum(not has_ended(record) for config in self._configs for record in config.fresh)
        if left:
            yield f"{count_of(left, 'trial')} with fresh seeds {'has' if left == 1 else 'have'} not ended yet."
        elif self._goes_on:
            yield "The race is not over: run it again to go on."
        elif winner.fresh and not verdict.is_clear and len(winner.fresh) < self._seeds:
            yield "More seeds could hardly tell."

    def _to_find_out(self) -> str:
        if self._named is None:
            return "To find out: `raysweep confirm`, with the sweep file that it was run from."
        return f"To find out: python -m raysweep confirm {self._named}"

    def _chosen_on(self, images: int | None) -> str:
        """Say what was chosen on which images, and how often the test images were looked at."""
        what = "Epochs, settings and winner were chosen on"
        if self._examples != "images":
            same = f"on the same {images:,} examples" if images else f"by the same {self._metric.name}"
            return f"Epochs, settings and winner were chosen {same}; on other data it may be worse."
        if len({config.trials[0].conditions.get("data") for config in self._configs}) > 1:
            return f"{what} validation images that differ between configs, so their scores need not compare."
        text = f"{what} the same {images:,} validation images" if images else f"{what} the same validation images"
        best, evaluation = self._result.best, read_evaluation(self._result.folder)
        if best is None or not best.conditions.get("test_images"):
            return f"{text}; there are no test images."
        if evaluation is None or evaluation.test_acc is None:
            return f"{text}; the test images were not looked at."
        looks = f"looked at {'once' if evaluation.networks == 1 else f'for {evaluation.networks} networks'}"
        if not evaluation.is_of(best):
            return f"{text}; the test images, {looks}, were not looked at for the winner."
        return f"{text}; on the test images, {looks}, it reaches {percent(evaluation.test_acc)}."

    def _score(self, score: float | None) -> str:
        return percent(score) if self._metric.percent and score is not None else format_score(score, self._metric)


def chance_text(chance: float) -> str:
    """Return a probability for people: none is called certain or impossible."""
    if chance < 0.01:
        return "under 1 %"
    return "over 99 %" if chance > 0.99 else f"{100 * chance:.0f} %"
