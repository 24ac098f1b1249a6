"""Who is best: records in, configs in their order out, and how they stand in `--json` documents.

A config is ranked by the mean over its seeds, since a single score is partly luck. The configs that `confirm` trained
again come first, in the order of their fresh seeds: those were not chosen by the scores they are ranked by.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from raysweep.store import Record
from raysweep.sweepfile.plan import config_key
from raysweep.sweepfile.schema import Objective


@dataclass(frozen=True)
class SeedScores:
    """The scores of one config, over seeds."""

    scores: tuple[float, ...]  # of the seeds that have one

    @classmethod
    def of(cls, records: Iterable[Record]) -> SeedScores:
        """Return the scores of those trials that count in the ranking."""
        return cls(tuple(record.best.score for record in records if record.best and can_win(record)))

    @property
    def seeds(self) -> int:
        """How many seeds have a score."""
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        """Their mean; None if there is none."""
        return fmean(self.scores) if self.scores else None

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean, by the seeds alone; None for fewer than two."""
        return stdev(self.scores) / math.sqrt(self.seeds) if self.seeds > 1 else None

    def as_json(self) -> dict[str, Any]:
        """Return the mean as `score`, its standard error and the number of seeds."""
        return {"score": self.mean, "standard_error": self.standard_error, "seeds": self.seeds}


@dataclass(frozen=True)
class RankedConfig:
    """A config with its seeds."""

    trials: tuple[Record, ...]  # all its trials, best first; those that cannot win come last
    fresh_ids: Collection[str] = ()  # the ids of those that `confirm` trained

    def __repr__(self) -> str:
        mean = self.ranked_by.mean
        score = "no score" if mean is None else f"{mean:.4g}"
        return f"<RankedConfig {self.name}: {score}, {len(self.trials)} trials>"

    @property
    def best(self) -> Record | None:
        """Its best seed, whose checkpoint stands for it; None if no seed has a score.

        Seeds without weights count only if none has any: those of losers are deleted, which may win the race later.
        """
        able = [record for record in self.trials if can_win(record)]
        return next((record for record in able if "best" in record.weights), able[0] if able else None)

    @property
    def name(self) -> str:
        """The readable name that its trials share; two configs may have the same."""
        first = min(self.trials, key=lambda record: record.seed)
        return first.name.removesuffix(f"-seed{first.seed}")

    @cached_property
    def search(self) -> list[Record]:
        """The trials by which it was chosen: those of the sweep itself."""
        return [record for record in self.trials if record.id not in self.fresh_ids]

    @cached_property
    def fresh(self) -> list[Record]:
        """The trials on the fresh seeds of `confirm`."""
        return [record for record in self.trials if record.id in self.fresh_ids]

    @cached_property
    def scores(self) -> SeedScores:
        """The scores by which it was chosen: of what trained to the end, if any did, else of what there is."""
        return SeedScores.of(filter(is_whole, self.search) if self.is_comparable else self.search)

    @cached_property
    def fresh_scores(self) -> SeedScores:
        """The scores on fresh seeds, which had no part in the choice; of those that trained to the end."""
        return SeedScores.of(filter(is_whole, self.fresh))

    @property
    def is_comparable(self) -> bool:
        """Whether a seed of the sweep's own trained to its end: of what was stopped early it is not known how good."""
        return any(map(is_whole, self.search))

    @property
    def ranked_by(self) -> SeedScores:
        """The scores that tell how good it is: those on fresh seeds, where it has any."""
        return self.fresh_scores if self.fresh_scores.seeds else self.scores

    def as_json(self, place: int) -> dict[str, Any]:
        """Return how it stands in `--json` documents, given its place, counted from 1."""
        best = self.best
        return {
            "rank": place if best else None,
            "name": self.name,
            "config": self.trials[0].config,
            "best": best.id if best else None,
            **self.scores.as_json(),
            "fresh": self.fresh_scores.as_json() if self.fresh else None,
            "trials": [record.id for record in self.trials],
        }


def rank(records: Iterable[Record], objective: Objective, fresh_ids: Collection[str] = ()) -> list[RankedConfig]:
    """Sort configs best first; those without a score come last.

    They go by the mean over their seeds, then by the id of their best seed. Those with trials in `fresh_ids` come
    first: the more of these they were given, since who cannot win gets no more, and then by the mean of these; of equal
    ones, by the mean of the others. A round of them counts once all its trials have ended.
    """
    sign = -1 if objective.maximize else 1
    by_config: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_config[config_key(record.config)].append(record)
    configs = [
        RankedConfig(tuple(sorted(trials, key=lambda record: _order(record, sign))), fresh_ids)
        for trials in by_config.values()
    ]
    rounds = min((_ended(config) for config in configs if _ended(config) < len(config.fresh)), default=len(fresh_ids))

    def key(config: RankedConfig) -> tuple[bool, float, float, float, str]:
        counted = min(_ended(config), rounds)
        fresh = SeedScores.of(filter(is_whole, sorted(config.fresh, key=lambda record: record.seed)[:counted]))
        own, first = config.scores.mean, config.best or config.trials[0]
        mean = own if fresh.mean is None else fresh.mean
        by_mean, by_own = (math.inf if each is None else sign * each for each in (mean, own))
        return config.best is None, 0 if fresh.mean is None else -counted, by_mean, by_own, first.id

    return sorted(configs, key=key)


def _ended(config: RankedConfig) -> int:
    return sum(map(has_ended, config.fresh))


def _order(record: Record, sign: int) -> tuple[bool, float, str]:
    return not can_win(record), sign * record.best.score if record.best else 0.0, record.id


def can_win(record: Record) -> bool:
    """Whether a trial counts in the ranking: it has a score, and neither diverged nor failed."""
    return record.best is not None and record.status not in ("diverged", "failed")


def is_whole(record: Record) -> bool:
    """Whether a trial trained to its end and has a score."""
    return record.status == "finished" and can_win(record)


def has_ended(record: Record) -> bool:
    """Whether a trial has come to its end, be it a failure."""
    return record.is_final or record.status == "failed"


def standings(configs: Sequence[RankedConfig]) -> dict[str, dict[str, Any]]:
    """Return how each trial's config stands, by the trial's id: its place, and its scores at the seeds of that kind."""
    found = {}
    for place, config in enumerate(configs, 1):
        for record in config.trials:
            fresh = record.id in config.fresh_ids
            scores = config.fresh_scores if fresh else config.scores
            found[record.id] = {
                "fresh": fresh,
                "config_rank": place if config.best else None,
                **{f"config_{name}": value for name, value in scores.as_json().items()},
            }
    return found


def trial_as_json(record: Record) -> dict[str, Any]:
    """Return one trial of `status --json`; `val_acc` is that of its best epoch's weights."""
    best = record.best
    return {
        "id": record.id,
        "config": record.config,
        "seed": record.seed,
        "status": record.status,
        "epoch": record.epoch,
        "epochs": record.epochs,
        "own_epochs": len(record.own_metrics),
        "origins": [asdict(origin) for origin in record.origins],
        "val_acc": best.val_acc if best else None,
        "score": best.score if best else None,
        "best_epoch": best.epoch if best else None,
        "averaged": best.averaged if best else None,
        "error": (record.error or {}).get("message") if record.status in ("failed", "diverged") else None,
    }
