# SPDX-License-Identifier: Apache-2.0
"""What the OTLP exporters do not tell, and cannot do: answers, interruption, and forking.

An exporter says only whether an export succeeded. Here its requests are watched, for what the
receiver answered, and kept apart from ``fork()``: a child that is forked while gRPC has a call in
flight hangs at its first own call, and a connection that parent and child share mixes up their
answers.

The places at which the exporters are watched are not public. An exporter that does not have them,
of a release to come or of another vendor, is used as it is: less is known, and nothing breaks.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from agent_kernel_otel.scrub import scrub_text

_REJECTED: Final = ("rejected_spans", "rejected_log_records", "rejected_data_points")
_NO_ANSWER: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})
"""Status codes that gRPC itself gives where nobody has answered."""


@dataclass
class Answer:
    """What the receiver said to the last request of an export.

    Attributes:
        came: Whether it answered at all.
        rejected: How many items it rejected of a request that it accepted in part.
        error: What it said of those.
    """

    came: bool = False
    rejected: int = 0
    error: str | None = None

    def read(self, response: Any) -> None:
        """Take over what an OTLP response says."""
        self.came = True
        partial = getattr(response, "partial_success", None)
        if partial is not None:
            self.rejected = max(getattr(partial, name, 0) for name in _REJECTED)
            self.error = scrub_text(partial.error_message) or None


class Wire:
    """An exporter's connection; of this class itself where nothing is known of it.

    Attributes:
        answer: The answer to the last request.
        lock: Held while a request is in flight, and during a fork.
        is_watched: Whether ``answer`` is kept.
    """

    is_watched = False

    def __init__(self) -> None:
        self.answer = Answer()
        self.lock = threading.Lock()
        self._held = False

    def before_fork(self, timeout: float) -> None:
        """Let no request begin, and wait for the one in flight; interrupt it if it takes longer.

        Args:
            timeout: Seconds to wait before it is interrupted, and again after it.
        """
        self._held = self.lock.acquire(timeout=timeout)
        if not self._held and self._interrupt():
            self._held = self.lock.acquire(timeout=timeout)

    def after_fork_in_parent(self) -> None:
        """Let requests begin again."""
        if self._held:
            self._held = False
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew, with nothing that belongs to the parent."""
        self.answer = Answer()
        self.lock = threading.Lock()
        self._held = False

    def _interrupt(self) -> bool:
        return False


class _GrpcWire(Wire):
    """Watches ``exporter._client.Export``, through which every gRPC request goes."""

    is_watched = True

    def __init__(self, exporter: Any) -> None:
        super().__init__()
        self._exporter = exporter
        self._connect = exporter._initialize_channel_and_stub
        self._interrupted = False
        # The exporter itself connects anew after an error.
        exporter._initialize_channel_and_stub = self._connect_and_watch
        self._watch()

    def _connect_and_watch(self) -> None:
        self._connect()
        self._watch()

    def _watch(self) -> None:
        export = self._exporter._client.Export

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.answer = Answer()
            with self.lock:
                try:
                    response = export(*args, **kwargs)
                except Exception as error:
                    with suppress(AttributeError):
                        self.answer.came = error.code().name not in _NO_ANSWER  # type: ignore[attr-defined]
                    raise
            self.answer.read(response)
            return response

        self._exporter._client.Export = watched

    def _interrupt(self) -> bool:
        # The exporter takes the end of its call for a passing error, and repeats it by and by.
        self._interrupted = True
        self._exporter._channel.close()
        return True

    def after_fork_in_parent(self) -> None:
        if self._interrupted:
            self._interrupted = False
            self._exporter._initialize_channel_and_stub()
        super().after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._interrupted = False
        self._exporter._initialize_channel_and_stub()


class _HttpWire(Wire):
    """Watches the ``requests`` session through which every HTTP request goes."""

    is_watched = True

    def __init__(self, session: Any, response_type: Any) -> None:
        super().__init__()
        self._session = session
        self._response_type = response_type
        request = session.request

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.answer = Answer()
            # As the session's, OTEL_EXPORTER_OTLP_CERTIFICATE gives way to REQUESTS_CA_BUNDLE.
            if isinstance(session.verify, str):
                kwargs.setdefault("verify", session.verify)
            with self.lock:
                response = request(*args, **kwargs)
            self._read(response)
            return response

        session.request = watched

    def _read(self, response: Any) -> None:
        self.answer.came = True
        if response.ok and response.content:
            with suppress(Exception):  # what is no OTLP says nothing of a partial success
                self.answer.read(self._response_type.FromString(response.content))

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._session.close()  # the connections are the parent's


def watch(exporter: Any, signal: str) -> Wire:
    """Begin to watch an exporter's requests.

    Args:
        exporter: A span, log record or metric exporter.
        signal: ``traces``, ``metrics`` or ``logs``.
    """
    if hasattr(exporter, "_initialize_channel_and_stub") and hasattr(
        getattr(exporter, "_client", None), "Export"
    ):
        return _GrpcWire(exporter)
    # SDK 1.43 and 1.44 have the session on the exporter, 1.45 on the transport of its client.
    transport = getattr(getattr(exporter, "_client", None), "_transport", None)
    for holder in (exporter, transport):
        session = getattr(holder, "_session", None)
        if callable(getattr(session, "request", None)) and callable(
            getattr(session, "mount", None)
        ):
            return _HttpWire(session, _response_type(signal))
    return Wire()


def endpoint_of(exporter: Any) -> str | None:
    """Where an exporter sends to, without credentials; None where it does not say."""
    endpoint = getattr(exporter, "_endpoint", None)
    return scrub_text(endpoint) if isinstance(endpoint, str) else None


def _response_type(signal: str) -> Any:
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs  # noqa: PLC0415
    from opentelemetry.proto.collector.metrics.v1 import (  # noqa: PLC0415
        metrics_service_pb2 as metrics,
    )
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces  # noqa: PLC0415

    return {
        "traces": traces.ExportTraceServiceResponse,
        "metrics": metrics.ExportMetricsServiceResponse,
        "logs": logs.ExportLogsServiceResponse,
    }[signal]
