"""How a command line named a sweep: what messages and the report need in order to print the next command."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """A sweep as the user named it; everything is as it was typed."""

    path: str  # the sweep file
    overrides: tuple[str, ...] = ()  # `key=value` each; they patch the file
    storage: str | None = None  # where run folders lie, if the command line said so

    def in_words(self) -> str:
        """Return the words by which another command finds the same run folder."""
        decisive = [override for override in self.overrides if override.startswith(("name=", "storage="))]
        return shlex.join([self.path, *decisive, *(["--storage", self.storage] if self.storage else [])])
