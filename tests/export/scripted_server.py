# SPDX-License-Identifier: Apache-2.0
"""The process behind :class:`~tests.export.scripted_collector.ScriptedCollector`.

Run as a script with a JSON object as its only argument, it answers the first requests as that
says, takes all later ones that hold nothing invalid, and writes one JSON line for each, as the
receiver that
:mod:`tests.support.otlp_records` reads. It ends when its standard input is closed.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


class Script:
    """What is answered, and what was asked."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._answers: list[dict[str, Any]] = wanted["answers"]
        self._output: str = wanted["output"]
        self._invalid = set(wanted["invalid"])
        self._is_http = wanted["protocol"] != "grpc"
        self._lock = threading.Lock()

    def next(self, raw: bytes, headers: list[tuple[str, str]]) -> dict[str, Any]:
        """The answer to a request; no status in it if the request is taken."""
        request = ExportTraceServiceRequest.FromString(raw)
        spans = [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]
        items = len(spans)
        texts = {pair.value.string_value for span in spans for pair in span.attributes}
        with self._lock:
            answer = self._answers.pop(0) if self._answers else {}
            if self._invalid & texts:
                status = 400 if self._is_http else "INVALID_ARGUMENT"
                answer = {"status": status, "said": "not for carol"}
            stored = 0 if "status" in answer else items
            line = {"signal": "traces", "stored": stored, "acknowledged": stored, "items": items}
            line |= {"headers": headers, "raw": base64.b64encode(raw).decode()}
            with open(self._output, "a") as file:  # noqa: PTH123 - it runs alone
                file.write(json.dumps(line) + "\n")
        time.sleep(answer.get("delay", 0.0))
        return answer


def _details(answer: dict[str, Any]) -> tuple[tuple[str, bytes], ...]:
    if "retry" not in answer:
        return ()
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(int(answer["retry"] * 1e9))
    if answer.get("as_the_sdk_reads_it"):
        return (("google.rpc.retryinfo-bin", info.SerializeToString()),)
    status = Status(code=grpc.StatusCode[answer["status"]].value[0])
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _taken(answer: dict[str, Any]) -> bytes:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = answer.get("rejected", 0)
    taken: bytes = response.SerializeToString()
    return taken


def serve_grpc(script: Script, wanted: dict[str, Any]) -> int:
    def export(raw: bytes, context: Any) -> bytes:
        answer = script.next(raw, [(k, str(v)) for k, v in context.invocation_metadata()])
        if "status" in answer:
            context.set_trailing_metadata(_details(answer))
            context.abort(grpc.StatusCode[answer["status"]], answer.get("said", ""))
        return _taken(answer)

    handler = grpc.method_handlers_generic_handler(
        _SERVICE, {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )
    options = [("grpc.so_reuseport", 0)]
    if wanted["largest"]:
        options.append(("grpc.max_receive_message_length", wanted["largest"]))
    server = grpc.server(ThreadPoolExecutor(4), options=options)
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port(f"127.0.0.1:{wanted['port']}")
    server.start()
    serve_grpc.server = server  # type: ignore[attr-defined]  # referred to by nobody, it stops
    return int(port)


def serve_http(script: Script, wanted: dict[str, Any]) -> int:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            raw = self.rfile.read(length)
            if wanted["largest"] and length > wanted["largest"]:
                self._send(413, {}, b"")
                return
            headers = [(name.lower(), value) for name, value in self.headers.items()]
            answer = script.next(raw, [*headers, (":path", self.path)])
            said = answer.get("said", "").encode()
            if answer.get("as_status"):
                said = Status(message=answer["said"]).SerializeToString()
            self._send(answer.get("status", 200), answer.get("headers", {}), said)

        def _send(self, status: int, headers: dict[str, str], said: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *arguments: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", wanted["port"]), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main() -> None:
    wanted = json.loads(sys.argv[1])
    script = Script(wanted)
    print((serve_grpc if wanted["protocol"] == "grpc" else serve_http)(script, wanted), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
