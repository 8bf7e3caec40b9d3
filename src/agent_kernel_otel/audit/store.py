# SPDX-License-Identifier: Apache-2.0
"""A trace store that tells OpenTelemetry of each record, with no patching of the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.context import get_current
from opentelemetry.trace import get_current_span

from agent_kernel_otel.audit.exporter import OTelTraceExporter
from agent_kernel_otel.correlation import correlations
from agent_kernel_otel.current import recorded_live
from agent_kernel_otel.faults import faults
from agent_kernel_otel.telemetry import is_suppressed
from agent_kernel_otel.weaver.reading import read_id

if TYPE_CHECKING:
    import opentelemetry.trace

    from agent_kernel_otel.config import InstrumentationConfig


class OTelTraceStore:
    """A decorator for any trace store: ``Kernel(..., trace_store=OTelTraceStore(inner))``.

    Each record that the inner store has taken becomes a span (see
    :class:`agent_kernel_otel.OTelTraceExporter`), which links to the span that was current, and
    :func:`agent_kernel_otel.trace_context` finds that one by the action id. Where the kernel is
    instrumented as well it only passes on: its operations have spans of their own.

    What the inner store returns and raises is returned and raised as it is, and everything else
    that it has is had here too. It is always truthy, since the kernel takes a falsy store for none.

    Args:
        inner: The trace store that keeps the records.
        tracer_provider: Through whose resource and processors the spans go; the global one by
            default, whenever that is set.
        config: See :class:`agent_kernel_otel.OTelTraceExporter`.
    """

    def __init__(
        self,
        inner: Any,
        *,
        tracer_provider: opentelemetry.trace.TracerProvider | None = None,
        config: InstrumentationConfig | None = None,
    ) -> None:
        self.inner = inner
        self._exporter = OTelTraceExporter(tracer_provider, config=config)

    def record(self, trace: Any) -> Any:
        """Have the inner store keep a record, and tell of it."""
        result = self.inner.record(trace)
        try:
            self._tell(trace)
        except Exception:
            faults.swallow("telling of an audit record")
        return result

    def _tell(self, trace: Any) -> None:
        action_id = read_id(trace, "action_id")
        if action_id is not None and action_id == recorded_live.get():
            return
        around = get_current_span().get_span_context()
        is_sampled = around.is_valid and around.trace_flags.sampled
        if action_id:
            if correlations.trace_context(action_id) is not None:
                return  # recorded elsewhere than in its operation, or for the second time
            if is_sampled:
                correlations.remember(action_id, around)
        if is_suppressed(get_current()):
            return
        self._exporter.tell(trace, around if is_sampled else None)

    # The kernel asks by isinstance() for these, and would not find them by __getattr__.

    def get(self, action_id: str) -> Any:
        """As of the inner store."""
        return self.inner.get(action_id)

    def list_all(self) -> Any:
        """As of the inner store."""
        return self.inner.list_all()

    def query(self, query: Any) -> Any:
        """As of the inner store (weaver-kernel 0.12 on)."""
        return self.inner.query(query)

    def __getattr__(self, name: str) -> Any:
        # A copy in the making has no inner store yet, and must not become one of that alone.
        if name == "inner" or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.inner, name)
