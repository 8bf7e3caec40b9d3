# SPDX-License-Identifier: Apache-2.0
"""The real console in a process of its own, and OTLP messages to send to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from agent_kernel_otel.console import wire

if TYPE_CHECKING:
    from typing_extensions import Self

SAMPLE_AGENT = str(Path(__file__).with_name("sample_agent.py"))
SOURCE = str(Path(__file__).parents[2] / "src")
TIMEOUT_SECONDS = 30.0

Span = dict[str, Any]


def console_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent_kernel_otel.cli", "console", *arguments]


def console_environment(**more: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OTEL_") and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    return {**inherited, "PYTHONPATH": SOURCE, "PYTHONIOENCODING": "utf-8", **more}


class Console:
    """A running console, with what it has written so far."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            console_command("--grpc-port", "0", "--http-port", "0", *arguments),
            env=console_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._arrived = threading.Condition()
        self._written = {"stdout": b"", "stderr": b""}
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("stdout", self.process.stdout), ("stderr", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self.wait_for("stderr", "listening:")
        ports = re.search(r"gRPC http://[^ ]*:(\d+), HTTP http://[^ ]*:(\d+)", self.stderr)
        assert ports, self.stderr
        self.grpc_port, self.http_port = int(ports[1]), int(ports[2])

    @property
    def stdout(self) -> str:
        with self._arrived:
            return self._written["stdout"].decode(errors="surrogateescape")

    @property
    def stderr(self) -> str:
        with self._arrived:
            return self._written["stderr"].decode(errors="surrogateescape")

    @property
    def json_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    def wait_for(self, stream: str, text: str, count: int = 1) -> None:
        with self._arrived:
            self._arrived.wait_for(
                lambda: self._written[stream].count(text.encode()) >= count or not self._open,
                TIMEOUT_SECONDS,
            )
            here = self._written[stream].count(text.encode()) >= count
        assert here, f"no {text!r} in {stream}:\n{self.stdout}\n{self.stderr}"

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(TIMEOUT_SECONDS)
        for reader in self._readers:
            reader.join(TIMEOUT_SECONDS)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self, name: str, pipe: Any) -> None:
        while chunk := os.read(pipe.fileno(), 65_536):
            with self._arrived:
                self._written[name] += chunk
                self._arrived.notify_all()
        with self._arrived:
            self._open -= 1
            self._arrived.notify_all()


def span(
    name: str,
    trace_id: str = "11" * 16,
    span_id: str = "01" * 8,
    parent_id: str = "",
    *,
    start: int = 1_000_000_000,
    end: int = 1_001_000_000,
    status: int = 0,
    message: str = "",
    attributes: dict[str, Any] | None = None,
    links: tuple[tuple[str, str], ...] = (),
    events: tuple[tuple[str, dict[str, Any]], ...] = (),
) -> Span:
    return {
        "name": name,
        "traceId": trace_id,
        "spanId": span_id,
        "parentSpanId": parent_id,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(end),
        "status": {"code": status, "message": message},
        "attributes": attributes_field(attributes or {}),
        "links": [{"traceId": trace, "spanId": linked} for trace, linked in links],
        "events": [
            {"name": event, "timeUnixNano": str(start), "attributes": attributes_field(values)}
            for event, values in events
        ],
    }


def attributes_field(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value_field(value)} for key, value in attributes.items()]


def _value_field(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value_field(item) for item in value]}}
    return {"stringValue": value}


def traces_json(*spans: Span, service: str = "shop") -> dict[str, Any]:
    """A request in OTLP JSON, written by hand so that it owes nothing to our own encoder."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": attributes_field({"service.name": service})},
                "scopeSpans": [{"scope": {"name": "test"}, "spans": list(spans)}],
            }
        ]
    }


def logs_json(*records: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": attributes_field({"service.name": service})},
                "scopeLogs": [{"logRecords": list(records)}],
            }
        ]
    }


def traces_request(*spans: Span, service: str = "shop") -> ExportTraceServiceRequest:
    """The same as protobuf, built field by field."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.append(_key_value("service.name", service))
    of_scope = of_resource.scope_spans.add()
    for fields in spans:
        message = of_scope.spans.add(
            name=fields["name"],
            trace_id=bytes.fromhex(fields["traceId"]),
            span_id=bytes.fromhex(fields["spanId"]),
            parent_span_id=bytes.fromhex(fields["parentSpanId"]),
            start_time_unix_nano=int(fields["startTimeUnixNano"]),
            end_time_unix_nano=int(fields["endTimeUnixNano"]),
        )
        message.status.code = fields["status"]["code"]
        message.status.message = fields["status"]["message"]
        for link in fields["links"]:
            message.links.add(
                trace_id=bytes.fromhex(link["traceId"]), span_id=bytes.fromhex(link["spanId"])
            )
        for pair in fields["attributes"]:
            ((kind, value),) = pair["value"].items()
            if kind == "stringValue":
                message.attributes.append(_key_value(pair["key"], value))
            elif kind == "boolValue":
                message.attributes.add(key=pair["key"]).value.bool_value = value
            elif kind == "intValue":
                message.attributes.add(key=pair["key"]).value.int_value = int(value)
            else:
                raise NotImplementedError(kind)
    return request


def _key_value(key: str, text: str) -> KeyValue:
    pair = KeyValue(key=key)
    pair.value.string_value = text
    return pair


def send_grpc(port: int, payload: bytes, signal_: wire.Signal = wire.TRACES, **call: Any) -> bytes:
    """Sends bytes as they are over gRPC, and gives the bytes of the answer."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer: bytes = channel.unary_unary(signal_.rpc)(payload, timeout=TIMEOUT_SECONDS, **call)
        return answer
