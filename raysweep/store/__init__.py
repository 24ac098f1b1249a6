"""The run folder: what a sweep produced, committed so that a rerun can go on from it.

* `filesystem`   one interface to a local folder, NFS, S3 and GCS; `faults`: which of their faults pass
* `document`     JSON with a checksum: the form of `record`, `spent` and `resolved` (the plan of the last run)
* `runfolder`    records and weights, committed together; `uploads`: beside training
* `lease`        one driver at a time
* `exports`      results.parquet, rebuilt from the records; `tensorboard`: TensorBoard files
* `newest`       epochs that results.parquet does not have yet

Only `exports`, `tensorboard` and object stores import more than the standard library and pydantic.
"""

from raysweep.store.record import Record, Score, WeightsFile
from raysweep.store.runfolder import RunFolder

__all__ = ["Record", "RunFolder", "Score", "WeightsFile"]
