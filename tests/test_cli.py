"""The command line: what is printed where, exit codes, and how fast it answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from raysweep.cli import COMMANDS, main
from raysweep.errors import UserError
from raysweep.registry import Registry
from raysweep.terminal import say, table_console, table_of
from raysweep.vision.names import NETWORKS

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "sweeps" / "quickstart.yaml"


def test_plan_lists_trials_and_the_epochs_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(QUICKSTART), "epochs=2"]) == 0
    printed = capsys.readouterr()
    assert "6 trials, 12 epochs" in printed.out
    assert printed.err == ""


def test_plan_as_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--json", str(QUICKSTART)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "quickstart"
    assert len(document["trials"]) >= 6
    assert {trial["status"] for trial in document["trials"]} == {"planned"}


@pytest.mark.parametrize(
    "words", [["--json", "epochs=2"], ["epochs=2", "--json"], ["--json", "epochs=2", "batch_size=9"]]
)
def test_options_and_overrides_stand_in_any_order(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(QUICKSTART), *words]) == 0
    assert {trial["epochs"] for trial in json.loads(capsys.readouterr().out)["trials"]} == {2}


def test_a_wrong_file_ends_with_2_and_one_line_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: a\nbase:\n  epochs: 0\n  modle: x\n")
    for words in (["plan", str(path)], [str(path)], ["run", str(path)], ["data", str(path)], ["submit", str(path)]):
        assert main(words) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        first, second = printed.err.splitlines()
        assert f"{path}:3: base.epochs: got 0" in first
        assert f"{path}:4: base.modle: unknown key" in second


def test_a_word_that_is_neither_file_nor_command_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plna", "x.yaml"]) == 2
    assert "did you mean 'plan'?" in capsys.readouterr().err


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_an_unknown_module_to_import_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(QUICKSTART), "--import", "no_such_module"]) == 2
    assert "no_such_module" in capsys.readouterr().err


def test_a_module_that_imports_from_where_nothing_is_any_more_is_told_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_old_data.py").write_text("from raysweep.data import RawData\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["plan", str(QUICKSTART), "--import", "my_old_data"]) == 2
    message = "--import my_old_data: No module named 'raysweep.data'; docs/data.md and CONTRIBUTING.md have the names\n"
    assert capsys.readouterr().err == message


def test_an_imported_module_brings_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "brings_a_net.py").write_text(
        "from raysweep import register_model\n@register_model('my_own')\ndef net(num_classes): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["plan", str(QUICKSTART), "model=my_own"]) == 2
    assert main(["plan", str(QUICKSTART), "model=my_own", "--import", "brings_a_net"]) == 0
    assert "6 trials" in capsys.readouterr().out


def test_a_network_cannot_be_registered_under_a_built_in_name() -> None:
    registry = Registry("network", "model")
    registry.register("resnet18")(lambda num_classes: None)  # before the built-in ones are known
    with pytest.raises(UserError, match="a built-in has that name"):
        registry.build_in(NETWORKS)
    registry.build_in(NETWORKS)  # the next use goes on with the built-in one
    assert registry.names() == list(NETWORKS)
    with pytest.raises(UserError, match="a built-in has that name"):
        registry.register("resnet18")


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["run", "--help"], ["--version"]])
def test_help_and_version_end_with_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "raysweep" in capsys.readouterr().out


def test_help_before_a_command_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help", "plan"])
    printed = capsys.readouterr().out
    assert all(f"    {command} " in printed for command in COMMANDS)


@pytest.mark.parametrize("words", [["--bogus"], ["plan"], ["plan", str(QUICKSTART), "--bogus"], ["schema", "a=1"]])
def test_wrong_words_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_names_that_look_like_markup_or_emoji_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[bold]net:100:[/]"
    say(name)
    table_console().print(table_of(["trial", "acc"], [[name, 0.5]], right=["acc"]))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        name,
        "trial              acc",
        f"{name}  0.5",
    ]


# ---------------------------------------------------------------------------------------------------------
# Quick and light

PROBE = """
import sys, time
from raysweep.cli import main
try:
    code = main({words!r})
except SystemExit as end:
    code = end.code
heavy = {{"torch", "torchvision", "ray", "numpy", "pandas", "pyarrow", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
print("", time.process_time())
sys.exit(code)
"""
LIBRARIES = "import time, pydantic, ruamel.yaml, rich.console; print(time.process_time())"
"""The libraries that reading and printing a plan takes: their import tells how fast this machine is just now."""


def test_a_run_begins_without_the_seconds_that_torch_takes_to_import() -> None:
    probe = "import sys, raysweep.driver; sys.exit(str({'torch', 'torchvision'} & set(sys.modules) or 0))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stderr.strip() == "0"


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", str(QUICKSTART)], ["plan", str(QUICKSTART), "--json"], ["schema"]]
)
def test_help_and_plan_import_nothing_heavy_and_answer_at_once(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE.format(words=words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    *answer, seconds = done.stdout.splitlines()
    assert answer
    yardstick = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, check=True)
    assert float(seconds) < 8 * float(yardstick.stdout)  # 2.5 to 5 times on machines that do nothing else


def test_a_file_that_is_not_there_is_told_with_the_one_that_may_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweeps").mkdir()
    for folder in ("", "sweeps/"):
        Path(f"{folder}quickstart.yaml").write_text("name: a")
        for words in ([f"{folder}quikstart.yaml"], ["plan", f"{folder}quikstart.yaml"]):
            assert main(words) == 2
            said = f"cannot be read: No such file or directory (did you mean '{folder}quickstart.yaml'?)\n"
            assert capsys.readouterr().err == f"{folder}quikstart.yaml: {said}"


def test_ctrl_c_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("raysweep.commands.plan.run", lambda _: signal.raise_signal(signal.SIGINT))
    assert main(["plan", str(QUICKSTART)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m raysweep plan {QUICKSTART} --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "{"
    assert done.stderr == ""


# ---------------------------------------------------------------------------------------------------------
# The schema


@pytest.fixture
def schema(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["schema"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_the_schema_is_a_json_schema(schema: dict[str, object]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", sorted(QUICKSTART.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_sweep_fits_the_schema(schema: dict[str, object], path: Path) -> None:
    faults = jsonschema.Draft202012Validator(schema).iter_errors(YAML(typ="safe", pure=True).load(path))
    assert [fault.message for fault in faults] == []


@pytest.mark.parametrize(
    "section",
    [
        {
            "base": {
                "optimizer": {"momentum": 0.8},
                "lr_schedule": {"name": "step", "milestones": [3]},
                "data": "digits",
            }
        },
        {"base": {"model.options.depth": 3}},
        {"base": {"model.width": 8, "augment": [{"flip": {"p": 0.5}}], "normalize": "half", "ema": False}},
        {"grid": {"lr": [0.1], "optimizer.momentum": [0.1, 0.2], "model": ["resnet18", {"width": 8}]}},
        {"random": {"samples": 3, "lr": {"log_uniform": [0.001, 1]}}},
        {"cases": {"a": {"lr": 0.1, "grid": {"epochs": [1, 2]}}}},
        {"exclude": [{"lr": 0.1, "model": "resnet18"}]},
        {"scheduler": "none"},
        {"scheduler": {"name": "ray_asha", "eta": 3}},
        {"scheduler": {"eta": 3}},
        {"scheduler": {"rungs": ["1/9", 0.25], "group_by": ["lr"], "rank_by": "last"}},
    ],
)
def test_the_schema_takes_what_the_sweep_file_takes(schema: dict[str, object], section: dict[str, object]) -> None:
    faults = jsonschema.Draft202012Validator(schema).iter_errors({"name": "a", **section})
    assert [fault.message for fault in faults] == []


@pytest.mark.parametrize(
    "section",
    [
        {"gird": {}},
        {"base": {"epohcs": 3}},
        {"base": {"epochs": 0}},
        {"base": {"optimizer": {"momentun": 0.1}}},
        {"grid": {"lr": 0.1}},
        {"grid": {"lr": []}},
        {"random": {"samples": 0}},
        {"limits": {"trials": "many"}},
        {"scheduler": {"rungs": ["1:9"]}},
    ],
)
def test_the_schema_refuses_what_the_sweep_file_refuses(schema: dict[str, object], section: dict[str, object]) -> None:
    assert not jsonschema.Draft202012Validator(schema).is_valid({"name": "a", **section})


def test_the_schema_wants_a_name(schema: dict[str, object]) -> None:
    assert not jsonschema.Draft202012Validator(schema).is_valid({"base": {}})
