"""A run folder read: records in, what they say out. No Ray.

* `run`         `SweepResult`: the ranking of a run's trials, for Python, `status` and the end of a run
* `ranking`     who is best
* `rerun`       what a rerun makes of the run
* `comparison`  runs side by side
* `checkpoint`  the best weights as a folder that is enough to load the network
* `evaluation`  the winner's accuracies at the end
* `evidence`    which validation images each trial got right
* `mistakes`    what the winner and the runner-up answer on the validation images
* `by_class`    accuracy by class, classes taken for one another, two networks on the same images
* `hours`       GPU-hours
* `table`       the table of trials
"""
