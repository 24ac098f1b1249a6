"""An S3 server of the tests' own, on loopback: moto's, made slow, refusing, or gone as a test wants."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

BUCKET = "experiments"
SECRET = "a-secret-of-the-tests-0123456789"
ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>said by the test</Message></Error>'
Request = dict[str, Any]


class S3Server:
    """Holds one bucket, `experiments`."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = create_backend_app("s3")  # moto's dispatcher would look for the service anew with each request
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self.requests: list[str] = []
        """Each one's method and path."""
        self.fault: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        """Answers a request's method and path with (HTTP status, code of S3) instead of the store; may sleep."""
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIATESTSOFRAYSWEEP",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def start(self) -> None:
        """Listen, on the port of before."""
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self.port = self._server.port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections; what is stored stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextmanager
    def away(self, seconds: float) -> Iterator[None]:
        """Refuse connections from now on, for so long."""
        self.stop()
        timer = threading.Timer(seconds, self.start)
        timer.start()
        yield
        timer.join()

    def client(self) -> Any:
        """Amazon's own, to look at what is there and to damage it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="AKIATESTSOFRAYSWEEP",
            aws_secret_access_key=SECRET,
        )

    def keys(self, prefix: str = "") -> dict[str, int]:
        """Bytes of each object, by key."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def _answer(self, environ: Request, start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append(f"{method} {path}")
        fault = self.fault(method, path)
        if fault is None:
            answer: Iterable[bytes] = self._app(environ, start)
            return answer
        body = ERROR.format(code=fault[1]).encode()
        start(f"{fault[0]} {fault[1]}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """The server, and this process's environment set for it."""
    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    server.stop()


def slow(seconds: float) -> Callable[[str, str], None]:
    """A fault: every answer takes so long."""
    return lambda method, path: time.sleep(seconds)
