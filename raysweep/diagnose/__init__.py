"""What a trial's epochs say: dips, divergence, overfitting, underfitting, plateaus, each with its evidence.

In: recorded metrics alone (`raysweep.store.Record`). Out: findings in numbers and words.

* `thresholds`  what counts as a finding; every number can be set
* `findings`    what a diagnosis consists of
* `curves`      metrics as arrays; the noise of a curve
* `trial`       the findings of one trial: `diagnose`
* `causes`      evidence for and against each cause of a dip or divergence
* `sweep`       which settings go with which findings and with the score: `diagnose_sweep`
* `words`       both as sentences
"""

from raysweep.diagnose.findings import Cause, Diagnosis, Evidence, Finding, Kind
from raysweep.diagnose.rules import Thresholds
from raysweep.diagnose.sweep import SweepDiagnosis, diagnose_sweep
from raysweep.diagnose.trial import diagnose, diagnose_record

__all__ = [
    "Cause",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Kind",
    "SweepDiagnosis",
    "Thresholds",
    "diagnose",
    "diagnose_record",
    "diagnose_sweep",
]
