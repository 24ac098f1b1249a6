"""What the names of metrics say: which belong together, as training and validation of the same; which is a loss.

A loop may call its metrics as it likes. These ways to write training and validation are known: `train_loss` and
`val_loss`, or `trainLoss` and `valLoss`; `train/loss` and `val/loss` (W&B); `loss` and `val_loss` (Keras) or
`eval_loss` (Hugging Face); `Loss/train` and `Loss/test` (PyTorch's tutorials). What ends in `_ema` is of averaged
weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from raysweep.terminal import words_of

Kind = str
"""`train`, `val` or `averaged`."""
EMA = "_ema"
"""The end of the names of metrics that were measured with averaged weights."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The words for the part of the data that a metric was measured on."""
BASES = {"acc": "acc", "accuracy": "acc", "loss": "loss"}
"""What the metrics that are known best are called, and by which name rules find them."""
CLOCK = ("seconds", "images_per_s")
"""Metrics of the built-in loop that depend on the machine."""
MARKS = "_/.:- "
"""What may stand between the words of a name."""
_LEARNING_RATE = re.compile(r"(train/)?(lr|learning_rate)$|lr-")  # the last by Lightning's LearningRateMonitor
_TOP_ONE = re.compile(r"[@_]?1$")
_CAPITAL = re.compile(r"^[A-Z](?=[a-z])")  # `valLoss` and `loss` are of one quantity
_APART = re.compile(rf"[{re.escape(MARKS)}]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Family:
    """One quantity, and the metrics that measure it."""

    name: str  # what it is called, without the data it was measured on
    metrics: Mapping[Kind, str]  # a metric that names no data is `train` beside one of validation, else `val`

    @property
    def is_loss(self) -> bool:
        """Whether it is called a loss."""
        return words_of(self.name)[-1:] == ["loss"]

    @property
    def words(self) -> dict[Kind, str]:
        """What its metrics were measured on, for people; nothing where the name of a metric does not say."""
        alone = {"val": "validation", "test": "test", "train": "training", "": ""}
        words: dict[Kind, str] = {"train": "training", "averaged": "EMA weights"}
        return {kind: words.get(kind, alone[_parsed(name)[0]]) for kind, name in self.metrics.items()}

    def __contains__(self, metric: str) -> bool:
        return metric in self.metrics.values()


@lru_cache(maxsize=256)
def families_of(names: tuple[str, ...], objective: str = "") -> tuple[Family, ...]:
    """Return the families of metrics: the objective's first, then accuracy and loss, then others in their order."""
    by_base: dict[str, dict[tuple[str, bool], str]] = {}
    alone = []
    for name in names:
        split, base, averaged = _parsed(name)
        known = by_base.setdefault(base, {})
        if known.setdefault((split, averaged), name) != name:
            alone.append(name)  # `val/loss` beside `val_loss`
    found = [family for base, metrics in by_base.items() for family in _families(base, metrics)]
    found += [Family(name, {"val": name}) for name in alone]
    return tuple(sorted(found, key=lambda family: _order(family, objective)))


@lru_cache(maxsize=256)
def roles_of(names: tuple[str, ...], objective: str, maximize: bool) -> Mapping[str, str]:
    """Return by the names of the built-in loop (`train_loss`, `val_acc`, ..., `lr`) which metric takes that part.

    An accuracy is called that, and nothing more: a `top5_acc` is none. So is a loss, though a single `mse_loss` counts;
    without any the objective is the loss, if less of it is better.
    """
    families = families_of(names, objective)
    accuracy = next((family for family in families if _known_as(family) == "acc"), None)
    losses = sorted((family for family in families if family.is_loss), key=lambda family: family.name.lower() != "loss")
    loss = losses[0] if losses and (len(losses) == 1 or _known_as(losses[0])) else None
    if not losses and not maximize:
        loss = next((family for family in families if objective in family and not _is_rate(family)), None)
    patterns: dict[Kind, str] = {"train": "train_{}", "val": "val_{}", "averaged": "val_{}_ema"}
    roles = {
        patterns[kind].format(part): name
        for part, family in (("acc", accuracy), ("loss", loss))
        if family
        for kind, name in family.metrics.items()
    }
    rates = [name for family in families for name in family.metrics.values() if _LEARNING_RATE.match(name)]
    return roles | ({"lr": rates[0]} if len(rates) == 1 else {})


def _is_rate(family: Family) -> bool:
    return any(map(_LEARNING_RATE.match, (family.name, *family.metrics.values())))


def _known_as(family: Family) -> str:
    return BASES.get(_TOP_ONE.sub("", family.name.lower()), "")


def _order(family: Family, objective: str) -> tuple[bool, int]:
    is_first = objective in family or objective.removesuffix(EMA) in family
    return not is_first, ("acc", "loss", "").index(_known_as(family) or ("loss" if family.is_loss else ""))


def _parsed(name: str) -> tuple[str, str, bool]:
    """Return on which data a metric was measured (`train`, `val`, `test` or nothing), of what, and by averaged weights.

    Which data it was is told by the first word or the last.
    """
    plain = name.removesuffix(EMA) or name
    parts = _APART.split(plain)
    first, last = SPLITS.get(parts[0].lower()), SPLITS.get(parts[-1].lower())
    head, tail = (text.strip(MARKS) for text in (plain[: -len(parts[-1])], plain[len(parts[0]) :]))
    if first and tail:
        return first, _CAPITAL.sub(lambda letter: letter[0].lower(), tail), plain != name
    if last and head:
        return last, head, plain != name
    return "", plain, plain != name


def _families(base: str, metrics: Mapping[tuple[str, bool], str]) -> Iterator[Family]:
    """Yield the family of what has the same base, and one by itself of each metric that has no place in it."""
    val = next((split for split in ("val", "test", "") if (split, False) in metrics), "none")
    train = "" if val in ("val", "test") and ("train", False) not in metrics else "train"
    places = {"val": (val, False), "train": (train, False), "averaged": (val, True)}
    taken = {kind: metrics[place] for kind, place in places.items() if place in metrics}
    if taken:
        yield Family(base, taken)
    for name in metrics.values():
        if name not in taken.values():  # `acc` beside `train_acc` and `val_acc`
            yield Family(f"{name} itself" if name == base and taken else name, {"val": name})
