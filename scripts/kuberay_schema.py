"""Makes the schemas that tests/cluster/test_kuberay.py holds a RayJob against, from a checkout of ray-project/kuberay.

Usage: scripts/kuberay_schema.py CHECKOUT TAG...
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

DEFINITION = "helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml"
FOLDER = Path(__file__).parents[1] / "tests" / "cluster" / "kuberay"


def main(checkout: str, *tags: str) -> None:
    """Write the schema of ray.io/v1 as each tag has it, unchanged, with where it is from and its license."""
    for tag in tags:
        show = ["git", "-C", checkout, "show", f"{tag}:{DEFINITION}"]
        text = subprocess.run(show, check=True, capture_output=True, text=True).stdout
        versions = YAML(typ="safe").load(text)["spec"]["versions"]
        [schema] = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
        document = {"from": f"ray-project/kuberay {tag}, {DEFINITION}", "license": "Apache-2.0", "schema": schema}
        content = json.dumps(document, separators=(",", ":")).encode()
        (FOLDER / f"rayjob-{tag}.json.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
