"""The commands of the README's "On a cluster", which the proofs of this folder run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
STEPS = (
    "source .venv/bin/activate",
    "ray get-auth-token",
    "export RAY_AUTH_MODE=token",
    "ray up",
    "ray dashboard",
    "raysweep doctor",
    "raysweep submit",
    "raysweep status",
    "raysweep pull",
    "ray down",
)
"""What the proof on hosts of one's own does, in order: each names the README's command that begins so."""


def readme_commands() -> dict[str, str]:
    """The commands by their first two words, in order, without their comments."""
    return commands_under((CHECKOUT / "README.md").read_text(), "## On a cluster")


def commands_under(text: str, heading: str) -> dict[str, str]:
    """The commands of the first shell block under a heading."""
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block, f"no shell block under {heading}"
    lines = [line.partition("  #")[0].strip() for line in block[1].splitlines()]
    return {" ".join(line.split()[:2]): line for line in lines if line}
