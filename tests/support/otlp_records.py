# SPDX-License-Identifier: Apache-2.0
"""What an OTLP receiver of the tests wrote down, read back as spans, log records and metrics."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

if TYPE_CHECKING:
    from typing_extensions import Self

# The same bytes as the requests: each is nothing but a list of resources with their items.
_MESSAGES: Final[dict[str, Any]] = {"traces": TracesData, "metrics": MetricsData, "logs": LogsData}
_LEVELS: Final = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}


@dataclass(frozen=True)
class Item:
    """One span, log record or metric that was received.

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


class Received:
    """Reads what the receiver writes: a JSON line for each request, in :attr:`written`."""

    def __init__(self, written: Path) -> None:
        self.written = written
        self._read_to = 0
        self._requests: list[dict[str, Any]] = []

    def spans(self) -> list[Item]:
        """Every span received so far, without those of requests that were refused."""
        return self._items("traces")

    def logs(self) -> list[Item]:
        """Every log record received so far, without those of requests that were refused."""
        return self._items("logs")

    def metrics(self) -> list[Item]:
        """Every metric received so far; one that was exported twice is there twice."""
        return self._items("metrics")

    def acknowledged(self) -> dict[str, int]:
        """How many spans, log records and metric batches the sender was told to have arrived."""
        return self._count("acknowledged")

    def stored(self) -> dict[str, int]:
        """How many were kept; more than were acknowledged where the sender did not wait."""
        return self._count("stored")

    def headers(self) -> list[dict[str, str]]:
        """The metadata of every request received so far."""
        return [dict(request["headers"]) for request in self._all()]

    def raw_bytes(self) -> bytes:
        """Every byte received so far: the requests as they were serialized, and their headers."""
        return b"\n".join(
            base64.b64decode(request["raw"]) + json.dumps(request["headers"]).encode()
            for request in self._all()
        )

    def wait_for(self, predicate: Callable[[Self], object], timeout: float = 15.0) -> None:
        """Wait until the predicate, given this receiver, is true.

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

    def _all(self) -> list[dict[str, Any]]:
        if self.written.exists():
            with self.written.open() as file:
                file.seek(self._read_to)
                while (line := file.readline()).endswith("\n"):  # else it is still being written
                    self._requests.append(json.loads(line))
                    self._read_to = file.tell()
        return self._requests

    def _count(self, what: str) -> dict[str, int]:
        counted: Counter[str] = Counter(dict.fromkeys(_LEVELS, 0))
        for request in self._all():
            counted[request["signal"]] += request[what]
        return dict(counted)

    def _items(self, signal: str) -> list[Item]:
        return [
            item
            for request in self._all()
            if request["signal"] == signal and request["stored"]
            for item in items(signal, _message(request))
        ]


def items(signal: str, message: dict[str, Any]) -> Iterator[Item]:
    """The spans, log records or metrics of a request in OTLP's JSON encoding."""
    resources, scopes, leaves = _LEVELS[signal]
    for resource in message.get(resources, []):
        resource_attributes = attributes(resource.get("resource", {}))
        for scope in resource.get(scopes, []):
            for raw in scope.get(leaves, []):
                yield Item(
                    name=str(raw.get("name", raw.get("eventName", ""))),
                    attributes=attributes(raw),
                    resource=resource_attributes,
                    scope=str(scope.get("scope", {}).get("name", "")),
                    raw=raw,
                )


def _message(request: dict[str, Any]) -> dict[str, Any]:
    if "message" not in request:
        data = _MESSAGES[request["signal"]].FromString(base64.b64decode(request["raw"]))
        request["message"] = _with_ids_in_hexadecimal(MessageToDict(data))
    message: dict[str, Any] = request["message"]
    return message


def _with_ids_in_hexadecimal(raw: Any) -> Any:
    if isinstance(raw, list):
        return [_with_ids_in_hexadecimal(each) for each in raw]
    if not isinstance(raw, dict):
        return raw
    return {
        key: base64.b64decode(value).hex()
        if key in ("traceId", "spanId", "parentSpanId")
        else _with_ids_in_hexadecimal(value)
        for key, value in raw.items()
    }


def attributes(raw: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an item or a point in OTLP's JSON encoding, as plain values."""
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
