"""Three hosts that differ in what they see: each difference is told in one sentence before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from namespace_hosts import DASHBOARD, Hosts, wait_until
from test_on_premise import STORAGE, Cluster

import raysweep

SWEEP = """
name: differ
base: {{data: {data}, epochs: 2, batch_size: 32}}
grid: {{model: [baseline_block], model.width: [4], lr: [0.1, 0.01]}}
resources: {{cpus: 1}}
"""
SYNTHETIC = "{name: synthetic, image_size: 8, classes: 3, per_class: 40}"
IMAGES = "{name: folder, path: /root/images, image_size: 8, val_fraction: 0.5}"
DRAW = """
from pathlib import Path
from PIL import Image
for number in range({count}):
    for label in ("cat", "dog"):
        path = Path("/root/images", label, f"{{number}}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
"""
PACKAGE = Path(raysweep.__file__).parent
BEFORE_THE_EDIT = f"""
cp -r {PACKAGE} /root/older
echo '# before the edit' >> /root/older/halving/rules.py
mount --bind /root/older {PACKAGE}
"""
"""What has a host see other code in the package's place; other hosts have mounts of their own."""


class Bench:
    """A cluster of h1, the head, and the workers h2 and h3, at which sweeps are thrown."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.cluster = Cluster(hosts, 2)
        hosts.run("bash", "-ec", BEFORE_THE_EDIT, host="h3")
        self.cluster.up()
        self.cluster.tunnel()
        wait_until(lambda: "3 local.cluster.node" in self.cluster.exec("ray status"), 120, "all workers joined")

    def submit(self, data: str, *words: str, code: int, storage: str = STORAGE) -> str:
        (self.hosts.shared / "differ.yaml").write_text(SWEEP.format(data=data))
        return self.cluster.raysweep("submit", "/tmp/shared/differ.yaml", "--storage", storage, *words, code=code)

    def doctor(self, data: str, *words: str) -> str:
        (self.hosts.shared / "differ.yaml").write_text(SWEEP.format(data=data))
        command = ("doctor", "/tmp/shared/differ.yaml", "--storage", STORAGE, "--address", DASHBOARD)
        return self.cluster.raysweep(*command, *words, code=None)

    def has_trained(self, storage: str = "/tmp/shared/runs") -> bool:
        return any(
            "record.json" in self.hosts.run("find", storage, "-name", "record.json", host=host, code=None)
            for host in ("h1", "h2", "h3")
        )


def sentence(said: str, pattern: str) -> None:
    """There is one line that says it, and no traceback."""
    (line,) = (line for line in said.splitlines() if re.search(pattern, line))
    assert "Traceback" not in said, said
    print(line)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_code_storage_and_data_that_differ_between_hosts_are_each_refused_before_training(
    make_hosts: Callable[..., Hosts], shared: Path
) -> None:
    bench = Bench(make_hosts(3))
    hosts = bench.hosts
    said = bench.submit(SYNTHETIC, code=2)
    sentence(
        said, r"^other code than here, on h1: raysweep/halving/rules.py on h3; .*take the cluster down and up again"
    )
    assert re.search(
        "error +code: other code than here, on h1: raysweep/halving/rules.py on h3", bench.doctor(SYNTHETIC)
    )
    hosts.run("umount", "--lazy", PACKAGE, host="h3")

    said = bench.submit(SYNTHETIC, code=2, storage="/root/runs")
    sentence(said, r"^/root/runs/differ: what h1 wrote there is not seen on h2, h3; every node must see the run folder")
    assert not bench.has_trained("/root/runs")
    assert "No such file" in hosts.run("ls", "/root/runs", host="h2", code=None)

    said = bench.submit(IMAGES, code=2)
    sentence(said, r"^h2, h3: folder: no such folder or zip archive; looked at /root/images")
    hosts.run("python", "-c", DRAW.format(count=4), host="h2")
    hosts.run("python", "-c", DRAW.format(count=5), host="h3")
    said = bench.submit(IMAGES, code=2)
    sentence(said, r"^folder: not the same files on all nodes: 8 files of [\d,]+ bytes on h2; 10 files of .* on h3")
    assert re.search("error +data: folder: not the same files", bench.doctor(IMAGES))
    assert not bench.has_trained()

    hosts.run("rm", "-rf", "/root/images", host="h2")
    assert re.search("warning +data: h2: folder: no such folder", bench.doctor(IMAGES))
    said = bench.submit(IMAGES, code=0)
    sentence(said, "^h2: folder: no such folder.*; prepared on another node that has the files")
    assert "best checkpoint" in said
