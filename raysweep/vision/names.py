"""The built-in networks and data sources by name, each as `module:function`; `registry` reads these tables.

Nothing here imports torch or numpy, so that a sweep file is checked quickly.
"""

from __future__ import annotations

from pathlib import Path

from raysweep.vision.models.layouts import LAYOUTS

NETWORKS = {
    **{name: f"raysweep.vision.models.resnets:{name}" for name in LAYOUTS},
    # A network of another kind: "my_vgg": "raysweep.vision.models.my_vgg:my_vgg",
}

SOURCES = {
    path.stem: f"raysweep.vision.data.sources.{path.stem}:{path.stem}"
    for path in sorted((Path(__file__).parent / "data" / "sources").glob("[!_]*.py"))
}
"""Every module in `data/sources` is a source: it has a function of the module's name."""
