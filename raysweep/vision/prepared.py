"""Where this node's cache has its prepared sets, and how large each is; told without torch, and without reading files.

`data.prepare` notes every set that it makes or finds. What `raysweep plan` says of a set comes from that note, since to
import torch takes seconds, and to see that no file of a source has changed may take longer.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from raysweep.vision.config import DataConfig


@dataclass(frozen=True)
class Noted:
    """A set as it was prepared last."""

    folder: str  # its name below `sets` in the cache
    bytes: int  # of its images and labels
    device_bytes: int  # of those images that trials train on and are validated on


def default_cache() -> Path:
    """Return $RAYSWEEP_CACHE, else $XDG_CACHE_HOME/raysweep, else ~/.cache/raysweep."""
    given = os.environ.get("RAYSWEEP_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "raysweep")).expanduser()


def data_root(config: DataConfig, sweep_folder: Path) -> Path:
    """Return the folder of the source's files: `path`, else $RAYSWEEP_DATA, else `data` beside the sweep file."""
    if config.path is not None:
        return sweep_folder / os.path.expanduser(config.path)
    return Path(os.path.expanduser(os.environ.get("RAYSWEEP_DATA") or sweep_folder / "data"))


def note(noted: Noted, config: DataConfig, root: Path | None, cache: Path) -> None:
    """Note which set the files in `root` have become; a cache that cannot be written to stays as it is.

    `root` is None for a source that needs no files: its set is the same one wherever a sweep file lies.
    """
    path = _path(config, root, cache)
    if _read(path, cache) == noted:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
        temporary.write_text(json.dumps(asdict(noted)))
        temporary.replace(path)


def noted_of(config: DataConfig, root: Path, cache: Path) -> Noted | None:
    """Return what was noted of the set that a config makes of the files in `root`, or of none; None if nothing was."""
    return _read(_path(config, root, cache), cache) or _read(_path(config, None, cache), cache)


def _read(path: Path, cache: Path) -> Noted | None:
    """Return a note; None if there is none, or if its set has been deleted since."""
    try:
        noted = Noted(**json.loads(path.read_text()))
        return noted if (cache / "sets" / noted.folder / "data.json").exists() else None
    except (OSError, ValueError, TypeError):
        return None


def _path(config: DataConfig, root: Path | None, cache: Path) -> Path:
    place = None if root is None else os.path.abspath(root)
    what = json.dumps([config.model_dump(mode="json", exclude={"path"}), place], sort_keys=True)
    return cache / "notes" / f"{hashlib.blake2b(what.encode(), digest_size=12).hexdigest()}.json"
