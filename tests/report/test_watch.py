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
