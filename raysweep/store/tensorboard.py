"""TensorBoard files: a view of a run folder, rebuilt from the records at any time. (tensorboardX imports torch.)"""

from __future__ import annotations

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
    """Return the begun trials whose TensorBoard files are not those of these records, whole and alone."""
    there: dict[str, list[str]] = {}
    for path in folder.files.list_files("tensorboard", recursive=True):
        there.setdefault(path.split("/")[1], []).append(path)
    return [
        record
        for record in records
        if record.epoch and [path.endswith(_version(record)) for path in there.get(record.id, [])] != [True]
    ]


def write_tensorboard(folder: RunFolder, record: Record) -> None:
    """Write a trial's scalars, and its hyperparameters with final metrics (the HParams tab), in place of older ones."""
    target = f"tensorboard/{record.id}"
    old = folder.files.list_files(target)
    with tempfile.TemporaryDirectory() as scratch:
        writer = EventsWriter(f"{scratch}/events")  # SummaryWriter would start a queue and a thread for each file
        for step, summary in _summaries(record):
            writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.close()
        for path in Path(scratch).iterdir():
            new = f"{target}/{path.name}{_version(record)}"
            folder.files.write(new, path.read_bytes())
            old = [name for name in old if name != new]
    for name in old:
        folder.files.delete(name)


def _version(record: Record) -> str:
    """The end of the file's name: a checksum of what is written of a record."""
    written = {"status": record.status, "metrics": record.metrics, "axes": record.axes, "best": record.best}
    return f".{digest(written)[:12]}"


def _summaries(record: Record) -> Iterator[tuple[int, Any]]:
    """A trial's curves, and for the HParams tab its settings and its final metrics.

    That tab's list of columns is not written: TensorBoard then takes those of all trials, where it would take the list
    of the first, and trials of different cases have different settings.
    """
    for metrics in record.metrics:
        for tag, value in metrics.items():
            if tag != "epoch" and value is not None:
                yield int(metrics["epoch"]), scalar(tag, value)
    settings = {**{key: _plain(value) for key, value in record.axes.items()}, "seed": record.seed}
    _, started, ended = hparams(settings, {})
    yield 0, started
    for tag, value in _final_metrics(record).items():
        yield record.epoch, scalar(f"final/{tag}", value)
    if record.is_final or record.status == "failed":
        yield 0, ended if record.status in ("finished", "stopped") else _failed(ended)


def _final_metrics(record: Record) -> dict[str, float]:
    best = record.best
    final: dict[str, float] = {"epochs": record.epoch}
    if best:
        final |= {"score": best.score, "best_epoch": best.epoch}
        final |= {"val_acc": best.val_acc} if best.val_acc is not None else {}
    return final


def _failed(ended: Any) -> Any:
    """The summary that ends a session, with the status of one that did not succeed: tensorboardX knows no other."""
    metadata = ended.value[0].metadata.plugin_data
    session = HParamsPluginData.FromString(metadata.content)
    session.session_end_info.status = Status.Value("STATUS_FAILURE")
    metadata.content = session.SerializeToString()
    return ended


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
