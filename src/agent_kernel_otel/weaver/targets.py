# SPDX-License-Identifier: Apache-2.0
"""What is patched on the Weaver kernel, and all of it: the ``Kernel`` class and nothing else.

Each operation is wrapped. Each private collaborator attribute becomes a descriptor that hands
out a view while one of our operations runs, and the raw object at all other times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.operation import Views
from agent_kernel_otel.weaver import operations, views


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
class Seam:
    """A private attribute of ``Kernel`` through which it reaches a collaborator.

    Attributes:
        attribute: Its name.
        view: Makes what the kernel sees instead, of the call and the collaborator.
        operations: Spans of the operations in which it does.
        decides: Whether it makes policy decisions, which are told even of unsampled calls.
        in_all_releases: Whether every release has it; if so, its absence deserves a warning.
    """

    attribute: str
    view: Callable[[Any, Any], Any]
    operations: frozenset[str]
    decides: bool = False
    in_all_releases: bool = True


_INVOKE: Final = frozenset({semconv.INVOKE})

OPERATIONS: Final = (
    Operation("grant_capability", operations.grant, semconv.GRANT, in_all_releases=True),
    Operation("invoke", operations.invoke, semconv.INVOKE, in_all_releases=True),
    Operation("invoke_stream", operations.invoke_stream, semconv.INVOKE, in_all_releases=False),
    Operation("expand", operations.expand, semconv.EXPAND, in_all_releases=True),
    Operation("discover_peers", operations.discover_peers, semconv.DISCOVER, in_all_releases=False),
    Operation("import_remote", operations.import_remote, semconv.IMPORT, in_all_releases=False),
)

SEAMS: Final = (
    Seam("_policy", views.PolicyView, frozenset({semconv.GRANT}), decides=True),
    Seam("_token_provider", views.token_provider_view, _INVOKE | {semconv.GRANT}, decides=True),
    Seam("_router", views.router_view, _INVOKE),
    Seam("_drivers", views.drivers_view, _INVOKE),
    Seam("_firewall", views.FirewallView, _INVOKE),
    Seam("_handle_store", views.handle_store_view, _INVOKE | {semconv.EXPAND}),
    Seam("_trace_store", views.trace_store_view, _INVOKE | {semconv.GRANT, semconv.EXPAND}),
    Seam("_budget_manager", views.BudgetView, _INVOKE, in_all_releases=False),
)


def _views_in(operation: str, *, sampled: bool) -> dict[str, Callable[[Any, Any], Any]]:
    return {
        seam.attribute: seam.view
        for seam in SEAMS
        if operation in seam.operations and (sampled or seam.decides)
    }


VIEWS: Final = {
    target.span: Views(_views_in(target.span, sampled=True), _views_in(target.span, sampled=False))
    for target in OPERATIONS
}
"""The same table from the operations' side: their views by the name of their span."""
