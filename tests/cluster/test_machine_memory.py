"""What is said of this machine's memory without Ray."""

from __future__ import annotations

import pytest

from raysweep.cluster.memory import gpus, memory, object_store_bytes


def test_the_object_store_has_the_size_that_ray_would_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.utils import estimate_available_memory, resolve_object_store_memory

    monkeypatch.setenv("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", "2e9")  # no whole number: Ray takes its default
    free = estimate_available_memory()  # type: ignore[no-untyped-call]
    # Memory comes and goes between the two looks.
    assert object_store_bytes() == pytest.approx(resolve_object_store_memory(free), rel=0.05)
    assert 0 < memory().free < memory().total


TWO = "echo '0, GPU-1a, 81000, 81559'; echo '1, GPU-2b, 500, 81559'"


@pytest.mark.parametrize(
    ("script", "visible", "free"),
    [
        (TWO, None, [81000, 500]),
        (TWO, "1", [500]),
        (TWO, "0, GPU-2", [81000, 500]),
        (TWO, "", []),
        (TWO, "MIG-3c", []),
        ("echo '0, GPU-1a, [N/A], [N/A]'", None, []),
        ("echo '0, GPU-1a, 81000'", None, []),
        ("echo 'No devices were found'", None, []),
        ("exit 9", None, []),
    ],
    ids=["two", "by-number", "by-id", "all-hidden", "a-part", "does-not-tell", "a-value-less", "none", "no-driver"],
)
def test_gpus_are_as_nvidias_command_tells_of_those_that_are_visible(
    script: str,
    visible: str | None,
    free: list[int],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = tmp_path_factory.mktemp("bin") / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [(gpu.free, gpu.total) for gpu in gpus()] == [(each * 2**20, 81559 * 2**20) for each in free]
