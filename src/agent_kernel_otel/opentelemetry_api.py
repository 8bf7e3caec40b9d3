# SPDX-License-Identifier: Apache-2.0
"""All of OpenTelemetry that a call of a kernel may come to use, or stand-ins where it is missing.

Kernels are counted with and without OpenTelemetry. Where it is not installed nothing is told of a
call, so that no stand-in is ever asked to do anything; they are there to be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

missing: str | None = None
"""The module for want of which nothing is exported; ``None`` where OpenTelemetry is installed."""


class _Absent:
    """Stands for anything: it has every attribute and can be called, and nothing comes of it."""

    _TRACER_PROVIDER = _LOGGER_PROVIDER = None

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - anything
        return self


def is_missing(error: ImportError) -> bool:
    """Whether something could not be imported because OpenTelemetry, or a part, is missing."""
    name = error.name or ""
    if isinstance(error, ModuleNotFoundError):
        return name.partition(".")[0] == "opentelemetry"
    # Other distributions have modules in that namespace, and make it be there without the API.
    return name == "opentelemetry"


try:
    from opentelemetry import metrics, trace
    from opentelemetry._logs import SeverityNumber, get_logger_provider
    from opentelemetry._logs import _internal as logs_internal
    from opentelemetry.context import Context, attach, detach, get_current
    from opentelemetry.propagate import get_global_textmap, inject
    from opentelemetry.trace import (
        INVALID_SPAN,
        Link,
        NonRecordingSpan,
        NoOpTracer,
        Span,
        SpanContext,
        StatusCode,
        get_tracer_provider,
        set_span_in_context,
    )
except ImportError as error:
    if not is_missing(error):
        raise
    missing = error.name
    if not TYPE_CHECKING:
        metrics = trace = logs_internal = _Absent()
        Context = Link = NonRecordingSpan = NoOpTracer = SeverityNumber = Span = SpanContext = (
            StatusCode
        ) = _Absent()
        attach = detach = get_current = set_span_in_context = INVALID_SPAN = _Absent()
        get_logger_provider = get_tracer_provider = get_global_textmap = inject = _Absent()

try:
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled
except ImportError as error:
    if not is_missing(error):
        raise

    def is_instrumentation_enabled() -> bool:
        """Whether nobody asked instrumentations to be silent; as the missing function has it."""
        from opentelemetry import context  # noqa: PLC0415 - may be missing

        keys = context._SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation"
        return not any(map(context.get_value, keys))


__all__ = [
    "INVALID_SPAN",
    "Context",
    "Link",
    "NoOpTracer",
    "NonRecordingSpan",
    "SeverityNumber",
    "Span",
    "SpanContext",
    "StatusCode",
    "attach",
    "detach",
    "get_current",
    "get_global_textmap",
    "get_logger_provider",
    "get_tracer_provider",
    "inject",
    "is_instrumentation_enabled",
    "is_missing",
    "logs_internal",
    "metrics",
    "missing",
    "set_span_in_context",
    "trace",
]
