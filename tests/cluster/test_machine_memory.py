"""What is said of this machine's memory without Ray."""

from __future__ import annotations

import pytest

from raysweep.cluster.memory import gpus, memory, object_store_bytes


def test_the_object_store_has_the_size_that_ray_would_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.utils import estimate_available_memory, resolve_object_store_memory

    monkeypatch.delenv("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", raising=False)
    free = estimate_available_memory()  # type: ignore[no-untyped-call]
    # Memory comes and goes between the two looks.
    assert object_store_bytes() == pytest.approx(resolve_object_store_memory(free), rel=0.05)
    assert 0 < memory().free < memory().total


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo '81000, 81559'; echo '500, 81559'", [(81000, 81559), (500, 81559)]),
        ("echo '[N/A], [N/A]'", []),
        ("exit 9", []),
    ],
    ids=["two", "a-gpu-that-does-not-tell", "no-driver"],
)
def test_gpus_are_as_nvidias_command_tells(
    script: str, found: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path_factory.mktemp("bin") / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    assert [(gpu.free / 2**20, gpu.total / 2**20) for gpu in gpus()] == found
