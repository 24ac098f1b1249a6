"""A job's server that is slow to answer, gone, or new: what the follower says. The server is played here."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from running import wait_for

from raysweep.cluster import jobs
from raysweep.cluster.jobs import JobServer, OwnLines
from raysweep.errors import ClusterError

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # Ray's client gives it

JOB = "raysubmit_1"
VERSION = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": "s"}
NO_AGENT = "No available agent to submit job, please try again later."


class Head:
    """Answers for one job, which prints `text`; `status` None: it knows no job."""

    def __init__(self, status: str | None, text: str = "", is_silent: bool = False, **more: Any) -> None:
        self.status, self.text, self.is_silent, self.more = status, text, is_silent, more

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/version", self.version)
        app.router.add_get("/api/jobs/{job}", self.info)
        app.router.add_get("/api/jobs/{job}/logs/tail", self.tail)
        app.router.add_post("/api/jobs/", self.submit)
        app.router.add_get("/api/jobs/", self.list)
        app.router.add_route("*", "/api/packages/{rest:.*}", self.package)
        return app

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response(VERSION)

    async def package(self, request: web.Request) -> web.Response:
        return web.Response()

    async def submit(self, request: web.Request) -> web.Response:
        return web.Response(text=NO_AGENT, status=500)

    async def list(self, request: web.Request) -> web.Response:
        about = {"type": "DRIVER", "job_id": "01000000", "entrypoint": "raysweep run", "status": self.status}
        return web.json_response([{**about, "metadata": {"raysweep": "a", "raysweep_run_folder": "s3://b/a"}}])

    async def info(self, request: web.Request) -> web.Response:
        if self.is_silent:
            await asyncio.sleep(60)
        if self.status is None:
            return web.Response(text=f"Job {JOB} does not exist", status=404)
        about = {"type": "SUBMISSION", "submission_id": JOB, "entrypoint": "raysweep", "status": self.status}
        return web.json_response({**about, **self.more})

    async def tail(self, request: web.Request) -> web.StreamResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        await answer.send_str(self.text)
        if self.status == "RUNNING":
            await asyncio.sleep(60)
        await answer.close()
        return answer


@contextmanager
def serving(head: Head, port: int) -> Iterator[str]:
    """Let a head answer at a port of this machine; the connections break at the end."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(head.app(), shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ASK_EVERY_S", 0.2)
    monkeypatch.setattr(jobs, "ANSWER_WITHIN_S", 0.5)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)


@pytest.mark.usefixtures("impatient")
def test_a_sweep_that_a_process_runs_without_a_job_is_not_followed_as_one(port: int) -> None:
    with serving(Head("RUNNING"), port) as address:
        server = JobServer(address)
        with pytest.raises(ClusterError, match="a is run by a process that is connected to the cluster itself"):
            server.find_running({"raysweep": "a", "raysweep_run_folder": "s3://b/a"})
        assert server.find_running({"raysweep": "another"}) is None


@pytest.mark.usefixtures("impatient")
def test_a_job_whose_environment_cannot_be_made_ends_with_what_pip_said(port: int) -> None:
    said = (
        "runtime_env setup failed: Traceback ...\n    Looking in indexes\n    ERROR: No matching distribution for x==1"
    )
    head = Head("FAILED", message=said, error_type="RUNTIME_ENV_SETUP_FAILURE")
    with serving(head, port) as address, pytest.raises(ClusterError) as raised:
        JobServer(address).follow(JOB, print)
    assert "the head could not make its environment: No matching distribution for x==1; all that was" in str(
        raised.value
    )


def follow_on_thread(address: str) -> tuple[list[str], Callable[[], Any]]:
    """Follow the job; return what it prints, and a function that waits for the end and returns it."""
    lines: list[str] = []
    ends: list[Any] = []

    def follow() -> None:
        try:
            ends.append(JobServer(address).follow(JOB, lines.append))
        except ClusterError as error:
            ends.append(error)

    thread = threading.Thread(target=follow)
    thread.start()

    def end() -> Any:
        thread.join(30)
        return ends[0]

    return lines, end


@pytest.mark.usefixtures("impatient")
def test_the_follower_says_at_once_that_the_head_is_gone_and_that_it_answers_again_and_writes_nothing_twice(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(Head("RUNNING", "one\n"), port) as address:
        lines, end = follow_on_thread(address)
        wait_for(lambda: lines, 20)
    said = ""
    began = time.monotonic()
    while "contact is lost" not in said:
        assert time.monotonic() - began < 5, said
        said += capfd.readouterr().err
    assert f"{address}: contact is lost (" in said
    assert f"job {JOB} goes on if the cluster does; trying again for 10 minutes" in said
    with serving(Head("SUCCEEDED", "one\ntwo\n"), port):
        assert end() == 0
    assert capfd.readouterr().err == f"{address}: answers again\n"
    assert "".join(lines) == "one\ntwo\n"


@pytest.mark.usefixtures("impatient")
def test_a_head_behind_a_tunnel_that_stays_open_but_never_answers_is_noticed_too(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    head = Head("RUNNING", "one\n")
    with serving(head, port) as address:
        lines, end = follow_on_thread(address)
        wait_for(lambda: lines, 20)
        head.is_silent = True
        wait_for(lambda: "contact is lost" in capfd.readouterr().err, 10)
        head.is_silent, head.status = False, "SUCCEEDED"
        assert end() == 0


@pytest.mark.usefixtures("impatient")
def test_a_job_that_a_new_head_does_not_know_is_lost_and_is_to_be_submitted_again(port: int) -> None:
    with serving(Head("RUNNING", "one\n"), port) as address:
        lines, end = follow_on_thread(address)
        wait_for(lambda: lines, 20)
    with serving(Head(None), port):
        error = end()
    assert isinstance(error, ClusterError)
    assert error.exit_code == 2
    assert f"the cluster does not know job {JOB}" in str(error)
    assert "submit it again to go on" in str(error)


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_was_killed_is_told_without_its_log_and_with_what_to_do(port: int) -> None:
    message = "Job entrypoint command failed with exit code 137, last available logs (truncated to 20,000 chars):\nlog"
    head = Head("FAILED", "one\n", message=message, driver_exit_code=137)
    with serving(head, port) as address, pytest.raises(ClusterError) as raised:
        JobServer(address).follow(JOB, print)
    assert str(raised.value) == (
        f"job {JOB} was ended from outside (Job entrypoint command failed with exit code 137); "
        "what is committed is safe: submit it again to go on"
    )


@pytest.mark.usefixtures("impatient")
def test_a_dashboard_without_an_agent_refuses_a_job_in_one_sentence(port: int, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("name: a\n")
    with serving(Head(None), port) as address, pytest.raises(ClusterError) as raised:
        JobServer(address).submit(["raysweep"], tmp_path, {})
    assert "does not take the job: " in str(raised.value)
    assert "No available agent to submit job" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_of_what_a_job_prints_rays_own_lines_and_dumps_are_left_out() -> None:
    written: list[str] = []
    lines = OwnLines(written.append)
    printed = (
        "2026-11-28 22:36:09,649\tINFO job_manager.py:531 -- Runtime env is setting up.\n"
        "Running entrypoint for job raysubmit_1: python -m raysweep run\n"
        "small: 4 trials\n"
        "[2026-11-28 22:36:09,649 E 123 456] core_worker.cc:1234: it is gone\n"
        "[2026-11-28 22:36:09,650 E 123 456] logging.cc:540: *** SIGTERM received at time=1 on cpu 0 ***\n"
        "*** SIGTERM received at time=1780000000 on cpu 0 ***\n"
        "PC: @     0x7f5d7b1e8e2e  (unknown)  epoll_wait\n"
        "    @     0x7f5d7b12b050  (unknown)  (unknown)\n"
        "*** a line of the user's ***\n"
        "the end"
    )
    for at in range(0, len(printed), 7):
        lines.take(printed[at : at + 7])
    lines.end()
    assert "".join(written) == "small: 4 trials\n*** a line of the user's ***\nthe end"
