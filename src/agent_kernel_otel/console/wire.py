# SPDX-License-Identifier: Apache-2.0
"""The three OTLP services and their bytes: the one place that touches untyped protobuf calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from google.protobuf import json_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

Encoding = Literal["protobuf", "json"]
Request = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest


class MalformedPayload(ValueError):  # noqa: N818 - it says what is wrong, as HTTP's own words do
    """The bytes are not the OTLP message that they should be."""


@dataclass(frozen=True)
class Signal:
    """One OTLP service.

    Attributes:
        name: ``traces``, ``metrics`` or ``logs``, as in the HTTP path ``/v1/{name}``.
        rpc: Full path of the gRPC method.
        request: Class of the request message.
        response: Class of the response message.
        rejected_field: Field of ``partial_success`` that counts what was not taken.
    """

    name: str
    rpc: str
    request: type[Any]
    response: type[Any]
    rejected_field: str


_RPC: Final = "/opentelemetry.proto.collector.{0}.v1.{1}Service/Export"

TRACES: Final = Signal(
    "traces",
    _RPC.format("trace", "Trace"),
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    "rejected_spans",
)
METRICS: Final = Signal(
    "metrics",
    _RPC.format("metrics", "Metrics"),
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
    "rejected_data_points",
)
LOGS: Final = Signal(
    "logs",
    _RPC.format("logs", "Logs"),
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
    "rejected_log_records",
)
SIGNALS: Final = (TRACES, METRICS, LOGS)


def parse(message: type[Any], payload: bytes) -> Any:
    """Reads a protobuf message.

    Args:
        message: Class of the message.
        payload: Its bytes.

    Returns:
        The message.

    Raises:
        MalformedPayload: The bytes are not such a message.
    """
    try:
        return message.FromString(payload)
    except DecodeError as error:
        raise MalformedPayload(f"not a protobuf {message.DESCRIPTOR.name}") from error


def serialize(message: Any) -> bytes:
    """Writes a message so that equal messages give equal bytes."""
    return cast("bytes", message.SerializeToString(deterministic=True))


def fields_of(message: Any) -> dict[str, Any]:
    """Gives a message's JSON fields: lowerCamelCase names, enums as integers."""
    return cast("dict[str, Any]", json_format.MessageToDict(message, use_integers_for_enums=True))


def export_response(signal: Signal, rejected: int, reason: str) -> Any:
    """Builds the answer to a request that was taken, in full or in part.

    Args:
        signal: The service.
        rejected: Items that were not taken.
        reason: Why they were not; empty if all were.

    Returns:
        The response message, with ``partial_success`` only where there is something to say.
    """
    response = signal.response()
    if rejected:
        setattr(response.partial_success, signal.rejected_field, rejected)
        response.partial_success.error_message = reason
    return response


def status_message(code: int, text: str) -> Any:
    """Builds the ``google.rpc.Status`` that OTLP demands in the body of an error.

    Args:
        code: gRPC status code.
        text: What is wrong, for a person.
    """
    return Status(code=code, message=text)
