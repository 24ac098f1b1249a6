"""Serves a followed run to a browser on this machine: its page and what is new, and nothing else.

The address holds a random token, without which every path is unknown. Requests that name another host are refused, so
that a page from elsewhere cannot reach the server through a name of its own (DNS rebinding).
"""

from __future__ import annotations

import gzip
import hmac
import secrets
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from raysweep.report.live.follow import Follower

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
POLICY = "frame-ancestors 'none'"
"""Beside the page's own, which cannot say this."""
COMPRESSED_FROM = 10_000
"""Bytes from which on an answer is compressed: the page may come through ssh."""


class Server(ThreadingHTTPServer):
    """The server of a follower, on a port of 127.0.0.1, or on a free one if that is 0; OSError if it is taken."""

    daemon_threads = True

    def __init__(self, follower: Follower, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(16)
        super().__init__((HOST, port), partial(_Handler, follower, self.token))

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "raysweep", ""
    timeout = 30.0

    def __init__(self, follower: Follower, token: str, *others: object) -> None:
        self._follower, self._token = follower, token
        super().__init__(*others)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer with the page, or with what is new of the run; 404 for all else."""
        url = urlsplit(self.path)
        _, token, name, *_ = *url.path.split("/", 2), "", ""
        is_known = hmac.compare_digest(token.encode(), self._token.encode())
        if not is_known or self.headers.get("Host", "").partition(":")[0] not in HOSTS:
            self._answer(b"", "text/plain", HTTPStatus.NOT_FOUND)
        elif not name:
            self._answer(self._follower.page, "text/html", policy=POLICY)
        elif name == "data.json":
            after = parse_qs(url.query).get("after", ["0"])[0]
            news = self._follower.answer(int(after) if after.isdecimal() and len(after) < 20 else 0)
            self._answer(news or b"", "application/json", HTTPStatus.OK if news else HTTPStatus.NOT_MODIFIED)
        else:
            self._answer(b"", "text/plain", HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815 -- http.server's name

    def _answer(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, policy: str | None = None) -> None:
        self.send_response(status)
        if len(data) >= COMPRESSED_FROM and "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: a line a second would hide the address."""
