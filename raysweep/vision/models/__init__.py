"""Networks by name: the report's own (`report`), torchvision's classifiers, and those a user registered.

* `build`            a network from its config; whether it takes images of a size
* `report`           the source report's networks
* `summary`          parameters, FLOPs, stage sizes, from one pass on the meta device
* `receptive_field`  followed through that pass, operator by operator
* `listing`          `raysweep models`
"""

from raysweep.vision.models.build import build_model, check_image_size

__all__ = ["build_model", "check_image_size"]
