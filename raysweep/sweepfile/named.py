"""How a command line named a sweep: what messages and the report need in order to print the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Named:
    """A sweep as the user named it; everything is as it was typed."""

    path: str  # the sweep file
    overrides: tuple[str, ...] = ()  # `key=value` each; they patch the file
    storage: str | None = None  # where run folders lie, if the command line said so
    imports: tuple[str, ...] = ()  # the modules of `--import`
    text: str | None = None  # the sweep as YAML, where it was given from Python as values and `path` is no file

    @property
    def without_cluster(self) -> Named:
        """The same sweep, without what only says where it is to run."""
        return replace(self, overrides=tuple(each for each in self.overrides if not each.startswith("cluster.")))

    def in_words(self) -> str:
        """Return the words by which another command reads the same sweep and finds the same run folder."""
        storage = ["--storage", self.storage] if self.storage else []
        return shlex.join([self.path, *self.overrides, *import_flags(self.imports), *storage])


def import_flags(imports: Iterable[str]) -> list[str]:
    """Return the flags by which a command line names these modules."""
    return [word for module in imports for word in ("--import", module)]
