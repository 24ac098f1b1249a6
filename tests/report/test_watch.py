"""A run followed by `raysweep watch`: what it serves, to whom, and how soon."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import curve, make_run

from raysweep.report.live import Follower, Server
from raysweep.results.run import read_results
from raysweep.store import Record, RunFolder
from raysweep.store.newest import Tail, remove_newest, write_newest
from raysweep.store.resolved import write_resolved
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials

MANY = """
name: many
base: {data: synthetic, epochs: 30, model: baseline_block}
random: {samples: 5000, lr: {log_uniform: [0.001, 1.0]}, optimizer.weight_decay: {log_uniform: [1.0e-6, 1.0e-2]}}
limits: {trials: 10000}
"""
SLOWER = 3
"""How much slower a machine that runs tests beside this one may be."""


def running_after_three(record: Record, place: int) -> Record:
    return record.with_(status="running", metrics=record.metrics[:3]) if place == 0 else record


class Watch:
    """A server of the run folder `runs/made`, in a thread, and requests to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = RunFolder(str(folder / "runs"), "made")
        self.follower = Follower(RunFolder(str(folder / "runs"), "made"))
        self.server = Server(self.follower)

    def get(self, path: str, token: str | None = None, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port)
        connection.request(method, f"/{self.server.token if token is None else token}/{path}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body

    def data(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.get("data.json")[2])
        return document

    def wait_for(self, condition: Any, seconds: float) -> dict[str, Any]:
        """The data once they fulfil the condition, within so many seconds."""
        end = time.monotonic() + seconds
        while not condition(data := self.data()):
            assert time.monotonic() < end, data
            time.sleep(0.02)
        return data


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    import threading

    watch = Watch(tmp_path)
    thread = threading.Thread(target=watch.server.serve_forever)
    with watch.follower, watch.server:
        thread.start()
        yield watch
        watch.server.shutdown()
        thread.join()


def test_an_epoch_is_served_within_two_seconds_and_the_end_of_the_run_too(watch: Watch, tmp_path: Path) -> None:
    assert watch.data()["state"] == "waiting"
    make_run(tmp_path, epochs=12, end=running_after_three)
    watch.wait_for(lambda data: data["state"] == "not running", 4)
    running = next(record for record in read_results(watch.folder).trials if record.epoch == 3)
    with watch.folder.lease():
        write_newest(watch.folder, {running.id: Tail.of("running", curve(12, 0.5, 0)[:5], 4)})
        data = watch.wait_for(lambda data: data["state"] == "running", 2)
        (row,) = data["running"]
        assert (row["id"], row["epoch"]) == (running.id, 5)
        assert row["now"].endswith(" %")
        watch.wait_for(lambda data: data["report"] > 0, 30)  # made beside that
        assert b"Trial by trial" in watch.get("")[2]
        remove_newest(watch.folder)
    watch.wait_for(lambda data: data["state"] == "not running" and not data["running"], 2)


def test_a_trial_that_ends_is_shown_with_its_last_epoch(watch: Watch, tmp_path: Path) -> None:
    make_run(tmp_path, epochs=12, end=running_after_three)
    (running,) = (record for record in read_results(watch.folder).trials if record.epoch == 3)
    with watch.folder.lease():
        write_newest(watch.folder, {running.id: Tail.of("running", curve(12, 0.5, 0)[:11], 4)})
        watch.wait_for(lambda data: [row["epoch"] for row in data["running"]] == [11], 4)
        write_newest(watch.folder, {running.id: Tail.of("finished", curve(12, 0.5, 0), 4)})
        data = watch.wait_for(lambda data: data["over"], 2)
        assert [(row["id"], row["status"], row["epoch"]) for row in data["over"]] == [(running.id, "finished", 12)]
        assert data["running"] == []


def test_of_five_thousand_trials_the_first_answer_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(MANY)
    sweep, folder = load_sweep(path), RunFolder(str(tmp_path / "runs"), "many")
    write_resolved(folder, sweep, path.read_bytes(), plan_trials(sweep), {"0123abcd"})
    began = time.monotonic()
    with Follower(RunFolder(str(tmp_path / "runs"), "many")) as follower:
        answer = json.loads(follower.answer(after=0) or b"{}")
        assert answer["said"] == "0 of 5,000 trials done: 5,000 planned"
        assert b'id="now"' in follower.page
    assert time.monotonic() - began < 1 * SLOWER


def test_nothing_is_served_without_the_token_or_under_another_host_or_twice(watch: Watch) -> None:
    for path, token, headers in [("", "", {}), ("data.json", "x" * 22, {}), ("", None, {"Host": "evil.example:80"})]:
        status, _, body = watch.get(path, token, **headers)
        assert (status, body) == (404, b"")
    assert watch.get("../../etc/passwd")[0] == 404
    assert watch.get("", method="POST")[0] == 501
    status, headers, body = watch.get("", Host="localhost:99")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert watch.get("", method="HEAD")[2] == b""
    version = watch.data()["version"]
    assert watch.get(f"data.json?after={version}")[0] == 304
