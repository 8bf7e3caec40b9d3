# SPDX-License-Identifier: Apache-2.0
"""Which operation is current, and how foreign code inside of it is set aside."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from agent_kernel_otel.opentelemetry_api import Context, Span, attach, detach, set_span_in_context

if TYPE_CHECKING:
    from agent_kernel_otel.operation import Operation

_current: ContextVar[Operation | None] = ContextVar("agent_kernel_otel.operation", default=None)
current_operation = _current.get
"""The operation on the stack, if its kernel's own code is running; foreign code sees ``None``."""
set_current = _current.set
"""Makes an operation, or none, current; :func:`come_back` is to be given what it returns."""


recorded_live: ContextVar[str | None] = ContextVar("agent_kernel_otel.recorded", default=None)
"""The action whose audit record is being written, by foreign code inside of its operation."""


def come_back(marker: Token[Operation | None]) -> bool:
    """Undo :data:`set_current`.

    Returns:
        Whether it could be: not where another context finalises a coroutine or a generator, in
        which nothing of ours is current.
    """
    try:
        _current.reset(marker)
    except ValueError:
        return False
    except LookupError:
        # A coroutine that was left in this very context, and was finalised meanwhile, has made
        # none current: which is what was to be done.
        pass
    return True


class Aside:
    """A block in which foreign code runs: no operation is current, and maybe another span is.

    Args:
        context: What to make current, from :func:`context_of`; ``None`` leaves it as it is.
    """

    __slots__ = ("_attached", "_context", "_marker")

    def __init__(self, context: Context | None = None) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._marker = set_current(None)
        if self._context is not None:
            self._attached = attach(self._context)

    def __exit__(self, *exc_info: object) -> None:
        if come_back(self._marker) and self._context is not None:
            detach(self._attached)


def context_of(span: Span | None) -> Context | None:
    """The current context with a span in it; ``None`` where there is no span."""
    return None if span is None else set_span_in_context(span)
