"""JSON documents that carry their own checksum, so that a reader notices a torn file or a flipped bit.

A right checksum does not make the content right, so a reader checks the types as well (`checked`).
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

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


def checked(kind: Any, body: Any) -> Any:
    """Return a document as an object of a kind, a dataclass for example; raise DamagedFileError if it cannot be one."""
    try:
        return _adapter(kind).validate_python(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        way = ".".join(map(str, first["loc"]))
        raise DamagedFileError(f"{way}: {first['msg']}" if way else first["msg"]) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_bytes(document: dict[str, Any]) -> bytes:
    """Serialise a document."""
    return json.dumps(document, indent=1, default=str).encode()
