"""Writes the report into the run folder, or to a file that the user names."""

from __future__ import annotations

from pathlib import Path

from raysweep.errors import UserError
from raysweep.report.content import gather
from raysweep.report.markdown import as_markdown
from raysweep.report.page import as_html
from raysweep.report.pictures import draw
from raysweep.report.table import as_csv
from raysweep.results.run import SweepResult
from raysweep.sweepfile.named import Named

SUFFIXES = (".html", ".md", ".csv")


def write_report(result: SweepResult, named: Named | None = None, has_ended: bool = False) -> str:
    """Write report.html, report.md with its pictures, and report.csv into the run folder; return the page's place.

    Args:
        result: what the run folder holds.
        named: how the run was named, for the commands that the report tells; default: by the run folder's sweep.yaml.
        has_ended: whether the run is over, though its driver, which writes its report, still holds the run folder.
    """
    report = gather(result, named, has_ended)
    pictures = draw(report)
    text, images = as_markdown(report, pictures, "report")
    files = result.folder.files
    for name, data in images.items():
        files.write(f"report/{name}", data)
    files.write("report.md", text.encode())
    files.write("report.csv", as_csv(report).encode())
    files.write("report.html", as_html(report, pictures).encode())
    return f"{result.path}/report.html"


def write_report_to(path: Path, result: SweepResult, named: Named | None = None) -> None:
    """Write the report to a file, its kind told by the suffix: .html, .md (with a folder of pictures) or .csv.

    Raises:
        UserError: the suffix is another one.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--to {path}: must end in one of {', '.join(SUFFIXES)}")
    report = gather(result, named)
    images: dict[str, bytes] = {}
    match path.suffix:
        case ".html":
            text = as_html(report, draw(report))
        case ".csv":
            text = as_csv(report)
        case _:
            text, images = as_markdown(report, draw(report), f"{path.stem}_files")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    for name, data in images.items():
        target = path.parent / f"{path.stem}_files" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
