"""TensorBoard files: an export of a run folder, which can be rebuilt from the records at any time.

tensorboardX imports torch.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.summary import hparams, scalar

from raysweep.store.document import digest
from raysweep.store.record import Record
from raysweep.store.runfolder import RunFolder


def outdated_tensorboard(folder: RunFolder, records: Iterable[Record]) -> list[Record]:
    """Return the trials that have begun and whose folder is not exactly the one TensorBoard file of their record."""
    there: dict[str, list[str]] = {}
    for path in folder.files.list_files("tensorboard", recursive=True):
        there.setdefault(path.split("/")[1], []).append(path)
    return [
        record
        for record in records
        if record.epoch and [path.endswith(_version(record)) for path in there.get(record.id, [])] != [True]
    ]


def write_tensorboard(folder: RunFolder, record: Record) -> None:
    """Write a trial's curves, and its settings with final metrics (the HParams tab), in place of older files."""
    target = f"tensorboard/{record.id}"
    old = folder.files.list_files(target)
    with tempfile.TemporaryDirectory() as scratch:
        writer = EventsWriter(f"{scratch}/events")  # SummaryWriter would start a queue and a thread for each file
        for step, summary in _summaries(record):
            writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.close()
        (written,) = Path(scratch).iterdir()
        new = f"{target}/{written.name}{_version(record)}"
        folder.files.write(new, written.read_bytes())
    for name in old:
        if name != new:
            folder.files.delete(name)


def _version(record: Record) -> str:
    """The end of the file's name: a checksum of what the file takes from the record."""
    written = {"status": record.status, "metrics": record.metrics, "axes": record.axes, "best": record.best}
    return f".{digest(written)[:12]}"


def _summaries(record: Record) -> Iterator[tuple[int, Any]]:
    """Yield (step, summary) of a trial's curves, then for the HParams tab of its settings and final metrics.

    The list of that tab's columns is left out: TensorBoard would use the first trial's list for all, and trials of
    different cases have different settings.
    """
    for metrics in record.metrics:
        for tag, value in metrics.items():
            if tag != "epoch" and value is not None and math.isfinite(value):
                yield int(metrics["epoch"]), scalar(tag, value)
    axes = {key: value if isinstance(value, int | float | str) else str(value) for key, value in record.axes.items()}
    _, started, ended = hparams({**axes, "seed": record.seed}, {})
    yield 0, started
    for tag, value in _final_metrics(record).items():
        yield record.epoch, scalar(f"final/{tag}", value)
    if record.is_final or record.status == "failed":
        yield 0, ended if record.status in ("finished", "stopped") else _failed(ended)


def _final_metrics(record: Record) -> dict[str, float]:
    final: dict[str, float | None] = {"epochs": record.epoch}
    if best := record.best:
        final |= {"score": best.score, "best_epoch": best.epoch, "val_acc": best.val_acc}
    return {name: value for name, value in final.items() if value is not None}


def _failed(ended: Any) -> Any:
    """Set the status of a session's last summary to failure; tensorboardX only writes success."""
    metadata = ended.value[0].metadata.plugin_data
    session = HParamsPluginData.FromString(metadata.content)
    session.session_end_info.status = Status.Value("STATUS_FAILURE")
    metadata.content = session.SerializeToString()
    return ended
