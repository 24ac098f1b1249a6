"""`raysweep submit --slurm --write`: what the script of a job asks Slurm for, and what is refused before there is one.

What such a job does is shown on a real Slurm, in tests/slurm.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from raysweep.cli import main
from raysweep.sweepfile.cluster import seconds_of

SWEEP = "name: small\nbase: {data: digits, model: baseline_block, epochs: 1}\n"
Write = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the script of a job for a sweep file with this section; returns its lines."""
    (tmp_path / "with a blank").mkdir()
    monkeypatch.chdir(tmp_path / "with a blank")

    def write(cluster: str, *words: str) -> list[str]:
        (tmp_path / "s.yaml").write_text(f"{SWEEP}cluster: {cluster}\n")
        assert main(["submit", str(tmp_path / "s.yaml"), "--slurm", "--write", "-", *words]) == 0
        return capsys.readouterr().out.splitlines()

    return write


def options(script: list[str]) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script if line.startswith("#SBATCH ")]


def test_a_job_takes_whole_nodes_unless_it_is_said_how_many_cpus_of_each(write: Write) -> None:
    whole = options(write("{nodes: 2, gpus_per_node: 4}"))
    assert {"--exclusive", "--mem=0", "--nodes=2", "--gres=gpu:4"} <= set(whole)
    part = options(write("{gpus_per_node: 0, cpus_per_node: 8, memory_per_node: 32G}"))
    assert {"--cpus-per-task=8", "--mem=32G", "--nodes=1"} <= set(part)
    assert not [option for option in part if option.startswith(("--exclusive", "--gres"))]


def test_flags_count_more_than_the_file_and_options_of_ones_own_come_last(write: Write) -> None:
    cluster = "{gpus_per_node: 1, slurm: {partition: slow, time: 90, options: [--gres=gpu:a100:1, --qos=long]}}"
    given = options(write(cluster, "--partition", "fast", "--time", "1-12", "--account", "lab", "--nodes", "3"))
    assert {"--partition=fast", "--time=1-12", "--account=lab", "--nodes=3"} <= set(given)
    assert given[-2:] == ["--gres=gpu:a100:1", "--qos=long"]


def test_a_job_runs_the_sweep_file_where_it_lies_with_the_words_of_the_command(write: Write, tmp_path: Path) -> None:
    script = write("{gpus_per_node: 2}", "epochs=2", "--nodes", "2")
    sweep = next(line for line in script if line.startswith("sweep="))
    words = shlex.split(sweep.removeprefix("sweep=(").removesuffix(")"))
    assert words == ["run", str(tmp_path / "s.yaml"), "epochs=2", "--storage", str(tmp_path / "runs")]
    assert f'--chdir="{tmp_path}/with a blank"' in options(script)
    assert f'--comment="raysweep {tmp_path}/runs/small"' in options(script)


def test_an_image_sees_what_the_sweep_names_and_the_whole_is_bash(write: Write, tmp_path: Path) -> None:
    script = write("{gpus_per_node: 1, image: /images/raysweep.sif, slurm: {setup: ['module load cuda']}}")
    assert "    module load cuda" in script
    python = next(line for line in script if line.startswith("python="))
    assert python.startswith("python=(apptainer exec --nv --bind ")
    assert python.endswith(" /images/raysweep.sif python)")
    seen = shlex.split(python)[4].split(",")
    assert seen == [str(Path.cwd()), str(tmp_path / "runs"), str(tmp_path)]
    subprocess.run(["bash", "-n"], input="\n".join(script), text=True, check=True)


def test_a_script_is_written_to_a_file_that_sbatch_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    script = tmp_path / "job.sbatch"
    words = ["submit", str(tmp_path / "s.yaml"), "--slurm", "--gpus-per-node", "1", "--write", str(script)]
    assert main(words) == 0
    assert f"sbatch {script}" in capsys.readouterr().err
    assert script.read_text().startswith("#!/bin/bash\n")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(script), "run_folder": str(tmp_path / "runs" / "small")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slurm"], ["s.yaml", "cluster.gpus_per_node: must be given"]),
        (
            ["--slurm", "--time", "2", "--gpus-per-node", "1"],
            ["cluster.slurm.time: 2 (120 s) must exceed signal_seconds (120)"],
        ),
        (["--slurm", "--gpus-per-node", "1", "resources.workers=2"], ["resources: a trial asks for 2 workers"]),
        (
            ["--slurm", "--gpus-per-node", "1", "cluster.slurm.options=[-N2]"],
            ["-N2: the job sets -N itself; set cluster.nodes"],
        ),
        (["--slurm", "--time", "soon"], ["cluster.slurm.time", "as Slurm writes it"]),
        (["--nodes", "2", "--write", "job"], ["--nodes, --write: only with --slurm or --kuberay"]),
        (["--slurm", "--address", "http://h:1"], ["--address: only for a Ray cluster that is up"]),
        (["--slurm", "--gpus-per-node", "1", "--write", "job", "--detach"], ["--detach: nothing is submitted"]),
        (["--slurm", "--json", "--write", "-"], ["--json, --write -: stdout can have only one of them"]),
        (["--kuberay", "--partition", "gpu"], ["--partition: only with --slurm", "--kuberay: needs --write"]),
    ],
)
def test_what_is_missing_or_means_nothing_is_refused_at_once(
    words: list[str], told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    assert main(["submit", str(tmp_path / "s.yaml"), *words]) == 2
    said = capsys.readouterr().err
    assert all(each in said for each in told), said


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ("export AWS_SECRET_ACCESS_KEY=hunter2", "AWS_SECRET_ACCESS_KEY"),
        ("A=1; wandb_api_key='hunter2' wandb login", "wandb_api_key"),
        ("export DB_PASSWD=$'hunter2'", "DB_PASSWD"),
        ("export WANDB_API_KEY=$(cat ~/.wandb)", None),
        ('export WANDB_API_KEY="$KEY" HF_TOKEN= TOKENIZERS_PARALLELISM=false', None),
        ("export GOOGLE_APPLICATION_CREDENTIALS=/home/me/key.json", None),
        ("module load cuda; uv run --api-key=$KEY x", None),
    ],
)
def test_a_line_of_setup_that_holds_a_secret_is_refused_without_it(
    line: str, variable: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(f"{SWEEP}cluster: {{gpus_per_node: 1, slurm: {{setup: [{json.dumps(line)}]}}}}\n")
    code = main(["submit", str(tmp_path / "s.yaml"), "--slurm", "--write", str(tmp_path / "job")])
    said = capsys.readouterr().err
    assert code == (2 if variable else 0)
    assert "hunter2" not in said
    if variable:
        assert f"cluster.slurm.setup.0: {variable} looks like a secret" in said
    else:
        assert line in (tmp_path / "job").read_text()


def test_where_there_is_no_slurm_the_message_says_where_to_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["submit", str(tmp_path / "s.yaml"), "--slurm", "--gpus-per-node", "1"]) == 2
    assert "call raysweep on a login node" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("1:30", 90), ("12:00:00", 43_200), ("2-12", 216_000), ("1-00:30", 88_200), ("1-1:1:1", 90_061)],
)
def test_times_mean_what_they_mean_to_slurm(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds
