"""Runs a sweep: the plan through Ray Tune, what the user sees, and how it ends.

* `run`           the story from sweep file to exit code, told by `before`, `during` and `summary`
* `queue`         whose turn it is; `scheduler` passes Tune's questions to it
* `events`        Tune's callbacks to `board`, what is known of each trial; `failures` says whose fault a death was
* `endings`       commits for trials that hold no slot
* `housekeeping`  repeated actions beside Tune; `limits` counts hours, `metrics` feeds Ray's dashboard and Prometheus
* `view`          the live table, or plain lines
* `stop`          Ctrl-C and SIGTERM
"""

from raysweep.driver.run import run_and_read, run_sweep

__all__ = ["run_and_read", "run_sweep"]
