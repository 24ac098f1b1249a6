"""What is built in by name, each as `module:attribute`, and the registries that hold it: networks, losses and so on.

Whoever looks a name up takes the registry from here, so that the built-in ones are in it. Nothing here imports torch or
numpy, so that a sweep file is checked quickly.
"""

from __future__ import annotations

from pathlib import Path

from raysweep.registry import AUGMENTATIONS, DATA_SOURCES, LOSSES, METRICS, MODELS, OPTIMIZERS, SCHEDULES
from raysweep.vision.layouts import LAYOUTS

__all__ = ["AUGMENTATIONS", "DATA_SOURCES", "LOSSES", "METRICS", "MODELS", "OPTIMIZERS", "SCHEDULES"]

NETWORKS = {
    **{name: f"raysweep.vision.models.resnets:{name}" for name in LAYOUTS},
    # A network of another kind: "my_vgg": "raysweep.vision.models.my_vgg:my_vgg",
}

SOURCES = {
    path.stem: f"raysweep.vision.data.sources.{path.stem}:{path.stem}"
    for path in sorted((Path(__file__).parent / "data" / "sources").glob("[!_]*.py"))
}
"""Every module in `data/sources` is a source: it has a function of the module's name."""

CROSS_ENTROPY = "cross_entropy"

OF_TORCH = {
    OPTIMIZERS: {"sgd": "optim:SGD", "adam": "optim:Adam", "adamw": "optim:AdamW", "muon": "optim:Muon"},
    SCHEDULES: {
        "constant": "optim.lr_scheduler:ConstantLR",
        "step": "optim.lr_scheduler:MultiStepLR",
        "cosine": "optim.lr_scheduler:CosineAnnealingLR",
        "wsd": "optim.lr_scheduler:SequentialLR",
    },
    LOSSES: {CROSS_ENTROPY: "nn.functional:cross_entropy"},
}
"""What the built-in ones are in torch (wsd is a ConstantLR and then a LinearLR). Each has keys of its own in a sweep
file, and is made where these are read."""

for _registry, _names in OF_TORCH.items():
    _registry.build_in({name: f"torch.{place}" for name, place in _names.items()})
MODELS.build_in(NETWORKS)
DATA_SOURCES.build_in(SOURCES)
