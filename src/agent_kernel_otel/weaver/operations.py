# SPDX-License-Identifier: Apache-2.0
"""The wrappers of the kernel's operations: each opens a call, lets the kernel run, and ends it.

Arguments pass through untouched, the original exception is raised again as it is, and where
nothing is to be traced the original is all that runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent_kernel_otel.faults import faults
from agent_kernel_otel.opentelemetry_api import get_current
from agent_kernel_otel.telemetry import is_suppressed
from agent_kernel_otel.weaver.activation import activation, active
from agent_kernel_otel.weaver.calls import KernelCall
from agent_kernel_otel.weaver.federation_calls import DiscoverCall, ImportCall
from agent_kernel_otel.weaver.grant_calls import ExpandCall, GrantCall
from agent_kernel_otel.weaver.invocation import InvokeCall
from agent_kernel_otel.weaver.streams import traced_stream

if TYPE_CHECKING:
    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]


class Shapes:
    """Tells calls that the kernel's method accepts from those that it refuses.

    A wrong call must raise the kernel's own ``TypeError``, at the call, and be neither span nor
    count. Binding a signature costs microseconds, so that each shape of call is bound once.

    Args:
        method: The original method, unbound.

    Attributes:
        accepted: Shapes that were accepted.
    """

    _REMEMBERED = 64

    def __init__(self, method: Callable[..., Any]) -> None:
        self._signature: inspect.Signature | None
        try:
            self._signature = inspect.signature(method)
        except (TypeError, ValueError):
            self._signature = None
        self.accepted: set[tuple[Any, ...]] = set()

    def accept(self, kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the method takes these arguments."""
        shape = (len(args), *kwargs)
        if shape in self.accepted:
            return True
        if self._signature is None:
            return True
        try:
            self._signature.bind(kernel, *args, **kwargs)
        except TypeError:
            return False
        if len(self.accepted) < self._REMEMBERED:
            self.accepted.add(shape)
        return True


def _begin(
    kind: Callable[..., KernelCall],
    instrumentation: WeaverInstrumentation,
    kernel: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    **options: Any,
) -> Any:
    """Open a call; ``None`` where we fail to.

    Where nothing listens, or the caller wants no spans, it is one that is counted only.
    """
    try:
        telling = instrumentation.telemetry.is_listening() and not is_suppressed(get_current())
        return kind(instrumentation, kernel, args, kwargs, telling=telling, **options)
    except Exception:
        faults.swallow("starting a call")
        return None


def _synchronous(kind: type[KernelCall], shapes: Shapes) -> Wrapper:
    def wrapper(
        wrapped: Callable[..., Any], kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        instrumentation = active(kernel)
        if instrumentation is None or not shapes.accept(kernel, args, kwargs):
            return wrapped(*args, **kwargs)
        call = _begin(kind, instrumentation, kernel, args, kwargs)
        if call is None:
            return wrapped(*args, **kwargs)
        call.enter()
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            call.finish(error=error)
            raise
        else:
            call.finish(result)
            return result
        finally:
            call.leave()

    return wrapper


def _asynchronous(kind: type[KernelCall], shapes: Shapes) -> Wrapper:
    async def traced(
        instrumentation: WeaverInstrumentation,
        wrapped: Callable[..., Any],
        kernel: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        call = _begin(kind, instrumentation, kernel, args, kwargs)
        if call is None:
            return await wrapped(*args, **kwargs)
        call.enter()
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            call.finish(error=error)
            raise
        else:
            call.finish(result)
            return result
        finally:
            call.leave()

    def wrapper(
        wrapped: Callable[..., Any], kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        # As active() and accept() do it for nearly all calls.
        instrumentation = active(kernel) if activation.choices else activation.everywhere
        if instrumentation is None or not (
            (len(args), *kwargs) in shapes.accepted or shapes.accept(kernel, args, kwargs)
        ):
            return wrapped(*args, **kwargs)
        return traced(instrumentation, wrapped, kernel, args, kwargs)

    return wrapper


def construct(original: Callable[..., Any]) -> Wrapper:  # noqa: ARG001 - as its siblings
    """Wrapper of ``Kernel.__init__``: a kernel that is made gets to be known."""

    def wrapper(
        wrapped: Callable[..., Any], kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = wrapped(*args, **kwargs)
        instrumentation = active(kernel)
        if instrumentation is not None:
            try:
                instrumentation.kernels.of(kernel)
            except Exception:
                faults.swallow("getting to know a kernel")
        return result

    return wrapper


def grant(original: Callable[..., Any]) -> Wrapper:
    """Wrapper of ``Kernel.grant_capability``, through which ``get_token`` goes too."""
    return _synchronous(GrantCall, Shapes(original))


def expand(original: Callable[..., Any]) -> Wrapper:
    """Wrapper of ``Kernel.expand``."""
    return _synchronous(ExpandCall, Shapes(original))


def import_remote(original: Callable[..., Any]) -> Wrapper:
    """Wrapper of ``Kernel.import_remote``."""
    return _synchronous(ImportCall, Shapes(original))


def discover_peers(original: Callable[..., Any]) -> Wrapper:
    """Wrapper of ``Kernel.discover_peers``."""
    return _asynchronous(DiscoverCall, Shapes(original))


def invoke(original: Callable[..., Any]) -> Wrapper:
    """Wrapper of ``Kernel.invoke``."""
    return _asynchronous(InvokeCall, Shapes(original))


def invoke_stream(original: Callable[..., Any]) -> Wrapper:  # noqa: ARG001 - as its siblings
    """Wrapper of ``Kernel.invoke_stream``: one call for the whole stream, begun at its first step."""

    def wrapper(
        wrapped: Callable[..., Any], kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        frames = wrapped(*args, **kwargs)
        # A foreign wrapper below ours may return anything; only a stream can be traced as one.
        if active(kernel) is None or not hasattr(frames, "__anext__"):
            return frames

        def begin() -> Any:
            instrumentation = active(kernel)
            if instrumentation is None:
                return None
            return _begin(InvokeCall, instrumentation, kernel, args, kwargs, stream=True)

        return traced_stream(frames, begin)

    return wrapper
