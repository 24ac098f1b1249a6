"""Augmentation: a sweep file's key `augment` in, a function on batches out.

* `operation`   what an operation is: its settings and its arithmetic
* `geometry`, `blur`, `color_jitter`   the operations: crop, flip, rotate; blur; color_jitter
* `operations`  their table, the presets, and the type of the key
* `batch`       `build_augment`: operations on whole batches; `Normalize`, which ends every batch
"""
