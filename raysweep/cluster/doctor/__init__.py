"""Whether a cluster can run sweeps: `raysweep doctor`.

* facts      facts of one node, gathered by an actor there
* checks     facts -> findings, each with its remedy; pure
* examine    the connected cluster: facts, storage, clocks, autoscaler, slots
"""
