# SPDX-License-Identifier: Apache-2.0
"""Which grant a token came from, for as long as that is worth remembering."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Final

from agent_kernel_otel.locks import SafeLock
from agent_kernel_otel.opentelemetry_api import Link, SpanContext


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant that this process made.

    Attributes:
        span_context: The grant's span.
        granted_at: When, on the monotonic clock, in seconds.
        rule: Name of the policy rule that allowed it, where known.
    """

    span_context: SpanContext
    granted_at: float
    rule: str | None

    def links(self) -> list[Link] | None:
        """The link to the grant's span; none where that was not sampled and leads nowhere."""
        return [Link(self.span_context)] if self.span_context.trace_flags.sampled else None


class GrantLedger:
    """The last grants by token id, at most :data:`LIMIT` of them.

    The link is a convenience: the token id on both spans is what joins them.
    """

    LIMIT: Final = 10_000

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._lock = SafeLock()

    def remember(self, token_id: str, span_context: SpanContext, rule: str | None) -> None:
        """Keep a grant, and forget the oldest where there are too many."""
        grant = Grant(span_context, monotonic(), rule)
        with self._lock:
            self._grants[token_id] = grant
            if len(self._grants) > self.LIMIT:
                self._grants.pop(next(iter(self._grants)), None)

    def find(self, token_id: str | None) -> Grant | None:
        """The grant of a token, where this process made it and still knows."""
        return None if token_id is None else self._grants.get(token_id)
