"""Slurm's queue, by its own commands on a login node: a job is submitted, found, stopped or followed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from raysweep.cluster.slurm.script import comment_of
from raysweep.errors import EXIT_CODES, ClusterError, Interrupted
from raysweep.terminal import say

ASK_EVERY_S = 5.0
"""How often Slurm is asked for a job's state; its controller serves all users of a site."""
READ_EVERY_S = 0.5
"""How often more of what a job prints is looked for."""
ANSWER_WITHIN_S = 60.0
LOST_FOR_S = 600.0
"""How long a controller that does not answer is asked again: it may be restarted under running jobs."""
STOP_WITHIN_S = 120.0
"""How long a job that is to stop may take to commit."""
HAS_ENDED = re.compile(
    r"BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|REVOKED|TIMEOUT"
)
FIELD = re.compile(r"(?:^| )(\w+(?:/\w+)?)=(.*?)(?= \w+(?:/\w+)?=|$)")
SUBMIT_AGAIN = "what is committed is safe: submit it again to go on"


@dataclass(frozen=True)
class Job:
    """What Slurm knows of a job."""

    id: str
    state: str  # PENDING, RUNNING and so on
    reason: str  # why it waits, or why it ended
    nodes: str  # as Slurm writes them: h[1-3]
    exit_code: int  # of its script, once that has ended
    output: Path  # where that prints to
    began: float  # seconds since the epoch; 0: not yet
    restarts: int  # how often it went back into the queue

    @property
    def has_ended(self) -> bool:
        """Whether it does not go on by itself."""
        return HAS_ENDED.match(self.state) is not None


class Queue:
    """Slurm, as seen from this machine.

    Raises:
        ClusterError: its commands are not here.
    """

    def __init__(self) -> None:
        if missing := [name for name in ("sbatch", "squeue", "scontrol", "scancel") if shutil.which(name) is None]:
            raise ClusterError(
                f"--slurm: {', '.join(missing)} cannot be found; call raysweep on a login node of the Slurm cluster, "
                "or write the job's script with --write and take it there"
            )

    def find(self, run_folder: str) -> Job | None:
        """Return the user's job that runs a sweep into this run folder, or is to, if there is one."""
        listed = self._ask("squeue", "--me", "--noheader", "--format=%i %k")
        for line in listed.splitlines():
            id, _, comment = line.partition(" ")
            if comment == comment_of(run_folder):
                return self.job(id)
        return None

    def submit(self, script: str) -> str:
        """Submit a script; return the job's id."""
        inside = {key for key in os.environ if key.startswith("SLURM_") and key not in ("SLURM_CONF", "SLURM_CLUSTERS")}
        outside = {key: value for key, value in os.environ.items() if key not in inside}  # of a job that we may be in
        return self._ask("sbatch", "--parsable", given=script, environment=outside).strip().partition(";")[0]

    def script_of(self, id: str) -> str:
        """Return the script that a job was submitted with."""
        return self._ask("scontrol", "write", "batch_script", id, "-")

    def job(self, id: str) -> Job:
        """Return what Slurm knows of a job.

        Raises:
            ClusterError: it knows no such job: an ended one is forgotten after some minutes.
        """
        said = self._ask("scontrol", "--oneliner", "show", "job", id)
        fields = dict(FIELD.findall(said.strip()))
        began = fields.get("StartTime", "Unknown")
        return Job(
            id,
            fields["JobState"],
            fields.get("Reason", ""),
            fields.get("NodeList", "").replace("(null)", ""),
            int(fields.get("ExitCode", "0:0").partition(":")[0]),
            Path(fields["StdOut"]),
            datetime.fromisoformat(began).timestamp() if re.match(r"\d{4}-", began) else 0.0,
            int(fields.get("Restarts", "0")),
        )

    def stop(self, job: Job) -> None:
        """Stop a job, and wait until it has ended: the trials of one that runs commit first."""
        if job.state == "RUNNING":
            self._ask("scancel", "--batch", "--signal=TERM", job.id)
        else:
            self._ask("scancel", job.id)
        end = time.monotonic() + STOP_WITHIN_S
        while not (now := self.job(job.id)).has_ended:
            if time.monotonic() > end:
                raise ClusterError(
                    f"job {job.id} does not end; {now.output} says what it does, `scancel {job.id}` kills it"
                )
            time.sleep(1)

    def follow(self, id: str, write: Callable[[str], object]) -> int:
        """Call `write` with what a job prints until it has ended; return the exit code of the sweep.

        Raises:
            ClusterError: Slurm or a kill ended the job, or Slurm does not answer.
            Interrupted: the user left (Ctrl-C); the job goes on.
        """
        try:
            return self._follow(id, write)
        except KeyboardInterrupt:
            raise Interrupted(
                f"left; job {id} goes on. Run the same command again to follow it, or "
                f"`scancel --batch --signal=TERM {id}` to stop it after its trials have committed"
            ) from None

    def _follow(self, id: str, write: Callable[[str], object]) -> int:
        job, asked_at, said = self.job(id), time.monotonic(), ""
        output = Output(job.output)
        while True:
            if (now := _in_words(job)) != said:
                output.pass_on(write)
                say(now, stderr=True)
                said = now
            output.pass_on(write)
            if job.has_ended:
                return _exit_code(job)
            time.sleep(READ_EVERY_S)
            if time.monotonic() - asked_at > ASK_EVERY_S:
                job, asked_at = self.job(id), time.monotonic()

    def _ask(self, *words: str, given: str | None = None, environment: dict[str, str] | None = None) -> str:
        """Run one of Slurm's commands; return what it prints.

        Raises:
            ClusterError: it refuses, or the controller does not answer for LOST_FOR_S.
        """
        end = time.monotonic() + (LOST_FOR_S if given is None else 0)
        while True:
            try:
                done = subprocess.run(
                    words, input=given, env=environment, capture_output=True, text=True, timeout=ANSWER_WITHIN_S
                )
            except subprocess.TimeoutExpired:
                done = subprocess.CompletedProcess(words, 1, "", "Unable to contact slurm controller: no answer")
            if done.returncode == 0:
                return done.stdout
            is_away = re.search(r"[Uu]nable to contact slurm controller|Socket timed out", done.stderr)
            if not is_away or time.monotonic() > end:
                raise ClusterError(f"`{' '.join(words)}`: {done.stderr.strip() or f'exit code {done.returncode}'}")
            time.sleep(ASK_EVERY_S)


class Output:
    """The file that a job prints to, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def pass_on(self, write: Callable[[str], object]) -> None:
        """Call `write` with the lines that have come since."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:  # the job has not begun
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        if whole:
            write(whole.decode(errors="replace"))


def _in_words(job: Job) -> str:
    if job.has_ended:
        return f"job {job.id} has ended: {job.state}"
    if job.state == "PENDING":
        again = f" again, for the {_ordinal(job.restarts + 1)} go" if job.restarts else ""
        return f"job {job.id} waits in the queue{again} ({job.reason})"
    return f"job {job.id} is {job.state} on {job.nodes or 'no node yet'}; output: {job.output}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _exit_code(job: Job) -> int:
    if job.state.startswith("CANCELLED"):
        return Interrupted.exit_code
    if job.state in ("COMPLETED", "FAILED") and job.exit_code in EXIT_CODES:
        return job.exit_code
    how = f"{job.state}, exit code {job.exit_code}" if job.exit_code else job.state
    raise ClusterError(f"job {job.id} was ended from outside ({how}; {job.output}); {SUBMIT_AGAIN}")
