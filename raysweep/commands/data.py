"""`raysweep data`: prepares a sweep's data sets on this machine and describes each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import DATA_LIES_BESIDE_IT, Context, add_sweep_flags
from raysweep.errors import DataError, Interrupted, UserError
from raysweep.loops import CLASSIFY
from raysweep.loops.placement import bytes_of
from raysweep.terminal import count_of, format_bytes

if TYPE_CHECKING:
    from raysweep.vision.config import DataConfig

SUMMARY = "prepare a sweep's data sets on this machine and describe them"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser, "the sweep file", storage=False)


def run(arguments: argparse.Namespace) -> int:
    """Prepare each data set that the trials use into the cache, and print what it holds; return the exit code.

    A faulty data set does not keep the others from being prepared and printed.
    """
    from raysweep.commands.whereabouts import Whereabouts
    from raysweep.vision.config import TrialConfig

    context = Context.of(arguments, DATA_LIES_BESIDE_IT)
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    configs = dict.fromkeys(trial.config.data for trial in context.trials if isinstance(trial.config, TrialConfig))
    if not configs:
        message = f"{context.sweep.loop} prepares its data itself; `raysweep data` is for sweeps of {CLASSIFY}"
        raise UserError(context.sweep.source.problem(("loop",), message))
    for config in configs:
        try:
            about = _prepare(config, context.file.absolute().parent)
        except DataError as error:
            problems += error.problems
            continue
        except KeyboardInterrupt:
            raise Interrupted("interrupted; no set is left half-prepared") from None
        if not arguments.json:
            print(*([""] if found else []), *_lines(about), sep="\n", flush=True)
        found.append(about)
    if problems:
        raise DataError(*problems)
    where = Whereabouts.of(context)
    if arguments.json:
        print(json.dumps({"name": context.sweep.name, "data": found, "memory": where and where.as_json()}))
    elif where:
        print("", *where.in_words(arguments.sweep), sep="\n")
    return 0


def _prepare(config: DataConfig, folder: Path) -> dict[str, Any]:
    from raysweep.vision.data.dataset import SPLITS
    from raysweep.vision.data.prepare import find_raw, load, prepare
    from raysweep.vision.prepared import data_root

    root = data_root(config, folder)
    raw = find_raw(config, root)
    prepared = prepare(config, root=root, raw=raw)
    dataset = load(prepared)
    splits = {name: getattr(dataset, name) for name in SPLITS}
    plain = {name: getattr(dataset, name) for name in ("num_classes", "image_size", "fingerprint", "skipped")}
    listed = {name: list(getattr(dataset, name)) for name in ("classes", "mean", "std")}
    return {
        "source": config.name,
        "settings": config.model_dump(mode="json", exclude={"name", "path"}, exclude_defaults=True),
        "path": str(raw.place) if raw.place is not None else None,
        "images": {name: len(split) for name, split in splits.items() if split is not None},
        **plain,
        **listed,
        "bytes": bytes_of(dataset.to_arrays()),
        "skipped_images": json.loads((prepared / "data.json").read_text())["skipped_rows"],
        "prepared": str(prepared),
    }


def _lines(about: dict[str, Any]) -> Iterable[str]:
    settings = ", ".join(f"{key}: {value}" for key, value in about["settings"].items())
    classes = about["classes"]
    rows = {
        "path": about["path"] or "needs no files",
        "images": ", ".join(f"{name} {count:,}" for name, count in about["images"].items()),
        "classes": f"{about['num_classes']}: {'; '.join(classes[:5])}{'; ...' if len(classes) > 5 else ''}",
        "image size": f"{about['image_size']} x {about['image_size']} pixels",
        "mean": " ".join(f"{value:.4f}" for value in about["mean"]),
        "std": " ".join(f"{value:.4f}" for value in about["std"]),
        "fingerprint": about["fingerprint"],
        "size": f"{format_bytes(about['bytes'])}, on the disk and in memory",
        "skipped": f"{count_of(about['skipped'], 'image')} that cannot be decoded",
        "prepared": about["prepared"],
    }
    yield about["source"] + (f" ({settings})" if settings else "")
    yield from (f"  {key:<12} {value}" for key, value in rows.items())
    yield from (f"  {'':<12} {image}" for image in about["skipped_images"][:20])
