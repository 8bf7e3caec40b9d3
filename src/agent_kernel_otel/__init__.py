# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry for agent kernels: every grant, invocation, denial and fallback as a span.

Zero code::

    pip install agent-kernel-otel
    opentelemetry-instrument python app.py

By code::

    from agent_kernel_otel import KernelInstrumentor

    KernelInstrumentor().instrument()  # every Weaver kernel, made before or after

    from agent_kernel_otel import instrument_kernel

    instrument_kernel(kernel)  # or one kernel only

    from agent_kernel_otel import set_span_level

    set_span_level("off")  # and on again later, without a restart

    from agent_kernel_otel import flush

    flush()  # before an end that nobody can see coming, such as os._exit()

What was counted, with and without OpenTelemetry::

    from agent_kernel_otel import kernel_stats, stats

    stats.snapshot().denials_by_reason  # of the process
    kernel_stats(kernel).snapshot().invocations  # of one kernel

From an audit record to its trace, and back::

    from agent_kernel_otel import action_id, trace_context

    trace_context(frame.action_id)  # the live span of an action
    action_id(span_context)  # the action that a span is

Audit records as spans, now or months later::

    from agent_kernel_otel import OTelTraceExporter, OTelTraceStore

    OTelTraceExporter().export(kernel.list_traces())  # records in hand
    Kernel(..., trace_store=OTelTraceStore(inner))  # each as it is written, with no patching

Not covered, on purpose: a ``Kernel`` subclass that overrides an operation without calling
``super()``, and drivers, policy engines, firewalls and token providers used outside a kernel.
Only calls of a kernel are traced, and its collaborators as the kernel calls them.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any

from agent_kernel_otel._version import __version__
from agent_kernel_otel.config import ConfigurationError, InstrumentationConfig
from agent_kernel_otel.correlation import action_id, trace_context
from agent_kernel_otel.flushing import flush
from agent_kernel_otel.kernelstats import KernelStats, StatsSnapshot, stats, stats_of
from agent_kernel_otel.span_level import set_span_level

if TYPE_CHECKING:
    from agent_kernel_otel.audit.exporter import ExportResult, OTelTraceExporter
    from agent_kernel_otel.audit.links import LinksFileExporter
    from agent_kernel_otel.audit.replay import replayed_context
    from agent_kernel_otel.audit.store import OTelTraceStore
    from agent_kernel_otel.events import SpanEventProcessor
    from agent_kernel_otel.weaver.instrumentor import KernelInstrumentor
    from agent_kernel_otel.weaver.logs import KernelLogFilter

__all__ = [
    "ConfigurationError",
    "ExportResult",
    "InstrumentationConfig",
    "KernelInstrumentor",
    "KernelLogFilter",
    "KernelStats",
    "LinksFileExporter",
    "OTelTraceExporter",
    "OTelTraceStore",
    "SpanEventProcessor",
    "StatsSnapshot",
    "__version__",
    "action_id",
    "flush",
    "instrument_kernel",
    "kernel_stats",
    "replayed_context",
    "set_span_level",
    "stats",
    "trace_context",
    "uninstrument_kernel",
]

_logger = logging.getLogger(__name__)

_LAZY = {
    "ExportResult": "agent_kernel_otel.audit.exporter",
    "KernelInstrumentor": "agent_kernel_otel.weaver.instrumentor",
    "KernelLogFilter": "agent_kernel_otel.weaver.logs",
    "LinksFileExporter": "agent_kernel_otel.audit.links",
    "OTelTraceExporter": "agent_kernel_otel.audit.exporter",
    "OTelTraceStore": "agent_kernel_otel.audit.store",
    "SpanEventProcessor": "agent_kernel_otel.events",
    "replayed_context": "agent_kernel_otel.audit.replay",
}
"""Public names that need OpenTelemetry, which an app may run without."""


def instrument_kernel(kernel: Any, **settings: Any) -> None:
    """Trace and count one kernel, whether or not all are.

    Calling it again, or under :class:`KernelInstrumentor`, does not give two spans for a call.
    Where OpenTelemetry is not installed the kernel is counted all the same (see
    :func:`kernel_stats`), and one line at level INFO says that nothing is exported.

    Args:
        kernel: A Weaver kernel.
        **settings: ``tracer_provider``, ``logger_provider``, ``meter_provider``, ``config``, or
            settings of :class:`InstrumentationConfig` one by one. Under a global instrumentation
            they hold for this kernel alone.

    Raises:
        TypeError: It is no Weaver kernel.
        ConfigurationError: A setting is unknown or its value cannot be read.
    """
    from agent_kernel_otel.opentelemetry_api import missing  # noqa: PLC0415 - only when asked
    from agent_kernel_otel.weaver import switching  # noqa: PLC0415 - only when asked

    switching.instrument_kernel(kernel, **settings)
    if missing is not None:
        _say_once(f"kernels are counted and nothing is exported: {_how_to_install(missing)}")


def uninstrument_kernel(kernel: Any) -> None:
    """Stop tracing and counting one kernel; under a global instrumentation it is opted out.

    Args:
        kernel: A Weaver kernel.

    Raises:
        TypeError: It is no Weaver kernel.
    """
    from agent_kernel_otel.weaver import switching  # noqa: PLC0415 - only when asked

    switching.uninstrument_kernel(kernel)


def kernel_stats(kernel: Any) -> KernelStats:
    """What one kernel did since it was first instrumented.

    Args:
        kernel: A Weaver kernel; the result keeps it alive.

    Raises:
        TypeError: It is no Weaver kernel.
    """
    from agent_kernel_otel.weaver.reading import kernel_class_of  # noqa: PLC0415 - only when asked

    kernel_class_of(kernel)
    return stats_of(kernel)


@functools.cache
def _say_once(line: str) -> None:
    _logger.info(line)


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        from agent_kernel_otel.opentelemetry_api import is_missing  # noqa: PLC0415 - only when asked

        if not is_missing(error):
            raise
        raise ImportError(f"{name} needs OpenTelemetry: {_how_to_install(error.name)}") from None


def _how_to_install(module: str | None) -> str:
    package = {
        "opentelemetry.sdk": "opentelemetry-sdk",
        "opentelemetry.instrumentation": "opentelemetry-instrumentation",
    }.get(".".join(str(module).split(".")[:2]), "opentelemetry-api")
    return f"{module} is not installed; run: pip install {package}"
