"""Probes in the report: their pictures, and findings that say what was tested."""

from __future__ import annotations

import html
from pathlib import Path
from xml.etree import ElementTree as ET

from run_folders import make_run

from raysweep.diagnose.futures import Future
from raysweep.diagnose.probe import judge
from raysweep.diagnose.probed import probe_of, write_probe
from raysweep.diagnose.words import describe
from raysweep.report.content import Report, gather
from raysweep.report.page import as_html
from raysweep.report.pictures import draw
from raysweep.results.run import open_run
from raysweep.store import RunFolder
from raysweep.sweepfile.plan import short_id


def gathered(folder: Path) -> Report:
    return gather(open_run(str(folder / "runs/made")))


def test_a_probe_is_drawn_and_its_finding_says_what_was_tested(tmp_path: Path) -> None:
    make_run(tmp_path)
    report = gathered(tmp_path)
    row, finding = next((row, each) for row in report.rows for each in row.diagnosis.findings if each.kind == "dip")
    assert "likely cause" in describe(finding)
    metrics, fell = row.record.metrics, finding.first
    better = [{**each, "val_acc": 0.5} for each in metrics[fell - 1 :][:2]]
    orders = [Future("order", seed, {}, 2, better) for seed in (7, 8, 9)]
    futures = [Future("control", row.record.seed, {}, 2, metrics[fell - 1 :][:2]), *orders]
    verdict = judge(metrics[: fell - 1], metrics[fell - 1 :], futures)
    probed = RunFolder(f"{report.result.path}/probes", f"{short_id(row.record.id)}-{fell}")
    write_probe(probed, probe_of(row.record.id, verdict, futures, ["a", "b", "c", "d"]))

    report = gathered(tmp_path)
    (probe,) = report.probes
    again = next(each for each in report.rows if each.record.id == row.record.id)
    (text,) = [text for text in again.findings if probe.tested in text]
    assert "likely cause" not in text
    (chart,) = draw(report).probes
    page = as_html(report, draw(report))
    assert chart.title == f"{report.named(again)}: the dip at epoch {fell}"
    assert html.escape(probe.words, quote=False) in page
    drawn = [ET.fromstring(each.to_string()) for each in draw(report).probes]
    assert len(drawn[0].findall(".//{*}g/{*}polyline")) == 1 + 5 + 4, "trial, futures and averaged weights; the legend"

    probed.files.write("probe.json", b"{}")
    damaged = gathered(tmp_path)
    assert damaged.probes == []
    assert any("probe.json" in note for note in damaged.notes)
