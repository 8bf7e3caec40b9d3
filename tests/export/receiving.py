# SPDX-License-Identifier: Apache-2.0
"""The process behind :class:`tests.export.harness.Receiver`; it ends when its input is closed.

It writes one JSON line for each request, as :mod:`tests.support.otlp_records` reads them, and adds
to what is there already.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Traces(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Takes so many requests; of the next one it dies, or it never answers."""

    def __init__(self, output: Path, takes: int, then: str) -> None:
        self._file = output.open("a")
        self._takes = takes
        self._then = then
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def service(self, call: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._export)

    def _export(self, raw: bytes, context: Any) -> bytes:
        if 0 <= self._takes <= next(self._numbers):
            if self._then == "die":
                os._exit(1)
            is_given_up = threading.Event()
            context.add_callback(is_given_up.set)
            is_given_up.wait()
            return b""
        request = ExportTraceServiceRequest.FromString(raw)
        spans = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        line = {
            "signal": "traces",
            "stored": spans,
            "acknowledged": spans,
            "headers": [(item.key, str(item.value)) for item in context.invocation_metadata()],
            "raw": base64.b64encode(raw).decode(),
        }
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        return b""


def main() -> None:
    wanted = json.loads(sys.argv[1])
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    traces = Traces(Path(wanted["output"]), wanted["takes"], wanted["then"])
    server.add_generic_rpc_handlers([traces])
    port = server.add_insecure_port(f"127.0.0.1:{wanted['port']}")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
