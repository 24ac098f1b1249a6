"""The Dockerfile and raysweep.def, read and not built: what they copy, install and run as."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments in one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]  # type: ignore[misc]


def section(name: str) -> list[str]:
    """The lines of a section of raysweep.def."""
    found = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", (ROOT / "raysweep.def").read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return [line.strip() for line in found[1].splitlines() if line.strip() and not line.strip().startswith("#")]


def copied() -> dict[str, set[str]]:
    """What of the checkout is copied into the image, by the file that says so."""
    by_docker = {word for name, given in instructions() if name == "COPY" for word in given.split()[:-1]}
    return {"Dockerfile": by_docker, "raysweep.def": {line.split()[0] for line in section("files")}}


@pytest.mark.parametrize("file", ["Dockerfile", "raysweep.def"])
def test_what_is_copied_is_there_and_is_enough_to_install_raysweep(file: str) -> None:
    needed = {"pyproject.toml", "constraints.txt", "raysweep", PROJECT["readme"], *PROJECT["license-files"]}
    assert copied()[file] == needed
    assert all((ROOT / each).exists() for each in needed)


def test_nothing_but_what_is_copied_is_sent_to_the_builder() -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == copied()["Dockerfile"]
    assert "**/__pycache__" in ignore[-1:]


def test_every_version_is_that_of_the_constraints() -> None:
    commands = [given for name, given in instructions() if name == "RUN"] + section("post")
    installs = [part for command in commands for part in re.findall(r"pip install[^&]*", command)]
    assert len(installs) == 5
    for each in installs:
        assert "--constraint constraints.txt" in each or "--no-deps" in each
        assert "--no-cache-dir" in each


def test_an_edit_of_the_code_installs_neither_torch_nor_ray_anew() -> None:
    steps = [f"{name} {given}" for name, given in instructions()]
    code = steps.index("COPY raysweep raysweep")
    assert [step for step in steps[code:] if "pip install" in step] == [
        "RUN pip install --no-cache-dir --root-user-action=ignore --no-deps . && rm -rf build ./*.egg-info"
    ]
    assert not any(name == "COPY" and "README.md" in given for name, given in instructions()[: code - 1])


def test_the_image_installs_what_the_project_names_and_the_extras_that_are_asked_for(tmp_path: Path) -> None:
    (given,) = (given for name, given in instructions() if name == "RUN" and "requirements.txt" in given)
    list_them = given.partition("&&")[0].replace("python -c", f"{sys.executable} -c")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    subprocess.run(["sh", "-ec", list_them], cwd=tmp_path, env={"EXTRAS": "aws,wandb"}, check=True)
    extras = PROJECT["optional-dependencies"]
    listed = (tmp_path / "requirements.txt").read_text().splitlines()
    assert listed == [*PROJECT["dependencies"], *extras["aws"], *extras["wandb"]]


def test_both_stand_on_the_same_python_which_is_one_that_raysweep_takes() -> None:
    base = dict(given.split("=") for name, given in instructions() if name == "ARG")["BASE"]
    assert f"From: {base}\n" in (ROOT / "raysweep.def").read_text()
    assert SpecifierSet(PROJECT["requires-python"]).contains(base.partition(":")[2].partition("-")[0])


def test_it_does_not_run_as_root_and_has_what_ray_s_launcher_and_kuberay_ask_for() -> None:
    steps = instructions()
    user = [given for name, given in steps if name == "USER"]
    assert user == ["1000:1000"]
    assert steps.index(("USER", user[0])) > max(index for index, (name, _) in enumerate(steps) if name == "RUN")
    said = dict(word.split("=", 1) for name, given in steps if name == "ENV" for word in given.split())
    assert said["HOME"] == "/home/raysweep"  # Ray's launcher takes the home from here
    (install,) = (given for name, given in steps if name == "RUN" and "apt-get install" in given)
    assert {"rsync", "openssh-client", "wget"} <= set(install.split())
    assert not any(name == "ENTRYPOINT" for name, _ in steps)  # Ray's launcher starts `bash`


def test_nothing_in_it_tells_of_its_use() -> None:
    said = {
        word for name, given in instructions() if name == "ENV" for word in given.split() if word.startswith("RAY_")
    }
    assert said == {word for line in section("environment") for word in line.split() if word.startswith("RAY_")}
    assert "RAY_USAGE_STATS_ENABLED=0" in said
