"""The run folder: what a sweep produced, committed so that a rerun can go on from it.

* `filesystem`  one interface to a local folder, NFS, S3 and GCS
* `record`      what is known of one trial
* `runfolder`   records and weights committed together; who drives the run
* `views`       results.parquet, rebuilt from the records
* `tensorboard` TensorBoard files, rebuilt from the records

`record` and `sealed` import nothing heavy, and importing them imports nothing else here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysweep.store.record import Record, Score, WeightsFile
    from raysweep.store.runfolder import RunFolder

__all__ = ["Record", "RunFolder", "Score", "WeightsFile"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("raysweep.store.runfolder" if name == "RunFolder" else "raysweep.store.record"), name)
