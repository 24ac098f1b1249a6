"""What `submit --write` writes in place of submitting it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysweep.errors import UserError

STDOUT = Path("-")


def write_job(arguments: argparse.Namespace, text: str, said: Sequence[str], more: Mapping[str, Any]) -> None:
    """Write a job's text into the file that the user named, or to stdout, and say what to do with it.

    Args:
        arguments: those of `submit`, with `write` and `json`.
        text: what the job's file has.
        said: lines for stderr.
        more: what `--json` tells of the job beside its file.

    Raises:
        UserError: the file cannot be written.
    """
    path: Path = arguments.write
    if path == STDOUT:
        print(text, end="")
    else:
        try:
            path.write_text(text)
        except OSError as error:
            raise UserError(f"--write {path}: cannot be written: {error.strerror}") from error
    for line in said:
        print(line, file=sys.stderr)
    if arguments.json:
        print(json.dumps({"file": os.path.abspath(path), **more}))
