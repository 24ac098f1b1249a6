"""How far each trial of a run is, from three small files: resolved.yaml, results.parquet and newest.json.

Each is read again once it has changed, so looking costs little and may be done often; no record is read.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from raysweep.halving.scores import best_epoch
from raysweep.results.settings import setting_texts, varied_settings
from raysweep.store import Record, RunFolder, exports, newest, resolved
from raysweep.store.lease import Pulse
from raysweep.sweepfile.patch import short_labels
from raysweep.terminal import Metric, count_of, format_score

FILES = (resolved.FILE, exports.FILE, newest.FILE)
SETTLED_S = 2.5
"""An object store tells times in seconds: a file found changed so recently may have changed again since."""
SHOWN_AFTER_S = 10.0
"""How long a trial that trains no more is shown among those that do, so that its last epoch is seen."""
FADES_FOR_S = 5.0
"""How long after that it is made sure that it went."""
UNKNOWN = {"status": "planned", "epoch": 0, "score": None}
ENDED = ("finished", "stopped", "diverged", "failed")


class Progress:
    """What the files of a run folder, which need not be there yet, said when they were last looked at."""

    def __init__(self, folder: RunFolder) -> None:
        self.resolved: resolved.Resolved | None = None
        self.exported = exports.Exported({}, {})
        self.tails: Mapping[str, newest.Tail] = {}
        self.is_driven = False
        self._folder, self._pulse = folder, Pulse(folder.files)
        self._stamps: dict[str, float] = {}
        self._changed_at = dict.fromkeys(FILES, 0.0)
        self._unsettled: set[str] = set()
        self._plan: list[Record] = []
        self._settings: dict[str, list[str]] = {}
        self._labels: list[str] = []
        self._over_at: dict[str, float] = {}
        self._read: dict[str, dict[str, Any]] = {}
        self._changed: set[str] | None = None
        self._lock = threading.Lock()
        self._metric = Metric("", percent=False)

    # -- looking

    def look(self) -> bool:
        """Read what was written since the last look; return whether anything was.

        Raises:
            StorageError: the run folder cannot be read now.
        """
        stamps = {name: time for name, time in self._folder.files.list_times("").items() if name in FILES}
        changed = {name for name in FILES if stamps.get(name) != self._stamps.get(name)}
        self._changed_at |= dict.fromkeys(changed, time.monotonic())
        settled = {name for name in self._unsettled if time.monotonic() - self._changed_at[name] >= SETTLED_S}
        self._unsettled = (self._unsettled | changed) - settled
        is_driven = self._pulse.is_felt()
        news = bool(changed) or is_driven != self.is_driven
        if resolved.FILE in changed and resolved.FILE in stamps:
            self._take_plan(resolved.read_resolved(self._folder, lenient=True))
        if is_driven != self.is_driven:
            self.note_changed(None)  # what the driver told beyond the records counts from now on, or no longer
        if exports.FILE in changed | (settled if self._folder.files.local is None else set()):
            self._take_exported(exports.read_exported(self._folder))
        if not is_driven or newest.FILE not in stamps:
            self.tails = {}
        elif newest.FILE in self._unsettled or not self.is_driven:
            news |= self._take_tails(newest.read_newest(self._folder))
        self._stamps, self.is_driven = stamps, is_driven
        return news

    def _take_plan(self, found: resolved.Resolved) -> None:
        self._plan = [*found.plan, *found.fresh]
        keys = varied_settings(self._plan)
        self._labels = list(short_labels(keys).values())
        texts = [setting_texts(self._plan, key) for key in keys]
        by_trial = zip(*texts, strict=True) if keys else [()] * len(self._plan)
        self._settings = {record.id: list(values) for record, values in zip(self._plan, by_trial, strict=True)}
        self.resolved = found
        self.note_changed(None)

    def _take_exported(self, found: exports.Exported) -> None:
        before = self.exported.rows
        self.note_changed(
            {id for id, row in found.rows.items() if row["status"] != "running" and row != before.get(id)}
        )
        self.exported = found

    def _take_tails(self, found: Mapping[str, newest.Tail]) -> bool:
        """Take in newest.json; return whether it says anything new."""
        news = {id for id, tail in found.items() if tail != self.tails.get(id)}
        status_before = {id: tail.status for id, tail in self.tails.items()}
        # Of a trial that goes on running, the epochs are here and in results.parquet: its record says no more.
        self.note_changed(id for id in news if not found[id].status == status_before.get(id) == "running")
        over = (id for id in news if found[id].status != "running" and status_before.get(id) != found[id].status)
        self._over_at |= dict.fromkeys(over, time.monotonic() if self._stamps else 0.0)  # 0: before the first look
        self.tails = found
        return bool(news)

    def take_records(self, records: Iterable[Record]) -> None:
        """Take in the records that were read, which say how far a trial is that results.parquet does not have."""
        scores = ((record, record.best.score if record.best else None) for record in records)
        self._read = {
            record.id: {"status": record.status, "epoch": record.epoch, "score": score} for record, score in scores
        }

    # -- which records may have changed

    def note_changed(self, ids: Iterable[str] | None) -> None:
        """Note trials whose records may have changed; None: all may have."""
        with self._lock:
            self._changed = None if ids is None or self._changed is None else self._changed | set(ids)

    def take_changed(self) -> set[str] | None:
        """Return the trials whose records may have changed since this was last asked; None: all may have."""
        with self._lock:
            changed, self._changed = self._changed, set()
            return changed

    # -- for people

    def in_words(self) -> dict[str, Any]:
        """Return how far the run is and what trains now, JSON-able."""
        if self.resolved is None:
            begins = "A run begins: Ray is connected to and the data prepared."
            said = begins if self.is_driven else "No run has begun here yet. This page shows it once one has."
            return {"state": "waiting", "said": said, "settings": [], "running": [], "over": []}
        rows = [self._row(record) for record in self._plan]
        self._metric = Metric.of(self.resolved.objective.metric, (row["score"] for row in rows))
        ended = sum(row["status"] in ENDED for row in rows)
        counts = Counter(row["status"] for row in rows)
        by_status = ", ".join(f"{n:,} {status}" for status, n in counts.items())
        return {
            "state": "running" if self.is_driven else "not running",
            "said": f"{ended:,} of {count_of(len(rows), 'trial')} done: {by_status}",
            "metric": self.resolved.objective.metric,
            "settings": self._labels,
            "is_repeated": len({record.seed for record in self._plan}) > 1,
            "running": [self._for_people(row) for row in rows if row["status"] == "running"],
            "over": [self._for_people(row) for row in self._just_over(rows)],
            "best": self._best(rows),
        }

    def _row(self, record: Record) -> dict[str, Any]:
        """How far a trial is, by the exports and the newest epochs."""
        assert self.resolved
        # A driver that was killed may have committed what it did not export any more.
        told, read = self.exported.rows.get(record.id), self._read.get(record.id)
        row = dict((told or read if self.is_driven else read or told) or UNKNOWN)
        if row["status"] == "running" and not self.is_driven:
            row["status"] = "interrupted"
        if tail := self.tails.get(record.id):
            objective = self.resolved.objective
            rows, best = tail.rows, max if objective.maximize else min
            found = best_epoch(rows, objective)
            scores = [score for score in (row["score"], found.score if found else None) if score is not None]
            now = rows[-1].get(objective.metric) if rows else None
            last = tail.first + len(rows) - 1
            row = {"status": tail.status, "epoch": last, "score": best(scores, default=None), "now": now}
        return {**row, "record": record}

    @property
    def is_fading(self) -> bool:
        """Whether trials that train no more are still shown, or were until now."""
        since = time.monotonic() - SHOWN_AFTER_S - FADES_FOR_S
        return any(at > since for at in self._over_at.values())

    def _just_over(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the trials that trained until some seconds ago, the last one first."""
        since = time.monotonic() - SHOWN_AFTER_S
        found = [row for row in rows if row["status"] != "running" and self._over_at.get(row["record"].id, 0.0) > since]
        return sorted(found, key=lambda row: -self._over_at[row["record"].id])

    def _best(self, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        assert self.resolved
        scored = [row for row in rows if row["score"] is not None and row["status"] not in ("diverged", "failed")]
        best = max if self.resolved.objective.maximize else min
        return self._for_people(best(scored, key=lambda row: row["score"])) if scored else None

    def _for_people(self, row: Mapping[str, Any]) -> dict[str, Any]:
        record, metric = row["record"], self._metric
        return {
            "id": record.id,
            "settings": self._settings[record.id],
            "seed": record.seed,
            "status": row["status"],
            "epoch": row["epoch"],
            "epochs": record.epochs,
            "now": format_score(row.get("now"), metric),
            "score": format_score(row["score"], metric),
        }
