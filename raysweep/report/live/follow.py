"""Follows a run folder on threads: how far its trials are, looked up often, and the report, made anew beside that."""

from __future__ import annotations

import json
import threading
import time
from types import TracebackType
from typing import Any

from raysweep.errors import StorageError
from raysweep.report.content import gather
from raysweep.report.live.progress import Progress
from raysweep.report.page import as_html, as_waiting
from raysweep.report.pictures import draw
from raysweep.results.run import SweepResult, put_together
from raysweep.store import RunFolder
from raysweep.sweepfile.named import Named

LOOK_EVERY_S = 0.5
LOOK_WHILE_STILL_EVERY_S = 2.0
"""How often to look at an object store while no driver is there: each look is a request that somebody pays."""
REPORT_EVERY_S, REPORT_FROM_AFAR_EVERY_S, REPORT_SHARE = 0.5, 2.0, 0.25
"""How often the report is made at most, from an object store, where that takes ten requests, less often; and the share
of a core that it may take."""
TRY_AGAIN_S = 5.0
"""How long after a fault the report is tried again."""


class Follower:
    """Follows a run folder, which need not be there yet, while it is entered as a context."""

    def __init__(self, folder: RunFolder, named: Named | None = None) -> None:
        self.version = 0
        """Counts up with each change."""
        self.reports = 0
        """How many reports were made."""
        self.page = as_waiting(folder.name).encode()
        """The report's page, or before there is one another that waits for it."""
        self._folder, self._named = folder, named
        self._progress = Progress(folder)
        self._words = self._progress.in_words()
        self._now: dict[str, Any] = {}
        self._fault = ""
        self._news, self._over = threading.Event(), threading.Event()

    def __enter__(self) -> Follower:
        self._look()
        for target in (self._look_again, self._make_reports):
            threading.Thread(target=target, daemon=True).start()  # a slow store must not delay the end
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._news.set()

    # -- for the server

    def answer(self, after: int) -> bytes | None:
        """Return what is new after a version, as JSON; None if nothing is."""
        version, now = self.version, self._now
        return None if version == after else json.dumps({"version": version, **now}).encode()

    # -- how far the trials are

    def _look_again(self) -> None:
        while not self._over.wait(self._pause()):
            self._look()

    def _pause(self) -> float:
        is_cheap = self._folder.files.local is not None or self._progress.is_driven
        return LOOK_EVERY_S if is_cheap else LOOK_WHILE_STILL_EVERY_S

    def _look(self) -> None:
        """Look once; a fault, of the storage or of a file that cannot be read, is shown, and tried again."""
        fault = ""
        try:
            is_new = self._progress.look()
            if is_new:
                self._news.set()
            if is_new or self._progress.is_fading or self.reports != self._now.get("report"):
                self._words = self._progress.in_words()
        except StorageError as error:
            fault = str(error)
        except Exception as error:  # a file of a newer raysweep, say; this thread must go on
            fault = f"what trains now cannot be told: {type(error).__name__}: {error}"
        self._tell(fault)

    def _tell(self, fault: str) -> None:
        known = {"name": self._folder.name, "path": self._folder.path, "report": self.reports}
        now = {**known, **self._words, "fault": fault or self._fault}
        if now != self._now:
            self._now = now
            self.version += 1

    # -- the report

    def _make_reports(self) -> None:
        every_s = REPORT_EVERY_S if self._folder.files.local is not None else REPORT_FROM_AFAR_EVERY_S
        while self._news.wait() and not self._over.is_set():
            self._news.clear()
            began = time.thread_time()
            self._make_report()
            took = time.thread_time() - began
            self._over.wait(max(every_s, took / REPORT_SHARE - took))
            if self._fault:
                self._over.wait(TRY_AGAIN_S)
                self._news.set()

    def _make_report(self) -> None:
        changed = self._progress.take_changed()
        try:
            result = self._read(changed)
            if result is not None:
                report = gather(result, self._named)
                self.page = as_html(report, draw(report), live=self.reports + 1).encode()
                self.reports, self._fault = self.reports + 1, ""
        except Exception as error:  # it is made again soon, and the rest of the page is right without it
            self._progress.note_changed(changed)
            self._fault = f"no report: {type(error).__name__}: {error}"

    def _read(self, changed: set[str] | None) -> SweepResult | None:
        """Read the records that may have changed; None before a run has begun."""
        seen = self._progress
        plan, is_driven, exported, tails = seen.resolved, seen.is_driven, seen.exported.running, seen.tails
        if plan is None:
            return None
        told = (exported, tails) if is_driven else ({}, {})
        result = put_together(self._folder, plan, is_driven, *told, changed=changed, lenient=True)
        status = {record.id: record.status for record in result.trials}
        seen.take_records(result.trials)
        # The driver tells that a trial ended before it commits that.
        seen.note_changed({id for id, tail in tails.items() if status.get(id) != tail.status})
        return result
