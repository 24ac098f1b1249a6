"""EC2's instance metadata on loopback (IMDSv2): no document without a token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "X-aws-ec2-metadata-token"


@dataclass
class Metadata:
    """What the server answers; tests change it while it runs."""

    url: str = ""
    documents: dict[str, str] = field(default_factory=dict)
    """By path below `/latest/meta-data/`; of others there is none."""
    token: str = "secret"
    fault: int | None = None
    """The status that everything is answered with."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Methods and paths."""


@contextmanager
def serve_metadata() -> Iterator[Metadata]:
    metadata = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            is_whole = self.path == "/latest/api/token" and self.headers[f"{TOKEN}-ttl-seconds"]
            self._answer(200 if is_whole else 400, metadata.token)

        def do_GET(self) -> None:
            document = metadata.documents.get(self.path.removeprefix("/latest/meta-data/"))
            if self.headers[TOKEN] != metadata.token:
                self._answer(401)
            else:
                self._answer(404 if document is None else 200, document or "")

        def _answer(self, status: int, text: str = "") -> None:
            metadata.asked.append((self.command, self.path))
            self.send_response(metadata.fault or status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    metadata.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield metadata
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
