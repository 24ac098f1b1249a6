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
LOST_FOR_S = 60.0
"""How long a controller that does not answer is asked again, unless a job is followed: that goes on without it."""
STOP_WITHIN_S = 120
"""How long a job that is to stop may take to commit; longer, if its time limit is announced earlier than that."""
HAS_ENDED = re.compile(
    r"BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|REVOKED|TIMEOUT"
)
ARE_FORGOTTEN = "Invalid job id"
"""What Slurm says of a job that has ended some minutes ago, or on some sites some seconds."""
IS_AWAY = re.compile(
    "[Uu]nable to contact slurm controller|Socket timed out|Zero Bytes were transmitted|Connection refused|"
    "standby mode|in backup mode"
)
INHERITED = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "no-kill": "NO_KILL", "requeue": "NO_REQUEUE"}
"""The variables by which sbatch takes options from the environment, where they are not named like the option."""
HELP = {"sbatch": "\n`sinfo --Format=partition,nodes,gres,cpusload` shows what there is to ask for"}
QUIET = ("None", "Priority", "BeginTime")
"""Reasons to wait that pass by themselves."""
STUCK = re.compile(r"PartitionConfig|QOS|Assoc|Held|BadConstraints|InvalidAccount|InvalidQOS|PartitionNodeLimit")
"""Reasons for which a job may wait for ever."""
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
    signal: int  # by which that was killed, if it was
    output: Path  # where that prints to
    began: float  # seconds since the epoch; 0: not yet
    restarts: int  # how often it went back into the queue

    @property
    def has_ended(self) -> bool:
        """Whether it does not go on by itself."""
        return HAS_ENDED.match(self.state) is not None


class JobForgotten(ClusterError):
    """Slurm no longer knows a job that has ended."""


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
        options = re.findall(r"^#SBATCH --([\w-]+)", script, re.MULTILINE)
        set_here = {f"SBATCH_{INHERITED.get(each, each).replace('-', '_').upper()}" for each in options}
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in set_here  # sbatch would prefer it to the script
            and (not key.startswith("SLURM_") or key in ("SLURM_CONF", "SLURM_CLUSTERS"))  # of a job that we are in
        }
        return self._ask("sbatch", "--parsable", given=script, environment=environment).strip().partition(";")[0]

    def script_of(self, id: str) -> str:
        """Return the script that a job was submitted with."""
        return self._ask("scontrol", "write", "batch_script", id, "-")

    def job(self, id: str) -> Job:
        """Return what Slurm knows of a job.

        Raises:
            JobForgotten: it knows no such job.
        """
        said = self._ask("scontrol", "--oneliner", "show", "job", id)
        fields = dict(FIELD.findall(said.strip()))
        began = fields.get("StartTime", "Unknown")
        code, _, signal = fields.get("ExitCode", "0:0").partition(":")
        return Job(
            id,
            fields["JobState"],
            fields.get("Reason", ""),
            fields.get("NodeList", "").replace("(null)", ""),
            int(code),
            int(signal),
            Path(fields["StdOut"]),
            datetime.fromisoformat(began).timestamp() if re.match(r"\d{4}-", began) else 0.0,
            int(fields.get("Restarts", "0")),
        )

    def stop(self, job: Job, within_s: float = STOP_WITHIN_S) -> None:
        """Stop a job, and wait until it has ended: the trials of one that runs commit first.

        Raises:
            ClusterError: it has not ended `within_s`.
            Interrupted: the user left (Ctrl-C) meanwhile.
        """
        if job.state == "RUNNING":
            self._ask("scancel", "--batch", "--signal=TERM", job.id)
        else:
            self._ask("scancel", job.id)
        self.wait_for_end(job, within_s)

    def wait_for_end(self, job: Job, within_s: float) -> None:
        """Wait until a job that was told to end has; raise as `stop` does."""
        end = time.monotonic() + within_s
        try:
            while not self.job(job.id).has_ended:
                if time.monotonic() > end:
                    raise ClusterError(
                        f"job {job.id} has not ended within {within_s:.0f} s; {job.output} says what it does. "
                        f"Try again when it has, or `scancel {job.id}`, which kills it"
                    )
                time.sleep(1)
        except JobForgotten:
            return
        except KeyboardInterrupt:
            raise Interrupted(f"left; job {job.id} was told to stop, and nothing was submitted in its place") from None

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
                f"left; job {id} goes on. `submit` without --replace follows it again. To stop it: `scancel {id}` "
                f"while it waits, `scancel --batch --signal=TERM {id}` while it runs, which has its trials commit first"
            ) from None

    def _follow(self, id: str, write: Callable[[str], object]) -> int:
        job, asked_at, said = self.job(id), time.monotonic(), ""
        output, is_away = Output(job.output), False
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
                asked_at = time.monotonic()
                try:
                    job = self.job(id)
                except JobForgotten:
                    output.pass_on(write)
                    raise
                except ClusterError as error:
                    if not is_away:
                        say(f"Slurm does not answer; job {id} goes on ({error})", stderr=True)
                    is_away = True
                else:
                    is_away = False

    def _ask(self, *words: str, given: str | None = None, environment: dict[str, str] | None = None) -> str:
        """Run one of Slurm's commands; return what it prints.

        Raises:
            JobForgotten: it knows no such job.
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
            if ARE_FORGOTTEN in done.stderr:
                raise JobForgotten(
                    "the job has ended, and Slurm has forgotten how; `raysweep status` says how far the sweep is"
                )
            if not IS_AWAY.search(done.stderr) or time.monotonic() > end:
                said = re.sub(rf"^{words[0]}: (error: )?", "", done.stderr.strip(), flags=re.MULTILINE)
                said = said or f"exit code {done.returncode}"
                raise ClusterError(f"Slurm refuses `{' '.join(words)}`: {said}{HELP.get(words[0], '')}")
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
        on = "" if job.state == "COMPLETED" else "; what is committed is safe, and submit goes on from there"
        return f"job {job.id} has ended: {job.state}{on}"
    if job.state == "PENDING":
        again = f" again, for run {job.restarts + 1}" if job.restarts else ""
        why = f" ({job.reason})" if job.reason not in QUIET else ""
        stuck = f": as it is, it may never start; `scontrol show job {job.id}`" if STUCK.search(job.reason) else ""
        return f"job {job.id} waits in the queue{again}{why}{stuck}"
    return f"job {job.id} is {job.state} on {job.nodes or 'no node yet'}; output: {job.output}"


def _exit_code(job: Job) -> int:
    if job.state.startswith("CANCELLED"):
        return Interrupted.exit_code
    if job.state == "COMPLETED" or (job.state == "FAILED" and job.exit_code in EXIT_CODES[1:]):
        return job.exit_code
    ended_by = {"exit code": job.exit_code, "signal": job.signal}
    reason = [job.reason] if job.reason != "None" else []
    how = ", ".join([job.state, *reason, *(f"{what} {number}" for what, number in ended_by.items() if number)])
    if job.reason == "JobLaunchFailure":
        raise ClusterError(
            f"job {job.id} could not begin ({how}): the nodes must see {job.output.parent}; submit from a folder "
            "that they share with this machine"
        )
    raise ClusterError(f"job {job.id} was ended from outside ({how}; {job.output}); {SUBMIT_AGAIN}")
