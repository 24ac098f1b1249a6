"""Hosts and a cluster on them, for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hosts import Hosts

NEEDED = ("/usr/sbin/sshd", "ssh", "rsync", "ip", "unshare", "nsenter", "ss")


@pytest.fixture(scope="session")
def netns(shared: Path) -> Path:
    """The script that makes the hosts; skips with the reason where this machine cannot."""
    if os.getuid() != 0:
        pytest.skip("namespaces need root")
    missing = [command for command in NEEDED if shutil.which(command) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (openssh-server, openssh-client, rsync, iproute2)")
    script = shared / "netns" / "netns_cluster.sh"
    if not script.is_file():
        pytest.skip(f"{script} is not there")
    return script


@pytest.fixture
def make_hosts(netns: Path) -> Iterator[Callable[..., Hosts]]:
    """Makes hosts that are gone after the test, whatever happens."""
    made: list[Hosts] = []

    def make(count: int, first: int = 11, environment: str = "") -> Hosts:
        made.append(Hosts(netns, count, first, environment))
        return made[-1]

    yield make
    for hosts in made:
        hosts.close()
