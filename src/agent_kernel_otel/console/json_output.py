# SPDX-License-Identifier: Apache-2.0
"""Output for scripts: OTLP JSON, one message a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from agent_kernel_otel.console import otlp_json, wire
from agent_kernel_otel.console.wire import LOGS, METRICS, TRACES

if TYPE_CHECKING:
    from agent_kernel_otel.console.records import ReceivedLog, Trace
    from agent_kernel_otel.console.store import Store


class JsonOutput:
    """Writes a line for each trace, and one for each request with logs or metrics.

    Every span is written exactly once: what arrives after its trace was written comes in a line
    of its own.

    Args:
        stream: Where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def requests(self, store: Store, after: int, until: int) -> None:
        """Writes the log and metric requests ``after < batch <= until`` as they were received."""
        for signal in (LOGS, METRICS):
            for request in store.requests(signal, after, until):
                self._write(request)

    def trace(self, trace: Trace, after: int) -> None:
        """Writes the spans that came in requests later than ``after`` as one ``TracesData``."""
        message = TRACES.request()
        resources: dict[bytes, Any] = {}
        scopes: dict[tuple[bytes, bytes], Any] = {}
        for received in trace.spans:
            if received.batch <= after:
                continue
            resource_key = wire.serialize(received.resource)
            scope_key = (resource_key, wire.serialize(received.scope))
            if resource_key not in resources:
                resources[resource_key] = message.resource_spans.add()
                resources[resource_key].resource.CopyFrom(received.resource)
            if scope_key not in scopes:
                scopes[scope_key] = resources[resource_key].scope_spans.add()
                scopes[scope_key].scope.CopyFrom(received.scope)
            scopes[scope_key].spans.append(received.span)
        if resources:
            self._write(message)

    def logs(self, logs: list[ReceivedLog]) -> None:
        """Does nothing: all log records are in the lines of their requests."""

    def _write(self, message: object) -> None:
        self._stream.write(otlp_json.encode(message) + "\n")
        self._stream.flush()
