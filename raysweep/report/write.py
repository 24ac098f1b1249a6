"""Writes the report into the run folder, or to a file that the user names."""

from __future__ import annotations

from pathlib import Path

from raysweep.errors import UserError
from raysweep.report.content import Report, gather
from raysweep.report.markdown import as_markdown
from raysweep.report.page import as_html
from raysweep.report.pictures import draw
from raysweep.report.table import as_csv
from raysweep.results.run import SweepResult
from raysweep.sweepfile.named import Named

PICTURES = (".svg", ".webp")
KINDS = {".html": (".html",), ".md": (".md", *PICTURES), ".csv": (".csv",)}
"""The kinds of report by their suffix, with the suffixes of all their files."""


def write_report(result: SweepResult, named: Named | None = None, has_ended: bool = False) -> str:
    """Write report.html, report.md with its pictures, and report.csv into the run folder; return the page's place.

    Args:
        result: what the run folder holds.
        named: how the run was named, for the commands that the report tells; default: by the run folder's sweep.yaml.
        has_ended: whether the run is over, though its driver, which writes its report, still holds the run folder.
    """
    files = _files(gather(result, named, has_ended), "report", "report")
    for name, data in files.items():
        result.folder.files.write(name, data)
    for name in result.folder.files.list_files("report"):
        if name not in files and name.endswith(PICTURES):  # of an earlier report
            result.folder.files.delete(name)
    return f"{result.path}/report.html"


def write_report_to(path: Path, result: SweepResult, named: Named | None = None) -> None:
    """Write the report to a file, its kind told by the suffix: .html, .md (with a folder of pictures) or .csv.

    Raises:
        UserError: the suffix is another one.
    """
    if path.suffix not in KINDS:
        raise UserError(f"--to {path}: must end in one of {', '.join(KINDS)}")
    for name, data in _files(gather(result, named), path.stem, f"{path.stem}_files").items():
        if name.endswith(KINDS[path.suffix]):
            target = path.parent / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def _files(report: Report, stem: str, folder: str) -> dict[str, bytes]:
    """Return the report's files by name, pictures in a folder first, since the Markdown shows them; the page last."""
    pictures = draw(report)
    text, images = as_markdown(report, pictures, folder)
    return {
        **{f"{folder}/{name}": data for name, data in images.items()},
        f"{stem}.md": text.encode(),
        f"{stem}.csv": as_csv(report).encode(),
        f"{stem}.html": as_html(report, pictures).encode(),
    }
