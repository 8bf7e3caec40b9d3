# SPDX-License-Identifier: Apache-2.0
"""Living with ``weaver_kernel.otel``, the kernel's own smaller instrumentation (0.9 on).

Its ``instrument_kernel`` puts closures on a kernel instance. Those must never give two spans for
one call, nor hide ours:

* Without providers of its own it goes the same way as ours, so that its tracer and instruments
  are muted for as long as we trace that kernel.
* With explicit providers it is a second destination that the app asked for, and is left alone.
* Closures made before ours hold the methods as they were then: they are pointed to ours.

Nothing here imports the kernel.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import metrics, trace

from agent_kernel_otel.faults import faults
from agent_kernel_otel.weaver.activation import active

_METHODS = ("invoke", "grant_capability")
_INSTRUMENTS = ("invocations", "duration_hist", "denials")


class _Mutable:
    """Something of OpenTelemetry that is silent while its kernel is traced by us.

    Args:
        real: What speaks otherwise.
        kernel: A weak reference to the kernel that it speaks of.
    """

    def __init__(self, real: Any, kernel: Callable[[], Any]) -> None:
        self._real = real
        self._kernel = kernel

    def _muted(self) -> bool:
        kernel = self._kernel()
        return kernel is not None and active(kernel) is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class MutableTracer(_Mutable):
    """The tracer of the kernel's own instrumentation."""

    def start_as_current_span(
        self, *args: Any, **kwargs: Any
    ) -> AbstractContextManager[trace.Span]:
        """A span, or one that records nothing and does not become current."""
        if self._muted():
            return nullcontext(trace.INVALID_SPAN)
        span: AbstractContextManager[trace.Span] = self._real.start_as_current_span(*args, **kwargs)
        return span


class MutableInstrument(_Mutable):
    """A counter or histogram of the kernel's own instrumentation."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Count, unless muted."""
        if not self._muted():
            self._real.add(*args, **kwargs)

    def record(self, *args: Any, **kwargs: Any) -> None:
        """Record, unless muted."""
        if not self._muted():
            self._real.record(*args, **kwargs)


class _MutableMeter(_Mutable):
    def create_counter(self, *args: Any, **kwargs: Any) -> MutableInstrument:
        return MutableInstrument(self._real.create_counter(*args, **kwargs), self._kernel)

    def create_histogram(self, *args: Any, **kwargs: Any) -> MutableInstrument:
        return MutableInstrument(self._real.create_histogram(*args, **kwargs), self._kernel)


class _TraceModule:
    """Stands for ``opentelemetry.trace`` in the kernel's module, and gives out mutable tracers."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trace, name)

    def get_tracer(self, *args: Any, **kwargs: Any) -> MutableTracer:
        return MutableTracer(trace.get_tracer(*args, **kwargs), _kernel_of_caller())


class _MetricsModule:
    """Stands for ``opentelemetry.metrics`` likewise."""

    def __getattr__(self, name: str) -> Any:
        return getattr(metrics, name)

    def get_meter(self, *args: Any, **kwargs: Any) -> _MutableMeter:
        return _MutableMeter(metrics.get_meter(*args, **kwargs), _kernel_of_caller())


def _kernel_of_caller() -> Callable[[], Any]:
    """The kernel that the built-in ``instrument_kernel`` is instrumenting just now.

    It gives its kernel to nobody, so it is read from that function's frame.
    """
    kernel = sys._getframe(2).f_locals.get("kernel")
    return (lambda: None) if kernel is None else weakref.ref(kernel)


class BuiltinCoexistence:
    """Mutes one module ``otel`` of the kernel, and points its earlier closures to ours.

    Args:
        module: ``weaver_kernel.otel`` or ``agent_kernel.otel``.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._names: dict[str, Any] = {}
        self._cells: list[tuple[Any, Any]] = []

    def install(self) -> None:
        """Mute it, for the kernels made so far and for those to come."""
        if getattr(self._module, "trace", None) is None or self._names:
            return
        for name, stand_in in (("trace", _TraceModule()), ("metrics", _MetricsModule())):
            self._names[name] = getattr(self._module, name)
            setattr(self._module, name, stand_in)
        self.adopt()

    def adopt(self) -> None:
        """Point the closures that hold methods from before ours to ours."""
        for kernel in list(getattr(self._module, "_INSTRUMENTED", ())):
            try:
                for method in _METHODS:
                    self._adopt(kernel, method)
            except Exception:  # noqa: PERF203 - one kernel's fault is not the next one's
                faults.swallow("taking over the kernel's own instrumentation")

    def remove(self) -> None:
        """Put back what was there."""
        for cell, content in reversed(self._cells):
            cell.cell_contents = content
        self._cells.clear()
        for name, real in self._names.items():
            setattr(self._module, name, real)
        self._names.clear()

    def _adopt(self, kernel: Any, method: str) -> None:
        closure = next(_closures_of_builtin(vars(kernel).get(method)), None)
        if closure is None:
            return
        cells = dict(zip(closure.__code__.co_freevars, closure.__closure__, strict=True))
        original = cells.get(f"original_{method.partition('_')[0]}")
        if original is not None:
            ours = getattr(type(kernel), method).__get__(kernel, type(kernel))
            self._put(original, ours)
        tracer = cells.get("tracer")
        if tracer is None or isinstance(tracer.cell_contents, _Mutable):
            return
        reference = weakref.ref(kernel)
        if _is_global_tracer(tracer.cell_contents):
            self._put(tracer, MutableTracer(tracer.cell_contents, reference))
        for name in _INSTRUMENTS:
            cell = cells.get(name)
            if cell is not None and _is_global_instrument(cell.cell_contents):
                self._put(cell, MutableInstrument(cell.cell_contents, reference))

    def _put(self, cell: Any, content: Any) -> None:
        self._cells.append((cell, cell.cell_contents))
        cell.cell_contents = content


def _closures_of_builtin(function: Any) -> Iterator[Any]:
    """The built-in's closure, also under wrappers that the app put over it."""
    while function is not None:
        if "instrument_kernel.<locals>" in getattr(function, "__qualname__", "") and hasattr(
            function, "__closure__"
        ):
            yield function
        function = getattr(function, "__wrapped__", None)


def _is_global_tracer(tracer: Any) -> bool:
    """Whether a tracer came from the global provider rather than from an explicit one."""
    if isinstance(tracer, (trace.ProxyTracer, trace.NoOpTracer)):
        return True
    ours = trace.get_tracer(__name__)
    return _pipeline(tracer) is not None and _pipeline(tracer) is _pipeline(ours)


def _pipeline(tracer: Any) -> Any:
    # A ProxyTracer, once a provider is set, hands on to that provider's own tracer.
    return getattr(getattr(tracer, "_tracer", tracer), "span_processor", None)


def _is_global_instrument(instrument: Any) -> bool:
    consumer = getattr(instrument, "_measurement_consumer", None)
    if consumer is None:
        return True
    ours = metrics.get_meter(__name__)
    return consumer is getattr(getattr(ours, "_real_meter", ours), "_measurement_consumer", None)
