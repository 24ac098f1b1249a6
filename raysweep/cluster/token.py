"""Ray's authentication token: where it is kept here, and whether a cluster answers and takes it.

Ray itself tries a refused token for twenty seconds, and where nothing answers for two minutes. It says so each time, in
lines of C++, and ends with an error that names neither.
"""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from raysweep.errors import ClusterError, TokenError

ANSWER_WITHIN_S = 20.0


def token_file() -> Path:
    """Return the file that Ray reads the token from, unless $RAY_AUTH_TOKEN has it."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def token_place() -> str:
    """Return in words where Ray looks for the token on this machine."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "$RAY_AUTH_TOKEN"
    return str(token_file()).replace(str(Path.home()), "~", 1)


def is_token_asked_for() -> bool:
    """Whether the cluster that this process is connected to asks for a token, its dashboard included."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def knock(address: str) -> None:
    """Ask the cluster at HOST:PORT or `auto` whether it lets this process in, before Ray connects.

    What else is wrong, or cannot be asked of this version of Ray, shows when it connects.

    Raises:
        TokenError: it refuses what this process has for a token.
        ClusterError: nothing answers there.
    """
    import grpc
    from ray.exceptions import AuthenticationError

    silence = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    try:
        _ask_for_its_id(_find_local() if address == "auto" else address)
    except AuthenticationError:
        raise TokenError(address, "there is none here", token_place()) from None
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise TokenError(address, str(error.details()), token_place()) from None
        if error.code() in silence:
            raise ClusterError(
                f"--address {address}: no Ray cluster answers there within {ANSWER_WITHIN_S:g} s; give the address "
                "of its head, HOST:6379, and see `ray status` on that host"
            ) from None
    except Exception:
        logging.getLogger(__name__).debug("%s cannot be asked", address, exc_info=True)


def _find_local() -> str:
    """Return the address of the cluster on this machine, and enable the token where `ray.init("auto")` will."""
    from ray._private import services
    from ray._private.authentication import authentication_token_setup

    logging.getLogger("ray").setLevel(logging.ERROR)  # as when it connects, else it would say all twice
    if enable := getattr(authentication_token_setup, "maybe_enable_token_auth_if_token_available", None):
        enable(warn_if_disabled=False)
    return str(services.canonicalize_bootstrap_address_or_die("auto"))


def _ask_for_its_id(address: str) -> None:
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2
    stub: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub
    with closing(init_grpc_channel(address)) as channel:
        stub(channel).GetClusterId(messages.GetClusterIdRequest(), timeout=ANSWER_WITHIN_S, wait_for_ready=True)
