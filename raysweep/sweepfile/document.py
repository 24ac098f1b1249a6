"""Reads YAML 1.2 text. Out: plain values and the line of each; nothing in the text can build an object or run code."""

from __future__ import annotations

import difflib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from raysweep.errors import SweepFileError

Keys = tuple[str | int, ...]
"""The way to a value: the keys of mappings and indices of lists that lead there."""

MAX_BYTES = 1_000_000
MAX_VALUES = 50_000
"""The most values that a file may have, counted after aliases are followed, which stops an anchor bomb."""
MAX_DEPTH = 30
ALWAYS_TEXT: frozenset[Keys] = frozenset({("start", "trial")})
"""Values that are text even if YAML would read a number: a trial's id may look like 743126166391, or 1e5."""


@dataclass
class Source:
    """A sweep file's values, and where each stands."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Keys, int] = field(default_factory=dict)
    overridden: dict[Keys, str] = field(default_factory=dict)  # the override that decided a value, by the way to it

    def place(self, keys: Sequence[str | int]) -> str:
        """Return where a value, or else what surrounds it, was set: `file:line`, or the override."""
        ways = [tuple(keys[:end]) for end in range(len(keys), -1, -1)]
        if override := next(filter(None, map(self.overridden.get, ways)), None):
            return f"override '{override}'"
        if not self.path:
            return ""  # a sweep given as values has keys, and no lines
        return f"{self.path}:{next(filter(None, map(self.lines.get, ways)), 1)}"

    def problem(self, way: Sequence[str | int], message: str) -> str:
        """Return one line: place, key, and what is wrong."""
        return ": ".join(filter(None, (self.place(way), ".".join(map(str, way)), message)))


SWEEP_FILE = "must be a mapping with `name`, `base`, `grid` ..."


def read_document(path: str, expected: str = SWEEP_FILE) -> Source:
    """Read a sweep file, or `expected`; raise SweepFileError if it cannot be read, or is not one plain YAML mapping."""
    source = Source(path)
    values = _Reader(source).read(_text(path))
    if not isinstance(values, dict):
        got = "nothing" if values is None else type(values).__name__
        raise SweepFileError(f"{path}:1: {expected}; got {got}")
    source.values = values
    return source


def document_of(values: Mapping[str, Any]) -> tuple[Source, str]:
    """Return a sweep that was given as values, and its text; raise SweepFileError if YAML has no such values."""
    text = io.StringIO()
    try:
        YAML(typ="safe", pure=True).dump(dict(values), text)
    except YAMLError as error:
        raise SweepFileError(f"the sweep: must be of plain values alone: {error}") from error
    source = Source("")
    source.values = _Reader(source).read(text.getvalue())
    return source, text.getvalue()


def parse_value(text: str, way: Keys) -> Any:
    """Parse the value that an override sets at `way`; raise SweepFileError if it is not plain YAML."""
    return _Reader(Source("value")).read(text, way)


def _text(path: str) -> str:
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        near = _files_like(Path(path)) if isinstance(error, FileNotFoundError) else ""
        raise SweepFileError(f"{path}: cannot be read: {reason}{near}") from error
    if len(data) > MAX_BYTES:
        raise SweepFileError(f"{path}:1: is {len(data):,} bytes long; a sweep file may have {MAX_BYTES:,}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SweepFileError(f"{path}:{line}: is not UTF-8 text ({error.reason})") from error


def _files_like(path: Path) -> str:
    near = difflib.get_close_matches(path.name, [each.name for each in path.parent.glob("*.y*ml")], n=1)
    return f" (did you mean {str(path.with_name(near[0]))!r}?)" if near else ""


class _Reader:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._yaml = YAML(typ="safe", pure=True)
        self._count = 0
        self._problems: list[str] = []

    def read(self, text: str, way: Keys = ()) -> Any:
        try:
            with warnings.catch_warnings():  # YAML allows an anchor to be defined again; the new one holds from there
                warnings.simplefilter("ignore", ReusedAnchorWarning)
                node = self._yaml.compose(text)
        except RecursionError as error:
            raise SweepFileError(f"{self._source.path}:1: is nested too deeply") from error
        except (YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            line = mark.line + 1 if mark else 1
            raise SweepFileError(f"{self._source.path}:{line}: is not YAML: {problem}") from error
        value = None if node is None else self._value(node, way)
        if self._problems:
            raise SweepFileError(*self._problems)
        return value

    def _value(self, node: Node, way: Keys) -> Any:
        self._count += 1
        self._source.lines.setdefault(way, node.start_mark.line + 1)
        if self._count > MAX_VALUES:
            raise SweepFileError(f"{self._place(node)}: has more than {MAX_VALUES:,} values, aliases followed")
        if len(way) > MAX_DEPTH:
            raise SweepFileError(f"{self._place(node)}: is nested deeper than {MAX_DEPTH} levels")
        tag = str(node.tag)
        if not re.fullmatch(r"tag:yaml\.org,2002:(str|int|float|bool|null|map|seq|timestamp)", tag):
            self._note(node, f"tag {tag!r} is not allowed; plain values only")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, tag.rpartition(":")[2], way)
        if isinstance(node, MappingNode):
            return self._mapping(node, way)
        return [self._value(item, (*way, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: MappingNode, way: Keys) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else ""
            if not key or any("\ud800" <= letter <= "\udfff" for letter in key):
                self._note(key_node, "a key must be plain text")
                continue
            if key in values:
                self._note(key_node, f"key {key!r} is given a second time")
            self._source.lines[(*way, key)] = key_node.start_mark.line + 1
            values[key] = self._value(value_node, (*way, key))
        return values

    def _scalar(self, node: ScalarNode, kind: str, way: Keys) -> Any:
        if way in ALWAYS_TEXT and kind != "null":
            return str(node.value)
        if kind not in ("int", "float", "bool", "null"):  # a date stays text
            return str(node.value)
        try:
            return getattr(self._yaml.constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, LookupError):
            self._note(
                node, f"{node.value[:40]!r} is not {'true or false' if kind == 'bool' else 'a number that fits'}"
            )
            return None

    def _place(self, node: Node) -> str:
        return f"{self._source.path}:{node.start_mark.line + 1}"

    def _note(self, node: Node, problem: str) -> None:
        self._problems.append(f"{self._place(node)}: {problem}")
