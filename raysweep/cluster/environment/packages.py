"""Packages of the user's own. In: folders. Out: what they install, unpacked in a job's folder, ready to import.

Every process of a job starts in that folder, so nothing has to be installed on the nodes. What a package depends on is
not sent: the nodes have it, or `--requirements` names it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PathDistribution
from pathlib import Path

from packaging.utils import parse_wheel_filename

from raysweep.cluster import modules
from raysweep.cluster.environment.requirements import packages_of
from raysweep.cluster.modules import copy_place
from raysweep.errors import UserError
from raysweep.terminal import format_bytes, step

LINES_OF_PIP = 30
"""How many of the last lines that pip printed a message repeats."""


def read_package(given: Path) -> Path:
    """Return the folder as it is.

    Raises:
        UserError: it is no package.
    """
    if not _is_project(given) and not (given / "__init__.py").is_file():
        what = "has neither a project in pyproject.toml, nor setup.py, nor __init__.py"
        raise UserError(f"--package {given}: {what if given.is_dir() else 'is no folder'}; name a package's own folder")
    return given


def add_packages(packages: Iterable[Path], folder: Path) -> list[str]:
    """Put packages into a folder; return what they are and depend on, as pip names requirements.

    Raises:
        UserError: one cannot be read or built, is too large, or has code that is compiled for one kind of machine.
    """
    found = []
    for package in packages:
        if _is_project(package):
            found += _unpack(package, folder)
        else:
            place = package.resolve()
            copy_place(place, folder, f"--package {package}", modules.MOST_BYTES)
            found.append(place.name)
    return found


def _is_project(package: Path) -> bool:
    """Return whether pip can build the folder; one whose pyproject.toml only sets up tools is no project."""
    try:
        tables = tomllib.loads((package / "pyproject.toml").read_text())
    except FileNotFoundError:
        tables = {}
    except (OSError, ValueError) as error:
        raise UserError(f"--package {package}: pyproject.toml cannot be read: {error}") from error
    return bool(tables.keys() & {"project", "build-system"}) or (package / "setup.py").is_file()


def _unpack(package: Path, folder: Path) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="raysweep-wheel-") as name:
        with step(f"building {package}"):
            wheel = _build(package, Path(name))
        _, _, _, tags = parse_wheel_filename(wheel.name)
        if any(tag.platform != "any" for tag in tags):
            raise UserError(
                f"--package {package}: has compiled code ({wheel.name}), which must be made for the nodes; "
                "install it in their image, or name a wheel that all nodes see in --requirements"
            )
        with zipfile.ZipFile(wheel) as file:
            size = sum(each.file_size for each in file.infolist())
            if size > modules.MOST_BYTES:
                raise UserError(
                    f"--package {package}: is {format_bytes(size)}; a job takes {format_bytes(modules.MOST_BYTES)} "
                    "along; move what is no code out of it"
                )
            file.extractall(folder)
            about = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
    distribution = PathDistribution((folder / about).parent)
    return [f"{distribution.name}=={distribution.version}", *packages_of(distribution.requires or [])]


def _build(package: Path, folder: Path) -> Path:
    """Build a package as `pip install` would; return the wheel."""
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    command: Sequence[str] = [sys.executable, "-m", "pip", "wheel", *options, str(package.resolve())]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-LINES_OF_PIP:])
        raise UserError(f"--package {package}: `pip wheel {package}` does not build it:\n{said}")
    return wheels[0]
