"""Follows a run folder: how far each trial is, in little time and often, and the report, which takes longer.

The first comes from three files, resolved.yaml, results.parquet and newest.json, each read again once it has changed;
no record is read. The report reads the records that changed, on a thread of its own.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysweep.errors import StorageError
from raysweep.halving.scores import best_epoch
from raysweep.report.content import gather
from raysweep.report.page import as_html
from raysweep.report.pictures import draw
from raysweep.results.run import read_results
from raysweep.results.settings import setting_text, varied_settings
from raysweep.store import Record, RunFolder, exports, newest, resolved
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.patch import short_labels
from raysweep.terminal import count_of, format_score

LOOK_EVERY_S = 0.5
REPORT_EVERY_S, REPORT_SHARE = 2.0, 0.2
"""How often the report is made at most, and the share of a core that it may take."""
MOST_SHOWN = 20
"""Rows of the best trials and of the running ones."""
OLD_S = 60.0
"""An object store's newest epochs that are older are no sign of life any more."""


class Follower:
    """Follows a run folder, which need not be there yet, while it is entered as a context.

    `document` is JSON-able; its `version` counts up with each change. `page` is the report, None before it is made.
    """

    def __init__(self, folder: RunFolder, named: Named | None = None) -> None:
        self.document: dict[str, Any] = {"version": 0}
        self.page: bytes | None = None
        self._folder, self._named = folder, named
        self._stamps: dict[str, float] = {}
        self._resolved: resolved.Resolved | None = None
        self._settings: list[str] = []
        self._rows: dict[str, dict[str, Any]] = {}
        self._tails: dict[str, newest.Tail] = {}
        self._is_driven = False
        self._report, self._fault = 0, ""
        self._changed, self._over = threading.Event(), threading.Event()

    def __enter__(self) -> Follower:
        self._tick()
        for target in (self._look, self._make_reports):
            thread = threading.Thread(target=target, daemon=True)  # a slow store must not delay the end
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._changed.set()

    # -- how far the trials are

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self._tick()

    def _tick(self) -> None:
        """Look once; a fault of the storage is shown, and tried again."""
        fault = ""
        try:
            if self._read_what_changed():
                self._changed.set()
        except StorageError as error:
            fault = str(error)
        document = self._as_document(fault)
        if document != {key: value for key, value in self.document.items() if key != "version"}:
            self.document = {"version": self.document["version"] + 1, **document}

    def _read_what_changed(self) -> bool:
        """Read again what was written since; return whether anything was."""
        files = (resolved.FILE, exports.FILE, newest.FILE)
        stamps = {name: time for name, time in self._folder.files.list_times("").items() if name in files}
        changed = {name for name in files if stamps.get(name) != self._stamps.get(name)}
        was_driven, self._is_driven = self._is_driven, self._lives(stamps)
        if resolved.FILE in changed and resolved.FILE in stamps:
            self._resolved = resolved.read_resolved(self._folder, lenient=True)
            self._settings = varied_settings(self._resolved.plan)
        if exports.FILE in changed:
            self._rows = _exported(self._folder)
        self._tails = newest.read_newest(self._folder) if newest.FILE in stamps and self._is_driven else {}
        self._stamps = stamps
        return bool(changed) or was_driven != self._is_driven

    def _lives(self, stamps: Mapping[str, float]) -> bool:
        """Whether a driver holds the run folder; an object store would take seconds to tell, so by the files there."""
        if self._folder.files.local is not None:
            return self._folder.is_driven()
        return newest.FILE in stamps and time.time() - stamps[newest.FILE] < OLD_S

    def _as_document(self, fault: str) -> dict[str, Any]:
        known = {"name": self._folder.name, "path": self._folder.path, "report": self._report}
        if self._resolved is None:
            said = fault or "No run has begun here yet. This page shows it once one has."
            return {**known, "state": "waiting", "said": said, "running": [], "best": []}
        plan = [*self._resolved.plan, *self._resolved.fresh]
        rows = [self._row(record) for record in plan]
        ended = sum(row["status"] in ("finished", "stopped", "diverged", "failed") for row in rows)
        counts = Counter(row["status"] for row in rows)
        said = f"{ended} of {count_of(len(rows), 'trial')} done: " + ", ".join(
            f"{n} {status}" for status, n in counts.items()
        )
        running = [row for row in rows if row["status"] == "running"][:MOST_SHOWN]
        scored = [row for row in rows if row["score"] is not None and row["status"] not in ("diverged", "failed")]
        scored.sort(key=lambda row: row["score"], reverse=self._resolved.objective.maximize)
        return {
            **known,
            "state": "running" if self._is_driven else "not running",
            "said": said,
            "fault": fault or self._fault,
            "metric": self._resolved.objective.metric,
            "settings": list(short_labels(self._settings).values()),
            "running": list(map(self._for_people, running)),
            "best": list(map(self._for_people, scored[:MOST_SHOWN])),
        }

    def _row(self, record: Record) -> dict[str, Any]:
        """How far a trial is, by the exports and the newest epochs."""
        assert self._resolved
        row = self._rows.get(record.id, {"status": "planned", "epoch": 0, "score": None})
        if row["status"] == "running" and not self._is_driven:
            row = {**row, "status": "interrupted"}
        tail = self._tails.get(record.id)
        if tail:
            objective = self._resolved.objective
            rows, best = tail.rows, max if objective.maximize else min
            found = best_epoch(rows, objective)
            scores = [score for score in (row["score"], found.score if found else None) if score is not None]
            newest_value = rows[-1].get(objective.metric) if rows else None
            last = tail.first + len(rows) - 1
            row = {"status": tail.status, "epoch": last, "score": best(scores, default=None), "newest": newest_value}
        return {**row, "record": record}

    def _for_people(self, row: Mapping[str, Any]) -> dict[str, Any]:
        assert self._resolved
        record, metric = row["record"], self._resolved.objective.metric
        return {
            "id": record.id,
            "settings": [setting_text(record, key) for key in self._settings],
            "seed": record.seed,
            "status": row["status"],
            "epoch": f"{row['epoch']} of {record.epochs}",
            "newest": format_score(row.get("newest"), metric),
            "score": format_score(row["score"], metric),
        }

    # -- the report

    def _make_reports(self) -> None:
        while self._changed.wait() and not self._over.is_set():
            self._changed.clear()
            began = time.monotonic()
            self._make_report()
            took = time.monotonic() - began
            self._over.wait(max(REPORT_EVERY_S, took / REPORT_SHARE - took))

    def _make_report(self) -> None:
        if self._resolved is None:
            return
        try:
            report = gather(read_results(self._folder, live=True, lenient=True), self._named)
            self.page, self._fault = as_html(report, draw(report)).encode(), ""
            self._report += 1
        except Exception as error:  # it can be made again, and the rest of the page is right without it
            self._fault = f"no report: {type(error).__name__}: {error}"


def _exported(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """Return status, epoch and score of each trial that results.parquet has; none if it is torn."""
    with suppress(FileNotFoundError, pa.ArrowException):
        table = pq.read_table(io.BytesIO(folder.files.read(exports.FILE)), columns=["id", "status", "epoch", "score"])
        return {row.pop("id"): row for row in table.to_pylist()}
    return {}
