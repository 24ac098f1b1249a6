"""Probes on record: what `raysweep probe` found of a trial, in `<run>/probes/<trial>-<epoch>/probe.json`.

In: a run folder. Out: its probes, for the report, and findings that say what was tested, not what goes with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from raysweep.diagnose.findings import Diagnosis, Finding
from raysweep.diagnose.futures import NAMES, Future
from raysweep.diagnose.probe import Line, Verdict, lines
from raysweep.store import RunFolder
from raysweep.store.document import checked, seal, to_bytes, unseal

FOLDER, FILE = "probes", "probe.json"
MEASURED = ("averaged", "batch_norm")
"""Changes that train nothing: they are measured beside, in the futures that change nothing else."""


@dataclass(frozen=True)
class DrawnLine:
    """A future as a picture shows it."""

    name: str  # a key of `futures.NAMES`
    seed: int
    epochs: list[int]
    values: list[float | None]  # of the metric; None where it was not finite


@dataclass(frozen=True)
class TrainedFuture:
    """A future, and how it was trained."""

    name: str
    seed: int
    changes: dict[str, Any]  # of the trial's config, by dotted key
    trial: str  # its id in the probe's run folder
    diverged: bool


@dataclass(frozen=True)
class Probe:
    """What the futures of one epoch of a trial say."""

    trial: str
    epoch: int  # the first one that was trained again
    phenomenon: str
    metric: str
    outcome: str
    words: str
    verdict: dict[str, Any]  # all of it, as `Verdict.as_json` gives it
    lines: list[DrawnLine] = field(default_factory=list)
    futures: list[TrainedFuture] = field(default_factory=list)

    @property
    def tested(self) -> str:
        """The words in the middle of a sentence."""
        return f"tested: {_lower(self.words.removeprefix('Tested: '))}"

    def is_about(self, finding: Finding) -> bool:
        """Whether a finding is what was probed."""
        return finding.kind == self.phenomenon and finding.first <= self.epoch <= finding.last

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each change: how many futures have it, and what it takes away."""
        count = {name: sum(future.name == name for future in self.futures) for name in NAMES}
        effects = {effect["name"]: effect for effect in self.verdict.get("effects", ())}
        tried = [name for name in NAMES if count[name] or name in effects]
        return [
            {"name": name, "futures": count[name] or effects[name]["futures"]}
            | {key: effects[name][key] if name in effects else None for key in ("points", "removed", "low", "high")}
            for name in tried
        ]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def probe_of(trial: str, verdict: Verdict, futures: Sequence[Future], ids: Sequence[str]) -> Probe:
    """Return the probe of a trial; `ids` are those of its futures."""
    drawn = [
        DrawnLine(line.name, line.seed, list(line.epochs), [None if value != value else value for value in line.values])
        for line in _lines(futures, verdict.metric)
    ]
    trained = [
        TrainedFuture(future.name, future.seed, dict(future.changes), id, future.diverged)
        for future, id in zip(futures, ids, strict=True)
    ]
    words, of = verdict.in_words(), verdict.phenomenon
    return Probe(trial, verdict.epoch, of, verdict.metric, verdict.outcome, words, verdict.as_json(), drawn, trained)


def _lines(futures: Sequence[Future], metric: str) -> list[Line]:
    return lines(futures, metric) if any(future.rows for future in futures) else []


def write_probe(folder: RunFolder, probe: Probe) -> None:
    """Write probe.json into the probe's own run folder."""
    folder.files.write(FILE, to_bytes(seal(asdict(probe))))


def read_probes(folder: RunFolder) -> list[Probe]:
    """Return the probes of a run's trials, by trial and epoch; those that are damaged are noted and left out."""

    def parse(data: bytes) -> Probe:
        probe: Probe = checked(Probe, unseal(json.loads(data)))
        return probe

    names = folder.files.list_folders(FOLDER)
    found = (folder.read(f"{name}/{FILE}", parse, "not shown") for name in names)
    return sorted(filter(None, found), key=lambda probe: (probe.trial, probe.epoch))


def with_tests(diagnoses: Mapping[str, Diagnosis], probes: Sequence[Probe]) -> dict[str, Diagnosis]:
    """Return the diagnoses of trials, by id, with what probes tested of their findings."""
    found = dict(diagnoses)
    for probe in probes:
        if probe.trial in found and probe.outcome != "cannot_judge":
            findings = found[probe.trial].findings
            found[probe.trial] = Diagnosis(
                tuple(replace(each, tested=probe.tested) if probe.is_about(each) else each for each in findings)
            )
    return found
