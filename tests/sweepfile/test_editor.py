"""In an editor: a real yaml-language-server, given the schema of `raysweep schema`, completes, explains and checks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "node_modules/.bin/yaml-language-server"
CONFIGURATION = "workspace/configuration"
MARKED = "textDocument/publishDiagnostics"
Message = dict[str, Any]
pytestmark = pytest.mark.timeout(60)


class Editor:
    """Speaks the Language Server Protocol with the server, over its pipes, as an editor with a folder open does.

    Args:
        folder: the folder.
        settings: the editor's own, of its section `yaml`.
    """

    def __init__(self, folder: Path, settings: Message) -> None:
        self.folder = folder
        self.settings: Message = {"yaml": {"schemaStore": {"enable": False}, **settings}}  # no schemas of the internet
        self.asked = self.opened = 0
        self.server = subprocess.Popen([SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        capabilities = {"workspace": {"configuration": True}, "textDocument": {"hover": {}, "completion": {}}}
        folders = [{"uri": folder.as_uri(), "name": folder.name}]
        self.ask("initialize", {"processId": os.getpid(), "workspaceFolders": folders, "capabilities": capabilities})
        self.tell("initialized", {})
        self._until(lambda message: message.get("method") == CONFIGURATION)

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()
        self.server.communicate()

    def marked(self, *texts: str) -> list[list[tuple[int, str]]]:
        """Open a file of each text; return the lines, from 1, and words of what is marked as wrong in each."""
        places = [self._open(text) for text in texts]
        found: dict[str, list[Message]] = {}
        while not found.keys() >= set(places):
            params = self._until(lambda message: message.get("method") == MARKED)["params"]
            found[params["uri"]] = params["diagnostics"]
        return [sorted((each["range"]["start"]["line"] + 1, each["message"]) for each in found[uri]) for uri in places]

    def offered(self, text: str) -> set[str]:
        """Return what is offered at the end of a text."""
        return {item["label"] for item in self._ask_of_end(text, "completion")["items"]}

    def said(self, text: str) -> str:
        """Return what is said of the word before the colon that a text ends in."""
        answer = self._ask_of_end(text, "hover", back=2)
        return str(answer["contents"]["value"]) if answer else ""

    def _ask_of_end(self, text: str, what: str, back: int = 0) -> Any:
        uri, lines = self._open(text), text.split("\n")
        place = {"line": len(lines) - 1, "character": len(lines[-1]) - back}
        return self.ask(f"textDocument/{what}", {"textDocument": {"uri": uri}, "position": place})

    def _open(self, text: str) -> str:
        self.opened += 1
        uri = (self.folder / f"{self.opened}.yaml").as_uri()
        self.tell(
            "textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": "yaml", "version": 1, "text": text}}
        )
        return uri

    def tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def ask(self, method: str, params: Any) -> Any:
        self.asked += 1
        self._send({"id": self.asked, "method": method, "params": params})
        answer = self._until(lambda message: message.get("id") == self.asked and "method" not in message)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _send(self, message: Message) -> None:
        assert self.server.stdin
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.server.stdin.flush()

    def _until(self, is_wanted: Callable[[Message], bool]) -> Message:
        while True:
            message = self._next()
            if "id" in message and "method" in message:  # the server asks the editor
                items = message["params"].get("items", []) if message["method"] == CONFIGURATION else None
                result = None if items is None else [self.settings.get(item["section"]) for item in items]
                self._send({"id": message["id"], "result": result})
            if is_wanted(message):
                return message

    def _next(self) -> Message:
        assert self.server.stdout
        length = 0
        while line := self.server.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, "the server ended"
        message: Message = json.loads(self.server.stdout.read(length))
        return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the schema, made as docs/sweep_file.md says."""
    if not (shutil.which("node") and SERVER.exists()):
        missing = "needs node, and yaml-language-server from npm: make editor"
        pytest.fail(missing) if "RAYSWEEP_SHARED" in os.environ else pytest.skip(missing)
    folder = tmp_path_factory.mktemp("sweeps")
    made = subprocess.run([sys.executable, "-m", "raysweep", "schema"], capture_output=True, check=True, cwd=ROOT)
    (folder / "sweep.schema.json").write_bytes(made.stdout)
    return folder


@pytest.fixture(scope="module")
def editor(folder: Path) -> Iterator[Editor]:
    """An editor whose settings name the schema."""
    schemas = {(folder / "sweep.schema.json").as_uri(): "*.yaml"}
    with Editor(folder, {"schemas": schemas, "validate": True, "hover": True, "completion": True}) as editor:
        yield editor


def test_the_line_that_the_reference_tells_to_put_at_the_top_applies_the_schema(folder: Path) -> None:
    (line,) = re.findall(r"^# yaml-language-server: .*$", (ROOT / "docs/sweep_file.md").read_text(), re.MULTILINE)
    wrong = "name: a\nepohcs: 3\n"
    with Editor(folder, {"validate": True}) as editor:
        with_line, without = editor.marked(f"{line}\n{wrong}", wrong)
    assert (with_line, without) == ([(3, "Property epohcs is not allowed.")], [])


def test_nothing_is_marked_in_shipped_sweeps(editor: Editor) -> None:
    sweeps = sorted((ROOT / "sweeps").glob("*.yaml"))
    assert len(sweeps) > 10
    marked = editor.marked(*(path.read_text() for path in sweeps))
    assert {path.name: found for path, found in zip(sweeps, marked, strict=True) if found} == {}


SLIPS = """\
name: slips
base:
  epohcs: 3
  lr: fast
  optimizer: sgd
  optimizer.momentun: 0.9
  weight_decay: 0.1
  lr_schedule: {name: cosine}
  model: {name: resnet18, widht: 8}
grid:
  lr: 0.1
  batch_size: [32, 0]
zip: {model.width: [8, wide]}
random:
  samples: 0
  lr: {log_unifrom: [0.1, 1]}
cases: {a: {grid: {lrr: [1]}}}
exclude:
  - {lr: 0.1, modle: resnet18}
scheduler: ash
export: [mlfow]
search:
  trails: 60
  space:
    lrr: {uniform: [0.1, 1]}
    lr: {unifrom: [0.1, 1], when: {augmnt: none}}
  enqueue: [{lr: fast}]
"""


def test_slips_are_marked_on_their_lines_and_nothing_else_is(editor: Editor) -> None:
    (marked,) = editor.marked(SLIPS)
    assert marked == [
        (3, "Property epohcs is not allowed."),
        (4, 'Incorrect type. Expected "number".'),
        (6, "Property optimizer.momentun is not allowed."),
        (7, "Property weight_decay is not allowed."),
        (9, "Property widht is not allowed."),
        (11, 'Incorrect type. Expected "array".'),
        (12, "Value is below the minimum of 1."),
        (13, 'Incorrect type. Expected "integer | null".'),
        (15, "Value is below the minimum of 1."),
        (16, "Property log_unifrom is not allowed."),
        (17, "Property lrr is not allowed."),
        (19, "Property modle is not allowed."),
        (20, 'Value is not accepted. Valid values: "asha", "none", "ray_asha".'),
        (21, 'Value is not accepted. Valid values: "mlflow", "wandb", "trackio".'),
        (23, "Property trails is not allowed."),
        (25, "Property lrr is not allowed."),
        (26, "Property augmnt is not allowed."),
        (26, "Property unifrom is not allowed."),
        (27, 'Incorrect type. Expected "number".'),
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", {"base", "grid", "zip", "random", "cases", "exclude", "seeds", "scheduler"}),
        ("base:\n  data: ", {"digits", "cifar10", "tiny_imagenet", "folder", "csv"}),
        ("base:\n  model:\n    name: ", {"baseline_block", "resnet18"}),
        ("base:\n  optimizer: ", {"sgd", "adamw"}),
        ("base:\n  lr_schedule: ", {"constant", "cosine", "step", "wsd"}),
        ("scheduler: ", {"asha", "none", "ray_asha"}),
        ("grid:\n  model:\n    - ", {"resnet18", "resnet34"}),
        ("zip:\n  ", {"lr", "model.width", "optimizer.momentum"}),
        ("random:\n  lr:\n    ", {"uniform", "log_uniform", "int", "choice"}),
        ("search:\n  ", {"name", "trials", "generation", "space", "enqueue"}),
        ("search:\n  space:\n    ", {"lr", "model.width", "optimizer.momentum"}),
        ("search:\n  space:\n    lr:\n      ", {"uniform", "log_int", "when"}),
        ("search:\n  enqueue:\n    - ", {"lr", "lr_schedule.milestones"}),
        ("cases:\n  a:\n    ", {"lr", "optimizer.weight_decay", "grid", "zip"}),
        ("exclude:\n  - ", {"lr", "lr_schedule.milestones"}),
    ],
)
def test_names_and_keys_are_offered(editor: Editor, text: str, names: set[str]) -> None:
    assert names <= editor.offered(f"name: a\n{text}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid:", "the trials are their cartesian product"),
        ("zip:", "which advance together"),
        ("random:", "a draw by key"),
        ("cases:", "Named settings"),
        ("search:", "proposed by what earlier ones have shown"),
        ("search:\n  generation:", "How many are proposed together"),
        ("search:\n  space:\n    lr:", "Peak learning rate"),
        ("exclude:", "a trial that matches one is left out"),
        ("base:\n  lr:", "Peak learning rate"),
        ("grid:\n  model.width:", "Channels of the first stage"),
        ("cases:\n  a:\n    grid:", "the trials are their cartesian product"),
    ],
)
def test_keys_are_explained(editor: Editor, text: str, said: str) -> None:
    assert said in editor.said(f"name: a\n{text}")
