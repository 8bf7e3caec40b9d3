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

import gc
import inspect
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import CodeType, FunctionType, MethodType
from typing import Any

from agent_kernel_otel.faults import faults
from agent_kernel_otel.opentelemetry_api import metrics, trace
from agent_kernel_otel.weaver.activation import active

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
    try:
        return weakref.ref(kernel)
    except TypeError:  # not called by that function
        return lambda: None


class _Redirected:
    """Stands for a method that a closure took before ours: calls go through ours.

    Args:
        real: The bound method that the closure took.
    """

    def __init__(self, real: MethodType) -> None:
        self._real = real

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kernel = self._real.__self__
        ours = getattr(type(kernel), self._real.__name__)
        return ours.__get__(kernel, type(kernel))(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class BuiltinCoexistence:
    """Mutes one module ``otel`` of the kernel, and points its earlier closures to ours.

    Args:
        module: ``weaver_kernel.otel`` or ``agent_kernel.otel``.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._names: dict[str, Any] = {}
        # A closure holds its kernel, so that keeping the closure would keep the kernel.
        self._adopted: weakref.WeakSet[FunctionType] = weakref.WeakSet()

    def install(self) -> None:
        """Mute it, for the kernels made so far and for those to come."""
        if getattr(self._module, "trace", None) is None or self._names:
            return
        for name, stand_in in (("trace", _TraceModule()), ("metrics", _MetricsModule())):
            self._names[name] = getattr(self._module, name)
            setattr(self._module, name, stand_in)
        try:
            for closure in self._closures():
                self._adopt(closure)
        except Exception:
            faults.swallow("taking over the kernel's own instrumentation")

    def remove(self) -> None:
        """Put back what was there."""
        for closure in self._adopted:
            for cell in closure.__closure__ or ():
                if isinstance(cell.cell_contents, (_Redirected, _Mutable)):
                    cell.cell_contents = cell.cell_contents._real
        self._adopted.clear()
        for name, real in self._names.items():
            setattr(self._module, name, real)
        self._names.clear()

    def _closures(self) -> list[FunctionType]:
        """The closures made so far, also those that the app has wrapped or the module forgot.

        Those made while this is installed need no search: they took our methods and mute tracers.
        """
        maker = inspect.unwrap(self._module.instrument_kernel)
        bodies = [body for body in maker.__code__.co_consts if isinstance(body, CodeType)]
        unused = [body for body in _probe.__code__.co_consts if isinstance(body, CodeType)]
        if max(map(sys.getrefcount, bodies)) <= max(map(sys.getrefcount, unused)):
            return []  # nothing was made of them, and searching the heap takes milliseconds
        return [
            function
            for function in gc.get_referrers(*bodies)
            if isinstance(function, FunctionType) and function.__code__ in bodies
        ]

    def _adopt(self, closure: FunctionType) -> None:
        cells = dict(zip(closure.__code__.co_freevars, closure.__closure__ or (), strict=True))
        original = next((name for name in cells if name.startswith("original_")), None)
        kernel = None if original is None else _kernel_of(cells[original].cell_contents)
        package = self._module.__name__.rpartition(".")[0]
        kernel_class = getattr(sys.modules.get(f"{package}.kernel"), "Kernel", ())
        if original is None or not isinstance(kernel, kernel_class):
            return  # an app's wrapper hides whose it is: it speaks on, rather than nobody
        self._adopted.add(closure)
        if type(cells[original].cell_contents) is MethodType:
            cells[original].cell_contents = _Redirected(cells[original].cell_contents)
        reference = weakref.ref(kernel)
        tracer = cells.get("tracer")
        if tracer is None or not _is_global_tracer(tracer.cell_contents):
            return
        tracer.cell_contents = MutableTracer(tracer.cell_contents, reference)
        for name in _INSTRUMENTS:
            cell = cells.get(name)
            if cell is not None and _is_global_instrument(cell.cell_contents):
                cell.cell_contents = MutableInstrument(cell.cell_contents, reference)


def _probe() -> Any:
    """Holds the code of a function that is never made."""

    def unmade() -> None: ...


def _kernel_of(method: Any) -> Any:
    """The kernel that a closure's original belongs to; that may be a closure of its kind."""
    while isinstance(method, FunctionType):
        names = method.__code__.co_freevars
        taken = dict(zip(names, method.__closure__ or (), strict=True))
        inner = next((taken[name] for name in names if name.startswith("original_")), None)
        if inner is None:
            return None
        method = inner.cell_contents
    return getattr(method, "__self__", None)


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
