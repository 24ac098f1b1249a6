"""Whether a cluster can run sweeps: `raysweep doctor`.

* facts      what a node says of itself, gathered by an actor on each
* checks     facts -> findings, each with its remedy; pure
* examine    the cluster we are connected to: facts, storage, clocks, autoscaler, slots
"""
