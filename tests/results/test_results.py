"""Results for programs: results.parquet, its documented columns, `raysweep.open`, and the notebook that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import METRICS, make_run, mixed

import raysweep
from raysweep.results.ranking import standings
from raysweep.store.exports import write_results
from raysweep.vision.config import TrialConfig

DOCS = Path(__file__).parents[2] / "docs"
TYPES = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}


def documented(section: str) -> dict[str, list[str]]:
    """The rows of a table of docs/results.md, by the column that they describe."""
    text = (DOCS / "results.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    head = rows.index(["column", section, "meaning"])
    rows = rows[head + 2 :]
    end = next((place for place, row in enumerate(rows) if row[0] == "column"), len(rows))
    return {name.strip("`"): rest for name, *rest in rows[:end]}


def written(folder: Path, **how: Any) -> pa.Table:
    make_run(folder, **how)
    result = raysweep.open(folder / "runs/made")
    write_results(result.folder, result.trials, standings(result.configs))
    return pq.read_table(folder / "runs/made/results.parquet")


@pytest.mark.parametrize("how", [{}, {"end": mixed}, {"end": lambda record, _: record.with_(status="planned")}])
def test_every_column_is_documented_with_its_type_whatever_the_trials_hold(tmp_path: Path, how: dict[str, Any]) -> None:
    table, columns = written(tmp_path, **how), documented("type")
    fixed = [name for name in table.column_names if not name.startswith(("config.", "curve."))]
    assert fixed == [name for name in columns if "*" not in name]
    assert {name: table.schema.field(name).type for name in fixed} == {name: TYPES[columns[name][0]] for name in fixed}
    curves = [name for name in table.column_names if name.startswith("curve.")]
    assert {table.schema.field(name).type.value_type for name in curves} <= {pa.float64()}
    assert set(curves) <= set(documented("unit"))
    settings = {name.split(".")[1] for name in table.column_names if name.startswith("config.")}
    assert settings == set(TrialConfig.model_fields) - {"lr_factors"}, "an empty mapping has no keys to be columns"


def test_the_documented_curves_are_those_that_training_makes() -> None:
    assert {f"curve.{name}" for name in METRICS} | {"curve.epoch"} == set(documented("unit"))


def test_open_gives_the_same_table_as_the_file_best_first(tmp_path: Path) -> None:
    table = written(tmp_path, end=mixed).to_pandas()
    result = raysweep.open(tmp_path / "runs/made")
    pd.testing.assert_frame_equal(result.to_pandas(), table)
    assert list(table["id"]) == [record.id for record in result.trials]
    assert result.best
    assert table["id"][0] == result.best.id
    lengths = table["curve.val_acc"].dropna().map(len)
    assert (lengths == table["epoch"][lengths.index]).all()


def test_the_notebook_runs_on_a_run_folder_and_shows_what_each_cell_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((DOCS / "results.ipynb").read_text())
    make_run(tmp_path, "report_small")
    result = raysweep.open(tmp_path / "runs/report_small")
    write_results(result.folder, result.trials, standings(result.configs))
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells, 1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        assert cell["execution_count"] == number
        assert cell["outputs"]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    out = capsys.readouterr().out
    assert f"report_small: 12 trials, best {result.trials[0].id}" in out
    assert "dip of" in out or "overfits" in out
    assert names["scores"]["seeds"].tolist() == [2] * 6


def test_a_notebook_shows_the_ranking_with_its_settings_and_a_repr_fits_a_line(tmp_path: Path) -> None:
    make_run(tmp_path)
    result = raysweep.open(tmp_path / "runs/made")
    page = result._repr_html_()
    assert re.findall("<th>(.*?)</th>", page) == ["rank", "augment", "lr", "val_acc", "seeds"]
    rows = [re.findall("<td>(.*?)</td>", row) for row in page.split("<tr>")[1:]]
    assert [row[0] for row in rows] == list("123456")
    assert all(re.fullmatch(r"\d\d\.\d\d ± \d\.\d\d %", row[3]) for row in rows)
    assert re.fullmatch(r"<SweepResult made: 12 trials, best val_acc \d\d\.\d\d %>", repr(result))
