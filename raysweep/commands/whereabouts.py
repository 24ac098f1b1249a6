"""Where the data sets of a sweep would lie in a run on this machine, and the memory that this takes. No torch, no Ray.

In: the context of a command. Out: lines of text, or the same as numbers, by the rules of `loops.placement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raysweep.cluster.memory import Memory, gpus, memory, object_store_bytes
from raysweep.commands.context import Context
from raysweep.loops import CLASSIFY, loop_named
from raysweep.loops.placement import SHARE_OF_DEVICE, SHARE_OF_STORE, Size, fits_device, fits_store
from raysweep.terminal import count_of, format_bytes, some_of


@dataclass(frozen=True)
class Whereabouts:
    """The data sets of a sweep, and the memory of this machine."""

    names: tuple[str, ...]  # of the sets, as a run shares them
    sizes: tuple[Size | None, ...]  # of each; None where it is not known
    object_store: int  # bytes that Ray would give it here
    memory: int  # all bytes of this machine
    gpu: Memory | None  # of its GPUs that with the least free; None where none is known of, or trials take none
    gpu_share: float  # that each trial has of its GPU; 0 where trials take none

    @classmethod
    def of(cls, context: Context) -> Whereabouts | None:
        """Return that of the trials of a sweep file; None for a loop whose data has no size that is known."""
        loop, folder = loop_named(context.sweep.loop), context.file.absolute().parent
        sets = {loop.data_key(trial.config): trial.config for trial in context.trials}
        sizes = tuple(loop.data_size(config, folder) for config in sets.values())
        if loop.name != CLASSIFY and not any(sizes):
            return None
        wanted = context.sweep.resources.gpus
        here = gpus() if wanted else []
        return cls(
            names=tuple(loop.data_name(config) for config in sets.values()),
            sizes=sizes,
            object_store=object_store_bytes(),
            memory=memory().total,
            gpu=min(here, key=lambda gpu: gpu.free) if here else None,
            gpu_share=1.0 if wanted == "auto" else min(1.0, wanted),
        )

    @property
    def unknown(self) -> list[str]:
        """The sets whose size is not known."""
        return [name for name, size in zip(self.names, self.sizes, strict=True) if size is None]

    @cached_property
    def bytes(self) -> int | None:
        """All sets together, which share the object store; None if the size of one is not known."""
        return None if self.unknown else sum(size.whole for size in self.sizes if size)

    @property
    def largest(self) -> int:
        """The bytes that trials of the largest set keep on their GPUs."""
        return max((size.on_device for size in self.sizes if size), default=0)

    @property
    def in_store(self) -> bool:
        """Whether the object store of this machine takes all sets."""
        return self.bytes is not None and fits_store(self.bytes, self.object_store)

    @property
    def on_gpu(self) -> bool | None:
        """Whether each GPU of this machine takes any of the sets; None if none is known of."""
        return None if self.gpu is None else fits_device(self.largest, self._free(self.gpu))

    def _free(self, gpu: Memory) -> int:
        return min(gpu.free, int(gpu.total * self.gpu_share))

    def in_words(self, file: str) -> list[str]:
        """Return a line or two, and a warning where the disk would be what trials wait for."""
        if self.bytes is None:
            names = some_of(list(dict.fromkeys(self.unknown)))
            return [
                f"data: {names}: the size is not known yet; "
                f"`raysweep data {file}` tells it, and prepares what is absent"
            ]
        lines = [self._store_line(self.bytes), *([self._gpu_line()] if self.gpu_share else [])]
        if self.bytes > self.memory:
            lines.append(
                f"warning: the data has {format_bytes(self.bytes)}, this machine's memory {format_bytes(self.memory)}: "
                "each epoch reads it from the disk"
            )
        return lines

    def _store_line(self, size: int) -> str:
        several = len(self.sizes) > 1
        names = some_of(list(dict.fromkeys(self.names)))
        what = (f"{count_of(len(self.sizes), 'set')} ({names}), together " if several else "") + format_bytes(size)
        needed, here = format_bytes(size / SHARE_OF_STORE), format_bytes(self.object_store)
        if self.in_store:
            where = f"shared through Ray's object store: {needed} are needed on each node, this one would have {here}"
        else:
            which = ", as far as they do not fit" if several else ""
            where = (
                f"memory-mapped from each node's cache{which}: Ray's object store would need {needed}, "
                f"here it would have {here}"
            )
        return f"data: {what}, {where}"

    def _gpu_line(self) -> str:
        needed = format_bytes(self.largest / SHARE_OF_DEVICE)
        if self.gpu is None:
            return (
                f"data: kept on a trial's GPU if {needed} are free there, else streamed to it; "
                "nvidia-smi tells of no GPU here that trials may take"
            )
        share = "" if self.gpu_share == 1 else f" in its share of {self.gpu_share:g}"
        here = f"{format_bytes(self._free(self.gpu))} are free here{share}"
        if self.on_gpu:
            return f"data: kept on each trial's GPU: {needed} are needed there, {here}"
        return f"data: streamed to each trial's GPU: {needed} would be needed to keep it there, {here}"

    def as_json(self) -> dict[str, Any]:
        """Return the numbers; `holds_it` is null where nobody can know."""
        known = self.bytes is not None
        return {
            "bytes": self.bytes,
            "sets": [
                {"name": name, "bytes": size.whole if size else None}
                for name, size in zip(self.names, self.sizes, strict=True)
            ],
            "object_store": {
                "needed_bytes": None if self.bytes is None else int(self.bytes / SHARE_OF_STORE),
                "here_bytes": self.object_store,
                "holds_it": self.in_store if known else None,
            },
            "gpu": {
                "needed_bytes": int(self.largest / SHARE_OF_DEVICE) if known else None,
                "here_bytes": None if self.gpu is None else self._free(self.gpu),
                "holds_it": self.on_gpu if known else None,
            },
        }
