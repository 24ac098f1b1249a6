"""What the futures of a trial say, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raysweep.diagnose.contrasts import Effect
from raysweep.diagnose.futures import NAMES, Phenomenon
from raysweep.terminal import Metric, count_of, format_difference

Outcome = Literal["named", "chance", "unexplained", "cannot_judge"]
CAUSES = {
    "exploding_gradients": "exploding gradients",
    "high_lr": "too high a learning rate",
    "batch_norm": "batch-norm statistics that do not fit the weights",
    "batches": "the batches of this epoch: bad labels or images are among them",
}
TAKES_AWAY = {"exploding_gradients": "clipped", "high_lr": "smaller_lr", "batch_norm": "batch_norm"}
"""The change that takes a cause away; no change does that to the batches."""


@dataclass(frozen=True)
class Verdict:
    """What the futures say."""

    phenomenon: Phenomenon
    epoch: int  # K
    metric: str
    outcome: Outcome
    cause: str | None = None  # a key of CAUSES if the outcome is "named"
    problem: str = ""  # why nothing can be said, if it cannot be judged
    effects: Sequence[Effect] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)  # level, fall, chance, ...: see docs/probe.md
    helps: Mapping[str, float] = field(default_factory=dict)  # by change: how much better all orders are with it

    def in_words(self) -> str:
        """Return the verdict in two or three sentences."""
        if self.outcome == "cannot_judge":
            return f"Cannot judge: {self.problem}"
        if self.phenomenon == "plateau":
            return self._of_plateau()
        words = {"named": self._named, "chance": self._chance, "unexplained": self._unexplained}
        return " ".join(filter(None, (words[self.outcome](), self._help())))

    def as_json(self) -> dict[str, Any]:
        """Return all of it, and the words, as JSON takes it: null for what is not finite."""
        plain: dict[str, Any] = _finite({**asdict(self), "words": self.in_words()})
        return plain

    def effect(self, name: str) -> Effect | None:
        """Return what a change takes away, if it was tried."""
        return next((effect for effect in self.effects if effect.name == name), None)

    def _named(self) -> str:
        assert self.cause is not None
        if self.numbers["is_recorded"]:
            name = TAKES_AWAY[self.cause]
            better = f"With {NAMES[name]}, all orders of batches are {self._amount(self.helps.get(name, 0.0))} better"
            return f"Tested: {CAUSES[self.cause]}. {better}; {self._record()}."
        effect = self.effect(TAKES_AWAY.get(self.cause, ""))
        proof = "" if effect is None else f"With {NAMES[effect.name]}, {_share(effect)} is gone."
        if self.cause == "batches":
            by_chance = _probability(self.numbers["disturbed"])
            proof = f"Their training loss is high at a smaller learning rate, too (by chance: {by_chance})."
        return f"Tested: {CAUSES[self.cause]}. {proof} {self._orders()}"

    def _record(self) -> str:
        if self.cause == "high_lr":
            return f"the learning rate was {self.numbers['lr_rise']:.1f} times that of the epochs before"
        return f"the largest gradient norm was {self.numbers['gradient_ratio']:.0f} times the usual"

    def _orders(self) -> str:
        numbers, others = self.numbers, self._others()
        if numbers["is_shared"]:
            return f"{others} fall as well, by {self._amount(numbers['shared_fall'])} on average."
        return f"{others} are {self._amount(numbers['fall'])} better on average; {self._deepest()}."

    def _chance(self) -> str:
        spread, better = self._amount(self.numbers["spread"]), self._amount(self.numbers["fall"])
        return (
            f"It cannot be told from chance. {self._others()} are {better} better on average, with a spread "
            f"of {spread} (a standard deviation); {self._deepest()}."
        )

    def _unexplained(self) -> str:
        return f"No cause was found: nothing that was tried takes the fall away beyond doubt. {self._orders()}"

    def _others(self) -> str:
        return f"{count_of(int(self.numbers['other_orders']), 'other order')} of batches"

    def _deepest(self) -> str:
        """Say how likely chance is, in view of how the epoch was chosen."""
        epochs, chance = int(self.numbers["epochs"]), _probability(self.numbers["chance"])
        return f"the deepest fall of {epochs} epochs is as deep by chance with a probability of {chance}"

    def _of_plateau(self) -> str:
        effect = max(self.effects, key=lambda each: each.points, default=None)
        if self.outcome != "named" or effect is None or self.cause is None:
            return "No cause was found: nothing that was tried adds to it beyond doubt."
        between = f"{self._amount(effect.low)} to {self._amount(effect.high)}"
        return f"Tested: {CAUSES[self.cause]}. With {NAMES[effect.name]}, it ends higher by {between}."

    def _help(self) -> str:
        """Say what is better in any order, where that is not the cause's own change."""
        own = TAKES_AWAY.get(self.cause or "")
        parts = [f"with {NAMES[name]} by {self._amount(points)}" for name, points in self.helps.items() if name != own]
        if self.outcome == "named" or not parts:
            return ""
        return f"All orders are better {', '.join(parts)}."

    def _amount(self, difference: float) -> str:
        return format_difference(difference, Metric.of(self.metric, [self.numbers["level"]]))


def _share(effect: Effect) -> str:
    """Return the share of a fall with its interval, which may reach beyond 0 and 100 %."""
    numbers = (100 * effect.removed, 100 * effect.low, 100 * effect.high)
    share, low, high = (f"{number:.0f}" for number in numbers)
    return f"{share} % of the fall (95 % interval: {low} to {high} %)"


def _probability(chance: float) -> str:
    """Return a probability; those of a model's far tail are not told to the digit."""
    return "less than 0.1 %" if chance < 0.001 else f"{100 * chance:.1f} %" if chance < 0.1 else f"{100 * chance:.0f} %"


def _finite(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
