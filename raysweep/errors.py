"""
What ends a command, and the exit code each ends with:

* UserError (2)            the input is wrong: message only, no traceback
  + SweepFileError         in a sweep file or an override; several at once, each with its line
  + DataError              in the images or labels
  + StorageError           in the run folder or where it lies
  + ClusterError           the cluster cannot run the sweep
    + TokenError           it does not take our token, or we have none
* LimitReached (3)         a limit of the sweep file is spent; the state is safe
* Interrupted (130)        Ctrl-C or SIGTERM; the state is safe
* OutOfMemory (2)          a network does not fit the device; a trial is tried again after it

`Diverged` ends a trial only, `UnfitNodeError` a trial's process. Anything else is a bug of ours and keeps its
traceback.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping


class RaysweepError(Exception):
    """Base of all errors that a command reports without a traceback."""

    exit_code = 2


class UserError(RaysweepError):
    """The user's input is wrong. `problems` has one message a fault, all those found."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SweepFileError(UserError):
    """A sweep file or an override is wrong; each problem reads `file:line: key: what`."""


class DataError(UserError):
    """A data set cannot be read as asked."""


class StorageError(UserError):
    """The run folder, or the place it lies in, cannot be used."""


class ClusterError(UserError):
    """The cluster has not, and cannot get, what the sweep asks for."""


class TokenError(ClusterError):
    """The cluster at `address` does not take our token: `answer` is what Ray says, `place` where the token is kept."""

    def __init__(self, address: str, answer: str, place: str) -> None:
        mode = "" if place.startswith("$") else ", mode 600"
        super().__init__(
            f"--address {address}: the cluster does not take our authentication token ({_first_sentence(answer)}); "
            f"{place} here must be the cluster's own{mode}, and RAY_AUTH_MODE=token exported"
        )


def _first_sentence(text: str) -> str:
    lines = text.strip().splitlines() or ["it does not say why"]
    return lines[0].split(". ")[0].rstrip(".")


class LimitReached(RaysweepError):
    """A limit of the sweep file is spent; what is done is committed."""

    exit_code = 3


class Interrupted(RaysweepError):
    """The user stopped the command; what is whole is committed."""

    exit_code = 130


EXIT_CODES = (0, 1, 2, LimitReached.exit_code, Interrupted.exit_code)
"""Those that a command ends with; with another one it was killed."""


class Diverged(Exception):
    """A trial's loss, or what else tells that it is lost, is not finite.

    `numbers` has what was measured of that epoch, `metrics` those of them that are finite.
    """

    def __init__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.epoch, self.numbers = epoch, dict(metrics)
        self.metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        wrong = [name for name in metrics if name not in self.metrics]
        what = "the loss" if any("loss" in name for name in wrong) else ", ".join(wrong)
        told = dict.fromkeys(
            [*wrong, *(name for name in ("train_loss", "val_loss", "lr", "grad_norm") if name in metrics)]
        )
        numbers = ", ".join(f"{name} {metrics[name]:.4g}" for name in told)
        super().__init__(f"{what} of epoch {epoch} is not finite ({numbers})")


class OutOfMemory(RaysweepError):
    """A network takes more memory than there is; the message says in which phase, and what helps."""


class UnfitNodeError(Exception):
    """A node cannot do the run's trials; another one may.

    `node` is its id if it may be another one than that of the process which raises this. The id goes into the text, as
    the text alone reaches the driver.
    """

    def __init__(self, message: str, node: str = "") -> None:
        super().__init__(f"[node {node}] {message}" if node else message)


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest of `allowed`, or nothing if none is near."""
    near = difflib.get_close_matches(given, list(allowed), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
