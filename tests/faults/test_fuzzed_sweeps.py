"""Sweep files made of noise, and shipped ones with something changed: a plan, or exit code 2 and the line."""

from __future__ import annotations

import contextlib
import io
import random
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sizes import cases

from raysweep.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SHIPPED = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
SECONDS, BYTES = 5.0, 1_000_000_000
PLACED = re.compile(r"(.*\.yaml:\d+: |override ['\"]).*")
NASTY = [
    "0",
    "-1",
    "1e999",
    ".nan",
    ".inf",
    "1e-3",
    "0x7f",
    "99999999999999999999",
    "1/0",
    "1/9",
    "off",
    "yes",
    "null",
    "~",
    '""',
    "''",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{a:",
    "b}",
    "*x",
    "&x\n!!python/object:os.system",
    "<<:",
    "&a",
    "[*a]",
    "?",
    "-",
    ":",
    "#",
    "@",
    "`",
    "%",
    "|",
    ">",
    "\\",
    "\t",
    "\x00",
    "\u2028",
    "../..",
    "/etc/passwd",
    "s3://k:s@b/x",
    "2026-11-24",
    "::",
    "---\n...",
    '"\\ud800"',
    "true",
    "1_000",
    "[1,2,3]",
    "{uniform:",
    "[1,",
    "0]}",
    "{log_uniform:",
    "[0,",
    "1]}",
    "{int:",
    "[1,",
    "2]}",
    "{choice:",
    "[]}",
    "name",
    "base",
    "grid",
    "zip\nrandom",
    "cases",
    "exclude",
    "seeds",
    "seed",
    "objective",
    "scheduler",
    "resources",
    "checkpoints",
    "storage",
    "retries",
    "limits",
    "evaluate",
    "asha",
    "none",
    "lr",
    "epochs\nmodel",
    "augment",
    "normalize",
    "optimizer",
    "lr_schedule",
    "data",
    "batch_size",
    "ema",
    "samples",
    "eta",
    "rungs",
    "group_by",
    "model.width",
]
LIMITS = settings(max_examples=cases(250, 5000), deadline=None, database=None, derandomize=True,
                  suppress_health_check=list(HealthCheck))  # fmt: skip

KEYS = st.sampled_from(
    [
        "name",
        "description",
        "base",
        "grid",
        "zip",
        "random",
        "cases",
        "exclude",
        "seeds",
        "seed",
        "objective",
        "scheduler",
        "resources",
        "checkpoints",
        "storage",
        "retries",
        "limits",
        "evaluate",
        "lr",
        "epochs",
        "model",
        "model.width",
        "model.name",
        "data",
        "augment",
        "normalize",
        "optimizer",
        "optimizer.momentum",
        "lr_schedule",
        "batch_size",
        "ema",
        "samples",
        "eta",
        "rungs",
        "group_by",
        "metric",
        "mode",
        "uniform",
        "choice",
        "int",
        "workers",
        "gpus",
        "trials",
    ]
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=8), KEYS, st.sampled_from(NASTY)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def flow(value: Any) -> str:
    """A value as YAML, in one line; text is sometimes left bare, to be whatever YAML takes it for."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{key}: {flow(entry)}" for key, entry in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(flow, value)) + "]"
        case _:
            return str(value)


def most_memory() -> int:
    """Bytes that this process has ever held at once; earlier tests are in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def holds(path: Path, text: bytes, *overrides: str) -> int:
    """Plan the file; hold what came of it against the promise. Returns the exit code."""
    path.write_bytes(text)
    out, err = io.StringIO(), io.StringIO()
    start, before = time.process_time(), most_memory()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(["plan", str(path), "--json", *overrides])
        except SystemExit as ended:  # argparse: an override that looks like an option
            return int(str(ended.code))
    assert time.process_time() - start < SECONDS, text
    assert most_memory() - before < BYTES, text
    if code == 0:
        assert out.getvalue().startswith("{")
    else:
        assert code == 2
        assert out.getvalue() == ""
        problems = err.getvalue().splitlines()
        assert problems
        assert any(PLACED.match(problem) for problem in problems), (err.getvalue(), text)
    return code


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzzed.yaml"


def mutated(rng: random.Random, text: bytes) -> bytes:
    """One to four changes: lines dropped, doubled, moved or indented; words replaced; bytes flipped; the end cut."""
    lines = text.decode().split("\n")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines))
        match rng.randrange(8):
            case 0:
                del lines[at]
                lines = lines or [""]
            case 1:
                lines.insert(at, lines[rng.randrange(len(lines))])
            case 2:
                lines[at] = rng.choice([" ", "  ", "\t", "    "]) + lines[at]
            case 3:
                lines[at] = lines[at].lstrip()
            case 4 | 5:
                words = re.findall(r"[\w./-]+|\s+|.", lines[at]) or [""]
                words[rng.randrange(len(words))] = rng.choice(NASTY)
                lines[at] = "".join(words)
            case 6:
                lines[at] = lines[at][: rng.randint(0, len(lines[at]))]
            case _:
                head, _, _ = lines[at].partition(":")
                lines[at] = f"{head}: {rng.choice(NASTY)}"
    data = bytearray("\n".join(lines).encode(errors="surrogatepass"))
    if data and rng.random() < 0.2:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_shipped_sweeps_with_something_changed(path: Path) -> None:
    rng, codes = random.Random(6), []
    for number in range(cases(500, 10_000)):
        codes.append(holds(path, mutated(rng, SHIPPED[number % len(SHIPPED)].read_bytes())))
    assert set(codes) == {0, 2}
    assert codes.count(0) > len(codes) / 20  # or nothing but the first line of reading was tried


def test_files_of_the_right_words_in_any_order(path: Path) -> None:
    codes = []

    @LIMITS
    @given(st.dictionaries(KEYS, VALUES, max_size=6))
    def fuzz(values: dict[str, Any]) -> None:
        text = "\n".join(f"{key}: {flow(value)}" for key, value in {"name": "fuzz", **values}.items())
        codes.append(holds(path, text.encode(errors="surrogatepass")))

    fuzz()
    assert set(codes) == {0, 2}


def test_noise(path: Path) -> None:
    @LIMITS
    @given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
    def fuzz(data: bytes) -> None:
        assert holds(path, data) == 2

    fuzz()


def test_overrides_of_any_kind(path: Path) -> None:
    text = SHIPPED[0].read_bytes()

    @settings(LIMITS, max_examples=cases(100, 2000))
    @given(st.lists(st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]}={flow(pair[1])}"), min_size=1, max_size=3))
    def fuzz(overrides: list[str]) -> None:
        holds(path, text, *overrides)

    fuzz()
