"""Reads a W&B sweep file (https://docs.wandb.ai/models/sweeps/sweep-config-keys). W&B itself is not imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from raysweep.config import Config
from raysweep.errors import SweepFileError
from raysweep.sweepfile.convert.checked import Checker
from raysweep.sweepfile.convert.distributions import Constant, draw_of, kind_of
from raysweep.sweepfile.convert.hyperband import EarlyTerminate, asha_of
from raysweep.sweepfile.convert.space import Space, slug
from raysweep.sweepfile.document import Keys, Source

WITHOUT_COUNTERPART = {
    "command": "a trial calls the loop's function, no command line",
    "entity": "`export: [wandb]` writes the run to W&B, under $WANDB_ENTITY",
    "project": "`export: [wandb]` writes the run to W&B, under $WANDB_PROJECT",
    "imports": "modules are named on the command line: `--import MODULE`",
    "job": "`raysweep submit` runs a sweep on a cluster",
    "image_uri": "`raysweep submit` runs a sweep on a cluster",
    "controller": "the command that runs the sweep controls it",
}
"""Keys that a sweep file has no place for, and what there is instead."""


class Metric(Config):
    """The section `metric`."""

    name: Annotated[str, Field(min_length=1)]
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = None
    impute: Any = None
    impute_while_running: Any = None


class WandbSweep(Config):
    """A W&B sweep file; the parameters are checked one by one."""

    method: Literal["grid", "random", "bayes"]
    parameters: Annotated[dict[str, Any], Field(min_length=1)]
    metric: Metric | None = None
    early_terminate: EarlyTerminate | None = None
    run_cap: PositiveInt | None = None
    name: str | None = None
    description: str | None = None
    program: str | None = None
    command: Any = None
    entity: Any = None
    project: Any = None
    imports: Any = None
    job: Any = None
    image_uri: Any = None
    controller: Any = None
    kind: Any = None
    apiVersion: Any = None  # noqa: N815 - W&B's name


class Nested(Config):
    """A parameter that has parameters inside."""

    parameters: Annotated[dict[str, Any], Field(min_length=1)]


def read_wandb(source: Source, samples: int | None = None) -> Space:
    """Return the search of a W&B sweep file; `samples` is how many configs to draw, instead of its `run_cap`.

    Raises:
        SweepFileError: it is not a W&B sweep file, or nothing says how many configs to draw; all faults at once.
    """
    reader = _Reader(source)
    given = reader.checked(WandbSweep, source.values, ())
    parameters = source.values.get("parameters")
    if isinstance(parameters, Mapping):
        reader.parameters(parameters, (), str(source.values.get("method")))
    if given:
        reader.read(given, samples)
    if reader.problems or given is None:
        raise SweepFileError(*reader.problems)
    return reader.space


class _Reader(Checker):
    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.space = Space(source, slug(PurePath(source.path).stem, "sweep"))

    def parameters(self, given: Mapping[str, Any], outer: Keys, method: str) -> None:
        """Take in a mapping of parameters, whose own key `outer` is, empty at the top."""
        for key, value in given.items():
            way = ("parameters", *(part for each in outer for part in (each, "parameters")), key)
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", key):
                self.problem(
                    way, "a parameter's name must be letters, digits, '_', '.' and '-', and begin with a letter"
                )
            elif not isinstance(value, Mapping):
                self.problem(way, f"got {value!r}, must be a mapping with value, values, or a distribution")
            elif "parameters" not in value or "distribution" in value:
                self._parameter(value, way, ".".join(map(str, (*outer, key))), method)
            elif nested := self.checked(Nested, value, way):
                self.parameters(nested.parameters, (*outer, key), method)

    def _parameter(self, given: Mapping[str, Any], way: Keys, key: str, method: str) -> None:
        is_grid = method == "grid"
        try:
            found = self.checked(kind_of(given), given, way)
            if found is None:
                return
            values, drawn = found.in_grid() if is_grid or isinstance(found, Constant) else None, None
            if values is None and is_grid:
                raise ValueError(f"{found.distribution} is not for `method: grid`, in W&B either; name values")
            if values is None:
                drawn = draw_of(found, is_searched=method == "bayes")
                if drawn.differs:
                    self.space.note(way, f"{found.distribution}: {drawn.differs}")
            self.space.take(way, key, values, drawn.draw if drawn else None)
        except ValueError as error:
            self.problem(way, str(error))

    def read(self, given: WandbSweep, samples: int | None) -> None:
        """Take in what stands beside the parameters."""
        space = self.space
        space.name = slug(given.name or "", space.name)
        space.description = given.description or ""
        if given.program:
            space.loop = re.sub(r"\W", "_", PurePath(given.program).stem)
        for key, instead in WITHOUT_COUNTERPART.items():
            if getattr(given, key) is not None:
                space.note((key,), f"has no counterpart; {instead}")
        self._samples(given, samples)
        if given.metric:
            self._metric(given.metric)
        if given.early_terminate:
            self._early(given, given.early_terminate)

    def _metric(self, metric: Metric) -> None:
        self.space.metric, self.space.mode = metric.name, metric.goal[:3]
        if metric.target is not None:
            self.space.note(
                ("metric", "target"), "has no counterpart: a run ends when its trials have, or at its `limits`"
            )
        for key in ("impute", "impute_while_running"):
            if key in metric.model_fields_set:
                self.space.note(("metric", key), "has no counterpart: a trial that failed has no score")

    def _samples(self, given: WandbSweep, samples: int | None) -> None:
        space, cap = self.space, given.run_cap
        if given.method == "grid":
            if samples is not None:
                self.problem(("method",), "grid takes all combinations; --samples is for random and bayes")
            if cap and cap < space.trials:
                message = f"has no counterpart: W&B would end after {cap} of the {space.trials} trials; all are trained"
                space.note(("run_cap",), message)
            return
        if given.method == "bayes" and space.random:
            space.search = "tpe"
            message = (
                "bayes is `search` now, by Optuna's tree-structured Parzen estimator instead of a Gaussian process"
            )
            space.note(("method",), message)
        if not space.random:
            space.note(("method",), f"{given.method}: no parameter varies, so the configs would all be the same one")
        elif samples is None and cap is None:
            does = "propose" if given.method == "bayes" else "draw"
            self.problem(
                ("method",), f"{given.method}, without run_cap: say with --samples N how many configs to {does}"
            )
        space.samples = samples or cap or 0

    def _early(self, given: WandbSweep, early: EarlyTerminate) -> None:
        if not given.metric:
            self.problem(("early_terminate",), "needs `metric`: what runs are compared by")
        epochs, how = self.space.epochs
        self.space.scheduler, differs = asha_of(early, epochs, how)
        for each in differs:
            self.space.note(("early_terminate",), each)
