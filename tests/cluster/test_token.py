"""What is said of Ray's token; the cluster is played by a server that takes one token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from raysweep.cluster.slots import connect
from raysweep.cluster.token import refusal, token_place
from raysweep.errors import TokenError

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


class _Door(grpc.GenericRpcHandler):
    """Refuses every call, or answers it with an empty message."""

    def __init__(self, refuses: bool) -> None:
        self._refuses = refuses

    def service(self, details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            if self._refuses:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: missing or incorrect")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((_Door(request.param),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("address", [True], indirect=True)
def test_a_refused_token_is_one_sentence_that_says_where_the_right_one_goes(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TokenError) as caught:
        connect(address)
    assert str(caught.value).startswith(f"--address {address}: the cluster refuses the authentication token (")
    assert "~/.ray/auth_token" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_where_a_token_is_asked_for_and_there_is_none_that_is_said_in_one_sentence(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "raysweep",
        str(QUICKSTART),
        "--storage",
        str(tmp_path),
        "--address",
        "127.0.0.1:9",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_TOKEN")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(
        "--address 127.0.0.1:9: the cluster refuses the authentication token (there is none here); "
    )
    assert len(ended.stderr.splitlines()) == 2  # after what it does


@pytest.mark.parametrize("address", [False], indirect=True)
def test_a_cluster_that_answers_refuses_nothing(address: str) -> None:
    assert refusal(address) is None


def test_an_address_where_nothing_answers_is_no_refusal() -> None:
    assert refusal("127.0.0.1:9") is None


def test_the_token_is_said_to_be_where_ray_looks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert token_place() == "~/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert token_place() == str(tmp_path / "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert token_place() == "$RAY_AUTH_TOKEN"
