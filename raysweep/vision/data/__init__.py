"""From a source's files to the prepared set that trials read, by one call: `open_data(config, sweep_folder=...)`.

* `sources/`    the sources, one module each, found by name through `registry.DATA_SOURCES`
* `raw`         what a source gives: labels at once, encoded images row by row
* `tree`        image files in a folder, or in a zip archive that is read in place
* `selection`   which rows are trained on and which are held out
* `decode`      encoded rows to uint8 images, in parallel
* `cache`       digests of source files, the lock, folders that are whole or not there at all
* `prepare`     all of this in order, once for each content and config
* `dataset`     the prepared set: a `DataSet` of `Split`s; the mean and std that a trial's input is normalised by
* `unprepared`  images as a user has them, for `raysweep predict`
* `thumbnails`  prepared images made small, for the report
"""

from raysweep.vision.data.dataset import DataSet, mean_std
from raysweep.vision.data.prepare import load, open_data
from raysweep.vision.data.raw import RawData, RawSplit, from_pixels
from raysweep.vision.data.tree import open_tree, split_of

__all__ = ["DataSet", "RawData", "RawSplit", "from_pixels", "load", "mean_std", "open_data", "open_tree", "split_of"]
