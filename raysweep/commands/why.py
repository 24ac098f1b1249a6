"""`raysweep status --why TRIAL`: why a trial was stopped, waits or goes on, rung by rung, from the records alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from raysweep.errors import UserError
from raysweep.halving.rules import member_of
from raysweep.halving.rungs import Halving, RungReport, Verdict, group_of
from raysweep.halving.words import decisive, in_words
from raysweep.results.failed import error_text
from raysweep.results.run import SweepResult
from raysweep.store import Record
from raysweep.sweepfile.plan import id_named
from raysweep.sweepfile.schema import AshaConfig, NoneConfig, RayAshaConfig, SchedulerConfig
from raysweep.terminal import count_of, say

RIVALS = 5
"""How many of the trials ahead are named."""
VERDICTS = {Verdict.SAFE: "goes on", Verdict.OUT: "is out", Verdict.UNDECIDED: "waits"}


def print_why(result: SweepResult, trial: str, as_json: bool) -> int:
    """Print how a trial stands at each rung that it has reached; return the exit code."""
    record = _find(result, trial)
    scheduler, halving = result.scheduler, result.halving()
    searched = [each for config in result.configs for each in config.search]
    is_fresh = record not in searched
    reports = [] if is_fresh else halving.explain(record.id, RIVALS)
    scheduler = NoneConfig() if is_fresh else scheduler
    reason = _reason(record, scheduler, halving, reports)
    if is_fresh and record.status not in ("diverged", "failed"):
        reason = "confirm trains it, with a fresh seed: it is compared at no rung"
    if as_json:
        known = {"id": record.id, "status": record.status, "epoch": record.epoch, "epochs": record.epochs}
        known |= {"origins": [asdict(origin) for origin in record.origins]}
        print(json.dumps({**known, "reason": reason, "rungs": [_rung_document(each, halving) for each in reports]}))
        return 0
    lines = [f"{record.id}: {record.status} after {record.epoch} of {record.epochs} epochs"]
    lines += [origin.in_words() for origin in record.origins]
    knows = result.knows.get(-1 if record.generation is None else record.generation, ())
    lines += [_peers(record, searched, knows, scheduler)] if isinstance(scheduler, AshaConfig) else []
    for report in reports:
        lines.append(f"{in_words(report)}: {VERDICTS[report.verdict]}")
        lines += [f"  just ahead of it: {', '.join(report.beaten_by)}"] if report.beaten_by else []
    say("\n  ".join([*lines, reason]))
    if record.status == "failed" and (trace := (record.error or {}).get("traceback")):
        say(f"\n{trace.rstrip()}")
    return 0


def _find(result: SweepResult, given: str) -> Record:
    """Return the trial with this id, or the only one whose id begins or ends with it."""
    by_id = {record.id: record for record in result.trials}
    try:
        return by_id[id_named(given, by_id)]
    except UserError as error:
        raise UserError(f"--why {error}") from None


def _peers(record: Record, records: Sequence[Record], knows: Collection[str], scheduler: AshaConfig) -> str:
    """Say which trials a trial is compared with; in a search it `knows` some of other generations."""
    own_generation = [each for each in records if each.generation == record.generation]
    members = [member_of(each.id, each.config, each.epochs, scheduler) for each in own_generation]
    own = next(member for member in members if member.id == record.id)
    configs = {member.config_key for member in members if member.group == own.group}
    rivals = [member_of(each.id, each.config, each.epochs, scheduler) for each in records if each.id in knows]
    before = {member.config_key for member in rivals if member.group == own.group}
    seeds = sum(member.config_key == own.config_key for member in members)
    values = zip(scheduler.group_by, group_of(record.config, scheduler.group_by), strict=True)
    group = ", ".join(f"{key} {value or 'not set'}" for key, value in values)
    among = f"compared among {len(configs | before)} configs" + (f" with {group}" if group else "")
    if record.generation is not None:
        among += f", of generation {record.generation} ({len(configs)})"
        among += f" and of those before that had ended ({len(before)})" if before else ""
    return among + (f", together with {count_of(seeds - 1, 'other seed')} of its config" if seeds > 1 else "")


def _reason(record: Record, scheduler: SchedulerConfig, halving: Halving, reports: Sequence[RungReport]) -> str:
    if record.status in ("diverged", "failed"):
        return f"{record.status}: {error_text(record.error)}"
    if isinstance(scheduler, RayAshaConfig):
        return "ray_asha: Tune decides by the order of arrival, which the records do not have"
    if not isinstance(scheduler, AshaConfig):
        return f"scheduler {scheduler.name}: every trial runs to its end"
    report = decisive(reports)
    if report is None:
        return f"{record.status}: its first rung is after epoch {halving.rules.rung_epochs(record.epochs)[0]}"
    if record.status == "finished":
        is_sure = report.verdict is Verdict.SAFE
        return f"finished{': its place was sure at every rung' if is_sure else ' under an earlier plan or scheduler'}"
    if report.verdict is Verdict.OUT:
        return f"stopped at rung {report.rung + 1}: all places there ({report.places}) are taken by better configs"
    if report.verdict is Verdict.UNDECIDED:
        return f"waits at rung {report.rung + 1}: others may still beat it, or one ahead of it may fail"
    return f"goes on from rung {report.rung + 1}: it is among the best {report.places}, whatever the others reach"


def _rung_document(report: RungReport, halving: Halving) -> dict[str, Any]:
    numbers = {key: value for key, value in asdict(report).items() if value == value}  # JSON has no NaN
    share = str(halving.rules.rungs[report.rung])
    if not halving.rules.costs:
        del numbers["objectives"], numbers["dominated_by"]
    return {**numbers, "rung": report.rung + 1, "share": share, "verdict": report.verdict.value}
