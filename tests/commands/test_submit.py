"""`raysweep submit` on a real job server: what travels, what is refused while a job runs, what a killed job leaves."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.job_submission import JobSubmissionClient
from run_folders import make_run
from running import Command, start_job_cluster, wait_for

from raysweep.cli import main
from raysweep.cluster import modules
from raysweep.cluster.environment.requirements import read_requirements
from raysweep.cluster.modules import copy_modules
from raysweep.cluster.places import data_problems
from raysweep.commands.context import Context
from raysweep.commands.submit.ray_jobs import differences, job_words
from raysweep.errors import UserError
from raysweep.registry import import_modules
from raysweep.sweepfile.named import Named

NETS = """
from torch import nn
from raysweep import register_model

@register_model("one_layer")
def one_layer(num_classes, width=None):
    from layers import conv
    return nn.Sequential(conv(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""
LAYERS = """
from torch import nn
from kernels.sizes import THREE

def conv(width):
    return nn.Conv2d(3, width, THREE)
"""


@pytest.fixture(scope="module")
def dashboard() -> Iterator[tuple[str, str]]:
    """The addresses of Ray and of its dashboard, of a cluster of two CPUs that takes jobs."""
    with start_job_cluster() as addresses:
        yield addresses


@pytest.fixture
def command(dashboard: tuple[str, str], tmp_path: Path) -> Command:
    command = Command(dashboard[0], tmp_path, apart=True)
    command.environment["RAY_API_SERVER_ADDRESS"] = dashboard[1]
    return command


def write_modules(folder: Path) -> None:
    (folder / "nets.py").write_text(NETS)
    (folder / "layers.py").write_text(LAYERS)
    (folder / "kernels").mkdir()
    (folder / "kernels" / "sizes.py").write_text("THREE = 3\n")
    (folder / "notes.py").write_text("nobody imports it")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
def test_modules_beside_the_imported_one_travel_and_the_hint_at_the_end_names_what_the_file_needs(
    command: Command,
) -> None:
    write_modules(command.folder)
    out, _ = command("submit", command.sweep("[0.1]", model="unknown"), "model=one_layer", "--import", "nets")
    assert "best checkpoint: python -m raysweep pull small.yaml model=one_layer --import nets --storage" in out
    assert [record["status"] for record in command.records("small").values()] == ["finished"]
    assert "INFO" not in out, "Ray's own lines"


def write_wheel(folder: Path) -> Path:
    """Write the package `kernels` as a wheel, which pip installs without asking an index."""
    wheel, about = folder / "kernels-1.0-py3-none-any.whl", "kernels-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("kernels/__init__.py", "")
        file.writestr("kernels/sizes.py", "THREE = 3\n")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: kernels\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return wheel


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)
def test_packages_that_the_nodes_lack_are_installed_once_and_are_there_for_the_next_job(command: Command) -> None:
    (package := command.folder / "project" / "mine").mkdir(parents=True)
    write_modules(package)
    shutil.rmtree(package / "kernels")
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NETS.replace("from layers", "from mine.layers"))
    command.environment["PYTHONPATH"] = f"{package.parent}:{os.environ.get('PYTHONPATH', '')}"
    requirements = command.folder / "requirements.txt"
    requirements.write_text(f"# what layers.py imports\n{(wheel := write_wheel(command.folder))}\n")
    sweep = command.sweep("[0.1]", model="one_layer")
    words = (sweep, "--import", "mine.nets", "--package", str(package), "--requirements", str(requirements))
    command("submit", *words)
    assert [record["status"] for record in command.records("small").values()] == ["finished"]
    assert importlib.util.find_spec("kernels") is None, "it was installed here, not for the job"
    wheel.unlink()  # whoever installed it again would miss it
    command("submit", *words, "epochs=2")
    out, _ = command("doctor", *words, "--json", "--address", command.environment["RAY_API_SERVER_ADDRESS"])
    found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
    assert found["environment"]["message"] == "ready on 1 node, by pip"
    assert found["packages"]["message"].startswith("kernels==1.0, mine can be imported on 1 node; ")


@pytest.mark.long
@pytest.mark.ray
def test_an_environment_of_condas_is_sent_as_the_file_says_and_a_node_without_conda_ends_the_job_in_a_sentence(
    command: Command,
) -> None:
    (command.folder / "environment.yaml").write_text(
        "name: mine\nchannels: [conda-forge]\ndependencies: [numpy=2.1, {pip: [raysweep==0.1.0]}]\nprefix: /home/me\n"
    )
    _, said = command("submit", command.sweep("[0.1]"), "--conda", "environment.yaml", code=2)
    assert "the head could not make its environment: ValueError: Could not find Conda executable" in said
    assert "Traceback" not in said
    jobs = JobSubmissionClient(command.environment["RAY_API_SERVER_ADDRESS"]).list_jobs()
    expected = {"channels": ["conda-forge"], "dependencies": ["numpy=2.1", {"pip": ["raysweep==0.1.0"]}]}
    assert expected in [(job.runtime_env or {}).get("conda") for job in jobs]


@pytest.mark.parametrize(("text", "why"), [(None, "cannot be read"), ("# none\n\n", "names no package")])
def test_a_requirements_file_that_asks_for_nothing_is_refused(
    text: str | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text("name: s\n")
    if text is not None:
        (tmp_path / "needs.txt").write_text(text)
    assert main(["submit", str(tmp_path / "s.yaml"), "--requirements", str(tmp_path / "needs.txt")]) == 2
    assert f"--requirements {tmp_path}/needs.txt: {why}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--extra-index-url https://me:s3cret@host/simple", "holds credentials"),
        ("net @ git+https://s3cret@host/net.git", "holds credentials"),
        ("https://host/net.whl?token=s3cret", "holds credentials"),
        ("-r other.txt", "-r names a file"),
        ("-cother.txt", "-c names a file"),
        ("--editable=.", "--editable names a file"),
        ("./net.whl", "names a file of this machine"),
        ("net-1.0-py3-none-any.whl ; python_version > '3'", "names a file of this machine"),
        ("net @ file:wheels/net.whl", "names a file of this machine"),
        ("--find-links wheels", "names a file of this machine"),
    ],
)
def test_a_requirement_that_holds_a_secret_or_that_no_node_can_follow_is_refused_with_its_line(
    line: str, why: str, tmp_path: Path
) -> None:
    (file := tmp_path / "needs.txt").write_text(f"timm>=1 # fine\n\n{line}\n")
    with pytest.raises(UserError) as raised:
        read_requirements(file)
    (problem,) = raised.value.problems
    assert problem.startswith(f"--requirements {file}:3: ")
    assert why in problem
    assert "s3cret" not in problem


def test_requirements_that_any_node_can_follow_are_taken_as_they_are(tmp_path: Path) -> None:
    lines = [
        "timm>=1,<2 ; python_version > '3'",
        "net[extra] @ git+ssh://git@host/net.git@v1#subdirectory=a/b",
        "--extra-index-url https://me:${TOKEN}@host/simple",
        "--find-links /shared/wheels",
        "/shared/net.whl",
        "net @ file:///shared/net.whl --hash=sha256:00",
        "https://host/net.whl",
        "--no-binary :all:",
    ]
    (file := tmp_path / "needs.txt").write_text("\n".join(lines))
    assert read_requirements(file) == lines


@pytest.mark.long
@pytest.mark.ray
def test_another_submit_while_a_job_runs_says_what_differs_and_replaces_it_if_asked(command: Command) -> None:
    sweep = command.sweep("[0.1]")
    often = "checkpoints.every_minutes=0.001"
    long = ("submit", sweep, often, "epochs=100000", "--detach")
    command(*long)
    wait_for(lambda: any(record["metrics"] for record in command.records("small").values()), 200)
    _, said = command("submit", sweep, often, "epochs=2", "retries=0", code=2)
    assert "base.epochs: 100000 there, 2 here; retries: 1 there, 0 here. Submit those to follow it" in said
    _, said = command(*long)
    assert "small is already running, as job raysubmit_" in said
    out, said = command("submit", sweep, often, "epochs=2", "retries=0", "--replace")
    assert "its trials commit what is whole" in said
    assert "best checkpoint" in out
    records = {record["epochs"]: record["status"] for record in command.records("small").values()}
    assert records == {100000: "running", 2: "finished"}, "what was replaced has committed"


@pytest.mark.long
@pytest.mark.ray
def test_a_driver_that_is_killed_ends_the_follower_with_what_to_do(command: Command) -> None:
    process = command.start("submit", command.sweep("[0.1]"), "epochs=100000")
    wait_for(lambda: (command.folder / "runs" / "small" / "resolved.yaml").exists(), 200)
    for driver in psutil.process_iter(["cmdline"]):
        words = driver.info["cmdline"] or []
        if words[1:3] == ["-m", "raysweep"] and words[3] == "run" and str(command.folder / "runs") in words:
            os.kill(driver.pid, signal.SIGKILL)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "what is committed is safe: submit it again to go on" in said
    assert "last available logs" not in said
    assert "***" not in out


# -- without Ray


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which modules are imported."""
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here"), *sys.path])
    (tmp_path / "there").mkdir()
    return tmp_path / "here"


def test_of_a_folder_only_what_is_imported_travels(here: Path, tmp_path: Path) -> None:
    write_modules(here)
    (here / "kernels" / "table.json").write_text("{}")
    (here / "kernels" / ".git").mkdir()
    (here / "films").mkdir()
    import_modules(["nets"])
    copy_modules(["nets"], there := tmp_path / "there")
    found = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert found == {"nets.py", "layers.py", "kernels/sizes.py", "kernels/table.json"}


def test_a_package_travels_whole_and_too_large_a_one_is_refused_in_a_sentence(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "__init__.py").write_text("")
    (here / "mine" / "nets.py").write_text("from . import layers\nimport beside\n")
    (here / "mine" / "layers.py").write_text("")
    (here / "beside.py").write_text("import mine\n")
    import_modules(["mine.nets"])
    copy_modules(["mine.nets"], tmp_path / "there")
    assert (tmp_path / "there" / "mine" / "layers.py").exists()
    assert (tmp_path / "there" / "beside.py").exists()
    (here / "mine" / "film").write_bytes(bytes(2000))
    monkeypatch.setattr(modules, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"--import mine.nets: more than 1 kB would be sent .*mine/film among them"):
        copy_modules(["mine.nets"], here.parent)


def test_a_module_that_imports_what_is_not_there_ends_with_a_sentence_that_says_where(here: Path) -> None:
    (here / "lacks.py").write_text("import math\nimport nowhere_to_be_found\n")
    with pytest.raises(UserError) as raised:
        import_modules(["lacks"])
    assert str(raised.value) == (
        "--import lacks: No module named 'nowhere_to_be_found', "
        f"imported at {here}/lacks.py:2; it must be installed here"
    )


def test_settings_that_differ_are_named_few_and_a_job_of_an_older_version_is_followed() -> None:
    ours = {
        "raysweep_sweep": '{"name": "a", "grid": {"lr": [0.1]}}',
        "raysweep_modules": '{"nets.py": "1", "mine": "1"}',
        "raysweep_environment": '{"--requirements": "1"}',
    }
    assert differences(ours, ours) == differences({}, ours) == []
    assert differences({**ours, "raysweep_modules": '{"nets.py": "2"}'}, ours) == [
        "the code of nets",
        "the code of mine",
    ]
    assert differences({**ours, "raysweep_environment": '{"--conda": "1"}'}, ours) == ["--conda", "--requirements"]
    theirs = {**ours, "raysweep_sweep": '{"name": "a", "grid": {"lr": [0.1, 1]}, "retries": 0}'}
    assert differences(theirs, ours) == ["grid.lr: [0.1, 1] there, [0.1] here", "retries: 0 there, not set here"]


def test_the_next_command_is_told_with_all_that_the_file_needs() -> None:
    named = Named("a sweep.yaml", ("model=mine",), "/runs", ("nets", "data"))
    assert named.in_words() == "'a sweep.yaml' model=mine --import nets --import data --storage /runs"


def test_a_job_gets_the_run_folder_that_its_trials_start_from_by_a_path_that_holds_elsewhere(tmp_path: Path) -> None:
    make_run(tmp_path, epochs=3)
    path = tmp_path / "next.yaml"
    path.write_text("name: next\nbase: {data: synthetic}\nstart: {run: runs/made, trial: baseline_block-lr0.5-seed1}\n")
    context = Context(str(path), ["epochs=9"], storage="/shared")
    assert job_words(context) == [
        "run",
        "next.yaml",
        "epochs=9",
        f'start.run="{tmp_path}/runs/made"',
        "--storage",
        "/shared",
    ]
    (problem,) = data_problems(context.sweep, "next.yaml")
    assert problem.startswith("next.yaml: start.run: 'runs/made' is relative, and this machine's files stay here")
    assert not data_problems(Context(str(path), job_words(context)[2:4]).sweep, "next.yaml")
