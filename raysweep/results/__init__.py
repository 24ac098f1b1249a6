"""A run folder read: records in, what they say out. No Ray.

* `run`         `SweepResult`: the configs of a run, best first, for Python, `status` and the end of a run
* `ranking`     which config is best, by the mean over its seeds
* `trade_offs`  with several objectives: which configs no other one dominates
* `winner`      who won, how surely, and who may be as good: scores in, numbers out
* `verdict`     the same of a run, in sentences
* `confirm`     which of the best configs are trained again, with which fresh seeds
* `rerun`       what a rerun makes of the run
* `comparison`  runs side by side
* `checkpoint`  the best weights as a folder that is enough to load the network
* `evaluation`  the winner's accuracies at the end
* `evidence`    which validation images each trial got right
* `mistakes`    what the winner and the runner-up answer on the validation images
* `by_class`    accuracy by class, classes taken for one another, two networks on the same images
* `hours`       GPU-hours
* `settings`    the settings in which trials differ, for people
* `start`       the trial of another run that a sweep begins from
* `offers`      the states that other run folders have for it
* `table`       the table of configs and their seeds
"""
