"""JSON documents that carry their own checksum, so that a torn or flipped one is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEAL = "sha256"


class TornFileError(Exception):
    """A file is not whole: torn, or a bit of it flipped."""


def digest(body: dict[str, Any]) -> str:
    """The sha256 of a document, however it is laid out."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


def seal(body: dict[str, Any]) -> dict[str, Any]:
    """The document with its checksum, as its first entry."""
    return {SEAL: digest(body), **body}


def unseal(document: Any) -> dict[str, Any]:
    """The document without its checksum.

    Raises:
        TornFileError: it has none, or another one.
    """
    if not isinstance(document, dict) or SEAL not in document:
        raise TornFileError("has no checksum")
    body = {key: value for key, value in document.items() if key != SEAL}
    if document[SEAL] != digest(body):
        raise TornFileError("its checksum does not match")
    return body


def to_bytes(body: dict[str, Any]) -> bytes:
    """Serialise, with a checksum."""
    return json.dumps(seal(body), indent=1, default=str).encode()


def from_bytes(data: bytes) -> dict[str, Any]:
    """Parse and verify.

    Raises:
        TornFileError: the bytes are not a whole document.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TornFileError(f"not a whole document ({error})") from error
    return unseal(document)
