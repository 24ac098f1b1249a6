"""The sections of a sweep file, as frozen pydantic models. In: plain values. Out: `Sweep`, the whole file, checked.

The keys of a trial's config are those of its training loop (`loops`); all other keys, with their defaults, are here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from raysweep.config import Config, Fraction01, Pair, check_no_credentials, classes_of, section
from raysweep.errors import did_you_mean
from raysweep.loops import CLASSIFY, LOOPS, Loop, loop_named
from raysweep.sweepfile.cluster import Cluster
from raysweep.sweepfile.document import Source


class SingleObjective(Config):
    """A metric, and what of it is better."""

    metric: Annotated[str, Field(min_length=1)] = "val_acc"
    """A metric of the loop's; where its name ends in `_ema`, it is that of the averaged weights."""
    mode: Literal["max", "min"] | None = None
    """Default: what the loop says of the metric; of `classify`, max for accuracies and min for losses."""

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return (self.mode or ("min" if self.metric.endswith("loss") else "max")) == "max"


class Objective(SingleObjective):
    """What trials are ranked by; `objective: val_loss` alone names the metric."""

    against: Annotated[list[SingleObjective], Field(max_length=3)] = []
    """What it is traded off against (docs/objectives.md). A list is read so: `objective: [val_acc, flops]` is
    `{metric: val_acc, against: [{metric: flops}]}`."""

    @model_serializer(mode="wrap")
    def _as_ever_with_one(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `against` where there is one objective: such files stay as they were, and older ones are read."""
        dumped: dict[str, Any] = dump(self)
        return dumped if self.against else {key: value for key, value in dumped.items() if key != "against"}


class NoneConfig(Config):
    """Every trial runs to its end."""

    name: Literal["none"] = "none"


def _as_fraction(value: Any) -> Any:
    """Read `1/9` exactly, and 0.07 as 7/100, which the float slightly exceeds."""
    try:
        share = Fraction(str(value).replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise ValueError(f"got {value!r}, must be a fraction of a trial's epochs, above 0 and below 1: 1/3 or 0.25")
    return share


Share = Annotated[
    Fraction,
    BeforeValidator(_as_fraction),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": r"^\s*[0-9]+\s*/\s*[0-9]+\s*$"},
            ]
        }
    ),
]


def _ascending(rungs: list[Fraction]) -> list[Fraction]:
    if not all(first < second for first, second in pairwise(rungs)):
        raise ValueError(f"must ascend; got {', '.join(map(str, rungs))}")
    return rungs


RankBy = Literal["trend", "ema", "best", "last"]
MOST_OBJECTIVES = 4
"""In more dimensions nearly every config is on the front."""


def _objective_of_the_loop(value: Any, info: ValidationInfo) -> Any:
    """Take the objective's default and its mode from the loop; of a list, the others are the first one's `against`."""
    loop = loop_named(info.data["loop"]) if "loop" in info.data else Loop()
    given = _first_of_list(value) if isinstance(value, list) else _named(value)
    if not isinstance(given, dict):
        return given
    if isinstance(others := given.get("against"), list):
        given = {**given, "against": [_with_mode(other, {**loop.metrics, **loop.tradeoffs}) for other in others]}
    if not loop.metrics:
        return given
    return _with_mode({"metric": next(iter(loop.metrics)), **given}, loop.metrics)


def _first_of_list(values: list[Any]) -> Any:
    first, *others = map(_named, values or [None])
    if not 1 <= len(others) <= MOST_OBJECTIVES - 1:
        raise ValueError(f"a list must have 2 to {MOST_OBJECTIVES} objectives; got {len(values)}")
    if isinstance(first, dict) and "against" in first:
        raise ValueError("the first of a list has `against`: the others of the list are that; leave it out")
    return {**first, "against": others} if isinstance(first, dict) else first


def _named(value: Any) -> Any:
    return {"metric": value} if isinstance(value, str) else value


def _with_mode(given: Any, modes: Mapping[str, str]) -> Any:
    if not isinstance(given, dict) or "metric" not in given:
        return given
    return {**given, "mode": given.get("mode") or modes.get(str(given["metric"]))}


def known_metric(objective: SingleObjective, loop_name: str, is_first: bool = True) -> None:
    """Raise ValueError if the loop does not know an objective's metric, and nothing says what of it is better.

    What of a trial is known before it trains can be no first objective: no epoch would be better than another.
    """
    loop = loop_named(loop_name)
    known = loop.metrics if is_first else {**loop.metrics, **loop.tradeoffs}
    if objective.metric in known or (objective.mode and loop_name != CLASSIFY and objective.metric not in loop.costs):
        return
    if not known:
        raise ValueError(
            f"loop {loop_name!r} says of no metric what is better: name one with its mode, {{metric: NAME, mode: min}}"
        )
    if objective.metric in loop.tradeoffs:
        raise ValueError(
            f"got {objective.metric!r}, by which no epoch can be chosen; name it after another: "
            f"[{next(iter(known), 'METRIC')}, {objective.metric}]"
        )
    said = [f"got {objective.metric!r}{did_you_mean(objective.metric, known)}"]
    said += [f"allowed: {', '.join(known)}"]
    said += ["any other needs its mode: {metric: NAME, mode: max}"] if loop_name != CLASSIFY else []
    raise ValueError("; ".join(said))


def _known_loop(name: str) -> str:
    if name not in LOOPS.names():
        raise ValueError(f"{LOOPS.problem(name)}; one of your own: --import the module that registers it")
    return name


def known_key(key: str, config: type[BaseModel]) -> str:
    """Return a dotted key of a trial's config of that class; raise ValueError if no trial can have it."""
    annotation: Any = config
    for part in key.split("."):
        if get_origin(annotation) is dict:  # say, whatever a network of the user's own takes
            break
        fields = {
            name: field.annotation for each in classes_of(annotation) for name, field in each.model_fields.items()
        }
        if part not in fields:
            allowed = f"; allowed: {', '.join(fields)}" if fields else ""
            raise ValueError(f"unknown key {key!r}{did_you_mean(part, fields)}{allowed}")
        annotation = fields[part]
    return key


class AshaConfig(Config):
    """ASHA whose decisions do not depend on the order of arrival (docs/scheduling.md): at rungs the best go on."""

    name: Literal["asha"]
    eta: Annotated[int, Field(ge=2)] = 3
    """One in eta goes on at each rung."""
    rungs: Annotated[list[Share], Field(min_length=1), AfterValidator(_ascending)] = [Fraction(1, 9), Fraction(2, 9)]
    """The rungs, where trials are compared: fractions of each trial's own epochs, rounded up."""
    group_by: list[str] = []
    """Keys of a trial's config; only trials that agree in them are compared. Default: all are."""
    min_survivors: PositiveInt = 4
    """At least so many configs of each group go on at every rung. Default of a search: a quarter of a generation."""
    tolerance: NonNegativeFloat = 0.0
    """A config also goes on if its score is at most this far behind the last one that does."""
    rank_by: RankBy = "trend"
    """The score at a rung. trend: that of the EMA weights at that epoch, plus half of its rise over the last third of
    the epochs; ema: the best of the EMA weights so far; best: the best of plain and EMA weights so far; last: the
    better of the two at that epoch."""


class RayAshaConfig(Config):
    """Ray Tune's own ASHA, for comparison: it compares trials at equal epochs, in order of arrival."""

    name: Literal["ray_asha"]
    grace_period: PositiveInt = 1
    """The epochs that every trial trains before it may be stopped."""
    eta: Annotated[float, Field(gt=1)] = 4
    """One in eta goes on at each rung (Tune: reduction_factor)."""
    brackets: PositiveInt = 1
    """Tune's brackets: how many halvings, each with another first rung, share the trials."""


SchedulerConfig = Annotated[AshaConfig | NoneConfig | RayAshaConfig, section("asha"), Field(discriminator="name")]


class Resources(Config):
    """The slot of one trial."""

    workers: PositiveInt = 1
    """The processes (ranks) that train one trial together; each takes its part of every batch."""
    gpus: (
        Annotated[NonNegativeFloat, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})] | Literal["auto"]
    ) = "auto"
    """GPUs for each worker, which uses one at most, or a part of it; 0: train on the CPU; auto: one if the cluster has
    any."""
    cpus: PositiveFloat | Literal["auto"] = "auto"
    """CPUs for each worker; auto: the node's CPUs divided by its GPUs, or one where there is no GPU."""

    accelerator: Annotated[str, Field(min_length=1)] | None = None
    """Only GPUs of this kind, by Ray's name (A100, T4; https://docs.ray.io lists them as accelerator types), so that
    trials of one run do not meet several kinds; default: any."""

    @model_validator(mode="after")
    def _an_accelerator_is_a_gpu(self) -> Resources:
        if self.accelerator and self.gpus == 0:
            raise ValueError(f"accelerator: {self.accelerator} is a kind of GPU, but gpus is 0; leave one of them out")
        return self

    @model_validator(mode="after")
    def _workers_share_no_gpu(self) -> Resources:
        if self.workers > 1 and self.gpus != "auto" and self.gpus % 1:
            raise ValueError(
                f"gpus: got {self.gpus:g}, must be whole with workers: {self.workers}, since each needs its own GPUs; "
                "for several trials on one GPU leave workers at 1"
            )
        return self


class Checkpoints(Config):
    """How often weights are committed, and whose are kept."""

    every_minutes: PositiveFloat = 5.0
    """Minutes between two commits of a running trial."""
    keep_best: PositiveInt = 3
    """How many configs, best first, keep the best weights of their best seed."""
    keep_last: Literal["best", "all", "none"] = "best"
    """Whose state stays from which a longer trial can go on (docs/sharing.md): that of the trials whose weights
    `keep_best` keeps, of all, or of none."""


class Confirm(Config):
    """Whether the winner is the winner (docs/winner.md): the best configs are trained again, with fresh seeds."""

    top: Annotated[int, Field(ge=2, le=100)] = 5
    """How many configs, the best of the sweep, are trained again."""
    seeds: Annotated[int, Field(ge=2, le=100)] = 5
    """Fresh seeds for each of them, a round at a time; a config that can no longer be the best gets no more."""
    confidence: Fraction01 = 0.95
    """How sure what is said of the winner is to be."""


def check_storage(place: str) -> str:
    """Raise ValueError if a place for run folders holds credentials, or is a URI without a bucket; return it if not."""
    check_no_credentials(place)
    scheme, separator, rest = place.partition("://")
    if separator and not rest.partition("/")[0] and scheme != "file":
        raise ValueError(f"got {place!r}, which names no bucket: {scheme}://bucket/folder")
    return place


class Start(Config):
    """Where every trial begins (docs/recipes.md): after an epoch of another run's trial, or with pulled weights."""

    run: Annotated[str, Field(min_length=1), AfterValidator(check_storage)] | None = None
    """The run folder of that trial: a path (relative to the sweep file), s3://... or gs://..."""
    trial: Annotated[str, Field(min_length=1)] | None = None
    """The trial: its id, or what only its id begins or ends with, as a report shows it."""
    epoch: PositiveInt | None = None
    """How many of its epochs are taken over; `epochs` and schedules count them. Default: all that it has trained."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Instead: a folder that `raysweep pull` made, relative to the sweep file; it is every trial's `model.weights`."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Start:
        of_a_trial = [name for name in ("run", "trial", "epoch") if getattr(self, name) is not None]
        if self.weights and of_a_trial:
            raise ValueError(f"has weights and {', '.join(of_a_trial)}: {START_IS}")
        if not self.weights and not (self.run and self.trial):
            missing = [name for name in ("run", "trial") if getattr(self, name) is None]
            raise ValueError(f"lacks {' and '.join(missing)}: {START_IS}")
        return self


START_IS = "it is either {run: FOLDER, trial: ID, epoch: 30} or {weights: DIR}"


class Evaluate(Config):
    """What is measured of the winner at the end, beside its accuracy on the test split if there is one."""

    tta: list[Annotated[int, Field(ge=0, le=10)]] = []
    """Numbers of views for test-time augmentation (docs/models.md); 0: the image alone."""


class Report(Config):
    """What the report shows."""

    images: bool = True
    """Whether it shows validation images that the winner got wrong, as small pictures; false: neither the report nor
    the run folder has any."""


class Limits(Config):
    """The limits at which a run ends by itself."""

    trials: PositiveInt = 1000
    """A plan of more trials is refused."""
    max_concurrent: PositiveInt | None = None
    """How many trials run at the same time; default: as many as the cluster has slots."""
    gpu_hours: PositiveFloat | None = None
    """GPU-hours that the trials' epochs may take, over all reruns; then the run ends with exit code 3."""
    wall_hours: PositiveFloat | None = None
    """Hours that the run may last, over all reruns; then it ends with exit code 3."""
    stall_minutes: PositiveFloat | None = None
    """A trial that reports nothing for this long is taken to hang: its process is ended and started again from its last
    commit, at most `retries` times. It must exceed the longest epoch, compilation included; default: no limit."""


Whole = int
MOST_STEPS = 10_000
"""So many values, at most, a draw with a step can have."""
KINDS_OF_DRAWS = ("uniform", "log_uniform", "int", "log_int", "choice")


class Draw(Config):
    """How `random` draws one key: exactly one of these. Bounds are the values themselves, not exponents."""

    uniform: Pair[float] | None = None
    """A real number between two bounds."""
    log_uniform: Pair[PositiveFloat] | None = None
    """A real number between two bounds, uniform in its logarithm."""
    int: Pair[Whole] | None = None
    """A whole number, both bounds included."""
    log_int: Pair[PositiveInt] | None = None
    """A whole number, both bounds included, about uniform in its logarithm."""
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    """One of these values; a search takes ascending or descending numbers for ordered, so that near ones are alike."""
    step: Annotated[float | Whole, Field(gt=0)] | None = None
    """Of `uniform` and `int`: only the lower bound and every so much above it, up to the upper bound."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Draw:
        if sum(getattr(self, kind) is not None for kind in KINDS_OF_DRAWS) != 1:
            raise ValueError(f"must have exactly one of {', '.join(KINDS_OF_DRAWS)}")
        for bounds in (self.uniform, self.log_uniform, self.int, self.log_int):
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"the lower bound {bounds[0]} is above the upper bound {bounds[1]}")
        if any(abs(bound) >= 2**63 for bounds in (self.int, self.log_int) for bound in bounds or ()):
            raise ValueError("the bounds of whole numbers must be below 2^63")
        if self.step is not None:
            self._check_step(self.step)
        return self

    def _check_step(self, step: float) -> None:
        bounds = self.int or self.uniform
        if bounds is None:
            raise ValueError("step is of uniform and int; list the values instead: {choice: [8, 16, 32]}")
        if self.int and type(step) is not Whole:
            raise ValueError(f"step: got {step!r}, must be a whole number for int")
        count = math.floor(round((bounds[1] - bounds[0]) / step, 6))
        if count >= MOST_STEPS:
            raise ValueError(f"step: {step:g} makes {count + 1:,} values; at most {MOST_STEPS:,} can be listed")
        last = bounds[0] + count * step
        if not math.isclose(last, bounds[1], rel_tol=1e-9, abs_tol=step * 1e-6):
            raise ValueError(f"steps of {step:g} from {bounds[0]:g} end at {last:g}; got the upper bound {bounds[1]:g}")


SamplesOrDraw = Annotated[
    Annotated[PositiveInt, Tag("number")] | Annotated[Draw, Tag("draw")],
    Discriminator(lambda value: "draw" if isinstance(value, (dict, Draw)) else "number"),
]
AXES = ("grid", "zip", "random")
Axis = Annotated[list[Any], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _check_equal_lengths(zipped: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if len({len(values) for values in zipped.values()}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in zipped.items())
        raise ValueError(f"its lists must be of one length: {lengths}")
    return zipped


Zip = Annotated[dict[str, Axis], AfterValidator(_check_equal_lengths)]


class CaseAxes(Config):
    """A case's own axes, among its settings."""

    grid: dict[str, Axis] = {}
    zip: Zip = {}


def _check_draws(random: dict[str, Any]) -> dict[str, Any]:
    if random and not isinstance(random.get("samples"), int):
        raise ValueError("needs `samples`: how many draws")
    for key, draw in random.items():
        if key != "samples" and not isinstance(draw, Draw):
            raise ValueError(f"{key}: must be one of {', '.join(KINDS_OF_DRAWS)}, as {{uniform: [0, 1]}}")
    return random


class Dimension(Draw):
    """One key of a search space: how its values are drawn, and when it has one."""

    when: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """Other keys of the space with their values, or lists of these; only proposals that have them have this key too.
    Default: every proposal has it."""


def _has_keys(space: dict[str, Dimension]) -> dict[str, Dimension]:
    if not space:
        raise ValueError("is empty; it must have at least one key with a draw, as lr: {log_uniform: [0.001, 1]}")
    return space


class Search(Config):
    """Trials that are proposed a generation at a time, by what earlier ones have shown (docs/search.md)."""

    name: Literal["tpe", "cmaes", "random", "qmc"] = "tpe"
    """Who proposes. tpe: Optuna's tree-structured Parzen estimator; cmaes: its covariance matrix adaptation, for spaces
    of numbers; random: independent draws; qmc: a scrambled Sobol sequence, which covers the space more evenly."""
    trials: PositiveInt
    """How many configs are proposed in all, each to be trained with every seed."""
    generation: PositiveInt = 8
    """How many are proposed together. A generation is made from the results of all but the one before it, so that slots
    stay busy if it has twice as many as there are slots, or five times as many with `asha`."""
    space: Annotated[dict[str, Dimension], AfterValidator(_has_keys)]
    """How each key is drawn (`lr: {log_uniform: [0.001, 1]}`). Dotted keys reach inside."""
    enqueue: list[dict[str, Any]] = []
    """Configs to begin with, as keys of the space with their values; what one leaves out is drawn."""

    @property
    def learns(self) -> bool:
        """Whether what is proposed depends on results."""
        return self.name in ("tpe", "cmaes")


def _check_one_folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("must be letters, digits, '.', '_' and '-' alone: it is the run folder's name")
    return name


SURVIVORS = 4
"""Of so many in a generation of a search one goes on at least, by default: docs/search_evidence.md."""


def _for_a_search(scheduler: Any, info: ValidationInfo) -> Any:
    """Give the scheduler the defaults that it has beside `search`."""
    is_default = isinstance(scheduler, AshaConfig) and "min_survivors" not in scheduler.model_fields_set
    search = info.data.get("search")
    if not is_default or search is None or not search.learns:
        return scheduler
    return scheduler.model_copy(update={"min_survivors": -(-search.generation // SURVIVORS)})


class Sweep(Config):
    """A whole sweep file."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_one_folder)]
    """The run folder's name."""
    description: str = ""
    """What the sweep is to find out; the report quotes it."""
    loop: Annotated[str, AfterValidator(_known_loop)] = CLASSIFY
    """The loop that trains: the built-in `classify`, or one that a module of your own registers (docs/loops.md)."""
    base: dict[str, Any] = {}
    """What every trial starts from: keys of a trial's config."""
    grid: dict[str, Axis] = {}
    """Lists by key; the trials are their cartesian product. Dotted keys reach inside (`model.width`)."""
    zip: Zip = {}
    """Lists of one length by key, which advance together."""
    random: Annotated[dict[str, SamplesOrDraw], AfterValidator(_check_draws)] = {}
    """`samples`, and a draw by key (`lr: {log_uniform: [0.001, 1]}`)."""
    search: Search | None = None
    """In place of `grid`, `zip`, `random` and `cases`: trials that are proposed by what earlier ones have shown."""
    cases: dict[str, dict[str, Any]] = {}
    """Named settings, each optionally with a `grid` and `zip` of its own."""
    exclude: list[dict[str, Any]] = []
    """Partial configs; a trial that matches one is left out."""
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    """Each config is trained with each of these seeds; default: once, with `seed`."""
    seed: Seed = 0
    """The seed of the random draws, and of the trials if `seeds` is not given."""
    objective: Annotated[Objective, BeforeValidator(_objective_of_the_loop)] = Field({}, validate_default=True)
    """What trials are ranked by; a metric's name stands for the section. A list of 2 to 4 has what the first is traded
    off against (docs/objectives.md). Default: the loop's first metric."""
    scheduler: Annotated[SchedulerConfig, AfterValidator(_for_a_search)] = NoneConfig()
    """Which trials are stopped early: `asha` for sweeps that seek a winner, `none` for those that compare findings."""
    resources: Resources = Resources()
    """The slot of one trial."""
    cluster: Cluster = Cluster()
    """The machines that `submit --slurm` and `--kuberay` ask for."""
    checkpoints: Checkpoints = Checkpoints()
    """How often weights are committed, and whose are kept."""
    storage: Annotated[str, AfterValidator(check_storage)] = "./runs"
    """Where run folders lie: a path (relative to the sweep file), s3://... or gs://..."""
    share: bool = True
    """Whether trials whose first epochs are the same train them once (docs/sharing.md); the numbers are the same either
    way."""
    until: PositiveInt | None = None
    """Trials end after this epoch, if they have more: a look at the beginning of schedules, which `epochs` decides."""
    start: Start | None = None
    """Where every trial begins: after an epoch of another run's trial, or with pulled weights. Default: anew."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a trial that failed is tried again, from its last commit."""
    limits: Limits = Limits()
    """The limits at which a run ends by itself."""
    evaluate: Evaluate = Evaluate()
    """What is measured of the winner at the end."""
    report: Report = Report()
    """What the report shows."""
    export: list[Literal["mlflow", "wandb", "trackio"]] = []
    """Tools that the run is exported to while it goes on; each needs its extra: `pip install 'raysweep[mlflow]'`."""
    confirm: Confirm | None = None
    """Train the best configs again, with fresh seeds, to tell whether the winner is really the best; `{}` has the
    defaults. Without this key what the last run did stands; `null` is never."""

    _source: Source = PrivateAttr(default_factory=lambda: Source("sweep"))
    _started_from: Any = PrivateAttr(default=None)
    """The `plan.StartedFrom` of its trials, where they begin with epochs of another one."""
    _generations: Any = PrivateAttr(default=None)
    """The `proposals.Generation`s of `search` that its run folder has; None before it is looked at."""
    _plan: Any = PrivateAttr(default=None)
    """The sweep's trials, kept by `plan` so that a sweep is expanded once."""

    _idle_exclusions: Any = PrivateAttr(default=())
    """The places in `exclude` of those that match no config; known once the sweep is planned."""

    def __repr__(self) -> str:
        return f"<Sweep {self.name}>"

    @property
    def costs(self) -> list[str]:
        """Those of the objectives that the loop knows before a trial trains."""
        known = loop_named(self.loop).costs if self.objective.against else {}
        return [each.metric for each in self.objective.against if each.metric in known]

    @property
    def shares_epochs(self) -> bool:
        """Whether trials share epochs: not where Tune's own ASHA compares them as their epochs come in."""
        return self.share and not isinstance(self.scheduler, RayAshaConfig)

    @property
    def source(self) -> Source:
        """The file that the sweep was read from, for messages."""
        return self._source
