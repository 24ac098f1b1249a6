"""The built-in networks and data sources by name, each as `module:function`, and the registries that hold them.

Whoever looks a name up takes the registry from here, so that the built-in ones are in it. Nothing here imports torch or
numpy, so that a sweep file is checked quickly.
"""

from __future__ import annotations

from pathlib import Path

from raysweep.registry import AUGMENTATIONS, DATA_SOURCES, MODELS
from raysweep.vision.layouts import LAYOUTS

__all__ = ["AUGMENTATIONS", "DATA_SOURCES", "MODELS"]

NETWORKS = {
    **{name: f"raysweep.vision.models.resnets:{name}" for name in LAYOUTS},
    # A network of another kind: "my_vgg": "raysweep.vision.models.my_vgg:my_vgg",
}

SOURCES = {
    path.stem: f"raysweep.vision.data.sources.{path.stem}:{path.stem}"
    for path in sorted((Path(__file__).parent / "data" / "sources").glob("[!_]*.py"))
}
"""Every module in `data/sources` is a source: it has a function of the module's name."""

MODELS.build_in(NETWORKS)
DATA_SOURCES.build_in(SOURCES)
