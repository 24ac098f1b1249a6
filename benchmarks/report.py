"""What a report costs, for runs of 25, 100 and 5,000 trials of 70 epochs: seconds of one core, memory, sizes.

The run folders are made without training (tests/run_folders.py), of random learning rates, momenta and augmentations.
They are read from the local disk; then all three kinds of report and the pictures are made and written.
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _report import emit, parse_arguments

sys.path.append(str(Path(__file__).parent.parent / "tests"))
SWEEP = """
name: {{name}}
base: {{{{data: synthetic, epochs: {{epochs}}, model: baseline_block}}}}
random:
  samples: {trials}
  lr: {{{{log_uniform: [0.005, 0.5]}}}}
  optimizer.momentum: {{{{uniform: [0.5, 0.99]}}}}
  augment: {{{{choice: [none, medium]}}}}
scheduler: {{scheduler}}
limits: {{{{trials: 100000}}}}
"""
EPOCHS = 70


def measure(trials: int) -> dict[str, float]:
    """Make a run folder, read it and write its report; return the figures."""
    from run_folders import make_run

    from raysweep.report import write_report
    from raysweep.results.run import open_run

    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder), "made", EPOCHS, text=SWEEP.format(trials=trials))
        began = time.process_time()
        result = open_run(f"{folder}/runs/made")
        read = time.process_time()
        page = Path(write_report(result)).read_bytes()
        made = time.process_time()
        assert len(result.trials) == trials
        return {
            f"read_s_{trials}": read - began,
            f"made_s_{trials}": made - read,
            f"memory_mb_{trials}": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            f"page_mb_{trials}": len(page) / 1e6,
            f"page_gzip_mb_{trials}": len(gzip.compress(page)) / 1e6,
            f"markdown_mb_{trials}": _size(folder, "report.md", "report/*.svg"),
            f"csv_mb_{trials}": _size(folder, "report.csv"),
        }


def _size(folder: str, *patterns: str) -> float:
    files = (path for pattern in patterns for path in Path(folder, "runs/made").glob(pattern))
    return sum(path.stat().st_size for path in files) / 1e6


def main() -> None:
    arguments = parse_arguments(__doc__)
    figures: dict[str, float] = {}
    for trials in (25, 100) if arguments.quick else (25, 100, 5000):
        words = [sys.executable, __file__, "--measure", str(trials)]  # a process each, for its memory
        figures |= json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    emit("report", figures, {"page_mb_100": ("<=", 1.5)}, arguments)


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measure(int(sys.argv[-1]))))
    else:
        main()
