"""Ray's authentication token: where it is kept here, and whether a cluster answers and takes it.

Ray itself tries a refused token for twenty seconds, and where nothing answers for two minutes. It says so each time, in
lines of C++, and ends with an error that names neither.
"""

from __future__ import annotations

import logging
import os
import socket
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
    path, home = token_file(), Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def is_token_asked_for() -> bool:
    """Whether the cluster that this process is connected to asks for a token, its dashboard included."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def knock(address: str) -> None:
    """Ask the cluster at HOST:PORT or `auto` whether it lets this process in, before Ray connects.

    What else is wrong, or cannot be asked of this version of Ray, shows when it connects. A head that is slow to answer
    is left to Ray, too, which waits longer for it.

    Raises:
        TokenError: it refuses what this process has for a token.
        ClusterError: nothing listens there, or no such host is known.
    """
    import grpc
    from ray.exceptions import AuthenticationError

    try:
        if address != "auto":
            _find_host(address)
        _ask_for_its_id(_find_local() if address == "auto" else address)
    except AuthenticationError:
        raise TokenError(address, "there is none here", token_place()) from None
    except socket.gaierror as error:
        raise _nothing_at(address, f"unknown host: {error.strerror}") from None
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise TokenError(address, str(error.details()), token_place()) from None
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            raise _nothing_at(address, str(error.details()).rpartition("last error: UNKNOWN: ")[2]) from None
    except Exception:
        logging.getLogger(__name__).debug("%s cannot be asked", address, exc_info=True)


def _nothing_at(address: str, why: str) -> ClusterError:
    return ClusterError(
        f"--address {address}: no Ray cluster answers there ({why}); give the address of its head, HOST:6379, and see "
        "`ray status` on that host"
    )


def _find_host(address: str) -> None:
    """Raise socket.gaierror if an address's host is not known; gRPC would look for it until the time is over."""
    host, _, port = address.rpartition(":")
    socket.getaddrinfo((host or port).strip("[]"), None)


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
        stub(channel).GetClusterId(messages.GetClusterIdRequest(), timeout=ANSWER_WITHIN_S)
