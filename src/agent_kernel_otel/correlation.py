# SPDX-License-Identifier: Apache-2.0
"""Which live span an action of a kernel has, and which action a live span is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent_kernel_otel.locks import SafeLock
from agent_kernel_otel.scrub import identifier

if TYPE_CHECKING:
    from agent_kernel_otel.opentelemetry_api import SpanContext


class Correlations:
    """The last actions of the process that a span was recorded of, at most :data:`LIMIT`.

    They are kept in two halves. When the younger one is full the older one is dropped, which
    costs nothing for each action, and keeps at least half of them.
    """

    LIMIT: Final = 10_000

    def __init__(self) -> None:
        self._lock = SafeLock()
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._young: dict[str, SpanContext] = {}
        self._old: dict[str, SpanContext] = {}
        self._young_actions: dict[int, str] = {}
        self._old_actions: dict[int, str] = {}

    def remember(self, action_id: str, span_context: SpanContext) -> None:
        """Keep which span an action has; the first one that is told of it stays."""
        if action_id in self._young or action_id in self._old:
            return
        if len(self._young) >= self.LIMIT // 2:
            self._age()
        self._young[action_id] = span_context
        self._young_actions[span_context.span_id] = action_id

    def _age(self) -> None:
        with self._lock:
            if len(self._young) >= self.LIMIT // 2:
                self._old, self._old_actions = self._young, self._young_actions
                self._young, self._young_actions = {}, {}

    def trace_context(self, action_id: str) -> SpanContext | None:
        """The live span of an action.

        Args:
            action_id: The kernel's id of the action: ``Frame.action_id``, that of an audit record.

        Returns:
            The context of its operation's span, or of the span in which an
            :class:`~agent_kernel_otel.OTelTraceStore` saw its record; ``None`` where none was
            sampled in this process, or that is too long ago.
        """
        known = identifier(action_id) or ""
        return self._young.get(known) or self._old.get(known)

    def action_id(self, span_context: SpanContext) -> str | None:
        """The action that a live span is; ``None`` where it is none that is still known.

        Args:
            span_context: That of an operation's span, not of one above or below it. Of a span in
                which an :class:`~agent_kernel_otel.OTelTraceStore` saw records it is the last one's.
        """
        span_id = span_context.span_id
        found = self._young_actions.get(span_id) or self._old_actions.get(span_id)
        if found is None:
            return None
        known = self.trace_context(found)
        same = known is not None and known.trace_id == span_context.trace_id
        return found if same else None


correlations: Final = Correlations()
"""The process's."""
trace_context = correlations.trace_context
action_id = correlations.action_id
