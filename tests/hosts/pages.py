"""The commands of the pages on clusters, which the proofs of this folder run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
"""What a day with a cluster is, in order: each names the command of docs/clusters.md that begins so."""
PAGES = {
    "own_machines": ("make venv", *STEPS[1:3], "cp docs/own_machines.yaml", *STEPS[3:]),
    "aws": (
        "make venv",
        "aws cloudformation deploy",
        "aws cloudformation describe-stacks",
        *STEPS[1:7],
        *STEPS[8:],
    ),
}
"""What the pages have, which begin with nothing."""


def cluster_commands() -> dict[str, str]:
    """The commands of docs/clusters.md by STEPS, in order, without their comments."""
    text = (CHECKOUT / "docs" / "clusters.md").read_text()
    return commands_in(text.partition("\n## From `ray up` to `ray down`\n")[2], STEPS)


def page_commands(page: str) -> dict[str, str]:
    """The commands of the first shell block of a page."""
    return commands_in((CHECKOUT / "docs" / f"{page}.md").read_text(), PAGES[page])


def commands_in(text: str, steps: tuple[str, ...]) -> dict[str, str]:
    """The commands of the first shell block, by the step with which each begins, or by itself."""
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block, "no shell block"
    lines = [line.partition("  #")[0].strip() for line in block[1].replace("\\\n", " ").splitlines()]
    return {next((step for step in steps if line.startswith(step)), line): line for line in lines if line}


def put_in(command: str, names: Mapping[str, str]) -> str:
    """A command as a shell takes it, with names of here in place of the page's; what the checkout has is not made."""
    command = command.removesuffix("&").removeprefix("make venv && ")
    for there, here in names.items():
        command = command.replace(there, here)
    return command
