# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server for the page that Prometheus scrapes."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from agent_kernel_otel.faults import faults

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_PATIENCE: Final = 10.0
"""Seconds that a client may keep its thread waiting."""


class MetricsPage:
    """Listens from the beginning, and answers once it is started.

    Args:
        application: Makes the page; it is asked for one at a time.
        host: Name or address to listen on.
        port: 0 for any that is free.

    Attributes:
        address: Where it is.

    Raises:
        OSError: It cannot listen there.
    """

    def __init__(self, application: Application, host: str, port: int) -> None:
        self._server = _Server(host, port)
        self._server.set_app(_one_at_a_time(application))
        self._owner = os.getpid()
        self._is_open = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="OtelMetricsPage", daemon=True
        )
        self.address = address_of(host, self._server.server_port)

    @property
    def is_served(self) -> bool:
        """Whether this process serves it; a forked child does not."""
        return self._is_open and self._thread.ident is not None and self._owner == os.getpid()

    def start(self) -> None:
        """Answer, those too who have asked since it was made."""
        self._thread.start()

    def close(self) -> None:
        """Listen no more. In a forked child this leaves the parent's alone."""
        if self.is_served:
            with suppress(OSError):
                # Wakes its thread; in a forked child it would end the parent's listening.
                self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.shutdown()
        self._is_open = False
        self._server.socket.close()


def address_of(host: str, port: int) -> str:
    """Where a page is that is listened for there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a scrape is no news."""

    def get_stderr(self) -> TextIO:
        return io.StringIO()  # a client that hangs up is no news either


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        super().__init__((str(address[0]), port), _Handler)

    def server_bind(self) -> None:
        # The base class asks a name server for the host's full name, which can take its time.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up or never ask."""


def _one_at_a_time(application: Application) -> Application:
    """The same, where two that ask at once would get one page twice and an empty one."""
    lock = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            with lock:
                return application(environ, start_response)
        except Exception:
            faults.swallow("making the page of metrics")
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"the metrics could not be collected\n"]

    return serve
