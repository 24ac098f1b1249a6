"""`raysweep probe`: which cause a dip, a divergence or a plateau has, by training its epochs again in several futures.

The futures are the trials of a sweep that begins from the trial's state (`start`), in `<run>/probes/<trial>-<epoch>`.
So a probe that was interrupted goes on, and of a second one with more orders of batches these alone are trained. The
futures end in the middle of the trial's schedule (`until`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import DATA_LIES_BESIDE_IT, Context, add_common_flags
from raysweep.errors import UserError
from raysweep.terminal import count_of, format_difference, print_fitting, say, step

if TYPE_CHECKING:
    from raysweep.diagnose.findings import Finding
    from raysweep.diagnose.futures import Future, Phenomenon
    from raysweep.diagnose.probed import Probe
    from raysweep.store import Record, RunFolder
    from raysweep.sweepfile import Sweep
    from raysweep.sweepfile.plan import Trial

SUMMARY = "train the epochs of a dip again in several futures: which cause has it?"
FEWEST_ORDERS = 3
KINDS: tuple[Phenomenon, ...] = ("divergence", "dip", "plateau")
"""What can be probed, the worst first."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="the sweep file")
    parser.add_argument("trial", metavar="TRIAL", help="a part of its id that no other trial's begins or ends with")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="patch the sweep file, as for the run")
    parser.add_argument("--epoch", type=int, metavar="K", help="the epoch of the dip; default: the worst that is found")
    parser.add_argument("--orders", type=int, default=5, metavar="N", help="other orders of batches (5, at least 3)")
    parser.add_argument("--address", help="a Ray cluster's address; default: $RAY_ADDRESS, else one is started here")
    add_common_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train the futures, and say what they tell; return the exit code."""
    from raysweep.diagnose.futures import futures_of
    from raysweep.store import RunFolder

    context = Context.of(arguments, DATA_LIES_BESIDE_IT)
    if arguments.orders < FEWEST_ORDERS:
        raise UserError(f"--orders {arguments.orders}: must be at least {FEWEST_ORDERS}, to tell what chance does")
    record = _find(context, arguments.trial)
    phenomenon, epoch = _what_to_probe(context, record, arguments.epoch)
    futures = futures_of(record.config, record.seed, epoch, record.metrics, arguments.orders, phenomenon)
    say(f"{record.id}: the {phenomenon} at epoch {epoch}, {count_of(len(futures), 'future')}", stderr=True)
    with step("loading Ray and torch", is_news=False):
        from raysweep.driver import run_sweep

    sweep, text, trials = _sweep_of(context, record, epoch, futures)
    folder = RunFolder(sweep.storage, sweep.name)
    named = replace(context.named, overrides=(), storage=folder.parent.uri, text=text)
    code = run_sweep(sweep, folder, named, address=arguments.address, imports=arguments.imports, quiet=True)
    known = folder.records([trial.id for trial in trials])
    records = [known[trial.id] for trial in trials]
    if code > 1 or any(each is None or each.status not in ("finished", "diverged") for each in records):
        return code or _say_what_failed(records)
    trained = [_with_rows(*pair, epoch) for pair in zip(futures, filter(None, records), strict=True)]
    probe = _judge(context, record, epoch, phenomenon, trained, trials)
    _tell(context, folder, probe, arguments.json)
    return 0


def _find(context: Context, given: str) -> Record:
    """Return the trial's record, which must have epochs."""
    from raysweep.sweepfile.plan import id_named

    records = {record.id: record for record in context.results(live=True).trials}
    record = records[id_named(given, list(records))]
    if not record.epoch:
        raise UserError(f"{record.id} has trained no epoch yet: there is nothing to probe")
    return record


def _what_to_probe(context: Context, record: Record, given: int | None) -> tuple[Phenomenon, int]:
    """Return what happened, and the epoch in which it begins: the one given, or the worst that the diagnosis finds."""
    from raysweep.diagnose.rules import diagnose_record

    found = diagnose_record(record, objective=context.sweep.objective).findings
    last = record.epoch + (record.status == "diverged")
    if given is None:
        worst = _worst(found, last)
        if worst is None:
            hint = f"name one: --epoch K, from 2 to {last}"
            raise UserError(f"{record.id}: no dip, divergence or plateau is found in its curves; {hint}")
        return worst
    if not 2 <= given <= last:
        has = f"{record.id} has trained {count_of(record.epoch, 'epoch')}"
        raise UserError(f"--epoch {given}: must be from 2 to {last}; {has}")
    if record.status == "diverged" and given == last:
        return "divergence", given
    at = {finding.kind for finding in found if finding.first <= given <= finding.last}
    return next((kind for kind in KINDS if kind in at), "dip"), given


def _worst(found: Sequence[Finding], last: int) -> tuple[Phenomenon, int] | None:
    """Return a divergence if there is one, else the deepest dip, else a plateau."""
    for kind in KINDS:
        of_kind = [each for each in found if each.kind == kind and 2 <= each.first <= last]
        if of_kind:
            return kind, max(of_kind, key=lambda each: each.numbers.get("depth", 0.0)).first
    return None


# ---------------------------------------------------------------------------------------------------------
# Training


def _sweep_of(
    context: Context, record: Record, epoch: int, futures: Sequence[Future]
) -> tuple[Sweep, str, list[Trial]]:
    """Return a sweep whose trials are the futures, its text as a file, and the trials in the order of the futures."""
    from raysweep.diagnose.probed import FOLDER
    from raysweep.loops import loop_named
    from raysweep.results.start import find_start
    from raysweep.sweepfile import sweep_of
    from raysweep.sweepfile.patch import patch
    from raysweep.sweepfile.plan import config_key, plan_trials, short_id, with_seed

    of, place = context.sweep, context.folder.files.child(FOLDER).uri
    configs: dict[str, dict[str, Any]] = {}
    for future in futures:
        config = json.loads(json.dumps(record.config))
        for key, value in future.changes.items():
            patch(config, key, value)
        configs.setdefault(_key(future), config)
    values = {
        "name": f"{short_id(record.id)}-{epoch}",
        "description": f"The futures of {record.id} from epoch {epoch} on.",
        "loop": of.loop,
        "cases": configs,
        "until": epoch - 1 + futures[0].epochs,
        "start": {"run": context.folder.files.uri, "trial": record.id, "epoch": epoch - 1},
        "objective": of.objective.model_dump(mode="json"),
        "resources": of.resources.model_dump(mode="json"),
        "retries": of.retries,
        "limits": of.limits.model_dump(mode="json"),
        "storage": place,
        "checkpoints": {"keep_best": 1, "keep_last": "none"},
        "report": {"images": False},
    }
    sweep, text = sweep_of(values, find_start=partial(find_start, storage=place))
    by_config = {config_key(trial.config.model_dump(mode="json")): trial for trial in plan_trials(sweep)}
    kind = loop_named(of.loop).config
    whole = {name: kind.model_validate(config).model_dump(mode="json") for name, config in configs.items()}
    trials = [with_seed(by_config[config_key(whole[_key(future)])], future.seed) for future in futures]
    sweep._plan = trials
    return sweep, text, trials


def _key(future: Future) -> str:
    return "control" if future.name == "order" else future.name


def _with_rows(future: Future, record: Record, epoch: int) -> Future:
    return replace(future, rows=record.metrics[epoch - 1 :], diverged=record.status == "diverged")


def _say_what_failed(records: Sequence[Record | None]) -> int:
    from raysweep.results.failed import error_text

    for record in records:
        if record is not None and record.status == "failed":
            say(f"{record.id} failed: {error_text(record.error)}", stderr=True)
    say("not all futures are trained; run the same command again", stderr=True)
    return 1


# ---------------------------------------------------------------------------------------------------------
# What they tell


def _judge(
    context: Context,
    record: Record,
    epoch: int,
    phenomenon: Phenomenon,
    futures: Sequence[Future],
    trials: Sequence[Trial],
) -> Probe:
    from raysweep.diagnose.probe import judge
    from raysweep.diagnose.probed import probe_of

    objective, rows = context.sweep.objective, record.metrics
    verdict = judge(
        rows[: epoch - 1],
        rows[epoch - 1 :],
        futures,
        objective.metric,
        objective.maximize,
        phenomenon,
        diverged=record.status == "diverged",
    )
    return probe_of(record.id, verdict, futures, [trial.id for trial in trials])


def _tell(context: Context, folder: RunFolder, probe: Probe, as_json: bool) -> None:
    """Write probe.json and print what it says."""
    from dataclasses import asdict

    from raysweep.diagnose.probed import FILE, write_probe

    write_probe(folder, probe)
    if as_json:
        print(json.dumps(asdict(probe), allow_nan=False))
        return
    _print_table(probe)
    say(probe.words)
    say(f"{folder.path}/{FILE}; with its picture in the report: python -m raysweep report {context.named.in_words()}")


def _print_table(probe: Probe) -> None:
    from raysweep.diagnose.futures import NAMES
    from raysweep.terminal import Metric

    rows, numbers = probe.rows(), probe.verdict.get("numbers", {})
    fell = max(numbers.get(name) or 0.0 for name in ("fall", "shared_fall")) > 0  # else there is nothing to take away
    metric = Metric.of(probe.metric, [numbers.get("level")])
    columns = {
        "future": [NAMES[row["name"]] for row in rows],
        "seeds": [str(row["futures"]) for row in rows],
        f"{probe.metric} better by": [
            _told(row, ["points"], partial(format_difference, metric=metric)) for row in rows
        ],
        "of the fall": [_told(row if fell else {}, ["removed"], lambda share: f"{100 * share:.0f} %") for row in rows],
        "95 % interval": [
            _told(row if fell else {}, ["low", "high"], lambda low, high: f"{100 * low:.0f} to {100 * high:.0f} %")
            for row in rows
        ],
    }
    print_fitting(columns, ["95 % interval"], right=set(columns) - {"future"})


def _told(row: Mapping[str, Any], names: Sequence[str], write: Callable[..., str]) -> str:
    """Write some numbers of a row; a dash where one of them is not known."""
    values = [row.get(name) for name in names]
    return "-" if None in values else write(*values)
