"""Numbers in words."""

from __future__ import annotations


def format_bytes(count: float) -> str:
    """Bytes with three digits and a decimal prefix."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
