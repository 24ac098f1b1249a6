"""Removes the environment's secrets from documents: a failed trial's traceback may show one."""

from __future__ import annotations

import os
import re
from typing import Any

from raysweep.config import SECRET

SHORTEST = 8
"""Shorter values are not taken for secrets: they would be found everywhere."""
IN_URL = re.compile(rf"(?<=://)[^/\s@]+@|(?<=[?&])([\w-]*(?:{SECRET.pattern})[\w-]*)=[^&\s'\"]+", re.IGNORECASE)


def redact(value: Any) -> Any:
    """Return a document with `***` in place of the environment's secrets and of credentials in URLs."""
    if isinstance(value, dict):
        return {key: redact(entry) for key, entry in value.items()}
    if not isinstance(value, str):
        return value
    for secret in _secrets():
        value = value.replace(secret, "***")
    return IN_URL.sub(lambda found: f"{found[1]}=***" if found[1] else "***@", value)


def _secrets() -> list[str]:
    values = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST}
    return sorted(values, key=len, reverse=True)
