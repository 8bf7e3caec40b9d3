# SPDX-License-Identifier: Apache-2.0
"""What all views of collaborators have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_kernel_otel import semconv
from agent_kernel_otel.current import Aside, context_of
from agent_kernel_otel.faults import faults
from agent_kernel_otel.weaver.outcomes import error_type_of, is_failure

if TYPE_CHECKING:
    from agent_kernel_otel.weaver.calls import KernelCall


class View:
    """A stand-in for one collaborator during one call.

    Args:
        call: The call that is running.
        real: The collaborator.
    """

    __slots__ = ("_call", "_real")

    def __init__(self, call: Any, real: Any) -> None:
        self._call = call
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def inner_step(
    call: KernelCall,
    name: str,
    method: Any,
    args: Any,
    kwargs: Any,
    said: Any = None,
) -> Any:
    """Call a collaborator, as a span of its own at level ``debug``.

    Args:
        call: The call that is running.
        name: The span's name.
        method: What to call, with ``args`` and ``kwargs``.
        args: Its positional arguments.
        kwargs: Its arguments by keyword.
        said: Makes the span's attributes of its result.
    """
    span = call.open_child(name, {}) if call.debug else None
    try:
        with Aside(context_of(span)):
            result = method(*args, **kwargs)
    except BaseException as error:
        call.close_child(span, error_attributes(error), failed=is_failure(error))
        raise
    if span is not None:
        call.close_child(span, _describe_step(said, result))
    return result


def _describe_step(said: Any, result: Any) -> dict[str, Any]:
    try:
        described: dict[str, Any] = {} if said is None else said(result)
    except Exception:
        faults.swallow("describing an inner step")
        return {}
    return described


def error_attributes(error: BaseException) -> dict[str, Any]:
    """What a stage that raised says of it."""
    return {semconv.ERROR_TYPE: error_type_of(error)}
