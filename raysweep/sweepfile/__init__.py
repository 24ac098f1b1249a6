"""A sweep file: YAML text and overrides to a checked, frozen `Sweep`.

* `document`     YAML to plain values with lines
* `patch`        dotted keys
* `schema`       the sections, as pydantic models
* `load`         all of it together; errors in words
* `json_schema`  for editors
"""

from raysweep.sweepfile.load import load_sweep, storage_of
from raysweep.sweepfile.schema import Sweep

__all__ = ["Sweep", "load_sweep", "storage_of"]
