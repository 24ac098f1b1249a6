"""Networks by name: the report's own (`report`), torchvision's classifiers, and those a user registered."""

from raysweep.models.build import build_model, check_image_size

__all__ = ["build_model", "check_image_size"]
