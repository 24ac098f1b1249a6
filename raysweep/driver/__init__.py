"""Runs a sweep: the plan through Ray Tune, what the user sees, and how it ends.

* `run`      the story from sweep file to final table
* `cluster`  connecting to Ray, slots, what the cluster has
* `search`   the plan as a Tune Searcher; the scheduler
* `events`   Tune's callbacks to what is known of each trial
* `metrics`  what is known of the running trials, for Ray's dashboard and Prometheus
* `view`     the live table, or plain lines
* `stop`     Ctrl-C and SIGTERM
"""

from raysweep.driver.run import run_and_read, run_sweep

__all__ = ["run_and_read", "run_sweep"]
