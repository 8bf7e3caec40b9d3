# SPDX-License-Identifier: Apache-2.0
"""The spans."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.semconv.definitions import Level, SpanDefinition

SPANS: Final[dict[str, SpanDefinition]] = {}


def _span(name: str, opened_by: str, parent: str, level: Level = "info") -> str:
    SPANS[name] = SpanDefinition(name, level, opened_by, parent)
    return name


_CALLER = "the caller's span"

GRANT: Final = _span("agent_kernel.grant", "`Kernel.grant_capability` and `get_token`", _CALLER)
INVOKE: Final = _span(
    "agent_kernel.invoke", "`Kernel.invoke`; `Kernel.invoke_stream` (one span per stream)", _CALLER
)
EXPAND: Final = _span("agent_kernel.expand", "`Kernel.expand`", _CALLER)
DISCOVER: Final = _span("agent_kernel.federation.discover", "`Kernel.discover_peers`", _CALLER)
IMPORT: Final = _span("agent_kernel.federation.import", "`Kernel.import_remote`", _CALLER)
POLICY: Final = _span(
    "agent_kernel.policy.evaluate",
    "in a grant `PolicyEngine.evaluate`; in an invoke `TokenProvider.verify`, which enforces "
    "the signed decision",
    "grant or invoke",
)
DRIVER: Final = _span(
    "agent_kernel.driver.execute", "each attempt of a driver, so a fallback shows two", "invoke"
)
FIREWALL: Final = _span(
    "agent_kernel.firewall.apply",
    "`Firewall.transform`; for a stream one span for all of `apply_stream`",
    "invoke",
)
ROUTE: Final = _span("agent_kernel.route", "`Router.route`", "invoke", "debug")
BUDGET: Final = _span("agent_kernel.budget.allocate", "`BudgetManager.allocate`", "invoke", "debug")
HANDLE: Final = _span("agent_kernel.handle.store", "`HandleStore.store`", "invoke", "debug")
AUDIT: Final = _span(
    "agent_kernel.audit.record", "`TraceStore.record`", "grant, invoke or expand", "debug"
)
