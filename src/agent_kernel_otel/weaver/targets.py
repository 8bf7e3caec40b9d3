# SPDX-License-Identifier: Apache-2.0
"""What is patched on the Weaver kernel, and all of it: the ``Kernel`` class and next to nothing else.

Each operation is wrapped. Each private collaborator attribute becomes a descriptor that hands
out a view while one of our operations runs, and the raw object at all other times. One function
beside the class is wrapped too, and only where its requests are to carry the trace context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.weaver import operations, propagation, quiet_views, store_views, views


@dataclass(frozen=True)
class Operation:
    """A public method of ``Kernel`` that is wrapped.

    Attributes:
        method: Its name.
        wrapper: Makes its wrapper, of the original.
        span: The span that it opens.
        in_all_releases: Whether every release has it; if so, its absence deserves a warning.
    """

    method: str
    wrapper: Callable[[Callable[..., Any]], operations.Wrapper]
    span: str
    in_all_releases: bool


@dataclass(frozen=True)
class Constructor:
    """What makes a ``Kernel``.

    Attributes:
        method: Its name.
        wrapper: Makes its wrapper, of the original.
    """

    method: str
    wrapper: Callable[[Callable[..., Any]], operations.Wrapper]


@dataclass(frozen=True)
class Seam:
    """A private attribute of ``Kernel`` through which it reaches a collaborator.

    Attributes:
        attribute: Its name.
        view: Makes what the kernel sees instead, of the call and the collaborator.
        operations: Spans of the operations in which it does.
        after_streams: Whether it does so even after a stream that was not read to its end: the
            kernel goes on when the event loop closes its generators.
        in_all_releases: Whether every release has it; if so, its absence deserves a warning.
    """

    attribute: str
    view: Callable[[Any, Any], Any]
    operations: frozenset[str]
    after_streams: bool = False
    in_all_releases: bool = True


@dataclass(frozen=True)
class OwnDriver:
    """A driver class of the kernel's that makes requests. It is not patched, but runs on a view.

    Attributes:
        path: The value of ``propagate_context`` that asks for the trace context in its requests.
        name: The class's name, under which the kernel exports it.
        view: Makes what its ``execute`` runs on.
        carrier: Where in the request the context goes.
    """

    path: str
    name: str
    view: type[propagation.DriverSelf]
    carrier: str


@dataclass(frozen=True)
class OwnFunction:
    """A function of the kernel's that makes requests, in the module of ``Kernel``.

    It is wrapped only where its requests are to carry the trace context.

    Attributes:
        path: As for :class:`OwnDriver`.
        name: The function's name.
        wrapper: Makes its wrapper, of the original.
        carrier: As for :class:`OwnDriver`.
    """

    path: str
    name: str
    wrapper: Callable[[Callable[..., Any]], operations.Wrapper]
    carrier: str


_INVOKE: Final = frozenset({semconv.INVOKE})

OPERATIONS: Final = (
    Operation("grant_capability", operations.grant, semconv.GRANT, in_all_releases=True),
    Operation("invoke", operations.invoke, semconv.INVOKE, in_all_releases=True),
    Operation("invoke_stream", operations.invoke_stream, semconv.INVOKE, in_all_releases=False),
    Operation("expand", operations.expand, semconv.EXPAND, in_all_releases=True),
    Operation("discover_peers", operations.discover_peers, semconv.DISCOVER, in_all_releases=False),
    Operation("import_remote", operations.import_remote, semconv.IMPORT, in_all_releases=False),
)

CONSTRUCTOR: Final = Constructor("__init__", operations.construct)
"""Wrapped so that a kernel is known before its first call, and its counts begin at 0."""

SEAMS: Final = (
    Seam("_policy", views.PolicyView, frozenset({semconv.GRANT})),
    Seam("_token_provider", views.token_provider_view, _INVOKE | {semconv.GRANT}),
    Seam("_router", views.router_view, _INVOKE),
    Seam("_drivers", views.drivers_view, _INVOKE),
    Seam("_firewall", views.firewall_view, _INVOKE),
    Seam("_handle_store", store_views.HandleStoreView, _INVOKE | {semconv.EXPAND}),
    Seam(
        "_trace_store",
        store_views.TraceStoreView,
        _INVOKE | {semconv.GRANT, semconv.EXPAND},
        after_streams=True,
    ),
    Seam("_budget_manager", views.BudgetView, _INVOKE, in_all_releases=False),
)

VIEWS: Final[dict[str, dict[str, Callable[[Any, Any], Any]]]] = {
    target.span: {seam.attribute: seam.view for seam in SEAMS if target.span in seam.operations}
    for target in OPERATIONS
}
"""The same table from the operations' side: their views by the name of their span."""

QUIET_VIEWS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "_drivers": quiet_views.QuietDriversView,
    "_handle_store": quiet_views.QuietHandleStoreView,
    "_trace_store": quiet_views.QuietTraceStoreView,
    "_budget_manager": views.BudgetView,
}
"""The views of an invocation that takes its usual course, and that nothing is told of."""

VIEWS_AFTER_STREAMS: Final = {seam.attribute: seam.view for seam in SEAMS if seam.after_streams}
"""The views that there are even after a stream."""

OWN_DRIVERS: Final = (
    OwnDriver("http", "HTTPDriver", propagation.HTTPDriverSelf, "headers"),
    OwnDriver("mcp", "MCPDriver", propagation.MCPDriverSelf, "`params._meta` of `tools/call`"),
)

OWN_FUNCTIONS: Final = (
    OwnFunction("federation", "perform_discover_peers", propagation.discover_peers, "headers"),
)


def senders_for(paths: frozenset[str]) -> dict[str, type[propagation.DriverSelf]]:
    """What the kernel's drivers run on, by the name of their class.

    Args:
        paths: The value of ``propagate_context``.
    """
    return {driver.name: driver.view for driver in OWN_DRIVERS if driver.path in paths}
