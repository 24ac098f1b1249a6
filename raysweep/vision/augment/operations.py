"""The operations that a sweep file may name, the presets made of them, and the type of the key `augment`.

A new operation is a class in `geometry` or in a module of its own, and a row of OPERATIONS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, SerializerFunctionWrapHandler, create_model, model_serializer, model_validator

from raysweep.config import Config
from raysweep.errors import did_you_mean
from raysweep.vision.augment.blur import Blur
from raysweep.vision.augment.color_jitter import ColorJitter
from raysweep.vision.augment.geometry import Crop, Flip, Rotate
from raysweep.vision.augment.operation import Operation
from raysweep.vision.augment.rand_augment import RandAugment
from raysweep.vision.augment.resized_crop import ResizedCrop
from raysweep.vision.names import AUGMENTATIONS

OPERATIONS: dict[str, type[Operation]] = {
    "flip": Flip,
    "rotate": Rotate,
    "blur": Blur,
    "color_jitter": ColorJitter,
    "crop": Crop,
    "resized_crop": ResizedCrop,
    "rand_augment": RandAugment,
}

_FLIPS: dict[str, Any] = {"flip": {"p": 0.5, "direction": "both"}}
_MEDIUM: list[dict[str, Any]] = [_FLIPS, {"rotate": {"degrees": 15}}, {"blur": {"kernel": 3}}]
_COLOR: dict[str, Any] = {
    "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05, "p": 0.5}
}
_JITTER: list[dict[str, Any]] = [
    {"flip": {"p": 0.25, "direction": "both"}},
    {"rotate": {"degrees": 15, "p": 0.5}},
    {"blur": {"kernel": 3, "p": 0.25}},
    _COLOR,
]

AUGMENT_PRESETS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "shift": [{"crop": {}}],
    "flip_shift": [{"flip": {}}, {"crop": {}}],
    "imagenet": [{"resized_crop": {}}, {"flip": {}}],
    "hard": [_FLIPS, {"rotate": {"degrees": 45}}, {"blur": {"kernel": 5}}],
    "medium": _MEDIUM,
    "jitter": _JITTER,
    "v1augs": [*_MEDIUM, _COLOR],
    "v2augs": _JITTER,
}
"""`flip_shift` is what most train CIFAR with, and `imagenet` ImageNet: both mirror images left to right alone. All that
come after these are the source report's. It gives the operations, kernels and angles; the probabilities, the blur's
sigma, the strengths of the colour jitter, and what v1augs and v2augs are, are our assumptions."""


class _Row(Config):
    """One row of an augmentation list: exactly one operation and its parameters."""

    @model_validator(mode="after")
    def _exactly_one(self) -> _Row:
        if sum(value is not None for _, value in self) != 1:
            names = ", ".join(OPERATIONS)
            raise ValueError(f"must name exactly one operation of {names}, with its parameters ({{}}: the defaults)")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the operations that the row does not name."""
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def operation(self) -> Operation:
        """The operation that the row names."""
        (operation,) = (value for _, value in self if value is not None)
        assert isinstance(operation, Operation)
        return operation


if TYPE_CHECKING:
    AugmentStep = _Row
else:
    AugmentStep = create_model(
        "AugmentStep",
        __base__=_Row,
        __doc__=_Row.__doc__,
        **{name: (kind | None, None) for name, kind in OPERATIONS.items()},
    )


def _check_augment(value: Any) -> Any:
    """Refuse what is neither a preset's or registered name nor a list of rows `{operation: {parameter: value}}`."""
    if isinstance(value, str):
        if value in AUGMENT_PRESETS or value in AUGMENTATIONS:
            return value
        known = [*AUGMENT_PRESETS, *AUGMENTATIONS.names()]
        raise ValueError(f"unknown augmentation {value!r}{did_you_mean(value, known)}; known: {', '.join(known)}")
    if not isinstance(value, list):
        raise ValueError("must be a preset's name or a list such as [{flip: {p: 0.5}}, {crop: {padding: 4}}]")
    return value


Augment = Annotated[str | list[AugmentStep], BeforeValidator(_check_augment)]
