"""Hosts out of Linux namespaces (shared/netns), and Ray's cluster launcher on them.

Each has its own address, sshd, processes and /tmp; `ops` plays the user's laptop. `/tmp/shared` is one folder in all of
them, the stand-in for a bucket. Nothing here stops a process outside of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
SUBNET = "10.77.0"  # which mock_aws.py gives its machines, too; nothing outside the namespaces sees it
DASHBOARD = "http://127.0.0.1:8265"
NEEDED = ("/usr/sbin/sshd", "ssh", "rsync", "ip", "unshare", "nsenter", "ss")


class Hosts:
    """`count` hosts, h1 and so on, and `ops`; `close` removes all traces.

    Args:
        script: netns_cluster.sh.
        count: beside `ops`.
        first: the last part of h1's address.
        environment: shell lines for each host's ~/.bashrc.
    """

    def __init__(self, script: Path, count: int, first: int = 11, environment: str = "") -> None:
        self.script, self.first = script, first
        self.folder = Path(tempfile.mkdtemp(prefix="raysweep-hosts-"))
        lines = self.folder / "environment"
        lines.write_text(f"export RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1\n{environment}")
        self._variables = {
            **os.environ,
            "NETNS_DIR": str(self.folder / "state"),
            "NETNS_PREFIX": f"rt{os.getpid() % 100000}",
            "NETNS_SUBNET": SUBNET,
            "NETNS_FIRST": str(first),
            "NETNS_PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NETNS_SHARE": f"{CHECKOUT}:{script.parents[1]}",
            "NETNS_ENV": str(lines),
        }
        self.shared = self.folder / "state" / "shared"
        self._background: list[subprocess.Popen[str]] = []
        try:
            self.control("up", str(count))
        except BaseException:
            self.close()
            raise

    def address(self, host: str) -> str:
        return f"{SUBNET}.{2 if host == 'ops' else self.first + int(host[1:]) - 1}"

    def control(self, *words: str) -> str:
        """Run netns_cluster.sh: up, kill, start, unplug, plug, down."""
        done = subprocess.run(
            ["bash", str(self.script), *words], env=self._variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *words: str | Path, host: str = "ops", env: Mapping[str, str] | None = None) -> Any:
        """Start a command in a host, in the checkout; its output is one stream of text."""
        settings = [f"{key}={value}" for key, value in {"RAY_UP_enable_autoscaler_v2": "0", **(env or {})}.items()]
        inside = ["env", "-C", str(CHECKOUT), *settings, *map(str, words)]
        process = subprocess.Popen(
            ["bash", str(self.script), "exec", host, *inside],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._background.append(process)
        return process

    def run(
        self,
        *words: str | Path,
        host: str = "ops",
        code: int | None = 0,
        timeout: float = 240,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command in a host; return what it printed. `code`: its exit code must be this one."""
        process = self.start(*words, host=host, env=env)
        out, _ = process.communicate(timeout=timeout)
        assert code is None or process.returncode == code, f"{words}: exit {process.returncode}\n{out}"
        return str(out)

    def close(self) -> None:
        for process in self._background:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
            if process.stdout:
                process.stdout.close()
        self.control("down")
        shutil.rmtree(self.folder)


@contextmanager
def following(process: Any) -> Iterator[list[str]]:
    """Collect a process's lines in the background, so that it never waits for a reader."""
    lines: list[str] = []

    def read() -> None:
        for line in process.stdout:
            lines.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lines
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        reader.join(30)


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a true answer, and return it."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.25)
    return answer
