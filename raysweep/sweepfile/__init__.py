"""A sweep file: YAML text and overrides to a checked, frozen `Sweep`.

* `document`     YAML to plain values with lines
* `patch`        dotted keys
* `schema`       the sections, as pydantic models
* `overrides`    what the command line patches
* `hints`        what an unknown key was meant to be
* `messages`     pydantic's errors in our words
* `plan`         a sweep to its trials
* `idle`         what a file says in vain; `replaced`, which values reach no trial
* `search`       whether any config accepts what a search may propose; `space` and `proposals`, what that is
* `start`        whether trials can begin where the file says
* `load`         all of it together
* `named`        how the user named a sweep
* `json_schema`  for editors; `reference` for people
"""

from raysweep.sweepfile.load import load_sweep, storage_of, sweep_of
from raysweep.sweepfile.schema import Sweep

__all__ = ["Sweep", "load_sweep", "storage_of", "sweep_of"]
