"""The plotting library that the report page carries."""

from __future__ import annotations

import hashlib
from importlib import resources

VENDOR = resources.files("raysweep.report").joinpath("assets", "vendor")


def test_the_vendored_library_is_the_one_that_its_version_names() -> None:
    package, *files = VENDOR.joinpath("VERSION").read_text().splitlines()
    name, version, _ = package.split()
    assert name == "uplot"
    assert f"(v{version})" in VENDOR.joinpath("uPlot.iife.min.js").read_text()[:200]
    for line in files:
        digest, file = line.split()
        assert hashlib.sha256(VENDOR.joinpath(file).read_bytes()).hexdigest() == digest, file
