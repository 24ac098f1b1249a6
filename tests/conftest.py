"""Fixtures that several test files use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# One thread a process, theirs that the tests start included: where more run than there are cores, OpenMP's threads
# spin while they wait for each other, and a second of training becomes minutes. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}  # Ray reads them when it is imported

import pytest
from namespace_hosts import NEEDED, Hosts
from running import Command, ray_cluster

from raysweep import registry
from raysweep.loops import LOOPS


@pytest.fixture(autouse=True)
def _registers_for_itself(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test registers, through `--import` say, and the modules that it wrote are not there for the next."""
    for each in (LOOPS, *vars(registry).values()):
        if isinstance(each, registry.Registry):
            monkeypatch.setattr(each, "_registered", dict(each._registered))
    monkeypatch.setattr(registry, "_modes", dict(registry._modes))
    yield
    folder = tmp_path_factory.getbasetemp()
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the extra data, named by RAYSWEEP_SHARED; skips where unset, fails where set and not whole."""
    given = os.environ.get("RAYSWEEP_SHARED")
    if not given:
        pytest.skip("RAYSWEEP_SHARED names no folder of extra data (CONTRIBUTING.md)")
    folder = Path(given).resolve()
    for name in ("train.parquet", "val.parquet", "classes.txt"):
        path = folder / "data" / "tiny-imagenet-200" / name
        if not path.is_file():
            pytest.fail(f"RAYSWEEP_SHARED is set, but {path} is missing")
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two CPUs that the tests' commands share."""
    with ray_cluster(num_cpus=2) as address:
        yield address


@pytest.fixture(scope="session")
def four_cpus() -> Iterator[str]:
    """The address of a Ray cluster of four CPUs, for trials of several workers or several at once."""
    with ray_cluster(num_cpus=4) as address:
        yield address


@pytest.fixture
def command(cluster: str, tmp_path: Path) -> Command:
    """The raysweep command in a folder of its own."""
    return Command(cluster, tmp_path)


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
