"""A client of Ray's job server, on the head beside the dashboard: submits a command as a job and follows it.

A job belongs to the cluster: it goes on when whoever submitted it leaves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import ray.exceptions
import requests
from ray.job_submission import JobStatus, JobSubmissionClient

from raysweep.cluster.places import is_url
from raysweep.errors import ClusterError, Interrupted, TokenError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""The address at which `ray dashboard cluster.yaml` puts the head's dashboard on the laptop."""
LOST_FOR_S = 600.0
"""How long the client keeps trying a server that it cannot reach."""
STOP_WITHIN_S = 60
"""How long `ray job stop` gives a run to commit; Ray's default of 3 s is too short."""


class JobServer:
    """The job server at a dashboard's URL: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS or DEFAULT_ADDRESS if none is given.

    Raises:
        ClusterError: nothing answers there, or it refuses our token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = _url(address).rstrip("/")
        for name in ("ray.dashboard", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log uploads and closed connections
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # Ray prefers it to its argument
        try:
            self.client = JobSubmissionClient(self.address)
        except ray.exceptions.AuthenticationError as error:
            raise TokenError(self.address, str(error)) from error
        except (ConnectionError, requests.RequestException, RuntimeError) as error:
            raise ClusterError(
                f"--address {self.address}: no Ray job server answers there: {error} "
                "Give the dashboard's URL, through a tunnel: `ray dashboard cluster.yaml` keeps one open. "
                "`ray up` succeeds even where Ray did not start: see `ray exec cluster.yaml 'ray status'`"
            ) from error

    def nodes(self) -> list[dict[str, Any]]:
        """Return the live nodes, as Ray's state API describes them (`node_ip`, `is_head_node`, `resources_total`)."""
        answer = self.client._do_request("GET", "/api/v0/nodes?limit=10000&detail=1")
        answer.raise_for_status()
        nodes: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
        return [node for node in nodes if node["state"] == "ALIVE"]

    def find_running(self, metadata: Mapping[str, str]) -> str | None:
        """Return the id of a job that has not ended and has all of this metadata, if there is one."""
        for job in self.client.list_jobs():
            if not job.status.is_terminal() and metadata.items() <= (job.metadata or {}).items():
                return str(job.submission_id)
        return None

    def submit(self, words: Sequence[str], folder: Path, metadata: Mapping[str, str]) -> str:
        """Run a command on the head, in a copy of the folder, which every node gets; return the job's id."""
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WITHIN_S), "PYTHONUNBUFFERED": "1"}
        environment = {"working_dir": str(folder), "env_vars": variables}
        command = shlex.join(words)
        return str(self.client.submit_job(entrypoint=command, runtime_env=environment, metadata=dict(metadata)))

    def follow(self, job: str, write: Callable[[str], object]) -> int:
        """Call `write` with what a job prints until it ends; return its exit code.

        A broken connection is made again, and nothing is written twice.

        Raises:
            ClusterError: the server cannot be reached for LOST_FOR_S, or the job ended without an exit code.
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
        written, lost_at = 0, None
        while True:
            read = 0
            try:
                async for text in self.client.tail_job_logs(job):  # from the beginning, each time
                    write(text[max(0, written - read) :])
                    read += len(text)
                    written = max(written, read)
                info = self.client.get_job_info(job)
                lost_at = None
            except (RuntimeError, OSError, aiohttp.ClientError) as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > LOST_FOR_S:
                    raise ClusterError(
                        f"{self.address}: could not be reached for {LOST_FOR_S:.0f} s ({error}); job {job} goes on "
                        "if the cluster does: run the same command again to follow it"
                    ) from error
            else:
                if info.status.is_terminal():
                    return self._exit_code(info)
            await asyncio.sleep(1)

    def _exit_code(self, info: Any) -> int:
        if info.status == JobStatus.SUCCEEDED:
            return 0
        if info.status == JobStatus.STOPPED:
            return Interrupted.exit_code
        if info.driver_exit_code is not None and info.driver_exit_code >= 0:
            return int(info.driver_exit_code)
        committed = "what is committed is safe: submit it again to go on"
        raise ClusterError(f"job {info.submission_id} failed: {info.message}; {committed}")


def _url(address: str | None) -> str:
    set_here = (os.environ.get(name, "") for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    chosen = address or next(filter(is_url, set_here), DEFAULT_ADDRESS)
    if not is_url(chosen):
        raise ClusterError(f"--address {chosen}: must be the dashboard's URL, such as {DEFAULT_ADDRESS}")
    return chosen
