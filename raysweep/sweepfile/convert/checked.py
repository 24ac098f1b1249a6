"""Checks parts of another tool's file, each as a model, and gathers all that is wrong with them."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raysweep.config import Config, classes_of
from raysweep.errors import did_you_mean
from raysweep.sweepfile.document import Keys, Source
from raysweep.sweepfile.messages import in_words

Model = TypeVar("Model", bound=Config)


class Checker:
    """Checks parts of a file; `problems` has what is wrong with them, each with its place."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[str] = []

    def problem(self, way: Keys, message: str) -> None:
        """Note that something is wrong at `way`."""
        self.problems.append(self.source.problem(way, message))

    def checked(self, model: type[Model], values: Any, way: Keys) -> Model | None:
        """Return what stands at `way` as a model, or note all that is wrong with it.

        `model` has no unions of sections, whose names would be among the ways to errors.
        """
        try:
            return model.model_validate(values)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                inside = (*way, *detail["loc"])
                self.problem(inside, _in_words(detail, model, inside))
            return None


def _in_words(detail: ErrorDetails, model: type[Config], way: Keys) -> str:
    if detail["type"] != "extra_forbidden":
        return in_words(detail, way)
    *sections, key = detail["loc"]
    inner: type[BaseModel] = model
    for section in sections:
        inner = classes_of(inner.model_fields[str(section)].annotation)[0]
    known = list(inner.model_fields)
    return f"unknown key{did_you_mean(str(key), known)}; allowed: {', '.join(known)}"
