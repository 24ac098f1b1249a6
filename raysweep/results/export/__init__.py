"""A run in other people's tools, each an optional package: MLflow, Weights & Biases, trackio.

* `exported`  what is exported of a run, as plain data
* `mlflow`, `wandb`, `trackio`  a tool each: `export(sweep)`, which may be repeated and leaves nothing twice
* `tools`     which tools there are; following a run
"""

from raysweep.results.export.tools import TOOLS, export, follow

__all__ = ["TOOLS", "export", "follow"]
