"""Where the data sets of a sweep would lie in a run on this machine, and the memory that this takes. No torch, no Ray.

In: the context of a command. Out: lines of text, or the same as numbers, by the rules of `loops.placement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import psutil

from raysweep.cluster.memory import Memory, gpus, memory, object_store_bytes
from raysweep.commands.context import Context
from raysweep.config import LoopConfig
from raysweep.loops import CLASSIFY, loop_named
from raysweep.loops.placement import SHARE_OF_DEVICE, SHARE_OF_STORE, Size, fits_device, fits_store, too_large
from raysweep.terminal import count_of, format_bytes, some_of

SETS_SHOWN = 10
"""The most sets of one place that are listed, each on a line."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set of a sweep, as a run shares it."""

    name: str
    settings: Mapping[str, Any]  # those in which it differs from the sweep's other sets of this name
    size: Size | None  # None where it is not known

    @property
    def label(self) -> str:
        """The name, and what tells the set from the others."""
        settings = (f"{key} {'not set' if value is None else value}" for key, value in self.settings.items())
        return self.name + (f" ({', '.join(settings)})" if self.settings else "")

    @property
    def on_device(self) -> int:
        """The bytes that a trial keeps on its device; 0 if not known."""
        return self.size.on_device if self.size else 0


@dataclass(frozen=True)
class Whereabouts:
    """The data sets of a sweep, and the memory of this machine."""

    sets: tuple[DataSet, ...]
    object_store: int  # bytes that Ray would give it here
    memory: int  # all bytes of this machine, or of its container
    cpu: int  # of which a set may take half, where trials train on CPUs
    gpu: Memory | None  # of its GPUs that with the least free; None where none is known of, or trials take none
    gpus: float | Literal["auto"]  # that each trial takes

    @classmethod
    def of(cls, context: Context) -> Whereabouts | None:
        """Return that of the trials of a sweep file; None for a loop whose data has no size that is known."""
        loop, folder = loop_named(context.sweep.loop), context.file.absolute().parent
        configs = {loop.data_key(trial.config): trial.config for trial in context.trials}.values()
        names, sizes = map(loop.data_name, configs), [loop.data_size(config, folder) for config in configs]
        if loop.name != CLASSIFY and not any(sizes):
            return None
        wanted = context.sweep.resources.gpus
        here = gpus() if wanted else []
        return cls(
            sets=_told_apart([*names], [*map(_settings, configs)], sizes),
            object_store=object_store_bytes(),
            memory=memory().total,
            cpu=psutil.virtual_memory().total,
            gpu=min(here, key=lambda gpu: gpu.free) if here else None,
            gpus=wanted,
        )

    @property
    def unknown(self) -> list[str]:
        """The sets whose size is not known."""
        return [each.label for each in self.sets if each.size is None]

    @cached_property
    def bytes(self) -> int | None:
        """All sets together, which share the object store; None if the size of one is not known."""
        return None if self.unknown else _bytes(self.sets)

    @cached_property
    def mapped(self) -> list[DataSet]:
        """The sets for which the object store of this machine has no room beside the smaller ones."""
        sizes = {str(number): _bytes([each]) for number, each in enumerate(self.sets)}
        large = too_large(sizes, self.object_store)
        return [each for number, each in enumerate(self.sets) if str(number) in large]

    @property
    def largest(self) -> int:
        """The bytes that trials of the largest set keep on their devices."""
        return max((each.on_device for each in self.sets), default=0)

    def _free(self, gpu: Memory) -> int:
        return min(gpu.free, int(gpu.total * self._gpu_share))

    @property
    def _gpu_share(self) -> float:
        return 1.0 if self.gpus == "auto" else min(1.0, self.gpus)

    def in_words(self, file: str) -> list[str]:
        """Return a line or two a set, and a warning where the disk would be what trials wait for."""
        if self.bytes is None:
            return [
                f"data: {some_of(self.unknown)}: the size is not known yet; "
                f"`raysweep data {file}` tells it, and prepares what is absent"
            ]
        lines = [f"data: {line}" for line in (*self._store_lines(self.bytes), *self._device_lines())]
        if self.bytes > self.memory:
            lines.append(
                f"warning: the data has {format_bytes(self.bytes)}, this machine's memory {format_bytes(self.memory)}: "
                "each epoch reads it from the disk"
            )
        return lines

    def _store_lines(self, size: int) -> list[str]:
        shared = [each for each in self.sets if each not in self.mapped]
        lines = [
            *_lines(shared, "shared through Ray's object store"),
            *_lines(self.mapped, "memory-mapped from each node's cache"),
        ]
        needed, here = format_bytes(size / SHARE_OF_STORE), format_bytes(self.object_store)
        verb = "would be" if self.mapped else "is"
        rule = f"an object store of {needed} {verb} needed on each node, here it would have {here}"
        if len(lines) == 1:
            return [f"{lines[0]}: {rule}"]
        return [*lines, f"all {len(self.sets)} sets, {format_bytes(size)}: {rule}"]

    def _device_lines(self) -> list[str]:
        if self.gpu is None and self.gpus not in (0, "auto"):
            needed = format_bytes(self.largest / SHARE_OF_DEVICE)
            return [
                f"kept on a trial's GPU if {needed} are free there, else streamed to it; nvidia-smi shows no GPU here"
            ]
        free = self.cpu if self.gpu is None else self._free(self.gpu)
        small, large = list[DataSet](), list[DataSet]()
        for each in self.sets:
            (small if fits_device(each.on_device, free) else large).append(each)
        lines = []
        for sets in filter(None, (small, large)):
            which = f"{some_of([each.label for each in sets])}: " if small and large else ""
            needed = format_bytes(max(each.on_device for each in sets) / SHARE_OF_DEVICE)
            in_words = self._on_cpu if self.gpu is None else self._on_gpu
            lines.append(which + in_words(sets is small, needed, format_bytes(free)))
        return lines

    def _on_gpu(self, fits: bool, needed: str, free: str) -> str:
        share = "" if self._gpu_share == 1 else f" in its share of {self._gpu_share:g}"
        if fits:
            return f"kept on each trial's GPU: {needed} are needed there, {free} are free here{share}"
        return f"streamed to each trial's GPU: {needed} would be needed to keep it there, {free} are free here{share}"

    def _on_cpu(self, fits: bool, needed: str, free: str) -> str:
        if fits:
            line = f"on a CPU, read where it is: {needed} of memory are needed, this machine has {free}"
        else:
            line = (
                f"on a CPU, read ahead by a thread: {needed} of memory would be needed to read it where it is, this "
                f"machine has {free}"
            )
        if not self.gpus:
            return line
        return f"{line} (a GPU with {needed} free would keep it; nvidia-smi shows none here)"

    def as_json(self) -> dict[str, Any]:
        """Return the numbers; `holds_it` is null where nobody can know."""
        known = self.bytes is not None
        needed = int(self.largest / SHARE_OF_DEVICE) if known else None
        free = None if self.gpu is None else self._free(self.gpu)
        return {
            "bytes": self.bytes,
            "sets": [
                {
                    "name": each.name,
                    "settings": dict(each.settings),
                    "bytes": each.size.whole if each.size else None,
                    "in_store": each not in self.mapped if known else None,
                }
                for each in self.sets
            ],
            "object_store": {
                "needed_bytes": None if self.bytes is None else int(self.bytes / SHARE_OF_STORE),
                "here_bytes": self.object_store,
                "holds_it": None if self.bytes is None else fits_store(self.bytes, self.object_store),
            },
            "gpu": {
                "needed_bytes": needed,
                "here_bytes": free,
                "holds_it": fits_device(self.largest, free) if known and free is not None else None,
            },
            "cpu": {
                "needed_bytes": needed,
                "here_bytes": self.cpu,
                "holds_it": fits_device(self.largest, self.cpu) if known else None,
            },
        }


def _settings(config: LoopConfig) -> Mapping[str, Any]:
    """Return the settings of the data section; none where a loop of the user's own has no such section."""
    section = config.model_dump(mode="json").get("data")
    return section if isinstance(section, Mapping) else {}


def _told_apart(
    names: Sequence[str], settings: Sequence[Mapping[str, Any]], sizes: Sequence[Size | None]
) -> tuple[DataSet, ...]:
    """Return the sets, each with the settings that differ among those of its name."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for name, own in zip(names, settings, strict=True):
        alike.setdefault(name, []).append(own)
    varied = {
        name: [key for key in of[0] if any(each.get(key) != of[0][key] for each in of)] for name, of in alike.items()
    }
    return tuple(
        DataSet(name, {key: own[key] for key in varied[name]}, size)
        for name, own, size in zip(names, settings, sizes, strict=True)
    )


def _bytes(sets: Sequence[DataSet]) -> int:
    return sum(each.size.whole for each in sets if each.size)


def _lines(sets: Sequence[DataSet], where: str) -> list[str]:
    """Return a line for each set that lies somewhere, and one for all those beyond the first few."""
    lines = [f"{each.label}, {format_bytes(_bytes([each]))}, {where}" for each in sets[:SETS_SHOWN]]
    if rest := sets[SETS_SHOWN:]:
        lines.append(f"{count_of(len(rest), 'more set')}, {format_bytes(_bytes(rest))}, {where}")
    return lines
