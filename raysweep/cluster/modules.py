"""What a job needs of the user's own code: the modules of `--import`, and what they import from beside them."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from raysweep.errors import UserError
from raysweep.terminal import format_bytes

MOST_BYTES = 500 * 2**20
"""Ray sends no larger folder along with a job."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
"""Folders of what is installed: each node has its own."""


def copy_modules(modules: Iterable[str], folder: Path) -> None:
    """Copy modules that are imported here into a folder, whole packages, and the modules beside them that they import.

    What the folder has already stays as it is.

    Raises:
        UserError: a module has no file, cannot be read, or is too large.
    """
    left = MOST_BYTES
    for module in modules:
        for place in _with_siblings(module):
            if not (folder / place.name).exists():
                left = copy_place(place, folder, f"--import {module}", left)


def copy_place(place: Path, folder: Path, flag: str, left: int) -> int:
    """Copy a module or a package into a folder; return how many bytes are left of those that may follow.

    Raises:
        UserError: it cannot be read, or is too large; `flag` names it.
    """

    def copy(source: str, target: str) -> None:
        nonlocal left
        left -= os.stat(source).st_size
        if left < 0:
            raise UserError(
                f"{flag}: more than {format_bytes(MOST_BYTES)} would be sent along with the job, "
                f"{source} among them; move what is no code out of {place}"
            )
        shutil.copyfile(source, target)

    try:
        if place.is_dir():
            shutil.copytree(place, folder / place.name, ignore=LEFT_OUT, copy_function=copy)
        else:
            copy(str(place), str(folder / place.name))
    except OSError as error:
        raise UserError(f"{flag}: cannot copy {place}: {error}") from error
    return left


def is_installed(module: str) -> bool:
    """Whether a module lies where pip installs packages, so that each machine, or image, has its own."""
    place = _place_of(module.partition(".")[0])
    return place is not None and place.parent in INSTALLED


def _with_siblings(module: str) -> list[Path]:
    """Return the file or package of a module, and those in the same folder that it imports, directly or not."""
    first = _place_of(module.partition(".")[0])
    if first is None:
        raise UserError(f"--import {module}: the module has no file that could be sent to the cluster")
    found, waiting = {first}, [] if first.parent in INSTALLED else [first]
    while waiting:
        for name in _imported(waiting.pop()):
            place = _place_of(name)
            if place and place.parent == first.parent and place not in found and name != "raysweep":
                found.add(place)
                waiting.append(place)
    return sorted(found)


def _imported(place: Path) -> set[str]:
    """Return the first parts of the names that a module or package imports anywhere, in functions too."""
    names: set[str] = set()
    for file in place.rglob("*.py") if place.is_dir() else [place]:
        with contextlib.suppress(SyntaxError, ValueError, OSError):
            for node in ast.walk(ast.parse(file.read_bytes())):
                names.update(name.partition(".")[0] for name in _names_in(node))
    return names


def _names_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module


def _place_of(name: str) -> Path | None:
    """Return the file or folder of a module that can be imported here; None if it is built in, or there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None
