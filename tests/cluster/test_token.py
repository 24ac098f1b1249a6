"""What is said of Ray's token, and where nothing answers; the cluster is played by a server that takes one token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray._private import services
from ray.util import get_node_ip_address

from raysweep.cluster import token
from raysweep.cluster.slots import connect
from raysweep.cluster.token import knock, token_place
from raysweep.errors import ClusterError, TokenError

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
NOWHERE = "127.0.0.1:9"


class _Door(grpc.GenericRpcHandler):
    """Refuses every call, or answers it with an empty message."""

    def __init__(self, refuses: bool) -> None:
        self._refuses = refuses

    def service(self, details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            if self._refuses:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: missing or incorrect. More words.")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((_Door(request.param),))
    here = get_node_ip_address()  # by which Ray replaces a loopback address
    port = server.add_insecure_port(f"{here}:0")
    server.start()
    yield f"{here}:{port}"
    server.stop(None)


@pytest.mark.parametrize("address", [True], indirect=True)
@pytest.mark.parametrize("is_auto", [False, True])
def test_a_refused_token_is_one_sentence_that_says_where_the_right_one_goes(
    address: str, is_auto: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {address})  # those of the machine's processes
    given = "auto" if is_auto else address
    with pytest.raises(TokenError) as caught:
        connect(given)
    assert str(caught.value) == (
        f"--address {given}: the cluster does not take our authentication token (InvalidAuthToken: missing or "
        "incorrect); ~/.ray/auth_token here must be the cluster's own, mode 600, and RAY_AUTH_MODE=token exported"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", [[str(QUICKSTART)], ["doctor", str(QUICKSTART)]])
def test_a_token_that_is_not_there_is_said_in_one_sentence(command: list[str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "raysweep", *command, "--storage", str(tmp_path), "--address", NOWHERE]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_TOKEN")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert ended.returncode == 2
    said = [line for line in ended.stderr.splitlines() if not line.startswith("connecting to Ray")]
    assert len(said) == 1
    assert said[0].startswith(
        f"--address {NOWHERE}: the cluster does not take our authentication token (there is none here"
    )


@pytest.mark.parametrize("address", [False], indirect=True)
def test_a_cluster_that_answers_lets_in(address: str) -> None:
    knock(address)


@pytest.mark.parametrize(
    ("address", "why"),
    [(NOWHERE, "ipv4:127.0.0.1:9: .*Connection refused"), ("misspelt.invalid:6379", "unknown host: .*")],
)
def test_an_address_where_nothing_answers_is_one_sentence_at_once(
    address: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClusterError, match=rf"^--address {address}: no Ray cluster answers there \({why}\); "):
        connect(address)
    assert capfd.readouterr() == ("", "")


def test_a_head_that_is_slow_to_answer_is_left_to_ray_which_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "ANSWER_WITHIN_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        knock(f"127.0.0.1:{silent.getsockname()[1]}")


def test_a_refusal_without_words_is_said_too() -> None:
    assert "does not take our authentication token (it does not say why); ~/.ray/auth_token here must be" in str(
        TokenError("host:6379", "", "~/.ray/auth_token")
    )


def test_a_ray_that_cannot_be_asked_is_left_to_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray._private.grpc_utils", None)
    knock(NOWHERE)


def test_the_token_is_said_to_be_where_ray_looks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert token_place() == "~/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert token_place() == str(tmp_path / "token")
    outside = f"{tmp_path}{Path.home()}/token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", outside)
    assert token_place() == outside
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert token_place() == "$RAY_AUTH_TOKEN"
