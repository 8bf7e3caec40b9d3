# SPDX-License-Identifier: Apache-2.0
"""An OTLP/gRPC receiver for tests, in a process of its own.

Run as a script, ``python otlp_sink.py PORTFILE OUTFILE``, it listens on a free port of the
loopback interface, writes the port to PORTFILE, and one JSON line for each request to OUTFILE.
:class:`OtlpSink` starts it and reads what it received.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import grpc  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

if TYPE_CHECKING:
    from typing_extensions import Self

_SERVICES: Final[dict[str, tuple[Any, Any]]] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": (
        trace_service.ExportTraceServiceRequest,
        trace_service.ExportTraceServiceResponse,
    ),
    "opentelemetry.proto.collector.metrics.v1.MetricsService": (
        metrics_service.ExportMetricsServiceRequest,
        metrics_service.ExportMetricsServiceResponse,
    ),
    "opentelemetry.proto.collector.logs.v1.LogsService": (
        logs_service.ExportLogsServiceRequest,
        logs_service.ExportLogsServiceResponse,
    ),
}
_DEADLINE: Final = 30.0


@dataclass(frozen=True)
class Item:
    """One span, log record or metric that the sink received.

    Attributes:
        name: The span's, metric's or log event's name; empty for a log record that is no event.
        attributes: Its attributes as plain values; those of a metric are on its ``points``.
        resource: The resource's attributes as plain values.
        scope: Name of the instrumentation scope.
        raw: All of it, as OTLP's JSON encoding has it; trace and span ids in hexadecimal.
    """

    name: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str
    raw: dict[str, Any] = field(repr=False)

    @property
    def body(self) -> Any:
        """The body of a log record."""
        return _value(self.raw.get("body", {}))

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, or nothing."""
        return str(self.raw.get("traceId", ""))

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits, or nothing."""
        return str(self.raw.get("spanId", ""))

    @property
    def parent_span_id(self) -> str:
        """16 hexadecimal digits, or nothing."""
        return str(self.raw.get("parentSpanId", ""))

    @property
    def points(self) -> list[dict[str, Any]]:
        """The data points of a metric, as OTLP's JSON encoding has them."""
        for kind in ("sum", "gauge", "histogram", "exponentialHistogram", "summary"):
            if kind in self.raw:
                return list(self.raw[kind].get("dataPoints", []))
        return []


class OtlpSink:
    """Starts the receiver, and reads what it received; a context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="otlp-sink-")
        self._output = Path(self._folder.name) / "requests.jsonl"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        port_file = Path(self._folder.name) / "port"
        # Isolated, so that what the tests do to their own environment never reaches the receiver.
        command = [sys.executable, "-I", __file__, str(port_file), str(self._output)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        deadline = time.monotonic() + _DEADLINE
        while not (port_file.exists() and port_file.read_text()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError("the OTLP receiver did not start")
            time.sleep(0.01)
        self._port = int(port_file.read_text())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    @property
    def endpoint(self) -> str:
        """A value for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self._port}"

    def spans(self) -> list[Item]:
        """Every span received so far."""
        return list(self._items("resourceSpans", "scopeSpans", "spans"))

    def logs(self) -> list[Item]:
        """Every log record received so far."""
        return list(self._items("resourceLogs", "scopeLogs", "logRecords"))

    def metrics(self) -> list[Item]:
        """Every metric received so far; one that was exported twice is there twice."""
        return list(self._items("resourceMetrics", "scopeMetrics", "metrics"))

    def headers(self) -> list[dict[str, str]]:
        """The metadata of every request received so far."""
        return [dict(request["headers"]) for request in self._requests()]

    def raw_bytes(self) -> bytes:
        """Every byte received so far: the requests as they were serialized, and their headers."""
        return b"\n".join(
            base64.b64decode(request["raw"]) + json.dumps(request["headers"]).encode()
            for request in self._requests()
        )

    def wait_for(self, predicate: Callable[[OtlpSink], object], timeout: float = 15.0) -> None:
        """Wait until the predicate, given this sink, is true.

        Raises:
            TimeoutError: It was not in time; the message says what was received.
        """
        deadline = time.monotonic() + timeout
        while not predicate(self):
            if time.monotonic() > deadline:
                received = {
                    "spans": sorted({span.name for span in self.spans()}),
                    "logs": sorted({str(log.name or log.body) for log in self.logs()}),
                    "metrics": sorted({metric.name for metric in self.metrics()}),
                }
                raise TimeoutError(f"not received in {timeout} s; received: {received}")
            time.sleep(0.02)

    def _requests(self) -> Iterator[dict[str, Any]]:
        if not self._output.exists():
            return
        for line in self._output.read_text().splitlines(keepends=True):
            if line.endswith("\n"):  # else it is still being written
                yield json.loads(line)

    def _items(self, resources: str, scopes: str, items: str) -> Iterator[Item]:
        for request in self._requests():
            for resource in request["message"].get(resources, []):
                resource_attributes = _attributes(resource.get("resource", {}))
                for scope in resource.get(scopes, []):
                    for raw in scope.get(items, []):
                        _ids_in_hexadecimal(raw)
                        yield Item(
                            name=str(raw.get("name", raw.get("eventName", ""))),
                            attributes=_attributes(raw),
                            resource=resource_attributes,
                            scope=str(scope.get("scope", {}).get("name", "")),
                            raw=raw,
                        )


def _attributes(raw: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: _value(pair.get("value", {})) for pair in raw.get("attributes", [])}


def _value(raw: dict[str, Any]) -> Any:
    if "intValue" in raw:
        return int(raw["intValue"])
    if "arrayValue" in raw:
        return [_value(item) for item in raw["arrayValue"].get("values", [])]
    if "kvlistValue" in raw:
        pairs = raw["kvlistValue"].get("values", [])
        return {pair["key"]: _value(pair.get("value", {})) for pair in pairs}
    return next(iter(raw.values()), None)


def _ids_in_hexadecimal(raw: dict[str, Any]) -> None:
    for key in ("traceId", "spanId", "parentSpanId"):
        if key in raw:
            raw[key] = base64.b64decode(raw[key]).hex()
    for link in raw.get("links", []):
        _ids_in_hexadecimal(link)


class _Receiver:
    """Serves the three Export calls, and writes what it is sent."""

    def __init__(self, output: Path) -> None:
        self._file = output.open("w")
        self._lock = Lock()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        return [
            grpc.method_handlers_generic_handler(
                name, {"Export": self._export(request_type, response_type)}
            )
            for name, (request_type, response_type) in _SERVICES.items()
        ]

    def _export(self, request_type: Any, response_type: Any) -> grpc.RpcMethodHandler:
        def export(raw: bytes, context: grpc.ServicerContext) -> Any:
            request = {
                "message": MessageToDict(request_type.FromString(raw)),
                "headers": [
                    (item.key, str(item.value)) for item in context.invocation_metadata() or ()
                ],
                "raw": base64.b64encode(raw).decode(),
            }
            with self._lock:
                self._file.write(json.dumps(request) + "\n")
                self._file.flush()
            return response_type()

        return grpc.unary_unary_rpc_method_handler(
            export, response_serializer=response_type.SerializeToString
        )


def _serve(port_file: Path, output: Path) -> None:
    receiver = _Receiver(output)
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(receiver.handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    port_file.write_text(str(port))
    # The parent holds the other end: the receiver goes when the parent does, however it goes.
    sys.stdin.read()
    stopped: Event = server.stop(grace=None)
    stopped.wait()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
