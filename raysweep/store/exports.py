"""results.parquet: an export of a run folder, which can be rebuilt from the records at any time. No torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysweep.store.document import SEAL, DamagedFileError, digest, verify
from raysweep.store.record import Record, Score
from raysweep.store.runfolder import RunFolder
from raysweep.sweepfile.patch import flatten

T = TypeVar("T")

FILE = "results.parquet"
COLUMNS = {
    "id": pa.string(),
    "name": pa.string(),
    "status": pa.string(),
    "seed": pa.int64(),
    "epoch": pa.int64(),
    "epochs": pa.int64(),
    "own_epochs": pa.int64(),
    "origins": pa.string(),
    "score": pa.float64(),
    "val_acc": pa.float64(),
    "best_epoch": pa.int64(),
    "averaged": pa.bool_(),
    "error": pa.string(),
    "fresh": pa.bool_(),
    "config_rank": pa.int64(),
    "config_score": pa.float64(),
    "config_standard_error": pa.float64(),
    "config_seeds": pa.int64(),
}
"""Columns of every results.parquet, with their types; `docs/results.md` explains them."""
CURVE = pa.list_(pa.float64())
SHOWN = ("id", "status", "score", "val_acc", "best_epoch", "averaged", "error")
"""The columns from which a trial is shown whose record cannot be read."""
STANDING = ("id", "status", "epoch", "score", "best_epoch")
"""The columns that say how far a trial is."""
Standings = Mapping[str, Mapping[str, Any]]


def results_table(records: Sequence[Record], standings: Standings) -> pa.Table:
    """A row for each trial: identity, outcome, settings (`config.*`) and curves (`curve.*`, a value for each epoch).

    `standings` holds more columns of each trial: how its config stands in the ranking.
    """
    rows = [{**_row(record), **standings[record.id]} for record in records]
    names = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def write_results(folder: RunFolder, records: Sequence[Record], standings: Standings) -> None:
    """Write results.parquet (see `results_table`), with a checksum of the part that `read_exported` reads."""
    table = results_table(records, standings)
    table = table.replace_schema_metadata({SEAL: digest(_running(table))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    folder.files.write(FILE, buffer.getvalue())


@dataclass(frozen=True)
class Exported:
    """What results.parquet has of the trials, for those who follow a run."""

    rows: Mapping[str, Mapping[str, Any]]  # by trial id: status, epoch, score, best_epoch
    running: Mapping[str, list[dict[str, float]]]  # the metric histories of running trials, ahead of their last commits


def read_exported(folder: RunFolder) -> Exported:
    """Return what results.parquet has; nothing if there is no such file, or if it is damaged."""

    def parse(table: pa.Table) -> Exported:
        running = _running(table)
        verify(running, (table.schema.metadata or {}).get(SEAL.encode(), b"").decode())
        rows = table.select(STANDING).to_pylist()
        return Exported({row.pop("id"): row for row in rows}, running)

    return _read(folder, parse, "the run writes it anew") or Exported({}, {})


def _running(table: pa.Table) -> dict[str, list[dict[str, float]]]:
    return _histories(table.filter(pc.field("status") == "running"))


def _histories(table: pa.Table) -> dict[str, list[dict[str, float]]]:
    names = {name: name.removeprefix("curve.") for name in table.column_names if name.startswith("curve.")}
    histories = {}
    for row in table.to_pylist():
        curves = {tag: row[name] for name, tag in names.items() if row[name] is not None}
        epochs = zip(*curves.values(), strict=True)
        histories[row["id"]] = [
            {tag: value for tag, value in zip(curves, values, strict=True) if value is not None} for values in epochs
        ]
    return histories


def shown_trials(folder: RunFolder, planned: Mapping[str, Record]) -> dict[str, Record]:
    """Read trials from results.parquet, without weights, since a newer raysweep wrote their records.

    That file's columns are documented, so they mean the same in every version. They are only shown: no decision is
    made from them. Trials that the file lacks are left out.
    """

    def parse(table: pa.Table) -> dict[str, Record]:
        table = table.filter(pc.is_in(table["id"], pa.array(list(planned), pa.string())))
        histories = _histories(table)
        rows = table.select(SHOWN).cast(pa.schema({name: COLUMNS[name] for name in SHOWN})).to_pylist()
        return {row["id"]: _shown(planned[row["id"]], row, histories[row["id"]]) for row in rows}

    return _read(folder, parse, "not used") or {}


def _read(folder: RunFolder, parse: Callable[[pa.Table], T], if_damaged: str) -> T | None:
    def parse_file(data: bytes) -> T:
        try:
            return parse(pq.read_table(io.BytesIO(data), page_checksum_verification=True))
        except pa.ArrowException as error:
            raise DamagedFileError(str(error)) from error

    return folder.read(FILE, parse_file, if_damaged)


def _shown(planned: Record, row: Mapping[str, Any], metrics: list[dict[str, float]]) -> Record:
    best = None
    if row["score"] is not None:
        best = Score(row["best_epoch"], row["score"], bool(row["averaged"]), row["val_acc"])
    error = {"message": row["error"]} if row["error"] is not None else None
    return planned.with_(status=row["status"], metrics=metrics, best=best, error=error)


def _row(record: Record) -> dict[str, Any]:
    best = asdict(record.best) if record.best else {}
    row = {name: getattr(record, name) for name in ("id", "name", "status", "seed", "epoch", "epochs")}
    origins = "; ".join(origin.in_words() for origin in record.origins)
    row |= {"own_epochs": len(record.own_metrics), "origins": origins or None}
    row |= {name: best.get(name) for name in ("score", "val_acc", "averaged")}
    row |= {"best_epoch": best.get("epoch"), "error": (record.error or {}).get("message")}
    row |= flatten(record.config, "config.")
    return row | {f"curve.{tag}": curve for tag, curve in _curves(record.metrics)}


def _curves(history: Sequence[Mapping[str, float]]) -> Iterable[tuple[str, Sequence[float | None]]]:
    tags = list(dict.fromkeys(chain.from_iterable(history)))
    if all(len(metrics) == len(tags) for metrics in history):  # as ever; what follows below takes three times as long
        return zip(tags, zip(*map(itemgetter(*tags, tags[0]), history), strict=True), strict=False) if tags else ()
    return [(tag, [metrics.get(tag) for metrics in history]) for tag in tags]


def _column(name: str, values: list[Any]) -> pa.Array:
    """A column of one type; settings of mixed types, such as names and lists, become text."""
    if name in COLUMNS or name.startswith("curve."):
        return pa.array(values, COLUMNS.get(name, CURVE))
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])
