"""results.parquet: an export of a run folder, which can be rebuilt from the records at any time. No torch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysweep.store.document import SEAL, DamagedFileError, digest
from raysweep.store.record import Record, Score
from raysweep.store.runfolder import RunFolder

FILE = "results.parquet"
COLUMNS = {
    "id": pa.string(),
    "name": pa.string(),
    "status": pa.string(),
    "seed": pa.int64(),
    "epoch": pa.int64(),
    "epochs": pa.int64(),
    "score": pa.float64(),
    "val_acc": pa.float64(),
    "best_epoch": pa.int64(),
    "averaged": pa.bool_(),
    "error": pa.string(),
}
"""The columns of every results.parquet, and their types; `docs/results.md` says what they mean."""
CURVE = pa.list_(pa.float64())


def results_table(records: Sequence[Record]) -> pa.Table:
    """One row a trial: what it is, how it ended, its settings (`config.*`), its curves (`curve.*`, by epoch)."""
    rows = [_row(record) for record in records]
    names = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def write_results(folder: RunFolder, records: Sequence[Record]) -> None:
    """Write results.parquet; it carries a checksum of what `running_metrics` reads."""
    table = results_table(records)
    table = table.replace_schema_metadata({SEAL: digest(_running(table))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    folder.files.write(FILE, buffer.getvalue())


def running_metrics(folder: RunFolder) -> dict[str, list[dict[str, float]]]:
    """Return the metric histories of the trials that results.parquet calls running: ahead of their last commits."""

    def parse(data: bytes) -> dict[str, list[dict[str, float]]]:
        table = _parse(data)
        running = _running(table)
        if (table.schema.metadata or {}).get(SEAL.encode()) != digest(running).encode():
            raise DamagedFileError("its checksum does not match")
        return running

    return folder.read(FILE, parse, "the run writes it anew") or {}


def _running(table: pa.Table) -> dict[str, list[dict[str, float]]]:
    return _histories(table.filter(pc.field("status") == "running"))


def _histories(table: pa.Table) -> dict[str, list[dict[str, float]]]:
    names = {name: name.removeprefix("curve.") for name in table.column_names if name.startswith("curve.")}
    histories = {}
    for row in table.to_pylist():
        curves = {tag: row[name] for name, tag in names.items() if row[name] is not None}
        histories[row["id"]] = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    return histories


def shown_trials(folder: RunFolder, planned: Mapping[str, Record]) -> dict[str, Record]:
    """Trials as results.parquet shows them, without weights: where a newer raysweep wrote their records.

    The columns of that file are documented, so that they mean the same in every version. Nothing is decided by them.

    Args:
        folder: the run folder.
        planned: the trials asked for, by id; those that the file does not have are left out.
    """

    def parse(data: bytes) -> dict[str, Record]:
        table = _parse(data)
        table = table.filter(pc.is_in(table["id"], pa.array(list(planned), pa.string())))
        histories = _histories(table)
        rows = table.select(list(COLUMNS)).cast(pa.schema(COLUMNS)).to_pylist()
        return {row["id"]: _shown(planned[row["id"]], row, histories[row["id"]]) for row in rows}

    return folder.read(FILE, parse, "not used") or {}


def _parse(data: bytes) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except pa.ArrowException as error:
        raise DamagedFileError(str(error)) from error


def _shown(planned: Record, row: Mapping[str, Any], metrics: list[dict[str, float]]) -> Record:
    best = None
    if row["score"] is not None:
        best = Score(row["best_epoch"], row["score"], bool(row["averaged"]), row["val_acc"])
    error = {"message": row["error"]} if row["error"] is not None else None
    return planned.with_(status=row["status"], metrics=metrics, best=best, error=error)


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


def _column(name: str, values: list[Any]) -> pa.Array:
    """A column of one type; settings of mixed types (a name here, a list there) become text."""
    if name in COLUMNS or name.startswith("curve."):
        return pa.array(values, COLUMNS.get(name, CURVE))
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
