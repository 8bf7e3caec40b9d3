# SPDX-License-Identifier: Apache-2.0
"""An OTLP receiver that only counts, so that it takes little from what is measured beside it.

Run as a script with a JSON object of names and protocols, it prints the ports as another one, and
for each line on its standard input how many spans have come to each name.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

counts: Counter[str] = Counter()
_running: list[Any] = []


def _count(name: str, signal: str, raw: bytes) -> None:
    if "trace" in signal:
        request = ExportTraceServiceRequest.FromString(raw)
        counts[name] += sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)


class _Any(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Takes every method; an empty answer is a valid one of all three signals."""

    def __init__(self, name: str) -> None:
        self._name = name

    def service(self, call: Any) -> Any:
        def export(raw: bytes, _: Any) -> bytes:
            _count(self._name, call.method, raw)
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


def serve_grpc(name: str) -> int:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([_Any(name)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _running.append(server)
    return int(port)


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""

    def do_POST(self) -> None:
        _count(self.name, self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def serve_http(name: str) -> int:
    handler = type("Handler", (_HttpHandler,), {"name": name})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def never_answer(_: str) -> int:
    """Connections are accepted by the operating system, and nobody takes them up."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    _running.append(listener)
    return int(listener.getsockname()[1])


SERVE = {"grpc": serve_grpc, "http/protobuf": serve_http, "tar pit": never_answer}


def main() -> None:
    wanted = json.loads(sys.argv[1])
    print(json.dumps({name: SERVE[kind](name) for name, kind in wanted.items()}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({name: counts[name] for name in wanted}), flush=True)


if __name__ == "__main__":
    main()
