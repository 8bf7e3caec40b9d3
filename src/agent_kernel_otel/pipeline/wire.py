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
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self._reset()

    def _reset(self) -> None:
        self.answer = Answer()
        self.lock = threading.Lock()
        # Whoever wants the lock takes this first. Else an exporter that has just let go of it
        # would have it again, for its next request, before a thread that waits to fork wakes up.
        self._turn = threading.Lock()
        self._forking: int | None = None  # the thread whose turn it is, for a fork
        self._held = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request is in flight while this lasts; it does not begin during a fork."""
        with self._turn:
            lock = self.lock
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def hold(self, deadline: float) -> bool:
        """Let no request begin, because of a fork, and wait for the one in flight.

        Args:
            deadline: How long to wait for it, by ``time.monotonic()``.

        Returns:
            Whether none is in flight any more.
        """
        me = threading.get_ident()
        if self._forking != me and self._turn.acquire(timeout=_left(deadline)):
            self._forking = me
        if self._forking == me:
            self._held = self.lock.acquire(timeout=_left(deadline))
            return self._held
        return False

    def interrupt(self) -> bool:
        """End the request in flight for the sake of a fork; whether that can be done."""
        return False

    def after_fork_in_parent(self) -> None:
        """Let requests begin again."""
        if self._forking != threading.get_ident():
            return  # another thread's fork was not over in time
        if self._held:
            self._held = False
            self.lock.release()
        self._forking = None
        self._turn.release()

    def after_fork_in_child(self) -> None:
        """Start anew, with nothing that belongs to the parent."""
        self._reset()


class _GrpcWire(Wire):
    """Watches ``exporter._client.Export``, through which every gRPC request goes."""

    is_watched = True

    def __init__(self, exporter: Any) -> None:
        super().__init__()
        self._exporter = exporter
        self._connect = exporter._initialize_channel_and_stub
        self._is_cut = False
        self._cuts = 0
        # The exporter itself connects anew after an error.
        exporter._initialize_channel_and_stub = self._connect_and_watch
        self._watch()

    def _connect_and_watch(self) -> None:
        self._connect()
        self._watch()

    def _watch(self) -> None:
        self._export = self._exporter._client.Export

        def watched(*args: Any, **kwargs: Any) -> Any:
            deadline = time.monotonic() + kwargs.get("timeout", 0.0)
            while True:
                self.answer = Answer()
                cuts = self._cuts
                try:
                    with self.request():
                        # Not that of the beginning: a fork may have led to another channel.
                        response = self._export(*args, **kwargs)
                except Exception as error:
                    if cuts != self._cuts and _left(deadline):
                        # For a fork: the exporter would wait a second, or have no time to.
                        kwargs["timeout"] = _left(deadline)
                        continue
                    with suppress(AttributeError):
                        self.answer.came = error.code().name not in _NO_ANSWER  # type: ignore[attr-defined]
                    raise
                self.answer.read(response)
                return response

        self._exporter._client.Export = watched

    def interrupt(self) -> bool:
        self._cuts += 1
        self._is_cut = True
        self._exporter._channel.close()
        return True

    def after_fork_in_parent(self) -> None:
        if self._is_cut:
            self._is_cut = False
            self._exporter._initialize_channel_and_stub()
        super().after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._is_cut = False
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
            with self.request():
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


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


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
    # Whoever exports over HTTP has imported them; nobody else is to pay for it.
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
