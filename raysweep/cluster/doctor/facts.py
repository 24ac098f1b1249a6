"""Facts of one node, gathered by a task there, without torch, which would cost seconds and GPU memory.

What is asked of other packages is found out in processes of their own, which a package cannot harm.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import resource
import runpy
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, version
from pathlib import Path

from packaging.utils import canonicalize_name
from ray._private.authentication.authentication_utils import is_token_auth_enabled

from raysweep.cluster.hosts import Host
from raysweep.cluster.token import token_file

WITHIN_S = 90
"""How long a process may take that counts GPUs or imports packages."""
GPUS_SEEN = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
FAULT_OF_IMPORT = """
import importlib, json, sys
try:
    importlib.import_module(sys.argv[1])
    fault = ""
except BaseException as error:
    fault = f"{type(error).__name__}: {error}"
print(json.dumps(fault))
"""


@dataclass(frozen=True)
class NodeFacts:
    """Facts of one node."""

    host: str
    address: str
    is_head: bool
    cpus: float
    """CPUs that Ray schedules."""
    gpus: float
    """GPUs that Ray schedules."""
    gpus_seen: int | None
    """GPUs that torch sees; None where Ray schedules none."""
    versions: Mapping[str, str]
    """Versions of Python, Ray, torch, CUDA (which torch was built for) and raysweep; empty where not installed."""
    has_token_mode: bool
    """Whether Ray asks for an authentication token."""
    token_file_mode: int | None
    """Permission bits of the token's file; None where there is no file."""
    shm_bytes: int
    object_store_bytes: int
    disk_free_bytes: int
    """Free bytes where Ray keeps its session: logs, and objects that do not fit into memory."""
    disk_free_share: float
    open_files: int
    """How many files a process may open."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """The version of each installed package; empty for a folder that is one without metadata."""
    import_faults: Mapping[str, str] = field(default_factory=dict)
    """Why a module of a package that was asked for cannot be imported."""
    clock_ahead_s: float = 0.0
    """How far the clock is ahead of that of the node that asked."""
    clock_error_s: float = 0.0
    """How far off that measurement may be: half of the time that the answer took."""


def gather_facts(hosts: Sequence[Host], session: str, expected: Sequence[str] = ()) -> NodeFacts:
    """Gather the facts of this node, one of `hosts`.

    Args:
        hosts: the live nodes.
        session: the folder of Ray's session.
        expected: names of packages that are imported, to see whether they can be.
    """
    modules = [module for name in expected for module in _modules_of(name)]
    host = next(host for host in hosts if host.is_ours)
    gpus = host.resources.get("GPU", 0.0)
    shm, disk = shutil.disk_usage("/dev/shm"), shutil.disk_usage(_existing(Path(session)))
    return NodeFacts(
        host=socket.gethostname(),
        address=host.address,
        is_head=host.is_head,
        cpus=host.resources.get("CPU", 0.0),
        gpus=gpus,
        gpus_seen=_gpus_seen() if gpus else None,
        versions=_versions(),
        has_token_mode=is_token_auth_enabled(),
        token_file_mode=_token_file_mode(),
        shm_bytes=shm.total,
        object_store_bytes=int(host.resources.get("object_store_memory", 0)),
        disk_free_bytes=disk.free,
        disk_free_share=disk.free / disk.total,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        packages=_packages(expected),
        import_faults={module: fault for module in modules if (fault := _fault_of_import(module))},
    )


def clock() -> float:
    """Return the time here, in seconds."""
    return time.time()


def _existing(path: Path) -> Path:
    """Return the folder itself or, where this node keeps its session elsewhere, the nearest existing one above it."""
    return next(each for each in (path, *path.parents) if each.exists())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("ray", "torch", "raysweep"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).parent / "version.py" if spec and spec.origin else None
    found["cuda"] = str(runpy.run_path(str(file)).get("cuda") or "none") if file and file.exists() else ""
    return found


def _packages(expected: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in distributions():  # in the order of sys.path: the first of a name is the one that is imported
        found.setdefault(canonicalize_name(each.name), each.version)
    return {canonicalize_name(name): "" for name in expected if _modules_of(name)} | found


def _modules_of(name: str) -> list[str]:
    """Return what a package has to import: the module of its name if there is one, else all of its own."""
    named = name.replace("-", "_").replace(".", "_")
    if importlib.util.find_spec(named):
        return [named]
    own = [module for module, names in _owners().items() if canonicalize_name(name) in map(canonicalize_name, names)]
    return [module for module in own if module.isidentifier() and not module.startswith("_")]


@functools.cache
def _owners() -> Mapping[str, Sequence[str]]:
    """Return the packages that each module belongs to; it reads thousands of files."""
    return packages_distributions()


def _fault_of_import(module: str) -> str:
    """Return why a module cannot be imported; empty if it can."""
    command = [sys.executable, "-c", FAULT_OF_IMPORT, module]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, env=environment)
        fault: str = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return f"not within {WITHIN_S} s"
    except (ValueError, IndexError):
        return f"the process that imports it ends with exit code {done.returncode}"
    return fault


def _gpus_seen() -> int:
    """Count the GPUs in a separate process, which sees all of them and leaves no memory in use."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", GPUS_SEEN]
    try:
        return int(subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=WITHIN_S, env=environment))
    except (subprocess.SubprocessError, ValueError):
        return 0


def _token_file_mode() -> int | None:
    path = token_file()
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None
