"""The run folder: what a sweep produced, committed so that a rerun can go on from it.

* `filesystem`  one interface to a local folder, NFS, S3 and GCS
* `record`      what is known of one trial
* `runfolder`   records and weights committed together; who drives the run
* `views`       results.parquet and TensorBoard files, rebuilt from the records
"""

from raysweep.store.record import Record, Score, WeightsFile
from raysweep.store.runfolder import RunFolder

__all__ = ["Record", "RunFolder", "Score", "WeightsFile"]
