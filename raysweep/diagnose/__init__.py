"""What a trial's epochs say: dips, divergence, overfitting, underfitting, plateaus, each with its evidence.

In: recorded metrics alone (`raysweep.store.Record`). Out: findings in numbers and words.

* `curves`    metrics as arrays; the noise of a curve
* `findings`  what a diagnosis consists of
* `rules`     the kinds of findings: how each is found and put into words; `diagnose`
* `causes`    evidence for and against each cause of a dip or divergence
* `thresholds`  the numbers that both compare with
* `sweep`     which settings go with which findings and with the score: `diagnose_sweep`
* `words`     both as sentences
"""

from raysweep.diagnose.findings import Cause, Diagnosis, Evidence, Finding, Kind
from raysweep.diagnose.rules import diagnose, diagnose_record
from raysweep.diagnose.sweep import SweepDiagnosis, diagnose_sweep
from raysweep.diagnose.thresholds import Thresholds

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
