"""What every section of a sweep file is made of: the bases of its models, and the checks that they share.

No torch, no Ray.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Config(BaseModel):
    """Base of all sections: frozen, unknown keys refused, docstrings under fields are their descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        strict=True,
        protected_namespaces=(),
    )


class Section(Config):
    """Base of the sections inside a loop's settings; it takes whatever pydantic can read as the field's type."""

    model_config = ConfigDict(strict=False)


class LoopConfig(Section):
    """The base of a training loop's settings of one trial: what the rest of raysweep asks of them."""

    not_in_id: ClassVar[tuple[str, ...]] = ()
    """Dotted keys that do not decide a trial's id unless they are an axis."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    """How many epochs a trial trains."""

    def label(self) -> str:
        """Return a short readable name, made from these settings alone; ids begin with it.

        It has the numbers, words and switches that are not as by default.
        """
        given = ((name, getattr(self, name), field.default) for name, field in type(self).model_fields.items())
        told = [(name, value) for name, value, default in given if name != "epochs" and value != default]
        parts = [f"{name}{_short(value)}" for name, value in told if isinstance(value, (int, float, str))]
        return "-".join(parts) or "trial"

    def why_without(self, metric: str) -> str | None:
        """Return the setting because of which a trial has no such metric to be ranked by; None if it has it."""
        return None

    def idle_settings(self) -> dict[str, str]:
        """Return why settings have no effect in this trial, by dotted key."""
        return {}

    def paths(self) -> dict[str, str]:
        """Return the places in the file system that these settings name, by dotted key."""
        return {}


def _short(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def section(default_name: str, key: str = "name") -> BeforeValidator:
    """Let `section: x` stand for `section: {name: x}`, and a section without a name (`key`) have its default one."""

    def complete(value: Any) -> Any:
        if isinstance(value, str):
            return {key: value}
        return {key: default_name, **value} if isinstance(value, dict) else value

    return BeforeValidator(complete)


def check_no_credentials(place: str) -> str:
    """Raise ValueError, without repeating it, if a URL carries credentials; return it if not."""
    try:
        url = urlsplit(place)
    except ValueError:
        raise ValueError("must be a path or a well-formed URL") from None
    secrets = [key for key, _ in parse_qsl(url.query) if SECRET.search(key)]
    if "@" in url.netloc or secrets:
        raise ValueError("must not hold credentials; give them in the environment (AWS_ACCESS_KEY_ID, ...)")
    return place


def is_secret(variable: str) -> bool:
    """Return whether an environment variable of that name holds a secret itself, and not the path of a file with it."""
    return bool(SECRET.search(variable)) and not PLACE.search(variable)


SECRET = re.compile(r"key|secret|token(?!iz)|password|passwd|signature|credential|authorization|sig\b", re.IGNORECASE)
"""Parameters of a URL and environment variables with such names hold secrets."""
PLACE = re.compile(r"_(FILE|PATH|DIR)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
"""Environment variables with such names say where something is."""
Probability = Annotated[float, Field(ge=0, le=1)]
T = TypeVar("T")
Pair = Annotated[tuple[T, T], Field(strict=False)]
Triple = Annotated[tuple[T, T, T], Field(strict=False)]
Fraction01 = Annotated[float, Field(gt=0, lt=1)]


def classes_of(annotation: Any) -> list[type[BaseModel]]:
    """The section classes inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in classes_of(inner)]


def kinds_of(model: type[BaseModel], section: str) -> list[type[BaseModel]]:
    """Return the classes that a section may have, such as one for each optimizer."""
    field = model.model_fields.get(section)
    return classes_of(field.annotation) if field else []


def kind_named(kinds: Sequence[type[BaseModel]], name: Any) -> type[BaseModel] | None:
    """Return that of a section's kinds which a name chooses: the one of that name, or else the one that takes any."""
    own = next((kind for kind in kinds if name in names_of(kind)), None)
    return own or next((kind for kind in kinds if not names_of(kind)), None) if len(kinds) > 1 else own


def names_of(model: type[BaseModel]) -> tuple[Any, ...]:
    """Return the values of `name` that choose this class; none if its section has one class only."""
    field = model.model_fields.get("name")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
