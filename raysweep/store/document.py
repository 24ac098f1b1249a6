"""JSON documents that carry their own checksum, so that a reader notices a torn file or a flipped bit."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEAL = "sha256"


class DamagedFileError(Exception):
    """A file is torn, or a bit of it is flipped."""


DAMAGE = (DamagedFileError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What parsing a damaged file may raise."""


def digest(body: Any) -> str:
    """The sha256 of a document; the order of its keys and its layout do not matter."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


def verify(body: Any, checksum: object) -> None:
    """Compare a document with its checksum; raise DamagedFileError if they do not match."""
    if checksum != digest(body):
        raise DamagedFileError("its checksum does not match")


def seal(body: dict[str, Any]) -> dict[str, Any]:
    """The document with its checksum as its first entry."""
    return {SEAL: digest(body), **body}


def unseal(document: dict[str, Any]) -> dict[str, Any]:
    """The document without its checksum; raise DamagedFileError if it has none, or another one."""
    if SEAL not in document:
        raise DamagedFileError("has no checksum")
    body = {key: value for key, value in document.items() if key != SEAL}
    verify(body, document[SEAL])
    return body


def to_bytes(document: dict[str, Any]) -> bytes:
    """Serialise a document."""
    return json.dumps(document, indent=1, default=str).encode()
