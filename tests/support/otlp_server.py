# SPDX-License-Identifier: Apache-2.0
"""The process behind :class:`~tests.support.faulty_collector.FaultyCollector`.

Run as a script with a JSON object as its only argument, it listens on a free port of the loopback
interface, prints the port, and writes one JSON line for each request. It ends when its standard
input is closed, so that it goes when its parent does, however that goes.
"""

from __future__ import annotations

import base64
import gzip
import json
import select
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

_REQUESTS: Final[dict[str, Any]] = {
    "traces": trace_service.ExportTraceServiceRequest,
    "metrics": metrics_service.ExportMetricsServiceRequest,
    "logs": logs_service.ExportLogsServiceRequest,
}
_RESPONSES: Final[dict[str, Any]] = {
    "traces": trace_service.ExportTraceServiceResponse,
    "metrics": metrics_service.ExportMetricsServiceResponse,
    "logs": logs_service.ExportLogsServiceResponse,
}
_REJECTED: Final = {
    "traces": "rejected_spans",
    "metrics": "rejected_data_points",
    "logs": "rejected_log_records",
}
_SERVICES: Final = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
_SLOW: Final = 4.0
_ERRORS: Final = {
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
}


@dataclass(frozen=True)
class Answer:
    """How one request is answered: the name of a gRPC status, and after how long."""

    error: str | None = None
    delay: float = 0.0
    rejected: int = 0


# What the n-th request of a signal is answered, counted from 0.
_BEHAVIOURS: Final[dict[str, Callable[[int, int], Answer]]] = {
    "healthy": lambda n, count: Answer(),
    "slow": lambda n, count: Answer(delay=_SLOW),
    "flapping": lambda n, count: Answer("UNAVAILABLE" if n % 2 == 0 else None),
    "server_error": lambda n, count: Answer("INTERNAL"),
    "resource_exhausted": lambda n, count: Answer("RESOURCE_EXHAUSTED"),
    "unavailable_then_ok": lambda n, count: Answer("UNAVAILABLE" if n < count else None),
    "partial_success": lambda n, count: Answer(rejected=count),
}


class Requests:
    """Decides what each request is answered, and writes it down."""

    def __init__(self, behaviour: str, count: int, output: Path) -> None:
        self._answer = _BEHAVIOURS[behaviour]
        self._count = count
        self._seen: Counter[str] = Counter()
        self._file = output.open("w")
        self._lock = threading.Lock()

    def handle(
        self, signal: str, raw: bytes, headers: list[tuple[str, str]], waits: Callable[[], bool]
    ) -> tuple[str | None, bytes]:
        """The error to answer with, if any, and else the response.

        Args:
            signal: ``traces``, ``metrics`` or ``logs``.
            raw: The request as it was serialized.
            headers: What came with it.
            waits: Tells whether the sender still waits for the answer.
        """
        items = _count_items(signal, _REQUESTS[signal].FromString(raw))
        with self._lock:
            answer = self._answer(self._seen[signal], self._count)
            self._seen[signal] += 1
        if answer.delay:
            time.sleep(answer.delay)
        rejected = min(answer.rejected, items)
        stored = 0 if answer.error else items - rejected
        line = {
            "signal": signal,
            "stored": stored,
            "acknowledged": stored if waits() else 0,
            "headers": headers,
            "raw": base64.b64encode(raw).decode(),
        }
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        response = _RESPONSES[signal]()
        if rejected:
            setattr(response.partial_success, _REJECTED[signal], rejected)
            response.partial_success.error_message = "some were rejected"
        return answer.error, response.SerializeToString()


def _count_items(signal: str, request: Any) -> int:
    """Spans and log records are counted one by one, of metrics the batches."""
    if signal == "traces":
        return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
    if signal == "logs":
        return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
    return 1


def _serve_grpc(requests: Requests, certificate: str | None) -> int:
    from concurrent.futures import ThreadPoolExecutor

    import grpc  # type: ignore[import-untyped]

    def handler(signal: str) -> Any:
        def export(raw: bytes, context: Any) -> bytes:
            headers = [(item.key, str(item.value)) for item in context.invocation_metadata()]
            error, response = requests.handle(signal, raw, headers, context.is_active)
            if error:
                context.abort(grpc.StatusCode[error], "as it was asked to")
            return response

        return grpc.method_handlers_generic_handler(
            _SERVICES[signal], {"Export": grpc.unary_unary_rpc_method_handler(export)}
        )

    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([handler(signal) for signal in _SERVICES])
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pem = Path(certificate).read_bytes()
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
    server.start()
    # Referred to from here on by nobody, it would stop.
    _serve_grpc.server = server  # type: ignore[attr-defined]
    return int(port)


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    requests: Requests

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or that does not trust the certificate, is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _HTTPServer

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            raw = gzip.decompress(raw)
        signal = self.path.rpartition("/")[2]
        # As HTTP/2 names it, over which gRPC comes.
        headers = [(":path", self.path)]
        headers += [(name.lower(), value) for name, value in self.headers.items()]
        error, response = self.server.requests.handle(signal, raw, headers, self._waits)
        self.send_response(_ERRORS[error] if error else HTTPStatus.OK)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(0 if error else len(response)))
        self.end_headers()
        if not error:
            self.wfile.write(response)

    def _waits(self) -> bool:
        if isinstance(self.connection, ssl.SSLSocket):
            return True
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""

    def log_message(self, *arguments: Any) -> None:
        """Nobody reads it."""


def _serve_http(requests: Requests, certificate: str | None) -> int:
    server = _HTTPServer(("127.0.0.1", 0), _Handler)
    server.requests = requests
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def _swallow_connections() -> int:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    held = []

    def accept() -> None:
        while True:
            held.append(listener.accept())

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def main() -> None:
    wanted = json.loads(sys.argv[1])
    if wanted["behaviour"] == "tar_pit":
        port = _swallow_connections()
    else:
        requests = Requests(wanted["behaviour"], wanted["count"], Path(wanted["output"]))
        serve = _serve_grpc if wanted["protocol"] == "grpc" else _serve_http
        port = serve(requests, wanted["certificate"])
    print(port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
