"""What `submit` reads of a user's own environment: files of pip's and conda's, and folders of packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.cluster.environment import Environment, read_environment, why_not_made
from raysweep.cluster.environment.requirements import packages_of
from raysweep.errors import UserError

CONDA = """
name: mine
channels: [conda-forge, "https://me:s3cret@host/chan"]
dependencies:
  - numpy=2.1
  - https://host/t/s3cret/linux-64/net.conda
  - pip:
      - -e .
"""
BACKEND = """
import zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "my_lab-1.2-py3-none-{platform}.whl"
    with zipfile.ZipFile(f"{{directory}}/{{name}}", "w") as file:
        file.write("src/my_lab.py", "my_lab.py")
        file.writestr("my_lab-1.2.dist-info/METADATA", {about!r})
        file.writestr("my_lab-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n")
        file.writestr("my_lab-1.2.dist-info/RECORD", "")
    return name
"""
ABOUT = """Metadata-Version: 2.1
Name: my-lab
Version: 1.2
Requires-Dist: timm>=1
Requires-Dist: win-only; sys_platform == "win32"
Requires-Dist: sphinx; extra == "docs"
"""


def write_project(folder: Path, platform: str = "any") -> Path:
    """A package whose own backend builds it, so that pip asks no index."""
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "my_lab.py").write_text("WIDTH = 4\n")
    (folder / "backend.py").write_text(BACKEND.format(platform=platform, about=ABOUT))
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (folder / "pyproject.toml").write_text(system)
    return folder


def test_all_faults_of_all_flags_are_told_at_once_with_their_lines_and_without_secrets(tmp_path: Path) -> None:
    (conda := tmp_path / "environment.yaml").write_text(CONDA)
    (requirements := tmp_path / "needs.txt").write_text("-r other.txt\n")
    with pytest.raises(UserError) as raised:
        read_environment(requirements, str(conda), [tmp_path / "nowhere", tmp_path])
    found = "\n".join(raised.value.problems).replace(f"{tmp_path}/", "")
    for beginning in (
        "--requirements and --conda: Ray makes a job's environment from one of them",
        "--requirements needs.txt:1: -r names a file",
        "--conda environment.yaml:3: channels.1: has a URL that is malformed or holds credentials",
        "--conda environment.yaml:4: dependencies: names no raysweep",
        "--conda environment.yaml:6: dependencies.1: has a URL that is malformed or holds credentials",
        "--conda environment.yaml:8: dependencies.2.pip.0: -e names a file",
        "--package nowhere: is no folder",
    ):
        assert beginning in found
    assert "has neither a project in pyproject.toml" in raised.value.problems[-1]
    assert len(raised.value.problems) == 8
    assert "s3cret" not in found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@EXPLICIT", "is not YAML"),
        ("name: a", "environment.yaml:1: must be an environment file of conda's"),
        ("dependencies: [raysweep]", "names no raysweep under `- pip:`"),
        ("dependencies: [{pip: raysweep}]", "must be a package"),
    ],
)
def test_a_file_that_is_none_of_condas_is_refused(text: str, why: str, tmp_path: Path) -> None:
    (file := tmp_path / "environment.yaml").write_text(text)
    with pytest.raises(UserError, match=why):
        read_environment(None, str(file), [])


def test_a_name_is_handed_on_and_of_a_file_what_makes_the_environment(tmp_path: Path) -> None:
    (file := tmp_path / "environment.yml").write_text(
        "name: mine\nprefix: /home/me\nchannels: [conda-forge]\n"
        "dependencies: [numpy, {pip: [/shared/raysweep, timm>=1]}]\n"
    )
    assert read_environment(None, "mine", []).runtime_env() == {"conda": "mine"}
    found = read_environment(None, str(file), [])
    assert found.runtime_env() == {
        "conda": {"channels": ["conda-forge"], "dependencies": ["numpy", {"pip": ["/shared/raysweep", "timm>=1"]}]}
    }
    assert found.add_packages(tmp_path) == ["timm>=1"]
    with pytest.raises(UserError, match="or the name of an environment that every node has"):
        read_environment(None, "envs/mine", [])


def test_a_project_is_built_and_unpacked_ready_to_import_with_what_it_depends_on_told(tmp_path: Path) -> None:
    found = read_environment(None, None, [write_project(tmp_path / "lab")])
    (there := tmp_path / "there").mkdir()
    assert found.add_packages(there) == [
        "my-lab==1.2",
        "timm>=1",
        'win-only; sys_platform == "win32"',
        'sphinx; extra == "docs"',
    ]
    assert {path.name for path in there.iterdir()} == {"my_lab.py", "my_lab-1.2.dist-info"}
    assert found.runtime_env() == {}, "nothing is installed on the nodes"


def test_compiled_code_and_a_build_that_fails_are_told(tmp_path: Path) -> None:
    compiled = write_project(tmp_path / "compiled", "linux_x86_64")
    with pytest.raises(UserError, match="compiled: has compiled code"):
        Environment(packages=[compiled]).add_packages(tmp_path)
    (broken := write_project(tmp_path / "broken")).joinpath("backend.py").write_text("1 / 0")
    with pytest.raises(UserError, match=r"(?s)broken: `pip wheel .*` does not build it:\n.*division by zero"):
        Environment(packages=[broken]).add_packages(tmp_path)


def test_a_folder_with_an_init_file_travels_as_it_is_though_its_pyproject_sets_up_tools(tmp_path: Path) -> None:
    (package := tmp_path / "mine").mkdir()
    (package / "__init__.py").write_text("")
    (package / "pyproject.toml").write_text("[tool.ruff]\n")
    (there := tmp_path / "there").mkdir()
    assert read_environment(None, None, [package]).add_packages(there) == ["mine"]
    assert (there / "mine" / "__init__.py").exists()


def test_lines_of_pip_tell_what_every_node_has_then() -> None:
    lines = [
        "timm[extra]>=1,<2 ; python_version > '3'",
        "net @ git+ssh://git@host/net.git@v1",
        "--find-links /shared/wheels",
        "/shared/fine_net-1.0-py3-none-any.whl --hash=sha256:00",
        "https://host/unknown.zip",
    ]
    assert packages_of(lines) == ['timm<2,>=1; python_version > "3"', "net", "fine-net==1.0"]


def test_of_what_ray_says_of_an_environment_the_line_is_told_that_says_why() -> None:
    of_pip = "Traceback ...\n  Looking in indexes\n  ERROR: No matching distribution found for nothing==1\n  WARNING: x"
    assert why_not_made(of_pip) == "No matching distribution found for nothing==1"
    assert why_not_made("Traceback\nValueError: Could not find Conda\n") == "ValueError: Could not find Conda"
