"""Ray's authentication token: where it is kept here, and whether a cluster takes it.

Ray itself tries a refused token for twenty seconds, says so each time, and ends with an error that does not name it.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

ANSWER_WITHIN_S = 5.0


def token_file() -> Path:
    """Return the file that Ray reads the token from, unless $RAY_AUTH_TOKEN has it."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def token_place() -> str | None:
    """Return in words where the token is, which the dashboard asks for; None if it asks for none."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    if not is_token_auth_enabled():
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "$RAY_AUTH_TOKEN"
    return str(token_file()).replace(str(Path.home()), "~", 1)


def refusal(address: str) -> str | None:
    """Return with what words the cluster at HOST:PORT refuses what this process has for a token; None if it does not.

    Whether anything answers there at all is for Ray to say.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
    from ray.exceptions import AuthenticationError

    messages: Any = gcs_service_pb2
    door: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub
    with closing(init_grpc_channel(address)) as channel:
        try:
            door(channel).GetClusterId(messages.GetClusterIdRequest(), timeout=ANSWER_WITHIN_S)
        except grpc.RpcError as error:
            return str(error.details()) if error.code() == grpc.StatusCode.UNAUTHENTICATED else None
        except AuthenticationError:
            return "there is none here"
    return None
