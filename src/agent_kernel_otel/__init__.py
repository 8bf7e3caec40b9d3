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
from agent_kernel_otel.flushing import flush
from agent_kernel_otel.kernelstats import KernelStats, StatsSnapshot, stats, stats_of
from agent_kernel_otel.span_level import set_span_level

if TYPE_CHECKING:
    from agent_kernel_otel.events import SpanEventProcessor
    from agent_kernel_otel.weaver.instrumentor import KernelInstrumentor
    from agent_kernel_otel.weaver.logs import KernelLogFilter

__all__ = [
    "ConfigurationError",
    "InstrumentationConfig",
    "KernelInstrumentor",
    "KernelLogFilter",
    "KernelStats",
    "SpanEventProcessor",
    "StatsSnapshot",
    "__version__",
    "flush",
    "instrument_kernel",
    "kernel_stats",
    "set_span_level",
    "stats",
    "uninstrument_kernel",
]

_logger = logging.getLogger(__name__)

_LAZY = {
    "KernelInstrumentor": "agent_kernel_otel.weaver.instrumentor",
    "KernelLogFilter": "agent_kernel_otel.weaver.logs",
    "SpanEventProcessor": "agent_kernel_otel.events",
}
"""Public names that need OpenTelemetry, which an app may run without."""


def instrument_kernel(kernel: Any, **settings: Any) -> None:
    """Trace one kernel; see :func:`agent_kernel_otel.weaver.instrumentor.instrument_kernel`.

    Where OpenTelemetry is not installed this does nothing, and says so once at level INFO.

    Args:
        kernel: A Weaver kernel.
        **settings: ``tracer_provider``, ``logger_provider``, ``config``, or settings of
            :class:`InstrumentationConfig` one by one.

    Raises:
        TypeError: It is no Weaver kernel.
        ConfigurationError: A setting is unknown or its value cannot be read.
    """
    instrumentor = _weaver_instrumentor()
    if instrumentor is not None:
        instrumentor.instrument_kernel(kernel, **settings)


def kernel_stats(kernel: Any) -> KernelStats:
    """What one kernel did since it was first instrumented.

    Args:
        kernel: A Weaver kernel; the result keeps it alive.

    Raises:
        TypeError: It is no Weaver kernel.
    """
    from agent_kernel_otel.weaver.reading import kernel_class_of  # noqa: PLC0415

    kernel_class_of(kernel)
    return stats_of(kernel)


def uninstrument_kernel(kernel: Any) -> None:
    """Stop tracing one kernel; see :func:`instrument_kernel`.

    Args:
        kernel: A Weaver kernel.

    Raises:
        TypeError: It is no Weaver kernel.
    """
    instrumentor = _weaver_instrumentor()
    if instrumentor is not None:
        instrumentor.uninstrument_kernel(kernel)


def _weaver_instrumentor() -> Any:
    try:
        return importlib.import_module("agent_kernel_otel.weaver.instrumentor")
    except ModuleNotFoundError as error:
        if not _is_opentelemetry(error):
            raise
        _say_once(f"nothing is traced: {_how_to_install(error)}")
        return None


@functools.cache
def _say_once(line: str) -> None:
    _logger.info(line)


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if not _is_opentelemetry(error):
            raise
        raise ImportError(f"{name} needs OpenTelemetry: {_how_to_install(error)}") from None


def _is_opentelemetry(error: ModuleNotFoundError) -> bool:
    return (error.name or "").partition(".")[0] == "opentelemetry"


def _how_to_install(error: ModuleNotFoundError) -> str:
    package = {
        "opentelemetry.sdk": "opentelemetry-sdk",
        "opentelemetry.instrumentation": "opentelemetry-instrumentation",
    }.get(".".join((error.name or "").split(".")[:2]), "opentelemetry-api")
    return f"{error.name} is not installed; run: pip install {package}"
