"""A client of Ray's job server, on the head beside the dashboard: submits a command as a job and follows it.

A job belongs to the cluster: it goes on when whoever submitted it leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
import shlex
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import ray.exceptions
import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from raysweep.cluster.environment import SETUP_LOG, why_not_made
from raysweep.cluster.places import is_url
from raysweep.cluster.token import token_place
from raysweep.errors import EXIT_CODES, ClusterError, Interrupted, TokenError
from raysweep.terminal import say

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""The address at which `ray dashboard cluster.yaml` puts the head's dashboard on the laptop."""
LOST_FOR_S = 600.0
"""How long the client keeps trying a server that it cannot reach."""
ASK_EVERY_S = 5.0
"""How often the client asks whether the server is still there, while the job prints nothing."""
ANSWER_WITHIN_S = 5.0
STOP_WITHIN_S = 60
"""How long `ray job stop` gives a run to commit; Ray's default of 3 s is too short."""
SUBMIT_AGAIN = "what is committed is safe: submit it again to go on"
SETUP_FAILED = "RUNTIME_ENV_SETUP_FAILURE"
FAULTS = (RuntimeError, OSError, aiohttp.ClientError)
"""What a request raises that gets no proper answer; those of `requests` are OSErrors."""
RAYS_OWN = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+[A-Z]+ \S+\.py:\d+ -- "  # Python
    r"|Running entrypoint for job raysubmit_"
    r"|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z] \d+ \d+\]"  # C++
    r"|(?:PC: |\s+)@\s+(?:0x)?[0-9a-f]{6,}|\*\*\* SIG[A-Z]+ "  # what C++ prints when it dies
)
"""The beginnings of lines that Ray prints among a job's own."""


class JobServer:
    """The job server at a dashboard's URL: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS or DEFAULT_ADDRESS if none is given.

    Raises:
        ClusterError: nothing answers there, or it refuses our token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = _url(address).rstrip("/")
        for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env"):
            logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)  # they log uploads and closed connections
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # Ray prefers it to its argument
        try:
            self.client = JobSubmissionClient(self.address)
        except ray.exceptions.AuthenticationError as error:
            raise TokenError(self.address, str(error), token_place()) from error
        except (ConnectionError, requests.RequestException, RuntimeError) as error:
            raise ClusterError(
                f"--address {self.address}: no Ray job server answers there: {error} "
                "Give the dashboard's URL, through a tunnel: `ray dashboard cluster.yaml` keeps one open. "
                "`ray up` succeeds even where Ray did not start: see `ray exec cluster.yaml 'ray status'`"
            ) from error

    def nodes(self) -> list[dict[str, Any]]:
        """Return the live nodes, as Ray's state API describes them (`node_ip`, `is_head_node`, `resources_total`)."""
        with self._asking("does not name its nodes"):
            answer = self.client._do_request("GET", "/api/v0/nodes?limit=10000&detail=1")
            answer.raise_for_status()
            nodes: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
        return [node for node in nodes if node["state"] == "ALIVE"]

    def find_running(self, metadata: Mapping[str, str]) -> tuple[str, dict[str, str]] | None:
        """Return the id and all metadata of a job that has not ended and has this metadata, if there is one."""
        with self._asking("does not name its jobs"):
            jobs = self.client.list_jobs()
        for job in jobs:
            if not job.status.is_terminal() and metadata.items() <= (job.metadata or {}).items():
                if job.submission_id is None:
                    raise ClusterError(
                        f"{metadata['raysweep']} is run by a process that is connected to the cluster itself, not by "
                        "a job: see `raysweep status`, or stop that process"
                    )
                return str(job.submission_id), dict(job.metadata or {})
        return None

    def submit(
        self,
        words: Sequence[str],
        folder: Path,
        metadata: Mapping[str, str],
        environment: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Run a command on the head, in a copy of the folder, which every node gets; return the job's id.

        `environment` has more fields of Ray's runtime environment: `pip` or `conda`, which each node makes for the job.
        """
        variables = {
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WITHIN_S),
            "RAY_BACKEND_LOG_LEVEL": "fatal",
            "PYTHONUNBUFFERED": "1",
        }
        whole = {"working_dir": str(folder), "env_vars": variables, **environment}
        command = shlex.join(words)
        # Ray deletes a folder's package after its last job, also while the next job of the same content counts on it.
        (folder / ".submission").write_text(uuid.uuid4().hex)
        with self._asking("does not take the job"):
            return str(self.client.submit_job(entrypoint=command, runtime_env=whole, metadata=dict(metadata)))

    def stop(self, job: str) -> None:
        """Stop a job, and wait until it has ended: a run commits first."""
        end = time.monotonic() + 2 * STOP_WITHIN_S
        with self._asking(f"does not stop job {job}"):
            self.client.stop_job(job)
            while not self.client.get_job_status(job).is_terminal():
                if time.monotonic() > end:
                    raise ClusterError(f"job {job} does not end; see its log in the dashboard")
                time.sleep(0.5)

    @contextlib.contextmanager
    def _asking(self, refusal: str) -> Iterator[None]:
        """Turn what a request raises into a ClusterError, which says in words what the server did not do."""
        try:
            yield
        except (*FAULTS, ValueError) as error:
            raise ClusterError(
                f"{self.address}: the job server {refusal}: {_gist(error)}; see `ray exec cluster.yaml 'ray status'`, "
                "and dashboard_agent.log in /tmp/ray/session_latest/logs on the head"
            ) from error

    def follow(self, job: str, write: Callable[[str], object]) -> int:
        """Call `write` with what a job prints until it ends; return its exit code.

        A broken connection is said and made again, and nothing is written twice. Ray's own lines are left out.

        Raises:
            ClusterError: the server cannot be reached for LOST_FOR_S or has lost the job, or the job was killed.
            Interrupted: the user left (Ctrl-C); the job goes on.
        """
        try:
            return asyncio.run(self._follow(job, write))
        except KeyboardInterrupt:
            raise Interrupted(
                f"left; job {job} goes on. Run the same command again to follow it, or "
                f"`ray job stop {job} --address {self.address}` to stop it"
            ) from None

    async def _follow(self, job: str, write: Callable[[str], object]) -> int:
        own, contact, written = OwnLines(write), Contact(self.address, job), 0
        while True:
            read = 0
            try:
                async with contextlib.aclosing(self._tail(job)) as texts:  # from the beginning, each time
                    async for text in texts:
                        contact.is_there()
                        own.take(text[max(0, written - read) :])
                        read += len(text)
                        written = max(written, read)
                info = await self._info(job)
            except FAULTS as error:
                contact.is_lost(error)
            else:
                contact.is_there()
                if info.status.is_terminal():
                    own.end()
                    return self._exit_code(info)
            await asyncio.sleep(1)

    async def _tail(self, job: str) -> AsyncGenerator[str, None]:
        """Yield what a job prints from its beginning until the connection ends.

        While the job is silent the server is asked for a sign of life: a connection through a tunnel outlives the head.
        """
        await self._info(job)
        printed: Any = self.client.tail_job_logs(job)
        async with contextlib.aclosing(printed) as chunks:
            while True:
                chunk = asyncio.ensure_future(anext(chunks, None))
                try:
                    while not (await asyncio.wait({chunk}, timeout=ASK_EVERY_S))[0]:
                        await self._info(job)
                finally:
                    if not chunk.done():
                        chunk.cancel()
                        await asyncio.gather(chunk, return_exceptions=True)
                if (text := chunk.result()) is None:
                    return
                yield text

    async def _info(self, job: str) -> Any:
        """Return what the server knows of a job.

        Raises:
            ClusterError: the server answers, and knows no such job.
        """
        ask = functools.partial(self.client._do_request, "GET", f"/api/jobs/{job}", timeout=ANSWER_WITHIN_S)
        answer = await asyncio.to_thread(ask)
        if answer.status_code == requests.codes.not_found:
            raise ClusterError(
                f"{self.address}: the cluster does not know job {job}: its head has begun anew, and the job is lost; "
                f"{SUBMIT_AGAIN}"
            )
        answer.raise_for_status()
        return JobDetails(**answer.json())

    def _exit_code(self, info: Any) -> int:
        if info.status == JobStatus.SUCCEEDED:
            return 0
        if info.status == JobStatus.STOPPED:
            return Interrupted.exit_code
        if info.driver_exit_code in EXIT_CODES:
            return int(info.driver_exit_code)
        if info.error_type == SETUP_FAILED:
            raise ClusterError(
                f"job {info.submission_id}: the head could not make its environment: {why_not_made(info.message)}; "
                f"all that was said is in {SETUP_LOG} there"
            )
        how = (info.message or "").partition(", last available logs")[0].strip() or "no reason given"
        raise ClusterError(f"job {info.submission_id} was ended from outside ({how}); {SUBMIT_AGAIN}")


class Contact:
    """Says when the server that has a job stops answering, and when it answers again."""

    def __init__(self, address: str, job: str) -> None:
        self._address, self._job = address, job
        self._lost_at: float | None = None

    def is_there(self) -> None:
        """Note that the server has answered."""
        if self._lost_at is not None:
            self._lost_at = None
            say(f"{self._address}: answers again", stderr=True)

    def is_lost(self, error: Exception) -> None:
        """Note that the server has not; raise ClusterError after LOST_FOR_S."""
        now, goes_on = time.monotonic(), f"job {self._job} goes on if the cluster does"
        if self._lost_at is None:
            self._lost_at = now
            tries = f"trying again for {LOST_FOR_S / 60:.0f} minutes"
            say(f"{self._address}: contact is lost ({_gist(error)}); {goes_on}; {tries}", stderr=True)
        elif now - self._lost_at > LOST_FOR_S:
            raise ClusterError(
                f"{self._address}: could not be reached for {LOST_FOR_S:.0f} s ({_gist(error)}); {goes_on}: "
                "run the same command again to follow it"
            ) from error


class OwnLines:
    """Writes a job's lines without those of Ray's own log and of the dumps of its C++ part."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write, self._rest = write, ""

    def take(self, text: str) -> None:
        """Take more of what the job prints; write the lines that are whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        if own := "".join(f"{line}\n" for line in lines if not RAYS_OWN.match(line)):
            self._write(own)

    def end(self) -> None:
        """Write what is left without the end of its line."""
        if self._rest and not RAYS_OWN.match(self._rest):
            self._write(self._rest)


def _gist(error: Exception) -> str:
    """Return the last line of an exception's text, which says what went wrong, without traceback."""
    lines = [line.strip(" .") for line in str(error).replace("\\n", "\n").splitlines() if line.strip(" .")]
    return lines[-1] if lines else type(error).__name__


def _url(address: str | None) -> str:
    set_here = (os.environ.get(name, "") for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    chosen = address or next(filter(is_url, set_here), DEFAULT_ADDRESS)
    if not is_url(chosen):
        raise ClusterError(f"--address {chosen}: must be the dashboard's URL, such as {DEFAULT_ADDRESS}")
    return chosen
