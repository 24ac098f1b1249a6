"""Augmentation: a sweep file's key `augment` in, a function on batches out.

* `operation`   what an operation is: its settings and its arithmetic
* `geometry` (crop, flip, rotate), `resized_crop`, `blur`, `color_jitter`, `rand_augment`   the operations
* `operations`  their table, the presets, and the type of the key
* `batch`       `build_augment`: operations on whole batches; `Normalize`, which ends every batch
"""
