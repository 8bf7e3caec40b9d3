# SPDX-License-Identifier: Apache-2.0
"""An HTTP server on loopback that notes the headers of each request that it gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Peer:
    """What one server got, and what it answers.

    Attributes:
        url: Its address.
        requests: The headers of each request, in order, as they were sent.
        answers: JSON by path; everything else gets ``{"ok": true}``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[list[tuple[str, str]]] = []
        self.answers: dict[str, Any] = {}

    def values(self, header: str) -> list[list[str]]:
        """For each request the values of a header."""
        return [
            [value for name, value in request if name.lower() == header]
            for request in self.requests
        ]

    def value(self, header: str) -> str | None:
        """The value of a header in the only request."""
        (values,) = self.values(header)
        assert len(values) <= 1, f"{header} was sent {len(values)} times"
        return values[0] if values else None


@contextmanager
def listening() -> Iterator[Peer]:
    """A server that runs in a thread of this process."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            peer.requests.append(self.headers.items())
            body = json.dumps(peer.answers.get(self.path, {"ok": True})).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815 - http.server's names

        def log_message(self, *args: Any) -> None:
            """Nothing to the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    peer = Peer(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
