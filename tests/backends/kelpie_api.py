# SPDX-License-Identifier: Apache-2.0
"""Kelpie's HTTP interface for agents, as much as a client needs, with the spans that Kelpie makes of it.

As Kelpie does, it looks at no ``traceparent``: the handler's span is a root of its own, and what the
agent's actor does is below one span that never ends.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from tests.support.ports import HOST
from tests.support.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLERS: Final = {"messages": "send_message", "archival": "search_archival"}
"""The spans of the routes below an agent."""


class KelpieApi(Serving):
    """Serves it, and sends its spans; a context manager.

    Args:
        port: Where a Collector takes Kelpie's OTLP.
        secret: What a careless Kelpie writes wherever it writes a text.
    """

    def __init__(self, port: int, secret: str) -> None:
        self._secret = secret
        self._provider = TracerProvider(resource=Resource({"service.name": "kelpie"}))
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(f"http://{HOST}:{port}", insecure=True))
        )
        self._tracer = self._provider.get_tracer("opentelemetry-otlp")
        self._run = self._tracer.start_span("run", Context())
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                _, _, _, agent_id, last = urlsplit(self.path).path.split("/")
                api._handle(HANDLERS[last], agent_id, self.path)
                reply = json.dumps({"messages": [], "stop_reason": "end_turn"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *arguments: Any) -> None:
                """Nobody reads it."""

        super().__init__(Handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        # The span "run" is never ended, and so never exported.
        self._provider.shutdown()

    def _handle(self, name: str, agent_id: str, uri: str) -> None:
        source = {"code.filepath": "crates/kelpie-server/src/api/mod.rs", "thread.name": "tokio"}
        request = {"method": "POST", "uri": uri, "version": "HTTP/1.1"}
        with self._span("request", Context(), request) as parent:
            handler = {
                **source,
                "code.namespace": "kelpie_server::api::agents",
                "agent_id": agent_id,
                "agent_name": f"agent of {self._secret}",
                "query": f'Some("{self._secret}")',
                "label": self._secret,
                "limit": 10,
                "busy_ns": 1,
                "idle_ns": 1,
            }
            with self._span(name, set_span_in_context(parent), handler) as span:
                span.add_event(
                    f"tool failed with {self._secret}",
                    {"level": "ERROR", "target": "kelpie_server::tools", "args": self._secret},
                )
                span.set_status(Status(StatusCode.ERROR, f"tool failed with {self._secret}"))
        actor = {"actor_id": f"agents:{agent_id}", **source}
        with self._span("process_invocation", set_span_in_context(self._run), actor):
            pass

    @contextmanager
    def _span(self, name: str, context: Context, attributes: dict[str, Any]) -> Iterator[Span]:
        span = self._tracer.start_span(name, context, attributes=attributes)
        yield span
        span.end()
