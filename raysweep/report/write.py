"""Writes the report into the run folder, or to a file that the user names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from raysweep.errors import UserError
from raysweep.report.content import Report, gather
from raysweep.report.markdown import as_markdown
from raysweep.report.page import as_html
from raysweep.report.table import as_csv
from raysweep.results.run import SweepResult, read_results
from raysweep.store import RunFolder
from raysweep.sweepfile import load_sweep, storage_of

SUFFIXES = (".html", ".md", ".csv")


def write_report(
    result: SweepResult, sweep_path: str | None = None, overrides: Sequence[str] = (), has_ended: bool = False
) -> str:
    """Write report.html, report.md with its pictures, and report.csv into the run folder; return the page's place.

    Args:
        result: of the run folder.
        sweep_path: of the sweep file, for the commands that the report tells.
        overrides: that the run was made with.
        has_ended: whether the run is over, though its driver, which writes its report, still holds the run folder.
    """
    report = gather(result, sweep_path, overrides, has_ended)
    text, pictures = as_markdown(report, "report")
    files = result.folder.files
    for name, data in pictures.items():
        files.write(f"report/{name}", data)
    files.write("report.md", text.encode())
    files.write("report.csv", as_csv(report).encode())
    files.write("report.html", as_html(report).encode())
    return f"{result.path}/report.html"


def print_report(
    sweep_path: str,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    to: str | None = None,
    as_json: bool = False,
) -> int:
    """Write the report of a run, which may still go on; say where it is; return the exit code.

    Args:
        sweep_path: of the sweep file.
        overrides: `key=value` each; of them, `name` and `storage` tell which run folder it is.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.
        to: a file to write instead, its kind told by its suffix: .html, .md or .csv.
        as_json: print one JSON document on stdout.

    Raises:
        UserError: the sweep was never run here, or `to` is of no kind that we write.
    """
    if to is not None and Path(to).suffix not in SUFFIXES:
        raise UserError(f"--to {to}: must end in one of {', '.join(SUFFIXES)}")
    sweep = load_sweep(sweep_path, overrides)
    result = read_results(RunFolder(storage_of(sweep, sweep_path, storage), sweep.name), live=True, lenient=True)
    if to is None:
        place = write_report(result, sweep_path, overrides)
    else:
        place = to
        _write_to(Path(to), gather(result, sweep_path, overrides))
    if as_json:
        print(json.dumps({"name": sweep.name, "path": place}))
    else:
        Console().print(place, highlight=False, markup=False, soft_wrap=True)
    return 0


def _write_to(path: Path, report: Report) -> None:
    pictures: dict[str, bytes] = {}
    match path.suffix:
        case ".html":
            text = as_html(report)
        case ".csv":
            text = as_csv(report)
        case _:
            text, pictures = as_markdown(report, f"{path.stem}_files")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    for name, data in pictures.items():
        target = path.parent / f"{path.stem}_files" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
