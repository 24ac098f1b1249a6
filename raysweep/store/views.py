"""Views of a run folder, rebuilt from the records at any time: results.parquet and TensorBoard files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from raysweep.store.filesystem import name_of
from raysweep.store.record import Record
from raysweep.store.runfolder import RunFolder


def results_table(records: Sequence[Record]) -> pa.Table:
    """One row a trial: what it is, how it ended, its settings (`config.*`), its curves (`curve.*`, by epoch)."""
    rows = [_row(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    return pa.table(columns)


def write_results(folder: RunFolder, records: Sequence[Record]) -> None:
    """Write results.parquet."""
    buffer = io.BytesIO()
    pq.write_table(results_table(records), buffer, compression="zstd")
    folder.files.write("results.parquet", buffer.getvalue())


def write_tensorboard(folder: RunFolder, record: Record) -> None:
    """Write a trial's scalars, and its hyperparameters with final metrics (the HParams tab), in place of older ones."""
    target = f"tensorboard/{record.id}"
    old = folder.files.list_files(target)
    with tempfile.TemporaryDirectory() as scratch:
        with SummaryWriter(scratch, write_to_disk=True) as writer:
            for metrics in record.metrics:
                for tag, value in metrics.items():
                    if tag != "epoch" and value is not None:
                        writer.add_scalar(tag, value, int(metrics["epoch"]))
            settings = {key: _plain(value) for key, value in record.axes.items()} or {"seed": record.seed}
            final = {"score": record.best.score} if record.best else {}
            for summary in hparams(settings, final):
                writer.file_writer.add_summary(summary)
            for tag, value in final.items():
                writer.add_scalar(tag, value, record.epoch)
        for path in Path(scratch).iterdir():
            folder.files.write(f"{target}/{path.name}", path.read_bytes())
            old = [name for name in old if name_of(name) != path.name]
    for name in old:
        folder.files.delete(name)


def _row(record: Record) -> dict[str, Any]:
    best = record.best
    row: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "seed": record.seed,
        "epoch": record.epoch,
        "epochs": record.epochs,
        "score": best.score if best else None,
        "val_acc": best.val_acc if best else None,
        "best_epoch": best.epoch if best else None,
        "averaged": best.averaged if best else None,
        "error": (record.error or {}).get("message"),
    }
    row.update({f"config.{key}": value for key, value in _flatten(record.config)})
    for tag in dict.fromkeys(tag for metrics in record.metrics for tag in metrics):
        row[f"curve.{tag}"] = [_float(metrics.get(tag)) for metrics in record.metrics]
    return row


def _flatten(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, entry in value.items():
        if isinstance(entry, dict):
            pairs += _flatten(entry, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", entry))
    return pairs


def _column(values: list[Any]) -> pa.Array:
    """A column of one type; settings of mixed types (a name here, a list there) become text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
